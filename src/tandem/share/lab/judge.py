"""What a lab's days came to: each job's slowdown against running alone, bounds and quotes kept, policies compared."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tandem.share.model import JobClass, Quote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tandem.share.lab.day import Course, Day

NOISE_FLOOR = 0.04
"""Least relative noise of a run time alone: what repeated runs of one programme differ by on a quiet machine."""


QUICKER = 0.85
"""A job cannot gain from neighbours: a slowdown below this says that something disturbed the run alone."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One job under one policy. Instants are seconds since the day began.

    Attributes:
        alone_s: its run time under ``exclusive``, on the same cores with nobody else there; None where unknown.
        slowdown: run time over ``alone_s``, for jobs that were never throttled or suspended.
        kept: whether its bound held, outside the noise; None for a job without bound (or unknown slowdown).
        quote: the quote at submission (``low``, ``mid``, ``high`` of the finish), or None.
        founded: whether that quote rests on anything: something was known of how long the job runs.
        in_time: whether it finished inside that interval.
        predicted: slowdown that the quote at its start came to (``low``, ``mid``, ``high``), or None, also where
            that quote rests on nothing.
        why: of a job that did not end well, the reason of that; else the last decision about it, and its reason.
    """

    name: str
    app: str
    klass: JobClass
    bound: float | None
    alone_s: float | None
    run_s: float | None
    submitted: float
    started: float | None
    ended: float | None
    well: bool
    slowdown: float | None
    kept: bool | None
    quote: tuple[float, float, float] | None
    founded: bool
    in_time: bool | None
    predicted: tuple[float, float, float] | None
    why: str


@dataclass(frozen=True, slots=True)
class DayVerdict:
    """One policy's day: its jobs in order of submission, and the figures of the whole."""

    policy: str
    verdicts: tuple[Verdict, ...]
    makespan_s: float
    mean_completion_s: float
    cpu_utilisation: float
    broken: int
    bounded: int
    quote_coverage: float | None
    """Of the quotes that rest on anything; so is the width."""
    quote_width: float | None
    """Median width of the quoted finish intervals over the predicted time from submission to finish."""

    def metrics(self) -> dict[str, float]:
        """The figures under the names that `tandem.report.compare` knows."""
        found = {
            "makespan_s": self.makespan_s,
            "mean_completion_s": self.mean_completion_s,
            "cpu_utilisation": self.cpu_utilisation,
            "broken_bounds": float(self.broken),
        }
        if self.quote_coverage is not None:
            found["quote_coverage"] = self.quote_coverage
        return found


def judge(days: Sequence[Day], names: Mapping[str, Mapping[int, str]], cores: int) -> list[DayVerdict]:
    """Judge every day against the run times of the ``exclusive`` one (if it is among them).

    Args:
        names: policy -> job id -> name.
        cores: of the machine, for utilisation.
    """
    exclusive = next((day for day in days if day.policy == "exclusive"), None)
    alone = run_times(exclusive, names["exclusive"]) if exclusive is not None else {}
    noise = noise_alone(exclusive) if exclusive is not None else NOISE_FLOOR
    return [_judge_day(day, names[day.policy], alone, noise, cores) for day in days]


def run_times(day: Day, names: Mapping[int, str]) -> dict[str, float]:
    """Run time by job name."""
    return {names[job]: course.run_s for job, course in day.courses.items() if course.run_s and course.well}


def noise_alone(day: Day) -> float:
    """Relative half-width of rates alone over one run: the median over applications, at least the floor."""
    rates: dict[str, list[float]] = defaultdict(list)
    for app, beside, rate, _ in day.measured:
        if not beside:
            rates[app].append(rate)
    spreads = [(max(r) - min(r)) / (2 * statistics.median(r)) for r in rates.values() if len(r) >= 3]
    return max(NOISE_FLOOR, statistics.median(spreads)) if spreads else NOISE_FLOOR


def _judge_day(day: Day, names: Mapping[int, str], alone: Mapping[str, float], noise: float, cores: int) -> DayVerdict:
    verdicts = [
        _judge_job(course, names[job], alone.get(names[job]), noise, day.began) for job, course in day.courses.items()
    ]
    promised = [v for v in verdicts if v.founded and v.ended is not None and v.in_time is not None]
    widths = [(v.quote[2] - v.quote[0]) / max(v.quote[1] - v.submitted, 1e-9) for v in promised if v.quote]
    busy = sum(
        (stretch.end - stretch.start) * len(stretch.cores)
        for course in day.courses.values()
        for stretch in course.stretches
        if stretch.how != "suspended"
    )
    completions = [v.ended - v.submitted for v in verdicts if v.ended is not None]
    return DayVerdict(
        policy=day.policy,
        verdicts=tuple(verdicts),
        makespan_s=day.makespan_s,
        mean_completion_s=statistics.fmean(completions) if completions else math.nan,
        cpu_utilisation=busy / (cores * day.makespan_s) if day.makespan_s else math.nan,
        broken=sum(v.kept is False for v in verdicts),
        bounded=sum(v.kept is not None for v in verdicts),
        quote_coverage=statistics.fmean(float(bool(v.in_time)) for v in promised) if promised else None,
        quote_width=statistics.median(widths) if widths else None,
    )


def _judge_job(course: Course, name: str, alone_s: float | None, noise: float, began: float) -> Verdict:
    job, run_s = course.job, course.run_s
    whole = all(stretch.how == "ran" for stretch in course.stretches)
    slowdown = run_s / alone_s if run_s and alone_s and whole and course.well else None
    bound = job.max_slowdown if job.klass is JobClass.PRIMARY else None
    kept = None if bound is None or slowdown is None else slowdown <= bound * (1 + noise)
    quote = course.quotes.get("submit")
    return Verdict(
        name=name,
        app=job.app,
        klass=job.klass,
        bound=bound,
        alone_s=alone_s,
        run_s=run_s,
        submitted=course.submitted - began,
        started=None if course.started is None else course.started - began,
        ended=None if course.ended is None else course.ended - began,
        well=course.well,
        slowdown=slowdown,
        kept=kept,
        quote=_relative(quote, began),
        founded=quote is not None and quote.founded,
        in_time=_in_time(quote, course),
        predicted=_predicted(course.quotes.get("start"), alone_s),
        why=course.reasons[-1] if course.well and course.reasons else course.why,
    )


def _relative(quote: Quote | None, began: float) -> tuple[float, float, float] | None:
    if quote is None:
        return None
    return (quote.finish.low - began, quote.finish.mid - began, quote.finish.high - began)


def _predicted(quote: Quote | None, alone_s: float | None) -> tuple[float, float, float] | None:
    if quote is None or not quote.founded or not alone_s:
        return None
    low, mid, high = ((at - quote.at) / alone_s for at in (quote.finish.low, quote.finish.mid, quote.finish.high))
    return (low, mid, high)


def _in_time(quote: Quote | None, course: Course) -> bool | None:
    if quote is None or course.ended is None or not course.well:
        return None
    return quote.finish.low <= course.ended <= quote.finish.high


def sentences(day: DayVerdict) -> list[str]:
    """What is worth saying of a day, in words."""
    said = []
    for v in day.verdicts:
        if not v.well:
            said.append(f"{day.policy}: {v.name} did not end well: {v.why}")
        elif v.kept is False and v.slowdown is not None and v.bound is not None:
            said.append(f"{day.policy}: {v.name} was slowed {v.slowdown:.2f} times, beyond its bound of {v.bound:g}")
    return said


def doubts(judged: Sequence[DayVerdict]) -> list[str]:
    """That the runs alone were disturbed, so that slowdowns came out too small; empty where nothing speaks for it."""
    quicker: dict[str, float] = {}
    for day in judged:
        for v in day.verdicts:
            if day.policy != "exclusive" and v.slowdown is not None and v.slowdown < QUICKER:
                quicker[v.name] = min(v.slowdown, quicker.get(v.name, math.inf))
    if not quicker:
        return []
    who = ", ".join(f"{name} ({slowdown:.2f})" for name, slowdown in sorted(quicker.items(), key=lambda one: one[1]))
    return [
        f"the runs alone were disturbed, or the machine was slower then: later, beside others, these took less time: "
        f"{who}; slowdowns are that much too small, run the day again on a machine that is quiet"
    ]


def as_json(verdicts: Sequence[DayVerdict]) -> list[dict[str, Any]]:
    """What ``results.json`` and ``--json`` hold."""
    return [
        {
            "policy": day.policy,
            **day.metrics(),
            "bounded": day.bounded,
            "quote_coverage": day.quote_coverage,
            "quote_width": day.quote_width,
            "jobs": [_plain(v) for v in day.verdicts],
        }
        for day in verdicts
    ]


def _plain(v: Verdict) -> dict[str, Any]:
    return {name: getattr(v, name) for name in Verdict.__slots__} | {"klass": v.klass.value}
