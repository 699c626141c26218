"""Programmes under measurement: pinned, paused, continued, and gone whatever happens to us."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tandem.estimate.profiling.programme import ProgrammeError, Programmes
from tests.waiting import until

SPIN = "while True: pass"
HIDE = f"""
import os, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        os.execve(sys.executable, ['x', '-c', '{SPIN}'], {{}})
    os._exit(0)
os.wait()
{SPIN}
"""
"""What it starts has a session of its own, no parent and an empty environment."""


@pytest.fixture
def programmes() -> Iterator[Programmes]:
    with Programmes() as made:
        yield made


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # the latter where it ends while it is read
        return "gone"


def is_gone(pid: int) -> bool:
    return state(pid) in ("gone", "Z", "X")


def core() -> int:
    return min(os.sched_getaffinity(0))


@pytest.mark.slow
def test_what_it_prints_does_not_fill_the_disk(programmes: Programmes) -> None:
    most, code = (
        1 << 26,
        "import os\nfor _ in range(70): os.write(1, b'x' * (1 << 20))\nos.write(2, b'said')\nwhile True: pass",
    )
    one = programmes.add("one", python(code), [core()])
    one.start()
    until(lambda: one.tail() == "said")
    assert (one.run_dir / "stdout").stat().st_size > most
    one.poll()
    assert (one.run_dir / "stdout").stat().st_size < most


@pytest.mark.slow
def test_it_is_pinned_has_a_run_folder_and_as_many_threads_as_cores(programmes: Programmes) -> None:
    code = (
        "import os; print(sorted(os.sched_getaffinity(0)), os.environ['OMP_NUM_THREADS'], "
        "os.listdir(os.environ['TANDEM_RUN_DIR']), os.getsid(0) == os.getpid())"
    )
    one = programmes.add("one", python(code), [core()])
    for _ in range(2):
        one.start()
        until(lambda: one.poll() is not None)
        assert one.ended is not None
        assert one.ended[1] == 0
        out = (one.run_dir / "stdout").read_text()
        assert out.startswith(f"[{core()}] 1 ['std")
        assert out.endswith("True\n")
    assert one.runs == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', '{SPIN}'], start_new_session=True)\n{SPIN}",
        HIDE,
    ],
    ids=["a session", "a daemon"],
)
def test_paused_it_uses_no_processor_with_all_its_children(programmes: Programmes, code: str) -> None:
    one = programmes.add("one", python(code), [core()])
    one.start()
    until(lambda: len(one._members()) == 2)
    before = one.cpu_s()
    until(lambda: one.cpu_s() > before + 0.1)
    one.pause()
    until(lambda: all(state(pid) == "T" for pid in one._members()))
    stopped = one.cpu_s()
    time.sleep(0.2)  # nothing can be waited for: it is to be seen that nothing happens
    assert one.cpu_s() == stopped
    one.go()
    until(lambda: one.cpu_s() > stopped + 0.05)


@pytest.mark.slow
def test_all_its_threads_are_moved(programmes: Programmes) -> None:
    code = f"import threading\ndef spin():\n    {SPIN}\nthreading.Thread(target=spin).start()\nspin()"
    cores = sorted(os.sched_getaffinity(0))
    one = programmes.add("one", python(code), cores)
    one.start()
    until(lambda: len(list(Path(f"/proc/{one.pid}/task").iterdir())) == 2)
    one.place(cores[-1:])
    tasks = [int(task.name) for task in Path(f"/proc/{one.pid}/task").iterdir()]
    assert [os.sched_getaffinity(task) for task in tasks] == [set(cores[-1:])] * 2


@pytest.mark.slow
def test_processor_time_is_counted_over_runs_and_children(programmes: Programmes) -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    one = programmes.add("one", python(burn), [core()])
    for _ in range(2):
        one.start()
        until(lambda: one.poll() is not None)
    assert 0.4 <= one.cpu_s() < 0.9


@pytest.mark.slow
def test_kill_ends_what_it_started_even_where_that_hid(programmes: Programmes) -> None:
    one = programmes.add("one", python(HIDE), [core()])
    for _ in range(2):
        one.start()
        out = one.run_dir / "stdout"
        until(lambda out=out: out.read_text().endswith("\n"))
        child = int(out.read_text())
        assert not is_gone(child)
        one.kill()
        assert is_gone(child)


@pytest.mark.slow
def test_what_lost_its_parent_and_ended_is_counted_and_buried(programmes: Programmes) -> None:
    burn = "import time, itertools; any(time.process_time() > 0.3 for _ in itertools.count())"
    code = HIDE.replace(SPIN, burn, 1).replace(SPIN, "import time; time.sleep(60)")
    one = programmes.add("one", python(code), [core()])
    one.start()
    out = one.run_dir / "stdout"
    until(lambda: out.read_text().endswith("\n"))
    child = int(out.read_text())
    until(lambda: is_gone(child))
    assert one.cpu_s() >= 0.3
    assert state(child) == "gone"
    assert one.cpu_s() >= 0.3


@pytest.mark.slow
def test_that_its_own_processes_wait_for_one_another_is_not_laid_on_others(programmes: Programmes) -> None:
    one = programmes.add("one", python(HIDE), [core()])
    one.start()
    until(lambda: (one.run_dir / "stdout").read_text().endswith("\n"))
    begun, waited, used = time.monotonic(), one.waited_s(), one.cpu_s()
    until(lambda: one.cpu_s() > used + 0.4)
    used, waited = one.cpu_s() - used, one.waited_s() - waited
    assert used + waited < 1.1 * (time.monotonic() - begun), "two take turns: each waits as long as the other runs"


TURNS_AND_PAUSES = (
    "import multiprocessing, time\n"
    "def burn(_):\n"
    "    until = time.process_time() + 0.05\n"
    "    while time.process_time() < until: pass\n"
    "with multiprocessing.get_context('fork').Pool(2) as pool:\n"
    "    for step in range(10_000):\n"
    "        pool.map(burn, range(2), chunksize=1)\n"
    "        time.sleep(0.1)\n"
    "        print('step', step, flush=True)\n"
)


@pytest.mark.slow
def test_nor_is_it_where_they_pause_in_between(programmes: Programmes) -> None:
    one = programmes.add("one", python(TURNS_AND_PAUSES), [core()])
    one.start()
    out = one.run_dir / "stdout"

    def steps() -> int:
        return out.read_text().count("\n")

    until(lambda: steps() >= 1)
    began, first, waited = time.monotonic(), steps(), one.waited_s()
    until(lambda: steps() >= first + 8)
    kept_at_most_s = time.monotonic() - began - 0.2 * (steps() - first)
    assert one.waited_s() - waited < kept_at_most_s + 0.3, "others had no more than what it neither used nor slept"


@pytest.mark.slow
def test_a_killed_watcher_takes_the_programme_with_it(programmes: Programmes) -> None:
    one = programmes.add("one", python(SPIN), [core()])
    one.start()
    one._watcher.kill()
    until(lambda: one.poll() is not None)
    assert one.ended is not None
    assert one.ended[1] == -signal.SIGKILL


@pytest.mark.slow
def test_nothing_outlives_us_even_killed_by_signal_9(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib\n"
        "from tandem.estimate.profiling.programme import Programmes\n"
        "made = Programmes()\n"
        f"ones = [made.add(str(k), [sys.executable, '-c', {HIDE!r}], [{core()}]) for k in range(2)]\n"
        "for one in ones: one.start()\n"
        "outs = [one.run_dir / 'stdout' for one in ones]\n"
        "while not all(out.read_text().endswith('\\n') for out in outs): time.sleep(0.005)\n"
        "ones[1].pause()\n"
        "print(made.folder, *(one.pid for one in ones), *(out.read_text().strip() for out in outs), flush=True)\n"
        "time.sleep(60)\n"
    )
    ours = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert ours.stdout is not None
    folder, *pids = ours.stdout.readline().split()
    try:
        assert len(pids) == 4
        assert not any(is_gone(int(pid)) for pid in pids)
    finally:
        ours.send_signal(signal.SIGKILL)
        ours.wait()
        ours.stdout.close()
    until(lambda: all(is_gone(int(pid)) for pid in pids))
    until(lambda: not Path(folder).exists())


def test_what_cannot_be_executed_is_said(programmes: Programmes) -> None:
    one = programmes.add("one", ["/no/such/programme"], [core()])
    with pytest.raises(ProgrammeError, match="'/no/such/programme' cannot be executed"):
        one.start()


@pytest.mark.slow
def test_the_last_words_are_shown_on_one_line(programmes: Programmes) -> None:
    one = programmes.add("one", python("raise ValueError('no\\x1binput')"), [core()])
    one.start()
    until(lambda: one.poll() is not None)
    assert one.tail().endswith("ValueError: no\\x1binput")
    assert "\n" not in one.tail()
    long = programmes.add("long", python("raise SystemExit('x' * 100_000 + ': no input')"), [core()])
    long.start()
    until(lambda: long.poll() is not None)
    assert long.tail().startswith("... xxx")
    assert long.tail().endswith("xxx: no input")
    assert len(long.tail()) < 250
