"""Damage of every kind is said, names what it hit, and no damaged byte is ever returned."""

import fcntl
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tandem.core.errors import DataError, NewerVersionError, SpaceError, TandemError
from tandem.data.space import Space, layout
from tandem.data.space.changing import compact, delete
from tandem.data.space.guarding import parity_path
from tandem.data.space.repair import repair
from tandem.data.space.scrub import Finding, scrub, unused_bytes
from tandem.data.space.writer import SpaceWriter
from tests.data.space.test_space import CONTENTS, HOWS, made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made(tmp_path / "s")


def shards(folder: Path) -> list[Path]:
    return sorted((folder / "shards").iterdir())


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


@pytest.mark.parametrize("how", HOWS)
def test_a_flipped_bit_in_a_sample_raises_and_names_it(folder: Path, how: str) -> None:
    with Space.open(folder) as space:
        sample = space.stat(space.number("d3/file101.bin"))
        shard = folder / "shards" / space.index.shards[sample.shard].file_name
    flip(shard, 8 * (sample.offset + sample.size // 2) + 3)
    with Space.open(folder, how=how) as space:  # type: ignore[arg-type]
        told = f"sample 101, 'd3/file101.bin' of {folder}: its bytes are not those that were packed"
        with pytest.raises(DataError, match=told):
            space.read_batch([5, 101, 7])
        with pytest.raises(DataError, match=told):
            space.read(101)
        assert space.read(100) == CONTENTS["d2/file100.bin"]


@pytest.mark.parametrize("how", HOWS)
def test_of_two_damaged_samples_the_first_asked_for_is_named(folder: Path, how: str) -> None:
    for number in (40, 201):
        with Space.open(folder) as space:
            sample = space.stat(number)
            flip(folder / "shards" / space.index.shards[sample.shard].file_name, 8 * sample.offset)
    with Space.open(folder, how=how, threads=2) as space:  # type: ignore[arg-type]
        for first, second in ((40, 201), (201, 40)):
            with pytest.raises(DataError, match=f"sample {first},"):
                space.read_batch([*range(30), first, *range(100, 150), second])


def everything_read(folder: Path) -> dict[str, bytes]:
    """What a careful reader of all of it gets."""
    with Space.open(folder) as space:
        return {space.path(n): space.read(n) for n in space.under()}


def everything_known(folder: Path) -> None:
    """Look at every part of the index."""
    with Space.open(folder) as space:
        for error in space.index.verify():
            raise error


@pytest.mark.slow
@pytest.mark.parametrize("which", ["current", "generations/00000001.index"])
def test_a_flipped_bit_anywhere_in_current_or_index_is_detected(folder: Path, which: str) -> None:
    whole = (folder / which).read_bytes()
    rng = random.Random(5)
    for place in range(len(whole)) if len(whole) < 600 else sorted(rng.sample(range(len(whole)), 600)):
        flip(folder / which, 8 * place + rng.randrange(8))
        try:
            read = everything_read(folder)
        except TandemError:
            pass
        else:  # a bit of a time or a mode: no byte that is read depends on it
            assert read == CONTENTS
        with pytest.raises(TandemError):
            everything_known(folder)
        (folder / which).write_bytes(whole)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("left", [0, 1, 63, 64, 5000])
def test_a_truncated_shard_is_named(folder: Path, how: str, left: int) -> None:
    with Space.open(folder) as space:
        first = folder / "shards" / space.index.shards[0].file_name
    os.truncate(first, left)
    with Space.open(folder, how=how) as space, pytest.raises(DataError) as told:  # type: ignore[arg-type]
        space.read_batch(range(len(space)))
    assert str(first) in str(told.value)
    assert f"{left:,} bytes instead of" in str(told.value)
    with Space.open(folder, how=how) as space:  # type: ignore[arg-type]
        before = [n for n in range(len(space)) if space.stat(n).shard == 0 and sum(space.index.place(n)[2:]) <= left]
        assert [bytes(b) for b in space.read_batch(before)] == [CONTENTS[space.path(n)] for n in before]


@pytest.mark.parametrize("how", HOWS)
def test_a_missing_shard_is_named(folder: Path, how: str) -> None:
    gone = shards(folder)[1]
    gone.unlink()
    with Space.open(folder, how=how) as space, pytest.raises(DataError, match=f"{gone} is missing"):  # type: ignore[arg-type]
        space.read_batch(range(len(space)))


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("why", ["Too many levels of symbolic links", "No such device or address"])
def test_a_shard_that_cannot_be_opened_is_not_called_missing(
    folder: Path, how: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Space.open(folder) as space:
        entry = space.index.shards[space.stat(0).shard]
        lost = [number for number in range(len(space)) if space.stat(number).shard == space.stat(0).shard]
    shard = folder / "shards" / entry.file_name
    shard.unlink()
    if why.startswith("Too"):
        shard.symlink_to(shard)  # what permissions are to users who are not root
    else:
        monkeypatch.chdir(shard.parent)  # a socket's path must be short
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(shard.name)  # it stays there, and cannot be opened
    words = f"the shard {shard} cannot be read: {why}"
    with Space.open(folder, how=how) as space, pytest.raises(DataError, match=words):  # type: ignore[arg-type]
        space.read(0)
    found = list(scrub(str(folder)))
    assert found[0] == Finding("shard", str(shard), None, None, words)
    assert [one.number for one in found[1:]] == lost


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("threads", [1, 3])
def test_a_shard_truncated_while_it_is_open_raises_and_never_kills(folder: Path, how: str, threads: int) -> None:
    with Space.open(folder, how=how, threads=threads) as space:  # type: ignore[arg-type]
        space.read_batch(range(len(space)))  # all shards are open, and mapped
        for shard in shards(folder):
            os.truncate(shard, 4096)
        with pytest.raises(DataError, match="its shard is cut short"):
            space.read_batch(range(len(space)))
        with pytest.raises(DataError, match="its shard is cut short"):
            space.read(299)
        small = [n for n in range(len(space)) if space.stat(n).offset + space.stat(n).size <= 4096]
        assert [bytes(b) for b in space.read_batch(small)] == [CONTENTS[space.path(n)] for n in small]


def test_an_index_truncated_while_it_is_mapped_raises(folder: Path) -> None:
    with Space.open(folder, how="mapped") as space:
        space.read(0)
        with (folder / "generations" / "00000001.index").open("r+b") as file:
            file.truncate(0)
        with pytest.raises(DataError, match="index is cut short"):
            space.read_batch(range(len(space)))


FAULTS = """
import faulthandler, mmap, os, sys
from tandem.data.space import Space
space = Space.open(sys.argv[1], how="mapped")
space.read(1)
if sys.argv[2] == "late":
    faulthandler.enable()
    space.read(1)
with open(sys.argv[1] + "/own", "wb+") as file:
    file.truncate(8192)
    own = mmap.mmap(file.fileno(), 8192)
    file.truncate(0)
print("reads", flush=True)
own[4096]
"""


@pytest.mark.parametrize("handler", ["none", "late"])
def test_a_fault_that_is_not_the_readers_still_ends_the_process(folder: Path, handler: str) -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS, folder, handler], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("reads\n", -7)
    assert ("Bus error" in done.stderr) == (handler == "late")  # whoever handled it before is asked


@pytest.mark.parametrize("left", [0, 11, 100, 255])
def test_a_truncated_index_is_said(folder: Path, left: int) -> None:
    os.truncate(folder / "generations" / "00000001.index", left)
    with pytest.raises(DataError, match=r"00000001\.index"):
        Space.open(folder)


def test_a_missing_index_is_said(folder: Path) -> None:
    (folder / "generations" / "00000001.index").unlink()
    with pytest.raises(DataError, match=r"00000001\.index is missing"):
        Space.open(folder)


def test_files_of_another_space_are_not_taken_for_ones_own(folder: Path, tmp_path: Path) -> None:
    other = made(tmp_path / "other")
    shutil.copy(other / "generations" / "00000001.index", folder / "generations")
    with pytest.raises(DataError, match="is not the index that"):
        Space.open(folder)


def newer(packed: bytes) -> bytes:
    """A file with its header's version raised, and the header sealed again."""
    size = int.from_bytes(packed[12:16], "little")
    head = packed[:8] + (layout.VERSION + 1).to_bytes(4, "little") + packed[12 : size - 8]
    return layout.sealed(head) + packed[size:]


@pytest.mark.parametrize("which", ["current", "generations/00000001.index"])
def test_a_flipped_bit_of_the_version_is_damage_and_no_newer_version(folder: Path, which: str) -> None:
    flip(folder / which, 8 * 8 + 2)
    with pytest.raises(DataError, match="its header is damaged"):
        Space.open(folder)


@pytest.mark.parametrize("which", ["current", "generations/00000001.index"])
def test_a_newer_version_is_refused_in_words(folder: Path, which: str) -> None:
    (folder / which).write_bytes(newer((folder / which).read_bytes()))
    with pytest.raises(
        SpaceError, match=r"written in version 2 of the format; allowed: versions up to 1; install a newer"
    ):
        Space.open(folder)


@pytest.mark.parametrize("with_parity", [False, True])
@pytest.mark.parametrize("which", ["current", "generations/*", "shards/*", "parity/*.parity"])
def test_a_newer_version_is_not_repaired(folder: Path, which: str, with_parity: bool) -> None:
    if with_parity:
        with SpaceWriter(folder) as writer:
            writer.commit(parity=1)
        (folder / "generations" / "00000001.index").unlink()
    for path in folder.glob(which):
        path.write_bytes(newer(path.read_bytes()))
        before = path.read_bytes()
        for fetch in (None, lambda paths: CONTENTS):
            with pytest.raises(NewerVersionError, match="install a newer"):
                repair(str(folder), fetch)
        assert path.read_bytes() == before


def test_a_shard_of_a_newer_version_is_called_so_and_not_read(folder: Path) -> None:
    path = shards(folder)[0]
    path.write_bytes(newer(path.read_bytes()))
    (found,) = scrub(str(folder))
    assert (found.what, found.file) == ("newer", str(path))
    assert "was written in version 2 of the format" in found.message
    with Space.open(folder) as space:
        shard = [entry.file_name for entry in space.index.shards].index(path.name)
        number = next(n for n in range(1, len(space)) if space.index.place(n)[1] == shard)  # the first one is empty
        for read in (lambda: space.read(number), lambda: space.read_part(number, 0, 1)):
            with pytest.raises(NewerVersionError, match=f"{path} was written in version 2"):
                read()


@pytest.mark.parametrize("harm", [bytes, lambda size: b"\x7fELF" * (size // 4)], ids=["zeros", "something else"])
def test_a_lost_beginning_of_the_index_is_damage(folder: Path, harm: Callable[[int], bytes]) -> None:
    path = folder / "generations" / "00000001.index"
    path.write_bytes(harm(2000) + path.read_bytes()[2000:])
    with pytest.raises(DataError, match=r"00000001\.index: its header is damaged"):
        Space.open(folder)
    assert [one.what for one in scrub(str(folder))] == ["index"]
    assert [one.what for one in repair(str(folder)).left] == ["index"]


@pytest.mark.parametrize("harm", [bytes, lambda size: b"\x7fELF" * (size // 4)], ids=["zeros", "something else"])
def test_a_lost_file_current_is_damage_and_says_how_to_get_it_back(folder: Path, harm: Callable[[int], bytes]) -> None:
    (folder / "current").write_bytes(harm(layout.CURRENT_BYTES))
    with pytest.raises(DataError, match=r"its header is damaged; .*; run: tandem data repair"):
        Space.open(folder)
    assert [one.what for one in scrub(str(folder))] == ["current"]
    assert repair(str(folder)).left == []
    with Space.open(folder) as space:
        assert len(space) == len(CONTENTS)


def every_change(folder: Path) -> list[Callable[[], object]]:
    return [
        lambda: repair(str(folder)),
        lambda: made(folder, {"new": b""}),
        lambda: delete(str(folder), prefix="d3/"),
        lambda: compact(str(folder)),
    ]


def unopened(folder: Path, which: str, words: str) -> Finding:
    """What a check says of a space that cannot be opened."""
    what, file = ("current", folder / which) if which == "current" else ("index", folder)
    unseen = "so it is not known which shards there are to be, and none was checked"
    return Finding(what, str(file), None, None, f"{words}; {unseen}")


@pytest.mark.parametrize("which", ["current", "generations/00000001.index"])
def test_a_folder_in_the_place_of_a_file_is_named(folder: Path, which: str) -> None:
    (folder / which).unlink()
    (folder / which).mkdir()
    words = f"{folder}/{which} is a folder, where a file of the space was"
    assert list(scrub(str(folder))) == [unopened(folder, which, words)]
    for ask in [lambda: Space.open(folder), *every_change(folder)]:
        with pytest.raises(DataError, match=f"{words}; allowed: a file, or nothing; move it out of the space, "):
            ask()


@pytest.mark.parametrize("which", ["current", "generations/00000001.index"])
def test_a_pipe_in_the_place_of_a_file_is_named_and_nobody_waits_for_it(folder: Path, which: str) -> None:
    (folder / which).unlink()
    os.mkfifo(folder / which)
    words = f"{folder}/{which} is neither file nor folder, where a file of the space was"
    assert list(scrub(str(folder))) == [unopened(folder, which, words)]
    for ask in [lambda: Space.open(folder), *every_change(folder)]:
        with pytest.raises(DataError, match=words):
            ask()


def test_pipes_among_what_no_reader_needs_are_named_and_nobody_waits_for_them(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    for name in ("one", "two"):
        with SpaceWriter(folder) as writer:
            writer.add(name, name.encode())
            writer.commit(parity=1)
    guards = [*(folder / "parity").iterdir()]
    older = folder / "generations" / "00000001.index"
    for path in [*guards, older]:
        path.unlink()
        os.mkfifo(path)
    lost = parity_path(folder, older)  # it has no index any more, and is not looked at
    assert {Path(one.file) for one in scrub(str(folder))} == {*guards, older} - {lost}
    assert [one.file for one in repair(str(folder)).left] == [str(older)]
    with pytest.raises(DataError, match=f"{older} is neither file nor folder"):
        compact(str(folder))
    older.unlink()
    compact(str(folder))
    assert everything_read(folder) == {"one": b"one", "two": b"two"}


def test_a_pipe_that_is_called_current_is_no_space_to_what_lies_below(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "current")
    folder = made(tmp_path / "below" / "s", {"a": b"a"})
    assert everything_read(folder) == {"a": b"a"}


@pytest.mark.parametrize("which", ["shards", "generations", "pending", "parity", "lock"])
def test_what_lies_in_the_place_of_a_folder_or_of_the_lock_is_named_by_whoever_would_write(
    folder: Path, which: str
) -> None:
    place, away = folder / which, folder.parent / "away"
    wanted, lies = ("file", "folder") if which == "lock" else ("folder", "file")
    if place.exists():
        place.rename(away)
    if lies == "file":
        place.write_bytes(b"something else")
    else:
        place.mkdir()
    for ask in every_change(folder):
        with pytest.raises(
            DataError,
            match=f"{place} is a {lies}, where a {wanted} of the space was; allowed: a {wanted}, or nothing; ",
        ):
            ask()
    place.rename(folder.parent / "elsewhere")
    if away.exists():
        away.rename(place)
    assert repair(str(folder)).left == []
    assert everything_read(folder) == CONTENTS


@pytest.mark.parametrize("lost", [None, "current"])
def test_what_else_lies_in_a_space_is_named_by_whoever_adds_or_deletes(folder: Path, lost: str | None) -> None:
    (folder / "README.txt").write_text("images of 2026")
    (folder / "parity.x").mkdir()
    if lost:
        (folder / lost).unlink()
    words = rf"README.txt, which is no part of the space it lies in; .*; move it out of {folder}$"
    with pytest.raises(SpaceError, match=words):
        made(folder, {"new": b""})
    strays = repair(str(folder)).left
    assert strays == list(scrub(str(folder)))
    assert [(one.what, Path(one.file).name) for one in strays] == [("stray", "README.txt"), ("stray", "parity.x")]
    assert all(one.message.endswith(f" is no part of the space it lies in; move it out of {folder}") for one in strays)
    with pytest.raises(SpaceError, match=words):
        delete(str(folder), prefix="d3/")
    (folder / "README.txt").unlink()
    (folder / "parity.x").rename(folder.parent / "parity.x")
    made(folder, {"new": b""})
    assert everything_read(folder) == {**CONTENTS, "new": b""}


@pytest.mark.parametrize("part", ["lock", "pending"])
def test_a_pipe_over_which_writers_would_trip_is_named_by_scrub(folder: Path, part: str) -> None:
    if (folder / part).exists():
        (folder / part).rename(folder.parent / "away")
    os.mkfifo(folder / part)
    (found,) = scrub(str(folder))
    wanted = "file" if part == "lock" else "folder"
    words = f"{folder}/{part} is neither file nor folder, where a {wanted} of the space was; move it out of {folder}"
    assert found == Finding("stray", str(folder / part), None, None, words)


@pytest.mark.parametrize(("link", "leads"), [("current", "itself"), ("elsewhere", "nothing")])
def test_a_file_current_that_is_a_link_to_no_file_is_named_and_made_anew_once_it_is_moved(
    folder: Path, link: str, leads: str
) -> None:
    (folder / "current").unlink()
    (folder / "current").symlink_to(link)
    for ask in every_change(folder):
        with pytest.raises(
            DataError, match=f"{folder}/current is a link to {leads}, where a file of the space was; .*; move it out"
        ):
            ask()
    (folder / "current").unlink()
    assert repair(str(folder)).left == []
    assert everything_read(folder) == CONTENTS


def test_a_folder_that_is_a_link_to_itself_is_no_space(tmp_path: Path) -> None:
    (tmp_path / "s").symlink_to("s")
    with pytest.raises(SpaceError, match="is not a space: it is no folder"):
        Space.open(tmp_path / "s")


def test_an_index_that_cannot_be_the_latest_is_named_and_nothing_earlier_is_taken_for_it(folder: Path) -> None:
    delete(str(folder), prefix="d2/")
    later = folder / "generations" / "00000009.index"
    shutil.copy(folder / "generations" / "00000002.index", later)
    given = f"{later} is later than generation 2, of which {folder}/current tells"
    todo = f"move it out of {folder}; or, if it is of the latest generation, move {folder}/current out, and run: "
    (found,) = scrub(str(folder))
    assert found == Finding("stray", str(later), None, None, f"{given}; {todo}tandem data repair {folder}")
    for ask in every_change(folder)[1:]:
        with pytest.raises(DataError, match=f"{given}; .*; {todo}"):
            ask()
    current = (folder / "current").read_bytes()
    (folder / "current").unlink()
    todo = f"put it back from a copy; or, if it is no part of the space, move it out of {folder}, and run this again$"
    for harm, words in (
        (later.read_bytes(), " is an index of generation 2"),
        (b"rubbish", ": its header is damaged"),
    ):
        later.write_bytes(harm)
        with pytest.raises(DataError, match=f"{later}{words}, and no file `current` tells .*; {todo}"):
            repair(str(folder))
    later.unlink()
    assert repair(str(folder)).left == []
    assert (folder / "current").read_bytes() == current


def test_an_index_of_another_space_does_not_become_the_present_one(folder: Path, tmp_path: Path) -> None:
    other = made(tmp_path / "other", {"a": b"a"})
    delete(str(other), ["a"])
    shutil.copy(other / "generations" / "00000002.index", folder / "generations")
    (folder / "current").unlink()
    with pytest.raises(DataError, match=r"00000002.index is an index of another space, and no file `current`"):
        repair(str(folder))


def test_what_lies_among_shards_and_is_none_stays_when_it_is_compacted(folder: Path) -> None:
    copy = folder / "shards" / f"{shards(folder)[0].name}.bak"
    shutil.copy(shards(folder)[0], copy)
    delete(str(folder), prefix="d3/")
    compact(str(folder))
    assert copy.exists()


def test_shards_whose_folder_is_gone_come_back_by_their_parity(tmp_path: Path) -> None:
    with SpaceWriter(tmp_path / "s") as writer:
        writer.add("tiny", b"1")
        writer.commit(parity=4)
    shutil.rmtree(tmp_path / "s" / "shards")
    assert unused_bytes(str(tmp_path / "s")) == 0
    assert repair(str(tmp_path / "s")).left == []
    assert everything_read(tmp_path / "s") == {"tiny": b"1"}


def test_a_damaged_index_of_an_older_generation_is_named_and_goes_when_it_is_compacted(folder: Path) -> None:
    delete(str(folder), prefix="d3/")
    older = folder / "generations" / "00000001.index"
    (folder / "generations" / "00000003.index").write_bytes(b"written, but never published")
    assert list(scrub(str(folder))) == []
    flip(older, 8 * 5000)
    (found,) = scrub(str(folder))
    assert (found.what, found.file) == ("older", str(older))
    assert repair(str(folder)) == ([], 0, [found])
    with pytest.raises(DataError, match="run this again once its readers have closed it"), reading(older):
        compact(str(folder))
    compact(str(folder))
    assert list(scrub(str(folder))) == []


@contextmanager
def reading(index: Path) -> Iterator[None]:
    """What keeps an index from removal, also one that nobody can open any more."""
    with index.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def test_a_folder_in_the_place_of_an_older_index_is_named_when_it_is_to_be_removed(folder: Path) -> None:
    delete(str(folder), prefix="d3/")
    older = folder / "generations" / "00000001.index"
    older.unlink()
    older.mkdir()
    with pytest.raises(
        DataError, match=f"{older} is a folder, where a file of the space was; .*; move it out of the space"
    ):
        compact(str(folder))


@pytest.mark.parametrize("with_source", [False, True])
@pytest.mark.parametrize(
    "harm", [lambda data: data + b"x", lambda data: data[:12] + b"\xff" + data[13:]], ids=["longer", "header"]
)
def test_a_shard_damaged_outside_of_any_sample_is_written_anew_of_its_samples(
    folder: Path, harm: Callable[[bytes], bytes], with_source: bool
) -> None:
    path = shards(folder)[0]
    path.write_bytes(harm(path.read_bytes()))
    assert [one.what for one in scrub(str(folder))] == ["shard"]
    done = repair(str(folder), (lambda paths: {}) if with_source else None)
    assert (done.files, done.samples, done.left) == ([str(path)], 0, [])
    assert list(scrub(str(folder))) == []
    with Space.open(folder) as space:
        assert {name: bytes(space.read(space.number(name))) for name in CONTENTS} == CONTENTS


def test_without_a_source_a_shard_with_damaged_samples_stays_as_it_is(folder: Path) -> None:
    path = shards(folder)[0]
    before = path.read_bytes()[:-1]
    path.write_bytes(before)
    done = repair(str(folder))
    assert done.files == []
    assert done.left
    assert path.read_bytes() == before


@pytest.mark.parametrize("change", [lambda data: b"", lambda data: data[:-1], lambda data: b"\x7fELF" + bytes(200)])
def test_a_file_current_that_is_none_is_said(folder: Path, change: Callable[[bytes], bytes]) -> None:
    (folder / "current").write_bytes(change((folder / "current").read_bytes()))
    shutil.rmtree(folder / "generations")
    with pytest.raises((DataError, SpaceError), match="current"):
        Space.open(folder)


def test_a_space_that_lost_its_file_current_is_told_how_to_get_it_back(folder: Path) -> None:
    (folder / "current").unlink()
    with pytest.raises(SpaceError, match="run: tandem data repair"):
        Space.open(folder)
    assert repair(str(folder)).left == []
    with Space.open(folder) as space:
        assert len(space) == len(CONTENTS)


@pytest.mark.parametrize(
    ("instead", "todo"),
    [
        ("nothing", "it has had one: run: tandem data repair"),
        ("a folder", "move it out of the space, and run this again"),
    ],
)
def test_a_space_that_lost_its_file_current_is_not_begun_anew(folder: Path, instead: str, todo: str) -> None:
    (folder / "current").unlink()
    if instead == "a folder":
        (folder / "current").mkdir()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(TandemError, match=todo):
        SpaceWriter(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    if instead == "a folder":
        (folder / "current").rmdir()
    repair(str(folder))
    assert everything_read(folder) == CONTENTS


def test_a_first_pack_that_was_broken_off_before_its_file_current_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    with SpaceWriter(folder) as writer:
        space_id = writer._target.space_id
        writer.add("a", b"a")
        writer.commit()
    (folder / "current").unlink()
    (folder / "pending").mkdir(exist_ok=True)
    (folder / "pending" / "space-id").write_bytes(space_id)
    with SpaceWriter(folder) as writer:
        writer.add("b", b"b")
        writer.commit()
    assert everything_read(folder) == {"b": b"b"}


def test_an_empty_space_can_be_read(tmp_path: Path) -> None:
    with SpaceWriter(tmp_path / "s") as writer:
        writer.commit()
    with Space.open(tmp_path / "s") as space:
        assert len(space) == 0
        assert len(space.read_batch([])) == 0
        assert list(space.under()) == []


def test_a_missing_index_says_what_can_be_done(folder: Path) -> None:
    (folder / "generations" / "00000001.index").unlink()
    with pytest.raises(DataError, match=rf"is missing.*copy, or rm -r {folder} and pack the space again"):
        Space.open(folder)
