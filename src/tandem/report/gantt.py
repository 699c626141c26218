"""Who ran where and when: a Gantt picture by core and GPU, one per policy, on one time axis.

A job that holds several neighbouring lanes over the same stretch is drawn as one block. Times are seconds
since the day began.

Limits: made for up to a few thousand stretches; a trace of 100,000 jobs wants `utilisation` instead.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from tandem.core.units import human_duration
from tandem.report import palette
from tandem.report.bars import Bar, Block, State, blocks, writings
from tandem.report.blocks import Figure, Key
from tandem.report.chart import SMALL_PX, dress, margins, nothing_to_show, time_unit
from tandem.report.formats import plot_lines, plot_text
from tandem.report.frame import MARK_PX, USUAL_PX, Frame, Mark, levels_of

__all__ = ["Bar", "Mark", "State", "gantt", "gantts"]

_LABEL_PX = 11
_GAP = 0.12  # of a lane, left free between blocks
_BOTTOM_PX = 46
_KEYED_SHADES = 24
_FILL: Mapping[State, float] = {"ran": 1.0, "throttled": 0.5, "suspended": 0.12}
_CLASSES = ("primary", "harvest", "gpu")

_Colours = Mapping[tuple[str, str], str]


def gantt(
    bars: Sequence[Bar],
    lanes: Sequence[str] = (),
    title: str = "Who ran where",
    *,
    now_s: float | None = None,
    marks: Sequence[Mark] = (),
    caption: str = "",
) -> Figure:
    """Draw one Gantt picture.

    Args:
        bars: The stretches, in any order.
        lanes: Lanes from top to bottom, the empty ones included; lanes met only in `bars` follow.
        title: Heading.
        now_s: Where the present is, in seconds since the day began; None draws none.
        marks: Moments to point out.
        caption: How to read it.

    Returns:
        The picture with its key.
    """
    return gantts({"": bars}, lanes, title, now_s=now_s, marks=marks, caption=caption)


def gantts(
    days: Mapping[str, Sequence[Bar]],
    lanes: Sequence[str] = (),
    title: str = "Who ran where",
    *,
    now_s: float | None = None,
    marks: Sequence[Mark] = (),
    caption: str = "",
) -> Figure:
    """Draw one Gantt picture per policy, under each other, on a shared time axis.

    Args:
        days: Stretches by policy.
        lanes: As in `gantt`, the same for all.
        title: Heading.
        now_s: As in `gantt`.
        marks: Moments, drawn in every picture and named above the first.
        caption: How to read it.

    Returns:
        The picture with its key.
    """
    every = [bar for bars in days.values() for bar in bars]
    lanes = (*lanes, *sorted({bar.lane for bar in every} - set(lanes), key=_natural))
    if not lanes or not days:
        return Figure(nothing_to_show("No job ran."), title, caption)
    moments = sorted([*marks, *([] if now_s is None else [Mark(now_s, "now")])], key=lambda mark: mark.at_s)
    end_s = max([bar.end_s for bar in every] + [mark.at_s for mark in moments], default=0.0) or 1.0
    frame = Frame(tuple(lanes), len(days), end_s * 1.07, time_unit(end_s), levels_of(moments, end_s))
    colours = _colours(every)
    plot = go.Figure()
    for index, (policy, bars) in enumerate(days.items()):
        _draw_day(plot, index, policy, bars, frame, colours)
    for moment, level in zip(moments, frame.levels, strict=True):
        _draw_moment(plot, moment, level, frame)
    plot.update_layout(
        barmode="overlay",
        uniformtext={"minsize": _LABEL_PX, "mode": "hide"},
        xaxis={
            "range": [0, frame.span_s / frame.unit.seconds],
            "title": {"text": frame.unit.title},
            "anchor": frame.axis(len(days) - 1),
        },
    )
    margins(plot, top=0, bottom=_BOTTOM_PX)
    return Figure(dress(plot, frame.plot_px + _BOTTOM_PX), title, caption, _key(every, colours))


def _draw_day(plot: go.Figure, index: int, policy: str, bars: Sequence[Bar], frame: Frame, colours: _Colours) -> None:
    axis, domain = frame.axis(index), frame.domain(index)
    joined = blocks(bars, frame.lanes)
    plot.add_trace(go.Bar(**_trace(joined, frame, colours), yaxis=axis))
    step = math.ceil(len(frame.lanes) / 20)
    shown = list(range(0, len(frame.lanes), step))
    plot.update_layout(
        {
            f"yaxis{axis[1:]}": {
                "domain": domain,
                "range": [len(frame.lanes) - 0.5, -0.5],
                "tickvals": shown,
                "ticktext": [plot_text(frame.lanes[lane], 22) for lane in shown],
                "showgrid": False,
                "fixedrange": True,
            }
        }
    )
    for lane in range(len(frame.lanes)):
        plot.add_shape(
            {"type": "rect", "xref": "paper", "x0": 0, "x1": 1, "yref": axis, "layer": "below"}
            | {"y0": lane - 0.5 + _GAP / 2, "y1": lane + 0.5 - _GAP / 2}
            | {"fillcolor": palette.LANE, "line": {"width": 0}}
        )
    heading = {"x": 0, "xref": "paper", "xanchor": "left", "yref": "paper", "yanchor": "bottom"}
    plot.add_annotation(heading, text=f"<b>{plot_text(policy, 60)}</b>", y=domain[1], yshift=2, showarrow=False)
    last = max(joined, key=lambda block: block.bar.end_s, default=None)
    ending = "no job ran" if last is None else f"<b>{human_duration(last.bar.end_s)}</b>"
    plot.add_annotation(
        text=ending,
        x=0 if last is None else last.bar.end_s / frame.unit.seconds,
        y=(len(frame.lanes) - 1) / 2 if last is None else last.middle,
        yref=axis,
        xanchor="left",
        xshift=4,
        showarrow=False,
        font={"size": SMALL_PX, "color": palette.MUTED if last is None else palette.INK},
    )


def _trace(joined: Sequence[Block], frame: Frame, colours: _Colours) -> dict[str, Any]:
    """Return the attributes of the bar trace that draws the blocks."""
    bars = [block.bar for block in joined]
    shade = [colours[bar.shade] for bar in bars]
    px_per_s = USUAL_PX / frame.span_s
    written = writings(joined, px_per_s)
    pairs = list(zip(bars, shade, strict=True))
    return {
        "orientation": "h",
        "base": [bar.start_s / frame.unit.seconds for bar in bars],
        "x": [bar.length_s / frame.unit.seconds for bar in bars],
        "y": [block.middle for block in joined],
        "width": [block.height - _GAP for block in joined],
        "text": [plot_text(written.get(block, ""), 40) for block in joined],
        "textposition": "inside",
        "insidetextanchor": "middle",
        "textangle": 0,
        "insidetextfont": {
            "size": _LABEL_PX,
            "color": [palette.text_on(colour) if b.state == "ran" else palette.INK for b, colour in pairs],
        },
        "customdata": [plot_lines(bar.hover) or _default_hover(bar) for bar in bars],
        "hovertemplate": "%{customdata}<extra></extra>",
        "marker": {
            "color": [palette.faded(colour, _FILL[b.state]) for b, colour in pairs],
            "line": {
                "color": [_outline(b, colour, px_per_s) for b, colour in pairs],
                "width": [2.5 if bar.broken else 1 for bar in bars],
            },
            "pattern": {
                "shape": ["/" if bar.state == "suspended" else "" for bar in bars],
                "fgcolor": shade,
                "size": 6,
                "solidity": 0.25,
            },
        },
    }


def _outline(bar: Bar, colour: str, px_per_s: float) -> str:
    """Return the colour of the rim: red, its own, or the page's where that leaves enough of the block."""
    if bar.broken:
        return palette.BAD
    return palette.SURFACE if bar.state == "ran" and bar.length_s * px_per_s > 4 else colour


def _default_hover(bar: Bar) -> str:
    stretch = f"{human_duration(bar.start_s)} to {human_duration(bar.end_s)}"
    broken = "<br>bound broken" if bar.broken else ""
    return f"<b>{plot_text(bar.label)}</b> ({plot_text(bar.kind)})<br>{bar.state} {stretch}{broken}"


def _draw_moment(plot: go.Figure, moment: Mark, level: int, frame: Frame) -> None:
    at = moment.at_s / frame.unit.seconds
    height = 1 - (frame.top_px - (level + 1) * MARK_PX) / frame.plot_px
    inner = moment.at_s < frame.span_s * 0.8
    line = {"color": palette.INK, "width": 1, "dash": "dot"}
    for index in range(frame.days):
        low, high = frame.domain(index)
        top = height if index == 0 else high
        plot.add_shape(type="line", x0=at, x1=at, y0=low, y1=top, yref="paper", line=line)
    plot.add_annotation(
        text=plot_text(moment.label, 32),
        x=at,
        xanchor="left" if inner else "right",
        xshift=3 if inner else -3,
        y=height,
        yref="paper",
        yanchor="top",
        showarrow=False,
        font={"size": SMALL_PX},
    )


def _colours(bars: Sequence[Bar]) -> dict[tuple[str, str], str]:
    return {
        (kind, app): colour
        for kind in {bar.kind for bar in bars}
        for app, colour in palette.shades(kind, (b.shade[1] for b in bars if b.kind == kind)).items()
    }


def _key(bars: Sequence[Bar], colours: _Colours) -> tuple[Key, ...]:
    shades = sorted(colours, key=lambda s: (_CLASSES.index(s[0]) if s[0] in _CLASSES else len(_CLASSES), s))
    keys = [Key(app, colours[kind, app], "solid", kind) for kind, app in shades]
    if len(keys) > _KEYED_SHADES:  # too many to be told apart: the classes only
        keys = [Key(kind, palette.shades(kind, [""])[""]) for kind in dict.fromkeys(kind for kind, _ in shades)]
    states = {bar.state for bar in bars}
    if "throttled" in states:
        keys.append(Key("throttled", palette.BLUE, "faded", "state"))
    if "suspended" in states:
        keys.append(Key("suspended", palette.BLUE, "hatched", "state"))
    if any(bar.broken for bar in bars):
        keys.append(Key("bound broken ▲", palette.BAD, "outlined", "state"))
    return tuple(keys)


def _natural(lane: str) -> tuple[str, int]:
    """Sort `core 10` after `core 9`."""
    name = lane.rstrip("0123456789")
    number = lane[len(name) :]
    return name, int(number) if number else -1
