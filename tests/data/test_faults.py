"""Disks that are full, many at once, large samples: a space is what it was, or what it is to be."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tandem.core.errors import SpaceError, TandemError
from tandem.data.pack.packing import pack
from tandem.data.space import Space
from tandem.data.space.changing import compact, delete
from tandem.data.space.scrub import scrub
from tandem.data.space.writer import SpaceWriter
from tests import disks


def files(folder: Path, contents: dict[str, bytes]) -> Path:
    for path, data in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def contents(folder: Path) -> dict[str, bytes] | None:
    """All that a reader finds; None where there is no space."""
    if not (folder / "current").exists():
        return None
    with Space.open(folder) as space:
        return {space.path(n): space.read(n) for n in range(len(space))}


WRITER = """
import sys
from tandem.data.space.writer import SpaceWriter
for generation in range(6):
    with SpaceWriter(sys.argv[1]) as writer:
        for i in range(10):
            writer.add(f"{sys.argv[2]}/{generation}/{i}", f"{sys.argv[2]}{generation}{i}".encode() * 50)
        writer.commit()
"""


@pytest.mark.slow
def test_two_writers_and_ten_readers_at_once(tmp_path: Path) -> None:
    space = tmp_path / "s"
    with SpaceWriter(space) as writer:
        writer.commit()
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(space), name]) for name in ("one", "two")]
    problems: list[object] = []
    looked: list[int] = []

    def look() -> None:
        most = 0
        try:
            while any(one.poll() is None for one in writers) or most < 120:
                with Space.open(space) as opened:
                    assert len(opened) >= most, "it shrank"
                    assert len(opened) % 10 == 0, "half a commit"
                    most = len(opened)
                    batch = opened.read_batch(range(most))
                    for number, data in enumerate(batch):
                        assert data == opened.path(number).replace("/", "").encode() * 50
                looked.append(most)
        except BaseException as error:
            problems.append(error)

    readers = [threading.Thread(target=look) for _ in range(10)]
    for reader in readers:
        reader.start()
    for process in writers:
        assert process.wait(60) == 0
    for reader in readers:
        reader.join(60)
    assert problems == []
    assert len(looked) > 20
    with Space.open(space) as opened:
        assert (len(opened), opened.generation) == (120, 13)
        for name in ("one", "two"):
            assert [opened.path(n) for n in sorted(opened.under(f"{name}/"))] == [
                f"{name}/{generation}/{i}" for generation in range(6) for i in range(10)
            ]


@pytest.mark.slow
def test_compacting_under_readers_takes_nothing_from_them(tmp_path: Path) -> None:
    space = tmp_path / "s"
    with SpaceWriter(space) as writer:
        for i in range(200):
            writer.add(f"keep/{i}", bytes([i]) * 1000)
            writer.add(f"drop/{i}", bytes([i]) * 1000)
        writer.commit()
    stop = threading.Event()
    problems: list[object] = []

    def look() -> None:
        try:
            while not stop.is_set():
                with Space.open(space) as opened:
                    for number in opened.under("keep/"):
                        assert opened.read(number) == bytes([int(opened.path(number)[5:])]) * 1000
        except BaseException as error:
            problems.append(error)

    readers = [threading.Thread(target=look) for _ in range(4)]
    for reader in readers:
        reader.start()
    for i in range(30):
        delete(str(space), [f"drop/{i}"])
        compact(str(space))
    stop.set()
    for reader in readers:
        reader.join(60)
    assert problems == []
    compact(str(space))
    assert len(list((space / "generations").iterdir())) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disks.small(tmp_path / "small", 4) as folder:
        yield folder


@pytest.mark.slow
def test_a_full_disk_is_said_and_harms_nothing(small_disk: Path, tmp_path: Path) -> None:
    space = small_disk / "s"
    with SpaceWriter(space) as writer:
        writer.add("first", b"1" * 100_000)
        writer.commit()
    big = files(tmp_path / "big", {f"f{i}": os.urandom(400_000) for i in range(12)})
    for workers in (1, 2):
        with pytest.raises(OSError, match=r"No space left on device: '.*/s/pending/pack-\w+/\w+\.shard'"):
            pack(str(big), str(space), append=True, workers=workers, shard_bytes=1_000_000, tell=lambda done, of: None)
        assert contents(space) == {"first": b"1" * 100_000}
        assert list(scrub(str(space))) == []
    shutil.rmtree(space / "pending")  # as `delete this` would tell: the disk is the user's
    with SpaceWriter(space) as writer:
        writer.add("second", b"2" * 100_000)
        writer.commit()
    assert contents(space) == {"first": b"1" * 100_000, "second": b"2" * 100_000}


def two_shards(space: Path, gone_bytes: int, large: bytes) -> None:
    """One with a sample to delete and one to keep, one with a large sample."""
    for samples in ({"gone": bytes(gone_bytes), "keep": b"1"}, {"large": large}):
        with SpaceWriter(space) as writer:
            for path, data in samples.items():
                writer.add(path, data)
            writer.commit()


@pytest.mark.slow
def test_compacting_frees_what_it_can_where_there_is_no_room_to_join_shards(small_disk: Path) -> None:
    space = small_disk / "s"
    large = os.urandom(2_200_000)
    two_shards(space, 1_200_000, large)
    delete(str(space), ["gone"])
    done = compact(str(space))
    assert (done.freed_bytes > 1_190_000, done.unjoined) == (True, 2)
    assert contents(space) == {"keep": b"1", "large": large}
    assert list(scrub(str(space))) == []
    assert not list((space / "pending").iterdir())
    again = compact(str(space))
    assert (again.freed_bytes < 1000, again.unjoined) == (True, 2)


@pytest.mark.slow
def test_compacting_joins_shards_once_what_it_freed_gives_the_room(small_disk: Path) -> None:
    space = small_disk / "s"
    large = os.urandom(1_200_000)
    two_shards(space, 2_000_000, large)
    delete(str(space), ["gone"])
    assert compact(str(space)).unjoined == 0
    assert len(list((space / "shards").iterdir())) == 1
    assert contents(space) == {"keep": b"1", "large": large}


@pytest.mark.slow
def test_compacting_names_the_readers_that_keep_the_room_it_needs(small_disk: Path) -> None:
    space = small_disk / "s"
    keep = os.urandom(1_300_000)
    for samples in ({"gone": bytes(1_000_000), "few": b"1"}, {"gone too": b"2", "keep": keep}):
        with SpaceWriter(space) as writer:
            for path, data in samples.items():
                writer.add(path, data)
            writer.commit()
    with Space.open(space):
        delete(str(space), ["gone", "gone too"])
        room = os.statvfs(small_disk)
        (small_disk / "ballast").write_bytes(bytes(max(0, room.f_bavail * room.f_frsize - 500_000)))
        with pytest.raises(
            SpaceError, match=r"while 9\d\d.\dKiB are kept .*close what has 1 older generation open \(2\)"
        ):
            compact(str(space))
    assert contents(space) == {"few": b"1", "keep": keep}
    assert compact(str(space)).unjoined == 0
    assert contents(space) == {"few": b"1", "keep": keep}


@pytest.mark.slow
def test_compacting_frees_what_readers_had_whatever_room_there_is(small_disk: Path) -> None:
    space = small_disk / "s"
    large = os.urandom(1_500_000)
    two_shards(space, 1_000_000, large)
    with Space.open(space):
        delete(str(space), ["gone"])
        assert compact(str(space)).held_bytes > 1_000_000
    assert compact(str(space)).freed_bytes > 1_000_000
    assert contents(space) == {"keep": b"1", "large": large}


@pytest.mark.slow
def test_a_disk_that_fills_at_the_commit_leaves_the_generation_before(small_disk: Path) -> None:
    space = small_disk / "s"
    with SpaceWriter(space) as writer:
        writer.add("first", b"1" * 1000)
        writer.commit()
    with SpaceWriter(space) as writer:
        for i in range(300):
            writer.add(f"{'p' * 3000}/{i}", b"x")
        room = os.statvfs(small_disk)
        (small_disk / "ballast").write_bytes(b"b" * (room.f_bavail * room.f_frsize - 500_000))
        with pytest.raises(OSError, match=r"No space left on device: '.*/s/generations/00000002.index'"):
            writer.commit()
    assert contents(space) == {"first": b"1" * 1000}
    (small_disk / "ballast").unlink()
    compact(str(space))
    assert list(scrub(str(space))) == []
    assert len(list((space / "shards").iterdir())) == 1


@pytest.mark.slow
def test_a_sample_of_5_gigabytes(tmp_path: Path) -> None:
    size = (5 << 30) + 12_345
    source = tmp_path / "in"
    source.mkdir()
    with (source / "huge").open("wb") as file:
        file.truncate(size)
        file.seek(size - 3)
        file.write(b"end")
    (source / "small").write_bytes(b"beside it")
    pack(str(source), str(tmp_path / "s"), workers=1, tell=lambda done, of: None)
    with Space.open(tmp_path / "s") as space:
        assert space.stat(0)[1:3] == ("huge", size)
        assert space.read(1) == b"beside it"
        batch = space.read_batch([1, 0])
        assert batch.offsets_N1.tolist() == [0, 9, 9 + size]
        assert bytes(batch[1][-5:]) == b"\0\0end"
        assert not batch[1][:1000].tobytes().strip(b"\0")
    held = sum(path.stat().st_blocks * 512 for path in (tmp_path / "s").rglob("*.shard"))
    assert held < 100 << 20  # holes stay holes


def test_a_process_that_forks_reads_on(tmp_path: Path) -> None:
    with SpaceWriter(tmp_path / "s") as writer:
        for i in range(100):
            writer.add(str(i), bytes([i]) * 20_000)
        writer.commit()
    with Space.open(tmp_path / "s", threads=3) as space:
        space.read_batch(range(100))  # its threads run
        child = os.fork()
        if child == 0:
            try:
                right = [bytes(one) for one in space.read_batch(range(100))] == [
                    bytes([i]) * 20_000 for i in range(100)
                ]
                os._exit(0 if right else 1)
            except TandemError:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert len(space.read_batch(range(100))) == 100
