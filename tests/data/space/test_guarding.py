"""Levels of parity: what a space is told to have, what its files have, and whoever is killed between."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.core.errors import NewerVersionError
from tandem.data.space import Space, layout, parity
from tandem.data.space.changing import compact, delete
from tandem.data.space.guarding import weaker
from tandem.data.space.repair import repair
from tandem.data.space.scrub import scrub
from tandem.data.space.writer import SpaceWriter
from tests.data.space.test_damage import newer
from tests.data.space.test_parity import flip


def append(space: Path, name: str, level: int) -> None:
    with SpaceWriter(space) as writer:
        writer.add(name, name.encode() * 1000)
        writer.commit(parity=level)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    append(tmp_path / "s", "old", 2)
    return tmp_path / "s"


def as_before(folder: Path, level: bytes) -> Path:
    """A space as earlier versions wrote it, whose index does not tell its level; returns the parity of its index."""
    index = max((folder / "generations").iterdir())
    packed = index.read_bytes()
    head = layout.IndexHeader.decode(packed, str(index))._replace(parity=-1).encode()
    index.write_bytes(head + packed[layout.HEADER_BYTES :])
    current = layout.Current.decode((folder / "current").read_bytes(), "current")
    (folder / "current").write_bytes(current._replace(index_xxh3=int.from_bytes(head[-8:], "little")).encode())
    guard = folder / "parity" / f"{index.name}.parity"
    parity.protect(index, guard, 2)
    (folder / "parity" / "level").write_bytes(level)
    return guard


@pytest.mark.parametrize("lost", ["nothing", "the parity of the index", "the level"])
def test_a_space_of_an_earlier_version_keeps_its_level(folder: Path, lost: str) -> None:
    guard = as_before(folder, b"222")
    if lost == "the level":
        (folder / "parity" / "level").unlink()
    elif lost != "nothing":
        guard.unlink()
    assert [Path(one.file) for one in scrub(str(folder))] == ([guard] if lost == "the parity of the index" else [])
    append(folder, "more", 0)
    assert {parity.level_of(path) for path in (folder / "parity").glob("*.parity")} == {2}
    assert list(scrub(str(folder))) == []
    assert told_level(folder) == 2


def told_level(folder: Path) -> int:
    with Space.open(folder) as space:
        return space.index.header.parity


def test_a_lower_level_holds_for_what_is_new(folder: Path) -> None:
    append(folder, "more", 1)
    before = {path.name for path in (folder / "parity").glob("*.shard.parity") if parity.level_of(path) == 2}
    assert len(before) == len(list((folder / "shards").iterdir())) - 1
    assert told_level(folder) == 1
    assert list(scrub(str(folder))) == []


def shards(space: Path) -> list[Path]:
    with Space.open(space) as opened:
        return [space / "shards" / entry.file_name for entry in opened.index.shards]


def levels(space: Path) -> list[int]:
    return [parity.level_of(space / "parity" / f"{shard.name}.parity") for shard in shards(space)]


@settings(max_examples=25)
@given(asked=st.lists(st.integers(0, 4), min_size=2, max_size=5))
def test_what_is_asked_for_is_the_least_that_all_has_and_no_append_makes_it_less(
    tmp_path_factory: pytest.TempPathFactory, asked: list[int]
) -> None:
    space, wanted, told = tmp_path_factory.mktemp("levels") / "s", [], 0
    for number, level in enumerate(asked):
        append(space, str(number), level)
        told = level or told
        wanted = [max(one, level) for one in [*wanted, told]]
        assert levels(space) == wanted
        assert told_level(space) == told
        with Space.open(space) as opened:
            assert weaker(opened.index) == []
    assert list(scrub(str(space))) == []


def test_a_shard_that_was_damaged_when_the_level_was_raised_is_told_and_gets_it_when_it_is_repaired(
    tmp_path: Path,
) -> None:
    space = tmp_path / "s"
    append(space, "old", 2)
    (old,) = shards(space)
    guard, before = space / "parity" / f"{old.name}.parity", old.read_bytes()
    flip(old)
    append(space, "new", 3)
    assert levels(space) == [2, 3]
    with Space.open(space) as opened:
        assert weaker(opened.index) == [guard]
    assert repair(str(space)) == ([str(old), str(guard)], 0, [])
    assert old.read_bytes() == before
    assert levels(space) == [3, 3]


def test_damaged_parity_of_a_higher_level_is_made_again_with_that_level(tmp_path: Path) -> None:
    space = tmp_path / "s"
    append(space, "old", 3)
    append(space, "new", 1)
    guard = space / "parity" / f"{shards(space)[0].name}.parity"
    whole = guard.read_bytes()
    guard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert repair(str(space)) == ([str(guard)], 0, [])
    assert guard.read_bytes() == whole


@pytest.mark.parametrize(("had", "now", "moved"), [(3, 1, 3), (1, 3, 3), (2, 2, 2)])
def test_what_is_moved_keeps_the_higher_level(tmp_path: Path, had: int, now: int, moved: int) -> None:
    space = tmp_path / "s"
    append(space, "old", had)
    append(space, "new", now)
    compact(str(space))
    assert levels(space) == [moved]
    assert told_level(space) == now
    delete(str(space), ["old"])
    compact(str(space))
    assert levels(space) == [moved]
    assert list(scrub(str(space))) == []


def test_what_a_repair_writes_anew_keeps_the_higher_level(tmp_path: Path) -> None:
    space = tmp_path / "s"
    append(space, "old", 3)
    append(space, "new", 1)
    shards(space)[0].unlink()
    assert repair(str(space), lambda paths: {path: path.encode() * 1000 for path in paths}).samples == 1
    assert sorted(levels(space)) == [1, 3]
    assert list(scrub(str(space))) == []


def test_what_is_moved_from_under_parity_of_a_later_version_has_the_highest(tmp_path: Path) -> None:
    space = tmp_path / "s"
    append(space, "old", 1)
    guard = space / "parity" / f"{shards(space)[0].name}.parity"
    guard.write_bytes(newer(guard.read_bytes()))
    append(space, "new", 1)
    compact(str(space))
    assert levels(space) == [4]


@pytest.mark.parametrize("had", [0, 1, 4])
def test_killed_at_any_step_of_a_commit_a_space_has_its_level_or_the_new_one_and_all_its_parity(
    tmp_path: Path, had: int
) -> None:
    before = tmp_path / "before"
    append(before, "old", had)
    level, kills = had, 0
    while level != 2:
        space = tmp_path / str(kills)
        copy_that_was_killed(before, space, kills)
        with Space.open(space) as opened:
            found = {opened.path(n): opened.read(n) for n in range(len(opened))}
            level = opened.index.header.parity
        old = {"old": b"old" * 1000}
        assert (level, found) in [(had, old), (2, {**old, "new": b"new" * 1000})]
        assert list(scrub(str(space))) == []
        assert repair(str(space)) == ([], 0, [])
        append(space, "later", 0)
        compact(str(space))
        assert list(scrub(str(space))) == []
        assert told_level(space) == level
        kills += 1
    assert kills > 5


@pytest.mark.parametrize(("asked", "harmed"), [(4, False), (2, True)])
def test_what_a_killed_run_left_is_no_parity_of_what_was_there(tmp_path: Path, asked: int, *, harmed: bool) -> None:
    before = tmp_path / "before"
    append(before, "old", 0)
    kills, level = 0, 0
    while level != 2:
        space = tmp_path / str(kills)
        copy_that_was_killed(before, space, kills)
        level = told_level(space)
        if not level:
            for left in (space / "parity").glob("*.parity") if harmed else ():
                left.write_bytes(left.read_bytes()[:-1] + b"?")
            append(space, "later", asked)
            assert set(levels(space)) == {asked}
            assert list(scrub(str(space))) == []
        kills += 1
    assert kills > 5


def copy_that_was_killed(before: Path, space: Path, moves: int) -> None:
    """Copy a space, and have a process append to the copy that ends before the move that follows so many, if it is."""
    shutil.copytree(before, space)
    child = os.fork()
    if not child:
        commit_and_be_killed(space, moves)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (0, 9)


def commit_and_be_killed(space: Path, moves: int) -> None:
    """Append with parity; ends the process before the move of a file that follows so many."""
    left = moves

    def counted(move: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def moved(self: Path, target: Path) -> Path:
            nonlocal left
            if not left:
                os._exit(9)
            left -= 1
            return move(self, target)

        return moved

    try:
        Path.replace, Path.rename = counted(Path.replace), counted(Path.rename)  # type: ignore[method-assign]
        append(space, "new", 2)
        os._exit(0)
    finally:
        os._exit(1)


def test_parity_of_a_later_version_is_neither_written_over_nor_counted_as_less(folder: Path) -> None:
    (path,) = (folder / "parity").glob("*.shard.parity")
    path.write_bytes(newer(path.read_bytes()))
    before = path.read_bytes()
    append(folder, "new", 3)
    assert path.read_bytes() == before
    with Space.open(folder) as space:
        assert weaker(space.index) == []
    with pytest.raises(NewerVersionError, match="install a newer"):
        repair(str(folder))


def test_what_is_no_folder_of_parity_guards_nothing(folder: Path) -> None:
    (folder / "parity").rename(folder / "aside")
    (folder / "parity").write_text("x")
    with Space.open(folder) as space:
        assert len(weaker(space.index)) == 1
