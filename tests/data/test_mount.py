"""A space as a folder, through a real mount: what programs see in it is what they saw in the source."""

import errno
import hashlib
import json
import mmap
import os
import random
import select
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.range_server import RangeServer
from tandem.core.errors import DataError, MissingPackageError, MountError, SpaceError
from tandem.data import mount as mounting
from tandem.data.mount import SpaceOperations, free_place, mount
from tandem.data.pack.packing import pack
from tandem.data.space import Space
from tandem.data.space.writer import SpaceWriter
from tests.cli.conftest import COMMAND, Shell
from tests.conftest import requires
from tests.data.space.test_pieces import LARGE, PIECE, flip
from tests.data.space.test_space import as_once_written
from tests.mounts import is_mounted, mounted

pytestmark = [requires("fuse", "libfuse"), pytest.mark.slow]

FILES = {
    b"readme": b"hello\n",
    b"empty": b"",
    b"deep/er/and/deeper/file": b"x" * 5000,
    b"deep/er!": b"sorts between a folder and what is in it",
    b"deep/large.bin": LARGE,
    b"deep/one piece": b"p" * PIECE,
    "ünï/日本 語.txt".encode(): b"unicode",
    b"line\nend/new\nline": b"newline",
    b"not utf-8 \xff\xfe/\xe9": b"bytes",
    b"n" * 255: b"a long name",
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    for number, (name, data) in enumerate(FILES.items()):
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod((0o644, 0o600, 0o444, 0o755)[number % 4])
        os.utime(path, ns=(0, 1_600_000_000_123_456_789 + number))
    return folder


@pytest.fixture(scope="module")
def shown(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same, packed and mounted."""
    scratch = tmp_path_factory.mktemp("mount")
    pack(str(source), str(scratch / "s"), workers=1, tell=lambda done, of: None)
    with mounted(scratch / "s", scratch / "m"):
        yield scratch / "m"


def small_space(folder: Path, **files: bytes) -> Path:
    with SpaceWriter(folder / "s") as writer:
        for name, data in (files or {"a": b"first", "b": b"second"}).items():
            writer.add(name, data)
        writer.commit()
    return folder / "s"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def found(folder: Path, *wanted: str) -> list[bytes]:
    """What `find` says of all files below a folder."""
    command = ["find", ".", "-type", "f", "-printf", "|".join(wanted) + "\\0"]
    return sorted(subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout.split(b"\0"))


def test_find_and_diff_see_no_difference(source: Path, shown: Path) -> None:
    assert len(found(source, "%p")) == len(FILES) + 1
    assert found(shown, "%p", "%m", "%s", "%T@", "%y") == found(source, "%p", "%m", "%s", "%T@", "%y")
    assert subprocess.run(["diff", "-r", source, shown], capture_output=True, check=True).stdout == b""
    folders = ["find", ".", "-type", "d", "-print0"]
    one, other = (subprocess.run(folders, cwd=each, capture_output=True, check=True).stdout for each in (source, shown))
    assert sorted(one.split(b"\0")) == sorted(other.split(b"\0"))


def test_every_file_has_the_same_digest_and_status(source: Path, shown: Path) -> None:
    for name, data in FILES.items():
        path = shown / os.fsdecode(name)
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(data).digest()
        before, now = (source / os.fsdecode(name)).stat(), path.stat()
        for field in ("st_mode", "st_size", "st_mtime_ns", "st_nlink"):
            assert getattr(now, field) == getattr(before, field), (name, field)
        assert (now.st_uid, now.st_gid) == (os.getuid(), os.getgid())
        assert now.st_blocks * 512 >= now.st_size > (now.st_blocks - 1) * 512
    root = shown.stat()
    assert (stat.S_ISDIR(root.st_mode), stat.S_IMODE(root.st_mode)) == (True, 0o555)


def test_listing_tells_files_from_folders(shown: Path) -> None:
    with os.scandir(shown / "deep") as listed:
        assert {entry.name: entry.is_dir() for entry in listed} == {
            "er": True, "er!": False, "large.bin": False, "one piece": False,
        }  # fmt: skip


def test_what_is_not_there_is_not_found(shown: Path) -> None:
    for name in ("no", "deep/e", "deep/er/and/deeper/fil", "deep/large.bin ", "ünï/日本"):
        assert not (shown / name).exists()
        with pytest.raises(FileNotFoundError):
            (shown / name).read_bytes()
    with pytest.raises(NotADirectoryError):
        (shown / "readme" / "x").read_bytes()


def test_a_large_file_is_read_anywhere_and_mapped(shown: Path) -> None:
    rng = random.Random(5)
    with (shown / "deep/large.bin").open("rb", buffering=0) as file:
        for _ in range(200):
            start, size = rng.randrange(len(LARGE) + 10), rng.choice([1, 100, 70_000, PIECE + 1])
            expected = LARGE[start : start + size]
            got = b""
            while len(got) < len(expected) and (part := os.pread(file.fileno(), size - len(got), start + len(got))):
                got += part
            assert got == expected
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            assert mapped[PIECE - 5 : PIECE + 5] == LARGE[PIECE - 5 : PIECE + 5]


def test_writes_are_refused(shown: Path) -> None:
    readme, new = shown / "readme", shown / "new"
    attempts = {
        "open": lambda: readme.open("r+b"),
        "append": lambda: readme.open("ab"),
        "create": lambda: new.open("wb"),
        "truncate": lambda: os.truncate(readme, 0),
        "unlink": readme.unlink,
        "rename": lambda: readme.rename(new),
        "mkdir": new.mkdir,
        "rmdir": (shown / "deep").rmdir,
        "chmod": lambda: readme.chmod(0o777),
        "chown": lambda: os.chown(readme, 1, 1),
        "utime": lambda: os.utime(readme),
        "symlink": lambda: new.symlink_to("readme"),
        "link": lambda: new.hardlink_to(readme),
        "setxattr": lambda: os.setxattr(readme, "user.x", b"x"),
    }
    for name, attempt in attempts.items():
        with pytest.raises(OSError, match="Read-only file system") as caught:
            attempt()
        assert caught.value.errno == errno.EROFS, name
    assert readme.read_bytes() == FILES[b"readme"]


def test_statfs_tells_how_large_it_is_and_that_nothing_is_free(shown: Path) -> None:
    told = os.statvfs(shown)
    size = sum(map(len, FILES.values()))
    assert told.f_blocks * told.f_frsize >= size > (told.f_blocks - 1) * told.f_frsize
    assert (told.f_files, told.f_bfree, told.f_bavail, told.f_ffree) == (len(FILES), 0, 0, 0)
    assert told.f_flag & os.ST_RDONLY


def test_many_readers_at_once_all_read_the_same(shown: Path) -> None:
    code = """
import hashlib, os, sys
for folder, _, names in sorted(os.walk(os.fsencode(sys.argv[1]))):
    for name in sorted(names):
        with open(os.path.join(folder, name), "rb") as file:
            print(hashlib.sha256(file.read()).hexdigest())
"""
    expected = sorted(hashlib.sha256(data).hexdigest() for data in FILES.values())

    def read(_: int) -> list[str]:
        done = subprocess.run([sys.executable, "-c", code, shown], capture_output=True, text=True, check=True)
        return sorted(done.stdout.split())

    with ThreadPoolExecutor(6) as pool:
        assert all(digests == expected for digests in pool.map(read, range(6)))


@pytest.mark.parametrize("place", [0, 2 * PIECE + 7])
def test_a_damaged_sample_is_an_io_error_and_the_others_are_read(tmp_path: Path, place: int) -> None:
    space = small_space(tmp_path, small=b"small", damaged=LARGE, tiny=b"tiny")
    flip(space, 1, place)
    flip(space, 2, 1)
    with mounted(space, tmp_path / "m") as served:
        for name in ("damaged", "tiny"):
            with pytest.raises(OSError, match="Input/output error") as caught:
                (tmp_path / "m" / name).read_bytes()
            assert caught.value.errno == errno.EIO
            assert (tmp_path / "m" / name).stat().st_size == {"damaged": len(LARGE), "tiny": 4}[name]
        assert (tmp_path / "m" / "small").read_bytes() == b"small"
        assert served.end() == 0
        told = served.log.read_text()
    for number, name in ((1, "damaged"), (2, "tiny")):
        assert f"ERROR sample {number}, '{name}' of {space}: its bytes are not those that were packed" in told
    assert "Traceback" not in told
    assert "'small'" not in told


def test_a_missing_shard_is_an_io_error(tmp_path: Path) -> None:
    space = small_space(tmp_path)
    with mounted(space, tmp_path / "m") as served:
        (shard,) = (space / "shards").iterdir()
        shard.rename(tmp_path / "away")
        with pytest.raises(OSError, match="Input/output error"):
            (tmp_path / "m" / "a").read_bytes()
        assert f"the shard {shard} is missing" in served.log.read_text()
        (tmp_path / "away").rename(shard)
        assert (tmp_path / "m" / "a").read_bytes() == b"first"


def test_a_space_at_a_url_is_mounted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_DATA_CACHE", str(tmp_path / "cache"))
    space = small_space(tmp_path, small=b"small", large=LARGE)
    with RangeServer(space) as server, mounted(server.url, tmp_path / "m"):
        assert names(tmp_path / "m") == ["large", "small"]
        assert (tmp_path / "m" / "large").read_bytes() == LARGE
        assert (tmp_path / "m" / "small").read_bytes() == b"small"


def test_a_remote_that_is_gone_is_an_io_error_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = small_space(tmp_path, small=b"small")
    monkeypatch.setenv("TANDEM_DATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TANDEM_DATA_TRIES", "1")
    with RangeServer(space) as server, mounted(server.url, tmp_path / "m") as served:
        server.fault = lambda path, nth: "500"
        with pytest.raises(OSError, match="Input/output error") as caught:
            (tmp_path / "m" / "small").read_bytes()
        assert caught.value.errno == errno.EIO
        assert served.end() == 0
        told = served.log.read_text()
    assert f"ERROR {server.url}/shards/" in told
    assert "Traceback" not in told


def test_a_damaged_index_is_an_io_error(tmp_path: Path) -> None:
    space = small_space(tmp_path, **{f"{number:05d}": b"x" for number in range(5000)})
    with Space.open(space) as opened:
        records, name = opened.index.header.records, Path(opened.index.name)
    with name.open("r+b") as file:
        file.seek(records.offset + 24 * 4000)
        file.write(b"\xff" * 8)
    with mounted(space, tmp_path / "m") as served:
        with pytest.raises(OSError, match="Input/output error"):
            (tmp_path / "m" / "04000").stat()
        assert (tmp_path / "m" / "00001").read_bytes() == b"x"
        assert f"ERROR {name}: bytes " in served.log.read_text()


def test_it_shows_the_generation_that_was_present(tmp_path: Path) -> None:
    space = small_space(tmp_path)
    with mounted(space, tmp_path / "m"):
        with SpaceWriter(space) as writer:
            writer.add("c", b"third")
            writer.commit()
        assert names(tmp_path / "m") == ["a", "b"]
        assert not (tmp_path / "m" / "c").exists()
    with mounted(space, tmp_path / "m"):
        assert (tmp_path / "m" / "c").read_bytes() == b"third"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_nothing_stays_mounted(tmp_path: Path, number: int) -> None:
    with mounted(small_space(tmp_path), tmp_path / "m") as served:
        assert is_mounted(tmp_path / "m")
        assert served.end(number) == 0
        assert not is_mounted(tmp_path / "m")
        assert names(tmp_path / "m") == []


def test_unmounting_it_ends_the_process(tmp_path: Path) -> None:
    with mounted(small_space(tmp_path), tmp_path / "m") as served:
        subprocess.run(["fusermount3", "-u", tmp_path / "m"], check=True)
        assert served.process.wait(30) == 0


def test_ctrl_c_while_a_file_is_open_ends_it(tmp_path: Path) -> None:
    with mounted(small_space(tmp_path), tmp_path / "m") as served:
        file = os.open(tmp_path / "m" / "a", os.O_RDONLY)
        assert os.pread(file, 2, 0) == b"fi"
        assert served.end() == 0
        assert not is_mounted(tmp_path / "m")
        with pytest.raises(OSError, match="Transport endpoint is not connected"):
            os.close(file)


def test_what_a_killed_process_leaves_is_cleaned_up_by_the_next(tmp_path: Path) -> None:
    space, place = small_space(tmp_path), tmp_path / "a place\twith \\ and spaces"
    with mounted(space, place) as served:
        served.end(signal.SIGKILL)
        with pytest.raises(OSError, match="Transport endpoint is not connected"):
            names(place)
        assert subprocess.run(["fusermount3", "-u", place], check=False).returncode == 0  # what the guide says
        assert names(place) == []
    with mounted(space, place) as served:
        served.end(signal.SIGKILL)
        with mounted(space, place) as next_one:
            assert (place / "b").read_bytes() == b"second"
            assert "is still mounted, by a process that has ended: unmounted" in next_one.log.read_text()
            assert next_one.end() == 0
        assert names(place) == []


def test_what_is_no_space_is_not_cleaned_up(tmp_path: Path) -> None:
    assert mounting._clean_up(tmp_path) == (
        "is still mounted, by a process that has ended",
        f"run: {'umount' if os.geteuid() == 0 else 'fusermount3 -u'} {tmp_path}",
    )


def wait_for_end(process: int) -> None:
    """Wait for a process that is no child of ours, or gone already."""
    try:
        file = os.pidfd_open(process)
    except ProcessLookupError:
        return
    try:
        assert select.select([file], [], [], 30)[0]
    finally:
        os.close(file)


def test_a_place_that_will_not_do_is_refused(tmp_path: Path) -> None:
    space = small_space(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_bytes(b"")
    cases = {"no where": f"does not exist; .*; run: mkdir -p '{tmp_path}/no where'", "file": "is no folder"}
    for name, words in {**cases, "full": "is not empty"}.items():
        with pytest.raises(MountError, match=words):
            mount(str(space), str(tmp_path / name))
    with (
        mounted(space, tmp_path / "m"),
        pytest.raises(MountError, match=f"has something mounted on it; .*, or run: fusermount3 -u {tmp_path}/m"),
    ):
        mount(str(space), str(tmp_path / "m"))
    with pytest.raises(SpaceError, match="is not a space"):
        mount(str(tmp_path / "full"), str(tmp_path / "m"))
    assert free_place(str(tmp_path / "m")) == tmp_path / "m"


@pytest.mark.skipif(os.geteuid() != 0, reason="requires root: to give up the right to mount")
def test_where_mounting_is_not_allowed_it_is_said(tmp_path: Path) -> None:
    small_space(tmp_path)
    (tmp_path / "m").mkdir()
    powerless = Shell(tmp_path, ["setpriv", "--bounding-set", "-sys_admin", *COMMAND])
    done = powerless.run("data", "mount", "s", "m")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"tandem: {tmp_path}/m cannot be mounted on: the kernel refused to mount; " in done.stderr
    assert not is_mounted(tmp_path / "m")


def test_in_the_background_it_returns_once_it_is_mounted(tmp_path: Path) -> None:
    space = small_space(tmp_path)
    (tmp_path / "m").mkdir()
    tandem = Shell(tmp_path)
    told = json.loads(tandem("data", "mount", "--background", "--log", "log", "s", "m", "--json"))
    try:
        assert (tmp_path / "m" / "a").read_bytes() == b"first"
        about = {"space": str(space), "mountpoint": str(tmp_path / "m"), "generation": 1, "samples": 2}
        assert told == {**about, "process": told["process"]}
        again = tandem.run("data", "mount", "--background", "--log", "log", "s", "m")
        assert (again.returncode, again.stdout) == (2, "")
        assert again.stderr.startswith(f"tandem: {tmp_path}/m has something mounted on it; ")
        assert again.stderr.endswith(f"or run: fusermount3 -u {tmp_path}/m\n")
    finally:
        os.kill(told["process"], signal.SIGTERM)
        wait_for_end(told["process"])
    assert not is_mounted(tmp_path / "m")
    refused = tandem.run("data", "mount", "--background", "s", "m")
    assert "name a --log FILE" in refused.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="requires root: to become another user")
@pytest.mark.parametrize("others", [False, True])
def test_other_users_read_only_where_they_may(tmp_path: Path, others: bool) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.name.startswith(("pytest-", "popen-", "test_")):  # pytest keeps others out
            folder.chmod(0o755)
    with SpaceWriter(tmp_path / "s") as writer:
        writer.add("open", b"o", mode=0o100644)
        writer.add("closed", b"c", mode=0o100600)
        writer.commit()
    with mounted(tmp_path / "s", tmp_path / "m", *(["--allow-other"] if others else [])):
        for name, allowed in (("open", others), ("closed", False)):
            done = subprocess.run(["cat", tmp_path / "m" / name], user=65534, capture_output=True, check=False)
            assert (done.returncode == 0) == allowed
            assert allowed or b"Permission denied" in done.stderr


def test_what_fuse_cannot_show_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    long = "n" * 1025
    as_once_written(tmp_path / "s", dict.fromkeys(("a", "a/b", f"c/{long}", f"c/{long[:1024]}"), b"x"))
    with Space.open(tmp_path / "s") as space:
        answers = SpaceOperations(space)
        assert [name for name, _, _ in answers.readdir("/", 0)] == [".", "..", "a", "c"]
        assert stat.S_ISREG(answers.getattr("/a")["st_mode"])
        assert [name for name, _, _ in answers.readdir("/c", 0)][2:] == [long[:1024]]
    assert "left out, its name is too long for FUSE" in caplog.text
    assert "left out, it lies below a file: what begins with 'a/'" in caplog.text


def test_opening_for_writing_is_refused_where_the_kernel_would_let_it_pass(tmp_path: Path) -> None:
    with Space.open(small_space(tmp_path)) as space:
        for flags in (os.O_WRONLY, os.O_RDWR | os.O_APPEND):
            with pytest.raises(OSError, match="Read-only") as caught:
                SpaceOperations(space).open("/a", flags)
            assert caught.value.errno == errno.EROFS


def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = small_space(tmp_path)
    shell = Shell(tmp_path)
    monkeypatch.setenv("FUSE_LIBRARY_NAME", "no such library")
    assert "the library libfuse, which is not installed" in shell.run("data", "mount", space, tmp_path).stderr
    monkeypatch.setitem(sys.modules, "mfusepy", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'tandemlab\[mount\]'"):
        mount(str(space), str(tmp_path))


def test_a_damaged_space_is_not_mounted(tmp_path: Path) -> None:
    space = small_space(tmp_path)
    (space / "current").write_bytes((space / "current").read_bytes()[:-1] + b"?")
    with pytest.raises(DataError):
        mounting.mount(str(space), str(tmp_path))
