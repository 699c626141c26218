"""How often quotes hold on simulated lab days: many more days than can be run for real, and the same ones each time.

Run: `python benchmarks/share_quotes.py [--quick] [--json]`. A day is that of examples/lab.toml (14 jobs in four
batches on one node of two cores), in simulation: run times alone as measured on two cores, interference additive in
pairs, each job 4 % and each day 5 % faster or slower (lognormal), rates measured with 3 % noise. A lab is five rounds
of the day under each policy in turn, each of which goes on with what was learned before; `exclusive`'s first day, of
which nothing can be known, does not count. The full run takes 20 labs, ``--quick`` 2.

Figures, of `hybrid`: `simulated_quote_coverage` (quotes at submission whose interval holds the end),
`simulated_quote_width` (the interval over the time from quote to middle, median), `simulated_primary_s` (mean
completion of primary jobs), `simulated_makespan_s`, and `rehearsal_ms` (CPU time of one play of the queue for each job
in it).
"""

from __future__ import annotations

import math
import random
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import measuring
from tandem.share.model import Job, JobClass, Need, Node, Part
from tandem.share.scheduler.cluster import Setup
from tandem.share.simulate.simulator import Day, Simulator
from tandem.share.simulate.truth import Pairwise
from tandem.share.workloads.workload import Arrival, Workload

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from tandem.share.quoting.quotes import Play, Rehearsed
    from tandem.share.scheduler.machine import Machine

POLICIES = ("exclusive", "share", "backfill", "hybrid")
ROUNDS = 5
NODE = Node("lab", 2000, 24_000, cores=(0, 1), membw_mbs=28_000)
DAY_SPREAD = 0.05
JOB_SPREAD = 0.04
NOISE = 0.03


@dataclass(frozen=True, slots=True)
class Application:
    """One of the day; side by side with another, it is slowed by what it suffers times what the other disturbs."""

    name: str
    alone_s: float
    bound: float | None  # None: harvest
    at_s: float
    suffers: float
    disturbs: float


APPLICATIONS = (
    Application("cg", 5.0, 1.15, 0.0, 0.3, 0.9),
    Application("stream", 4.1, None, 0.0, 0.25, 1.0),
    Application("stencil", 3.2, 1.15, 0.0, 0.3, 0.9),
    Application("pagerank", 4.5, None, 0.0, 0.2, 0.7),
    Application("montecarlo", 4.2, None, 0.0, 0.03, 0.1),
    Application("nbody", 4.2, None, 0.0, 0.03, 0.1),
    Application("digits", 4.5, 1.25, 0.0, 0.1, 0.2),
    Application("textgen", 4.2, None, 0.0, 0.05, 0.2),
    Application("imageprep", 4.2, None, 2.0, 0.05, 0.2),
    Application("compress", 3.9, None, 2.0, 0.03, 0.1),
    Application("fft3d", 4.4, 1.2, 4.0, 0.12, 0.4),
    Application("intsort", 3.8, None, 4.0, 0.12, 0.4),
    Application("lu", 3.8, None, 6.0, 0.05, 0.2),
    Application("wordcount", 4.0, None, 6.0, 0.05, 0.1),
)
TRUTH = {(a.name, b.name): 1 + a.suffers * b.disturbs for a in APPLICATIONS for b in APPLICATIONS}


@dataclass(slots=True)
class Seen:
    """What came of one policy's days."""

    held: list[bool] = field(default_factory=list)
    early: list[bool] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)
    primary_s: list[float] = field(default_factory=list)
    all_s: list[float] = field(default_factory=list)
    makespans_s: list[float] = field(default_factory=list)

    def add(self, day: Day, *, quotes_count: bool) -> None:
        """Count a day."""
        outcomes = {outcome.job.id: outcome for outcome in day.outcomes}
        began = min(outcome.submitted for outcome in day.outcomes)
        self.makespans_s.append(max(outcome.ended for outcome in day.outcomes) - began)
        for outcome in day.outcomes:
            self.all_s.append(outcome.ended - outcome.submitted)
            if outcome.bound is not None:
                self.primary_s.append(outcome.ended - outcome.submitted)
        for quote in day.quotes if quotes_count else ():
            if quote.moment == "submit":
                finish, true = quote.finish, outcomes[quote.job]
                self.held.append(finish.low <= true.ended <= finish.high)
                self.early.append(true.ended < finish.low)
                self.widths.append((finish.high - finish.low) / (finish.mid - true.submitted))


class Stopwatch:
    """CPU time of rehearsals, by wrapping the function that plays them."""

    def __init__(self) -> None:
        self.cpu_s = 0.0
        self.jobs = 0

    def attach(self, machine: Machine) -> None:
        """Time the rehearsals of this machine."""
        rehearse = machine.quoter.rehearse
        assert rehearse is not None

        def timed(plays: Sequence[Play], wanted: Collection[int]) -> list[Rehearsed]:
            began = time.process_time()
            played = rehearse(plays, wanted)
            self.cpu_s += time.process_time() - began
            self.jobs += len(plays) * len(plays[0].seconds)
            return played

        machine.quoter.rehearse = timed


def lab_day(policy: str, number: int, rng: random.Random, snapshot: Any, began: float) -> Simulator:  # noqa: ANN401
    """A simulator for the next day of a lab, which goes on with what was learned."""
    slow = math.exp(rng.gauss(0, DAY_SPREAD))
    arrivals = []
    for k, app in enumerate(APPLICATIONS, 1):
        klass = JobClass.HARVEST if app.bound is None else JobClass.PRIMARY
        parts = (Part(Need()),)
        job = Job(100 * number + k, parts, name=app.name, app=app.name, klass=klass, max_slowdown=app.bound or 1.1)
        arrivals.append(Arrival(began + app.at_s, job, app.alone_s * slow * math.exp(rng.gauss(0, JOB_SPREAD))))
    workload = Workload((NODE,), tuple(sorted(arrivals, key=lambda arrival: arrival.at)))
    setup = Setup(policy, "proportional", {}, snapshot)
    return Simulator(workload, setup, Pairwise(TRUTH, "additive"), noise=NOISE, stretch_s=0.5, seed=number)


def main() -> None:
    """Measure and print."""
    options = measuring.options(__doc__.splitlines()[0]).parse_args()
    labs = 2 if options.quick else 20
    print(f"{measuring.machine()}; commit {measuring.commit()}")
    print(f"{labs} labs of {ROUNDS} rounds, {len(APPLICATIONS)} jobs a day")
    seen: dict[str, Seen] = defaultdict(Seen)
    watch = Stopwatch()
    for lab in range(labs):
        rng, snapshot, number = random.Random(lab), None, 0
        for round_ in range(ROUNDS):
            for policy in POLICIES:
                simulator = lab_day(policy, number, rng, snapshot, 1e9 + 1000.0 * number)
                watch.attach(simulator.machine)
                day = simulator.run()
                snapshot, number = simulator.machine.snapshot(), number + 1
                seen[policy].add(day, quotes_count=bool(round_) or policy != "exclusive")
    print("  policy     quotes   held  early   late  width   completion s: primary    all   makespan s")
    for policy, one in seen.items():
        held, early = statistics.fmean(one.held), statistics.fmean(one.early)
        print(
            f"  {policy:10s} {len(one.held):6d} {held:6.2f} {early:6.2f} {1 - held - early:6.2f}"
            f" {statistics.median(one.widths):6.2f} {statistics.fmean(one.primary_s):21.1f}"
            f" {statistics.fmean(one.all_s):6.1f} {statistics.fmean(one.makespans_s):12.1f}"
        )
    hybrid = seen["hybrid"]
    measuring.finish(
        {
            "simulated_quote_coverage": statistics.fmean(hybrid.held),
            "simulated_quote_width": statistics.median(hybrid.widths),
            "simulated_primary_s": statistics.fmean(hybrid.primary_s),
            "simulated_makespan_s": statistics.fmean(hybrid.makespans_s),
            "rehearsal_ms": 1000 * watch.cpu_s / watch.jobs,
        },
        as_json=options.json,
    )


if __name__ == "__main__":
    main()
