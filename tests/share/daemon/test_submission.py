"""What a user writes becomes jobs, or an error that names the key."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.core.errors import PermissionRefusedError, TandemError
from tandem.share import events as ev
from tandem.share.daemon import submission
from tandem.share.daemon.submission import Submitter
from tandem.share.model import After, Gpu, JobClass, Need, Node
from tandem.share.scheduler.cluster import Setup
from tandem.share.scheduler.machine import Machine

ROOT = Submitter(0, 0, environ={"PATH": "/bin", "OMP_NUM_THREADS": "64"}, cwd="/home/me")


def read(**given: object) -> list[tuple[Any, Any]]:
    return submission.read({"argv": ["true"], **given}, ROOT, ROOT.inherited(), 7, "/data/jobs")


def test_everything_is_read() -> None:
    [(job, launch)] = read(
        argv=["python3", "-X", "dev", "-u", "a/train.py", "--fast"],
        cpus=2,
        gpus="h100:0.5",
        mem="4G",
        membw="10GB/s",
        nic=100,
        nodes=3,
        **{"class": "harvest"},
        time="1:30:00",
        expected=90,
        after=[3, "4:any"],
        retries=2,
        priority=5,
        hold=True,
        checkpoint="usr1",
        grace="30s",
        stdout="out-%j",
        env={"OMP_NUM_THREADS": "1"},
    )
    assert job.parts[0].nodes == 3
    assert job.parts[0].need == Need(
        cpu_milli=2000, mem_mib=4096, membw_mbs=10_000, nic_mbs=100, gpu_milli=500, gpu_type="h100"
    )
    assert (job.id, job.name, job.app, job.klass) == (7, "", "train", JobClass.HARVEST)
    assert (job.limit_s, job.expected_s, job.grace_s) == (5400, 90, 30)
    assert job.after == (After(3), After(4, ok=False))
    assert (job.retries, job.priority, job.held, job.checkpoint) == (2, 5, True, "SIGUSR1")
    assert (launch.stdout, launch.stderr) == ("/home/me/out-7", "/home/me/out-7")
    assert launch.run_dir == "/data/jobs/7"
    assert launch.environment() == {"PATH": "/bin", "OMP_NUM_THREADS": "1"}  # the inherited number is dropped


def test_arguments_tell_runs_apart_unless_the_user_named_them() -> None:
    def variant(*argv: str, **given: object) -> str:
        [(job, _)] = read(argv=list(argv), **given)
        return job.variant

    assert variant("train", "1") == variant("train", "1") != variant("train", "2")
    assert variant("train", "1", "2") != variant("train", "1 2")
    assert variant("train", "1", name="mine") == ""
    assert variant("train", "1", name="mine", app="train") == variant("train", "1")
    assert variant("train", "\udcff")


def test_a_job_may_be_expected_to_take_its_whole_limit() -> None:
    [(job, _)] = read(expected="5m", time=300)
    assert (job.expected_s, job.limit_s) == (300, 300)


def test_an_array_becomes_jobs_of_which_so_many_run_at_once() -> None:
    made = read(array="0-8:2,1%2", stdout="o-%A_%a")
    assert [job.id for job, _ in made] == [7, 8, 9, 10, 11, 12]
    assert [job.array for job, _ in made] == [(7, index) for index in (0, 2, 4, 6, 8, 1)]
    assert [job.after for job, _ in made] == [(), (), *((After(k, ok=False),) for k in (7, 8, 9, 10))]
    assert made[2][1].env == {"TANDEM_ARRAY_ID": "7", "TANDEM_ARRAY_INDEX": "4"}
    assert made[2][1].stdout == "/home/me/o-7_4"


def test_a_percent_sign_in_an_output_is_written_twice() -> None:
    [(_, launch)] = read(stdout="100%%-%%j-%j", stderr="%%")
    assert (launch.stdout, launch.stderr) == ("/home/me/100%-%j-7", "/home/me/%")


def test_parts_make_a_heterogeneous_gang() -> None:
    [(job, _)] = read(parts=[{"nodes": 2, "cpus": 4}, {"gpus": 1}])
    assert [(part.nodes, part.need.cpu_milli, part.need.gpus) for part in job.parts] == [(2, 4000, 0), (1, 1000, 1)]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"cpsu": 1}, ["'cpsu'", "did you mean 'cpus'"]),
        ({"argv": []}, ["argv", "programme first"]),
        ({"argv": ["a\0b"]}, ["argv", "NUL"]),
        ({"gpus": 1.5}, ["gpus = 1.5", "fraction"]),
        ({"gpus": True}, ["gpus"]),
        ({"cpus": 0}, ["cpus = 0"]),
        ({"cpus": "nan"}, ["cpus"]),
        ({"cpus": "9" * 23}, ["cpus", "below a billion"]),
        ({"nodes": 1.5}, ["nodes", "whole"]),
        ({"class": "primry"}, ["'primry'", "did you mean 'primary'"]),
        ({"max_slowdown": 0.9}, ["max_slowdown"]),
        ({"max_slowdown": 1.1, "class": "harvest"}, ["max_slowdown = 1.1", "primary"]),
        ({"expected": "5m", "time": "1m"}, ["expected = '5m'", "at most its limit, 1m"]),
        ({"stdout": "o-%%-%z"}, ["stdout = 'o-%%-%z'", "%j, %A, %a, %% for a percent sign", "write %%z if"]),
        ({"stdout": "a/"}, ["stdout = 'a/'", "a file's path", "name a file in that folder"]),
        ({"stderr": ".."}, ["stderr = '..'", "a file's path"]),
        ({"stderr": "full-100%"}, ["stderr = 'full-100%'", "%j, %A, %a"]),
        ({"array": "5-1"}, ["array"]),
        ({"array": "1,1,1"}, ["array", "1 is there twice"]),
        ({"array": "0-4,8,3"}, ["array", "3 is there twice"]),
        ({"priority": "x"}, ["priority", "a whole number from -1000000 to 1000000"]),
        ({"retries": "nan"}, ["retries", "a whole number from 0 to 1000"]),
        ({"array": "0-9%0"}, ["array"]),
        ({"array": "0-10000000"}, ["array", "100000"]),
        ({"after": "x"}, ["after", "'x'"]),
        ({"checkpoint": "KILL"}, ["checkpoint", "SIGUSR1"]),
        ({"time": "soon"}, ["time = 'soon'"]),
        ({"time": 0}, ["time"]),
        ({"time": "99999999h"}, ["time", "ten years"]),
        ({"mem": "lots"}, ["mem = 'lots'", "number"]),
        ({"mem": "0"}, ["mem = '0'", "a size above 0"]),
        ({"mem": 0}, ["mem = 0", "leave it out"]),
        ({"grace": "long"}, ["grace = 'long'", "90s"]),
        ({"gpus": "many"}, ["gpus = 'many'", "TYPE:2"]),
        ({"gpu_mem": "8G"}, ["gpu_mem = '8G'", "ask for GPUs too"]),
        ({"parts": []}, ["parts"]),
        ({"parts": [{"cpus": 1}], "cpus": 2}, ["cpus", "part"]),
        ({"parts": [{"cpu": 1}]}, ["'cpu'", "'cpus'"]),
        ({"name": "x" * 300}, ["name", "256"]),
        ({"name": "\ud800"}, ["name"]),
        ({"env": {"A=B": "1"}}, ["env"]),
    ],
)
def test_a_mistake_names_the_key(given: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(TandemError) as caught:
        read(**given)
    assert all(word in str(caught.value) for word in words)


NUMBERS = [10**400, -(10**400), "9" * 400, 1e308, float("inf"), float("nan"), 1 << 63]
SIZES = ["cpus", "gpus", "gpu_mem", "mem", "membw", "nic", "nodes", "max_slowdown", "time", "expected", "grace"]
OTHERS = ["priority", "retries", "array", "after", "parts", "labels", "name", "checkpoint", "env", "class", "stdout"]


def checked(key: str, value: object) -> None:
    """Read a submission with this and ask whether a small node could ever run it."""
    nodes = Machine(Setup("share", "none"))
    nodes.step(0.0, [ev.NodeJoined(Node("n", 1000, 1000, (Gpu(0),), cores=(0,)))])
    for job, _ in read(**({"gpus": 1} if key == "gpu_mem" else {}), **{key: value}):
        nodes.check(job)


@pytest.mark.parametrize("value", NUMBERS, ids=lambda value: str(value)[:6])
@pytest.mark.parametrize("key", SIZES)
def test_an_amount_too_large_is_refused_like_any_mistake(key: str, value: object) -> None:
    with pytest.raises(TandemError):
        checked(key, value)


@pytest.mark.parametrize("key", OTHERS)
def test_a_number_where_none_belongs_is_refused_but_as_a_text(key: str) -> None:
    """Digits are a name as good as any; a number is none, nor is it the index of an array's element."""
    taken = []
    for value in NUMBERS:
        with contextlib.suppress(TandemError):
            checked(key, value)
            taken.append(value)
    assert all(isinstance(value, str) for value in taken)


def test_only_the_trusted_raise_their_priority() -> None:
    user = Submitter(1000, 1000, trusted=False)
    with pytest.raises(PermissionRefusedError):
        submission.read({"argv": ["true"], "priority": 1}, user, {}, 1, "/jobs")
    [(job, _)] = submission.read({"argv": ["true"], "priority": -1}, user, {}, 1, "/jobs")
    assert job.priority == -1


@pytest.mark.parametrize(
    ("argv", "key"),
    [
        (["/usr/bin/python3.12", "-W", "error", "-m", "my.module"], "my.module"),
        (["python", "train.py", "--lr", "1"], "train"),
        (["python", "train.py", "--lr", "2"], "train"),
        (["python", "-m", "pkg", "--fast"], "pkg"),
        (["python", "-uc", "print(1)"], "python -uc 'print(1)'"),
        (["./solve", "4"], "solve"),
        (["/bin/sh", "-c", "sleep 1"], "sh -c 'sleep 1'"),
        (["sh", "-c", "sleep 100"], "sh -c 'sleep 100'"),
        (["bash", "-o", "pipefail", "-lc", "true"], "bash -o pipefail -lc true"),
        (["bash", "-o", "pipefail", "a/run.sh", "-c"], "run"),
        (["perl", "-e", "1"], "perl -e 1"),
        (["Rscript", "fit.R"], "fit"),
        (["bash"], "bash"),
        (["."], "."),
        (["./"], "./"),
    ],
)
def test_the_programme_is_the_key_of_history(argv: list[str], key: str) -> None:
    assert submission.programme(argv) == key


def test_a_long_key_of_history_is_short_and_still_its_own() -> None:
    one, other = (submission.programme(["sh", "-c", "x" * 5000 + end]) for end in ("1", "2"))
    assert max(len(one), len(other)) <= submission.APP_LONGEST
    assert one != other
    assert one == submission.programme(["sh", "-c", "x" * 5000 + "1"])


def test_a_place_in_an_array_is_not_inherited() -> None:
    element = {"PATH": "/bin", "TANDEM_ARRAY_ID": "3", "TANDEM_ARRAY_INDEX": "4"}
    assert Submitter(0, 0, environ=element).inherited() == {"PATH": "/bin"}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(submission.KEYS), _JSON))
def test_whatever_is_sent_gives_jobs_or_a_clear_error(given: dict[str, Any]) -> None:
    try:
        made = submission.read(given, ROOT, {}, 1, "/jobs")
    except TandemError as error:
        assert str(error)  # noqa: PT017 - either outcome is right
    else:
        assert all(job.parts and launch.argv for job, launch in made)
