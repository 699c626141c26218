"""Deleting, compacting, exporting and scrubbing; what readers hold stays."""

import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.core.errors import DataError, SpaceError
from tandem.data.space import Space, exporting
from tandem.data.space import space as space_module
from tandem.data.space.changing import compact, delete
from tandem.data.space.exporting import LeftOut, export
from tandem.data.space.scrub import scrub, unused_bytes
from tandem.data.space.writer import SpaceWriter
from tests import disks
from tests.data.space.test_space import CONTENTS, as_once_written, made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made(tmp_path / "s")


def contents(folder: Path) -> dict[str, bytes]:
    with Space.open(folder) as space:
        return {space.path(n): space.read(n) for n in range(len(space))}


def test_deleted_samples_are_gone_and_the_others_keep_their_order(folder: Path) -> None:
    assert delete(str(folder), ["d0/file000.bin"], prefix="d3/") == 1 + len([p for p in CONTENTS if p[:3] == "d3/"])
    left = {path: data for path, data in CONTENTS.items() if not path.startswith("d3/") and path != "d0/file000.bin"}
    assert list(contents(folder).items()) == list(left.items())
    assert unused_bytes(str(folder)) > sum(map(len, CONTENTS.values())) - sum(map(len, left.values()))


@pytest.mark.parametrize(("paths", "prefix"), [(["no"], None), ([], "no/"), (["d0/file000.bin", "no"], None)])
def test_deleting_what_is_not_there_is_refused_and_changes_nothing(
    folder: Path, paths: list[str], prefix: str | None
) -> None:
    with pytest.raises(SpaceError, match="no"):
        delete(str(folder), paths, prefix)
    assert contents(folder) == CONTENTS


def size(folder: Path) -> int:
    """Bytes of all its files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_what_compacting_moves_is_not_freed(folder: Path) -> None:
    delete(str(folder), prefix="d3/")
    before = size(folder)
    assert compact(str(folder)).freed_bytes == before - size(folder)


@pytest.mark.parametrize("place", ["", "generations", "parity", "shards"])
def test_compacting_removes_what_was_being_written_when_its_writer_was_killed(folder: Path, place: str) -> None:
    compact(str(folder))
    (folder / place).mkdir(exist_ok=True)
    aside = folder / place / ".4711-4712.aside"
    aside.write_bytes(bytes(5000))
    assert compact(str(folder)).freed_bytes == (5000 if place else 0)
    assert not aside.exists()
    assert unused_bytes(str(folder)) == 0


def test_compacting_removes_the_empty_folder_of_a_writer_that_was_killed_at_its_beginning_or_end(folder: Path) -> None:
    (folder / "pending" / ("0" * 32)).mkdir()
    compact(str(folder))
    assert not list((folder / "pending").iterdir())


def test_compacting_frees_what_was_deleted_but_not_under_a_reader(folder: Path) -> None:
    shards = sum(path.stat().st_size for path in (folder / "shards").iterdir())
    with Space.open(folder) as reader:
        delete(str(folder), prefix="d3/")
        for _ in range(2):
            assert compact(str(folder)) == (0, [1], shards, 0)
        assert {reader.path(n): reader.read(n) for n in range(len(reader))} == CONTENTS
    before = size(folder)
    freed, held, held_bytes, _ = compact(str(folder))
    left = {path: data for path, data in CONTENTS.items() if not path.startswith("d3/")}
    assert (held, held_bytes) == ([], 0)
    assert freed == before - size(folder) > shards  # with the index that the reader had
    assert list(contents(folder).items()) == list(left.items())
    assert unused_bytes(str(folder)) == 0
    held = sum(path.stat().st_size for path in (folder / "shards").iterdir())
    assert held - sum(map(len, left.values())) < 64 * 40
    assert len(list((folder / "generations").iterdir())) == 1
    assert list(scrub(str(folder))) == []


def test_compacting_a_whole_space_changes_nothing(folder: Path) -> None:
    before = sorted(path.name for path in (folder / "shards").iterdir())
    assert compact(str(folder), shard_bytes=100_000) == (0, [], 0, 0)
    assert sorted(path.name for path in (folder / "shards").iterdir()) == before


def test_compacting_takes_times_and_modes_along(folder: Path) -> None:
    with Space.open(folder) as space:
        before = {s.path: (s.mtime_ns, s.mode, s.checksum) for s in map(space.stat, range(len(space)))}
    delete(str(folder), ["d0/file000.bin"])
    compact(str(folder))
    with Space.open(folder) as space:
        after = {s.path: (s.mtime_ns, s.mode, s.checksum) for s in map(space.stat, range(len(space)))}
    assert after == {path: known for path, known in before.items() if path != "d0/file000.bin"}


def test_a_damaged_sample_is_not_moved(folder: Path) -> None:
    with Space.open(folder) as space:
        sample = space.stat(102)
        shard = folder / "shards" / space.index.shards[sample.shard].file_name
    with shard.open("r+b") as file:
        file.seek(sample.offset)
        file.write(b"\xff\x00\xff")
    delete(str(folder), prefix="d3/")
    with pytest.raises(DataError, match=f"'{sample.path}' of"):
        compact(str(folder))
    assert not list((folder / "pending").iterdir())


def test_what_another_removes_meanwhile_is_of_no_size(folder: Path) -> None:
    (folder / "shards" / "gone.shard").symlink_to("nothing")  # as what is listed, and not there any more
    assert unused_bytes(str(folder)) == 0
    assert compact(str(folder), shard_bytes=100_000) == (0, [], 0, 0)
    assert contents(folder) == CONTENTS


def test_small_shards_are_joined(tmp_path: Path) -> None:
    for number in range(5):
        with SpaceWriter(tmp_path / "s") as writer:
            writer.add(f"p{number}", bytes([number]) * 100)
            writer.commit()
    compact(str(tmp_path / "s"))
    assert len(list((tmp_path / "s" / "shards").iterdir())) == 1
    assert contents(tmp_path / "s") == {f"p{n}": bytes([n]) * 100 for n in range(5)}


_CHANGE = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 9), st.binary(max_size=50)),
    st.tuples(st.just("delete"), st.integers(0, 9), st.just(b"")),
    st.tuples(st.just("compact"), st.just(0), st.just(b"")),
)


@settings(max_examples=30)
@given(st.lists(_CHANGE, max_size=12))
def test_a_space_is_what_a_dictionary_is(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str, int, bytes]]
) -> None:
    folder = tmp_path_factory.mktemp("model") / "s"
    with SpaceWriter(folder, shard_bytes=200) as writer:
        writer.commit()
    model: dict[str, bytes] = {}
    for kind, number, data in changes:
        path = f"path{number}"
        if kind == "add" and path not in model:
            with SpaceWriter(folder, shard_bytes=200) as writer:
                writer.add(path, data)
                writer.commit()
            model[path] = data
        elif kind == "delete" and path in model:
            delete(str(folder), [path])
            del model[path]
        elif kind == "compact":
            compact(str(folder), shard_bytes=200)
        assert list(contents(folder).items()) == list(model.items())
    assert list(scrub(str(folder))) == []


def test_export_gives_the_files_back(folder: Path, tmp_path: Path) -> None:
    with Space.open(folder) as space:
        assert export(space, str(tmp_path / "out")) == len(CONTENTS)
        written = {str(p.relative_to(tmp_path / "out")): p for p in (tmp_path / "out").rglob("*") if p.is_file()}
        assert {path: file.read_bytes() for path, file in written.items()} == CONTENTS
        stats = {(file.stat().st_mtime_ns, file.stat().st_mode) for file in written.values()}
        assert stats == {(1_700_000_000_123_456_789, 0o100600)}
        taken = written["d3/file101.bin"]
        taken.write_bytes(b"of somebody")
        with pytest.raises(FileExistsError, match=taken.name):
            export(space, str(tmp_path / "out"))
        assert taken.read_bytes() == b"of somebody"
        assert export(space, str(tmp_path / "part"), "d3/file1") == 15


@pytest.mark.parametrize("harm", [None, 0, 6_000, 9_999])
def test_what_is_too_large_to_hold_is_exported_in_pieces_and_never_in_part(
    harm: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_BATCH_BYTES", 5_000)
    monkeypatch.setattr(space_module, "_PART_BYTES", 4_000)
    data = {"a": os.urandom(10_000), "b": os.urandom(100), "c": os.urandom(5_001)}
    with SpaceWriter(tmp_path / "s") as writer:
        for path, content in data.items():
            writer.add(path, content)
        writer.commit()
    (shard,) = (tmp_path / "s" / "shards").iterdir()
    if harm is not None:
        at = shard.read_bytes().index(data["a"]) + harm
        with shard.open("r+b") as file:
            file.seek(at)
            file.write(bytes([data["a"][harm] ^ 1]))
    left: list[int] = []
    with Space.open(tmp_path / "s") as space:
        for _ in range(2):
            export(space, str(tmp_path / "out"), left_out=lambda number, _error: left.append(number))
    there = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert there == {path: content for path, content in data.items() if harm is None or path != "a"}
    assert left == ([] if harm is None else [0, 0])


@pytest.mark.parametrize("nameless", [True, False])
def test_what_is_exported_already_is_not_written_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nameless: bool
) -> None:
    if not nameless:  # a file system without O_TMPFILE
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_CREAT)
    with Space.open(folder) as space:
        export(space, str(tmp_path / "out"))
        monkeypatch.setattr(os, "write", lambda *_: pytest.fail("it was written again"))
        assert export(space, str(tmp_path / "out")) == len(CONTENTS)


@pytest.mark.parametrize("nameless", [True, False])
def test_export_goes_on_where_it_was(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nameless: bool
) -> None:
    if not nameless:  # a file system without O_TMPFILE
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_CREAT)
    out = tmp_path / "out"
    with Space.open(folder) as space:
        export(space, str(out), "d0/")
        begun = {file: file.stat().st_ino for file in out.rglob("*.bin")}
        assert export(space, str(out)) == len(CONTENTS)
        assert {file: file.stat().st_ino for file in begun} == begun
        written = {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}
        assert written == CONTENTS


@pytest.mark.parametrize("nameless", [True, False])
def test_export_tells_what_is_in_the_way_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nameless: bool
) -> None:
    if not nameless:
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_CREAT)
    out, long = tmp_path / "out", "n" * 256
    (out / "folder").mkdir(parents=True)
    (out / "link").symlink_to(tmp_path)
    (out / "other").write_bytes(b"mine")
    paths = ["a", "a/b", "folder", "link/x", "other", f"{long}/z", "last"]
    told: dict[str, LeftOut] = {}
    with Space.open(as_once_written(tmp_path / "s", {path: path.encode() for path in paths})) as space:
        assert export(space, str(out), left_out=lambda number, error: told.update({space.path(number): error})) == 2
    assert {path: type(error) for path, error in told.items()} == {
        "a/b": NotADirectoryError,
        "folder": FileExistsError,
        "link/x": SpaceError,
        "other": FileExistsError,
        f"{long}/z": SpaceError,
    }
    assert [(out / name).read_bytes() for name in ("a", "other", "last")] == [b"a", b"mine", b"last"]
    assert not (tmp_path / "x").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_full_disk_leaves_only_whole_files(tmp_path: Path) -> None:
    files = {f"{k:02d}": bytes([k]) * 300_000 for k in range(10)}
    with disks.small(tmp_path / "disk", 1) as disk, Space.open(made(tmp_path / "s", files)) as space:
        with pytest.raises(OSError, match="No space left"):
            export(space, str(disk / "out"))
        left = {path.name: path.read_bytes() for path in (disk / "out").iterdir()}
    assert 0 < len(left) < len(files)
    assert left == {name: files[name] for name in left}


@pytest.mark.parametrize("part", ["shards", "pending/below", "files"])
def test_nothing_else_is_written_into_a_space(folder: Path, part: str) -> None:
    with Space.open(folder) as space, pytest.raises(SpaceError, match=f"which lies in the space {folder}; "):
        export(space, str(folder / part))
    if part != "shards":
        with pytest.raises(SpaceError, match=f"which lies in the space {folder}; "):
            made(folder / part)
    assert contents(folder) == CONTENTS
    (folder.parent / "current").write_text("a file of another program")
    made(folder.parent / "beside", {"a": b"1"})


@pytest.mark.parametrize("below", ["", "below"])
def test_export_says_where_there_is_no_folder(folder: Path, tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with (
        Space.open(folder) as space,
        pytest.raises(SpaceError, match="which is a file, or below one"),
    ):
        export(space, str(tmp_path / "file" / below))


def test_export_stays_in_its_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "d0").symlink_to(tmp_path / "elsewhere")
    with Space.open(folder) as space:
        with pytest.raises(SpaceError, match="a link"):
            export(space, str(tmp_path / "out"))
        with pytest.raises(SpaceError, match="which is a space"):
            export(space, str(folder))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_export_names_a_path_that_is_too_long(tmp_path: Path) -> None:
    long = "d/" * 1990 + "f"
    with Space.open(made(tmp_path / "s", {long: b"deep", "short": b"1"})) as space:
        with pytest.raises(SpaceError, match="would be a path of"):
            export(space, str(tmp_path / ("o" * 200)))
        assert export(space, str(tmp_path / "part"), "short") == 1


def test_scrub_finds_nothing_in_a_whole_space(folder: Path) -> None:
    told: list[tuple[int, int]] = []
    assert list(scrub(str(folder), lambda done, of: told.append((done, of)))) == []
    assert told[-1][0] == told[-1][1] > 0


@pytest.mark.slow
def test_scrub_finds_one_flipped_bit_in_any_region_of_any_file(folder: Path) -> None:
    delete(str(folder), prefix="d3/")  # so that there are dead bytes too
    (folder / "generations" / "00000001.index").unlink()
    rng = random.Random(11)
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    assert len(files) > 5
    for path in files:
        whole = path.read_bytes()
        for place in {0, 9, 20, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(20))}:
            damaged = bytearray(whole)
            damaged[place] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged)
            try:
                found = list(scrub(str(folder)))
            except SpaceError:
                assert place < 8, (path, place)  # it looks like something else
                found = [None]  # type: ignore[list-item]
            assert found, (path, place)
        path.write_bytes(whole)
    assert list(scrub(str(folder))) == []


def test_scrub_names_the_sample_and_the_shard(folder: Path) -> None:
    with Space.open(folder) as space:
        sample = space.stat(101)
        entries = space.index.shards
    flipped = folder / "shards" / entries[sample.shard].file_name
    data = bytearray(flipped.read_bytes())
    data[sample.offset + 1] ^= 4
    flipped.write_bytes(data)
    other = (sample.shard + 1) % len(entries)
    cut = folder / "shards" / entries[other].file_name
    os.truncate(cut, entries[other].size - 1)
    found = list(scrub(str(folder)))
    assert ("sample", str(flipped), 101, sample.path) in {one[:4] for one in found}
    assert ("shard", str(cut), None, None) in {one[:4] for one in found}
    (last,) = [one for one in found if one.what == "sample" and one.number != 101]
    assert (last.file, "its shard is cut short" in last.message) == (str(cut), True)
