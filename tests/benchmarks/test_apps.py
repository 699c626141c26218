"""The small applications: each runs, tells how far it is, checks its answer, and finds a spoiled one."""

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tandem.core import records

APPS_FOLDER = Path(__file__).parents[2] / "benchmarks" / "apps"
APPS = sorted(path.stem for path in APPS_FOLDER.glob("*.py") if path.stem != "application")
USE_TORCH = {"chat", "digits", "spacetrain", "textgen"}
ROUND = {"chat": {"train", "generate", "score"}}  # phases that go round; the others work in one
KEEP_CHECKPOINTS = {  # where, and with a scale long enough to be interrupted
    "cg": ("checkpoints/cg.npz", "0.2"),
    "chat": ("chat/checkpoints/sft.pt", "1"),
    "digits": ("checkpoints/digits.npz", "0.3"),
    "stencil": ("checkpoints/stencil.npz", "0.2"),
}
DEADLINE_S = 120


def command(name: str, *options: str) -> list[str]:
    return [sys.executable, str(APPS_FOLDER / f"{name}.py"), "--device", "cpu", *options]


def environment(run_dir: Path | None = None, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TANDEM_")}
    run = {"TANDEM_RUN_DIR": str(run_dir)} if run_dir else {}
    return kept | {"OMP_NUM_THREADS": "1"} | run | more


def run(name: str, *options: str, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(name, *options),
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def answer(output: str) -> str:
    """The line for a human, without the time it took."""
    line, _, _ = output.strip().rpartition("; ")
    return line


def test_there_are_enough_applications() -> None:
    assert len(APPS) >= 13


@pytest.mark.slow
@pytest.mark.parametrize("name", APPS)
def test_runs_and_records_its_progress(name: str, tmp_path: Path) -> None:
    began_s = time.time()
    done = run(name, "--scale", "0.01", cwd=tmp_path, env=environment(tmp_path))
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(rf"{name}: .+; \d+\.\d\d s on cpu, threads: 1\n", done.stdout)
    told = records.read(tmp_path / "events.jsonl")
    phases = [record.phase for record in told if record.phase]
    assert phases[0] == "load"
    assert phases[-1] == "check"
    assert len(phases) == 3 if name not in ROUND else set(phases[1:-1]) == ROUND[name]
    progress = [(record.step, record.rate or 0) for record in told if record.step is not None]
    steps = [step for step, _ in progress]
    assert 4 <= len(steps) <= 41
    assert steps == sorted(set(steps))
    assert {record.total for record in told if record.step is not None} == {steps[-1]}
    assert all(rate > 0 for _, rate in progress)
    worked_s = [(step - before) / rate for (before, _), (step, rate) in itertools.pairwise(progress)]
    assert sum(worked_s) <= time.time() - began_s
    times = [record.t for record in told]
    assert times == sorted(times)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["events.jsonl"]


@pytest.mark.slow
@pytest.mark.parametrize("name", APPS)
def test_finds_its_own_answer_wrong_when_it_is(name: str, tmp_path: Path) -> None:
    done = run(name, "--scale", "0.01", cwd=tmp_path, env=environment(TANDEM_APP_SPOIL="1"))
    assert done.returncode == 1
    assert re.fullmatch(rf"{name}: WRONG ANSWER: .+\n", done.stderr)
    assert not done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", KEEP_CHECKPOINTS)
def test_a_killed_run_goes_on_from_its_checkpoint(name: str, tmp_path: Path) -> None:
    file, amount = KEEP_CHECKPOINTS[name]
    scale = ("--scale", amount)
    process = subprocess.Popen(command(name, *scale), env=environment(tmp_path), stdout=subprocess.PIPE)
    checkpoint = tmp_path / file
    try:
        wait_for(lambda: any(record.step for record in records.read(tmp_path / "events.jsonl")), process)
        process.send_signal(signal.SIGUSR1)
        wait_for(checkpoint.exists, process)
    finally:
        process.kill()
        process.communicate()
    before = [record.step for record in records.read(tmp_path / "events.jsonl") if record.step]
    resumed = run(name, *scale, cwd=tmp_path, env=environment(tmp_path))
    assert resumed.returncode == 0, resumed.stderr
    steps = [record.step for record in records.read(tmp_path / "events.jsonl") if record.step][len(before) :]
    assert steps[0] > before[0], "it began again from the first step"
    assert not checkpoint.exists(), "the next run would start from the end of this one"
    whole = run(name, *scale, cwd=tmp_path, env=environment())
    assert answer(resumed.stdout) == answer(whole.stdout)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert process.poll() is None, "the run ended before it could be interrupted"
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


@pytest.mark.slow
def test_sigterm_saves_a_checkpoint_which_a_run_of_another_length_does_not_use(tmp_path: Path) -> None:
    process = subprocess.Popen(command("stencil", "--scale", "5"), env=environment(tmp_path))
    try:
        wait_for(lambda: any(record.step for record in records.read(tmp_path / "events.jsonl")), process)
        process.terminate()
        assert process.wait(DEADLINE_S) == 128 + signal.SIGTERM
    finally:
        process.kill()
    assert (tmp_path / "checkpoints" / "stencil.npz").exists()
    done = run("stencil", "--scale", "0.01", cwd=tmp_path, env=environment(tmp_path))
    assert done.returncode == 0
    assert re.match(r"stencil: starts over: .+stencil\.npz is of 550 steps, not 4\n", done.stderr)


@pytest.mark.slow
def test_a_chat_run_that_is_asked_to_end_has_saved_where_it_is(tmp_path: Path) -> None:
    process = subprocess.Popen(command("chat"), env=environment(tmp_path), stderr=subprocess.PIPE)
    try:
        wait_for(lambda: any(record.step for record in records.read(tmp_path / "events.jsonl")), process)
        process.terminate()
        assert process.wait(DEADLINE_S) == 128 + signal.SIGTERM
    finally:
        process.kill()
        _, told = process.communicate()
    assert re.fullmatch(rb"chat: stopped by SIGTERM after step \d+ of 24 of stage sft; .+\n", told)
    assert (tmp_path / "chat" / "checkpoints" / "sft.pt").exists()


@pytest.mark.slow
def test_a_request_for_a_checkpoint_does_not_end_a_run_that_keeps_none(tmp_path: Path) -> None:
    process = subprocess.Popen(command("nbody", "--scale", "0.3"), env=environment(tmp_path))
    try:
        wait_for(lambda: any(record.step for record in records.read(tmp_path / "events.jsonl")), process)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()


@pytest.mark.slow
def test_threads_follow_the_option_and_else_the_usable_cores(tmp_path: Path) -> None:
    done = run("wordcount", "--scale", "0.01", "--threads", "2", cwd=tmp_path, env=environment())
    assert done.stdout.endswith("threads: 2\n")
    without = {key: value for key, value in environment().items() if key != "OMP_NUM_THREADS"}
    done = run("wordcount", "--scale", "0.01", cwd=tmp_path, env=without)
    assert done.stdout.endswith(f"threads: {len(os.sched_getaffinity(0))}\n")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stream", "fft3d", "pagerank", "textgen"])
def test_records_come_by_time_with_fractions_of_long_steps(name: str, tmp_path: Path) -> None:
    done = run(name, "--scale", "0.1", cwd=tmp_path, env=environment(tmp_path, TANDEM_RECORD_EVERY_S="0"))
    assert done.returncode == 0, done.stderr
    found = [record for record in records.read(tmp_path / "events.jsonl") if record.step is not None]
    steps = [record.step or 0.0 for record in found]
    assert steps == sorted(set(steps))
    assert any(step % 1 for step in steps)
    assert steps[-1] > (found[-1].total or 0.0) - 1


@pytest.mark.slow
def test_images_are_drawn_where_none_are_shared(tmp_path: Path) -> None:
    done = run("imageprep", "--scale", "0.01", cwd=tmp_path, env=environment(TANDEM_SHARED_DATA=str(tmp_path)))
    assert done.returncode == 0, done.stderr
    assert " drawn images " in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--scale", "0"), "'0' is not a finite number above 0"),
        (("--scale", "nan"), "'nan' is not a finite number above 0"),
        (("--threads", "0"), "'0' is not a whole number from 1"),
        (("--device", "cuda"), "--device cuda cannot be met: it has no GPU code; use --device cpu or auto"),
    ],
)
def test_options_that_cannot_be_met_are_refused(options: tuple[str, str], words: str, tmp_path: Path) -> None:
    done = run("wordcount", *options, cwd=tmp_path, env=environment())
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", APPS)
def test_only_the_networks_import_torch(name: str) -> None:
    source = (APPS_FOLDER / f"{name}.py").read_text()
    assert bool(re.search(r"^\s*(import|from) torch\b", source, re.MULTILINE)) == (name in USE_TORCH)
