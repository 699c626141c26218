"""`tandem data` as a user meets it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.range_server import RangeServer
from tandem.cli.mistakes import report
from tandem.data.space import Space
from tests import disks
from tests.cli.conftest import COMMAND, Shell
from tests.data.test_decode_process import interrupt, members
from tests.data.test_loader_faults import ended
from tests.waiting import until


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "cats").mkdir(parents=True)
    for name in ("cats/1.png", "cats/2.png", "dog.png"):
        (folder / name).write_bytes(name.encode() * 3)
        os.utime(folder / name, ns=(10**18, 10**18))
    return folder


@pytest.mark.slow
def test_a_space_from_packing_to_the_files_again(source: Path, tandem_: Shell, tmp_path: Path) -> None:
    assert tandem_("data", "pack", source, "s") == "3 files, 81B; s is at generation 1\n"
    assert tandem_("data", "ls", "s") == "cats/1.png\ncats/2.png\ndog.png\n"
    assert tandem_("data", "ls", "s", "cats/") == "cats/1.png\ncats/2.png\n"
    assert tandem_("data", "ls", "-l", "s", "dog") == "        2 -rw-r--r--           21 2001-09-09 01:46:40 dog.png\n"
    assert tandem_("data", "cat", "s", "dog.png", "cats/1.png") == "dog.png" * 3 + "cats/1.png" * 3
    assert tandem_("data", "scrub", "s") == "s: all is well\n"
    assert tandem_("data", "delete", "s", "--prefix", "cats/").startswith("2 samples deleted")
    assert "freed" in tandem_("data", "compact", "s")
    assert "samples     1\n" in tandem_("data", "stat", "s")
    assert "data_bytes  21\n" in tandem_("data", "stat", "s")
    assert tandem_("data", "export", "s", "out") == "1 file in out\n"
    assert (tmp_path / "out" / "dog.png").stat().st_mtime_ns == 10**18


@pytest.mark.slow
def test_a_prefix_that_nothing_begins_with_is_said_and_export_fails(
    source: Path, tandem_: Shell, tmp_path: Path
) -> None:
    tandem_("data", "pack", source, "s")
    words = "no path in s begins with 'dogs/'; see what there is: tandem data ls s\n"
    listed = tandem_.run("data", "ls", "s", "dogs/")
    assert (listed.returncode, listed.stdout, listed.stderr) == (0, "", words)
    exported = tandem_.run("data", "export", "s", "out", "--prefix", "dogs/")
    assert (exported.returncode, exported.stdout, exported.stderr) == (1, "", words)
    told = tandem_.run("data", "export", "s", "out", "--prefix", "dogs/", "--json")
    assert (told.returncode, json.loads(told.stdout), told.stderr) == (
        1,
        {"files": 0, "damaged": {}, "not_written": {}},
        words,
    )
    assert not (tmp_path / "out").exists()
    (tmp_path / "empty").mkdir()
    assert tandem_.run("data", "pack", "empty", "e").stderr == "no file was packed: there is none in empty\n"
    assert tandem_.run("data", "ls", "e").stderr == ""
    assert tandem_("data", "export", "e", "out") == "0 files in out\n"


@pytest.mark.slow
def test_compacting_under_a_reader_says_what_is_freed_when(source: Path, tandem_: Shell, tmp_path: Path) -> None:
    tandem_("data", "pack", source, "s")
    with Space.open(tmp_path / "s"):
        tandem_("data", "delete", "s", "dog.png")
        done = tandem_.run("data", "compact", "s")
        assert (done.returncode, done.stdout) == (0, "0B freed\n")
        assert done.stderr == (
            "readers have generation 1 open, which needs 145B more; "
            "once they have closed it, free that by: tandem data compact s\n"
        )
        told = json.loads(tandem_("data", "compact", "s", "--json"))
        assert told == {"freed_bytes": 0, "held_generations": [1], "held_bytes": 145, "unjoined_shards": 0}
    index_bytes = (tmp_path / "s" / "generations" / "00000001.index").stat().st_size
    done = tandem_.run("data", "compact", "s")
    assert (done.stdout, done.stderr) == (f"{145 + index_bytes}B freed\n", "")


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_compacting_says_what_there_was_no_room_to_join(tandem_: Shell, tmp_path: Path) -> None:
    with disks.small(tmp_path / "disk", 4):
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            (tmp_path / name / name).write_bytes(os.urandom(1_200_000))
            tandem_("data", "pack", name, "disk/s", *([] if name == "a" else ["--append"]))
        done = tandem_.run("data", "compact", "disk/s")
        assert (done.returncode, done.stderr) == (
            0,
            "2 small shards not joined, for want of room on the disk of disk/s\n",
        )
        assert json.loads(tandem_("data", "compact", "disk/s", "--json"))["unjoined_shards"] == 2


@pytest.mark.slow
def test_bytes_are_also_said_as_people_say_them(tandem_: Shell, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_bytes(bytes(5000))
    tandem_("data", "pack", "in", "s")
    assert "data_bytes  5,000 (4.9KiB)\n" in tandem_("data", "stat", "s")
    assert "size_bytes  5,000 (4.9KiB)\n" in tandem_("data", "stat", "s", "a")


@pytest.mark.slow
def test_stat_tells_the_parity_and_how_many_shards_have_less(source: Path, tandem_: Shell, tmp_path: Path) -> None:
    tandem_("data", "pack", source / "cats", "s")
    assert "parity      0\nless_guarded 0\n" in tandem_("data", "stat", "s")
    (shard,) = (tmp_path / "s" / "shards").iterdir()
    shard.write_bytes(shard.read_bytes() + b"0")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "more").write_bytes(b"more")
    tandem_("data", "pack", "--append", "--parity", "2", "in", "s")
    assert "parity      2\nless_guarded 1\n" in tandem_("data", "stat", "s")


@pytest.mark.slow
def test_one_of_anything_is_not_called_several(source: Path, tandem_: Shell) -> None:
    tandem_("data", "pack", source / "cats", "two")
    (source / "cats" / "1.png").unlink()
    assert tandem_("data", "pack", source / "cats", "s").startswith("1 file, 30B; ")
    assert tandem_("data", "delete", "two", "1.png").startswith("1 sample deleted; to free the room: ")


def test_shards_too_small_to_be_of_use_are_refused(source: Path, tandem_: Shell, tmp_path: Path) -> None:
    done = tandem_.run("data", "pack", "--shard-size", "0", source, "s")
    assert done.returncode == 2
    assert done.stderr.startswith("tandem: --shard-size 0; allowed: 64K and more; ")
    assert not (tmp_path / "s").exists()


@pytest.mark.slow
def test_what_ls_prints_a_shell_takes_back(tandem_: Shell, tmp_path: Path) -> None:
    names = [b"plain", b"a b", b"l\n\xc3\xa4", b"\xff'\\1", b"\x1b[31m", b"\x01f\t"]
    (tmp_path / "in").mkdir()
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/" + name)).write_bytes(name)
    tandem_("data", "pack", "in", "s")
    lines = tandem_("data", "ls", "s").splitlines()
    assert [line for line in lines if "$" not in line] == ["a b", "plain"]
    words = " ".join(line if "$" in line else f"'{line}'" for line in lines)
    done = subprocess.run(["bash", "-c", f"printf '%s/' {words}"], capture_output=True, check=True)
    assert done.stdout.split(b"/")[:-1] == sorted(names)
    long = tandem_("data", "ls", "-l", "s").splitlines()
    assert all(one.endswith(f" {line}") for one, line in zip(long, lines, strict=True))


def packing_of_minutes(folder: Path, workers: int, members_at_least: int = 0) -> subprocess.Popen[str]:
    """Start to pack two files that take long to read, and wait until it reads, or has so many processes."""
    (folder / "in").mkdir()
    for name in ("a", "b"):
        with (folder / "in" / name).open("wb") as file:
            file.truncate(64 << 30)
    process = subprocess.Popen(
        [*COMMAND, "data", "pack", "in", "s", "--workers", str(workers)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, start_new_session=True,
    )  # fmt: skip
    if members_at_least:
        until(lambda: len(members(process.pid)) >= members_at_least or ended(process))
    else:
        until(lambda: len(list((folder / "s").glob("pending/*/*.shard"))) == workers or ended(process))
    return process


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("begun", [2, 3, 4, 5])
def test_what_is_sent_to_all_while_packing_starts_ends_it_with_one_line(
    begun: int, number: signal.Signals, status: int, tmp_path: Path
) -> None:
    process = packing_of_minutes(tmp_path, 2, begun)  # the resource tracker, the fork server, and two that pack
    try:
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=60)
    finally:
        os.killpg(process.pid, signal.SIGKILL) if members(process.pid) else None
    assert (process.returncode, errors) == (status, "interrupted; run it again, and it goes on where it was\n")
    until(lambda: not members(process.pid))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_again_and_again_ends_packing_at_once_with_one_line(workers: int, tmp_path: Path) -> None:
    process = packing_of_minutes(tmp_path, workers)
    try:
        errors = interrupt(process, again=True)
    finally:
        os.killpg(process.pid, signal.SIGKILL) if members(process.pid) else None
    assert (process.returncode, errors) == (130, "interrupted; run it again, and it goes on where it was\n")
    until(lambda: not members(process.pid))


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "number"), [(1, signal.SIGTERM), (2, signal.SIGTERM), (2, signal.SIGHUP)])
def test_sigterm_and_sighup_end_packing_as_cleanly(workers: int, number: signal.Signals, tmp_path: Path) -> None:
    process = packing_of_minutes(tmp_path, workers)
    try:
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        os.killpg(process.pid, signal.SIGKILL) if members(process.pid) else None
    assert (process.returncode, errors) == (128 + number, "interrupted; run it again, and it goes on where it was\n")
    until(lambda: not members(process.pid))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("after", ["data.space.generations:publish", "cli.data:say"])
def test_a_signal_when_all_is_packed_is_told_so(
    after: str, number: signal.Signals, status: int, source: Path, tmp_path: Path
) -> None:
    module, _, name = after.partition(":")
    script = tmp_path / "late.py"
    script.write_text(
        f"""
import signal
from tandem.cli.main import main
import tandem.cli.data
import tandem.{module} as module

done = module.{name}

def then(*given):
    done(*given)
    signal.raise_signal({int(number)})

module.{name} = then
main()
"""
    )
    command = [sys.executable, str(script), "data", "pack", str(source), "s", "--workers", "1"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (status, "interrupted, but all is packed: s is at generation 1\n")
    with Space.open(tmp_path / "s") as opened:
        assert len(opened) == 3
    assert list((tmp_path / "s" / "pending").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small", "large"])
def test_where_samples_cannot_be_written_to_standard_output_is_called_so(
    name: str, source: Path, tandem_: Shell, tmp_path: Path
) -> None:
    for path, size in (("small", 10), ("large", 1 << 20)):
        (source / path).write_bytes(bytes(size))
    tandem_("data", "pack", source, "s")
    with Path("/dev/full").open("w") as full:
        command = [*tandem_.prefix, "data", "cat", "s", name]
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "tandem: standard output: No space left on device\n")


def test_samples_are_written_whole_or_it_is_said_also_where_output_is_not_buffered(
    tandem_: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    (tmp_path / "in").mkdir()
    data = os.urandom(3_000_000)
    (tmp_path / "in" / "x").write_bytes(data)
    tandem_("data", "pack", "in", "s")
    command = [*tandem_.prefix, "data", "cat", "s", "x"]
    with disks.small(tmp_path / "small", 2):
        for out in (tmp_path / "out", tmp_path / "small" / "out"):
            with out.open("wb") as file:
                done = subprocess.run(
                    command, cwd=tmp_path, stdout=file, stderr=subprocess.PIPE, text=True, check=False
                )
            if out.parent == tmp_path:
                assert (done.returncode, done.stderr, out.read_bytes()) == (0, "", data)
    assert (done.returncode, done.stderr) == (2, "tandem: standard output: No space left on device\n")


@pytest.mark.slow
def test_a_full_disk_is_said_with_the_file(source: Path, tandem_: Shell, tmp_path: Path) -> None:
    (source / "large").write_bytes(os.urandom(3 << 20))
    tandem_("data", "pack", source, "s")
    with disks.small(tmp_path / "small", 2):
        packed = tandem_.run("data", "pack", source, "small/s")
        exported = tandem_.run("data", "export", "s", "small/out")
        shutil.rmtree(tmp_path / "small" / "out")
        (source / "large").unlink()
        tandem_("data", "pack", source, "small/s")
        full = tmp_path / "small" / "full"
        with suppress(OSError), full.open("wb", 0) as file:
            while True:
                file.write(bytes(4096))
        deleted = tandem_.run("data", "delete", "small/s", "dog.png")
        full.unlink()
        assert tandem_("data", "ls", "small/s", "dog") == "dog.png\n"
    assert (packed.returncode, exported.returncode) == (2, 2)
    assert re.fullmatch(r"tandem: small/s/pending/pack-\w+/\w+\.shard: No space left on device\n", packed.stderr), (
        packed.stderr
    )
    assert exported.stderr == "tandem: small/out/large: No space left on device\n"
    assert deleted.returncode == 2
    assert deleted.stderr.startswith("nothing was deleted: small/s is as it was\ntandem: small/s/")


@pytest.mark.slow
def test_everything_answers_in_json(source: Path, tandem_: Shell) -> None:
    told = json.loads(tandem_("data", "pack", source, "s", "--json"))
    assert told == {"generation": 1, "files": 3, "data_bytes": 81, "resumed_files": 0, "left_out": {}}
    (dog,) = json.loads(tandem_("data", "ls", "s", "dog", "--json"))
    assert (dog["path"], dog["size_bytes"], dog["mtime_ns"], dog["mode"]) == ("dog.png", 21, 10**18, "100644")
    assert json.loads(tandem_("data", "stat", "s", "dog.png", "--json")) == [dog]
    assert json.loads(tandem_("data", "stat", "s", "--json"))["samples"] == 3
    assert json.loads(tandem_("data", "cat", "s", "dog.png", "--json"))[0]["base64"] == "ZG9nLnBuZ2RvZy5wbmdkb2cucG5n"
    assert json.loads(tandem_("data", "scrub", "s", "--json")) == []
    assert json.loads(tandem_("data", "delete", "s", "dog.png", "--json")) == {"deleted": 1}
    assert json.loads(tandem_("data", "export", "s", "out", "--json")) == {"files": 2, "damaged": {}, "not_written": {}}
    assert json.loads(tandem_("data", "compact", "s", "--json"))["freed_bytes"] > 0


@pytest.mark.slow
def test_damage_is_said_with_status_1_by_scrub_and_2_by_readers(source: Path, tandem_: Shell, tmp_path: Path) -> None:
    tandem_("data", "pack", source, "s")
    (shard,) = (tmp_path / "s" / "shards").iterdir()
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    told = tandem_("data", "scrub", "s", status=1)
    assert "sample 2, 'dog.png' of s: its bytes are not those that were packed" in told
    assert told.endswith("1 problem\n")
    read = tandem_.run("data", "cat", "s", "dog.png")
    assert (read.returncode, read.stdout) == (2, "")
    assert read.stderr.startswith("tandem: sample 2, 'dog.png' of s: its bytes are not those")
    assert tandem_("data", "cat", "s", "cats/1.png") == "cats/1.png" * 3
    exported = tandem_.run("data", "export", "s", "out")
    assert (exported.returncode, exported.stdout) == (1, "2 files in out\n")
    left_out, many = exported.stderr.splitlines()
    assert left_out.startswith("left out: sample 2, 'dog.png' of s: its bytes are not those")
    assert many == "1 sample left out as damaged: tandem data repair s"
    assert sorted(p.name for p in (tmp_path / "out").rglob("*") if p.is_file()) == ["1.png", "2.png"]


@pytest.mark.slow
def test_what_is_in_the_way_of_an_export_is_named_and_the_others_are_written(tandem_: Shell, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(15):
        (tmp_path / "in" / f"{number:02d}").write_bytes(b"%d" % number)
    tandem_("data", "pack", "in", "s")
    (tmp_path / "out" / "11").mkdir(parents=True)
    for number in range(11):
        (tmp_path / "out" / f"{number:02d}").write_bytes(b"mine")
    done = tandem_.run("data", "export", "s", "out")
    assert (done.returncode, done.stdout) == (1, "3 files in out\n")
    *named, many = done.stderr.splitlines()
    there = "it is there with other bytes; move it away"
    assert named == [f"left out: {number:02d}: out/{number:02d}: {there}" for number in range(10)]
    assert many == "12 samples left out as impossible to write there"
    assert [(tmp_path / "out" / f"{number:02d}").read_bytes() for number in (0, 12)] == [b"mine", b"12"]
    told = tandem_.run("data", "export", "s", "out", "--json")
    assert (told.returncode, told.stderr) == (1, "")
    assert json.loads(told.stdout)["not_written"]["10"] == f"out/10: {there}"


@pytest.mark.slow
def test_a_missing_index_comes_back_from_no_source(source: Path, tandem_: Shell, tmp_path: Path) -> None:
    tandem_("data", "pack", source, "s")
    (tmp_path / "s" / "generations" / "00000001.index").unlink()
    for terms in ([], ["--source", source]):
        done = tandem_.run("data", "repair", *terms, "s")
        unseen = "so it is not known which shards there are to be, and none was checked"
        told = f"still damaged: s/generations/00000001.index is missing; {unseen}\n"
        assert (done.returncode, done.stdout) == (1, told)
        words = "no source brings an index back: put it back from a copy, or rm -r s and pack the space again"
        assert done.stderr == f"{words} from its source\n"


@pytest.mark.slow
def test_a_missing_shard_is_named_with_its_first_samples_and_comes_back_from_the_source(
    tandem_: Shell, tmp_path: Path
) -> None:
    (tmp_path / "many").mkdir()
    for number in range(25):
        (tmp_path / "many" / f"{number:02d}").write_bytes(os.urandom(200))
    tandem_("data", "pack", "--parity", "1", "many", "s")
    (shard,) = (tmp_path / "s" / "shards").iterdir()
    shard.unlink()
    gone = f"the shard s/shards/{shard.name} is missing; samples in it: 25"
    named = [gone, *(f"sample {number}, '{number:02d}': {gone}" for number in range(10))]
    more = f"15 more samples in s/shards/{shard.name}; --json names all"
    assert tandem_("data", "scrub", "s", status=1).splitlines() == [*named, more, "26 problems"]
    found = json.loads(tandem_("data", "scrub", "--json", "s", status=1))
    assert [one["path"] for one in found] == [None, *(f"{number:02d}" for number in range(25))]
    done = tandem_.run("data", "repair", "s")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [f"still damaged: {line}" for line in [*named, more]]
    assert done.stderr.endswith("from the source: tandem data repair --source SOURCE s\n")
    (tmp_path / "other").mkdir()
    done = tandem_.run("data", "repair", "--source", "other", "s")
    lacks = "other does not have the bytes that were packed of what is still damaged; put the files back from a copy\n"
    assert (done.returncode, done.stderr) == (1, lacks)
    shutil.copy(tmp_path / "many" / "03", tmp_path / "other")
    done = tandem_.run("data", "repair", "--source", "other", "s")
    assert done.stdout.startswith("1 sample taken from other\nstill damaged: the shard s/shards/")
    assert (done.returncode, done.stderr) == (1, lacks)
    stray = "s/README is no part of the space it lies in; move it out of s\n"
    assert tandem_("data", "repair", "--source", "many", "s") == "24 samples taken from many\ns: all is well\n"
    (tmp_path / "s" / "README").touch()
    done = tandem_.run("data", "repair", "s")
    assert (done.returncode, done.stdout, done.stderr) == (1, stray, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["data", "pck", "a", "b"], "tandem: unknown command 'pck'; did you mean 'pack'?\n"),
        (["data", "pack", "nothing", "t"], "tandem: source 'nothing'; allowed: a folder, a .tar or .zip file, "),
        (["data", "pack", "images/dog.png", "t"], "name the folder it lies in: images\n"),
        (["data", "ls", "nothing"], "tandem: nothing is not a space: it is no folder; "),
        (["data", "cat", "s", "dog.pgn"], "did you mean 'dog.png'?\n"),
        (["data", "delete", "s"], "tandem: name paths, or a --prefix; see `tandem data delete --help`\n"),
        (
            ["data", "delete", "--prefix", "", "s"],
            "tandem: an empty --prefix is all of s: to remove it as a whole, remove its folder; "
            "see `tandem data delete --help`\n",
        ),
        (["data", "mount", "--log", "no/log", "s", "."], "tandem: --log no/log cannot be written: No such file"),
        (["data", "pack", "images", "images"], "which holds something else than a space; "),
    ],
)
def test_mistakes_are_said(source: Path, tandem_: Shell, args: list[str], words: str) -> None:
    tandem_("data", "pack", source, "s")
    done = tandem_.run(*args)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_scrubs_help_says_all_that_it_checks(tandem_: Shell) -> None:
    told = " ".join(tandem_("data", "scrub", "--help").split())
    assert "the index, every shard, every sample, and the parity of all these" in told


def test_without_a_command_it_explains_itself(tandem_: Shell) -> None:
    told = tandem_("data")
    assert all(
        f"  {name} " in told for name in ("pack", "ls", "cat", "stat", "export", "mount", "delete", "compact", "scrub")
    )


@pytest.mark.slow
def test_a_space_at_a_url_and_its_cache(
    source: Path, tandem_: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_DATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TANDEM_DATA_TRIES", "1")
    tandem_("data", "pack", source, "s")
    with RangeServer(tmp_path / "s") as server:
        url = server.url
        assert tandem_("data", "ls", url, "cats/") == "cats/1.png\ncats/2.png\n"
        assert tandem_("data", "cat", url, "dog.png") == "dog.png" * 3
        assert f"space       {url}\n" in tandem_("data", "stat", url)
        assert tandem_("data", "scrub", url) == f"{url}: all is well\n"
        assert tandem_("data", "export", url, "out") == "3 files in out\n"
        told = json.loads(tandem_("data", "cache", "--json"))
        assert (told["held_bytes"], told["limit_bytes"], told["spaces"][0]["url"]) == (145, 32 << 30, url)
        assert "limit_bytes 5GiB\n" in tandem_("data", "cache", "--limit", "5G")
        assert tandem_("data", "cache", "--clear").startswith("145B freed\n")
        assert json.loads(tandem_("data", "cache", "--json"))["spaces"] == []
        refused = tandem_.run("data", "pack", "--append", "images", url)
        assert (refused.returncode, refused.stderr.startswith(f"tandem: a change of {url}; ")) == (2, True)
        (shard,) = (tmp_path / "s" / "shards").iterdir()
        shard.write_bytes(shard.read_bytes()[:-1] + b"!")
        exported = tandem_.run("data", "export", url, "again")
        assert (exported.returncode, exported.stdout) == (1, "2 files in again\n")
        way_on = f"tandem data scrub {url}; repair it in its folder, and copy it there\n"
        assert exported.stderr.endswith(f"1 sample left out as damaged: {way_on}")
    gone = tandem_.run("data", "cat", url, "dog.png")
    assert (gone.returncode, gone.stdout) == (2, "")
    assert gone.stderr.startswith(f"tandem: {url}/current: ")
    assert "(tried once)" in gone.stderr


def test_a_file_whose_name_came_as_bytes_is_named_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(PermissionError(13, "Permission denied", b"images/\xc3\xa4.png"), as_json=False) == 2
    assert capsys.readouterr().err == "tandem: images/ä.png: Permission denied\n"
