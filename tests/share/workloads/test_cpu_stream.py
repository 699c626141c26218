import math
import statistics
from collections import defaultdict

import pytest

from tandem.core.errors import ConfigError
from tandem.share.model import Job, JobClass, Need, Node, Part
from tandem.share.workloads.cpu_stream import CpuStream, cpu_stream, with_bandwidth
from tandem.share.workloads.workload import Arrival, Workload

NODES = tuple(Node(f"n{i}", 16_000, 65_536) for i in range(20))


def test_the_stream_offers_the_load_within_its_last_job() -> None:
    stream = cpu_stream(NODES, 0.3, 86_400, seed=1)
    offered = sum(a.work_s * a.job.cpu_milli for a in stream.arrivals) / (86_400 * 320_000)
    assert 0.3 <= offered < 0.3 + 21_600 * 16 / (86_400 * 320)
    assert 0 <= stream.arrivals[0].at <= stream.arrivals[-1].at <= 86_400
    assert stream == cpu_stream(NODES, 0.3, 86_400, seed=1)
    assert stream.arrivals != cpu_stream(NODES, 0.3, 86_400, seed=2).arrivals


def test_the_distribution_is_the_stated_one() -> None:
    numbers = CpuStream(apps=400, cap_s=1e9, cores=((1, 1.0),), membw_mbs_per_core=((100, 1.0),))
    logs = [math.log(a.work_s) for a in cpu_stream(NODES[:1], 1.0, 864_000, 5, numbers).arrivals if a.work_s > 1.0]
    assert len(logs) > 8_000
    assert statistics.fmean(logs) == pytest.approx(math.log(600.0), abs=0.2)
    assert statistics.stdev(logs) == pytest.approx(1.2, abs=0.1)


def test_jobs_of_an_application_are_alike_and_bandwidth_goes_with_cores() -> None:
    by_app = defaultdict(list)
    for arrival in cpu_stream(NODES, 0.5, 86_400, seed=1).arrivals:
        by_app[arrival.job.app].append(arrival)
    assert len(by_app) == 12
    for arrivals in by_app.values():
        per_core = {a.job.parts[0].need.membw_mbs * 1000 / a.job.cpu_milli for a in arrivals}
        assert len(per_core) == 1
        logs = [math.log(a.work_s) for a in arrivals if 1.0 < a.work_s < 21_600]
        assert statistics.stdev(logs) < 0.5  # 1.2 * sqrt(0.1) = 0.38


def test_harvest_share_and_cores_that_fit() -> None:
    small = (Node("small", 4000, 8192),)
    stream = cpu_stream(small, 0.9, 864_000, 1, CpuStream(harvest_share=0.5))
    assert {a.job.cpu_milli for a in stream.arrivals} == {1000, 2000, 4000}
    harvest = sum(a.job.klass is JobClass.HARVEST for a in stream.arrivals) / len(stream.arrivals)
    assert harvest == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("load", "span_s", "nodes"), [(0.0, 10.0, NODES), (0.5, 0.0, NODES), (0.5, 10.0, ())])
def test_an_impossible_stream_is_refused(load: float, span_s: float, nodes: tuple[Node, ...]) -> None:
    with pytest.raises(ConfigError, match="CPU load"):
        cpu_stream(nodes, load, span_s, seed=1)


def test_bandwidth_only_where_none_is_stated() -> None:
    jobs = [
        Job(1, (Part(Need(2000, membw_mbs=77)),)),
        Job(2, (Part(Need(2000)),), app="cg"),
        Job(3, (Part(Need(4000)),), app="cg"),
        Job(4, (Part(Need(16_000)),), app="cg"),
    ]
    made = Workload(
        (Node("known", 16_000, 1, membw_mbs=50_000), Node("unknown", 8000, 1)),
        tuple(Arrival(float(i), job, 1.0) for i, job in enumerate(jobs)),
    )
    after = with_bandwidth(made, node_mbs_per_core=2_000, job_mbs_per_core=((1_500, 1.0),), seed=1)
    assert [node.membw_mbs for node in after.nodes] == [50_000, 16_000]
    assert [a.job.parts[0].need.membw_mbs for a in after.arrivals] == [77, 3_000, 6_000, 16_000]
    assert "3 jobs" in after.notes[-1]
