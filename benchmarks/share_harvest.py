"""What harvesting idle cores of GPU nodes brings, and what it costs the GPU jobs, in simulation with interference.

Run: `python benchmarks/share_harvest.py [--quick] [--json]`. Two workloads on a stratified 10 % of openb's nodes
(alibaba cluster-trace-gpu-v2023), run times cut to 6 h, user limits 1 to 5 times the true run time:

* `openb`: its pods, arrivals squeezed to a GPU load of 0.9 and a CPU load of 0.6;
* `mixed` (the figures are of this one): its GPU pods alone at a GPU load of 0.9, all primary with a bound of 1.10,
  merged with a generated stream of CPU harvest jobs that offers 0.6 of the cores (`cpu_stream`, seed 0).

The truth: memory bandwidth saturates at 2 GB/s a core of the node (`truth.Bandwidth`); GPU pods draw 0.2
or 1 GB/s a core, CPU jobs 0.2, 1.5 or 4. Only `hybrid` looks at stated bandwidths, and those are wrong by 20 %
(lognormal); the other policies count cores, memory and GPUs, as the schedulers do that they stand for. Rates are
measured with 3 % noise. ``--quick`` squeezes a third of the pods.

Figures: `harvest_cpu_utilisation_gain` (useful CPU between first and last arrival, hybrid over backfill),
`harvest_mean_completion_speedup` (backfill over hybrid, all jobs), `harvest_bounds_broken_hybrid`,
`harvest_bounds_broken_share` (fraction of primary jobs slowed beyond their bound and 4 % of noise).
"""

from __future__ import annotations

import math
import random
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import measuring
from tandem.estimate.corun import App, Capacity
from tandem.share.model import Gpu, Job, JobClass, Need, Node, Part
from tandem.share.scheduler.cluster import Setup
from tandem.share.simulate.metrics import Metrics, Outcome, measure
from tandem.share.simulate.simulator import Simulator
from tandem.share.simulate.truth import Bandwidth
from tandem.share.traces import openb
from tandem.share.workloads.cpu_stream import CpuStream, cpu_stream
from tandem.share.workloads.workload import Arrival, Workload, compress, limits_with_error, merge, sample_nodes

POLICIES = ("exclusive", "share", "backfill", "las", "hybrid")
NODE_MBS_PER_CORE = 2_000
GPU_POD_MBS_PER_CORE = (200, 1_000)
STATED_ERROR = 0.2
NOISE = 0.03
TOLERANCE = 0.04
BOUND = 1.10


@dataclass(frozen=True, slots=True)
class ByApplication:
    """The truth: each application's bandwidth by its key, whatever anybody stated."""

    mbs_per_core: dict[str, int]
    bandwidth: Bandwidth = field(default_factory=lambda: Bandwidth(fraction=0.8))

    def rates(
        self, members: tuple[App, ...], capacity: Capacity, throttles: tuple[float, ...] = ()
    ) -> tuple[float, ...]:
        """See `tandem.share.simulate.truth.Truth.rates`."""
        return self.bandwidth.rates(self._true(members), self._whole(capacity), throttles)

    def quiet(self, members: tuple[App, ...], capacity: Capacity | None = None) -> bool:
        """See `tandem.share.simulate.truth.Truth.quiet`."""
        return self.bandwidth.quiet(self._true(members), self._whole(capacity) if capacity else None)

    def _true(self, members: tuple[App, ...]) -> tuple[App, ...]:
        return tuple(
            App(one.key, one.cpu_milli, self.mbs_per_core.get(one.key, 0) * one.cpu_milli // 1000) for one in members
        )

    def _whole(self, capacity: Capacity) -> Capacity:
        return Capacity(capacity.cpu_milli, NODE_MBS_PER_CORE * capacity.cpu_milli // 1000)


def pods(share: float) -> Workload:
    """Openb's pods on a tenth of its nodes; generated ones where the trace is not at hand."""
    found = measuring.trace("openb_pods.csv")
    if found is not None:
        trace = sample_nodes(openb.read(found), 0.1)
    else:
        print("openb is not at hand: generated nodes and pods stand in for it")
        trace = _generated_pods()
    kept = random.Random(0).sample(trace.arrivals, int(share * len(trace.arrivals)))
    arrivals = tuple(sorted(kept, key=lambda a: a.at))
    return replace(trace, arrivals=arrivals)


def _generated_pods() -> Workload:
    rng = random.Random(0)
    nodes = tuple(
        Node(f"n{i}", 96_000, 393_216, tuple(Gpu(g, "T4") for g in range(4)) if i % 5 else ()) for i in range(152)
    )
    needs = (Need(11_000, 49_152, gpus=1), Need(3_000, 5_600, gpu_milli=460), Need(12_000, 57_344))
    arrivals = []
    for i in range(6_000):
        klass = rng.choice(list(JobClass))
        job = Job(i + 1, (Part(rng.choice(needs)),), klass=klass)
        arrivals.append(Arrival(60.0 * i, job, min(21_600.0, rng.lognormvariate(6.5, 1.5))))
    return Workload(nodes, tuple(arrivals), "generated pods", ())


def openb_day(share: float) -> Workload:
    """The pods as they are, squeezed."""
    return _labelled(compress(pods(share), gpu_load=0.9, cpu_load=0.6, cap_s=21_600, keep_bursts=False))


def mixed_day(share: float) -> Workload:
    """GPU pods, all primary, and a stream of harvest jobs for the cores."""
    trace = pods(share)
    gpu_pods = tuple(
        replace(a, job=replace(a.job, klass=JobClass.PRIMARY, max_slowdown=BOUND))
        for a in trace.arrivals
        if a.job.gpu_total_milli
    )
    gpu_day = compress(replace(trace, arrivals=gpu_pods), gpu_load=0.9, cap_s=21_600, keep_bursts=False)
    stream = cpu_stream(trace.nodes, 0.6, gpu_day.span_s, 0, CpuStream())
    return _labelled(merge(gpu_day, stream, "mixed"))


def _labelled(day: Workload) -> Workload:
    """Pods of one shape are one application (the trace names none), and everybody gets a limit."""
    arrivals = tuple(
        a if a.job.app else replace(a, job=replace(a.job, app=_shape(a.job), max_slowdown=BOUND)) for a in day.arrivals
    )
    return limits_with_error(replace(day, arrivals=arrivals), seed=0)


def _shape(job: Job) -> str:
    need = job.parts[0].need
    return f"pod-{need.cpu_milli}-{1000 * need.gpus + need.gpu_milli}"


def truth_of(day: Workload) -> ByApplication:
    """Each application's bandwidth a core: the stream's own, and a draw for pods."""
    rng = random.Random(1)
    table: dict[str, int] = {}
    for arrival in day.arrivals:
        need = arrival.job.parts[0].need
        stated = need.membw_mbs * 1000 // need.cpu_milli if need.cpu_milli else 0
        table.setdefault(arrival.job.app, stated or rng.choice(GPU_POD_MBS_PER_CORE))
    return ByApplication(table)


def stated(day: Workload, truth: ByApplication | None) -> Workload:
    """The day with every job's bandwidth stated, wrongly by 20 %, on nodes that meter it; or with none at all."""
    rng = random.Random(2)
    wrong = {app: math.exp(rng.gauss(0, STATED_ERROR)) for app in sorted(truth.mbs_per_core)} if truth else {}
    nodes = tuple(
        replace(node, membw_mbs=NODE_MBS_PER_CORE * node.cpu_milli // 1000 if truth else None) for node in day.nodes
    )
    most = min((node.membw_mbs or 0) for node in nodes)

    def part(app: str, one: Part) -> Part:
        mbs = int(truth.mbs_per_core[app] * wrong[app] * one.need.cpu_milli / 1000) if truth else 0
        return replace(one, need=replace(one.need, membw_mbs=min(mbs, most)))

    arrivals = tuple(
        replace(a, job=replace(a.job, parts=tuple(part(a.job.app, one) for one in a.job.parts))) for a in day.arrivals
    )
    return replace(day, nodes=nodes, arrivals=arrivals)


def useful_cpu(outcomes: list[Outcome], day: Workload) -> float:
    """Useful core-seconds between first and last arrival over capacity: time held, less what neighbours cost."""
    start, end = day.arrivals[0].at, day.arrivals[-1].at
    held = 0.0
    for o in outcomes:
        seconds = sum(max(0.0, min(b, end) - max(a, start)) for a, b, _, _ in o.intervals)
        held += seconds / o.slowdown * o.job.cpu_milli
    return held / (sum(node.cpu_milli for node in day.nodes) * (end - start))


def main() -> None:
    """Measure and print."""
    options = measuring.options(__doc__.splitlines()[0]).parse_args()
    share = 0.34 if options.quick else 1.0
    print(f"{measuring.machine()}; commit {measuring.commit()}; {share:.0%} of the pods")
    figures: dict[str, float | None] = {}
    for name, day in (("openb", openb_day(share)), ("mixed", mixed_day(share))):
        rows = _all_policies(name, day)
        figures = {
            "harvest_cpu_utilisation_gain": rows["hybrid"][1] / rows["backfill"][1],
            "harvest_mean_completion_speedup": _mean(rows["backfill"][0]) / _mean(rows["hybrid"][0]),
            "harvest_bounds_broken_hybrid": _broken(rows["hybrid"][0]),
            "harvest_bounds_broken_share": _broken(rows["share"][0]),
        }
    measuring.finish(figures, as_json=options.json)


def _all_policies(name: str, day: Workload) -> dict[str, tuple[Metrics, float]]:
    load = day.load()
    truth = truth_of(day)
    print(f"{name}: {len(day.arrivals)} jobs on {len(day.nodes)} nodes, offered CPU {load.cpu:.2f}, GPU {load.gpu:.2f}")
    print(
        "  policy     useful CPU  GPU use   completion h: all  primary  harvest   bounds broken   makespan h  seconds"
    )
    rows = {}
    for policy in POLICIES:
        began = time.perf_counter()
        told = stated(day, truth if policy == "hybrid" else None)
        setup = Setup(policy, "proportional", {"quotes": 0})
        outcomes = Simulator(told, setup, truth, noise=NOISE, stretch_s=30.0).run().outcomes
        m = measure(outcomes, told.nodes, tolerance=TOLERANCE)
        rows[policy] = (m, useful_cpu(outcomes, told))
        by_class = {k: v.mean / 3600 for k, v in m.completion_by_class.items()}
        print(
            f"  {policy:10s} {rows[policy][1]:10.3f} {m.gpu.allocated:8.3f} {_mean(m) / 3600:19.2f}"
            f" {by_class[JobClass.PRIMARY]:8.2f} {by_class[JobClass.HARVEST]:8.2f} {m.broken:7d} of {m.bounded:5d}"
            f" {m.makespan_s / 3600:11.1f} {time.perf_counter() - began:8.1f}"
        )
    return rows


def _mean(m: Metrics) -> float:
    return m.completion_s.mean


def _broken(m: Metrics) -> float:
    return m.broken / m.bounded if m.bounded else 0.0


if __name__ == "__main__":
    main()
