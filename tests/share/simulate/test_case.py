"""Cases written by hand: reading, refusing, and truths that differ from what was said."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.core.errors import ConfigError
from tandem.estimate.corun import App, Capacity
from tandem.share.model import JobClass
from tandem.share.scheduler.cluster import Setup
from tandem.share.simulate import case as cases
from tandem.share.simulate.simulator import Simulator
from tandem.share.simulate.truth import Bandwidth, Undisturbed


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "case.toml"
    path.write_text(text)
    return path


def test_jobs_are_numbered_in_order_of_submission(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        [[nodes]]
        count = 2
        cpus = 8
        gpus = 1
        [[nodes]]
        name = "big"
        cpus = 16
        [[jobs]]
        name = "late"
        at_s = 5
        every_s = "1m"
        count = 2
        work_s = "2m"
        gpus = 0.5
        max_slowdown = 1.2
        [[jobs]]
        name = "early"
        work_s = 7
        time_s = 9
        nodes = 2
        """,
    )
    workload = cases.workload(cases.load(path))
    assert [node.id for node in workload.nodes] == ["node1", "node2", "big1"]
    assert [(a.job.id, a.job.name, a.at, a.work_s) for a in workload.arrivals] == [
        (1, "early", 0.0, 7.0),
        (2, "late", 5.0, 120.0),
        (3, "late", 65.0, 120.0),
    ]
    early, late, _ = (a.job for a in workload.arrivals)
    assert (early.klass, early.limit_s, early.parts[0].nodes) == (JobClass.HARVEST, 9.0, 2)
    assert (late.klass, late.max_slowdown, late.parts[0].need.gpu_milli) == (JobClass.PRIMARY, 1.2, 500)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[nodes]]\ncpu = 4\n[[jobs]]\nname='a'\nwork_s=1", "did you mean 'nodes.0.cpus'"),
        ("[[nodes]]\ncpus = 4\n[[jobs]]\nname='a'\n", "'jobs.0.work_s' is missing"),
        ("[[nodes]]\ncpus = 4\n[[jobs]]\nname='a'\nwork_s=-1", "jobs 'a': work_s = -1; allowed: 0 or more"),
        ("[[nodes]]\ncpus = 4\n[[jobs]]\nname='a'\nwork_s=1\ngpus=1.5", "gpus = 1.5; allowed: whole GPUs"),
        ("[[nodes]]\ncpus = 0\n[[jobs]]\nname='a'\nwork_s=1", "cpus = 0; allowed: 1 or more"),
        ("[truth]\nmodel='magic'\n[[nodes]]\ncpus = 4\n[[jobs]]\nname='a'\nwork_s=1", "truth.model = 'magic'"),
        ("[[nodes]]\ncpus = 4\n[[jobs]]\nname='a'\nwork_s=1\nmax_slowdown=0.5", "max_slowdown = 0.5"),
        ("[[nodes]]\ncpus = 4\n[[jobs]]\nname='a'\nwork_s=1e308", "work_s = 1e+308; allowed: at most ten years"),
        ("[[nodes]]\ncpus = 4\n[[jobs]]\nname='a'\nwork_s=nan", "work_s = nan; allowed: at most ten years"),
        ("[[nodes]]\ncpus = 4\n[[jobs]]\nname='a'\nwork_s=1\nat_s=inf", "at_s = inf; allowed: at most ten years"),
        ("[[nodes]]\ncpus = 4\n[[jobs]]\nname='a'\nwork_s=1\nexpected_s=inf", "expected_s = inf; allowed: at most"),
        ("[[nodes]]\ncpus = 4\n[[jobs]]\nname='a'\nwork_s=1\ntime_s=0", "time_s = 0; allowed: 0.001 or more"),
        (
            "[[nodes]]\ncpus = 4\n[[jobs]]\nname='a'\nwork_s=1\ncount=1000000000",
            "count = 1e+09; allowed: at most 1,000",
        ),
        ("[[nodes]]\ncpus = 4\ncount=100000000\n[[jobs]]\nname='a'\nwork_s=1", "count = 1e+08; allowed: at most 50,0"),
        ("[[nodes]]\ncpus = 4\ngpus=100000000\n[[jobs]]\nname='a'\nwork_s=1", "gpus = 1e+08; allowed: at most 1,0"),
    ],
)
def test_mistakes_name_the_key(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        cases.load(write(tmp_path, text))
    assert words in str(caught.value)


def test_overrides_win(tmp_path: Path) -> None:
    path = write(tmp_path, "[[nodes]]\ncpus = 4\n[[jobs]]\nname='a'\nwork_s=1")
    workload = cases.workload(cases.load(path, ("jobs.0.count=3", "nodes.0.cpus=6")))
    assert (len(workload.arrivals), workload.nodes[0].cpu_milli) == (3, 6000)


def test_without_a_truth_nobody_disturbs_anybody(tmp_path: Path) -> None:
    path = write(tmp_path, "[[nodes]]\ncpus = 4\n[[jobs]]\nname='a'\nwork_s=1")
    assert isinstance(cases.truth(cases.load(path)), Undisturbed)


@given(
    said=st.integers(0, 200),
    takes=st.integers(1, 200),
    copies=st.integers(1, 4),
    capacity=st.integers(1, 400),
    known=st.booleans(),
)
def test_true_demands_are_those_of_a_world_in_which_everybody_says_what_they_take(
    said: int, takes: int, copies: int, capacity: int, known: bool
) -> None:
    inner = Bandwidth()
    told = cases.TrueDemands(inner, {"a": (takes, 0)}, membw_mbs=capacity)
    here = Capacity(8000, capacity if known else None)
    members = (App("a", membw_mbs=said),) * copies
    honest = (App("a", membw_mbs=takes),) * copies
    assert told.rates(members, here) == inner.rates(honest, Capacity(8000, capacity))
    if told.quiet(members, here):
        assert told.rates(members, here) == (1.0,) * copies


GROUPS = """
[[nodes]]
{one}
cpus = 8
gpus = 1
[[nodes]]
{other}
cpus = 2
[[jobs]]
name = "wide"
cpus = 8
work_s = 1000
"""


@pytest.mark.parametrize(
    ("one", "other", "names"),
    [
        ("", "", ["node1", "node2"]),
        ("count = 2", "", ["node1", "node2", "node3"]),
        ('name = "a"', 'name = "a"', ["a1", "a2"]),
        ('name = "a"', 'name = "b"', ["a1", "b1"]),
        ("count = 0", "", ["node"]),
    ],
)
def test_no_two_nodes_have_one_name(tmp_path: Path, one: str, other: str, names: list[str]) -> None:
    workload = cases.workload(cases.load(write(tmp_path, GROUPS.format(one=one, other=other))))
    assert [node.id for node in workload.nodes] == names


def test_jobs_of_a_higher_priority_go_first(tmp_path: Path) -> None:
    text = "[[nodes]]\ncpus = 1\n" + "".join(
        f"[[jobs]]\nname = '{name}'\nwork_s = 10\npriority = {priority}\n" for name, priority in (("b", 0), ("a", 1))
    )
    workload = cases.workload(cases.load(write(tmp_path, text)))
    day = Simulator(workload, Setup("backfill", "none")).run()
    assert [(one.job.name, one.started) for one in day.outcomes] == [("b", 10.0), ("a", 0.0)]


def test_numbered_names_that_meet_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, GROUPS.format(one='name = "a"\ncount = 11', other='name = "a1"'))
    with pytest.raises(ConfigError, match="two nodes are called 'a11'"):
        cases.load(path)
