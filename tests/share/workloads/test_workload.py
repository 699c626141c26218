import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.core.errors import ConfigError
from tandem.share.model import After, Gpu, Job, Need, Node, Part
from tandem.share.workloads.workload import Arrival, Workload, compress, limits_with_error, merge, sample_nodes, steady

CPU_NODE = Node("cpu", 8000, 1024)
GPU_NODE = Node("gpu", 8000, 1024, (Gpu(0, "T4"), Gpu(1, "T4")))


def job(job_id: int, cores: int = 1, gpus: int = 0, *, after: tuple[After, ...] = (), nodes: int = 1) -> Job:
    return Job(job_id, (Part(Need(1000 * cores, gpus=gpus), nodes),), after=after)


def workload(*rows: tuple[float, Job, float], nodes: tuple[Node, ...] = (CPU_NODE, GPU_NODE)) -> Workload:
    return Workload(nodes, tuple(Arrival(*row) for row in rows), "made")


def mixed(count: int = 400, seed: int = 3) -> Workload:
    rng = random.Random(seed)
    rows = []
    at = 0.0
    for i in range(count):
        at += rng.expovariate(1 / 50)
        gpus = rng.choice([0, 0, 1, 2])
        rows.append((at, job(i + 1, rng.choice([1, 2]), gpus), rng.uniform(1, 500)))
    return workload(*rows)


def test_load_by_hand() -> None:
    load = workload((0.0, job(1, 4), 10.0), (10.0, job(2, 2, 1), 60.0), (100.0, job(3, 1, nodes=2), 20.0)).load()
    assert load.span_s == 100.0
    assert load.cpu == pytest.approx((4 * 10 + 2 * 60 + 2 * 20) / (16 * 100))
    assert load.gpu == pytest.approx(60 / (2 * 100))


def test_load_of_a_burst_and_without_gpus() -> None:
    burst = workload((5.0, job(1), 10.0), (5.0, job(2), 10.0), nodes=(CPU_NODE,)).load()
    assert (burst.cpu, burst.gpu) == (float("inf"), 0.0)


def test_arrivals_must_be_in_order() -> None:
    with pytest.raises(AssertionError):
        workload((5.0, job(1), 1.0), (4.0, job(2), 1.0))


def test_first_keeps_the_earliest() -> None:
    three = workload((0.0, job(1), 1.0), (1.0, job(2), 1.0), (2.0, job(3), 1.0))
    assert [a.job.id for a in three.first(2).arrivals] == [1, 2]
    assert three.first(2).notes == ("only the first 2 of 3 jobs",)
    assert three.first(3) is three


def test_merge_numbers_anew_and_keeps_dependencies_within_each_stream() -> None:
    left = workload((0.0, job(1), 1.0), (10.0, job(2, after=(After(1),)), 1.0))
    right = workload((5.0, job(1, 2), 1.0), (11.0, job(2, 2, after=(After(1, ok=False),)), 1.0))
    both = merge(left, right)
    assert [(a.at, a.job.id, a.job.cpu_milli) for a in both.arrivals] == [
        (0.0, 1, 1000),
        (5.0, 2, 2000),
        (10.0, 3, 1000),
        (11.0, 4, 2000),
    ]
    assert both.arrivals[2].job.after == (After(1),)
    assert both.arrivals[3].job.after == (After(2, ok=False),)


def test_limits_are_never_below_the_truth_and_follow_the_seed() -> None:
    given_limits = limits_with_error(mixed(), seed=1)
    factors = [a.job.limit_s / a.work_s for a in given_limits.arrivals if a.job.limit_s is not None]
    assert len(factors) == 400
    assert min(factors) >= 1.0
    assert max(factors) <= 5.0
    assert sum(factors) / len(factors) == pytest.approx(3.0, abs=0.2)
    assert limits_with_error(mixed(), seed=1) == given_limits
    assert limits_with_error(mixed(), seed=2) != given_limits
    assert [(a.at, a.work_s) for a in given_limits.arrivals] == [(a.at, a.work_s) for a in mixed().arrivals]


def test_limits_by_a_distribution_of_ones_own() -> None:
    exact = limits_with_error(mixed(), seed=1, factor=lambda _: 1.0)
    assert all(a.job.limit_s == a.work_s for a in exact.arrivals)
    with pytest.raises(ConfigError, match=r"limit factor 0\.5"):
        limits_with_error(mixed(), seed=1, factor=lambda _: 0.5)


@pytest.mark.parametrize("keep_bursts", [True, False])
def test_compress_to_a_gpu_load_and_a_cap(keep_bursts: bool) -> None:
    squeezed = compress(mixed(), gpu_load=0.9, cap_s=100.0, keep_bursts=keep_bursts)
    assert squeezed.load().gpu == pytest.approx(0.9)
    assert max(a.work_s for a in squeezed.arrivals) == 100.0
    assert [a.job for a in squeezed.arrivals] == [a.job for a in mixed().arrivals]


def test_steady_offers_its_load_over_every_part_of_the_span() -> None:
    drawn = steady(mixed(2000), 1e6, 0.9, gpus=True, cap_s=100.0)
    capacity = 1000 * sum(len(node.gpus) for node in drawn.nodes)
    for part in range(4):
        arrived = [a for a in drawn.arrivals if part * 2.5e5 <= a.at < (part + 1) * 2.5e5]
        offered = sum(a.work_s * a.job.gpu_total_milli for a in arrived) / (2.5e5 * capacity)
        assert offered == pytest.approx(0.9, rel=0.03)
    assert max(a.work_s for a in drawn.arrivals) == 100.0
    assert all(a.job.gpu_total_milli for a in drawn.arrivals)
    assert [a.job.id for a in drawn.arrivals] == list(range(1, len(drawn.arrivals) + 1))
    assert drawn == steady(mixed(2000), 1e6, 0.9, gpus=True, cap_s=100.0)


def test_steady_draws_large_and_small_jobs_as_often_as_they_are() -> None:
    drawn = steady(mixed(2000), 2e6, 0.5, gpus=False, cap_s=1e9)
    before = sorted(a.work_s * a.job.cpu_milli for a in mixed(2000).arrivals if not a.job.gpu_total_milli)
    after = sorted(a.work_s * a.job.cpu_milli for a in drawn.arrivals)
    for q in (0.1, 0.5, 0.9):
        assert after[int(q * len(after))] == pytest.approx(before[int(q * len(before))], rel=0.05)


@pytest.mark.parametrize(("load", "span_s", "gpus"), [(0.0, 10.0, True), (0.9, 0.0, True), (0.9, 10.0, False)])
def test_a_steady_stream_of_nothing_is_refused(load: float, span_s: float, gpus: bool) -> None:
    only_gpus = workload((0.0, job(1, 1, 1), 1.0))
    with pytest.raises(ConfigError, match="load"):
        steady(only_gpus, span_s, load, gpus=gpus, cap_s=10.0)


def test_compress_scales_gaps_exactly() -> None:
    two = workload((100.0, job(1, 0, 1), 30.0), (150.0, job(2, 0, 1), 30.0), (300.0, job(3, 0, 2), 30.0))
    squeezed = compress(two, gpu_load=0.6)  # 120 GPU seconds at 0.6 of 2 GPUs: 100 s
    assert [a.at for a in squeezed.arrivals] == pytest.approx([0.0, 25.0, 100.0])


@pytest.mark.parametrize("cpu_load", [0.4, 0.9])
def test_compress_to_both_loads_by_leaving_out_or_repeating_cpu_jobs(cpu_load: float) -> None:
    before = mixed(2000)
    squeezed = compress(before, gpu_load=0.9, cpu_load=cpu_load, seed=7)
    assert squeezed.load().gpu == pytest.approx(0.9)
    assert squeezed.load().cpu == pytest.approx(cpu_load, rel=0.01)
    gpu_jobs = [a.work_s for a in before.arrivals if a.job.gpu_total_milli]
    assert [a.work_s for a in squeezed.arrivals if a.job.gpu_total_milli] == gpu_jobs
    assert [a.job.id for a in squeezed.arrivals] == list(range(1, len(squeezed.arrivals) + 1))
    assert squeezed == compress(before, gpu_load=0.9, cpu_load=cpu_load, seed=7)


@pytest.mark.parametrize(
    ("made", "gpu_load"),
    [
        (mixed(), None),
        (workload((0.0, job(1), 1.0), (9.0, job(2), 1.0)), 0.9),
        (workload((0.0, job(1, 1, 1), 1.0)), 0.9),
    ],
)
def test_a_load_that_cannot_be_reached_is_refused(made: Workload, gpu_load: float | None) -> None:
    with pytest.raises(ConfigError, match="load"):
        compress(made, gpu_load=gpu_load)


def test_sampled_nodes_keep_the_mix() -> None:
    nodes = (
        *(Node(f"t{i}", 8000, 1024, (Gpu(0, "T4"),)) for i in range(60)),
        *(Node(f"v{i}", 8000, 1024, (Gpu(0, "V100"),)) for i in range(35)),
        *(Node(f"c{i}", 8000, 1024) for i in range(5)),
    )
    picked = sample_nodes(workload((0.0, job(1), 1.0), nodes=nodes), 0.2, seed=4)
    assert Counter(node.id[0] for node in picked.nodes) == {"t": 12, "v": 7, "c": 1}
    assert picked == sample_nodes(workload((0.0, job(1), 1.0), nodes=nodes), 0.2, seed=4)
    assert "20 of 100 nodes" in picked.notes[0]


def test_jobs_that_no_node_is_left_for_are_counted() -> None:
    nodes = (*(Node(f"c{i}", 8000, 1024) for i in range(9)), GPU_NODE)
    picked = sample_nodes(workload((0.0, job(1), 1.0), (1.0, job(2, 1, 1), 1.0), nodes=nodes), 0.1)
    assert [a.job.id for a in picked.arrivals] == [1]
    assert picked.notes[-1] == "1 job left out: too large for any node that is left"


@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=8),
    share=st.floats(0.05, 1.0),
    seed=st.integers(0, 5),
)
def test_each_kind_is_within_one_node_of_its_share(sizes: list[int], share: float, seed: int) -> None:
    nodes = tuple(Node(f"{kind}-{i}", 1000 * (kind + 1), 1) for kind, size in enumerate(sizes) for i in range(size))
    picked = sample_nodes(Workload(nodes, ()), share, seed)
    counts = Counter(node.cpu_milli for node in picked.nodes)
    assert len(picked.nodes) == round(sum(size * share for size in sizes))
    assert all(abs(counts[1000 * (kind + 1)] - size * share) < 1 for kind, size in enumerate(sizes))


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="share of nodes 10"):
        sample_nodes(mixed(), 10)
