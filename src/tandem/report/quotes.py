"""Quoted against actual finish times.

A quote is *kept* when the job ended inside its interval, *late* when it ended after it, *early* before it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import plotly.graph_objects as go

from tandem.core.units import human_duration
from tandem.report import palette
from tandem.report.blocks import Fact, Figure, Key
from tandem.report.calibration import wilson
from tandem.report.chart import SMALL_PX, dress, margins, nothing_to_show, time_unit
from tandem.report.formats import plot_text, show

Outcome = Literal["kept", "late", "early", "open"]

_COLOURS: dict[Outcome, str] = {
    "kept": palette.BLUE,
    "late": palette.BAD,
    "early": palette.ORANGE,
    "open": palette.MUTED,
}
_SYMBOLS: dict[Outcome, str] = {
    "kept": "circle",
    "late": "diamond",
    "early": "circle-open",
    "open": "line-ns",
}
_LABELLED_ROWS = 48


@dataclass(frozen=True, slots=True)
class Quote:
    """What was promised to one job, and what came. Times are seconds since the day began.

    Attributes:
        job: Its name.
        low_s: Begin of the quoted interval.
        mid_s: The quoted finish.
        high_s: End of the interval.
        actual_s: The actual finish, or None where the job has not ended.
        why: Why it was late, in words, where that is known.

    Raises:
        ValueError: The interval is not ordered or not finite.
    """

    job: str
    low_s: float
    mid_s: float
    high_s: float
    actual_s: float | None = None
    why: str = ""

    def __post_init__(self) -> None:
        """Refuse an interval that is none."""
        if not (math.isfinite(self.low_s) and math.isfinite(self.high_s) and self.low_s <= self.mid_s <= self.high_s):
            interval = f"{self.low_s} s, {self.mid_s} s, {self.high_s} s"
            message = f"quote of {self.job!r}: {interval} is no ordered interval"
            raise ValueError(message)

    @property
    def outcome(self) -> Outcome:
        """How it ended."""
        if self.actual_s is None:
            return "open"
        if self.actual_s > self.high_s:
            return "late"
        return "early" if self.actual_s < self.low_s else "kept"


def coverage(quotes: Sequence[Quote]) -> float | None:
    """Return the share of ended jobs whose quote was kept, or None where no job has ended."""
    ended = [quote for quote in quotes if quote.outcome != "open"]
    return sum(quote.outcome == "kept" for quote in ended) / len(ended) if ended else None


def coverage_fact(quotes: Sequence[Quote], claimed: float = 0.9) -> Fact:
    """Return the share of kept quotes as a big number, with counts.

    Args:
        quotes: The quotes; those of jobs that have not ended do not count.
        claimed: What was claimed. A lower share is toned bad where chance (Wilson, 95 %) does not explain it.

    Returns:
        The big number.
    """
    share = coverage(quotes)
    ended = sum(quote.outcome != "open" for quote in quotes)
    if share is None:
        return Fact("quotes kept", None, note="no job has ended")
    kept = round(share * ended)
    low, high = wilson(kept, ended)
    tone: Literal["", "bad"] = "" if low <= claimed <= high or share >= claimed else "bad"
    return Fact(
        "quotes kept",
        share,
        "percent",
        note=f"{kept} of {ended}; {show(claimed, 'percent')} were promised",
        tone=tone,
    )


def quotes_picture(
    quotes: Sequence[Quote], title: str = "What was promised, and what came", *, caption: str = ""
) -> Figure:
    """Draw each quoted interval as a bar and the actual finish as a dot.

    Args:
        quotes: The quotes, in any order; drawn by quoted finish, the earliest on top.
        title: Heading.
        caption: How to read it.

    Returns:
        The picture with its key.
    """
    if not quotes:
        return Figure(nothing_to_show("No job was quoted."), title, caption)
    ordered = sorted(quotes, key=lambda quote: (quote.mid_s, quote.high_s, quote.job))
    unit = time_unit(max(max(quote.high_s, quote.actual_s or 0) for quote in ordered))
    labelled = len(ordered) <= _LABELLED_ROWS
    plot = go.Figure()
    for outcome in _COLOURS:
        chosen = [(row, quote) for row, quote in enumerate(ordered) if quote.outcome == outcome]
        if chosen:
            _draw_intervals(plot, chosen, outcome, unit.seconds, 9 if labelled else max(1.5, 420 / len(ordered)))
            _draw_finishes(plot, chosen, outcome, unit.seconds, 9 if labelled else 5)
    plot.update_xaxes(title_text=f"finish, {unit.title}", rangemode="tozero")
    plot.update_yaxes(
        range=[len(ordered) - 0.4, -0.6],
        tickvals=list(range(len(ordered))) if labelled else [],
        ticktext=[plot_text(quote.job, 30) for quote in ordered] if labelled else [],
        tickfont={"color": palette.INK, "size": SMALL_PX},
        showgrid=False,
        fixedrange=True,
    )
    margins(plot, top=6)
    return Figure(dress(plot, 60 + len(ordered) * 23 if labelled else 640), title, caption, _key(ordered))


def _draw_intervals(
    plot: go.Figure, chosen: Sequence[tuple[int, Quote]], outcome: Outcome, unit_s: float, width_px: float
) -> None:
    x: list[float | None] = []
    y: list[float | None] = []
    for row, quote in chosen:
        x += [quote.low_s / unit_s, quote.high_s / unit_s, None]
        y += [row, row, None]
    plot.add_trace(
        go.Scatter(
            x=x,
            y=y,
            mode="lines",
            opacity=0.35,
            line={"color": _COLOURS[outcome], "width": width_px},
            hoverinfo="skip",
        )
    )  # fmt: skip


def _draw_finishes(
    plot: go.Figure, chosen: Sequence[tuple[int, Quote]], outcome: Outcome, unit_s: float, size_px: float
) -> None:
    plot.add_trace(
        go.Scatter(
            x=[(quote.mid_s if quote.actual_s is None else quote.actual_s) / unit_s for _, quote in chosen],
            y=[row for row, _ in chosen],
            mode="markers",
            marker={
                "color": _COLOURS[outcome],
                "symbol": _SYMBOLS[outcome],
                "size": size_px,
                "line": {"width": 2 if outcome in ("early", "open") else 0, "color": _COLOURS[outcome]},
            },
            customdata=[_hover(quote) for _, quote in chosen],
            hovertemplate="%{customdata}<extra></extra>",
        )
    )


def _hover(quote: Quote) -> str:
    actual = "not ended" if quote.actual_s is None else f"ended at {human_duration(quote.actual_s)}"
    why = f"<br>{plot_text(quote.why, 120)}" if quote.why else ""
    interval = f"{human_duration(quote.low_s)} to {human_duration(quote.high_s)}"
    quoted = f"quoted {human_duration(quote.mid_s)} ({interval})"
    return f"<b>{plot_text(quote.job)}</b><br>{quoted}<br>{actual}, {quote.outcome}{why}"


def _key(quotes: Sequence[Quote]) -> tuple[Key, ...]:
    labels: dict[Outcome, str] = {
        "kept": "kept", "late": "late", "early": "early", "open": "not ended (quoted finish)"
    }  # fmt: skip
    counts = {outcome: sum(quote.outcome == outcome for quote in quotes) for outcome in _COLOURS}
    keys = [Key("quoted interval", palette.BLUE, "faded")]
    return (*keys, *(Key(f"{labels[o]} ({n})", _COLOURS[o], "dot") for o, n in counts.items() if n))
