"""Repeats of the lab day (examples/lab.toml), for real: what sharing gains, which bounds break, which quotes hold.

Run: `python benchmarks/share_lab.py [--quick] [--json] [--repeats N] [--estimators A,B] [--resume]`. Each repeat
runs every policy on the same jobs, one day after the other, so that policies are interleaved; `hybrid` runs once with
each estimator. All repeats are days of one lab, on one store: durations, rates and how quotes erred are known from the
days before, as they would be in use. Profiles are those of benchmarks/results/estimate_profiles*.json of this machine,
if any; otherwise `bubble` knows nothing and `learned` what it saw. Before the first repeat every application has run
once. The full run takes about seven minutes a repeat, four with one estimator, and keeps its table in
benchmarks/results/share_lab.json; with ``--resume`` it goes on where it stopped, as long as the commit is the same.
``--quick`` runs one repeat of a fifth of the work live and takes the figures that need repeats from that table, named
in `_kept`.

A bound is broken *significantly* where a primary job's slowdown against its own run alone in the same repeat exceeds
it in the mean over repeats by more than that mean's 95 % interval, and also by more than the noise measured between
single runs alone.

Figures: `lab_speedup_vs_backfill`, `lab_speedup_vs_exclusive` (makespans over hybrid's, medians of paired repeats),
`lab_breaches_hybrid`, `lab_breaches_backfill`, `lab_breaches_share` (jobs), `lab_quote_coverage`, `lab_quote_width`
(hybrid's quotes at submission: fraction inside, median width over predicted time to finish), `noise_floor` (percent,
runs alone against runs alone). `hybrid` is the one with its default estimator, `learned`; figures with `_none`,
`_proportional` and `_bubble` at their end are of the others.
"""

from __future__ import annotations

import itertools
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import measuring
from tandem.core import machine
from tandem.estimate.profiling import store
from tandem.share.lab import judge as lab_judge
from tandem.share.lab import pace as labs
from tandem.share.lab import plan as labs_plan
from tandem.share.lab import run as lab_run
from tandem.share.scheduler.cluster import Setup

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tandem.share.lab.day import Day

TABLE = measuring.RESULTS / "share_lab.json"
ESTIMATORS = ("none", "proportional", "bubble", "learned")
PROFILES = measuring.RESULTS / "estimate_profiles.json"
HOME = measuring.ROOT / "build" / "share_lab"
QUICK = ("policies=['exclusive', 'backfill']", "scale=0.2")
WARM = ("policies=['share']", "scale=0.02")
SLOW_TO_START = {"chat", "digits"}
T95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
"""Two-sided 95 % quantiles of Student's t by number of values; of more than ten they are a little smaller still."""

Repeat = list[dict[str, Any]]


def repeat(overrides: tuple[str, ...], home: Path, estimators: Sequence[str], *, quick: bool) -> Repeat:
    """One repeat: every policy's day, `hybrid` with each of ``estimators``, judged against the same runs alone."""
    lab = labs.paced(labs_plan.load(measuring.ROOT / "examples" / "lab.toml", overrides))
    lab = labs_plan.without(lab, SLOW_TO_START) if quick else lab
    plain = replace(lab, policies=tuple(policy for policy in lab.policies if policy != "hybrid"))
    days: list[Day] = []
    names: dict[str, Mapping[int, str]] = {}
    with tempfile.TemporaryDirectory(prefix="tandem-lab-") as folder:
        ran = lab_run.run(plain, Path(folder, "plain"), home=home)
        days, names = list(ran.days), dict(ran.names)
        for estimator in estimators:
            one = lab_run.run(
                replace(lab, policies=("hybrid",), estimator=estimator), Path(folder, estimator), home=home
            )
            (day,) = one.days
            day.policy = label(estimator)
            days.append(day)
            names[day.policy] = one.names["hybrid"]
    judged = lab_judge.as_json(lab_judge.judge(days, names, ran.cores))
    for day in judged:
        print(
            f"  {day['policy']:20s} makespan {day['makespan_s']:6.1f} s   broken {day['broken_bounds']:.0f} of"
            f" {day['bounded']}   quotes kept {_percent(day['quote_coverage'])}, width {_percent(day['quote_width'])}",
            flush=True,
        )
    return judged


def label(estimator: str) -> str:
    """How `hybrid` with an estimator is called in the table."""
    return "hybrid" if estimator == Setup().estimator else f"hybrid_{estimator}"


def figures(repeats: list[Repeat]) -> dict[str, float | None]:
    """The figures over repeats."""
    spans = [{day["policy"]: day["makespan_s"] for day in one} for one in repeats]
    ran = list(dict.fromkeys(policy for one in spans for policy in one))
    found: dict[str, float | None] = {}
    hybrids = [policy for policy in ran if policy.startswith("hybrid")]
    for hybrid in hybrids:
        both = [one for one in spans if hybrid in one]
        for policy in ("backfill", "exclusive"):
            gain = measuring.ratio([one[policy] for one in both], [one[hybrid] for one in both])
            print(f"makespan of {policy} over that of {hybrid}: {gain}")
            found[f"lab_speedup_vs_{policy}{hybrid.removeprefix('hybrid')}"] = gain.mid
    floor = noise_floor(repeats)
    for policy in (*hybrids, "backfill", "share"):
        if policy in ran:
            found[f"lab_breaches_{policy}"] = float(len(breaches(repeats, policy, floor)))
    for hybrid in hybrids:
        promised = [job for one in repeats for job in _jobs(one, hybrid) if job["in_time"] is not None]
        end = hybrid.removeprefix("hybrid")
        found[f"lab_quote_coverage{end}"] = statistics.fmean(job["in_time"] for job in promised) if promised else None
        widths = [
            (job["quote"][2] - job["quote"][0]) / max(job["quote"][1] - job["submitted"], 1e-9)
            for job in promised
            if job["quote"]
        ]
        found[f"lab_quote_width{end}"] = statistics.median(widths) if widths else None
    for policy in (*hybrids, "backfill", "share"):
        runs = [job for one in repeats for job in _jobs(one, policy) if job["bound"] and job["slowdown"]]
        beyond = sum(job["slowdown"] > job["bound"] * (1 + floor) for job in runs)
        print(f"single primary runs beyond bound and noise under {policy}: {beyond} of {len(runs)}")
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
    """Primary jobs whose bound was broken significantly: two conditions, as the head of this file says.

    The scatter over repeats holds the noise of runs already, so that the noise is not added to their interval.
    """
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
        half = T95[min(len(seen), 10)] * statistics.stdev(seen) / len(seen) ** 0.5 if len(seen) > 1 else 0.0
        is_beyond = mean - half > bounds[name]
        is_broken = is_beyond and mean > bounds[name] * (1 + floor)
        said = ": broken" if is_broken else ": beyond its interval" if is_beyond else ""
        print(f"  {policy:9s} {name:20s} slowed {mean:.3f} +- {half:.3f}, bound {bounds[name]:.2f}{said}")
        if is_broken:
            broken.append(name)
    return broken


def main() -> None:
    """Measure and print."""
    parser = measuring.options(__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--estimators", default=",".join(ESTIMATORS), help="that hybrid runs with [%(default)s]")
    parser.add_argument("--resume", action="store_true", help="go on with the kept table")
    options = parser.parse_args()
    print(f"{measuring.machine()}; commit {measuring.commit()}")
    if options.quick:
        _quick(as_json=options.json)
        return
    repeats = _kept_repeats() if options.resume else []
    if not repeats:
        shutil.rmtree(HOME, ignore_errors=True)
        print(f"profiles of {prepare(HOME)} applications; every application runs once", flush=True)
        repeat(WARM, HOME, (), quick=False)
    while len(repeats) < options.repeats:
        print(f"repeat {len(repeats) + 1} of {options.repeats}", flush=True)
        repeats.append(repeat((), HOME, options.estimators.split(","), quick=False))
        _keep(repeats)
    measuring.finish(figures(repeats), as_json=options.json)


def prepare(home: Path) -> int:
    """Put the profiles that were made on this machine into the lab's data folder; returns how many."""
    table = measuring.own_table(PROFILES, machine.discover().fingerprint)
    if not table.exists():
        return 0
    mine = [store.from_json(one) for one in json.loads(table.read_text())["profiles"]]
    for profile in mine:
        store.save(home, profile)
    return len(mine)


def _quick(*, as_json: bool) -> None:
    began = time.perf_counter()
    print("one repeat of a fifth of the work, live:")
    with tempfile.TemporaryDirectory(prefix="tandem-lab-") as home:
        prepare(Path(home))
        live = figures([repeat(QUICK, Path(home), (Setup().estimator,), quick=True)])
    print(f"  took {time.perf_counter() - began:.0f} s")
    kept: dict[str, float | None] = {}
    if TABLE.exists():
        stored = json.loads(TABLE.read_text())
        print(f"kept table: {stored['machine']}, commit {stored['commit']}, {len(stored['repeats'])} repeats")
        kept = figures(stored["repeats"])
    live_names = ("lab_speedup_vs_backfill", "lab_speedup_vs_exclusive")
    shown = {**live, **{name: value for name, value in kept.items() if name not in live_names}}
    measuring.finish(shown, as_json=as_json, kept=[name for name in kept if name not in live_names])


def _kept_repeats() -> list[Repeat]:
    if not TABLE.exists() or not HOME.exists():
        return []
    stored = json.loads(TABLE.read_text())
    if stored["commit"].rstrip("+") != measuring.commit().rstrip("+"):
        print(f"the kept table is of commit {stored['commit']}: starting over")
        return []
    found: list[Repeat] = stored["repeats"]
    return found


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
