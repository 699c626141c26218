"""Packing: from every kind of source, in several processes, again after a kill."""

import errno
import gzip
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from functools import partial
from io import BytesIO
from multiprocessing import forkserver
from pathlib import Path

import pytest

from tandem.core.errors import DataError, MissingPackageError, SpaceError
from tandem.data.cache.settings import RemoteError
from tandem.data.pack import packing
from tandem.data.pack.packing import Packed, _ended_well, pack
from tandem.data.pack.source import open_source
from tandem.data.space import Space, generations, parity
from tandem.data.space.scrub import scrub
from tandem.data.space.writer import SpaceWriter
from tests.waiting import until

FILES = {f"d{i % 5}/f{i:04d}": bytes([i % 256]) * (i * 37 % 3000) for i in range(2500)}
MTIME_NS = 1_600_000_000_123_456_789


def quiet(done: int, of: int) -> None:
    assert 0 <= done <= of


def packed(source: object, space: Path, **terms: object) -> Packed:
    return pack(str(source), str(space), **{"workers": 1, "tell": quiet} | terms)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    for path, data in FILES.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(data)
        (folder / path).chmod(0o640)
        os.utime(folder / path, ns=(MTIME_NS, MTIME_NS))
    return folder


def contents(space: Path) -> dict[str, bytes]:
    with Space.open(space) as opened:
        return {opened.path(n): opened.read(n) for n in opened.under()}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_folder_comes_back_whole(source: Path, tmp_path: Path, workers: int) -> None:
    done = packed(source, tmp_path / "s", workers=workers)
    assert (done.files, done.data_bytes, done.resumed_files) == (len(FILES), sum(map(len, FILES.values())), 0)
    assert contents(tmp_path / "s") == FILES
    with Space.open(tmp_path / "s") as space:
        assert [space.path(n) for n in range(len(space))] == sorted(FILES)
        assert {(space.stat(n).mtime_ns, space.stat(n).mode) for n in range(len(space))} == {(MTIME_NS, 0o100640)}
    assert os.listdir(tmp_path / "s" / "pending") == []  # noqa: PTH208


def test_what_is_no_file_is_left_out_and_told(tmp_path: Path) -> None:
    (tmp_path / "in" / "empty folder" / "and below it").mkdir(parents=True)
    (tmp_path / "in" / "not empty" / "because").mkdir(parents=True)
    (tmp_path / "in" / "not empty" / "because" / "of this").touch()
    (tmp_path / "in" / "empty").touch()
    (tmp_path / "in" / "link").symlink_to("empty")
    (tmp_path / "in" / "loop").symlink_to(".")
    (tmp_path / "in" / "nowhere").symlink_to("nothing")
    os.mkfifo(tmp_path / "in" / "pipe")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "in" / "socket"))
        done = packed(tmp_path / "in", tmp_path / "s")
    assert done.left_out == {
        "link to a folder": 1, "link to nothing": 1, "socket, pipe or device": 2, "empty folder": 2,
    }  # fmt: skip
    assert contents(tmp_path / "s") == {"empty": b"", "link": b"", "not empty/because/of this": b""}


def test_an_empty_folder_makes_an_empty_space(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert packed(tmp_path / "in", tmp_path / "s").files == 0
    assert contents(tmp_path / "s") == {}


def tarred(path: Path, files: dict[str, bytes], **terms: object) -> Path:
    with tarfile.open(path, **{"mode": "w"} | terms) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode = len(data), 1_600_000_000, 0o604
            archive.addfile(member, BytesIO(data))
    return path


TARS = pytest.mark.parametrize(("name", "mode"), [("t.tar", "w"), ("t.tgz", "w:gz")])
FIRST_NS, LAST_NS = -(1 << 63), (1 << 63) - 1  # what 64 bits hold


@pytest.mark.parametrize(
    ("time", "stored_ns"), [("1e12", LAST_NS), ("9.3e18", LAST_NS), ("-1e999999999", FIRST_NS), ("nan", 0), ("noon", 0)]
)
@TARS
def test_a_time_that_cannot_be_stored_becomes_the_nearest(
    tmp_path: Path, name: str, mode: str, time: str, stored_ns: int
) -> None:
    with tarfile.open(tmp_path / name, mode, format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
        member = tarfile.TarInfo("a")
        member.pax_headers["mtime"] = time
        archive.addfile(member)
    packed(tmp_path / name, tmp_path / "s")
    with Space.open(tmp_path / "s") as space:
        assert space.stat(0).mtime_ns == stored_ns


def test_a_writers_time_that_cannot_be_stored_becomes_the_nearest(tmp_path: Path) -> None:
    with SpaceWriter(tmp_path / "s") as writer:
        writer.add("a", b"", mtime_ns=LAST_NS + 1)
        writer.add("b", b"", mtime_ns=FIRST_NS - 1)
        writer.commit()
    with Space.open(tmp_path / "s") as space:
        assert [space.stat(n).mtime_ns for n in range(2)] == [LAST_NS, FIRST_NS]


SOME = {"cls/a.jpg": b"jpeg" * 300, "cls/a.json": b"{}", "b": b""}


@pytest.mark.parametrize(
    ("name", "mode"), [("t.tar", "w"), ("t.tar.gz", "w:gz"), ("t.tgz", "w:gz"), ("t.tar.xz", "w:xz")]
)
def test_tar_archives(tmp_path: Path, name: str, mode: str) -> None:
    packed(tarred(tmp_path / name, SOME, mode=mode), tmp_path / "s")
    assert contents(tmp_path / "s") == SOME
    with Space.open(tmp_path / "s") as space:
        told = space.stat(space.number("b"))
        assert (told.mtime_ns, told.mode) == (1_600_000_000 * 10**9, 0o100604)


@pytest.mark.parametrize(("name", "mode"), [("t.tar", "w:gz"), ("t.tar", "w:bz2"), ("t.tar", "w:xz"), ("t.tgz", "w")])
def test_what_a_tar_archive_is_called_does_not_tell_whether_it_is_compressed(
    tmp_path: Path, name: str, mode: str
) -> None:
    archive = tarred(tmp_path / name, SOME, mode=mode)
    packed(archive, tmp_path / "s")
    packed(tmp_path / f"*{archive.suffix}", tmp_path / "by pattern")
    assert contents(tmp_path / "s") == contents(tmp_path / "by pattern") == SOME


@pytest.mark.parametrize(
    ("name", "begin", "words"),
    [
        ("t.tar", b"PK\x03\x04", "t.tar, which is a zip archive; .* rename it to end in .zip"),
        ("t.tar", b"\x28\xb5\x2f\xfd", "t.tar, which is compressed by zstd; .* decompress it first"),
        ("t.tgz", b"\x28\xb5\x2f\xfd", "t.tgz, which is compressed by zstd; .* decompress it first"),
        ("t.zip", b"\x1f\x8b\x08", "t.zip, which is compressed by gzip; .* rename it to end in .tar"),
    ],
)
def test_an_archive_of_another_kind_than_it_is_called_is_refused_in_words(
    tmp_path: Path, name: str, begin: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(begin + bytes(2000))
    with pytest.raises(SpaceError, match=words):
        packed(tmp_path / name, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_tar_that_is_called_zip_is_not_taken_for_the_zip_in_it(tmp_path: Path) -> None:
    inner = BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("inner", b"inner")
    tarred(tmp_path / "t.zip", {"a": b"1", "in.zip": inner.getvalue()})
    with pytest.raises(SpaceError, match=r"t\.zip, which is a tar archive; .* rename it to end in \.tar"):
        packed(tmp_path / "t.zip", tmp_path / "s")


@TARS
def test_bytes_behind_the_end_of_a_tar_are_told(tmp_path: Path, name: str, mode: str) -> None:
    one, two = (tarred(tmp_path / "part.tar", {path: path.encode() * 300}).read_bytes() for path in "ab")
    joined = one + two
    (tmp_path / name).write_bytes(gzip.compress(joined) if mode == "w:gz" else joined)
    done = packed(tmp_path / name, tmp_path / "s")
    assert contents(tmp_path / "s") == {"a": b"a" * 300}
    words = "byte behind the end marker of a tar archive (of joined archives only the first is read)"
    assert done.left_out == {words: len(two)}


def test_a_pattern_of_tar_archives(tmp_path: Path) -> None:
    for number in range(3):
        tarred(tmp_path / f"shard-{number}.tar", {f"{number}-{name}": data for name, data in SOME.items()})
    packed(tmp_path / "shard-*.tar", tmp_path / "s")
    assert contents(tmp_path / "s") == {f"{n}-{name}": data for n in range(3) for name, data in SOME.items()}


def added(
    archive: tarfile.TarFile, name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, len(data)
    archive.addfile(member, BytesIO(data))


@TARS
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_tar_gives_what_tar_unpacks_and_the_rest_is_counted(
    tmp_path: Path, name: str, mode: str, workers: int
) -> None:
    with tarfile.open(tmp_path / name, mode) as archive:  # type: ignore[call-overload]
        added(archive, "./x", b"old")
        added(archive, "early link", kind=tarfile.LNKTYPE, link="x")
        added(archive, "x", b"newer")
        added(archive, "a//b/./c", b"in a folder")
        added(archive, "a/b//c", b"in the same folder")
        added(archive, "late link", kind=tarfile.LNKTYPE, link=".//x")
        added(archive, "gone", b"a file, which a link follows")
        added(archive, "gone", kind=tarfile.SYMTYPE, link="x")
        added(archive, "a/b/", kind=tarfile.DIRTYPE)
        added(archive, "nothing/in/", kind=tarfile.DIRTYPE)
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-xf", tmp_path / name, "-C", tmp_path / "out"], check=True)
    unpacked = {
        path.relative_to(tmp_path / "out").as_posix(): path.read_bytes()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    with tarfile.open(tmp_path / f"another {name}", mode) as archive:  # type: ignore[call-overload]
        added(archive, "z", b"of another part")
    done = packed(tmp_path / (name if workers == 1 else f"*{name}"), tmp_path / "s", workers=workers, shard_bytes=1)
    assert unpacked.keys() == {"x", "early link", "late link", "a/b/c"}
    assert contents(tmp_path / "s") == unpacked | ({} if workers == 1 else {"z": b"of another part"})
    assert done.left_out == {
        "earlier one of two members with one name": 3,
        "link, device or sparse file in an archive": 1,
        "empty folder": 1,
    }


@TARS
def test_hard_links_in_a_tar_are_files_and_symbolic_ones_are_left_out(tmp_path: Path, name: str, mode: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "one").write_bytes(b"same")
    (tmp_path / "in" / "two").hardlink_to(tmp_path / "in" / "one")
    (tmp_path / "in" / "link").symlink_to("one")
    with tarfile.open(tmp_path / name, mode) as archive:  # type: ignore[call-overload]
        archive.add(tmp_path / "in", ".")
    done = packed(tmp_path / name, tmp_path / "s")
    assert contents(tmp_path / "s") == {"one": b"same", "two": b"same"}
    assert done.left_out == {"link, device or sparse file in an archive": 1}


@pytest.mark.parametrize("name", ["../escape", "/etc/passwd", "a/../../b"])
@pytest.mark.parametrize("kind", ["tar", "tgz", "zip"])
def test_a_member_that_leads_out_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    archive = tmp_path / f"evil.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr(zipfile.ZipInfo(name), b"x")
    else:
        tarred(archive, {name: b"x"}, mode="w:gz" if kind == "tgz" else "w")
    with pytest.raises(SpaceError, match=r"allowed: relative paths without"):
        packed(archive, tmp_path / "s")
    with pytest.raises(SpaceError, match="not a space"):
        Space.open(tmp_path / "s")


def test_a_zip_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in SOME.items():
            member = zipfile.ZipInfo(name, (2020, 9, 13, 12, 26, 40))
            member.external_attr = 0o100600 << 16
            archive.writestr(member, data)
    packed(tmp_path / "z.zip", tmp_path / "s")
    assert contents(tmp_path / "s") == SOME
    with Space.open(tmp_path / "s") as space:
        assert (space.stat(0).mtime_ns, space.stat(0).mode) == (1_600_000_000 * 10**9, 0o100600)


def test_links_in_a_zip_are_left_out_and_counted(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("a", b"1")
        archive.writestr(link, b"a")
    done = packed(tmp_path / "z.zip", tmp_path / "s")
    assert contents(tmp_path / "s") == {"a": b"1"}
    assert done.left_out == {"link, device or sparse file in an archive": 1}


def test_a_zip_may_name_a_month_that_is_none(tmp_path: Path) -> None:
    member = zipfile.ZipInfo("a")
    member.date_time = (1980, 0, 0, 0, 0, 0)
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr(member, b"1")
    packed(tmp_path / "t.zip", tmp_path / "s")
    assert contents(tmp_path / "s") == {"a": b"1"}


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_zip_gives_what_is_there_once_it_is_unpacked_and_the_rest_is_counted(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for name, data in (("x", "old"), ("a//b", "first"), ("x", "newer"), ("./a/b", "last"), ("none/", "")):
            archive.writestr(name, data)
    done = packed(tmp_path / "z.zip", tmp_path / "s")
    assert contents(tmp_path / "s") == {"x": b"newer", "a/b": b"last"}
    assert done.left_out == {"earlier one of two members with one name": 2, "empty folder": 1}


@pytest.mark.parametrize("kind", ["tar", "tgz", "zip"])
def test_a_damaged_archive_is_said(tmp_path: Path, kind: str) -> None:
    (tmp_path / f"t.{kind}").write_bytes(gzip.compress(b"no archive") if kind == "tgz" else b"no archive" * 100)
    with pytest.raises(SpaceError, match=f"cannot be read as a {'zip' if kind == 'zip' else 'tar'} archive") as told:
        packed(tmp_path / f"t.{kind}", tmp_path / "s")
    assert "\n" not in told.value.given


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_a_damaged_compressed_tar_is_said(tmp_path: Path, kind: str) -> None:
    path = tarred(tmp_path / f"t.tar.{kind}", {"a": os.urandom(50_000)}, mode=f"w:{kind}")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    with pytest.raises(SpaceError, match=r"t\.tar\.\w+, which cannot be read as a tar archive"):
        packed(path, tmp_path / "s")


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_a_damaged_member_of_a_zip_is_named(tmp_path: Path, how: int) -> None:
    with zipfile.ZipFile(tmp_path / "t.zip", "w", how) as archive:
        archive.writestr("whole", b"whole")
        archive.writestr("bad", bytes(range(256)) * 20)
        place = archive.getinfo("bad").header_offset
    data = bytearray((tmp_path / "t.zip").read_bytes())
    data[place + 90] ^= 255
    (tmp_path / "t.zip").write_bytes(data)
    with pytest.raises(SpaceError, match=r"^'bad' in .*t\.zip, which is damaged \("):
        packed(tmp_path / "t.zip", tmp_path / "s")


def test_a_truncated_tar_is_said(tmp_path: Path) -> None:
    path = tarred(tmp_path / "t.tar", {"a": b"x" * 5000})
    os.truncate(path, 3000)
    with pytest.raises(SpaceError, match=r"cannot be read as a tar archive|ends within"):
        packed(path, tmp_path / "s")


@pytest.mark.parametrize(("name", "mode"), [("t.tar", "w"), ("t.tgz", "w:gz")])
@pytest.mark.parametrize("size", [1024, 1024 + 300, 3 * 1024], ids=["between members", "in a header", "at the end"])
def test_a_tar_cut_off_where_a_header_should_be_is_said(tmp_path: Path, name: str, mode: str, size: int) -> None:
    whole = tarred(tmp_path / "whole.tar", {"a": b"x", "b": b"y", "c": b"z"}).read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(whole[:size]) if mode == "w:gz" else whole[:size])
    with pytest.raises(SpaceError, match="the archive is cut short"):
        packed(tmp_path / name, tmp_path / "s")


def test_a_tar_with_a_damaged_header_is_said(tmp_path: Path) -> None:
    whole = bytearray(tarred(tmp_path / "t.tar", {"a": b"x", "b": b"y"}).read_bytes())
    whole[1024] ^= 1
    (tmp_path / "t.tar").write_bytes(whole)
    with pytest.raises(SpaceError, match="the archive is damaged"):
        packed(tmp_path / "t.tar", tmp_path / "s")


@pytest.mark.parametrize("zeros", [512, 1024, 65536], ids=["one block", "two blocks", "padded"])
def test_a_tar_may_end_in_any_number_of_blocks_of_zeros(tmp_path: Path, zeros: int) -> None:
    members = tarred(tmp_path / "whole.tar", {"a": b"x", "b": b"y"}).read_bytes()[:2048]
    (tmp_path / "t.tar").write_bytes(members + bytes(zeros))
    packed(tmp_path / "t.tar", tmp_path / "s")
    assert contents(tmp_path / "s") == {"a": b"x", "b": b"y"}


@pytest.mark.parametrize("terms", [["-b1"], ["-b20"], ["-z"], ["--format=posix"]], ids=str)
def test_what_gnu_tar_writes_and_joins_is_whole(tmp_path: Path, terms: list[str]) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
    run = partial(subprocess.run, check=True, cwd=tmp_path)
    archive = "t.tgz" if "-z" in terms else "t.tar"
    run(["tar", "-cf", archive, *terms, "a"] + (["b"] if "-z" in terms else []))
    if "-z" not in terms:
        run(["tar", "-cf", "more.tar", *terms, "b"])
        run(["tar", "-Af", archive, "more.tar"])
    packed(tmp_path / archive, tmp_path / "s")
    assert contents(tmp_path / "s") == {"a": b"a", "b": b"b"}


def test_a_single_file_is_told_to_be_none_and_what_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(b"png")
    words = r"one\.png', a single file that is no archive; allowed: a folder, .* name the folder it lies in: .*"
    with pytest.raises(SpaceError, match=words + str(tmp_path)):
        packed(tmp_path / "one.png", tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("source", ["/no/such/folder", "memory://nothing-here", "gopher://x", "/no/*.tar"])
def test_nothing_to_pack_is_said(tmp_path: Path, source: str) -> None:
    with pytest.raises((SpaceError, FileNotFoundError)):
        packed(source, tmp_path / "s")


def test_appending_makes_a_generation_and_readers_keep_theirs(tmp_path: Path) -> None:
    for part in ("one", "two"):
        (tmp_path / part).mkdir()
        (tmp_path / part / part).write_bytes(part.encode())
    packed(tmp_path / "one", tmp_path / "s")
    with Space.open(tmp_path / "s") as before:
        with pytest.raises(SpaceError, match="a space already; allowed: a name that is not taken, or --append"):
            packed(tmp_path / "two", tmp_path / "s")
        assert packed(tmp_path / "two", tmp_path / "s", append=True).generation == 2
        assert len(before) == 1
        assert contents(tmp_path / "s") == {"one": b"one", "two": b"two"}
        with pytest.raises(SpaceError, match="'two' comes twice"):
            packed(tmp_path / "two", tmp_path / "s", append=True)
        assert os.listdir(tmp_path / "s" / "pending") == []  # noqa: PTH208
        assert contents(tmp_path / "s") == {"one": b"one", "two": b"two"}


def bad_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"abc")
    path.write_bytes(path.read_bytes().replace(b"abc", b"abd", 1))
    return path


FAILING: dict[str, Callable[[Path], object]] = {
    "a path that leads out": lambda root: tarred(root / "t.tar", {"a": b"1", "../evil": b"2"}),
    "a path below a file": lambda root: tarred(root / "t.tar", {"a": b"1", "a/b": b"2"}),
    "a damaged member": lambda root: bad_zip(root / "t.zip"),
    "no archive": lambda root: shutil.copy(__file__, root / "t.zip"),
    "no file": lambda root: "memory://nothing-here/a",
    "nobody who answers": lambda root: "http://127.0.0.1:1/t.zip",
}


@pytest.mark.parametrize("parity", [0, 1])
@pytest.mark.parametrize("why", FAILING)
def test_what_cannot_be_packed_leaves_no_folder_behind(tmp_path: Path, why: str, parity: int) -> None:
    source = FAILING[why](tmp_path)
    with pytest.raises((SpaceError, RemoteError)):
        packed(source, tmp_path / "s", parity=parity)
    assert not (tmp_path / "s").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises((SpaceError, RemoteError)):
        packed(source, tmp_path / "empty", parity=parity)
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize("had", [0, 2])
def test_an_append_that_is_refused_leaves_the_space_as_it_was(tmp_path: Path, had: int) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "f").write_bytes(b"1")
    packed(tmp_path / "one", tmp_path / "s", parity=had)
    before = {path: path.is_file() and path.read_bytes() for path in (tmp_path / "s").rglob("*")}
    with pytest.raises(SpaceError, match="'f' comes twice"):
        packed(tmp_path / "one", tmp_path / "s", append=True, parity=1)
    assert {path: path.is_file() and path.read_bytes() for path in (tmp_path / "s").rglob("*")} == before


def names(root: Path) -> list[str]:
    """Of three folders with a file each."""
    for name in ("one", "two", "three"):
        (root / name).mkdir()
        (root / name / name).write_bytes(name.encode() * 1000)
    return ["one", "two", "three"]


def test_an_append_that_is_refused_leaves_another_writers_parity(tmp_path: Path) -> None:
    one, two, _ = names(tmp_path)
    packed(tmp_path / one, tmp_path / "s")
    other_packs, refused = threading.Event(), threading.Event()

    def other_tell(done: int, of: int) -> None:
        other_packs.set()
        assert refused.wait(60)

    terms = {"append": True, "parity": 2}
    with ThreadPoolExecutor(1) as threads:
        other = []

        def tell(done: int, of: int) -> None:
            if not other:
                other.append(threads.submit(packed, tmp_path / two, tmp_path / "s", tell=other_tell, **terms))
                assert other_packs.wait(60)

        try:
            with pytest.raises(SpaceError, match="'one' comes twice"):
                packed(tmp_path / one, tmp_path / "s", tell=tell, **terms)
        finally:
            refused.set()
        assert other[0].result().generation == 2
    with Space.open(tmp_path / "s") as space:
        assert space.index.header.parity == 2
    assert len(list((tmp_path / "s" / "parity").glob("*.shard.parity"))) == 2
    assert list(scrub(str(tmp_path / "s"))) == []


@pytest.mark.parametrize(("had", "asked", "by_another"), [(0, 0, 2), (1, 0, 2), (0, 2, 0), (0, 1, 2)])
def test_what_another_commits_just_before_has_parity_and_its_level_holds_where_none_is_asked_for(
    tmp_path: Path, had: int, asked: int, by_another: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = names(tmp_path)
    packed(tmp_path / one, tmp_path / "s", parity=had)

    def commit_before_the_lock(done: int, of: int) -> None:
        publishing = generations.publishing

        def late(folder: Path) -> AbstractContextManager[None]:
            monkeypatch.undo()
            packed(tmp_path / three, tmp_path / "s", append=True, parity=by_another)
            return publishing(folder)

        monkeypatch.setattr(generations, "publishing", late)

    packed(tmp_path / two, tmp_path / "s", append=True, parity=asked, tell=commit_before_the_lock)
    with Space.open(tmp_path / "s") as space:
        shard = space.index.shards[space.stat(space.number("two")).shard].file_name
    assert parity.level_of(tmp_path / "s" / "parity" / f"{shard}.parity") == (asked or by_another)
    assert len(list((tmp_path / "s" / "parity").glob("*.shard.parity"))) == 3
    assert list(scrub(str(tmp_path / "s"))) == []


@pytest.mark.parametrize("file", ["shard.parity", "index", "index.parity", "current"])
def test_a_disk_that_fills_before_an_append_with_parity_is_there_leaves_the_space_as_it_was_and_it_goes_on(
    tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = names(tmp_path)
    packed(tmp_path / one, tmp_path / "s")
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if target.name.endswith(file):
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match=f"No space left on device: '.*{file}'"):
            packed(tmp_path / two, tmp_path / "s", append=True, parity=4)
    assert list((tmp_path / "s" / "pending").rglob("*.parity")) == [], "on a full disk its room is wanted"
    assert list(scrub(str(tmp_path / "s"))) == []
    for part, level in ((three, 0), (two, 4)):
        assert packed(tmp_path / part, tmp_path / "s", append=True, parity=level).files == 1
        assert list(scrub(str(tmp_path / "s"))) == []
        with Space.open(tmp_path / "s") as space:
            assert space.index.header.parity == level
    assert len(list((tmp_path / "s" / "parity").glob("*.shard.parity"))) == 3
    assert list((tmp_path / "s" / "pending").iterdir()) == []


@pytest.mark.parametrize("level", [0, 4])
def test_appending_from_an_empty_folder_changes_nothing(tmp_path: Path, level: int) -> None:
    one, *_ = names(tmp_path)
    (tmp_path / "empty").mkdir()
    assert packed(tmp_path / "empty", tmp_path / "new").generation == 1
    packed(tmp_path / one, tmp_path / "s", parity=2)
    before = {path: path.is_file() and path.read_bytes() for path in (tmp_path / "s").rglob("*")}
    done = packed(tmp_path / "empty", tmp_path / "s", append=True, parity=level)
    assert (done.generation, done.files) == (1, 0)
    assert {path: path.is_file() and path.read_bytes() for path in (tmp_path / "s").rglob("*")} == before


def test_what_others_left_and_cannot_be_removed_makes_no_failure_of_what_is_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(folder: Path, now_s: float) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "s/pending/x/lock")

    one, *_ = names(tmp_path)
    monkeypatch.setattr(packing, "clear_abandoned", refused)
    assert packed(tmp_path / one, tmp_path / "s").generation == 1


def test_parity_without_its_package_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("one", "two"):
        (tmp_path / part).mkdir()
        (tmp_path / part / part).write_bytes(part.encode())
    packed(tmp_path / "one", tmp_path / "s")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setitem(sys.modules, "pyeclib.ec_iface", None)
    with pytest.raises(MissingPackageError, match="parity needs the package 'pyeclib'"):
        packed(tmp_path / "two", tmp_path / "s", append=True, parity=1)
    assert sorted(tmp_path.rglob("*")) == before
    assert packed(tmp_path / "two", tmp_path / "s", append=True).generation == 2


def test_a_failed_run_removes_nothing_where_another_packs(tmp_path: Path) -> None:
    bad, good = tmp_path / "bad", tmp_path / "good"
    for name, source in (("a", bad), ("b", good)):
        source.mkdir()
        (source / name).write_bytes(name.encode())

    def fail_meanwhile(done: int, of: int) -> None:
        with pytest.raises(SpaceError, match="cannot be read as a zip"):
            packed(shutil.copy(__file__, tmp_path / "t.zip"), tmp_path / "s")

    assert packed(good, tmp_path / "s", tell=fail_meanwhile).files == 1
    assert contents(tmp_path / "s") == {"b": b"b"}


def broken_after(parts: int) -> Callable[[int, int], None]:
    """A listener that breaks packing once some parts are done."""
    calls = iter(range(parts))

    def tell(done: int, of: int) -> None:
        if next(calls, None) is None:
            raise KeyboardInterrupt

    return tell


@pytest.mark.slow
def test_it_goes_on_where_it_was(source: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        packed(source, tmp_path / "s", tell=broken_after(1))
    with pytest.raises(SpaceError, match="not a space"):
        Space.open(tmp_path / "s")
    kept = {path.name for path in (tmp_path / "s" / "pending").glob("*/*.shard")}
    assert len(kept) == 2
    done = packed(source, tmp_path / "s")
    assert done.resumed_files == 2000
    assert kept < {path.name for path in (tmp_path / "s" / "shards").iterdir()}
    assert contents(tmp_path / "s") == FILES


@pytest.mark.slow
def test_what_changed_meanwhile_is_packed_anew(source: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        packed(source, tmp_path / "s", tell=broken_after(1))
    first = source / "d0" / "f0000"
    before = first.stat()
    first.write_bytes(b"other")
    try:
        done = packed(source, tmp_path / "s")
    finally:
        first.write_bytes(FILES["d0/f0000"])
        os.utime(first, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert done.resumed_files == 1000  # the part without it
    assert contents(tmp_path / "s") == FILES | {"d0/f0000": b"other"}


@pytest.mark.parametrize("below", ["s", "deep/s"])
def test_a_space_inside_of_its_source_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_bytes(b"1")
    with pytest.raises(SpaceError, match="inside of"):
        packed(tmp_path / "in", tmp_path / "in" / below)
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "a"]
    assert packed(tmp_path / "in", tmp_path / "in.space").files == 1


def test_a_packing_process_that_is_killed_is_said() -> None:
    with ProcessPoolExecutor(1) as pool:
        future = pool.submit(os._exit, 1)
        wait([future])
        with pytest.raises(DataError, match=r"was killed.*run it again, and it goes on"):
            _ended_well(pool, [future])


@pytest.mark.slow
def test_a_fork_server_that_is_killed_is_said_and_packing_goes_on_after_it(source: Path, tmp_path: Path) -> None:
    packer = threading.get_ident()
    forkserver.ensure_running()
    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    os.kill(server, signal.SIGSTOP)  # what is asked of it from now on, it does not answer

    def asks() -> bool:
        frame = sys._current_frames().get(packer)
        while frame is not None and frame.f_code is not forkserver.read_signed.__code__:
            frame = frame.f_back
        return frame is not None

    def kill() -> None:
        until(asks)
        os.kill(server, signal.SIGKILL)

    with ThreadPoolExecutor(1) as threads:
        killed = threads.submit(kill)
        with pytest.raises(DataError, match=r"was killed.*run it again, and it goes on"):
            packed(source, tmp_path / "s", workers=2)
        killed.result()
    assert packed(source, tmp_path / "s", workers=2).files == len(FILES)


def test_a_file_that_vanishes_is_said(tmp_path: Path) -> None:
    (tmp_path / "a\nb").write_bytes(b"1")
    source = open_source(str(tmp_path))
    entries = source.entries()
    (tmp_path / "a\nb").unlink()
    with pytest.raises(DataError, match=r"'a\\nb' vanished .*run it again"):
        list(source.items(entries))
