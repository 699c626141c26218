"""`tandem lab` end to end: real daemons, real processes, a table, a report and results."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tandem.cli import main
from tandem.core.process import locks
from tests.waiting import until

LAB = """
title = "A <b>small</b> day"
policies = ["exclusive", "hybrid"]
[[jobs]]
name = "first"
argv = ["sleep", "0.3"]
max_slowdown = 1.5
[[jobs]]
name = "second"
argv = ["sleep", "0.2"]
[[jobs]]
name = "third"
argv = ["true"]
after = ["first"]
"""


def tandem(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tandem", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_a_day_is_run_under_each_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_LOCK_DIR", str(tmp_path / "locks"))
    (tmp_path / "lab.toml").write_text(LAB)
    done = tandem("lab", "lab.toml", "--out", "run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    exclusive, hybrid = told["policies"]
    assert [day["policy"] for day in told["policies"]] == ["exclusive", "hybrid"]
    for day in (exclusive, hybrid):
        assert [job["name"] for job in day["jobs"]] == ["first", "second", "third"]
        assert all(job["well"] for job in day["jobs"])
        third, first = day["jobs"][2], day["jobs"][0]
        assert third["started"] >= first["ended"]
    spans = sorted((job["started"], job["ended"]) for job in exclusive["jobs"])
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans)), "one at a time under exclusive"
    page = (tmp_path / told["report"]).read_text()
    assert "A &lt;b&gt;small&lt;/b&gt; day" in page
    assert json.loads((tmp_path / "run" / "results.json").read_text())[1]["policy"] == "hybrid"
    assert (tmp_path / "run" / "config.toml").exists()
    again = tandem("lab", "lab.toml", "--out", "run", cwd=tmp_path)
    assert again.returncode == 2
    assert "run, which holds a lab day; allowed: a new or empty folder; give another --out" in again.stderr


def processes_of(path: Path) -> dict[int, str]:
    """Processes with the path in their command lines."""
    found = {}
    for one in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = one.read_bytes()
        except OSError:  # it has just ended
            continue
        if str(path).encode() in words:
            found[int(one.parent.name)] = words.decode(errors="replace")
    return found


def processes_that_name(path: Path) -> list[str]:
    """Command lines with the path in them."""
    return list(processes_of(path).values())


@pytest.mark.slow
def test_ctrl_c_while_the_daemon_comes_up_leaves_none_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_LOCK_DIR", str(tmp_path / "locks"))
    (tmp_path / "lab.toml").write_text(LAB)
    run = tmp_path / "run"
    lab = subprocess.Popen([sys.executable, "-m", "tandem", "lab", "lab.toml", "--out", "run"], cwd=tmp_path)
    try:
        until(lambda: processes_that_name(run))
        lab.send_signal(signal.SIGINT)
        assert lab.wait(30.0) == 130
        until(lambda: not processes_that_name(run))
    finally:
        lab.kill()


LASTING = """
title = "A day that somebody breaks off"
policies = ["hybrid"]
estimator = "none"
[[jobs]]
name = "deaf"
argv = ["sh", "-c", "trap 'sleep 1; exit 0' TERM; touch begun; while :; do sleep 0.1; done", "RUN"]
"""


def lasting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[subprocess.Popen[str], Path]:
    """Start a day that lasts; returns it and its run folder."""
    monkeypatch.setenv("TANDEM_LOCK_DIR", str(folder / "locks"))
    run = folder / "run"
    (folder / "lab.toml").write_text(LASTING.replace("RUN", str(run)))
    command = [sys.executable, "-m", "tandem", "lab", "lab.toml", "--out", "run"]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True), run


@pytest.mark.slow
def test_ctrl_c_again_and_again_leaves_no_job_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab, run = lasting(tmp_path, monkeypatch)
    try:
        until(lambda: (run / "work" / "hybrid" / "begun").exists())
        while lab.poll() is None:
            lab.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                lab.wait(0.05)
        said = lab.communicate()[1]
    finally:
        lab.kill()
    assert lab.returncode == 130
    assert "Traceback" not in said
    assert "its jobs are being stopped" in said
    until(lambda: not processes_that_name(run))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_day_that_is_ended_from_outside_leaves_neither_job_nor_daemon_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    lab, run = lasting(tmp_path, monkeypatch)
    try:
        until(lambda: (run / "work" / "hybrid" / "begun").exists())
        lab.send_signal(number)
        said = lab.communicate(timeout=60.0)[1]
        until(lambda: not processes_that_name(run))
    finally:
        lab.kill()
        for left in processes_of(run):
            with contextlib.suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)
    heard = number is not signal.SIGKILL
    assert lab.returncode == (128 + number if heard else -number)
    assert ("its jobs are being stopped" in said) is heard
    assert "Traceback" not in said


BAD = """
title = "A bad day"
policies = ["hybrid"]
[[jobs]]
name = "fails"
argv = ["sh", "-c", "exit 3"]
[[jobs]]
name = "missing"
argv = ["no-such-program"]
[[jobs]]
name = "too long"
argv = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]
time_s = 0.3
[[jobs]]
name = "later"
argv = ["true"]
after = ["fails"]
at_s = 1.5
[[jobs]]
name = "latest"
argv = ["true"]
after = ["later"]
"""


@pytest.mark.slow
def test_a_job_that_failed_is_said_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_LOCK_DIR", str(tmp_path / "locks"))
    (tmp_path / "lab.toml").write_text(BAD)
    done = tandem("lab", "lab.toml", "--out", "run", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    for said in (
        "hybrid: fails did not end well: exit status 3",
        "hybrid: missing did not end well: cannot execute 'no-such-program': No such file or directory",
        "hybrid: too long did not end well: its time limit of 0.3 s is over",
        "hybrid: later was not submitted: a dependency on the success of fails, which ended as failed",
        "hybrid: latest was not submitted: later before it was left out",
    ):
        assert said in done.stdout.splitlines()
    assert "failed: exit status 3" in done.stdout


def test_a_policy_that_does_not_exist_is_named_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text(LAB)
    done = tandem("lab", "lab.toml", "--policies", "exclusive,hybird", cwd=tmp_path)
    assert done.returncode == 2
    assert "hybird" in done.stderr
    assert "hybrid" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("cpus = 4096", "4096 cores on one node; allowed: at most"),
        ('mem_mib = "4096T"', "1 core, 4PiB of memory on one node; allowed: at most"),
        ("gpus = 99", "1 core, 99 whole GPUs on one node"),
        ("time_s = -1", "time_s = -1; allowed: more than 0"),
    ],
)
def test_a_job_that_could_never_run_here_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab.toml").write_text(LAB.replace('name = "third"', f'name = "third"\n{key}'))
    done = CliRunner().invoke(main.tandem, ["lab", "lab.toml"])
    assert done.exit_code == 2
    assert done.stdout == ""
    assert f"job 'third': {said}" in done.stderr
    assert sorted(tmp_path.iterdir()) == [tmp_path / "lab.toml"]


def test_a_value_that_no_job_may_have_is_told_with_its_option(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text(LAB)
    words = ["lab", str(tmp_path / "lab.toml"), "--set", "jobs.1.cpus=1", "--set", "jobs.0.cpus=0"]
    done = CliRunner().invoke(main.tandem, words)
    assert done.exit_code == 2
    assert done.stderr.startswith("tandem: --set jobs.0.cpus=0: job ")


@pytest.mark.parametrize(
    ("line", "said"), [("", "used by another scheduler"), ('estimator = "lerned"', "did you mean 'learned'?")]
)
def test_a_day_that_cannot_begin_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    core = min(os.sched_getaffinity(0))
    (tmp_path / "lab.toml").write_text(f'cores = "{core}"\n{line}\n{LAB}')
    with locks.held([core]):
        before = sorted(tmp_path.iterdir())
        done = CliRunner().invoke(main.tandem, ["lab", "lab.toml"])
    assert done.exit_code == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_a_typo_in_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text(LAB.replace("max_slowdown", "max_slowdwon"))
    done = tandem("lab", "lab.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert "max_slowdown" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
