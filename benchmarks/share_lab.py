"""Repeats of the lab day (examples/lab.toml), for real: what sharing gains, which bounds break, which quotes hold.

Run: `python benchmarks/share_lab.py [--quick] [--json] [--repeats N] [--resume]`. Each repeat runs every policy on the
same jobs, one day after the other, so that policies are interleaved; `hybrid` runs once with each estimator. All repeats
are days of one lab, on one store: durations, rates and how quotes erred are known from the days before, as they would
be in use. Before the first one, every application has run once and been profiled. The full run takes about four
minutes a repeat and keeps its table in benchmarks/results/share_lab.json; with ``--resume`` it goes on where it
stopped, as long as the commit is the same. ``--quick`` runs one repeat of a fifth of the work live and takes the
figures that need repeats from that table, named in `_kept`.

A bound is broken *significantly* where a primary job's slowdown against its own run alone in the same repeat exceeds
it in the mean over repeats by more than its 95 % interval, and by more than the noise measured between runs alone.

Figures: `lab_speedup_vs_backfill`, `lab_speedup_vs_exclusive` (makespans over hybrid's, medians of paired repeats),
`lab_breaches_hybrid`, `lab_breaches_backfill`, `lab_breaches_share` (jobs), `lab_quote_coverage`, `lab_quote_width`
(hybrid's quotes at submission: fraction inside, median width over predicted time to finish), `noise_floor` (percent,
runs alone against runs alone).
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import measuring
from tandem.share.lab import judge as lab_judge
from tandem.share.lab import plan as labs
from tandem.share.lab import run as lab_run

TABLE = measuring.RESULTS / "share_lab.json"
POLICIES = ("exclusive", "share", "backfill", "hybrid")
QUICK = ("policies=['exclusive', 'backfill', 'hybrid']", "scale=0.2")
SLOW_TO_START = {"digits", "textgen"}
T95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
"""Two-sided 95 % quantiles of Student's t by number of values."""

Repeat = list[dict[str, Any]]


def repeat(overrides: tuple[str, ...], home: Path, *, quick: bool) -> Repeat:
    """One repeat: every policy's day, judged."""
    lab = labs.load(measuring.ROOT / "examples" / "lab.toml", overrides)
    if quick:
        lab = labs.without(lab, SLOW_TO_START)
    with tempfile.TemporaryDirectory(prefix="tandem-lab-") as folder:
        ran = lab_run.run(lab, Path(folder), home=home)
        judged = lab_judge.as_json(lab_judge.judge(ran.days, ran.names, ran.cores))
    for day in judged:
        print(
            f"  {day['policy']:10s} makespan {day['makespan_s']:6.1f} s   broken {day['broken_bounds']:.0f} of"
            f" {day['bounded']}   quotes kept {_percent(day['quote_coverage'])}, width {_percent(day['quote_width'])}"
        )
    return judged


def figures(repeats: list[Repeat]) -> dict[str, float | None]:
    """The figures over repeats."""
    spans: dict[str, list[float]] = defaultdict(list)
    for one in repeats:
        for day in one:
            spans[day["policy"]].append(day["makespan_s"])
    found: dict[str, float | None] = {}
    for policy in ("backfill", "exclusive"):
        gain = measuring.ratio(spans[policy], spans["hybrid"])
        print(f"makespan of {policy} over hybrid's: {gain}")
        found[f"lab_speedup_vs_{policy}"] = gain.mid
    floor = noise_floor(repeats)
    for policy in ("hybrid", "backfill", "share"):
        if policy in spans:
            found[f"lab_breaches_{policy}"] = float(len(breaches(repeats, policy, floor)))
    promised = [job for one in repeats for job in _jobs(one, "hybrid") if job["in_time"] is not None]
    found["lab_quote_coverage"] = statistics.fmean(job["in_time"] for job in promised) if promised else None
    widths = [
        (job["quote"][2] - job["quote"][0]) / max(job["quote"][1] - job["submitted"], 1e-9)
        for job in promised
        if job["quote"]
    ]
    found["lab_quote_width"] = statistics.median(widths) if widths else None
    found["noise_floor"] = 100 * floor
    return found


def noise_floor(repeats: list[Repeat]) -> float:
    """Relative difference between runs alone of the same job: the median over jobs and neighbouring repeats."""
    times: dict[str, list[float]] = defaultdict(list)
    for one in repeats:
        for job in _jobs(one, "exclusive"):
            if job["run_s"]:
                times[job["name"]].append(job["run_s"])
    differences = [abs(b / a - 1) for t in times.values() for a, b in itertools.pairwise(t)]
    return max(lab_judge.NOISE_FLOOR, statistics.median(differences)) if differences else lab_judge.NOISE_FLOOR


def breaches(repeats: list[Repeat], policy: str, floor: float) -> list[str]:
    """Primary jobs whose bound was broken significantly."""
    slowdowns: dict[str, list[float]] = defaultdict(list)
    bounds: dict[str, float] = {}
    for one in repeats:
        for job in _jobs(one, policy):
            if job["bound"] and job["slowdown"]:
                slowdowns[job["name"]].append(job["slowdown"])
                bounds[job["name"]] = job["bound"]
    broken = []
    for name, seen in slowdowns.items():
        mean = statistics.fmean(seen)
        half = T95.get(len(seen), 2.0) * statistics.stdev(seen) / len(seen) ** 0.5 if len(seen) > 1 else 0.0
        limit = bounds[name] * (1 + floor)
        print(f"  {policy:9s} {name:20s} slowed {mean:.3f} +- {half:.3f}, bound {bounds[name]:.2f}")
        if mean - half > limit:
            broken.append(name)
    return broken


def main() -> None:
    """Measure and print."""
    parser = measuring.options(__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(f"{measuring.machine()}; commit {measuring.commit()}")
    if options.quick:
        _quick(as_json=options.json)
        return
    repeats: list[Repeat] = []
    with tempfile.TemporaryDirectory(prefix="tandem-lab-") as home:
        for number in range(options.repeats):
            print(f"repeat {number + 1} of {options.repeats}", flush=True)
            repeats.append(repeat((), Path(home), quick=False))
            _keep(repeats)
    measuring.finish(figures(repeats), as_json=options.json)


def _quick(*, as_json: bool) -> None:
    began = time.perf_counter()
    print("one repeat of a fifth of the work, live:")
    with tempfile.TemporaryDirectory(prefix="tandem-lab-") as home:
        live = figures([repeat(QUICK, Path(home), quick=True)])
    print(f"  took {time.perf_counter() - began:.0f} s")
    kept: dict[str, float | None] = {}
    if TABLE.exists():
        stored = json.loads(TABLE.read_text())
        print(f"kept table: {stored['machine']}, commit {stored['commit']}, {len(stored['repeats'])} repeats")
        kept = figures(stored["repeats"])
    live_names = ("lab_speedup_vs_backfill", "lab_speedup_vs_exclusive")
    shown = {**live, **{name: value for name, value in kept.items() if name not in live_names}}
    measuring.finish(shown, as_json=as_json, kept=[name for name in kept if name not in live_names])


def _keep(repeats: list[Repeat]) -> None:
    TABLE.parent.mkdir(exist_ok=True)
    stored = {"machine": measuring.machine(), "commit": measuring.commit(), "repeats": repeats}
    TABLE.write_text(json.dumps(stored, indent=0, default=str) + "\n")


def _jobs(one: Repeat, policy: str) -> list[dict[str, Any]]:
    return [job for day in one if day["policy"] == policy for job in day["jobs"]]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


if __name__ == "__main__":
    main()
