"""Whatever is wrong with a folder of a space: every command does its work or says why not, and nothing is lost."""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tandem.core.errors import TandemError
from tandem.data.space import Space
from tandem.data.space.changing import compact, delete
from tandem.data.space.repair import Repaired, repair
from tandem.data.space.scrub import scrub, unused_bytes
from tandem.data.space.writer import SpaceWriter
from tests.data.space.test_space import made

INDEX = "generations/00000002.index"
NEXT = "generations/00000003.index"
LATER = "generations/00000009.index"


def everything(folder: str) -> dict[str, bytes]:
    with Space.open(folder) as space:
        return {space.path(number): space.read(number) for number in range(len(space))}


def emptied(path: Path) -> None:
    """Move what is there out of the space."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def a_folder(path: Path) -> None:
    emptied(path)
    path.mkdir()


def rubbish(path: Path) -> None:
    emptied(path)
    path.write_bytes(b"rubbish")


def a_pipe(path: Path) -> None:
    emptied(path)
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    emptied(path)
    before = Path.cwd()
    os.chdir(path.parent)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path.name)
    os.chdir(before)


def a_link_to_itself(path: Path) -> None:
    emptied(path)
    path.symlink_to(path.name)


def a_link_to_nothing(path: Path) -> None:
    emptied(path)
    path.symlink_to("nothing")


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def shorter(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def a_copy_of_the_present(path: Path) -> None:
    shutil.copy(path.parents[1] / INDEX, path)


def one_of_another_space(path: Path) -> None:
    other = path.parents[2] / "other"
    for number in range(int(path.stem)):
        made(other, {str(number): b"other"})
    shutil.copy(other / "generations" / path.name, path)


TROUBLES = {
    **{
        f"{part}: {harm.__name__}": [(part, harm)]
        for part in ("current", INDEX, "a shard")
        for harm in (emptied, rubbish, a_folder, a_pipe, a_socket, a_link_to_itself, a_link_to_nothing, longer, shorter)
    },
    **{
        f"{part}: {harm.__name__}": [(part, harm)]
        for part in ("lock", "pending", "parity", "shards", "generations", "pending/space-id")
        for harm in (rubbish, a_folder, a_pipe, a_socket, a_link_to_itself, a_link_to_nothing)
    },
    **{
        f"{part}: {harm.__name__}{', no current' * lost}": [(part, harm), *([("current", emptied)] if lost else [])]
        for part in (NEXT, LATER)
        for harm in (rubbish, a_copy_of_the_present, one_of_another_space, a_folder, a_pipe, a_link_to_itself)
        for lost in (False, True)
    },
    **{
        f"{part}: {harm.__name__}": [(part, harm)]
        for part in (
            "README",
            "shards/README",
            "shards/0123456789abcdef.shard.bak",
            "generations/README",
            "generations/000000002.index",
            "pending/README",
            "pending/files",
            "parity.bak",
        )
        for harm in (rubbish, a_folder, a_pipe, a_link_to_itself, a_link_to_nothing)
    },
}

PACKED = {"a": b"a" * 50, "b/1": b"b" * 60, "b/2": b"", "c": b"c" * 70}
NEW = {"new": b"new"}

COMMANDS: dict[str, Callable[[str], object]] = {
    "open": everything,
    "stat": unused_bytes,
    "scrub": lambda folder: list(scrub(folder)),
    "repair": repair,
    "repair from the source": lambda folder: repair(folder, lambda paths: {path: PACKED[path] for path in paths}),
    "delete": lambda folder: delete(folder, ["a"]),
    "compact": compact,
    "append": lambda folder: made(Path(folder), NEW),
}


@pytest.fixture(scope="module", params=[0, 1], ids=["without parity", "with parity"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A space of two generations and two shards, one of which holds a deleted sample."""
    folder = tmp_path_factory.mktemp("troubles") / "s"
    with SpaceWriter(folder, shard_bytes=200) as writer:
        for path, data in {"gone": b"gone" * 20, **PACKED}.items():
            writer.add(path, data)
        writer.commit(parity=request.param)
    delete(str(folder), ["gone"])
    return folder


def after(command: str) -> dict[str, bytes]:
    """What a space holds that a command has changed."""
    left = {path: data for path, data in PACKED.items() if command != "delete" or path != "a"}
    return {**left, **NEW} if command == "append" else left


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("trouble", TROUBLES)
def test_every_command_does_its_work_or_says_why_not_and_nothing_is_lost(
    whole: Path, tmp_path: Path, trouble: str, command: str
) -> None:
    folder = shutil.copytree(whole, tmp_path / "s")
    with Space.open(folder) as space:
        shard = f"shards/{space.index.shards[0].file_name}"
    harmed = [part if part != "a shard" else shard for part, _ in TROUBLES[trouble]]
    for part, (_, harm) in zip(harmed, TROUBLES[trouble], strict=True):
        harm(folder / part)
    own = {NEXT, "lock", "pending/space-id"}  # these a writer writes over
    kept = [folder / part for part in harmed if not (whole / part).exists() and part not in own]
    strangers = {path: path.read_bytes() for path in kept if path.is_file()}

    why, done = None, None
    try:
        done = COMMANDS[command](str(folder))
    except TandemError as error:
        why = error
    if why is not None:
        assert str(folder) in why.given
        assert command == "scrub" or found_by_scrub(folder)
    elif command == "compact" or (isinstance(done, Repaired) and not done.left):
        assert not found_by_scrub(folder)

    assert {path: path.read_bytes() for path in strangers} == strangers
    changed = why is None and command in ("delete", "compact", "append")
    for part in harmed:
        if not changed and not ((folder / part).is_dir() and (whole / part).is_dir()):  # moved away
            emptied(folder / part)
        if not changed or part in (shard, "shards"):  # and put back from a copy
            copied(whole / part, folder / part)
    assert everything(str(folder)) == (after(command) if changed else PACKED)


def copied(path: Path, to: Path) -> None:
    if path.is_dir():
        shutil.copytree(path, to, dirs_exist_ok=True)
    elif path.exists():
        emptied(to)
        shutil.copy(path, to)


def found_by_scrub(folder: Path) -> bool:
    """Whether it names anything, if only in an error."""
    try:
        return list(scrub(str(folder))) != []
    except TandemError:
        return True
