"""How fast a trace is scheduled, and how much sooner jobs complete: Philly on 110 nodes x 4 GPUs x 48 cores.

Run: `python benchmarks/share_simulate.py [--quick] [--json]`. The trace (82,247 GPU jobs over 109 days, Microsoft
Philly) offers 374 GPUs on average to 440, so queues are long; jobs take 4 cores a GPU. True run times are known to
the simulator only; policies see users' limits, which are the true time times 1 to 3, uniformly (seed 0). ``--quick``
takes the first 20,000 jobs. Where the trace is not at hand a generated one of the same shape is used, and said.

Figures: `philly_backfill_jobs_per_s`, `philly_hybrid_jobs_per_s` (jobs simulated per second of CPU time on one core,
the median of rounds), `philly_hybrid_completion_vs_backfill` (mean completion of backfill over hybrid's),
`philly_scaling_exponent` (of backfill's CPU time over the number of jobs, from 10,000 to 80,000), `philly_memory_gib`
(peak). Baseline: public Python simulators, 180-390 jobs/s (PAI), a naive EASY scan 900.
"""

from __future__ import annotations

import math
import resource
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import measuring
from tandem.share.model import Gpu, Node
from tandem.share.scheduler.cluster import Setup
from tandem.share.simulate.metrics import measure
from tandem.share.simulate.simulator import Simulator
from tandem.share.traces import philly
from tandem.share.workloads.cpu_stream import CpuStream, cpu_stream
from tandem.share.workloads.workload import Workload, limits_with_error


@dataclass(frozen=True, slots=True)
class Run:
    """One simulated day's figures."""

    jobs: int
    cpu_s: float
    mean_completion_s: float


def workload(jobs: int) -> Workload:
    """The first ``jobs`` jobs of the trace with users' limits."""
    found = measuring.trace("philly.csv")
    if found is not None:
        return limits_with_error(philly.read(found).first(jobs), seed=0)
    print("philly.csv is not at hand: a generated stream of jobs without GPUs stands in for it")
    nodes = tuple(Node(f"n{i}", 48_000, 0, tuple(Gpu(g) for g in range(4))) for i in range(110))
    stream = CpuStream(harvest_share=0.0, mem_mib_per_core=0, median_s=1800.0)
    days = jobs / 750
    return limits_with_error(cpu_stream(nodes, 0.9, 86_400 * days, 0, stream).first(jobs), seed=0)


def simulate(day: Workload, policy: str) -> Run:
    """Simulate without quotes (they are measured elsewhere)."""
    began = time.process_time()
    outcomes = Simulator(day, Setup(policy, "proportional", {"quotes": 0})).run().outcomes
    cpu_s = time.process_time() - began
    return Run(len(outcomes), cpu_s, measure(outcomes, day.nodes).completion_s.mean)


def main() -> None:
    """Measure and print."""
    options = measuring.options(__doc__.splitlines()[0]).parse_args()
    jobs, rounds = (20_000, 2) if options.quick else (82_247, 3)
    print(f"{measuring.machine()}; commit {measuring.commit()}; {jobs} jobs, {rounds} rounds, policies interleaved")
    day = workload(jobs)
    runs: dict[str, list[Run]] = {"backfill": [], "hybrid": []}
    for _ in range(rounds):
        for policy, done in runs.items():
            done.append(simulate(day, policy))
            last = done[-1]
            speed = last.jobs / last.cpu_s
            print(f"  {policy:9s} {speed:8.0f} jobs/s   mean completion {last.mean_completion_s / 3600:8.2f} h")
    sizes = (5_000, 10_000) if options.quick else (10_000, 20_000, 40_000, 80_000)
    costs = {size: min(simulate(day.first(size), "backfill").cpu_s for _ in range(2)) for size in sizes}
    if options.quick:
        costs[jobs] = min(run.cpu_s for run in runs["backfill"])
    for size, cost in costs.items():
        print(f"  backfill, first {size:6d} jobs: {cost:6.2f} CPU-s")
    speed = {policy: statistics.median(r.jobs / r.cpu_s for r in done) for policy, done in runs.items()}
    completion = {policy: done[0].mean_completion_s for policy, done in runs.items()}
    measuring.finish(
        {
            "philly_backfill_jobs_per_s": speed["backfill"],
            "philly_hybrid_jobs_per_s": speed["hybrid"],
            "philly_hybrid_completion_vs_backfill": completion["backfill"] / completion["hybrid"],
            "philly_scaling_exponent": slope(costs),
            "philly_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        },
        as_json=options.json,
    )


def slope(costs: dict[int, float]) -> float:
    """Least-squares slope of log cost over log size."""
    xs, ys = [math.log(size) for size in costs], [math.log(cost) for cost in costs.values()]
    return statistics.linear_regression(xs, ys).slope


if __name__ == "__main__":
    main()
