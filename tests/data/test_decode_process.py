"""Decoding in processes: the same results, errors that travel, nothing left behind however it ends."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tandem.core.interrupts import AGAIN_S
from tandem.data import Decode, Loader
from tandem.data.batch import Batch
from tandem.data.decode_process import DecoderTraceback, DecodingProcess
from tandem.data.decoding import DecodeError, DecoderFailure
from tests.data import samples as decoders
from tests.data.samples import InMemory, Returning, numbered
from tests.waiting import until

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60

pytestmark = pytest.mark.slow


def test_results_are_those_of_threads_in_the_same_order() -> None:
    samples = numbered(203)
    for decode in (
        decoders.crc,
        Decode(sample=decoders.to_array),
        Decode(sample=len, batch=np.array),
        Decode(sample=decoders.with_number, numbered=True),
    ):
        here = Loader(samples, 16, decode=decode, workers=0)
        with Loader(samples, 16, decode=decode, workers=2, decode_in="processes") as there:
            for theirs, ours in zip(there, here, strict=True):
                assert len(theirs) == len(ours)
                assert all(np.array_equal(a, b) for a, b in zip(theirs, ours, strict=True))


def apart(few: list[bytes]) -> list[NDArray[np.uint8]]:
    """Samples whose bytes do not lie side by side."""
    return [np.repeat(np.frombuffer(one, np.uint8), 2)[::2] for one in few]


def apart_in_a_batch(few: list[bytes]) -> Batch:
    batch = InMemory(few).read_batch(np.arange(len(few)))
    return Batch(batch.numbers_N, np.repeat(batch.data_S, 2)[::2], batch.offsets_N1)


@pytest.mark.parametrize("made", [apart, apart_in_a_batch])
def test_bytes_that_do_not_lie_side_by_side_are_decoded_like_others_in_every_way(
    made: Callable[[list[bytes]], object],
) -> None:
    samples = Returning(numbered(20).contents, made)
    ways: list[dict[str, Any]] = [{"workers": 0}, {"workers": 1}, {"workers": 1, "decode_in": "processes"}]
    for how in ways:
        with Loader(samples, 6, shuffle=False, decode=decoders.to_array, **how) as loader:
            assert [one.tobytes() for batch in loader for one in batch] == samples.contents


def test_results_are_ones_own_to_change_and_survive_the_next_batch() -> None:
    samples = InMemory([bytes([i]) * 100_000 for i in range(40)])
    with Loader(samples, 8, shuffle=False, decode=decoders.to_array, workers=1, decode_in="processes") as loader:
        batches = list(loader)  # each batch goes through the same shared memory
    assert [int(array[0]) for batch in batches for array in batch] == list(range(40))
    assert all((array == array[0]).all() and len(array) == 100_000 for batch in batches for array in batch)
    batches[0][0][:] = 9


def test_decoding_is_done_by_as_many_other_processes_as_there_are_workers() -> None:
    with Loader(numbered(100), 5, decode=decoders.process_id, workers=2, decode_in="processes") as loader:
        seen = {pid for _ in range(3) for batch in loader for pid in batch}
    assert os.getpid() not in seen
    assert 1 <= len(seen) <= 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in seen), "closing ends them"


def test_a_decoders_error_travels_with_its_traceback_and_the_next_batch_is_decoded() -> None:
    loader = Loader(
        numbered(40), 5, shuffle=False, decode=decoders.refuse_seven, workers=1, decode_in="processes", prefetch=1
    )
    batches = iter(loader)
    next(batches)
    with pytest.raises(
        DecodeError, match=r"sample 7 \('folder/7.bin'\) could not be decoded: ValueError: no sevens"
    ) as e:
        next(batches)
    assert isinstance(e.value.__cause__, ValueError)
    assert isinstance(e.value.__cause__.__cause__, DecoderTraceback)
    assert "in refuse_seven" in str(e.value.__cause__.__cause__)
    assert len(next(iter(loader))) == 5
    loader.close()


def test_an_error_that_cannot_travel_is_told_in_words() -> None:
    with (
        Loader(numbered(4), 2, decode=decoders.refuse_stubbornly, workers=1, decode_in="processes") as loader,
        pytest.raises(DecodeError, match=r"could not be decoded: StubbornError: this cannot; allowed: ") as caught,
    ):
        next(iter(loader))
    assert "in refuse_stubbornly" in str(caught.value.__cause__.__cause__)  # type: ignore[union-attr]


@pytest.mark.parametrize("decode", [iter, memoryview])
def test_results_that_cannot_be_pickled_are_told_so(decode: Callable[[memoryview], object]) -> None:
    words = "could not be taken over: TypeError: cannot pickle .*; allowed: in processes, results that can be pickled; "
    with (
        Loader(numbered(4), 2, decode=decode, workers=1, decode_in="processes") as loader,
        pytest.raises(DecodeError, match=words + r"return bytes\(view\) for a view"),
    ):
        next(iter(loader))


def test_results_that_cannot_be_unpickled_are_told_so_and_the_next_batch_is_decoded() -> None:
    process = DecodingProcess(Decode(decoders.one_way_at_seven))
    batches = [([memoryview(text)], [place]) for place, text in enumerate([b"1", b"7", b"22"])]
    first, second, third = process.several(batches)
    assert (first, third) == ([1], [2])
    assert isinstance(second, DecoderFailure)
    process.close()
    with (
        Loader(numbered(8), 8, decode=decoders.one_way_at_seven, workers=1, decode_in="processes") as loader,
        pytest.raises(
            DecodeError, match="could not be taken over: EOFError: it only goes there; allowed: in processes,"
        ),
    ):
        next(iter(loader))


@pytest.mark.parametrize("where", ["threads", "processes"])
def test_an_error_without_words_is_told_by_its_name(where: str) -> None:
    options = {"decode": decoders.refuse_speechlessly, "workers": 1, "decode_in": where}
    with (
        Loader(numbered(4), 2, **options) as loader,  # type: ignore[arg-type]
        pytest.raises(DecodeError, match="could not be decoded: SpeechlessError, whose words cannot be had; allowed: "),
    ):
        next(iter(loader))


@pytest.mark.parametrize(
    ("decode", "words"),
    [
        (
            decoders.die_at_seven,
            r"sample 7 \('folder/7.bin'\) could not be decoded: the decoding process ended with status 3;",
        ),
        (
            decoders.die_of_want_of_memory_at_seven,
            r"sample 7 \('folder/7.bin'\) could not be decoded: the decoding process was ended by SIGKILL, for want",
        ),
        (
            Decode(len, decoders.die_together),
            "the batch of samples 0, 1, 2, 3, 4 could not be put together: the decoding process ended with status 4;",
        ),
        (
            Decode(batch=decoders.die_together),
            "the batch of samples 0, 1, 2, 3, 4 could not be put together: the decoding process ended with status 4;",
        ),
    ],
)
def test_a_process_that_dies_is_told_with_the_sample_and_a_later_iteration_has_a_new_one(
    decode: object, words: str
) -> None:
    options = {"shuffle": False, "decode": decode, "workers": 1, "decode_in": "processes"}
    with Loader(numbered(20), 5, **options) as loader:  # type: ignore[arg-type]
        for _ in range(2):
            with pytest.raises(DecodeError, match=words) as caught:
                list(loader)
            assert "__name__" not in str(caught.value)


def test_samples_that_a_process_that_died_was_to_decode_later_are_not_blamed() -> None:
    process = DecodingProcess(Decode(decoders.die_at_seven))
    with pytest.raises(DecoderFailure) as caught:
        process([memoryview(b"1"), memoryview(b"7"), memoryview(b"2")], [0, 1, 2])
    assert caught.value.place == 1
    assert not process.usable
    with pytest.raises(DecoderFailure, match="the decoding process ended with status 3") as caught:
        process([memoryview(b"4")], [3])
    assert caught.value.place is None
    process.close()


def test_a_decoder_that_is_interrupted_by_itself_is_told_as_one_that_ends(capfd: pytest.CaptureFixture[str]) -> None:
    process = DecodingProcess(Decode(decoders.interrupted))
    with pytest.raises(DecoderFailure, match="the decoding process ended with status 130") as caught:
        process([memoryview(b"1"), memoryview(b"2")], [0, 1])
    assert caught.value.place == 0
    process.close()
    assert capfd.readouterr() == ("", "")


def test_a_process_that_is_killed_is_an_error_not_a_hang() -> None:
    process = DecodingProcess(Decode(decoders.hang))
    os.kill(process._process.pid or 0, signal.SIGKILL)
    with pytest.raises(Exception, match="was ended by SIGKILL"):
        process([memoryview(b"1")], [0])
    process.close()


def test_a_decoder_made_on_the_spot_is_refused_at_once() -> None:
    with pytest.raises(DecodeError, match="a decoder that cannot be pickled"):
        iter(Loader(numbered(4), 2, decode=lambda view: 1, workers=1, decode_in="processes"))


SCRIPT = """
import os, sys
from tandem.data import Loader
from tests.data import samples

def main():
    loader = Loader(samples.numbered(1000), 4, decode=samples.{decode}, workers=2, decode_in="{where}")
    for number, batch in enumerate(loader):
        if number == 3:
            print("going", flush=True)
            {then}
{guard}main()
"""


def start(folder: Path, decode: str, where: str, then: str, guard: str = 'if __name__ == "__main__":\n    ') -> object:
    script = folder / "train.py"
    script.write_text(textwrap.dedent(SCRIPT).format(decode=decode, where=where, then=then, guard=guard))
    return subprocess.Popen(
        [sys.executable, str(script)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as a terminal would make it
    )


def members(session: int) -> list[int]:
    """All processes of a session that are not yet dead."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(its_session) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found


def shared_memory(session: int) -> list[str]:
    """What the processes of a session have mapped that is shared and no file of a disk."""
    lines = [line for pid in members(session) for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    return [line for line in lines if "/dev/shm" in line or "memfd:" in line]


def interrupt(process: subprocess.Popen[str], *, again: bool) -> str:
    """Press Ctrl-C in all processes of the group, once or for as long as it counts once; what it told to stderr."""
    until_s = time.monotonic() + AGAIN_S  # whoever presses later is heard again, be it at the exit
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does
    while again and process.poll() is None and time.monotonic() < until_s:
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.002)  # a key that is held down repeats every 30 ms
    _, errors = process.communicate(timeout=DEADLINE_S)
    return errors


@pytest.mark.parametrize("again", [False, True], ids=["once", "again and again"])
@pytest.mark.parametrize("where", ["threads", "processes"])
def test_ctrl_c_ends_everything_with_the_one_traceback_of_the_script(where: str, again: bool, tmp_path: Path) -> None:
    process = start(tmp_path, "crc", where, "import time; time.sleep(3600)")
    assert isinstance(process, subprocess.Popen)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "going\n"
        shared = shared_memory(process.pid)
        errors = interrupt(process, again=again)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1
    assert errors.startswith("Traceback")
    assert errors.endswith("\nKeyboardInterrupt\n")
    until(lambda: not members(process.pid))
    assert not [line for line in shared if "/dev/shm" in line], "with a name, it could be left behind"
    assert where == "threads" or any("memfd:tandem-requests" in line for line in shared)


@pytest.mark.parametrize("again", [False, True], ids=["once", "again and again"])
@pytest.mark.parametrize("where", ["threads", "processes"])
def test_ctrl_c_gets_through_while_a_batch_is_waited_for(where: str, again: bool, tmp_path: Path) -> None:
    process = start(tmp_path, "hang", where, "pass")
    assert isinstance(process, subprocess.Popen)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "hanging\n"
        until(lambda: waits(process.pid))
        errors = interrupt(process, again=again)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1
    assert errors.endswith("\nKeyboardInterrupt\n")
    until(lambda: not members(process.pid))


def waits(pid: int) -> bool:
    """Whether the main thread waits for a lock beside threads that read ahead."""
    try:
        names = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/wchan")]
        return len(names) >= 3 and "futex" in Path(f"/proc/{pid}/task/{pid}/wchan").read_text()
    except OSError:
        return False


def test_nothing_is_left_of_a_run_that_was_killed_even_in_the_middle_of_a_decoder(tmp_path: Path) -> None:
    process = start(tmp_path, "hang", "processes", "pass")
    assert isinstance(process, subprocess.Popen)
    try:
        until(lambda: len(members(process.pid)) >= 4)  # itself, two that decode, and Python's resource tracker
        until(lambda: len(shared_memory(process.pid)) >= 4)  # both of them have a batch
        shared = shared_memory(process.pid)
        process.kill()
        process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
    until(lambda: not members(process.pid))
    assert not [line for line in shared if "/dev/shm" in line], "with a name, it could be left behind"
    assert any("memfd:tandem-requests" in line for line in shared)


def test_a_script_without_a_main_guard_is_told_so(tmp_path: Path) -> None:
    process = start(tmp_path, "crc", "processes", "pass", guard="")
    assert isinstance(process, subprocess.Popen)
    try:
        _, errors = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "does the script guard its main part by __name__?" in errors
    until(lambda: not members(process.pid))


def test_a_script_that_just_ends_leaves_nothing(tmp_path: Path) -> None:
    process = start(tmp_path, "crc", "processes", "return")
    assert isinstance(process, subprocess.Popen)
    try:
        output, errors = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
    assert (process.returncode, output, errors) == (0, "going\n", "")
    until(lambda: not members(process.pid))
