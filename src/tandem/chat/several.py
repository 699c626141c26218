"""Several runs that differ in their seeds, on one page: what is the recipe's doing and what is chance.

Curves are means over runs, with 95 % intervals of the mean as bands and each run pale behind.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from tandem.chat import measured
from tandem.chat import recipe as recipes
from tandem.chat.errors import StageError
from tandem.chat.interval import of_runs
from tandem.chat.page import CURVES, NAMES, TITLES, smooth, with_line
from tandem.report import page, palette
from tandem.report.blocks import Block, Figure, Text
from tandem.report.page import Page, Section
from tandem.report.table import Cell, Column, Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tandem.chat.recipe import Recipe
    from tandem.chat.run_folder import RunFolder
    from tandem.report.formats import Value

MAY_DIFFER = ("seed", "save_every_steps", "device", "model.path", "data.sources.")
"""Beginnings of keys that runs on one page may have otherwise."""

_SAME_RESULT = {"save_every_steps", "device"}
"""Those of them that decide nothing."""


def write(runs: Sequence[RunFolder], out: Path) -> Path:
    """Write the page and return its path.

    Raises:
        StageError: One is no run or there twice, two are of one seed, or their recipes differ in more than their seeds.
    """
    return page.write(of_seeds(runs), out)


def of_seeds(runs: Sequence[RunFolder]) -> Page:
    """Return the page.

    Raises:
        StageError: One is no run or there twice, two are of one seed, or their recipes differ in more than their seeds.
    """
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise StageError(
            given=", ".join(str(run.path) for run in runs),
            allowed="each run once: intervals are over runs",
            todo="leave out what is there twice",
        )
    first, *others = (run.recipe() for run in runs)
    for run, other in zip(runs[1:], others, strict=True):
        changed = [key for key in recipes.differences(first, other) if not key.startswith(MAY_DIFFER)]
        if changed:
            raise StageError(
                given=f"{run.path}, which differs from {runs[0].path} in {', '.join(changed)}",
                allowed="runs of one recipe that differ in their seeds",
                todo="give those alone",
            )
    _check_independent(runs, [first, *others])
    sections = [Section("In short", _short(runs))]
    for stage, curves in CURVES.items():
        series = [run.series(stage) for run in runs]
        body: list[Block] = [
            curve([dict(one[name]) for one in series], title, unit)
            for name, (title, unit) in curves.items()
            if all(name in one for one in series)
        ]
        if body:
            sections.append(Section(TITLES[stage], body))
    how = f", {first.rl.algorithm}" if first.rl else ""
    seeds = ", ".join(str(recipe.seed) for recipe in (first, *others))
    return Page(f"{len(runs)} runs", f"{first.model.path or first.model.init}{how}, seeds {seeds}", sections)


def _check_independent(runs: Sequence[RunFolder], chosen: Sequence[Recipe]) -> None:
    """Check that each run has a seed, or data or a model, of its own: two that have not are one, told twice."""
    for (run, recipe), (other, its) in itertools.combinations(zip(runs, chosen, strict=True), 2):
        if recipes.differences(recipe, its).keys() <= _SAME_RESULT:
            raise StageError(
                given=f"{run.path} and {other.path}, both of seed {recipe.seed} with the same data and model",
                allowed="runs that differ in their seeds: intervals are over runs that chance tells apart",
                todo="leave one of them out, or train it with another seed",
            )


def figures_table(runs: Sequence[RunFolder]) -> Table:
    """A row for each figure on held-out rows that all runs have: its mean over them."""
    found = [measured.read(run).figures for run in runs]
    rows: list[list[Cell | Value]] = []
    for model, by_name in found[0].items():
        for name in by_name:
            if all(name in one.get(model, {}) for one in found):
                mean = of_runs([one[model][name].mean for one in found])
                rows.append([NAMES.get(model, model), name, mean.mean, mean.low, mean.high, mean.rows])
    columns = [Column("model"), Column("figure")]
    columns += [Column(heading, "", "number", 3) for heading in ("mean of runs", "95 % from", "to")]
    columns.append(Column("runs", "", "number", 0))
    return Table(columns, rows, note="on held-out prompts; intervals are Student's, over runs")


def differing(runs: Sequence[RunFolder]) -> list[str]:
    """Say of each run whose figures were made otherwise than its recipe and its models are now, how."""
    return [f"{run.path}: {told}" for run in runs if (told := measured.differs(run))]


def curve(runs: Sequence[dict[int, float]], title: str, unit: str) -> Figure:
    """One metric over the steps that all runs have, each run's smoothed as on its own page."""
    plot = go.Figure()
    smoothed = []
    for points in runs:
        known = sorted((step, value) for step, value in points.items() if math.isfinite(value))
        values = smooth([value for _, value in known]) if len(known) > 20 else [value for _, value in known]
        smoothed.append(dict(zip((step for step, _ in known), values, strict=True)))
        line = {"color": palette.PALE_BLUE, "width": 1}
        plot.add_trace(go.Scatter(x=list(smoothed[-1]), y=values, mode="lines", line=line, hoverinfo="skip"))
    steps = sorted(set.intersection(*(set(points) for points in smoothed)))
    means = [of_runs([points[step] for points in smoothed]) for step in steps]
    if len(runs) > 1:
        band = [one.high for one in means] + [one.low for one in reversed(means)]
        around = [*steps, *reversed(steps)]
        style = {"fill": "toself", "opacity": 0.3, "line": {"width": 0}, "fillcolor": palette.PALE_BLUE}
        plot.add_trace(go.Scatter(x=around, y=band, mode="lines", hoverinfo="skip", **style))
    return with_line(plot, steps, [one.mean for one in means], title, unit)


def _short(runs: Sequence[RunFolder]) -> list[Block]:
    table = figures_table(runs)
    if not table.rows:
        return [Text("No figure on held-out rows is there of all runs.")]
    return [*map(Text, differing(runs)), table]
