"""In which order the last few waiting jobs start."""

import heapq
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tandem.share.model import Gpu, Node
from tandem.share.scheduler.cluster import Setup
from tandem.share.simulate.simulator import Simulator
from tandem.share.workloads.workload import Arrival, Workload
from tests.share.knowing import GPUS, NODE, TWO_CORES
from tests.share.told import Told, job


@pytest.mark.parametrize(
    ("first_s", "waiting", "next_one"),
    [
        (20.0, [(15.0, False), (12.0, False)], 3),  # the core of the first is free before 12 s are over
        (40.0, [(15.0, False), (12.0, False)], 4),  # there is no second core in that time
        (20.0, [(50.0, False), (12.0, False)], 4),  # who takes so much longer ends last anyway
        (20.0, [(12.0, False), (15.0, False)], 3),  # nobody is passed over by one that came later
        (20.0, [(15.0, True), (12.0, False)], 4),  # harvest jobs come after primary ones, as ever
        (20.0, [(15.0, False), (12.0, False), (11.0, False)], 5),  # one of the three is not the last on its core
    ],
)
def test_of_those_that_are_the_last_on_their_cores_the_longest_goes_first(
    first_s: float, waiting: list[tuple[float, bool]], next_one: int
) -> None:
    told = Told("hybrid", TWO_CORES)
    told.submit(job(1, 1, expected=first_s))
    told.submit(job(2, 1, expected=10.0))
    for number, (expected_s, harvest) in enumerate(waiting, 3):
        told.submit(job(number, 1, expected=expected_s, harvest=harvest), at=0.1 * number)
    told.end(2, at=10.0)
    assert told.running() == {1, next_one}


def test_a_core_is_not_the_last_place_of_a_job_that_needs_two() -> None:
    """Two jobs of two cores wait, and the one that ends in time frees a single core."""
    told = Told("hybrid", Node("a", 3000, 100))
    told.submit(job(1, 1, expected=20.0))
    told.submit(job(2, 2, expected=10.0))
    told.submit(job(3, 2, expected=15.0), at=0.3)
    told.submit(job(4, 2, expected=12.0), at=0.4)
    told.end(2, at=10.0)
    assert told.running() == {1, 4}, "shortest first: what the first job frees is too little for another"


@pytest.mark.parametrize(
    ("nodes", "more"),
    [
        ((Node("a", 2000, 24),), {"mem": 18}),  # a core in time, but no memory
        ((Node("g", 4000, 100, (Gpu(0),)),), {"gpus": 1}),  # a core in time, but no GPU
        ((NODE, Node("g", 1000, 100, (Gpu(0),))), {"gpus": 1}),  # on a node without GPUs
    ],
)
def test_a_core_is_not_the_last_place_of_a_job_that_needs_more(nodes: tuple[Node, ...], more: dict[str, int]) -> None:
    told = Told("hybrid", *nodes)
    told.submit(job(1, 1, expected=20.0))
    told.submit(job(2, 1, expected=10.0, **more))
    told.submit(job(3, 1, expected=15.0, **more), at=0.3)
    told.submit(job(4, 1, expected=12.0, **more), at=0.4)
    told.end(2, at=10.0)
    assert told.running() == {1, 4}, "shortest first: what the first job frees holds no other"


def test_of_two_that_have_a_gpu_each_in_time_the_longest_goes_first() -> None:
    told = Told("hybrid", GPUS)
    told.submit(job(1, 1, gpus=1, expected=20.0))
    told.submit(job(2, 1, gpus=1, expected=10.0))
    told.submit(job(3, 1, gpus=1, expected=15.0), at=0.3)
    told.submit(job(4, 1, gpus=1, expected=12.0), at=0.4)
    told.end(2, at=10.0)
    assert told.running() == {1, 3}


def test_among_the_last_few_a_whole_gpu_is_a_place_for_a_part_of_one() -> None:
    """And one GPU is enough for that: it is not a whole one and a part."""
    told = Told("hybrid", GPUS)
    told.submit(job(1, 1, gpus=1, expected=20.0))
    told.submit(job(2, 1, gpus=1, expected=10.0))
    told.submit(job(3, 1, gpus=1, expected=15.0), at=0.3)
    told.submit(job(4, 1, gpu_milli=500, expected=12.0), at=0.4)
    told.end(2, at=10.0)
    assert told.running() == {1, 3}


@given(st.integers(2, 4), st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(1, 20))
@example(2, [6, 7, 4], 2)
def test_the_last_few_wait_longer_than_by_shortest_first_only_where_cores_are_idle_less(
    cores: int, seconds: list[int], apart: int
) -> None:
    """Shortest first has the least sum of completion times; more of it has to be worth the cores that are idle less."""
    held = [float(50 + apart * k) for k in range(cores)]  # when each core comes free
    arrivals = [Arrival(0.0, job(k + 1, 1, expected=end), end) for k, end in enumerate(held)]
    arrivals += [
        Arrival(1.0 + k / 1024, job(100 + k, 1, expected=float(one)), float(one))
        for k, one in enumerate(sorted(seconds, reverse=True))
    ]
    setup = Setup("hybrid", "none", options={"quotes": 0})
    simulator = Simulator(Workload((Node("a", 1000 * cores, 0),), tuple(arrivals)), setup)
    ended = [outcome.ended for outcome in simulator.run().outcomes if outcome.job.id >= 100]
    shortest_first = []
    for one in sorted(seconds):
        shortest_first.append(heapq.heappop(held) + one)
        heapq.heappush(held, shortest_first[-1])
    done = [one or math.inf for one in ended]
    all_over, over_by_shortest = max(50.0 + apart * (cores - 1), *done), max(held)
    assert sum(done) + cores * all_over <= sum(shortest_first) + cores * over_by_shortest + 1e-6
