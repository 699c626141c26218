"""Several policies on one workload: the figures side by side, as rows, as a table and as the data of a report page.

    days = play(workload, ["exclusive", "share"])
    print(table(days))

Every policy sees the same arrivals, the same truth and the same seed, each on machines that have no history.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tandem.report.blocks import Block, Fact, Facts, Figure, Text
from tandem.report.compare import METRICS, PolicyRow, compare_picture, compare_table
from tandem.report.page import Page, Section
from tandem.report.table import Column, Table
from tandem.report.utilisation import Panel, Steps, utilisation
from tandem.share.deciding import policy as policies
from tandem.share.scheduler.cluster import Setup
from tandem.share.simulate.metrics import Metrics, Outcome, Spread, measure
from tandem.share.simulate.simulator import Day, Simulator
from tandem.share.simulate.truth import Truth

if TYPE_CHECKING:
    from tandem.share.workloads.workload import Workload

QUOTED = "submit"
"""The moment whose quotes stand in the table: the first promise a user gets."""


@dataclass(frozen=True, slots=True)
class PolicyDay:
    """One policy's day and its figures."""

    policy: str
    day: Day
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Terms:
    """What is the same for every policy.

    Attributes:
        options: numbers that policies read, and ``quotes`` (see `Setup.options`).
        noise: standard deviation of the logarithm of measured rates.
    """

    estimator: str = "proportional"
    options: Mapping[str, float] | None = None
    truth: Truth | None = None
    noise: float = 0.0
    seed: int = 0


def play(
    workload: Workload,
    names: Sequence[str],
    terms: Terms | None = None,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[PolicyDay]:
    """Play the workload under each policy.

    Args:
        progress: told (policy, jobs that have arrived, jobs in all) now and then.

    Raises:
        UnknownPluginError: a policy or the estimator does not exist; nothing was played.
    """
    terms = terms or Terms()
    for name in names:
        policies.load(name)
    days = []
    for name in names:
        setup = Setup(name, terms.estimator, dict(terms.options or {}))
        tell = None if progress is None else _tell(progress, name)
        simulator = Simulator(workload, setup, terms.truth, noise=terms.noise, seed=terms.seed, progress=tell)
        day = simulator.run()
        days.append(PolicyDay(name, day, measure(day.outcomes, workload.nodes, day.quotes)))
    return days


def figures(metrics: Metrics) -> dict[str, float]:
    """The figures under stable names: seconds in ``_s``, fractions for shares; NaN where there is none."""
    quoted = metrics.quotes.get(QUOTED)
    return {
        "jobs": metrics.jobs,
        "done": metrics.done,
        "makespan_s": metrics.makespan_s,
        **_spread("completion_s", metrics.completion_s),
        **_spread("wait_s", metrics.wait_s),
        "bounded_slowdown": metrics.bounded_slowdown.mean,
        "p99_bounded_slowdown": metrics.bounded_slowdown.p99,
        "cpu_utilisation": metrics.cpu.allocated,
        "cpu_useful": metrics.cpu.useful,
        "gpu_utilisation": metrics.gpu.allocated,
        "gpu_useful": metrics.gpu.useful,
        "jain_fairness": metrics.fairness,
        "bounded_jobs": metrics.bounded,
        "broken_bounds": metrics.broken if metrics.bounded else math.nan,
        "quotes": quoted.quotes if quoted else 0,
        "quote_coverage": quoted.coverage if quoted else math.nan,
        "quote_width": quoted.width if quoted else math.nan,
    }


def rows(days: Sequence[PolicyDay]) -> list[PolicyRow]:
    """What the table and the picture are made of."""
    return [PolicyRow(day.policy, figures(day.metrics)) for day in days]


def table(days: Sequence[PolicyDay], title: str = "") -> Table:
    """A row a metric, a column a policy."""
    return compare_table(rows(days), METRICS, title)


def page(workload: Workload, days: Sequence[PolicyDay], title: str, subtitle: str) -> Page:
    """The report: pictures first, then the table, then what was assumed."""
    compared = rows(days)
    sections = [Section("Side by side" if len(days) > 1 else "In figures", _side_by_side(compared))]
    busy = _busy(workload, days)
    if busy:
        note = "What jobs held, over what there is; jobs that were submitted and had not started."
        sections.append(Section("Over time", busy, note))
    if any(day.metrics.quotes for day in days):
        sections.append(Section("What was promised", [promises(days)], "90 % of the intervals should have been kept."))
    if workload.notes:
        sections.append(Section("What was assumed", [Text("\n\n".join(workload.notes))]))
    return Page(title, subtitle, sections)


def promises(days: Sequence[PolicyDay]) -> Table:
    """How many quotes were kept, by policy and moment."""
    columns = [
        Column("policy"),
        Column("quoted at"),
        Column("quotes", form="number"),
        Column("kept", form="percent"),
        Column("median width", form="percent"),
    ]
    lines = [
        (day.policy, moment, kept.quotes, kept.coverage, kept.width)
        for day in days
        for moment, kept in sorted(day.metrics.quotes.items(), reverse=True)
    ]
    return Table(columns, lines, note="The width is that of the interval over the time predicted from quote to end.")


def describe(workload: Workload) -> dict[str, Any]:
    """What was played, under stable names."""
    load = workload.load()
    return {
        "name": workload.name,
        "jobs": len(workload.arrivals),
        "nodes": len(workload.nodes),
        "cores": sum(node.cpu_milli for node in workload.nodes) / 1000,
        "gpus": sum(len(node.gpus) for node in workload.nodes),
        "span_s": workload.span_s,
        "cpu_load": load.cpu,
        "gpu_load": load.gpu,
        "notes": list(workload.notes),
    }


def _tell(progress: Callable[[str, int, int], None], name: str) -> Callable[[int, int], None]:
    return lambda arrived, of: progress(name, arrived, of)


def _spread(name: str, spread: Spread) -> dict[str, float]:
    return {f"mean_{name}": spread.mean, f"p50_{name}": spread.p50, f"p99_{name}": spread.p99}


def _side_by_side(compared: Sequence[PolicyRow]) -> list[Block]:
    by_makespan = sorted(compared, key=lambda row: row.metrics["makespan_s"])
    blocks: list[Block] = [
        Facts([Fact(row.policy, row.metrics["makespan_s"], "duration", note="makespan") for row in by_makespan])
    ]
    if len(compared) > 1:
        blocks.append(compare_picture(compared, METRICS))
    return [*blocks, compare_table(compared, METRICS)]


def _busy(workload: Workload, days: Sequence[PolicyDay]) -> list[Figure]:
    """CPU, GPU and queue over time, the policies under each other."""
    cores = sum(node.cpu_milli for node in workload.nodes)
    gpus = 1000 * sum(len(node.gpus) for node in workload.nodes)
    began = workload.arrivals[0].at if workload.arrivals else 0.0
    held = {day.policy: [row for o in day.day.outcomes for row in o.intervals] for day in days}
    pictures = []
    for what, column, whole in (("CPU", 2, cores), ("GPU", 3, gpus)):
        panels = [
            Panel(day.policy, _level(held[day.policy], column, whole, began), "cpu" if what == "CPU" else "gpu")
            for day in days
            if whole
        ]
        if any(len(panel.steps) for panel in panels):
            pictures.append(utilisation(panels, f"{what} held"))
    queues = [Panel(day.policy, _queue(day.day.outcomes, began), "queue") for day in days]
    return [*pictures, utilisation(queues, "Jobs waiting")] if any(len(q.steps) for q in queues) else pictures


def _level(held: Sequence[tuple[float, float, int, int]], column: int, whole: int, began: float) -> Steps:
    """The part of ``whole`` that is held, over time."""
    table = np.array(held, dtype=np.float64).reshape(-1, 4)
    return _steps(table[:, 0] - began, table[:, 1] - began, table[:, column] / whole)


def _queue(outcomes: Sequence[Outcome], began: float) -> Steps:
    """Jobs that had been submitted and had not started, over time."""
    since = np.array([o.submitted for o in outcomes], dtype=np.float64)
    until = np.array([o.ended if o.started is None else o.started for o in outcomes], dtype=np.float64)
    return _steps(since - began, until - began, np.ones(len(outcomes)))


def _steps(
    since: np.ndarray[Any, np.dtype[np.float64]],
    until: np.ndarray[Any, np.dtype[np.float64]],
    amount: np.ndarray[Any, np.dtype[np.float64]],
) -> Steps:
    """The sum of ``amount`` over all stretches that are under way."""
    times, place = np.unique(np.concatenate([since, until]), return_inverse=True)
    changes = np.bincount(place, weights=np.concatenate([amount, -amount]), minlength=times.size)
    levels = np.round(np.cumsum(changes), 9) + 0.0  # no -0.0
    return Steps(times.tolist(), levels.tolist())
