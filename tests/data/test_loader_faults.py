"""A training that is killed, interrupted or fails in its own code, in every mode: nothing is left, the next goes on."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tandem.data import Loader
from tandem.data.ahead import ClosedError
from tandem.data.order import Shuffled
from tandem.data.space import Space
from tandem.data.space.writer import SpaceWriter
from tests.data.samples import crc, with_number
from tests.data.test_decode_process import interrupt, members, shared_memory
from tests.waiting import until

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60
SAMPLES, BATCH = 900, 8
MODES = {"undecoded": "None, decode_in='threads'", "threads": "samples.crc, decode_in='threads'",
         "processes": "samples.crc, decode_in='processes'"}  # fmt: skip

SCRIPT = """
import json, os, sys, zlib
from tandem.data import Loader
from tandem.data.space import Space
from tests.data import samples

def main():
    folder, state, log = sys.argv[1:]
    with Space.open(folder) as space, Loader(space, {batch}, seed=5, workers=2, decode={mode}) as loader:
        if os.path.exists(state):
            with open(state) as file:
                loader.load_state_dict(json.load(file))
        with open(log, "a") as told:
            for batch in loader:
                found = [one if isinstance(one, int) else zlib.crc32(one) for one in batch]
                told.write(json.dumps([loader.state_dict()["position"], found]) + chr(10))
                told.flush()
                with open(state + ".aside", "w") as file:
                    json.dump(loader.state_dict(), file)
                os.replace(state + ".aside", state)
                {then}
    print("done", flush=True)

if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("spaces") / "s"
    with SpaceWriter(made) as writer:
        for number in range(SAMPLES):
            writer.add(f"{number}.bin", random.Random(number).randbytes(number % 50 * 40 + 4))
        writer.commit()
    return made


def start(mode: str, folder: Path, scratch: Path, then: str = "pass") -> subprocess.Popen[str]:
    script = scratch / "train.py"
    script.write_text(SCRIPT.format(batch=BATCH, mode=MODES[mode], then=then))
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), str(scratch / "state"), str(scratch / "log")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str]) -> bool:
    return process.poll() is not None


def lines(path: Path) -> list[tuple[int, list[int]]]:
    """Position after each batch that was logged whole, and what was in it."""
    if not path.exists():
        return []
    return [tuple(json.loads(line)) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_run_killed_twice_leaves_nothing_and_goes_on_at_the_next_sample(
    mode: str, folder: Path, tmp_path: Path
) -> None:
    rng = random.Random(mode)
    done = 0
    for _ in range(2):
        process = start(mode, folder, tmp_path, then="import time; time.sleep(0.005)")
        try:
            enough = done + rng.randrange(3, 20)
            until(lambda run=process, least=enough: len(lines(tmp_path / "log")) >= least or ended(run))
            shared = shared_memory(process.pid)
        finally:
            process.kill()
            process.communicate(timeout=DEADLINE_S)
        assert process.returncode == -signal.SIGKILL
        until(lambda pid=process.pid: not members(pid))
        assert not [line for line in shared if "/dev/shm" in line], "with a name, it could be left behind"
        assert mode != "processes" or any("memfd:tandem-requests" in line for line in shared)
        done = len(lines(tmp_path / "log"))
    last = start(mode, folder, tmp_path)
    output, errors = last.communicate(timeout=DEADLINE_S)
    assert (output, last.returncode) == ("done\n", 0), errors

    with Space.open(folder) as space:
        order = Shuffled(SAMPLES, seed=5, epoch=0).at(range(SAMPLES)).tolist()
        wanted = [crc(memoryview(space.read(number))) for number in order]
    logged = lines(tmp_path / "log")
    batches = dict(logged)  # one may be there twice: killed after it was logged, before its state was saved
    assert len(logged) <= len(batches) + 2
    assert [one for position in sorted(batches) for one in batches[position]] == wanted
    assert all(batches[position] == found for position, found in logged)


@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True], ids=["once", "again and again"])
@pytest.mark.parametrize("mode", MODES)
def test_ctrl_c_and_an_error_in_the_training_end_everything_with_one_traceback(
    mode: str, again: bool, folder: Path, tmp_path: Path
) -> None:
    interrupted = start(mode, folder, tmp_path, then="import time; time.sleep(3600)")
    try:
        until(lambda: len(lines(tmp_path / "log")) > 0 or ended(interrupted))
        errors = interrupt(interrupted, again=again)
    finally:
        interrupted.kill()
    assert interrupted.returncode == -signal.SIGINT
    assert errors.endswith("\nKeyboardInterrupt\n")
    assert errors.count("Traceback") == 1
    failing = start(mode, folder, tmp_path, then="raise ValueError('in the training')")
    _, errors = failing.communicate(timeout=DEADLINE_S)
    assert failing.returncode == 1
    assert errors.rstrip().endswith("ValueError: in the training")
    assert errors.count("Traceback") == 1
    until(lambda: not members(interrupted.pid) and not members(failing.pid))


@pytest.mark.parametrize(
    ("decode", "where"), [(None, "threads"), (crc, "threads"), pytest.param(crc, "processes", marks=pytest.mark.slow)]
)
def test_a_loader_can_be_used_again_after_an_error_in_the_training(
    decode: Callable[[memoryview], int] | None, where: str, folder: Path
) -> None:
    def train(fail_at: int) -> None:
        for place, batch in enumerate(loader):
            assert batch == wanted[place]
            if place == fail_at:
                message = "in the training"
                raise ValueError(message)

    before = set(threading.enumerate())
    options = {"shuffle": False, "decode": decode, "decode_in": where, "workers": 2}
    with Space.open(folder) as space, Loader(space, BATCH, **options) as loader:  # type: ignore[arg-type]
        wanted = list(loader)
        for place in (0, 3):
            with pytest.raises(ValueError, match="in the training"):
                train(place)
        state = loader.state_dict()
        assert state["position"] == 4 * BATCH
        loader.load_state_dict(state)
        assert list(loader) == wanted[4:]
    assert set(threading.enumerate()) <= before


@pytest.mark.slow
def test_decoding_processes_go_on_from_a_state_of_threads_and_the_other_way_round(folder: Path) -> None:
    from tandem.data import Decode

    with Space.open(folder) as space:
        options = {"seed": 2, "decode": Decode(with_number, numbered=True), "workers": 2}
        with Loader(space, BATCH, **options) as reference:  # type: ignore[arg-type]
            wanted = list(reference)
        for first, second in (("threads", "processes"), ("processes", "threads")):
            with Loader(space, BATCH, decode_in=first, **options) as begun:  # type: ignore[arg-type]
                batches = iter(begun)
                found = [next(batches) for _ in range(30)]
                state = json.loads(json.dumps(begun.state_dict()))
            with Loader(space, BATCH, decode_in=second, **options) as resumed:  # type: ignore[arg-type]
                resumed.load_state_dict(state)
                assert found + list(resumed) == wanted


def test_bytes_that_native_threads_read_stay_what_they_are_and_end_with_the_loader(folder: Path) -> None:
    with Space.open(folder) as space:
        wanted = {number: space.read(number) for number in range(SAMPLES)}
        with Loader(space, BATCH, seed=1, workers=3, prefetch=9) as loader:
            kept = [sample for _ in range(3) for batch in loader for sample in batch]
            orders = [Shuffled(SAMPLES, seed=1, epoch=epoch).at(range(SAMPLES)).tolist() for epoch in range(3)]
            assert kept == [wanted[number] for order in orders for number in order]
            batches = iter(loader)
            next(batches)
        with pytest.raises((RuntimeError, ClosedError), match=r"over|closed"):
            next(batches)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12 warns of forks beside threads
def test_what_is_read_ahead_is_refused_in_a_forked_process_which_reads_anew(folder: Path) -> None:
    with Space.open(folder) as space:
        assert space.begin_batch([0], 1) is None, "its shard is not open yet"
        wanted = space.read(0)
        coming = space.begin_batch([0], 1)
        if coming is None:
            pytest.fail("the native reader is not built")
        pid = os.fork()
        if pid == 0:
            try:
                coming.take()
            except RuntimeError:
                del coming
                again = space.begin_batch([0], 1)
                os._exit(0 if again is not None and again.take() == [wanted] else 2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert coming.take() == [wanted]
        assert coming.size_bytes == len(wanted)
        with pytest.raises(IndexError, match=f"sample {SAMPLES} of a space of {SAMPLES}"):
            space.begin_batch([0, SAMPLES], 1)
        empty = space.begin_batch([], 2)
        assert empty is not None
        assert empty.take() == []
