"""A profile for people: a table of a row for each kind of bubble, two pictures a phase, and what they say in words."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from tandem.estimate.profile import GPU_KINDS, HARDEST, IN_WORDS, KINDS
from tandem.estimate.profiling.commands import profile_again
from tandem.estimate.profiling.contradictions import newest_contradiction
from tandem.estimate.profiling.trust import felt, level, mark, presses, stands, warning
from tandem.report import palette
from tandem.report.blocks import Block, Fact, Facts, Figure, Text
from tandem.report.chart import SMALL_PX, dress, margins, nothing_to_show
from tandem.report.formats import Value, plot_text
from tandem.report.page import Page, Section, write
from tandem.report.table import Cell, Column, Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from tandem.estimate.profile import Curve, PhaseProfile, Profile

_LABEL_PX = 17
_PLOT_PX = 300


_FOOTNOTE = "of phases, the one that takes the most time is shown; kinds are those felt from other cores"


def list_table(profiles: Iterable[Profile], marks: Mapping[str, str] | None = None) -> Table:
    """One row for each application; ``marks`` say by key why it had better be profiled again, beyond its own noise."""
    columns = [
        Column("application"),
        Column("rate", "1/s", "number"),
        Column("noise", "", "percent", 0),
        Column("cores kept busy", "", "number", 2, minor=True),
        Column("kept waiting", "", "percent", 0, minor=True),
        Column("make again"),
        Column("slowed most by"),
        Column("presses most on"),
        Column("made", minor=True),
        Column("took", "s", "number", 0, minor=True),
        Column("revision", "", "number", 0, minor=True),
    ]
    rows: list[list[Cell | Value]] = [
        [
            profile.key,
            main.rate,
            main.noise,
            main.cpu_use,
            profile.waited,
            Cell(marked, "bad" if marked else ""),
            _most_felt(profile, main),
            _most_pressed(main),
            _moment(profile.made),
            profile.cost_s,
            profile.revision,
        ]
        for profile in profiles
        for main in [max(profile.phases, key=lambda phase: phase.share)]
        for marked in [(marks or {}).get(profile.key) or mark(profile)]
    ]
    return Table(columns, rows, "Profiles", _FOOTNOTE)


def phase_table(profile: Profile, phase: PhaseProfile) -> Table:
    """One row for each kind of bubble."""
    columns = [
        Column("beside a bubble of"),
        Column("at half", "", "ratio", 2),
        Column("at full", "", "ratio", 2),
        Column("+-", "", "number", 2),
        Column("presses with level", "", "number", 2),
        Column("+-", "", "number", 2),
    ]
    rows: list[list[Cell | Value]] = []
    for kind in _kinds(phase):
        curve = phase.sensitivity.get(kind)
        full = None if curve is None else curve.slowdowns[-1]
        rows.append(
            [
                f"{kind} ({IN_WORDS.get(kind, kind)})",
                None if curve is None else curve.at(0.5),
                Cell(full, "bad" if felt(profile, phase, kind) == "sure" else ""),
                None if curve is None else curve.halves[-1],
                phase.pressure.get(kind),
                phase.pressure_half.get(kind),
            ]
        )
    note = "+-: half of the 90 % interval; at half: on the line between measured levels"
    if any(one >= HARDEST for one in phase.pressure.values()):
        note += f"; a pressure of {HARDEST:g} or more: at least {HARDEST:g}"
    return Table(columns, rows, _headline(profile, phase), note)


def sentences(profile: Profile) -> list[str]:
    """What a profile says, in words."""
    found = []
    for phase in profile.phases:
        where = f"in {phase.phase}, " if phase.phase and len(profile.phases) > 1 else ""
        found += [f"{where}{words}" for words in _slowed(profile, phase)]
        pressed = sorted(((v, k) for k, v in phase.pressure.items() if presses(phase, k)), reverse=True)
        words = ", ".join(f"{IN_WORDS.get(kind, kind)} ({level(one)})" for one, kind in pressed)
        perhaps = "perhaps " if words and profile.disturbed else ""
        found.append(f"{where}{perhaps}presses on {words or _nothing_of(phase.pressure)}")
    for name, one in profile.stepless.items():
        found.append(f"{one.share:.0%} of the time in {name}, without a step: {one.cpu_use:.2f} cores busy meanwhile")
    found += _left_out(profile)
    if profile.waited > 0.0:
        found.append(f"while it was to be alone, others had its cores for {profile.waited:.0%} of the time")
    return found


def _slowed(profile: Profile, phase: PhaseProfile) -> list[str]:
    """By what for certain, and by what perhaps."""
    if not phase.sensitivity:
        return ["what slows it is not known: no window beside a bubble could be measured"]
    by = {"sure": "", "perhaps": ""}
    for certainty in by:
        kinds = [
            (curve.slowdowns[-1], kind)
            for kind, curve in phase.sensitivity.items()
            if felt(profile, phase, kind) == certainty
        ]
        by[certainty] = ", ".join(
            f"{IN_WORDS.get(kind, kind)} (up to {slow:.2f}x)" for slow, kind in sorted(kinds, reverse=True)
        )
    found = [f"slowed by {by['sure'] or _nothing_of(phase.sensitivity)}"]
    if by["perhaps"]:
        noise = f"its own noise, +- {phase.noise:.0%}, could feign that"
        others = f"others had its cores for {profile.waited:.0%} of the time, which could feign that"
        found.append(f"perhaps slowed by {by['perhaps']}: {others if profile.disturbed else noise}")
    return found


def _nothing_of(tried: Iterable[str]) -> str:
    """That nothing was found, of how many kinds."""
    kinds = [kind for kind in (*KINDS, *GPU_KINDS) if kind in set(tried)]
    if len(kinds) > 1:
        return f"nothing for certain of the {len(kinds)} kinds that were tried"
    return f"nothing for certain of the one kind that was tried: {IN_WORDS[kinds[0]]}" if kinds else "what is not known"


def _left_out(profile: Profile) -> list[str]:
    """What is not known, and why."""
    again = profile_again(profile.key)
    what = {
        "sensitivity": ("for want of time it was not tried whether it is slowed by {}", f"{again} gives it more"),
        "pressure": ("for want of time it was not tried how hard it presses on {}", f"{again} gives it more"),
        "unfelt": (
            "how hard it presses on {} cannot be known here",
            "the strongest bubbles of this machine do not slow even their own reporters",
        ),
        "uncalibrated": (
            "how hard it presses on {} is not known",
            "the machine was busy when the bubbles of that were calibrated; tandem profile calibrate when it is quiet, "
            f"then {again}",
        ),
        "unsteady": (
            "how hard it presses on {} is not known",
            f"its reporter stood still or scattered by itself; {again} at a quieter time",
        ),
    }
    return [
        f"{words.format(', '.join(IN_WORDS.get(kind, kind) for kind in left))}: {why}"
        for part, (words, why) in what.items()
        if (left := profile.left_out.get(part))
    ]


def write_report(profile: Profile, revisions: Sequence[Profile], path: Path, *doubts: str) -> Path:
    """Write ``report.html`` about one application, with what else there is to doubt of it, and return where it is."""
    sections = []
    for phase in profile.phases:
        facts = Facts(
            [
                Fact("alone", phase.rate, "number", None, "steps per second"),
                Fact("noise", phase.noise, "percent", 0, "90 % of single windows are within this"),
                Fact("cores kept busy", phase.cpu_use, "number", 2),
                Fact("of the time", phase.share, "percent"),
                *([Fact("stands still", phase.pauses.part, "percent")] if phase.pauses else []),
            ]
        )
        body: list[Block] = [
            facts,
            curves_picture(profile, phase),
            pressure_picture(phase),
            phase_table(profile, phase),
        ]
        sections.append(Section(phase.phase or "The programme", body))
    if len(revisions) > 1:
        sections.append(Section("Revisions", [list_table(reversed(revisions))]))
    said = [*filter(None, [*doubts, warning(profile)]), *sentences(profile)]
    if words := newest_contradiction(revisions):
        said.append(words)
    sections.insert(0, Section("In words", [Text("\n\n".join(s[:1].upper() + s[1:] + "." for s in said))]))
    subtitle = f"profiled {_moment(profile.made)} in {profile.cost_s:.0f} s on {profile.machine}"
    return write(Page(f"Profile of {profile.key}", subtitle, sections), path)


def curves_picture(profile: Profile, phase: PhaseProfile) -> Figure:
    """Slowdown over the dial, a line for each kind, named at its end."""
    caption = "Run time beside a bubble over run time alone; bars are 90 % intervals."
    kinds = [kind for kind in _kinds(phase) if kind in phase.sensitivity]
    if not kinds:
        return Figure(nothing_to_show("No bubble was tried."), "What slows it down", caption, half=True)
    plot = go.Figure()
    sure = [kind for kind in kinds if felt(profile, phase, kind) == "sure"]
    colours = palette.shades("primary", sure)
    for kind in sorted(kinds, key=lambda kind: kind in sure):
        curve = phase.sensitivity[kind]
        colour = colours.get(kind, palette.MUTED)
        plot.add_trace(
            go.Scatter(
                x=list(curve.levels),
                y=list(curve.slowdowns),
                mode="lines+markers",
                line={"color": colour, "width": 2 if kind in sure else 1},
                marker={"size": 6 if kind in sure else 4},
                error_y={"type": "data", "array": list(curve.halves), "thickness": 1, "width": 0},
                hovertemplate=f"<b>{plot_text(kind)}</b> at %{{x:.2f}}: %{{y:.2f}}x<extra></extra>",
            )
        )
    tops = [phase.sensitivity[kind].slowdowns[-1] for kind in kinds]
    top = max(1.2, *tops, *(s + h for k in kinds for s, h in zip(*_ends(phase.sensitivity[k]), strict=True)))
    low = min(0.95, *tops) - 0.02
    for kind, y in _spread([(phase.sensitivity[kind].slowdowns[-1], kind) for kind in kinds], (top - low) / _PLOT_PX):
        colour = colours.get(kind, palette.MUTED)
        plot.add_annotation(
            x=1.0,
            y=y,
            text=plot_text(kind),
            showarrow=False,
            xanchor="left",
            xshift=8,
            font={"size": SMALL_PX, "color": colour},
        )
    plot.update_xaxes(range=[0, 1.28], tickvals=[0, 0.25, 0.5, 0.75, 1], title_text="level of the bubble")
    plot.update_yaxes(range=[low, top + 0.02], ticksuffix="x", title_text="slowdown", nticks=8)
    margins(plot)
    return Figure(dress(plot, _PLOT_PX + 60), "What slows it down", caption, half=True)


def pressure_picture(phase: PhaseProfile) -> Figure:
    """How hard it presses, as levels of bubbles."""
    caption = "The level of a bubble that slows a reporter as much; 1 is the hardest bubble of this machine."
    kinds = [kind for kind in _kinds(phase) if kind in phase.pressure]
    if not kinds:
        return Figure(nothing_to_show("Its pressure was not measured."), "How hard it presses", caption, half=True)
    levels = [phase.pressure[kind] for kind in kinds]
    plot = go.Figure(
        go.Bar(
            x=levels,
            y=[plot_text(kind) for kind in kinds],
            orientation="h",
            width=0.6,
            marker={"color": [palette.ORANGE if presses(phase, kind) else palette.MUTED for kind in kinds]},
            error_x={
                "type": "data",
                "array": [phase.pressure_half.get(kind, 0.0) for kind in kinds],
                "thickness": 1,
                "width": 0,
                "color": palette.INK,
            },
            hovertemplate="<b>%{y}</b>: %{x:.2f}<extra></extra>",
        )
    )
    plot.update_xaxes(range=[0, 1.1 * max(1.0, *levels)], title_text="level", nticks=6)
    plot.update_yaxes(autorange="reversed", showgrid=False)
    margins(plot)
    return Figure(dress(plot, _PLOT_PX + 60), "How hard it presses", caption, half=True)


def _ends(curve: Curve) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return curve.slowdowns, curve.halves


def _spread(ends: list[tuple[float, str]], unit: float) -> list[tuple[str, float]]:
    """Move labels up until none covers another; ``unit`` is the value of a pixel."""
    placed: list[tuple[str, float]] = []
    for y, kind in sorted(ends):
        least = placed[-1][1] + _LABEL_PX * unit if placed else y
        placed.append((kind, max(y, least)))
    return placed


def _kinds(phase: PhaseProfile) -> list[str]:
    return [kind for kind in (*KINDS, *GPU_KINDS) if kind in phase.sensitivity or kind in phase.pressure]


def _surely(profile: Profile, phase: PhaseProfile) -> list[str]:
    return [kind for kind in phase.sensitivity if felt(profile, phase, kind) == "sure"]


def _most_felt(profile: Profile, phase: PhaseProfile) -> str:
    found = [(phase.sensitivity[kind].slowdowns[-1], kind) for kind in _surely(profile, phase) if kind != "cpu"]
    return "nothing" if not found else "{1} ({0:.2f}x)".format(*max(found))


def _most_pressed(phase: PhaseProfile) -> str:
    pressed = [(one, kind) for kind, one in phase.pressure.items() if presses(phase, kind) and kind != "cpu"]
    return "nothing" if not pressed else f"{max(pressed)[1]} ({level(max(pressed)[0])})"


def _headline(profile: Profile, phase: PhaseProfile) -> str:
    name = f"{profile.key}, {phase.phase}" if phase.phase else profile.key
    busy = f"{phase.cpu_use:.2f} of {profile.cpus} cores busy"
    window = f"+- {phase.noise:.0%} a window"
    told = f"{name}: {phase.rate:.4g} steps/s alone ({window}{' at work' if phase.pauses else ''}), {busy}"
    told += f", {phase.share:.0%} of the time"
    return f"{told}; {stands(phase.pauses)}" if phase.pauses else told


def _moment(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_s))
