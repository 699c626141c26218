"""Two cases whose answers are worked out by hand."""

from pathlib import Path

import pytest

from tandem.share.model import State
from tandem.share.simulate import case as cases
from tandem.share.simulate import compare

EXAMPLES = Path(__file__).parents[3] / "examples"


def ends(name: str, policy: str) -> dict[str, float]:
    """When the last job of each name ends."""
    case = cases.load(EXAMPLES / f"{name}.toml")
    (day,) = compare.play(cases.workload(case), [policy], compare.Terms(truth=cases.truth(case)))
    assert {outcome.state for outcome in day.day.outcomes} == {State.DONE}
    last: dict[str, float] = {}
    for outcome in day.day.outcomes:
        last[outcome.job.name] = max(last.get(outcome.job.name, 0.0), outcome.ended)
    return last


@pytest.mark.parametrize(("policy", "end"), [("exclusive", 75.0), ("share", 21.0)])
def test_100_gpu_jobs_on_four_nodes(policy: str, end: float) -> None:
    # A node's 8 GPUs serve 8 / 2 = 4 jobs (16 of 40 threads). Whole nodes: 4 jobs at a time, 100 / 4 = 25 rounds of 3.
    # Shared: 16 at a time, 100 / 16 = 6.25, so 7 rounds of 3.
    assert ends("hybridshare", policy) == {"train": end}


@pytest.mark.parametrize("policy", ["backfill", "las", "hybrid"])
def test_every_policy_that_shares_reaches_21(policy: str) -> None:
    # All jobs are alike and fit 16 at a time: no policy can do better, and none has a reason to do worse.
    assert ends("hybridshare", policy) == {"train": 21.0}


def test_contended_whole_nodes() -> None:
    # 25 rounds of GPU jobs until 75, then 25 rounds of 4 CPU jobs, each alone on its node: 75 + 25 * 3 = 150.
    assert ends("hybridshare-contended", "exclusive") == {"train": 75.0, "stencil": 150.0}


def test_contended_shared_nodes() -> None:
    # A CPU job takes 20 of 40 threads and could use the node's whole memory bandwidth; GPU jobs use none of it.
    # * Rounds 1-6 (0 to 18): a node holds 4 GPU jobs (16 threads) and, in the 24 left, one CPU job. It is the only one
    #   that wants the bandwidth, so it runs at full speed: 16 GPU and 4 CPU jobs every 3. At 18: 96 and 24 are done.
    # * 18: the last 4 GPU jobs and one CPU job go to node 1, until 21. Nodes 2-4 hold two CPU jobs each: together they
    #   want twice the bandwidth there is, go at half speed and take 6. Node 1 does the same from 21.
    #   CPU jobs left at 18: 100 - 24 - 1 = 75, that is 37 pairs and one.
    # * Pairs start on nodes 2, 3, 4 at 18, 24, ..., 66 and on node 1 at 21, 27, ..., 69: 9 on each node, 36 pairs.
    # * 72: nodes 2-4 are free for the last 3 jobs. First fit puts two on node 2, until 78, and one on node 3, until 75.
    assert ends("hybridshare-contended", "share") == {"train": 21.0, "stencil": 78.0}
