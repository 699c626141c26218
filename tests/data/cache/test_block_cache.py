"""What the cache holds, and what its ledger says of it, after anything that may happen to it."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tandem.data.cache.block_cache import BlockCache, SpaceFolder
from tandem.data.cache.cached_file import ABSENT, COMING, THERE, CachedFile, found_file
from tandem.data.cache.keeping import cleared, contents, set_limit
from tandem.data.cache.remote import Remote
from tandem.data.cache.settings import RemoteError
from tests import disks
from tests.data import remotes

SIZE = 4096
LENGTHS = {"a": 5 * SIZE, "b": 3 * SIZE + 17, "c": 1}
DATA = {name: os.urandom(length) for name, length in LENGTHS.items()}
LIMIT = 5 * SIZE


class Node:
    """A cache of three files, two of which do not end where a block does."""

    def __init__(self, folder: Path, limit_bytes: int | None = LIMIT) -> None:
        (folder / "at").mkdir(parents=True)
        for name, data in DATA.items():
            (folder / "at" / name).write_bytes(data)
        self.cache = BlockCache(remotes.settings(folder / "cache", limit_bytes=limit_bytes))
        self.space = SpaceFolder(self.cache, "ab" * 16, "file://")
        self.files = [CachedFile(self.space.path, name, len(data), SIZE, name) for name, data in DATA.items()]
        self.remote = Remote(f"file://{folder / 'at'}", self.cache.settings)

    def read(self, which: int, blocks: list[int], *, before_s: float | None = None) -> bool:
        with self.cache.locks() as keeping:
            return self.cache.bring([(self.files[which], blocks)], self.remote, keeping, before_s=before_s)

    def held_bytes(self) -> int:
        """By the maps alone."""
        return sum(int(one.bytes_of(np.flatnonzero(one.states() != ABSENT)).sum()) for one in self.files)

    def check(self) -> None:
        ledger = self.cache.ledger.read()
        held = self.held_bytes()
        assert held <= ledger.held_bytes or ledger.held_bytes == -1  # never too low; unknown before the first fetch
        assert contents(self.cache)["held_bytes"] <= held
        for file in self.files:
            if not Path(file.data_path).exists():
                continue
            found, whole = Path(file.data_path).read_bytes(), DATA[file.name]
            for block in np.flatnonzero(file.states() == THERE).tolist():
                begin, end = file.bounds(block)
                assert found[begin:end] == whole[begin:end]
            some = int((file.states() != ABSENT).sum())
            assert Path(file.data_path).stat().st_blocks * 512 <= some * SIZE + 4096  # what went takes no room


BLOCK = st.tuples(st.integers(0, 2), st.sets(st.integers(0, 4), min_size=1)).map(
    lambda one: (one[0], sorted(block for block in one[1] if block * SIZE < len(list(DATA.values())[one[0]])) or [0])
)
STEP = st.one_of(
    st.tuples(st.just("read"), BLOCK),
    st.tuples(st.just("ahead"), BLOCK),
    st.tuples(st.just("forget"), BLOCK),
    st.tuples(st.just("killed"), BLOCK),
    st.tuples(st.just("clear"), BLOCK),
)


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=12))
def test_accounts_are_right_after_anything(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, tuple[int, list[int]]]]
) -> None:
    node = Node(tmp_path_factory.mktemp("n") / "node")
    for what, (which, blocks) in steps:
        file = node.files[which]
        if what == "read":
            assert node.read(which, blocks)
            assert (file.states()[blocks] == THERE).all()
            assert node.held_bytes() <= LIMIT
        elif what == "ahead":
            before = node.held_bytes()
            whole = node.read(which, blocks, before_s=10.0)
            assert whole == bool((file.states()[blocks] == THERE).all())
            assert node.held_bytes() <= max(LIMIT, before)
        elif what == "forget":
            file.make()
            node.cache.forget(file, blocks)
            assert not (file.states()[blocks] == THERE).any()
        elif what == "killed":  # as a process leaves it that is killed while it fetches
            file.make()
            node.cache._reserved([(file, blocks)], None)
        else:
            cleared(node.cache)
            assert node.held_bytes() == 0
        node.check()
    node.space.close()


def test_blocks_that_somebody_keeps_do_not_go_and_the_limit_is_met_again_afterwards(tmp_path: Path) -> None:
    node = Node(tmp_path / "node", limit_bytes=2 * SIZE)
    with node.cache.locks() as keeping:
        node.cache.bring([(node.files[0], [0, 1])], node.remote, keeping)
        assert not node.read(1, [0], before_s=0.0)  # ahead of its use: not at any price
        assert node.read(1, [0])
        assert node.held_bytes() == 3 * SIZE
        assert cleared(node.cache) == SIZE
    node.read(1, [1])
    assert node.held_bytes() == 2 * SIZE
    assert node.cache.ledger.read().evicted == 1


def test_what_a_killed_process_had_begun_is_fetched_by_the_next(tmp_path: Path) -> None:
    node = Node(tmp_path / "node")
    node.files[0].make()
    node.cache._reserved([(node.files[0], [1, 2])], None)
    assert (node.files[0].states()[[1, 2]] == COMING).all()
    assert node.read(0, [1])
    assert node.files[0].states().tolist() == [ABSENT, THERE, COMING, ABSENT, ABSENT]
    assert node.cache.ledger.read().held_bytes == 2 * SIZE
    set_limit(node.cache, SIZE)  # the one that never came goes first
    assert node.files[0].states().tolist() == [ABSENT, THERE, ABSENT, ABSENT, ABSENT]


def test_a_process_that_is_stopped_while_it_fetches_is_overtaken(tmp_path: Path) -> None:
    node = Node(tmp_path / "node")
    node.files[0].make()
    with node.cache.locks() as stopped:
        node.cache._reserved([(node.files[0], [2])], None)
        assert stopped.try_alone("fetch", node.files[0].key, 2)
        hasty = BlockCache(remotes.settings(tmp_path / "node" / "cache", timeout_s=0.05, tries=1))
        with hasty.locks() as keeping:
            assert hasty.bring([(node.files[0], [1, 2])], node.remote, keeping)
        assert node.files[0].states().tolist() == [ABSENT, THERE, THERE, ABSENT, ABSENT]
        node.check()


def test_a_failed_fetch_leaves_nothing_behind(tmp_path: Path) -> None:
    node = Node(tmp_path / "node")
    (tmp_path / "node" / "at" / "a").unlink()
    with pytest.raises(FileNotFoundError):
        node.read(0, [0, 1])
    assert (node.held_bytes(), node.cache.ledger.read().held_bytes) == (0, 0)


@pytest.mark.parametrize("damage", ["gone", "garbage", "flipped"])
def test_a_damaged_ledger_is_told_once_and_counted_anew(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    node = Node(tmp_path / "node")
    node.read(0, [0, 1, 2, 3])
    path = tmp_path / "node" / "cache" / "ledger"
    data = bytearray(path.read_bytes())
    data[20] ^= 4
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(b"no ledger" if damage == "garbage" else bytes(data))
    assert node.cache.limit_bytes == node.cache.limit_bytes == LIMIT
    node.read(1, [0, 1, 2])
    node.check()
    assert node.held_bytes() <= LIMIT
    told = [record.getMessage().partition(" is damaged")[0] for record in caplog.records]
    assert told == ([] if damage == "gone" else [str(path)])


def test_a_damaged_map_makes_a_file_empty_and_no_worse(tmp_path: Path) -> None:
    node = Node(tmp_path / "node")
    node.read(0, [0, 1])
    path = Path(node.files[0].map_path)
    path.write_bytes(b"x" * path.stat().st_size)
    assert found_file(node.space.path, "a") is None
    again = CachedFile(node.space.path, "a", LENGTHS["a"], SIZE, "a")
    again.make()
    assert not again.states().any()
    assert Path(again.data_path).stat().st_blocks == 0
    node.files[0] = again
    assert node.read(0, [1])
    node.check()


def test_a_limit_that_is_lowered_holds_at_once(tmp_path: Path) -> None:
    node = Node(tmp_path / "node", limit_bytes=None)
    node.read(0, [0, 1, 2, 3, 4])
    set_limit(node.cache, 2 * SIZE)
    assert (node.held_bytes(), node.cache.limit_bytes) == (2 * SIZE, 2 * SIZE)
    with pytest.raises(RemoteError, match="a limit of 0 bytes"):
        set_limit(node.cache, 0)


def test_a_space_that_nobody_has_open_goes_with_its_last_block(tmp_path: Path) -> None:
    node = Node(tmp_path / "node")
    node.read(0, [0])
    cleared(node.cache)
    assert Path(node.space.path).exists()
    node.space.close()
    (tmp_path / "node" / "cache" / ".removed-by-one-that-was-killed").mkdir()
    cleared(node.cache)
    names = {path.name for path in (tmp_path / "node" / "cache").iterdir()}
    assert names == {"blocks", "futures", "ledger", "lock"}
    assert SpaceFolder(node.cache, "ab" * 16, "file://").block_bytes == SIZE


def test_a_damaged_file_that_says_whose_blocks_they_are_is_named_and_not_shown(tmp_path: Path) -> None:
    node = Node(tmp_path / "node")
    node.read(0, [0])
    source = Path(node.space.path) / "source"
    for damaged in (b"", b"\0\x1b[31m", b"file//"):
        source.write_bytes(damaged)
        assert [one["url"] for one in contents(node.cache)["spaces"]] == [f"{source} is damaged"]


def test_the_first_to_cache_a_space_decides_how_large_blocks_are(tmp_path: Path) -> None:
    node = Node(tmp_path / "node")
    other = BlockCache(remotes.settings(tmp_path / "node" / "cache", block_bytes=8 * SIZE))
    assert SpaceFolder(other, "ab" * 16, "file://").block_bytes == SIZE
    assert SpaceFolder(other, "cd" * 16, "file://").block_bytes == 8 * SIZE
    node.space.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disks.small(tmp_path / "small", 1) as folder:
        yield folder


def test_a_full_disk_is_said_and_leaves_what_was(small_disk: Path, tmp_path: Path) -> None:
    node = Node(tmp_path / "node")
    cache = BlockCache(remotes.settings(small_disk / "cache", limit_bytes=1 << 30))
    space = SpaceFolder(cache, "ab", "file://")
    file = CachedFile(space.path, "a", LENGTHS["a"], SIZE, "a")
    with cache.locks() as keeping:
        cache.bring([(file, [0])], node.remote, keeping)
        room = os.statvfs(small_disk)
        (small_disk / "ballast").write_bytes(b"b" * (room.f_bavail * room.f_frsize))
        with pytest.raises(RemoteError, match="no room is left on the disk"):
            cache.bring([(file, [1, 2])], node.remote, keeping)
    assert file.states().tolist() == [THERE, ABSENT, ABSENT, ABSENT, ABSENT]
    assert cache.ledger.read().held_bytes == SIZE


def test_a_folder_that_cannot_be_a_cache_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RemoteError, match=os.strerror(errno.ENOTDIR)):
        BlockCache(remotes.settings(tmp_path / "file" / "cache"))
