"""Samples taken from the source: those that it has come back, and those that it lacks stay where they were."""

import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tandem.core.errors import DataError
from tandem.data.space import Space, layout
from tandem.data.space.changing import compact, delete
from tandem.data.space.repair import repair
from tandem.data.space.scrub import scrub
from tests.data.space.test_space import made

_SAMPLE = st.one_of(st.just(b""), st.binary(min_size=20, max_size=60))


def readable(folder: Path) -> dict[str, bytes]:
    """What can be read."""
    found = {}
    with Space.open(folder) as space:
        for number in range(len(space)):
            with suppress(DataError):
                found[space.path(number)] = space.read(number)
    return found


def generation(folder: Path) -> int:
    with Space.open(folder) as space:
        return space.generation


@settings(max_examples=60)
@example(samples=[b"a" * 50, b"", b"c" * 50, b"d" * 50], lost={0: 70}, absent={2}, deleted=set())
@example(samples=[b"a" * 50, b"", b"c" * 50, b"d" * 50], lost={0: None}, absent={2}, deleted=set())
@example(samples=[b"a" * 50, b"", b"c" * 50, b"d" * 50], lost={0: None}, absent={1}, deleted={3})
@given(
    samples=st.lists(_SAMPLE, min_size=1, max_size=12),
    lost=st.dictionaries(st.integers(0, 2), st.none() | st.integers(0, 200), min_size=1),
    absent=st.sets(st.integers(0, 11)),
    deleted=st.sets(st.integers(0, 11), max_size=2),
)
def test_whatever_the_source_lacks_is_whole_again_once_its_shard_is_put_back(
    tmp_path_factory: pytest.TempPathFactory,
    samples: list[bytes],
    lost: dict[int, int | None],
    absent: set[int],
    deleted: set[int],
) -> None:
    packed = {f"{number:02d}": data for number, data in enumerate(samples)}
    folder = made(tmp_path_factory.mktemp("repair") / "s", packed, shard_bytes=250)
    backup = shutil.copytree(folder / "shards", folder.parent / "backup")
    with Space.open(folder) as space:
        shards = [folder / "shards" / entry.file_name for entry in space.index.shards]
    for number, place in lost.items():
        shard = shards[number % len(shards)]
        if place is None or not shard.exists():
            shard.unlink(missing_ok=True)
        else:
            data = bytearray(shard.read_bytes())
            data[layout.SHARD_HEADER_BYTES + place : layout.SHARD_HEADER_BYTES + place + 1] = b"\xff"
            shard.write_bytes(data)
    source = {path: data for path, data in packed.items() if int(path) not in absent}
    whole = readable(folder)
    wanted = whole | source

    done = repair(str(folder), lambda paths: {path: source[path] for path in paths if path in source})

    assert readable(folder) == wanted
    assert done.samples == len(wanted) - len(whole)
    assert {one.path for one in done.left if one.number is not None} == packed.keys() - wanted.keys()
    for one in done.left:
        if "is missing; samples" in one.message:
            in_it = sum(other.file == one.file and other.number is not None for other in done.left)
            assert one.message.endswith(f"samples in it: {in_it}")
    before = generation(folder)
    assert repair(str(folder), lambda paths: {}).files == []
    assert generation(folder) == before

    gone = {f"{number:02d}" for number in deleted} & packed.keys()
    if gone:
        delete(str(folder), gone)
    with suppress(DataError):  # what would be moved is damaged
        compact(str(folder), shard_bytes=250)
    shutil.copytree(backup, folder / "shards", dirs_exist_ok=True)
    left = {path: data for path, data in packed.items() if path not in gone}
    assert readable(folder) == left
    compact(str(folder), shard_bytes=250)
    assert readable(folder) == left
    assert list(scrub(str(folder))) == []
