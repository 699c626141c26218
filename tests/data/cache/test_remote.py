"""Ranges of bytes from a real server that stalls, breaks off, refuses, ignores ranges, and lies."""

import asyncio
import gc
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem

from benchmarks.range_server import RangeServer
from tandem.core.errors import MissingPackageError
from tandem.data.cache.block_cache import BlockCache
from tandem.data.cache.remote import Range, Remote
from tandem.data.cache.settings import RemoteError, RemoteSettings
from tests.data import remotes

DATA = bytes(range(256)) * 40


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RangeServer]:
    (tmp_path / "at").mkdir()
    (tmp_path / "at" / "file").write_bytes(DATA)
    with RangeServer(tmp_path / "at") as running:
        yield running


def remote(server: RangeServer, **changed: object) -> Remote:
    return Remote(server.url, remotes.settings(server.folder, **changed))


@pytest.mark.slow
def test_ranges_and_whole_files(server: RangeServer) -> None:
    reached = remote(server)
    assert reached.read_whole("file") == DATA
    assert reached.read(Range("file", 100, 333)) == DATA[100:333]
    wanted = [Range("file", at, at + 77) for at in range(0, 7000, 100)]
    found = dict(reached.read_many(wanted))
    assert [found[place] for place in range(len(wanted))] == [DATA[at : at + 77] for at in range(0, 7000, 100)]
    with pytest.raises(FileNotFoundError):
        reached.read(Range("no such file", 0, 1))
    assert server.asked == 2 + len(wanted) + 1  # what is not there is not asked for again


@pytest.mark.parametrize("fault", ["500", "close", "short", "whole"])
def test_what_may_pass_is_tried_again(server: RangeServer, fault: str) -> None:
    reached = remote(server, tries=4)
    reached.read(Range("file", 0, 5))
    server.fault = lambda path, nth: fault if nth < 4 else None
    assert reached.read(Range("file", 5, 4000)) == DATA[5:4000]
    assert server.asked == 5


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("500", "500"),
        ("close", "payload"),
        ("short", "1,997 bytes came instead of 3,995"),
        ("whole", "the server ignores ranges: it answers with the whole file"),
    ],
)
def test_what_does_not_pass_is_told(server: RangeServer, fault: str, words: str) -> None:
    reached = remote(server, tries=3)
    reached.read(Range("file", 0, 5))
    server.fault = lambda path, nth: fault
    with pytest.raises(
        RemoteError, match=rf"{server.url}/file, bytes 5 to 4,000: .*{words}.* \(tried 3 times\)"
    ) as told:
        reached.read(Range("file", 5, 4000))
    assert "TANDEM_DATA_TRIES" in told.value.todo
    assert server.asked == 4


def test_a_server_that_knows_no_ranges_is_refused_at_once(server: RangeServer) -> None:
    server.fault = lambda path, nth: "whole"
    with pytest.raises(RemoteError, match=r"the server ignores ranges: .* \(tried once\)") as told:
        remote(server, tries=3).read(Range("file", 5, 4000))
    assert "nginx" in told.value.todo
    assert server.asked == 1


def test_a_server_that_stalls_is_left_after_the_time_that_was_set(server: RangeServer) -> None:
    server.fault = lambda path, nth: "stall" if nth == 0 else None
    assert remote(server, timeout_s=0.2).read(Range("file", 0, 100)) == DATA[:100]
    server.fault = lambda path, nth: "stall"
    with pytest.raises(RemoteError, match=r"no whole answer within 0\.05 s \(tried 2 times\)"):
        remote(server, timeout_s=0.05, tries=2).read(Range("file", 0, 100))


def test_a_lacking_right_is_told_at_once(server: RangeServer) -> None:
    server.fault = lambda path, nth: "403"
    with pytest.raises(RemoteError, match=r"403.* \(tried once\)") as told:
        remote(server).read(Range("file", 0, 100))
    assert told.value.todo == "check the URL, and the right to read it"  # patience is of no help
    assert server.asked == 1


def test_nobody_listens(tmp_path: Path) -> None:
    with RangeServer(tmp_path) as server:
        gone = server.url
    with pytest.raises(RemoteError, match=r"Connect.* \(tried 5 times\)"):
        Remote(gone, remotes.settings(tmp_path)).read(Range("file", 0, 1))


def test_one_failure_among_many_ends_them_all(server: RangeServer) -> None:
    (server.folder / "bad").write_bytes(DATA)
    server.fault = lambda path, nth: "500" if path == "bad" else None
    with pytest.raises(RemoteError, match="/bad"):
        list(remote(server).read_many([*(Range("file", at, at + 9) for at in range(20)), Range("bad", 0, 9)]))


class FailsWhenCancelled(AsyncFileSystem):
    """The first file cannot be read; the others wait, and break when they are no longer wanted."""

    async def _cat_file(self, path: str, **_: object) -> bytes:
        if not path.endswith("0"):
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        raise ConnectionError(path)


def test_failures_of_the_others_are_told_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fsspec.register_implementation("breaks", FailsWhenCancelled, clobber=True)
    reached = Remote("breaks://x", remotes.settings(tmp_path, tries=1, streams=8))
    with pytest.raises(RemoteError, match="breaks://x/0"):
        list(reached.read_many([Range(str(at), 0, 9) for at in range(8)]))
    with pytest.raises(RemoteError, match="breaks://x/0"):
        reached.read_whole("0")  # by the same loop: the others have ended
    gc.collect()
    assert [record.getMessage() for record in caplog.records] == []


def test_several_threads_at_once(server: RangeServer) -> None:
    reached = remote(server)
    wrong: list[int] = []

    def read(at: int) -> None:
        places = range(at, at + 20)
        wrong.extend(i for i in places if reached.read(Range("file", i, i + 50)) != DATA[i : i + 50])

    threads = [threading.Thread(target=read, args=(100 * i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(("url", "kind"), [("nosuch://x", RemoteError), ("gs://x", MissingPackageError)])
def test_urls_that_nothing_reads(tmp_path: Path, url: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=url):
        Remote(url, remotes.settings(tmp_path)).read_whole("file")


class NeedsJava(fsspec.AbstractFileSystem):
    """A file system whose package is there, but not what that needs."""

    def __init__(self) -> None:
        message = "Unable to load libjvm\ntried here\nand there"
        raise OSError(message)


def test_a_file_system_that_cannot_begin_is_told_in_a_line(tmp_path: Path) -> None:
    fsspec.register_implementation("needsjava", NeedsJava, clobber=True)
    with pytest.raises(RemoteError, match=r"needsjava://x: Unable to load libjvm; ") as caught:
        Remote("needsjava://x", remotes.settings(tmp_path)).read_whole("file")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"block_bytes": 1000},
        {"block_bytes": 2 << 30},
        {"limit_bytes": 0},
        {"tries": 0},
        {"streams": 0},
        {"timeout_s": 0.0},
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(RemoteError, match="allowed"):
        remotes.settings(tmp_path, **wrong)


def test_a_user_without_a_home_gets_no_folder_where_the_program_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TANDEM_DATA_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("getuid", "geteuid"):
        monkeypatch.setattr(os, name, lambda: 2**31 - 77)  # whom the system does not know
    with pytest.raises(RemoteError, match=r"cache /dev/null/no-home-folder/.*; name one: TANDEM_DATA_CACHE="):
        BlockCache(RemoteSettings())


def test_the_environment_sets_what_is_not_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"": tmp_path, "_LIMIT": "3G", "_BLOCK": "64K"}.items():
        monkeypatch.setenv(f"TANDEM_DATA_CACHE{name}", str(value))
    for name, value in {"READ_AHEAD": "0", "TIMEOUT": "5", "TRIES": "2"}.items():
        monkeypatch.setenv(f"TANDEM_DATA_{name}", value)
    expected = {
        "folder": str(tmp_path),
        "limit_bytes": 3 << 30,
        "block_bytes": 65536,
        "ahead_bytes": 0,
        "timeout_s": 5.0,
    }
    assert RemoteSettings() == RemoteSettings(**expected, tries=2)
    monkeypatch.setenv("TANDEM_DATA_TRIES", "often")
    with pytest.raises(RemoteError, match="TANDEM_DATA_TRIES='often'"):
        RemoteSettings()
