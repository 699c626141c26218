"""`tandem promises`: the public ledger of quoted finish times: how often they were right, who was late and why."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from tandem.cli import reports, words
from tandem.cli.moments import clock_time, option_s
from tandem.cli.queue import NAME
from tandem.cli.selection import label
from tandem.cli.terminal import cut, json_option, print_json, say, show_table
from tandem.core.units import human_duration, ranges

if TYPE_CHECKING:
    from pathlib import Path

    from tandem.report.blocks import Fact
    from tandem.report.formats import Value
    from tandem.report.page import Page
    from tandem.report.table import Table

Row = Mapping[str, Any]

_MOST = 100_000
_LATE_SHOWN = 10
_SHORTEST_S = 10.0
"""Predictions shorter than this count as this long in relative widths."""

_ON_NOTHING = "On nothing: no history, no expected duration, no limit; they come on top of QUOTES, in no other figure."

_ROUNDING_S = 1e-6
_BESIDE_MOST = 3
_STOOD_FROM_S = 0.5
_A_CAUSE = 0.1
"""What makes up less than this part of the lateness (or of the run) is not told as its cause."""


@dataclass(frozen=True, slots=True)
class Line:
    """The quotes of one kind.

    Attributes:
        quotes: How many rest on something; the next four are of these, None where there are none.
        kept, late, early: Which parts of them were.
        width: Their median relative width.
        unfounded: How many more rest on nothing: no history, no expected duration, no limit.
        unfounded_kept: Which part of those was kept; None where there are none.
    """

    moment: str
    policy: str
    klass: str
    quotes: int
    kept: float | None
    late: float | None
    early: float | None
    width: float | None
    unfounded: int
    unfounded_kept: float | None


@dataclass(frozen=True, slots=True)
class Company:
    """How an attempt ran: beside which applications (the longest first), and for how long throttled."""

    beside: tuple[str, ...]
    throttled_s: float


Companies = Mapping[tuple[int, int], Company]


@click.command()
@click.option("--mine", is_flag=True, help="Only of your own jobs.")
@click.option("--since", metavar="TIME", help="Only of jobs that ended in the last TIME, such as 7d.")
@click.option("--report", is_flag=False, flag_value=".", metavar="[DIR]", help="Write report.html (there, or here).")
@json_option
def promises(mine: bool, since: str | None, report: str | None, as_json: bool) -> None:
    """How often the quoted finish times were right.

    A quote is kept if the job ended within its interval; 90 % should be. Jobs that did not end well
    do not count. Quotes that rest on nothing (no history, no expected duration, no limit) are counted apart.
    """
    from tandem.share.daemon.client import Client

    where, trouble = reports.target(report), None
    now = time.time()
    after = 0.0 if since is None else now - option_s("--since", since)
    with Client.connect() as client:
        rows = [row for row in client.promises(limit=_MOST, since=after, mine=mine) if row["state"] == "done"]
        beside = companies(client.coruns(limit=_MOST)) if late(rows) else {}
    if where is not None:
        trouble = reports.write(page(rows, beside), where)
    written = None if trouble else where
    if as_json:
        told = [{name: getattr(line, name) for name in Line.__slots__} for line in lines(rows)]
        explained = [dict(row) | {"why": why(row, beside)} for row in late(rows)]
        print_json({"lines": told, "late": explained, "report": written})
    else:
        _show(rows, beside, now, written)
    if trouble:
        raise trouble


def _show(rows: Sequence[Row], beside: Companies, now: float, report: Path | None) -> None:
    if rows:
        show_table(table(rows))
        found = late(rows)
        if found:
            say()
            more = f"; the latest {_LATE_SHOWN} (--json tells all)" if len(found) > _LATE_SHOWN else ""
            say(f"late: {len(found)} of {words.count(len(_seen(founded(rows))), 'quote')}{_whose(rows)}{more}")
            show_table(late_table(found[:_LATE_SHOWN], now, beside))
    else:
        say("no quoted job has ended well yet")
    if report is not None:
        say(f"report: {report}")


def lines(rows: Sequence[Row]) -> list[Line]:
    """The figures by moment, policy and class; all classes together first where there are several."""

    def kind(row: Row) -> tuple[str, str]:
        return row["moment"], row.get("policy") or ""

    found = []
    for (moment, policy), group in groupby(sorted(rows, key=kind, reverse=True), key=kind):
        alike = list(group)
        classes = sorted({row["class"] for row in alike}, reverse=True)
        for klass in ["all", *classes] if len(classes) > 1 else classes:
            ours = [row for row in alike if klass in ("all", row["class"])]
            found.append(_line(moment, policy, klass, ours))
    return found


def verdict(row: Row) -> str:
    """`kept`, `late` or `early`."""
    low, _, high = words.interval(row, "finish")
    if row["ended_at"] > high + _ROUNDING_S:
        return "late"
    return "early" if row["ended_at"] < low - _ROUNDING_S else "kept"


def founded(rows: Sequence[Row]) -> list[Row]:
    """Those that rest on something; the others say nothing of how good quotes are."""
    return [row for row in rows if row["founded"]]


def late(rows: Sequence[Row]) -> list[Row]:
    """Those of jobs one may see that rest on something and ended after their interval, in the order of `rows`."""
    return [row for row in _seen(founded(rows)) if verdict(row) == "late"]


def _seen(rows: Sequence[Row]) -> list[Row]:
    """Those of jobs that the caller may see: of others' it is told how they ended, but not which they are."""
    return [row for row in rows if row["job"] is not None]


def why(row: Row, beside: Companies | None = None) -> str:
    """Why a job was late: it started late, was tried again, ran long (beside whom); or its interval was too narrow.

    Args:
        beside: how each attempt ran (see `companies`).
    """
    return "; ".join(_causes(row, beside or {})) or _too_narrow(row)


def companies(coruns: Sequence[Row]) -> dict[tuple[int, int], Company]:
    """How each attempt, (job, attempt), ran, from the stretches that are stored of it."""
    found: dict[tuple[int, int], tuple[Counter[str], float]] = {}
    for stretch in coruns:
        which = stretch["job"], stretch["attempt"]
        together, throttled_s = found.get(which, (Counter(), 0.0))
        lasted_s = stretch["ended_at"] - stretch["began_at"]
        for _, app in stretch["beside"]:
            together[app or "another job"] += lasted_s
        found[which] = together, throttled_s + lasted_s * bool(stretch["throttled"])
    return {
        which: Company(tuple(cut(app, NAME) for app, _ in together.most_common(_BESIDE_MOST)), throttled_s)
        for which, (together, throttled_s) in found.items()
    }


def table(rows: Sequence[Row]) -> Table:
    """The figures for people."""
    from tandem.report.table import Cell, Column, Table

    found = lines(rows)
    policies = any(line.policy for line in found)
    unfounded = any(line.unfounded for line in found)
    columns = [
        Column("quoted at"),
        *([Column("policy")] if policies else []),
        Column("class"),
        Column("quotes", form="number"),
        *(Column(name, form="percent", minor=name != "kept") for name in ("kept", "late", "early", "median width")),
        *([Column("on nothing", form="number", minor=True)] if unfounded else []),
        *([Column("of these kept", form="percent", minor=True)] if unfounded else []),
    ]
    cells: list[tuple[Cell | Value, ...]] = [
        (
            line.moment,
            *([line.policy] if policies else []),
            line.klass,
            line.quotes,
            Cell(line.kept, "bad" if line.kept is not None and line.kept < 0.85 and line.quotes >= 20 else ""),
            line.late,
            line.early,
            line.width,
            *([line.unfounded, line.unfounded_kept] if unfounded else []),
        )
        for line in found
    ]
    note = "90 % should be kept. Width: of the interval, over the time from quote to finish."
    return Table(columns, cells, note=f"{note} {_ON_NOTHING}" if unfounded else note)


def late_table(rows: Sequence[Row], now: float, beside: Companies | None = None) -> Table:
    """Who was late, by how much, and why."""
    from tandem.report.table import Column, Table

    columns = [
        Column("job"),
        Column("quoted at", minor=True),
        Column("until", minor=True),
        Column("late by", form="duration"),
        Column("why"),
    ]
    cells = []
    for row in rows:
        high = words.interval(row, "finish")[2]
        name = _who(row)
        cells.append((name, row["moment"], clock_time(high, now), row["ended_at"] - high, why(row, beside)))
    return Table(columns, cells)


def page(rows: Sequence[Row], beside: Companies | None = None) -> Page:
    """The report: quoted against actual, the figures, who was late."""
    from tandem.report.blocks import Facts
    from tandem.report.page import Page, Section
    from tandem.report.quotes import Quote, coverage_fact, quotes_picture

    began = min((row["submitted_at"] for row in rows), default=0.0)
    sections = []
    for moment in sorted({row["moment"] for row in rows}, reverse=True):
        quotes = [
            Quote(
                _who(row),
                low - began,
                mid - began,
                high - began,
                row["ended_at"] - began,
                why(row, beside) if verdict(row) == "late" else "",
            )
            for row in _seen(founded(rows))
            for low, mid, high in [words.interval(row, "finish")]
            if row["moment"] == moment and math.isfinite(high)
        ]
        when = "At submission" if moment == "submit" else "At the start"
        facts = [coverage_fact(quotes), *_unfounded_fact([row for row in rows if row["moment"] == moment])]
        sections.append(Section(when, [Facts(facts), quotes_picture(quotes)]))
    sections.append(Section("In figures", [table(rows)]))
    found = late(rows)
    if found:
        sections.append(Section("Who was late, and why", [late_table(found, time.time(), beside)]))
    subtitle = f"{len(rows)} quotes of jobs that ended well"
    others = len(rows) - len(_seen(rows))
    if others:
        subtitle += f"; {others} of them are of other users' jobs, which are in the figures only"
    return Page("Promises", subtitle, sections)


def _who(row: Row) -> str:
    return f"{label({'id': row['job'], 'array': row.get('array')})} {row['name'] or row['app']}"


def _whose(rows: Sequence[Row]) -> str:
    return "" if len(_seen(rows)) == len(rows) else " of your own jobs"


def _unfounded_fact(rows: Sequence[Row]) -> Iterator[Fact]:
    from tandem.report.blocks import Fact
    from tandem.report.formats import show

    others = [row for row in rows if not row["founded"]]
    if others:
        note = f"no history, no expected duration, no limit; {show(_part(others, 'kept'), 'percent')} of them were kept"
        yield Fact("quotes that rest on nothing", len(others), "number", note=note)


def _line(moment: str, policy: str, klass: str, rows: Sequence[Row]) -> Line:
    ours = founded(rows)
    kept, late_, early = (_part(ours, name) for name in ("kept", "late", "early"))
    width = median(map(_width, ours)) if ours else None
    others = [row for row in rows if not row["founded"]]
    return Line(moment, policy, klass, len(ours), kept, late_, early, width, len(others), _part(others, "kept"))


def _part(rows: Sequence[Row], name: str) -> float | None:
    return sum(verdict(row) == name for row in rows) / len(rows) if rows else None


def _width(row: Row) -> float:
    low, mid, high = words.interval(row, "finish")
    return (high - low) / max(mid - float(row["at"]), _SHORTEST_S)


def _too_narrow(row: Row) -> str:
    low, _, high = words.interval(row, "finish")
    return (
        f"its interval was too narrow: {words.lasted(high - low)}, and late by {words.lasted(row['ended_at'] - high)}"
    )


def _causes(row: Row, beside: Companies) -> Iterator[str]:
    start, finish = words.interval(row, "start"), words.interval(row, "finish")
    if row["started_at"] is None:
        return
    over, expected_s = row.get("attempts") or [], finish[1] - start[1]
    began_at = row["began_at"] if over and row.get("began_at") is not None else row["started_at"]
    waited_s, late_s = began_at - start[2], row["ended_at"] - finish[2]
    if row["moment"] == "submit" and waited_s > max(_ROUNDING_S, _A_CAUSE * late_s):
        yield f"it started {words.lasted(waited_s)} after its quoted start"
    for one in over:
        if one["started_at"] is not None:
            took_s = one["ended_at"] - one["started_at"]
            yield from _overrun(
                f"attempt {one['attempt']}", took_s, expected_s, beside.get((row["job"], one["attempt"]))
            )
    if over:
        last = over[-1]
        ended = f"{'attempts' if len(over) > 1 else 'attempt'} {ranges([one['attempt'] for one in over])} ended"
        yield f"{ended} ({last['reason']}), started again {words.lasted(row['started_at'] - last['ended_at'])} later"
    took_s = row["ended_at"] - row["started_at"]
    stood_s = took_s - row["ran_s"]  # of earlier attempts that is not kept
    yield from _overrun("it", took_s, expected_s, beside.get((row["job"], row["attempt"])), stood_s)


def _overrun(
    who: str, took_s: float, expected_s: float, company: Company | None, stood_s: float = 0.0
) -> Iterator[str]:
    """That an attempt took longer than expected, where it did."""
    if took_s > 1.05 * expected_s:
        how = "".join(_how(company, took_s, stood_s))
        yield f"{who} took {human_duration(took_s)}, {human_duration(expected_s)} were expected{how}"


def _how(company: Company | None, took_s: float, stood_s: float) -> Iterator[str]:
    """What of the time from start to end it stood still or was throttled, and beside whom it ran."""
    if stood_s > max(_STOOD_FROM_S, _A_CAUSE * took_s):
        yield f", it stood still for {human_duration(stood_s)}"
    if company is None:
        return
    if company.throttled_s > _A_CAUSE * took_s:
        yield f", it was throttled for {human_duration(company.throttled_s)}"
    if company.beside:
        yield f", it ran beside {', '.join(company.beside)}"
