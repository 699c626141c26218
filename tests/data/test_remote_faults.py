"""Remotes that fail, disks that rot, processes that are killed: what is read is what was packed, or an error.

`TANDEM_KILLS` says how often a process that fills a cache is killed (7).
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.range_server import RangeServer
from tandem.core.errors import DataError, TandemError
from tandem.data import Loader
from tandem.data.cache.block_cache import BlockCache
from tandem.data.cache.cached_file import COMING
from tandem.data.cache.keeping import cleared, contents
from tandem.data.cache.settings import RemoteError
from tandem.data.space import Space
from tandem.data.space.pieces import PIECE_BYTES
from tests.data import remotes
from tests.data.remotes import all_of, opened

KILLS = int(os.environ.get("TANDEM_KILLS", "7"))
FILES = remotes.contents(400)
DATA_BYTES = sum(map(len, FILES.values()))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RangeServer]:
    remotes.space_of(tmp_path / "at", FILES)
    with RangeServer(tmp_path / "at") as running:
        yield running


@pytest.mark.parametrize("fault", ["500", "close", "short", "whole", "garbage"])
def test_a_remote_that_fails_now_and_then_is_read_all_the_same(server: RangeServer, fault: str) -> None:
    rng = random.Random(fault)
    server.fault = lambda path, nth: fault if nth > 2 and rng.random() < 0.15 else None
    with opened(server, tries=8) as space:
        for numbers in np.array_split(np.arange(len(space)), 12):
            for number, view in zip(numbers.tolist(), space.read_batch(numbers), strict=True):
                assert bytes(view) == FILES[space.path(number)]


@pytest.mark.parametrize("file", ["current", "generations/00000001.index"])
def test_garbage_instead_of_what_says_what_is_there_is_told(server: RangeServer, file: str) -> None:
    server.fault = lambda path, nth: "garbage" if path == file else None
    with pytest.raises(TandemError, match=f"{server.url}/{file}"):
        opened(server, tries=2)
    server.fault = lambda path, nth: None
    with opened(server) as space:
        assert len(space) == len(FILES)


def test_garbage_for_ever_is_told_with_the_sample_and_the_url(server: RangeServer) -> None:
    with opened(server) as space:
        server.fault = lambda path, nth: "garbage"
        with pytest.raises(
            DataError, match=rf"sample 7, '{space.path(7)}' of {server.url}: .*{server.url}/shards/.* at byte"
        ):
            space.read(7)
        asked = server.asked
        with pytest.raises(DataError, match="sample 7"):
            space.read_batch([7])
        assert asked < server.asked <= asked + 2  # anew each time, but once for each block that was bad at every try
        server.fault = lambda path, nth: None
        assert all_of(space) == FILES


def test_what_was_damaged_at_every_try_is_not_tried_so_often_again_whatever_is_read_beside(server: RangeServer) -> None:
    with Space.open(server.folder) as local:
        _, shard, offset, _ = local.index.place(7)
        path = server.folder / "shards" / local.index.shards[shard].file_name
        neighbour = next(
            n for n in range(len(local)) if local.index.place(n)[1:3] == (shard, offset + len(local.read(7)))
        )
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    with opened(server, tries=4) as space:
        for most in (5, 2, 2):
            asked = server.asked
            with pytest.raises(DataError, match="sample 7"):
                space.read(7)
            assert server.asked <= asked + 2 * most
            assert space.read(neighbour) == FILES[space.path(neighbour)]
        data[offset] ^= 1
        path.write_bytes(data)
        assert space.read(7) == FILES[space.path(7)]


def test_a_password_in_a_url_is_not_kept_in_the_cache(server: RangeServer) -> None:
    url = server.url.replace("//", "//user:secret@")
    with Space.open(url, remote=remotes.settings(server.folder.parent / "cache")) as space:
        assert all_of(space) == FILES
    kept = [path.read_bytes() for path in (server.folder.parent / "cache").rglob("*") if path.is_file()]
    assert any(b"http://user:***@127.0.0.1" in data for data in kept)
    assert not any(b"secret" in data for data in kept)


def test_damage_costs_its_tries_once_a_block_whatever_samples_lie_in_it(tmp_path: Path) -> None:
    files = {f"{n:02d}": bytes([n]) * 100 for n in range(30)}
    remotes.space_of(tmp_path / "at", files)
    with RangeServer(tmp_path / "at") as server, opened(server, tries=6) as space:
        server.fault = lambda path, nth: "garbage"
        asked = []
        for number in range(len(space)):
            before = server.asked
            with pytest.raises(DataError, match=f"sample {number},"):
                space.read(number)
            asked.append(server.asked - before)
        assert asked[0] >= 6
        assert max(asked[1:]) <= 2
        server.fault = lambda path, nth: None
        assert all_of(space) == files
        server.fault = lambda path, nth: "garbage" if nth % 2 else None  # tried as often as at first
        space.home.cache.forget(space.home.files[0], [0])  # type: ignore[attr-defined]
        assert all_of(space) == files


def test_a_remote_that_stays_away_is_told_and_what_is_cached_is_read(server: RangeServer) -> None:
    with opened(server, tries=2) as space:
        here = [number for number in range(len(space)) if space.index.place(number)[1] == 0]
        space.read_batch(here)
        server.fault = lambda path, nth: "500"
        assert [bytes(view) for view in space.read_batch(here)] == [FILES[space.path(number)] for number in here]
        with pytest.raises(RemoteError, match=r"500.*\(tried 2 times\)"):
            space.read_batch(range(len(space)))
        with Loader(space, 16, workers=2) as loader, pytest.raises(RemoteError, match="tried 2 times"):
            list(loader)
        assert not any((file.states() == COMING).any() for file in space.home.files)  # type: ignore[attr-defined]


def test_a_remote_that_stalls_holds_nobody_for_ever(server: RangeServer) -> None:
    stalled = iter([True, True])
    server.fault = lambda path, nth: "stall" if "shards" in path and next(stalled, False) else None
    with opened(server, timeout_s=0.3, tries=3) as space:
        assert all_of(space) == FILES


@pytest.mark.parametrize("region", ["blocks", "map", "index", "ledger", "all"])
def test_a_cache_that_rots_is_fetched_again(server: RangeServer, region: str) -> None:
    rng = random.Random(region)
    with opened(server) as space:
        all_of(space)
    cache = server.folder.parent / "cache"
    for path in cache.rglob("*"):
        if path.is_file() and path.stat().st_size and region in ("all", path.suffix[1:], path.name):
            data = bytearray(path.read_bytes())
            for _ in range(max(1, len(data) // 20_000)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            path.write_bytes(data)
    with opened(server) as space:
        assert all_of(space) == FILES
        for number in range(len(space)):
            assert space.read(number) == FILES[space.path(number)]


def test_only_the_damaged_blocks_are_fetched_again(server: RangeServer) -> None:
    with opened(server) as space:
        all_of(space)
        sample = space.stat(space.number("1/f0100"))
        file = space.home.files[sample.shard]  # type: ignore[attr-defined]
        with Path(file.data_path).open("r+b") as data:
            data.seek(sample.offset)
            data.write(b"\0\0\0")
        sent = server.sent_bytes("shards/")
        assert all_of(space) == FILES
        blocks = (sample.offset + sample.size - 1) // file.block_bytes - sample.offset // file.block_bytes + 1
        assert server.sent_bytes("shards/") - sent == blocks * file.block_bytes
        assert contents(space.home.cache)["refetched"] == blocks  # type: ignore[attr-defined]


def test_parts_of_a_large_sample_come_through_the_cache_also_where_it_rots(tmp_path: Path) -> None:
    large = random.Random(5).randbytes(3 * PIECE_BYTES + 17)
    remotes.space_of(tmp_path / "at", {"large": large, "small": b"x" * 100}, 1 << 30)
    with RangeServer(tmp_path / "at") as server:
        with opened(server) as space:
            assert space.read_part(0, PIECE_BYTES - 3, 9) == large[PIECE_BYTES - 3 : PIECE_BYTES + 6]
            (file,) = space.home.files  # type: ignore[attr-defined]
            begin = space.stat(0).offset
        for place in (0, 2 * PIECE_BYTES):
            with Path(file.data_path).open("r+b") as data:
                data.seek(begin + place)
                data.write(b"\0" * 64)
        with opened(server) as space:
            assert space.read_part(0, 2 * PIECE_BYTES - 5, 99) == large[2 * PIECE_BYTES - 5 :][:99]
            assert contents(space.home.cache)["refetched"] > 0  # type: ignore[attr-defined]
        with (tmp_path / "at" / "shards" / file.source.rpartition("/")[2]).open("r+b") as data:
            data.seek(100 + PIECE_BYTES)
            data.write(b"\0" * 64)  # at the remote itself
        cleared(BlockCache(remotes.settings(tmp_path / "cache")))
        with opened(server) as space, pytest.raises(DataError, match="its bytes are not those that were packed"):
            space.read_part(0, 0, 9)


READER = """
import sys
from tandem.data import Loader
from tandem.data.space import Space
from tandem.data.space.pieces import PIECE_BYTES
from tests.data import remotes
from tests.data.remotes import all_of, opened
url, cache, seed, limit, ahead = sys.argv[1:]
settings = remotes.settings(cache, limit_bytes=int(limit) or None, ahead_bytes=int(ahead), timeout_s=300)
if __name__ == "__main__":
    with Space.open(url, remote=settings) as space:
        print("ready", flush=True)
        with Loader(space, 16, seed=int(seed), workers=2) as loader:
            got = sorted((len(view), bytes(view[:20]).hex()) for batch in loader for view in batch)
        want = [(len(view), bytes(view[:20]).hex()) for view in space.read_batch(range(len(space)))]
    sys.exit(0 if got == sorted(want) else 3)
"""


def reader(server: RangeServer, seed: int, limit: int = 0, ahead: int = 0) -> subprocess.Popen[str]:
    """A process that reads an epoch, past its imports."""
    arguments = [server.url, server.folder.parent / "cache", seed, limit, ahead]
    process = subprocess.Popen(
        [sys.executable, "-c", READER, *map(str, arguments)],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2], start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    with process.stdout as told:
        assert told.readline() == "ready\n"
    return process


@pytest.mark.slow
@pytest.mark.parametrize("ahead", [0, 100_000])
def test_processes_that_fill_one_cache_at_once_fetch_each_byte_once(server: RangeServer, ahead: int) -> None:
    server.delay_s = 0.002
    processes = [reader(server, seed, ahead=ahead) for seed in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    wanted: dict[tuple[str, int], int] = {}
    for path, start, end in server.requests:
        if path != "current":
            for block in range(start // remotes.BLOCK_BYTES, -(-end // remotes.BLOCK_BYTES)):
                wanted[path, block] = wanted.get((path, block), 0) + 1
    assert set(wanted.values()) == {1}
    with opened(server) as space:
        sizes = [entry.size for entry in space.index.shards]
        assert server.sent_bytes("shards/") == sum(sizes)
        assert server.sent_bytes("generations/") == space.index.size


@pytest.mark.slow
def test_processes_that_share_a_cache_too_small_for_them_all_read_on(server: RangeServer) -> None:
    limit = 40 * remotes.BLOCK_BYTES
    processes = [reader(server, seed, limit=limit, ahead=8 * remotes.BLOCK_BYTES) for seed in range(3)]
    assert [process.wait(100) for process in processes] == [0] * 3
    with opened(server, limit_bytes=limit) as space:
        space.read(0)
        told = contents(space.home.cache)  # type: ignore[attr-defined]
    assert told["evicted"] > 0
    assert told["held_bytes"] <= limit


@pytest.mark.slow
def test_ctrl_c_ends_a_process_whose_remote_stalls(server: RangeServer) -> None:
    server.fault = lambda path, nth: "stall" if "shards" in path else None
    process = reader(server, 0, ahead=50_000)
    while not any(file.stat().st_blocks for file in (server.folder.parent / "cache").rglob("*.map")):
        assert process.poll() is None  # it comes to its first fetch
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 0  # one request alone may take 300 s
    server.fault = lambda path, nth: None
    with opened(server) as space:
        assert all_of(space) == FILES


@pytest.mark.slow
def test_a_process_killed_while_it_fills_the_cache_harms_nobody(server: RangeServer) -> None:
    rng = random.Random(KILLS)
    server.delay_s = 0.002
    began = time.monotonic()
    assert reader(server, 0).wait(60) == 0
    whole_s = time.monotonic() - began
    cache = server.folder.parent / "cache"
    interrupted = 0
    for kill in range(KILLS):
        limit = rng.choice([0, 60 * remotes.BLOCK_BYTES])
        beside = reader(server, kill, limit=limit, ahead=50_000)
        process = reader(server, kill + 1000, limit=limit, ahead=rng.choice([0, 50_000]))
        try:
            process.wait(rng.uniform(0, whole_s))
        except subprocess.TimeoutExpired:
            interrupted += 1
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(60)
        assert beside.wait(60) == 0
        with opened(server, limit_bytes=limit or None) as space:
            assert all_of(space) == FILES
            told = contents(space.home.cache)  # type: ignore[attr-defined]
        assert told["held_bytes"] <= space.home.cache.ledger.read().held_bytes  # type: ignore[attr-defined]
        assert sum(path.stat().st_blocks for path in cache.rglob("*.blocks")) * 512 <= DATA_BYTES + 100 * 4096
        if rng.random() < 0.4:
            subprocess.run(["rm", "-r", cache], check=True)
    assert interrupted > 0
    with opened(server, limit_bytes=20 * remotes.BLOCK_BYTES) as space:
        for number in range(0, len(space), 7):
            assert space.read(number) == FILES[space.path(number)]
        assert not any((file.states() == COMING).any() for file in space.home.files)  # type: ignore[attr-defined]
        assert contents(space.home.cache)["held_bytes"] <= 20 * remotes.BLOCK_BYTES  # type: ignore[attr-defined]
    assert [path.name for path in cache.rglob("*") if path.suffix in (".aside", ".new", ".future")] == []
