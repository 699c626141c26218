"""Spaces at URLs: over HTTP, S3, memory and files they are what they are in a folder."""

import itertools
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

import tandem.data
from benchmarks.range_server import RangeServer
from tandem.core.errors import DataError, SpaceError
from tandem.data import Loader, Mixture
from tandem.data.cache.futures import next_uses_s
from tandem.data.cache.keeping import set_limit
from tandem.data.cache.policy import NEVER
from tandem.data.cache.settings import RemoteSettings
from tandem.data.pack.packing import pack
from tandem.data.space import Space
from tandem.data.space.changing import compact, delete
from tandem.data.space.exporting import export
from tandem.data.space.repair import repair
from tandem.data.space.scrub import scrub, unused_bytes
from tandem.data.space.shard import damage
from tandem.data.space.shard_copy import fetched_shard
from tandem.data.space.writer import SpaceWriter
from tests.data import remotes
from tests.data.cache.test_policy import fewest_misses, misses_of_lru
from tests.data.remotes import all_of, opened
from tests.waiting import until

FILES = remotes.contents()
DATA_BYTES = sum(map(len, FILES.values()))


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TANDEM_DATA_CACHE", str(tmp_path / "cache-of-the-environment"))
    monkeypatch.setenv("TANDEM_DATA_TRIES", "1")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RangeServer]:
    remotes.space_of(tmp_path / "at", FILES)
    with RangeServer(tmp_path / "at") as running:
        yield running


@pytest.mark.parametrize("how", ["auto", "pread", "python"])
def test_it_reads_what_was_packed(server: RangeServer, how: str) -> None:
    with Space.open(server.url, how=how, remote=remotes.settings(server.folder.parent / "cache")) as space:  # type: ignore[arg-type]
        assert all_of(space) == FILES
        assert space.read(space.number("empty")) == b""
        assert len(list(space.under("1/"))) == 67
        with pytest.raises(IndexError):
            space.read_batch([0, len(space)])
        with pytest.raises(IndexError):
            space.read(-1)
    assert 0 <= server.sent_bytes("shards/") - DATA_BYTES < 8 * remotes.BLOCK_BYTES


def test_a_few_samples_cost_the_blocks_they_lie_in(server: RangeServer) -> None:
    with opened(server) as space:
        numbers = [space.number("0/f0003"), space.number("2/f0050"), space.number("empty")]
        for number in numbers:
            space.read(number)
        blocks = set()
        for number in numbers[:2]:
            _, shard, offset, size = space.index.place(number)
            blocks |= {(shard, at // remotes.BLOCK_BYTES) for at in (offset, offset + size - 1)}
    assert server.sent_bytes("shards/") == len(blocks) * remotes.BLOCK_BYTES


def test_what_lies_side_by_side_is_one_request(server: RangeServer) -> None:
    with opened(server) as space:
        asked = server.asked
        all_of(space)
        assert server.asked - asked == len(space.index.shards)


def test_open_by_the_short_name_and_by_every_protocol(server: RangeServer) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(server.folder), "/remote-test.space", recursive=True)
    try:
        for url in (
            server.url,
            f"{server.url}/",
            f"file://{server.folder}",
            "memory://remote-test.space",
            str(server.folder),
        ):
            with tandem.data.open(url) as space:
                assert all_of(space) == FILES
    finally:
        memory.rm("/remote-test.space", recursive=True)
    asked = server.sent_bytes("shards/")
    assert asked < DATA_BYTES + 8 * (1 << 20)  # one cache for all copies of a space


def test_a_second_reader_fetches_nothing_again(server: RangeServer) -> None:
    with opened(server) as space:
        all_of(space)
    sent = server.sent_bytes("shards/") + server.sent_bytes("generations/")
    with opened(server) as space:
        assert all_of(space) == FILES
    assert server.sent_bytes("shards/") + server.sent_bytes("generations/") == sent


def test_a_snapshot_stays_what_it_was_when_the_remote_goes_on(server: RangeServer) -> None:
    with opened(server) as old:
        with SpaceWriter(server.folder) as writer:
            writer.add("new", b"new")
            writer.commit()
        with opened(server) as new, opened(server, limit_bytes=1) as again:
            assert (old.generation, new.generation, len(new)) == (1, 2, len(FILES) + 1)
            assert all_of(new) == all_of(again) == FILES | {"new": b"new"}
        assert all_of(old) == FILES
        with Space.open(server.url, generation=1, remote=old.home.settings) as first:
            assert first.generation == 1
        with pytest.raises(SpaceError, match=r"has no generation 7 \(any more\); allowed: the present one, 2"):
            Space.open(server.url, generation=7, remote=old.home.settings)


@pytest.mark.slow
def test_a_publisher_at_work_never_shows_half_a_generation(server: RangeServer) -> None:
    problems: list[object] = []
    done = threading.Event()

    def publish() -> None:
        for generation in range(12):
            with SpaceWriter(server.folder) as writer:
                for i in range(5):
                    writer.add(f"more/{generation}/{i}", f"{generation} {i}".encode() * 99)
                writer.commit()
        done.set()

    def look(name: str) -> None:
        try:
            seen = 0
            while seen < len(FILES) + 60:
                with Space.open(server.url, remote=remotes.settings(server.folder.parent / name)) as space:
                    assert (len(space) - len(FILES)) % 5 == 0
                    assert len(space) >= seen
                    seen = len(space)
                    for number in space.under("more/"):
                        generation, i = space.path(number).split("/")[1:]
                        assert space.read(number) == f"{generation} {i}".encode() * 99
        except BaseException as error:
            problems.append(error)

    threads = [
        threading.Thread(target=publish),
        *(threading.Thread(target=look, args=(n,)) for n in ("c1", "c1", "c2")),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert problems == []
    assert done.is_set()


def test_pickled_it_reads_the_same_generation_elsewhere(server: RangeServer) -> None:
    with opened(server) as space:
        packed = pickle.dumps(space)
        delete(str(server.folder), ["empty"])
        compact(str(server.folder))
        with pickle.loads(packed) as again:
            assert (again.generation, len(again), again.home.settings) == (1, len(FILES), space.home.settings)


@pytest.mark.slow
def test_a_child_process_reads_on(server: RangeServer) -> None:
    with opened(server) as space:
        space.read(3)
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if all_of(space) == FILES else 1)
            except BaseException:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert all_of(space) == FILES
    assert server.sent_bytes("shards/") < DATA_BYTES + 8 * remotes.BLOCK_BYTES


def test_a_whole_shard_that_is_fetched_counts(server: RangeServer, tmp_path: Path) -> None:
    with opened(server) as space:
        ledger, entry = space.home.cache.ledger, space.index.shards[1]  # type: ignore[attr-defined]
        before = ledger.read().fetched_bytes
        space.home.fetch(entry, str(tmp_path / "copy"))
        assert ledger.read().fetched_bytes - before == entry.size == (tmp_path / "copy").stat().st_size


@pytest.mark.slow
def test_scrub_looks_at_the_remote_and_not_at_the_cache(server: RangeServer) -> None:
    with opened(server) as space:
        all_of(space)
    assert list(scrub(server.url)) == []
    shards = sorted((server.folder / "shards").iterdir())
    data = bytearray(shards[0].read_bytes())
    data[5000] ^= 1
    shards[0].write_bytes(data)
    shards[1].unlink()
    shards[2].write_bytes(shards[2].read_bytes()[:3000])
    found = list(scrub(server.url))
    assert all(one.file.startswith(f"{server.url}/shards/") and "tandem-scrub-" not in one.message for one in found)
    kinds = {(one.what, Path(one.file).name) for one in found}
    assert ("sample", shards[0].name) in kinds
    assert ("shard", shards[1].name) in kinds
    assert any(f"{server.url}/shards/{shards[1].name} is missing" in one.message for one in found)
    assert any(shards[2].name in one.file for one in found)


@pytest.mark.parametrize("times", [0, 2, 3])
def test_a_shard_that_scrub_gets_damaged_is_fetched_as_often_as_requests_are_made(
    server: RangeServer, times: int
) -> None:
    with opened(server, tries=3) as space:
        entry = space.index.shards[1]
        garbage = iter(["garbage"] * times)
        server.fault = lambda path, nth: next(garbage, None)
        before = server.asked
        with fetched_shard(space.home, entry) as (path, _):
            assert (damage(path, entry) is None) == (times < 3)
        assert server.asked - before == min(3, times + 1)


def test_export_and_unused_bytes(server: RangeServer, tmp_path: Path) -> None:
    delete(str(server.folder), prefix="1/")
    with opened(server) as space:
        assert export(space, str(tmp_path / "out"), "2/") == 66
    assert (tmp_path / "out" / "2" / "f0005").read_bytes() == FILES["2/f0005"]
    assert unused_bytes(server.url) == sum(len(data) for path, data in FILES.items() if path.startswith("1/"))


def test_it_is_not_changed_there(server: RangeServer, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_bytes(b"a")

    def packing() -> None:
        pack(str(tmp_path / "in"), server.url, workers=1, tell=lambda done, of: None)

    changes = [
        packing, lambda: delete(server.url, ["empty"]), lambda: compact(server.url), lambda: repair(server.url),
        lambda: SpaceWriter(server.url),
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(SpaceError, match=f"a change of {server.url}; allowed: changes of a space in a folder"):
            change()


def test_no_space_there(server: RangeServer) -> None:
    with pytest.raises(SpaceError, match=f"{server.url}/shards is not a space: it has no file `current`"):
        Space.open(f"{server.url}/shards", remote=remotes.settings(server.folder.parent / "cache"))
    (server.folder / "generations" / "00000001.index").unlink()
    with pytest.raises(DataError, match=r"generations/00000001\.index is missing"):
        opened(server)


def test_an_empty_space(tmp_path: Path) -> None:
    remotes.space_of(tmp_path / "at", {})
    with RangeServer(tmp_path / "at") as server, opened(server) as space:
        assert (len(space), list(space.under(""))) == (0, [])


def test_a_shard_that_is_gone_is_said(server: RangeServer) -> None:
    with opened(server) as space:
        shutil.rmtree(server.folder / "shards")
        with pytest.raises(DataError, match=r"files of .* are missing, or it was compacted since it was opened"):
            space.read(0)


@pytest.mark.slow
@pytest.mark.parametrize("room", [2, 4, 7])
@pytest.mark.parametrize("world", [1, 2])
def test_a_loader_has_as_few_misses_as_the_best_choice_would(tmp_path: Path, room: int, world: int) -> None:
    remotes.one_block_each(tmp_path / "at", 8)
    with RangeServer(tmp_path / "at") as server, opened(server, limit_bytes=room * remotes.BLOCK_BYTES) as space:
        loader = Loader(space, world, seed=room, world=world, workers=0, prefetch=1, decode=len)
        sequence = loader.coming(3 * 8 // world).tolist()
        begin = server.asked
        assert sum(len(batch) for _ in range(3) for batch in loader) == len(sequence)
        assert server.asked - begin == fewest_misses(sequence, room)
        for number in sequence:  # nobody knows what comes now
            space.read(number)
        told = space.home.cache.ledger.read()  # type: ignore[attr-defined]
        assert told.fetched_bytes == server.sent_bytes("shards/")
    assert fewest_misses(sequence, room) <= misses_of_lru(sequence, room)


@pytest.mark.parametrize("ahead_bytes", [0, 40_000, 1 << 30])
@pytest.mark.parametrize("limit_bytes", [None, 60_000])
def test_a_loader_reads_all_whatever_is_fetched_ahead(
    server: RangeServer, ahead_bytes: int, limit_bytes: int | None
) -> None:
    with opened(server, ahead_bytes=ahead_bytes, limit_bytes=limit_bytes) as space:
        with Loader(space, 16, seed=5, workers=2) as loader:
            for _ in range(2):
                got = sorted(bytes(view) for batch in loader for view in batch)
                assert got == sorted(FILES.values())
        if limit_bytes is None:
            assert server.sent_bytes("shards/") < DATA_BYTES + 8 * remotes.BLOCK_BYTES
    assert list((server.folder.parent / "cache" / "futures").iterdir()) == []


def test_reading_ahead_fetches_before_anybody_asks_and_no_more_than_it_may(server: RangeServer) -> None:
    room = 20 * remotes.BLOCK_BYTES
    with opened(server, ahead_bytes=room) as space, Loader(space, 4, seed=2, workers=0, decode=len) as loader:
        batches = iter(loader)
        next(batches)
        deadline = threading.Event()
        while server.sent_bytes("shards/") < room and not deadline.wait(0.01):
            pass  # the read-ahead's own thread gets there
        assert server.sent_bytes("shards/") <= room + 8 * remotes.BLOCK_BYTES
        batches.close()  # type: ignore[attr-defined]


def test_a_loader_that_reads_epoch_after_epoch_goes_on_with_what_it_told(server: RangeServer) -> None:
    futures = server.folder.parent / "cache" / "futures"

    def told() -> set[str]:
        return {path.name for path in futures.iterdir()}

    with opened(server, limit_bytes=50_000) as space:
        loader = Loader(space, 50, seed=2, workers=0)
        assert len(list(loader)) == len(list(loader)) == 5
        first = told()
        list(loader)
        assert told() == first
        state = loader.state_dict()
        next(iter(loader))  # broken off
        assert told() == set()
        loader.load_state_dict(state)
        next(batches := iter(loader))
        assert len(told()) == 1
        assert told() != first
        del batches, loader
        assert told() == set()


def test_nothing_is_told_where_all_is_cached_and_there_is_room_until_there_is_none(server: RangeServer) -> None:
    futures = server.folder.parent / "cache" / "futures"
    with opened(server) as space:
        all_of(space)
        with Loader(space, 16, seed=2, workers=0, decode=len) as loader:
            list(loader)
            assert list(futures.iterdir()) == []
            set_limit(space.home.cache, DATA_BYTES + 20_000)  # type: ignore[attr-defined]
            epochs = 0
            while not list(futures.iterdir()):
                list(loader)
                epochs += 1
                assert epochs < 1000
            keys_P = space.home.keys(space.home.blocks_of(loader.coming(5)))  # type: ignore[attr-defined]
            # epochs of cached samples pass faster than they are told: now nobody reads, and the telling catches up
            until(lambda: (next_uses_s(str(futures), keys_P) < NEVER).all(), "all that comes to be told")


def test_a_mixture_tells_each_space_its_own_part(server: RangeServer, tmp_path: Path) -> None:
    remotes.space_of(tmp_path / "other" / "at", remotes.contents(50, seed=9))
    with RangeServer(tmp_path / "other" / "at") as second, opened(server) as one, opened(second) as two:
        with Loader(Mixture([one, two], weights=[3, 1]), 8, seed=1, workers=0, decode=len) as loader:
            batches = iter(loader)
            list(itertools.islice(batches, 5))
            assert len(list((tmp_path / "cache" / "futures").iterdir())) == 1
            assert len(list((tmp_path / "other" / "cache" / "futures").iterdir())) == 1
            batches.close()  # type: ignore[attr-defined]
        assert list((tmp_path / "cache" / "futures").iterdir()) == []


@pytest.fixture(scope="module")
def s3() -> Iterator[RemoteSettings]:
    with remotes.s3_endpoint() as url:
        options = {
            "endpoint_url": url,
            "key": "k",
            "secret": "s",
            "client_kwargs": {"region_name": "eu-central-1"},
        }
        yield RemoteSettings(options=options, block_bytes=remotes.BLOCK_BYTES, tries=2, backoff_s=0.01)


@pytest.mark.slow
def test_over_s3(s3: RemoteSettings, tmp_path: Path) -> None:
    remotes.space_of(tmp_path / "at", FILES)
    files = fsspec.filesystem("s3", **s3.options)
    files.mkdir("bucket-of-a-test")
    files.put(str(tmp_path / "at"), "bucket-of-a-test/a.space", recursive=True)
    settings = replace(s3, folder=str(tmp_path / "cache"))
    with Space.open("s3://bucket-of-a-test/a.space", remote=settings) as space:
        assert space.read(space.number("0/f0003")) == FILES["0/f0003"]
        with Loader(space, 16, seed=1, workers=2) as loader:
            assert sorted(bytes(view) for batch in loader for view in batch) == sorted(FILES.values())
        files.rm("bucket-of-a-test/a.space/shards", recursive=True)
        assert all_of(space) == FILES  # from the cache
    with pytest.raises(SpaceError, match="is not a space"):
        Space.open("s3://bucket-of-a-test/nothing", remote=settings)


def test_importing_and_opening_a_folder_loads_nothing_of_this(tmp_path: Path) -> None:
    space = remotes.space_of(tmp_path / "s", {"a": b"a"})
    script = (
        "import json, sys; from tandem.data.space import Space; Space.open(sys.argv[1]).read(0);"
        "print(json.dumps([name for name in sys.modules if 'fsspec' in name or 'tandem.data.cache' in name]))"
    )
    told = subprocess.run([sys.executable, "-c", script, str(space)], capture_output=True, text=True, check=True)
    assert json.loads(told.stdout) == []
