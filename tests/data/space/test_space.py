"""Spaces written and read: by number, batch, path and prefix, by every reader."""

import pickle
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem import _native
from tandem.core.errors import DataError, SpaceError
from tandem.data.space import Space
from tandem.data.space.columns import joined
from tandem.data.space.writer import PartWriter, SpaceWriter, Target

HOWS = ["mapped", "pread", *(["uring", "direct"] if _native.has_io_uring() else []), "python"]
CONTENTS = {f"d{i % 7}/file{i:03d}.bin": random.Random(i).randbytes(i * i % 5000) for i in range(300)}


def made(folder: Path, contents: dict[str, bytes] = CONTENTS, *, shard_bytes: int = 100_000, parity: int = 0) -> Path:
    with SpaceWriter(folder, shard_bytes=shard_bytes) as writer:
        for path, data in contents.items():
            writer.add(path, data, mtime_ns=1_700_000_000_123_456_789, mode=0o100600)
        writer.commit(parity=parity)
    return folder


def as_once_written(folder: Path, contents: dict[str, bytes]) -> Path:
    """A space in which a file may lie below another."""
    target = Target(folder)
    part = PartWriter(target.pending, target.space_id)
    for path, data in contents.items():
        part.add(path, data)
    target.commit([part.finish()], lambda present, added: joined([present, added]))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("spaces") / "some.space")


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("threads", [1, 3])
def test_a_batch_has_the_bytes_that_were_packed_in_the_order_asked_for(folder: Path, how: str, threads: int) -> None:
    paths = list(CONTENTS)
    with Space.open(folder, how=how, threads=threads) as space:  # type: ignore[arg-type]
        assert len(space) == len(paths)
        numbers = np.random.default_rng(1).integers(0, len(space), 1000)
        batch = space.read_batch(numbers)
        assert [bytes(sample) for sample in batch] == [CONTENTS[paths[n]] for n in numbers]
        assert [bytes(sample) for sample in batch[7:2:-2]] == [CONTENTS[paths[n]] for n in numbers[7:2:-2]]
        assert space.read(5) == CONTENTS[paths[5]]
        assert len(space.read_batch([])) == 0


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("number", [-1, len(CONTENTS)])
def test_a_number_out_of_range_is_an_index_error(folder: Path, how: str, number: int) -> None:
    with Space.open(folder, how=how) as space:  # type: ignore[arg-type]
        with pytest.raises(IndexError, match=str(number)):
            space.read_batch([0, number])
        with pytest.raises(IndexError, match=str(number)):
            space.read(number)
        with pytest.raises(IndexError, match=str(number)):
            space.path(number)


def test_by_path_and_prefix(folder: Path) -> None:
    with Space.open(folder) as space:
        for number, path in enumerate(CONTENTS):
            assert space.number(path) == number
            assert space.path(number) == path
        wanted = sorted(path for path in CONTENTS if path.startswith("d3/"))
        assert [space.path(n) for n in space.under("d3/")] == wanted
        assert [space.path(int(n)) for n in space.numbers_under()] == sorted(CONTENTS)
        assert list(space.under("e")) == []
        assert "d1/file001.bin" in space
        assert "d1" not in space
        with pytest.raises(SpaceError, match=r"did you mean 'd1/file001\.bin'"):
            space.number("d1/file001.bim")
        for path in ("./d1/file001.bin", "/d1/file001.bin", "d0/../d1//file001.bin"):
            with pytest.raises(SpaceError, match=r"did you mean 'd1/file001\.bin'"):
                space.number(path)


def test_what_is_known_of_a_sample(folder: Path) -> None:
    with Space.open(folder) as space:
        sample = space.stat(9)
        assert (sample.size, sample.mtime_ns, sample.mode) == (81, 1_700_000_000_123_456_789, 0o100600)
        assert space.data_bytes == sum(map(len, CONTENTS.values()))


def test_pickled_it_opens_again(folder: Path) -> None:
    with Space.open(folder) as space, pickle.loads(pickle.dumps(space)) as other:
        assert other.generation == space.generation
        assert other.read(7) == space.read(7)


_PATH = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=30).filter(
        lambda part: part not in {".", ".."}
    ),
    min_size=1,
    max_size=4,
).map("/".join)


@given(st.dictionaries(_PATH, st.binary(max_size=600), max_size=20), st.integers(100, 2000))
def test_whatever_is_packed_comes_back(
    tmp_path_factory: pytest.TempPathFactory, contents: dict[str, bytes], shard_bytes: int
) -> None:
    folder = made(tmp_path_factory.mktemp("any") / "s", contents, shard_bytes=shard_bytes)
    for how in HOWS:
        with Space.open(folder, how=how) as space:  # type: ignore[arg-type]
            assert {space.path(n): space.read(n) for n in range(len(space))} == contents
            assert {path: space.read(space.number(path)) for path in contents} == contents
            assert [space.path(n) for n in space.under()] == sorted(contents, key=str.encode)


@pytest.mark.parametrize("path", ["", "/etc/passwd", "a/../b", "..", "a//b", "a/", "./a", "a\0b", "x" * 70_000])
def test_a_path_that_leads_elsewhere_is_refused(tmp_path: Path, path: str) -> None:
    with SpaceWriter(tmp_path / "s") as writer, pytest.raises(SpaceError, match="allowed: relative paths"):
        writer.add(path, b"x")


def test_a_path_of_4000_characters_and_one_with_newlines(tmp_path: Path) -> None:
    contents = {"/".join(["p" * 199] * 20): b"long", "a\nb\r\x1b/\udcff": b"odd", "\u00fc/\u4e16": b"wide"}
    with Space.open(made(tmp_path / "s", contents)) as space:
        assert {space.path(n): space.read(n) for n in range(3)} == contents


def test_no_space_is_said(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="is not a space: it has no file `current`; allowed: a folder that"):
        Space.open(tmp_path)
    with pytest.raises(SpaceError, match="is no folder"):
        Space.open(tmp_path / "nothing")


@pytest.mark.parametrize("part", ["generations", "shards/", "current", "generations/00000001.index"])
def test_a_part_of_a_space_is_no_space_and_the_space_is_named(tmp_path: Path, part: str) -> None:
    made(tmp_path / "s", {"a": b"x"})
    words = rf"{part} is not a space: .*; name the space that it is a part of: {tmp_path}/s$"
    with pytest.raises(SpaceError, match=words):
        Space.open(f"{tmp_path}/s/{part}")


def test_without_commit_nothing_is_there(tmp_path: Path) -> None:
    with SpaceWriter(tmp_path / "s") as writer:
        writer.add("a", b"x")
    with pytest.raises(SpaceError, match="not a space"):
        Space.open(tmp_path / "s")
    assert not list((tmp_path / "s" / "pending").glob("*/*"))


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    (tmp_path / "current").write_text("a file of another program")
    with pytest.raises(SpaceError, match="something else than a space"):
        SpaceWriter(tmp_path)


@pytest.mark.parametrize("how", HOWS)
def test_batches_outlive_the_space_and_a_closed_one_says_so(folder: Path, how: str) -> None:
    with Space.open(folder, how=how) as space:  # type: ignore[arg-type]
        batch = space.read_batch([3, 4])
        view = batch[1]
    del batch
    assert view == CONTENTS["d4/file004.bin"]
    with pytest.raises(ValueError, match="is closed"):
        space.read_batch([0])
    with pytest.raises(ValueError, match="is closed"):
        space.read(0)


def test_a_buffer_is_used_again_only_when_nobody_looks_at_it(folder: Path) -> None:
    with Space.open(folder, how="mapped") as space:
        first = space.read_batch([70])
        address = first.data_S.ctypes.data
        second = space.read_batch([71])
        assert second.data_S.ctypes.data != address
        view = first[0]
        del first
        third = space.read_batch([72])
        assert third.data_S.ctypes.data != address
        assert view == CONTENTS["d0/file070.bin"]
        del view
        assert space.read_batch([73]).data_S.ctypes.data == address
        idle = _native.idle_buffer_bytes()
        del third
        assert _native.idle_buffer_bytes() > idle


@pytest.mark.slow
def test_a_space_of_more_shards_than_files_may_be_open(tmp_path: Path) -> None:
    contents = {f"{i:04d}": bytes([i % 251]) * 100 for i in range(1300)}
    made(tmp_path / "s", contents, shard_bytes=150)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for how in ("auto", "mapped", "python"):
        with Space.open(tmp_path / "s", how=how) as space:  # type: ignore[arg-type]
            assert len(space.index.shards) == 1300
            batch = space.read_batch(range(1300))
            assert [bytes(one) for one in batch] == list(contents.values())
            assert len(list(Path("/proc/self/fd").iterdir())) < before + 520
    with (
        Space.open(tmp_path / "s", how="pread") as space,
        pytest.raises(DataError, match="not for more than 512 shards"),
    ):
        space.read_batch(range(1300))


@pytest.mark.parametrize(
    "wrong", [True, np.True_, np.array(True), 1.0, np.float64(1), "1", None, np.ma.array(1, mask=True), np.ma.masked]
)
def test_what_is_no_number_of_a_sample_reads_none(tmp_path: Path, wrong: object) -> None:
    made(tmp_path / "s", {"a": b"1", "b": b"2"})
    with Space.open(tmp_path / "s") as space:
        for numbers in ([0, wrong], (wrong, np.int64(1))):
            with pytest.raises(TypeError, match="the number of a sample is an integer, not"):
                space.read_batch(numbers)  # type: ignore[arg-type]
        for numbers in (np.asanyarray(wrong), [True, False]):
            with pytest.raises(TypeError, match="numbers of samples are"):
                space.read_batch(numbers)
        for ask in (space.read, space.path, space.stat):
            with pytest.raises(TypeError, match="the number of a sample is an integer, not"):
                ask(wrong)  # type: ignore[arg-type]
        assert len(space.read_batch([])) == 0


@pytest.mark.parametrize("one", [*(np.dtype(kind).type(1) for kind in "bBhHiIlLqQ"), np.array(1), np.ma.array(1)])
def test_integers_of_every_width_are_numbers_of_samples(tmp_path: Path, one: int) -> None:
    made(tmp_path / "s", {"a": b"1", "b": b"2"})
    with Space.open(tmp_path / "s") as space:
        assert space.read(one) == b"2"
        assert [bytes(data) for data in space.read_batch([one, 0])] == [b"2", b"1"]


def test_masked_numbers_are_refused_and_not_read_as_what_lies_below_the_mask(tmp_path: Path) -> None:
    made(tmp_path / "s", {"a": b"1", "b": b"2"})
    with Space.open(tmp_path / "s") as space:
        with pytest.raises(TypeError, match=r"a masked array, and some are masked; take its compressed\(\)"):
            space.read_batch(np.ma.array([0, 1], mask=[False, True]))
        assert [bytes(one) for one in space.read_batch(np.ma.array([1, 0]))] == [b"2", b"1"]


@pytest.mark.parametrize("number", [2**70, -(2**70), 2**63])
def test_a_number_beyond_what_fits_is_named(tmp_path: Path, number: int) -> None:
    made(tmp_path / "s", {"a": b"1"})
    with Space.open(tmp_path / "s") as space:
        for numbers in ([number], [number, -1], [-1, number]):
            with pytest.raises(IndexError, match=f"sample {number}: no space has so many"):
                space.read_batch(numbers)


def every_question(space: Space) -> list[Callable[[], object]]:
    return [
        lambda: space.read(0),
        lambda: space.read_batch([0]),
        lambda: space.read_part(0, 0, 1),
        lambda: space.path(0),
        lambda: space.stat(0),
        lambda: space.number("d0/file000.bin"),
        lambda: "d0/file000.bin" in space,
        lambda: list(space.under()),
    ]


@pytest.mark.parametrize("how", HOWS)
def test_a_closed_space_answers_nothing(folder: Path, how: str) -> None:
    with Space.open(folder, how=how) as space:  # type: ignore[arg-type]
        for ask in every_question(space):
            ask()
    for ask in every_question(space):
        with pytest.raises(ValueError, match="is closed"):
            ask()


@pytest.mark.parametrize("how", HOWS)
def test_what_is_no_number_is_said_alike_by_every_reader(folder: Path, how: str) -> None:
    wrong: list[Any] = [1.5, "1", None]
    with Space.open(folder, how=how) as space:  # type: ignore[arg-type]
        for ask in (space.read, space.path, space.stat):
            for number in wrong:
                with pytest.raises(TypeError, match=f"the number of a sample is an integer, not {number!r}"):
                    ask(number)
            with pytest.raises(IndexError, match=f"sample {10**30} of a space of {len(CONTENTS)}"):
                ask(10**30)
        assert space.read(np.int64(5)) == space.read(5)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"one row, not of the shape \(2, 2\)"):
            space.read_batch([[1, 2], [3, 4]])
        with pytest.raises(ValueError, match=r"one row, not \[\[1\], \[2, 3\]\]"):
            space.read_batch([[1], [2, 3]])
        with pytest.raises(IndexError, match=str(2**63)):
            space.read_batch([2**63])


@pytest.mark.parametrize("terms", [{"threads": 0}, {"threads": -1}, {"threads": 10**6}, {"how": "bogus"}], ids=str)
def test_terms_that_no_reader_knows_are_refused_at_once(folder: Path, terms: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="allowed: "):
        Space.open(folder, **terms)


def test_half_a_character_is_in_no_path(folder: Path) -> None:
    with Space.open(folder) as space:
        assert "\ud800" not in space
        assert list(space.under("\ud800")) == []
        with pytest.raises(SpaceError, match="has no sample"):
            space.number("\ud800x")


def test_a_writer_that_commits_nothing_leaves_no_trace(tmp_path: Path) -> None:
    with SpaceWriter(tmp_path / "s") as writer:
        writer.add("a", b"1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_writers_that_give_up_take_nothing_from_those_that_begin(tmp_path: Path) -> None:
    for turn in range(30):
        folder = tmp_path / str(turn)

        def write(number: int, folder: Path = folder) -> None:
            with SpaceWriter(folder) as writer:
                writer.add(str(number), b"%d" % number)
                if number % 3 == 0:
                    writer.commit()

        with ThreadPoolExecutor(6) as threads:
            list(threads.map(write, range(12)))
        with Space.open(folder) as space:
            assert {space.path(n): space.read(n) for n in space.under()} == {
                n: n.encode() for n in ("0", "3", "6", "9")
            }
        assert list((folder / "pending").iterdir()) == []
