"""Packing from URLs, and from folders and archives that are named by one."""

import gzip
import html
import os
import random
import threading
import zipfile
from base64 import b64encode
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, ClassVar
from urllib.parse import unquote

import fsspec
import pytest

from benchmarks.range_server import RangeServer
from tandem.core.errors import DataError, SpaceError
from tandem.data.cache.settings import RemoteError
from tandem.data.pack import stream, urls
from tandem.data.pack.fetching import fetch_from
from tandem.data.pack.sources import url as url_source
from tandem.data.space import Space
from tandem.data.space.repair import repair
from tests.data import remotes
from tests.data.test_pack import SOME, contents, packed, tarred


def test_a_url(tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    for name, data in SOME.items():
        files.pipe(f"/pack/{name}", data)
    packed("memory://pack", tmp_path / "s")
    assert contents(tmp_path / "s") == SOME
    packed("memory://pack/cls/a.json", tmp_path / "one")
    assert contents(tmp_path / "one") == {"a.json": b"{}"}


def test_names_at_a_url_are_no_patterns(tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    said = {"img [1].png": b"one", "img 1.png": b"two", "x*": b"star", "xy": b"no star", "what?": b"question"}
    for name, data in said.items():
        files.pipe_file(f"/patterns/{name}", data)
    packed("memory://patterns", tmp_path / "s")
    assert contents(tmp_path / "s") == said
    packed("memory://patterns/x*", tmp_path / "one")
    assert contents(tmp_path / "one") == {"x*": b"star"}


@pytest.mark.slow
def test_names_of_a_web_servers_list_are_those_of_its_files(tmp_path: Path) -> None:
    said = {"sp ace.txt": b"1", "#frag.txt": b"2", "pct%41.txt": b"3", "sub dir/é.txt": b"4", "a*[1].png": b"5"}
    for name, data in said.items():
        (tmp_path / "web" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "web" / name).write_bytes(data)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "web"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        packed(f"http://127.0.0.1:{server.server_port}/", tmp_path / "s")
        server.shutdown()
    assert contents(tmp_path / "s") == said


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", ["t.tar", "t.tgz", "t.ZIP"])
def test_an_archive_at_a_url_is_read_as_one(tmp_path: Path, name: str, workers: int) -> None:
    (tmp_path / "web").mkdir()
    many = {f"f{i:04d}": b"%d" % i for i in range(2500)}  # parts for several processes
    if name.endswith("ZIP"):
        with zipfile.ZipFile(tmp_path / "web" / name, "w") as archive:
            for path, data in many.items():
                archive.writestr(path, data)
    else:
        tarred(tmp_path / "web" / name, many, mode="w:gz" if name.endswith("tgz") else "w")
    for terms in ("", "?token=a.b"):
        with RangeServer(tmp_path / "web") as server:
            server.fault = lambda path, nth: "whole"  # as servers do that know no ranges
            done = packed(f"{server.url}/{name}{terms}", tmp_path / f"s{terms}", workers=workers)
        assert done.files == 2500
        assert contents(tmp_path / f"s{terms}") == many


def test_a_compressed_archive_at_a_url_may_be_called_as_if_it_were_not(tmp_path: Path) -> None:
    tarred(tmp_path / "t.tar", SOME, mode="w:gz")
    fsspec.filesystem("memory").put(str(tmp_path / "t.tar"), "/misnamed/t.tar")
    packed("memory://misnamed/t.tar", tmp_path / "s")
    assert contents(tmp_path / "s") == SOME


def test_a_pattern_of_archives_at_a_url(tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    for number in range(3):
        tarred(tmp_path / "t.tar", {f"{number}.txt": b"%d" % number})
        files.put(str(tmp_path / "t.tar"), f"/shards/{number}.tar")
    files.pipe("/shards/notes.txt", b"no archive")
    packed("memory://shards/*.tar", tmp_path / "s")
    assert contents(tmp_path / "s") == {"0.txt": b"0", "1.txt": b"1", "2.txt": b"2"}
    with pytest.raises(SpaceError, match=r"source 'memory://shards/\*.tgz'; "):
        packed("memory://shards/*.tgz", tmp_path / "none")


def test_an_archive_at_a_url_mends_what_was_packed_from_it(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    tarred(tmp_path / "web" / "t.tgz", {"a": b"1", "b": b"2"}, mode="w:gz")
    with RangeServer(tmp_path / "web") as server:
        packed(f"{server.url}/t.tgz", tmp_path / "s")
        (shard,) = (tmp_path / "s" / "shards").iterdir()
        shard.unlink()
        done = repair(str(tmp_path / "s"), fetch_from(f"{server.url}/t.tgz"))
    assert (done.samples, done.left) == (2, [])
    assert contents(tmp_path / "s") == {"a": b"1", "b": b"2"}


def test_a_url_of_a_single_file_whose_size_no_list_tells(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "one.bin").write_bytes(bytes(range(256)))
    with RangeServer(tmp_path / "web") as server:
        packed(f"{server.url}/one.bin", tmp_path / "s")
    assert contents(tmp_path / "s") == {"one.bin": bytes(range(256))}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries again at once."""
    monkeypatch.setattr(urls, "_PAUSE_S", 0)


@pytest.mark.usefixtures("impatient")
def test_a_url_that_cannot_be_read_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "t.zip").write_bytes(bytes(1000))
    (tmp_path / "web" / "one").write_bytes(bytes(1000))
    with RangeServer(tmp_path / "web") as server:
        with pytest.raises(RemoteError, match=f"{server.url}/no.zip: there is no such file; "):
            packed(f"{server.url}/no.zip", tmp_path / "s")
        for fault in ("500", "403", "close"):
            server.fault = lambda path, nth, fault=fault: fault
            for name in ("t.zip", "one"):
                before = server.asked
                with pytest.raises(RemoteError, match=f"{server.url}/{name}: Client.*Error: "):
                    packed(f"{server.url}/{name}", tmp_path / "s")
                assert (server.asked - before > 3) == (fault != "403")
        url = server.url
    with pytest.raises(RemoteError, match="http://: "):
        packed("http://", tmp_path / "s")
    with pytest.raises(RemoteError, match=f"{url}/t.tar: ClientConnectorError: "):
        packed(f"{url}/t.tar", tmp_path / "s")
    (tmp_path / "web" / "t.tar").write_bytes(b"no archive" * 100)
    with RangeServer(tmp_path / "web") as server, pytest.raises(SpaceError, match=f"{server.url}/t.tar, which cannot"):
        packed(f"{server.url}/t.tar", tmp_path / "s")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", ["500", "close"])
def test_a_url_that_fails_now_and_then_is_read_all_the_same(tmp_path: Path, fault: str) -> None:
    (tmp_path / "web").mkdir()
    tarred(tmp_path / "web" / "t.tar", SOME)
    (tmp_path / "web" / "one").write_bytes(bytes(range(256)))
    with RangeServer(tmp_path / "web") as server:
        server.fault = lambda path, nth: fault if nth % 3 else None
        packed(f"{server.url}/t.tar", tmp_path / "archive")
        packed(f"{server.url}/one", tmp_path / "s")
    assert contents(tmp_path / "archive") == SOME
    assert contents(tmp_path / "s") == {"one": bytes(range(256))}


@pytest.mark.usefixtures("impatient")
def test_what_connects_when_it_is_made_is_tried_again_and_named(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    with zipfile.ZipFile(tmp_path / "web" / "a.zip", "w") as archive:
        archive.writestr("d/1", b"1")
    with RangeServer(tmp_path / "web") as server:
        server.fault = lambda path, nth: "500" if nth < 3 else None
        packed(f"zip://d::{server.url}/a.zip", tmp_path / "s")
        assert contents(tmp_path / "s") == {"1": b"1"}
        with_password = server.url.replace("http://", "http://me:word@")
        with pytest.raises(RemoteError, match=r"^zip://d::http://me:\*\*\*@.*/none.zip: there is no such file; "):
            packed(f"zip://d::{with_password}/none.zip", tmp_path / "none")
    with pytest.raises(RemoteError, match=r"^ftp://me:\*\*\*@127.0.0.1:9/x: ConnectionRefusedError: "):
        packed("ftp://me:word@127.0.0.1:9/x", tmp_path / "none")
    with pytest.raises(RemoteError, match=r"ftp://me:\*\*\*@127.0.0.1:9/x: .* refused \(tried 3 times\); "):
        Space.open("ftp://me:word@127.0.0.1:9/x", remote=remotes.settings(tmp_path / "cache", tries=3))


class Listing(SimpleHTTPRequestHandler):
    """Lists folders as Apache and others do: a heading that sorts, `&amp;`, `./`, apostrophes as they are.

    `refused` are answered with 500, `cut` with half of what they have; `.gz` files are said to be encoded so. `pages`
    are answered with links of their own; where there are some, all other folders are refused.
    """

    password = ""
    pages: ClassVar[dict[str, str | bytes]] = {}
    refused: ClassVar[set[str]] = set()
    cut: ClassVar[set[str]] = set()
    asked: ClassVar[set[str]] = set()

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

    def send_head(self) -> BinaryIO | None:  # type: ignore[override]
        """Refuse a folder, or answer."""
        self.asked.add(self.path)
        if self.password and self.headers.get("Authorization") != "Basic " + b64encode(self.password.encode()).decode():
            self.send_error(401)
            return None
        if self.path in self.pages:
            return self._page(self.pages[self.path])
        if self.path in self.refused or (self.pages and self.path.partition("?")[0].endswith("/")):
            self.send_error(500)
            return None
        if self.command == "GET" and self.path in self.cut:
            data = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.end_headers()
            return BytesIO(data[: len(data) // 2])
        return super().send_head()  # type: ignore[return-value]

    def end_headers(self) -> None:
        """Say how it is encoded."""
        if self.path.endswith(".gz"):
            self.send_header("Content-Encoding", "gzip")
        super().end_headers()

    def list_directory(self, path: str | os.PathLike[str]) -> BytesIO:
        """A page of links."""
        names = [f"{one.name}/" if one.is_dir() else one.name for one in Path(path).iterdir()]
        links = ["?C=N;O=D", "?C=M;O=A", "#top", "../", "/", "http://[", *(html.escape(name, False) for name in names)]
        return self._page("".join(f'<a href="{link}">{link}</a>' for link in links))

    def _page(self, text: str | bytes) -> BytesIO:
        page = text if isinstance(text, bytes) else text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html;charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        return BytesIO(page)


@pytest.fixture
def listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder of a web server, and its URL."""
    (tmp_path / "web" / "top").mkdir(parents=True)
    monkeypatch.setattr(Listing, "refused", set())
    monkeypatch.setattr(Listing, "cut", set())
    monkeypatch.setattr(Listing, "pages", {})
    monkeypatch.setattr(Listing, "password", "")
    monkeypatch.setattr(Listing, "asked", set())
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Listing, directory=str(tmp_path / "web"))) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield tmp_path / "web" / "top", f"http://127.0.0.1:{server.server_port}/top"
        server.shutdown()


def test_a_web_servers_list_gives_its_files_and_nothing_else(tmp_path: Path, listing: tuple[Path, str]) -> None:
    folder, url = listing
    said = {"a": b"1", "b&c": b"2", "http_notes": b"3", "httpd/it's": b"4", "sub/d": b"5", "sub/sub/e": b""}
    for number, (name, data) in enumerate(said.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        os.utime(folder / name, (0, 1_500_000_000 + number))
    (folder / "none").mkdir()
    for space, end in {"s": "", "again": "/", "signed": "/?token=a/b"}.items():
        packed(url + end, tmp_path / space)
        assert contents(tmp_path / space) == said
    with Space.open(tmp_path / "s") as space:
        times = {space.path(n): space.stat(n).mtime_ns for n in space.under()}
    assert times == {name: (1_500_000_000 + number) * 10**9 for number, name in enumerate(said)}
    with pytest.raises(SpaceError, match="below which there is no file"):
        packed(f"{url}/none", tmp_path / "empty")


def test_a_pages_links_are_followed_as_browsers_do(tmp_path: Path, listing: tuple[Path, str]) -> None:
    folder, url = listing
    (folder / "s").mkdir()
    for name in ("a", "x(.bin", "s/b", "later", "based"):
        (folder / name).write_bytes(name.encode())
    Listing.pages["/top/"] = "<a href='./a'><a href='x%28.bin'><a href='x(.bin'><a href='s/?token=1'><a href='?page=2'>"
    Listing.pages["/top/?page=2"] = "<a href=later><a href='?page=1'><a href='?sort=name&order=asc'><a href='dir/'>"
    Listing.pages["/top/?page=1"] = Listing.pages["/top/"]
    Listing.pages["/top/s/?token=1"] = gzip.compress(b"<a href='b'><a href='/top/s/?token=1'><A HREF=../a>")
    Listing.pages["/top/dir/"] = "<base href='/top/'><a href='based'><a name=x><a href='dir/nothing'><a href='b'>"
    done = packed(url + "/", tmp_path / "s")
    assert contents(tmp_path / "s") == {n: n.encode() for n in ("a", "x(.bin", "s/b", "later", "based")}
    assert done.left_out == {"what is no file": 2}


def test_a_user_with_a_password_is_one_for_all_that_lies_below(tmp_path: Path, listing: tuple[Path, str]) -> None:
    folder, url = listing
    (folder / "sub").mkdir()
    (folder / "sub" / "a").write_bytes(b"1")
    tarred(folder / "b c[.tar", SOME)
    Listing.password = "user:p@ss"
    known = url.replace("//", "//user:p%40ss@")
    packed(f"{known}/sub", tmp_path / "s")
    assert contents(tmp_path / "s") == {"a": b"1"}
    for number, pattern in enumerate(("b c*.tar", "b%20*%5B.tar", "*.tar")):
        packed(f"{known}/{pattern}", tmp_path / f"archive{number}")
        assert contents(tmp_path / f"archive{number}") == SOME
    with pytest.raises(RemoteError, match=r"//user:\*\*\*@.*/none: there is no such file"):
        packed(f"{known}/none", tmp_path / "none")


def test_an_address_of_the_sixth_version_is_no_chain(tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match=r"http://\[::1\]:9/d/: ClientConnectorError"):
        packed("http://[::1]:9/d/", tmp_path / "s")
    with pytest.raises(RemoteError, match=r"http://\[::1\]:9/s.*Connect.*\(tried once\)"):
        Space.open("http://[::1]:9/s", remote=remotes.settings(tmp_path / "cache", tries=1))


def test_a_web_servers_files_are_kept_as_they_lie_there(tmp_path: Path, listing: tuple[Path, str]) -> None:
    folder, url = listing
    said = {"a.gz": gzip.compress(b"a" * 1000), "b.gz": b"no archive"}
    for name, data in said.items():
        (folder / name).write_bytes(data)
    packed(url, tmp_path / "s")
    assert contents(tmp_path / "s") == said
    tarred(folder / "t.tar.gz", SOME, mode="w:gz")
    packed(f"{url}/t.tar.gz", tmp_path / "archive")
    assert contents(tmp_path / "archive") == SOME


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("whole_bytes", [1 << 20, 100])
def test_a_web_servers_file_that_comes_in_part_is_no_sample(
    tmp_path: Path, listing: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, whole_bytes: int
) -> None:
    folder, url = listing
    monkeypatch.setattr(url_source, "_WHOLE_BYTES", whole_bytes)
    monkeypatch.setattr(url_source, "_AT_ONCE_BYTES", whole_bytes)
    (folder / "a").write_bytes(bytes(1000))
    Listing.cut.add("/top/a")
    with pytest.raises(RemoteError, match=f"{url}/a: BrokenOffError: 500 bytes came, where 1,000 were told"):
        packed(url, tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("faults", [["close", "500", "close"], ["close", "whole"], ["close", "500", "500"]])
def test_a_large_file_of_a_web_server_goes_on_where_it_broke_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: list[str]
) -> None:
    monkeypatch.setattr(url_source, "_WHOLE_BYTES", 4096)
    monkeypatch.setattr(url_source, "_AT_ONCE_BYTES", 4096)
    monkeypatch.setattr(stream, "PIECE_BYTES", 10_000)
    (tmp_path / "web").mkdir()
    data = random.Random(1).randbytes(2_000_000)  # some of it comes before it breaks off
    (tmp_path / "web" / "large").write_bytes(data)
    coming = iter([None, *faults])  # what it is comes first
    with RangeServer(tmp_path / "web") as server:
        server.fault = lambda path, nth: next(coming, None)
        packed(f"{server.url}/large", tmp_path / "s")
        assert contents(tmp_path / "s") == {"large": data}
        coming = iter([None, *faults])
        stream.fetched(f"{server.url}/large", str(tmp_path / "copy"))
        assert (tmp_path / "copy").read_bytes() == data
        assert "whole" in faults or server.requests[-1].start > 0
        coming = iter([None, "close", "first", "first", "first", "first"])
        with pytest.raises(RemoteError, match=r"large: WrongRangeError: bytes from .* on were asked for, and bytes 0-"):
            packed(f"{server.url}/large", tmp_path / "none")
        server.fault = lambda path, nth: "500" if nth > before else None
        before = server.asked
        with pytest.raises(RemoteError, match=f"{server.url}/large: ClientResponseError: 500"):
            packed(f"{server.url}/large", tmp_path / "none")

        def changing(path: str, nth: int) -> str | None:
            if nth == 2 + before:
                (tmp_path / "web" / "large").write_bytes(data[::-1])
                os.utime(tmp_path / "web" / "large", (0, 1))
            return "close" if nth == 1 + before else None

        server.fault, before = changing, server.asked
        with pytest.raises(DataError, match=f"{server.url}/large, which changed while it was packed"):
            packed(f"{server.url}/large", tmp_path / "none")


@pytest.mark.slow
def test_empty_objects_in_the_place_of_folders_are_no_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with remotes.s3_endpoint() as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        files = fsspec.filesystem("s3")
        files.mkdir("marked")
        for key, data in {"p/": b"", "p/a": b"1", "p/d/": b"", "p/d/b": b"2", "p/none/": b""}.items():
            files.pipe_file(f"marked/{key}", data)
        done = packed("s3://marked/p", tmp_path / "s")
    assert contents(tmp_path / "s") == {"a": b"1", "d/b": b"2"}
    assert done.left_out == {"what is no file": 3}


@pytest.mark.usefixtures("impatient")
def test_a_folder_of_a_web_server_that_cannot_be_listed_is_named(tmp_path: Path, listing: tuple[Path, str]) -> None:
    folder, url = listing
    for name in ("a", "sub/b"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    Listing.refused.add("/top/sub/")
    with pytest.raises(RemoteError, match=f"{url}/sub/: ClientResponseError: 500"):
        packed(url, tmp_path / "s")
    assert not (tmp_path / "s").exists()
    tarred(folder / "sub" / "t.tar", SOME)
    tarred(folder / "u.tar", {"u": b""})
    for pattern in ("*/t.tar", "**/*.tar"):
        with pytest.raises(RemoteError, match=f"{url}/sub/: ClientResponseError: 500"):
            packed(f"{url}/{pattern}", tmp_path / "s")
    packed(f"{url}/*.tar", tmp_path / "not below")
    assert contents(tmp_path / "not below") == {"u": b""}
    Listing.refused.clear()
    packed(f"{url}/*/t.tar", tmp_path / "one")
    packed(f"{url}/**/*.tar", tmp_path / "both")
    assert (contents(tmp_path / "one"), contents(tmp_path / "both")) == (SOME, SOME | {"u": b""})
    packed(url, tmp_path / "s")
    assert contents(tmp_path / "s").keys() == {"a", "sub/b", "sub/t.tar", "u.tar"}


def test_large_files_of_a_web_server_are_read_in_pieces(
    tmp_path: Path, listing: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = listing
    said = {f"{n}": bytes([n]) * size for n, size in enumerate((10, 5000, 100, 5001, 0))}
    for name, data in said.items():
        (folder / name).write_bytes(data)
    monkeypatch.setattr(url_source, "_WHOLE_BYTES", 4096)
    monkeypatch.setattr(url_source, "_AT_ONCE_BYTES", 4096)
    monkeypatch.setattr(stream, "PIECE_BYTES", 1024)
    source = url_source.Source(url)
    items = {os.fsdecode(item.path): item for item in source.items(source.entries())}
    assert {name for name, item in items.items() if not isinstance(item.data, bytes)} == {"1", "3"}
    packed(url, tmp_path / "s")
    assert contents(tmp_path / "s") == said


def test_a_query_of_a_url_is_asked_with_as_it_is_and_is_no_part_of_the_files_name(
    tmp_path: Path, listing: tuple[Path, str]
) -> None:
    folder, url = listing
    (folder / "a b").write_bytes(b"signed")
    packed(f"{url}/a%20b?signature=%2Fx%2By%3D/", tmp_path / "s")
    assert set(map(unquote, Listing.asked)) == {"/top/a b?signature=/x+y=/"}
    assert contents(tmp_path / "s") == {"a b": b"signed"}


def modes(space: Path) -> dict[str, int]:
    with Space.open(space) as opened:
        return {opened.path(n): opened.stat(n).mode for n in opened.under()}


def test_modes_are_kept_where_fsspec_tells_them(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, mode in {"private file": 0o600, "program": 0o4755}.items():
        (tmp_path / "in" / name).touch()
        (tmp_path / "in" / name).chmod(mode)
    wanted = {"private file": 0o100600, "program": 0o104755}
    packed(tmp_path / "in", tmp_path / "s")
    packed(f"tandem://{tmp_path}/s", tmp_path / "again")
    packed(f"file://{tmp_path}/in", tmp_path / "of a folder")
    packed(f"file://{tmp_path}/in/private file", tmp_path / "one")
    assert modes(tmp_path / "s") == modes(tmp_path / "again") == modes(tmp_path / "of a folder") == wanted
    assert modes(tmp_path / "one") == {"private file": 0o100600}


@pytest.mark.parametrize("protocol", ["file", "local"])
def test_a_folder_or_archive_of_this_machine_at_a_url_is_read_as_what_it_is(tmp_path: Path, protocol: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").touch()
    (tmp_path / "in" / "loop").symlink_to(".")
    (tmp_path / "in" / "nowhere").symlink_to("nothing")
    os.mkfifo(tmp_path / "in" / "pipe")
    done = packed(f"{protocol}://{tmp_path}/in", tmp_path / "s")
    assert done.left_out == {"link to a folder": 1, "link to nothing": 1, "socket, pipe or device": 1}
    assert contents(tmp_path / "s") == {"file": b""}
    with pytest.raises(SpaceError, match="which it is packed from"):
        packed(f"{protocol}://{tmp_path}/in", tmp_path / "in" / "s")
    archive = tarred(tmp_path / "t.tar", SOME)
    packed(f"{protocol}://{archive}", tmp_path / "archive")
    assert contents(tmp_path / "archive") == SOME
    with pytest.raises(SpaceError, match="below which there is no file"):
        packed(f"{protocol}://{tmp_path}/in/pipe", tmp_path / "none")


def test_what_is_no_file_at_a_url_is_left_out_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = fsspec.filesystem("memory")
    kinds = {"file": "file", "pipe": "other", "link": "link", "nowhere": "link"}
    for name in kinds:
        files.pipe(f"/kinds/{name}", name.encode())

    def find(root: str, detail: bool) -> dict[str, dict[str, object]]:  # as of protocols that know links
        assert detail
        return {f"{root}/{name}": {"size": len(name), "type": kind} for name, kind in kinds.items()}

    def info(name: str) -> dict[str, object]:
        if name.endswith("nowhere"):
            raise FileNotFoundError(name)
        return {"type": "file"}

    monkeypatch.setattr(files, "find", find)
    monkeypatch.setattr(files, "info", info)
    assert packed("memory://kinds", tmp_path / "s").left_out == {"what is no file": 2}
    assert contents(tmp_path / "s") == {"file": b"file", "link": b"link"}
