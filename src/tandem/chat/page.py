"""A run for people: curves of each stage, figures on held-out rows, responses before and after."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from tandem.chat import measured
from tandem.report import page, palette
from tandem.report.blocks import Block, Fact, Facts, Figure, Text
from tandem.report.chart import dress, margins, nothing_to_show
from tandem.report.page import Page, Section
from tandem.report.table import Cell, Column, Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tandem.chat.run_folder import RunFolder
    from tandem.report.formats import Value

_PLOT_PX = 260

CURVES: dict[str, dict[str, tuple[str, str]]] = {
    "sft": {
        "loss": ("loss", "nats a token"),
        "held_out_loss": ("held-out loss", "nats a token"),
    },
    "reward": {
        "loss": ("loss", "nats a pair"),
        "accuracy": ("pairs in the right order", "share of the batch"),
    },
    "rl": {
        "reward": ("reward", "mean of a batch, without penalties"),
        "kl_nats": ("divergence from the reference", "nats a response"),
        "length_tokens": ("length of responses", "tokens, EOS included"),
        "ended": ("responses that ended by themselves", "share of the batch"),
        "loss": ("loss", ""),
        "critic": ("the critic's loss", ""),
        "kl_coefficient": ("KL coefficient", ""),
        "generate_s": ("generation", "seconds a step"),
    },
}
"""What is drawn of each stage: metric -> (title, unit)."""

TITLES = {"sft": "Supervised fine-tuning", "reward": "Reward model", "rl": "Reinforcement learning"}

NAMES = {
    "start": "at the start",
    "sft": "after SFT",
    "rl": "after RL",
    "rl-average": "average over RL",
    "reward": "reward model",
}


def write(run: RunFolder) -> Path:
    """Write report.html into the run's folder and return its path."""
    return page.write(of_run(run), run.path / "report.html")


def of_run(run: RunFolder) -> Page:
    """Return the page."""
    recipe = run.recipe()
    series = {stage: run.series(stage) for stage in CURVES}
    there = {stage: found for stage, found in series.items() if found}
    told = measured.differs(run)
    differing: list[Block] = [Text(told)] if told else []
    sections = [Section("In short", [*_short(run, there), *differing, *_figures(run)])]
    for stage, found in there.items():
        body: list[Block] = [
            curve(found[name], title, unit) for name, (title, unit) in CURVES[stage].items() if name in found
        ]
        sections.append(Section(TITLES[stage], [*body, _speeds(found)]))
    if samples := measured.read(run).samples:
        sections.append(Section("Responses to held-out prompts", [*differing, _responses(samples)]))
    if drawn := run.samples():
        sections.append(Section("Responses as training went", [_drawn(drawn)]))
    model = recipe.model.path or recipe.model.init
    how = f", {recipe.rl.algorithm}" if recipe.rl else ""
    return Page(run.path.resolve().name, f"{model}{how}, seed {recipe.seed}", sections)


def figures_table(run: RunFolder) -> Table:
    """A row for each figure on held-out rows."""
    columns = [
        Column("model"),
        Column("figure"),
        Column("value", "", "number", 3),
        Column("95 % from", "", "number", 3),
        Column("to", "", "number", 3),
        Column("rows", "", "number", 0),
    ]
    rows: list[list[Cell | Value]] = [
        [NAMES.get(model, model), name, one.mean, one.low, one.high, one.rows]
        for model, by_name in measured.read(run).figures.items()
        for name, one in by_name.items()
    ]
    return Table(
        columns, rows, note="on held-out prompts; intervals from resampled rows, of shares Wilson's, a tie as half"
    )


def nothing_measured(run: RunFolder) -> str:
    """What to say of an evaluation without any figure; empty where there is one, or no evaluation."""
    figures = measured.read(run).figures
    if not figures or any(figures.values()):
        return ""
    return (
        f"The evaluation measured nothing: of the rows held out (data.held_out = {run.recipe().data.held_out:g}) there "
        "is none that it could. Raise data.held_out, or give more rows."
    )


def curve(points: Sequence[tuple[int, float]], title: str, unit: str) -> Figure:
    """One metric over steps: pale as it was recorded, dark as its running mean."""
    known = [(step, value) for step, value in points if math.isfinite(value)]
    if not known:
        return Figure(nothing_to_show("No finite value was recorded."), title, half=True)
    steps, values = [step for step, _ in known], [value for _, value in known]
    plot = go.Figure()
    if len(values) > 20:
        plot.add_trace(go.Scatter(x=steps, y=values, mode="lines", line={"color": palette.PALE_BLUE, "width": 1}))
        values = smooth(values)
    return with_line(plot, steps, values, title, unit)


def with_line(plot: Any, steps: Sequence[int], values: Sequence[float], title: str, unit: str) -> Figure:  # noqa: ANN401
    """What is drawn so far, of plotly, with the dark line that is to be read before it."""
    plot.add_trace(
        go.Scatter(
            x=steps,
            y=values,
            mode="lines+markers" if len(values) < 3 else "lines",
            line={"color": palette.BLUE, "width": 2},
            hovertemplate="step %{x}: %{y:.4g}<extra></extra>",
        )
    )
    plot.update_xaxes(title_text="step", nticks=8)
    plot.update_yaxes(title_text=unit, nticks=6)
    margins(plot)
    return Figure(dress(plot, _PLOT_PX), title, half=True)


def smooth(values: Sequence[float]) -> list[float]:
    """The mean of a twentieth of all steps up to each."""
    width = max(2, len(values) // 20)
    return [sum(values[max(0, i - width + 1) : i + 1]) / (min(i, width - 1) + 1) for i in range(len(values))]


def _short(run: RunFolder, there: dict[str, dict[str, list[tuple[int, float]]]]) -> list[Block]:
    facts = [
        Fact(f"{TITLES[stage]}: steps", float(found["step_s"][-1][0]), "number", 0) for stage, found in there.items()
    ]
    for stage, title in {**TITLES, "eval": "Evaluation"}.items():
        peaks = [value for _, value in (there.get(stage) or run.series(stage)).get("peak_bytes", [])]
        if peaks:
            facts.append(Fact(f"{title}: most memory", int(max(peaks)), "size"))
    rewards = [value for _, value in there.get("rl", {}).get("reward", [])]
    if rewards:
        tenth = max(1, len(rewards) // 10)
        first, last = sum(rewards[:tenth]) / tenth, sum(rewards[-tenth:]) / tenth
        facts.append(Fact("reward, first tenth", first, "number", 3))
        facts.append(Fact("reward, last tenth", last, "number", 3, tone="good" if last > first else "bad"))
    return [Facts(facts)] if facts else [Text("Nothing was recorded yet.")]


def _figures(run: RunFolder) -> list[Block]:
    table, nothing = figures_table(run), nothing_measured(run)
    return [*([table] if table.rows else []), *([Text(nothing)] if nothing else [])]


def _speeds(found: dict[str, list[tuple[int, float]]]) -> Table:
    """Seconds of a step and of its phases, medians."""
    names = {"step_s": "step", "generate_s": "of it generation", "score_s": "of it scoring"}
    rows: list[list[Cell | Value]] = [
        [text, _median([value for _, value in found[name]])] for name, text in names.items() if name in found
    ]
    tokens, took = dict(found.get("tokens", [])), dict(found["step_s"])
    rates = [tokens[step] / took[step] for step in tokens if took.get(step)]
    if rates:
        rows.append(["tokens trained on a second", _median(rates)])
    return Table([Column("median of all steps"), Column("s, or 1/s", "", "number", 3)], rows)


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def _responses(samples: Sequence[dict[str, str]]) -> Table:
    names = list(samples[0])
    rows: list[list[Cell | Value]] = [[sample.get(name, "")[:400] for name in names] for sample in samples]
    return Table([Column(NAMES.get(name, name)) for name in names], rows)


def _drawn(samples: Sequence[dict[str, Any]]) -> Table:
    """Up to a dozen, spread over the run."""
    every = max(1, len(samples) // 12)
    rows: list[list[Cell | Value]] = [
        [one["step"], one["prompt"][:200], one["response"][:200], one["score"]] for one in samples[::every]
    ]
    columns = [Column("step", "", "number", 0), Column("prompt"), Column("response"), Column("score", "", "number", 2)]
    return Table(columns, rows)
