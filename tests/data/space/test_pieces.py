"""Parts of samples are those of the whole; what is damaged gives no byte of any part."""

import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.core.errors import DataError
from tandem.data.space import Space, pieces
from tandem.data.space.writer import SpaceWriter

PIECE = pieces.PIECE_BYTES
LARGE = bytes(range(251)) * (3 * PIECE // 251) + b"end"


def packed(folder: Path, *contents: bytes) -> Path:
    with SpaceWriter(folder / "s") as writer:
        for number, data in enumerate(contents):
            writer.add(f"{number}.bin", data)
        writer.commit()
    return folder / "s"


def flip(space: Path, number: int, place: int) -> None:
    """Change a byte of a sample, in the file that readers have open."""
    with Space.open(space) as opened:
        sample = opened.stat(number)
        shard = space / "shards" / opened.index.shards[sample.shard].file_name
    with shard.open("r+b") as file:
        file.seek(sample.offset + place)
        byte = file.read(1)[0]
        file.seek(sample.offset + place)
        file.write(bytes([byte ^ 1]))


@given(
    st.lists(st.binary(max_size=40), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 45), st.integers(0, 45)), max_size=12),
)
def test_a_part_is_that_of_the_whole(contents: list[bytes], asked: list[tuple[int, int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as scratch:
        patch.setattr(pieces, "PIECE_BYTES", 7)
        patch.setattr(pieces, "_KEPT_BYTES", 20)
        patch.setattr(pieces, "_KEPT_CHECKS", 1)
        with Space.open(packed(Path(scratch), *contents)) as space:
            for number, start, size in asked:
                data = contents[number % len(contents)]
                assert space.read_part(number % len(contents), start, size) == data[start : start + size]


def test_a_large_sample_is_the_same_in_parts_and_whole(tmp_path: Path) -> None:
    with Space.open(packed(tmp_path, b"", LARGE)) as space:
        assert b"".join(space.read_part(1, start, 100_000) for start in range(0, len(LARGE), 100_000)) == LARGE
        assert space.read_part(1, len(LARGE) - 2, 100) == b"nd"
        assert space.read_part(1, len(LARGE), 100) == space.read_part(0, 0, 100) == b""


def test_what_is_asked_wrongly_is_refused(tmp_path: Path) -> None:
    with Space.open(packed(tmp_path, b"abc")) as space:
        for start, size in ((-1, 2), (0, -1)):
            with pytest.raises(ValueError, match=f"{size} bytes from {start}"):
                space.read_part(0, start, size)
        with pytest.raises(IndexError):
            space.read_part(1, 0, 1)


@pytest.mark.parametrize("place", [0, PIECE - 1, PIECE, len(LARGE) - 1])
def test_damage_anywhere_in_a_sample_gives_no_part_of_it(tmp_path: Path, place: int) -> None:
    folder = packed(tmp_path, b"small", LARGE, b"other")
    flip(folder, 1, place)
    with Space.open(folder) as space:
        for start in (0, 2 * PIECE):
            with pytest.raises(DataError, match=r"sample 1, '1\.bin' of .*: its bytes are not those that were packed"):
                space.read_part(1, start, 10)
        assert space.read_part(2, 1, 3) == b"the"


def test_damage_after_a_sample_was_checked_is_found_in_its_piece(tmp_path: Path) -> None:
    folder = packed(tmp_path, LARGE)
    with Space.open(folder) as space:
        assert space.read_part(0, 0, 10) == LARGE[:10]
        flip(folder, 0, 2 * PIECE + 5)
        assert space.read_part(0, PIECE, 10) == LARGE[PIECE : PIECE + 10]
        with pytest.raises(DataError, match="sample 0"):
            space.read_part(0, 2 * PIECE, 1)


def test_a_shard_that_is_cut_short_or_missing_is_said(tmp_path: Path) -> None:
    folder = packed(tmp_path, LARGE)
    (shard,) = (folder / "shards").iterdir()
    with shard.open("r+b") as file:
        file.truncate(PIECE)
    with Space.open(folder) as space, pytest.raises(DataError, match="its shard is cut short"):
        space.read_part(0, 0, 10)
    shard.unlink()
    with Space.open(folder) as space, pytest.raises(DataError, match=r"the shard .* is missing"):
        space.read_part(0, 0, 10)


def test_no_more_is_kept_than_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_KEPT_BYTES", 2 * PIECE)
    with Space.open(packed(tmp_path, LARGE, b"x" * PIECE)) as space:
        read = pieces.Pieces(space.index, space._readers)
        for _ in range(2):
            for number, start in ((0, 0), (0, PIECE), (1, 0), (0, 2 * PIECE)):
                read.read(number, start, 1)
                assert read._kept_bytes == sum(map(len, read._kept.values())) <= 2 * PIECE


def test_threads_that_want_the_same_sample_all_get_it(tmp_path: Path) -> None:
    with Space.open(packed(tmp_path, LARGE)) as space:
        got: list[bytes] = []
        begin = threading.Barrier(8)

        def read(start: int) -> None:
            begin.wait(30)
            got.append(space.read_part(0, start, 3) + bytes([start % 256]))

        threads = [threading.Thread(target=read, args=(start,)) for start in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert sorted(got) == sorted(LARGE[start : start + 3] + bytes([start]) for start in range(8))
