"""What harvesting idle cores of GPU nodes brings, and what it costs the GPU jobs, in simulation with interference.

Run: `python benchmarks/share_harvest.py [--quick] [--processes N] [--json]`. Workloads on a stratified 10 % of openb's
nodes (alibaba cluster-trace-gpu-v2023), run times cut to 6 h, user limits 1 to 5 times the true run time:

* `openb`: its pods at a GPU load of 0.9 and a CPU load of 0.6, all told;
* `light`: its GPU pods alone at a GPU load of 0.9, all primary with a bound of 1.10 (they take half of the cores),
  merged with a generated stream of CPU harvest jobs (`cpu_stream`, seed 0) that offers 0.3 of the cores: there is room;
* `mixed` (the figures are of this one): as `light`, with a stream that offers 0.6: more than there is room for, so that
  harvest work never runs out.

Arrivals are a stationary stream (`steady`: stratified by demand, spread evenly). Figures are of a window: jobs arrive
for as long as the longest takes before it opens, and for hours after it closes. Use is over the window, completion and
bounds are of the jobs that arrive in it, and the load that these offer is printed.

The truth: memory bandwidth saturates at 2 GB/s a core of the node (`truth.Bandwidth`); GPU pods draw 0.2
or 1 GB/s a core, CPU jobs 0.2, 1.5 or 4. Only `hybrid` looks at stated bandwidths, and those are wrong by 20 %
(lognormal); the other policies count cores, memory and GPUs, as the schedulers do that they stand for. Rates are
measured with 3 % noise.

Nobody can use more cores than are offered or there, nor complete a job sooner than it takes alone: what that leaves to
gain over backfill is printed. The full run takes about half an hour and keeps its table in
benchmarks/results/share_harvest.json; ``--quick`` runs `mixed` live on 1 % of the nodes over a shorter window,
with 4 hours before it and 1 after: not everything is in balance yet when it opens.

Figures: `harvest_cpu_utilisation_gain` (useful CPU, hybrid over backfill), `harvest_mean_completion_speedup` (backfill
over hybrid, all jobs), `harvest_bounds_broken_hybrid`, `harvest_bounds_broken_share` (fraction of primary jobs slowed
beyond their bound and 4 % of noise), `harvest_cpu_time_vs_backfill` (hybrid's CPU time over backfill's: smaller is
better). With ``--quick`` the same names with `_full` are those of the kept table.
"""

from __future__ import annotations

import json
import math
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import measuring
from tandem.estimate.corun import App, Capacity
from tandem.share.model import Gpu, Job, JobClass, Need, Node, Part
from tandem.share.scheduler.cluster import Setup
from tandem.share.simulate.simulator import Simulator
from tandem.share.simulate.truth import Bandwidth
from tandem.share.traces import openb
from tandem.share.workloads.cpu_stream import CpuStream, cpu_stream
from tandem.share.workloads.workload import Arrival, Workload, limits_with_error, merge, sample_nodes, steady

if TYPE_CHECKING:
    from tandem.share.simulate.metrics import Outcome

TABLE = measuring.RESULTS / "share_harvest.json"
PODS = "openb_pods.csv"
POLICIES = ("exclusive", "share", "backfill", "las", "hybrid")
GPU_LOAD = 0.9
CAP_S = 21_600.0
HOUR_S = 3_600.0
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


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is simulated: a part of the nodes, and hours before, in and after the window that is measured."""

    nodes: float
    before_h: float
    window_h: float
    after_h: float
    policies: tuple[str, ...]
    workloads: tuple[str, ...]

    @property
    def span_s(self) -> float:
        """Seconds over which jobs arrive."""
        return (self.before_h + self.window_h + self.after_h) * HOUR_S

    @property
    def window(self) -> tuple[float, float]:
        """When the window opens and closes, in seconds from the first possible arrival."""
        return self.before_h * HOUR_S, (self.before_h + self.window_h) * HOUR_S


FULL = Plan(0.1, 6.0, 8.0, 4.0, POLICIES, ("openb", "light", "mixed"))
QUICK = Plan(0.01, 4.0, 5.0, 1.0, ("share", "backfill", "hybrid"), ("mixed",))


def pods(share: float) -> Workload:
    """Openb's pods and a stratified part of its nodes; generated ones where the trace is not at hand."""
    found = measuring.trace(PODS)
    if found is not None:
        return sample_nodes(openb.read(found), share)
    return sample_nodes(_generated_pods(), share)


def _generated_pods() -> Workload:
    rng = random.Random(0)
    nodes = tuple(
        Node(f"n{i}", 96_000, 393_216, tuple(Gpu(g, "T4") for g in range(4)) if i % 5 else ()) for i in range(1_520)
    )
    needs = (Need(11_000, 49_152, gpus=1), Need(3_000, 5_600, gpu_milli=460), Need(12_000, 57_344))
    arrivals = []
    for i in range(6_000):
        klass = rng.choice(list(JobClass))
        job = Job(i + 1, (Part(rng.choice(needs)),), klass=klass)
        arrivals.append(Arrival(60.0 * i, job, min(21_600.0, rng.lognormvariate(6.5, 1.5))))
    return Workload(nodes, tuple(arrivals), "generated pods", ())


def openb_day(trace: Workload, plan: Plan) -> Workload:
    """The pods as they are: those with GPUs to their load, those without to what is left of the CPU load."""
    with_gpus = steady(trace, plan.span_s, GPU_LOAD, gpus=True, cap_s=CAP_S)
    left = 0.6 - with_gpus.load().cpu
    return _labelled(merge(with_gpus, steady(trace, plan.span_s, left, gpus=False, cap_s=CAP_S), "openb"))


def mixed_day(trace: Workload, plan: Plan, stream_load: float) -> Workload:
    """GPU pods, all primary, and a stream of harvest jobs for the cores."""
    drawn = steady(trace, plan.span_s, GPU_LOAD, gpus=True, cap_s=CAP_S)
    primary = tuple(replace(a, job=replace(a.job, klass=JobClass.PRIMARY, max_slowdown=BOUND)) for a in drawn.arrivals)
    stream = cpu_stream(trace.nodes, stream_load, plan.span_s, 0, CpuStream())
    return _labelled(merge(replace(drawn, arrivals=primary), stream, "mixed"))


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


@dataclass(frozen=True, slots=True)
class Row:
    """One policy's figures of the window; times in hours, uses as fractions.

    ``offered_cpu`` and ``offered_gpu`` are of the jobs that arrive in it, ``alone`` is their mean run time alone.
    """

    workload: str
    policy: str
    jobs: int
    offered_cpu: float
    offered_gpu: float
    useful_cpu: float
    useful_harvest: float
    gpu: float
    completion_h: float
    primary_h: float
    harvest_h: float
    alone_h: float
    bounded: int
    broken: int
    cpu_s: float


def row(name: str, policy: str, outcomes: list[Outcome], day: Workload, plan: Plan, cpu_s: float) -> Row:
    """Measure the window. What a job does counts evenly over the time in which it held its cores."""
    opens, closes = plan.window
    cores = sum(node.cpu_milli for node in day.nodes) * (closes - opens)
    gpus = 1000 * sum(len(node.gpus) for node in day.nodes) * (closes - opens)
    useful = dict.fromkeys(JobClass, 0.0)
    gpu = 0.0
    for o in outcomes:
        held = sum(b - a for a, b, _, _ in o.intervals)
        inside = sum(max(0.0, min(b, closes) - max(a, opens)) for a, b, _, _ in o.intervals)
        useful[o.job.klass] += inside * min(1.0, o.work_s / max(held, 1e-9)) * o.job.cpu_milli
        gpu += inside * o.job.gpu_total_milli
    arrived = [o for o in outcomes if opens <= o.submitted < closes]
    bounded = [o for o in arrived if o.bound is not None]
    return Row(
        name,
        policy,
        len(arrived),
        sum(o.work_s * o.job.cpu_milli for o in arrived) / cores,
        sum(o.work_s * o.job.gpu_total_milli for o in arrived) / gpus,
        sum(useful.values()) / cores,
        useful[JobClass.HARVEST] / cores,
        gpu / gpus,
        _mean_h([o.ended - o.submitted for o in arrived]),
        _mean_h([o.ended - o.submitted for o in arrived if o.job.klass is JobClass.PRIMARY]),
        _mean_h([o.ended - o.submitted for o in arrived if o.job.klass is JobClass.HARVEST]),
        _mean_h([o.work_s for o in arrived]),
        len(bounded),
        sum(o.slowdown > (o.bound or 0.0) + TOLERANCE + 1e-9 for o in bounded),
        cpu_s,
    )


def main() -> None:
    """Measure and print."""
    parser = measuring.options(__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="days that are simulated at once. [1]")
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    print(f"{measuring.machine()}; commit {measuring.commit()}")
    if measuring.trace(PODS) is None:
        print("openb is not at hand: generated nodes and pods stand in for it")
    rows: list[Row] = []
    with ProcessPoolExecutor(options.processes) as pool:
        longest_first = [(name, policy) for name in reversed(plan.workloads) for policy in reversed(plan.policies)]
        asked = {day: pool.submit(simulated, *day, plan) for day in longest_first}
        for name in plan.workloads:
            _say(name, plan)
            rows += _printed([asked[name, policy].result() for policy in plan.policies])
            if not options.quick:
                _keep(rows)
    found = figures(rows)
    kept: dict[str, float | None] = {}
    if options.quick and TABLE.exists():
        stored = json.loads(TABLE.read_text())
        print(f"kept table of the full run: {stored['machine']}, commit {stored['commit']}")
        full = [Row(**one) for one in stored["rows"]]
        for name in dict.fromkeys(one.workload for one in full):
            _printed([one for one in full if one.workload == name])
        kept = {f"{name}_full": value for name, value in figures(full).items()}
    measuring.finish({**found, **kept}, as_json=options.json, kept=list(kept))


def figures(rows: list[Row]) -> dict[str, float | None]:
    """The figures of `mixed`; None while it has not run."""
    of = {one.policy: one for one in rows if one.workload == "mixed"}
    hybrid, backfill, share = of.get("hybrid"), of.get("backfill"), of.get("share")
    if hybrid is None or backfill is None or share is None:
        return {}
    return {
        "harvest_cpu_utilisation_gain": hybrid.useful_cpu / backfill.useful_cpu,
        "harvest_mean_completion_speedup": backfill.completion_h / hybrid.completion_h,
        "harvest_bounds_broken_hybrid": hybrid.broken / hybrid.bounded,
        "harvest_bounds_broken_share": share.broken / share.bounded,
        "harvest_cpu_time_vs_backfill": hybrid.cpu_s / backfill.cpu_s,
    }


def day_of(name: str, plan: Plan) -> Workload:
    """One of the workloads."""
    trace = pods(plan.nodes)
    return openb_day(trace, plan) if name == "openb" else mixed_day(trace, plan, {"light": 0.3, "mixed": 0.6}[name])


def simulated(name: str, policy: str, plan: Plan) -> Row:
    """One workload under one policy."""
    day = day_of(name, plan)
    truth = truth_of(day)
    began = time.process_time()
    told = stated(day, truth if policy == "hybrid" else None)
    setup = Setup(policy, "proportional", {"quotes": 0})
    outcomes = Simulator(told, setup, truth, noise=NOISE, stretch_s=30.0).run().outcomes
    return row(name, policy, outcomes, day, plan, time.process_time() - began)


def _say(name: str, plan: Plan) -> None:
    day = day_of(name, plan)
    print(f"{name}: {len(day.arrivals)} jobs on {len(day.nodes)} nodes; " + "; ".join(day.notes))
    opens, closes = (at / HOUR_S for at in plan.window)
    print(f"  measured from hour {opens:g} to hour {closes:g} of {plan.span_s / HOUR_S:g}")


def _printed(rows: list[Row]) -> list[Row]:
    first = rows[0]
    print(f"  {first.workload}: {first.jobs} jobs arrive in the window", end="")
    print(f" and offer CPU {first.offered_cpu:.2f}, GPU {first.offered_gpu:.2f}")
    print("  policy     useful CPU (harvest)  GPU use   completion h: all  primary  harvest   bounds broken   CPU s")
    for one in rows:
        print(
            f"  {one.policy:10s} {one.useful_cpu:10.3f} {one.useful_harvest:9.3f} {one.gpu:8.3f}"
            f" {one.completion_h:19.2f} {one.primary_h:8.2f} {one.harvest_h:8.2f}"
            f" {one.broken:7d} of {one.bounded:5d} {one.cpu_s:7.1f}",
            flush=True,
        )
    backfill = next(one for one in rows if one.policy == "backfill")
    most = max(1.0, min(1.0, backfill.offered_cpu) / backfill.useful_cpu)
    print(
        f"  no policy can use more than {most:.3f} times backfill's CPU, or complete"
        f" {backfill.completion_h / backfill.alone_h:.2f} times as soon in the mean ({backfill.alone_h:.2f} h alone)"
    )
    return rows


def _keep(rows: list[Row]) -> None:
    TABLE.parent.mkdir(exist_ok=True)
    stored = {"machine": measuring.machine(), "commit": measuring.commit(), "rows": [asdict(one) for one in rows]}
    TABLE.write_text(json.dumps(stored, indent=0) + "\n")


def _mean_h(seconds: list[float]) -> float:
    return sum(seconds) / len(seconds) / HOUR_S if seconds else math.nan


if __name__ == "__main__":
    main()
