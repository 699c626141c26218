"""The report of a lab's days: pictures first (`tandem.report`), and the tables that the terminal shows too."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import TYPE_CHECKING

from tandem.report.bars import Bar
from tandem.report.bars import State as BarState
from tandem.report.blocks import Block, Fact, Facts, Figure, Text
from tandem.report.compare import METRICS, Metric, PolicyRow, compare_picture, compare_table
from tandem.report.gantt import gantts
from tandem.report.page import Page, Section, write
from tandem.report.quotes import Quote, quotes_picture
from tandem.report.slowdown import PairSlowdown, Prediction, prediction_picture, slowdown_map
from tandem.report.table import Cell, Column, Table, Tone
from tandem.share.lab.judge import doubts
from tandem.share.model import JobClass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tandem.share.lab.day import Course, Day
    from tandem.share.lab.judge import DayVerdict, Verdict

_NOTHING_KNOWN = "nothing known"
_HOW_TO_READ = (
    "▲ ended outside the quoted interval, or slowed beyond the bound. "
    "Slowdown: took over alone, of jobs that were never throttled or suspended."
)
_HOW: Mapping[str, BarState] = {"ran": "ran", "throttled": "throttled", "suspended": "suspended"}


def write_report(
    title: str, days: Sequence[Day], judged: Sequence[DayVerdict], names: Mapping[str, Mapping[int, str]], path: Path
) -> Path:
    """Write ``report.html`` and return where it is."""
    best = judged[-1]
    sections = [
        Section("What came of it", [_facts(judged), compare_picture(_rows(judged), _metrics(judged))], _doubts(judged)),
        Section("Who ran where", [_gantts(days, judged, names)], "Red outlines: the job was slowed beyond its bound."),
        Section(f"Promises under {best.policy}", [_quotes(best)]),
        Section("What neighbours cost", _neighbours(days, judged)),
        Section("The figures", [policy_table(judged), *(job_table(day) for day in judged)]),
    ]
    subtitle = f"{len(best.verdicts)} jobs, run for real under {', '.join(day.policy for day in judged)}"
    return write(Page(title, subtitle, sections), path)


def policy_table(judged: Sequence[DayVerdict]) -> Table:
    """The policies side by side."""
    return compare_table(_rows(judged), _metrics(judged), "Policies")


def job_table(day: DayVerdict) -> Table:
    """One row a job: alone, quoted, actual, slowdown, bound; without the columns of which nothing is known."""
    columns = [
        Column("job"),
        Column("class"),
        Column("alone", "s", "number", 1),
        Column("quoted finish", "s"),
        Column("finish", "s", "number", 1),
        Column("took", "s", "number", 1),
        Column("predicted slowdown"),
        Column("slowdown", "", "ratio", 2),
        Column("bound", "", "ratio", 2),
        Column("kept?"),
    ]
    rows = [_job_row(v) for v in day.verdicts]
    told = [i for i in range(len(columns)) if any(row[i].value not in ("", None) for row in rows)]
    kept = [[row[i] for i in told] for row in rows]
    return Table([columns[i] for i in told], kept, f"Jobs under {day.policy}", _HOW_TO_READ)


def _job_row(v: Verdict) -> list[Cell]:
    quoted = Cell("" if v.quote is None else _NOTHING_KNOWN, "muted")
    if v.quote is not None and v.founded:
        low, mid, high = v.quote
        quoted = Cell(f"{mid:.1f} ({low:.1f}-{high:.1f})", "bad" if v.in_time is False else "")
    kept = {None: Cell("", "muted"), True: Cell("yes", "good"), False: Cell("no", "bad")}[v.kept]
    if not v.well:
        kept = Cell(f"failed: {v.why}" if v.why else "failed", "bad")
    return [
        Cell(v.name),
        Cell(v.klass.value, "" if v.klass is JobClass.PRIMARY else "muted"),
        Cell(v.alone_s),
        quoted,
        Cell(v.ended),
        Cell(v.run_s),
        Cell("" if v.predicted is None else "{1:.2f} ({0:.2f}-{2:.2f})".format(*v.predicted)),
        Cell(v.slowdown),
        Cell(v.bound),
        kept,
    ]


def _facts(judged: Sequence[DayVerdict]) -> Facts:
    last = judged[-1]
    facts = [
        Fact(f"bounds broken by {day.policy}", day.broken, "number", 0, f"of {day.bounded}", _tone(day.broken))
        for day in judged
        if day.policy != "exclusive"
    ]
    exclusive = next((day for day in judged if day.policy == "exclusive"), None)
    if exclusive is not None and last is not exclusive and last.makespan_s:
        gain = exclusive.makespan_s / last.makespan_s
        note = f"makespan of exclusive over that of {last.policy}"
        facts.insert(0, Fact(f"{last.policy} against exclusive", gain, "ratio", 2, note))
    quoted = [v for v in last.verdicts if v.quote is not None]
    if quoted:
        others = sum(not v.founded for v in quoted)
        note = "90 % was promised" + (
            f"; {others} of {len(quoted)} rested on nothing, and are not in it" * bool(others)
        )
        facts.append(Fact("quotes that held", last.quote_coverage, "percent", 0, note))
    return Facts(facts)


def _doubts(judged: Sequence[DayVerdict]) -> str:
    return " ".join(f"{text[:1].upper()}{text[1:]}." for text in doubts(judged))


def _tone(broken: int) -> Tone:
    return "bad" if broken else "good"


def _rows(judged: Sequence[DayVerdict]) -> list[PolicyRow]:
    return [PolicyRow(day.policy, day.metrics()) for day in judged]


def _metrics(judged: Sequence[DayVerdict]) -> list[Metric]:
    there = {key for day in judged for key in day.metrics()}
    return [metric for metric in METRICS if metric.key in there]


def _gantts(days: Sequence[Day], judged: Sequence[DayVerdict], names: Mapping[str, Mapping[int, str]]) -> Figure:
    bars: dict[str, list[Bar]] = {}
    for day, verdict in zip(days, judged, strict=True):
        by_name = {v.name: v for v in verdict.verdicts}
        bars[day.policy] = [
            bar
            for job, course in day.courses.items()
            for bar in _bars(course, by_name[names[day.policy][job]], day.began)
        ]
    return gantts(bars, title="Cores over time")


def _bars(course: Course, v: Verdict, began: float) -> list[Bar]:
    hover = "\n".join(
        [v.name, f"{v.klass.value}, {v.app}"]
        + ([f"slowdown {v.slowdown:.2f}" + (f", bound {v.bound:.2f}" if v.bound else "")] if v.slowdown else [])
        + course.reasons[-3:]
    )
    return [
        Bar(
            lane=lane,
            start_s=stretch.start - began,
            end_s=max(stretch.start, stretch.end) - began,
            label=v.name,
            kind="gpu" if lane.startswith("GPU") else v.klass.value,
            state=_HOW[stretch.how],
            hover=hover,
            app=v.app,
            broken=v.kept is False,
            short=f"#{course.job.id}",
        )
        for stretch in course.stretches
        if stretch.how in _HOW
        for lane in [*(f"core {core}" for core in stretch.cores), *(f"GPU {gpu}" for gpu in stretch.gpus)]
    ]


def _quotes(day: DayVerdict) -> Block:
    if not any(v.founded for v in day.verdicts):
        return Text("Nothing was known of how long these jobs take: their quotes rest on nothing.")
    return quotes_picture(
        [
            Quote(v.name, *v.quote, v.ended, "" if v.in_time else v.why)
            for v in day.verdicts
            if v.quote is not None and v.founded and v.ended is not None
        ]
    )


def _neighbours(days: Sequence[Day], judged: Sequence[DayVerdict]) -> list[Block]:
    alone: dict[str, list[float]] = defaultdict(list)
    beside: dict[tuple[str, str], list[float]] = defaultdict(list)
    for day in days:
        for app, others, rate, _ in day.measured:
            if not others:
                alone[app].append(rate)
            elif len(others) == 1:
                beside[app, others[0]].append(rate)
    solo = {app: statistics.median(rates) for app, rates in alone.items()}
    pairs = [
        PairSlowdown(app, other, max(0.5, solo[app] / statistics.median(rates)), len(rates))
        for (app, other), rates in sorted(beside.items())
        if app in solo and other in solo
    ]
    if not pairs:
        return [Text("No two applications were measured side by side.")]
    caption = "Of jobs that were never throttled or suspended."
    return [slowdown_map(pairs), prediction_picture(_predictions(judged[-1]), caption=caption)]


def _predictions(day: DayVerdict) -> list[Prediction]:
    """Slowdowns as quoted at the start, and as they were: by neighbours, not by what was done to a job."""
    return [
        Prediction(v.name, v.predicted[1], v.slowdown)
        for v in day.verdicts
        if v.predicted is not None and v.slowdown is not None
    ]
