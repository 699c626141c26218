"""What pruning did, for people: the same table in the terminal and on the page, a picture, and a few sentences."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from tandem.report import palette
from tandem.report.blocks import Block, Fact, Facts, Figure, Key, Text
from tandem.report.chart import dress, margins, nothing_to_show
from tandem.report.formats import Value, plot_text
from tandem.report.page import Page, Section
from tandem.report.table import Cell, Column, Table

if TYPE_CHECKING:
    from tandem.kernels.prune.layerwise import Lost
    from tandem.kernels.prune.outcome import Outcome

_PLOT_PX = 320


def layers_table(outcome: Outcome) -> Table:
    """A row for each layer."""
    columns = [
        Column("layer"),
        Column("outputs", "", "number", 0),
        Column("inputs", "", "number", 0),
        Column("zeros", "", "percent", 2),
        Column("output error", "", "percent", 2),
        Column("bits a weight", "", "number", 2),
    ]
    noted = any(one.note for one in outcome.lost)
    rows: list[list[Cell | Value]] = [
        [one.name, one.rows, one.columns, one.zeros, one.error, one.bits, *([_noted(one.note)] if noted else [])]
        for one in outcome.lost
    ]
    return Table(
        columns + ([Column("note")] if noted else []),
        rows,
        note="output error: ||(W - W') X|| / ||W X|| on the calibration text; bits: a bitmap and nonzeros as bf16",
    )


def sentences(outcome: Outcome) -> list[str]:
    """What was done and what came of it, in words."""
    plan = outcome.plan
    pruned = outcome.weights
    dense = sum(outcome.left_dense.values())
    shared = ", shared out among blocks by OWL" if plan.by_outliers else ""
    found = [
        f"{plan.method} with {plan.pattern}{shared}: {outcome.zeros:.2%} of {pruned:,} weights in "
        f"{len(outcome.lost)} linear layers are zero"
    ]
    if dense:
        names = ", ".join(sorted(outcome.left_dense)[:4]) + (", ..." if len(outcome.left_dense) > 4 else "")
        found.append(f"left dense: {dense:,} weights ({dense / (dense + pruned):.0%} of all) in {names}")
    if outcome.tokens_are_bytes and (plan.calibration or plan.evaluation):
        found.append("the model has no tokenizer: its tokens are taken to be bytes")
    if outcome.calibration_tokens:
        found.append(f"calibrated on {outcome.calibration_tokens:,} tokens in windows of {outcome.length}")
    if outcome.before and outcome.after:
        tuned = f", {outcome.tuned.value:.4g} after {plan.tuning_steps} steps of training" if outcome.tuned else ""
        found.append(
            f"perplexity {outcome.before.value:.4g} dense, {outcome.after.value:.4g} pruned{tuned} "
            f"({outcome.before.tokens:,} tokens predicted)"
        )
    if outcome.tuning_loss:
        first, last = outcome.tuning_loss
        teacher = ", taught by the dense model" if plan.distil else ""
        found.append(f"trained under the mask for {plan.tuning_steps} steps{teacher}: loss {first:.4g} to {last:.4g}")
    return found


def page(outcome: Outcome) -> Page:
    """The report."""
    facts = [
        Fact("zeros", outcome.zeros, "percent", 2),
        Fact("bits a weight", outcome.bits, "number", 2, "packed as bf16"),
    ]
    if outcome.before and outcome.after:
        note = f"{outcome.before.tokens:,} tokens predicted"
        facts.append(Fact("perplexity, dense", outcome.before.value, "number", 3, note))
        facts.append(Fact("perplexity, pruned", outcome.after.value, "number", 3, note))
    if outcome.tuned:
        facts.append(Fact("perplexity, trained", outcome.tuned.value, "number", 3))
    said = "\n\n".join(s[:1].upper() + s[1:] + "." for s in sentences(outcome))
    layers: list[Block] = [errors_picture(outcome.lost), layers_table(outcome)]
    title = f"{outcome.plan.model.resolve().name}, pruned"
    subtitle = f"{outcome.plan.method}, {outcome.plan.pattern}{' with OWL' if outcome.plan.by_outliers else ''}"
    return Page(title, subtitle, [Section("In short", [Facts(facts), Text(said)]), Section("Layer by layer", layers)])


def errors_picture(lost: list[Lost]) -> Figure:
    """The relative output error over the depth of the model, a line for each kind of layer."""
    title = "What each layer's output lost"
    caption = (
        "Relative to the output of the dense weight on the same inputs, those that the pruned blocks before it give."
    )
    known = [one for one in lost if math.isfinite(one.error)]
    if not known:
        return Figure(nothing_to_show("Without a calibration text nothing is known of outputs."), title)
    kinds = list(dict.fromkeys(one.kind for one in known))
    colours = palette.shades("primary", kinds)
    plot = go.Figure()
    for kind in kinds:
        points = [(one.block, one.error) for one in known if one.kind == kind]
        plot.add_trace(
            go.Scatter(
                x=[block for block, _ in points],
                y=[error for _, error in points],
                mode="lines+markers",
                line={"color": colours[kind], "width": 2},
                marker={"size": 6},
                hovertemplate=f"<b>{plot_text(kind)}</b>, block %{{x}}: %{{y:.1%}}<extra></extra>",
            )
        )
    every = -(-(1 + max(one.block for one in known)) // 12)
    plot.update_xaxes(title_text="block", dtick=every, tickformat="d")
    plot.update_yaxes(title_text="output error", tickformat=".0%", rangemode="tozero")
    margins(plot)
    return Figure(dress(plot, _PLOT_PX), title, caption, [Key(kind, colours[kind], "line") for kind in kinds])


def _noted(note: str) -> Cell:
    return Cell(note, "bad" if note else "")
