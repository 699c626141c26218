"""A job in words: its demand, its state, its promise, its owner."""

from __future__ import annotations

import functools
import pwd
from collections.abc import Mapping, Sequence
from typing import Any

from tandem.cli.moments import NONE, clock_time, promised
from tandem.core.units import human_duration, human_size
from tandem.core.units import ranges as ranges
from tandem.share import model
from tandem.share.model import ON_NODE, OTHER_ARGUMENTS, State, is_founded

View = Mapping[str, Any]

ENDS = tuple(state.value for state in State if state in model.ENDS)
"""States in which a job ends."""

LIVE = {state.value for state in State} - {*ENDS}
"""States of a job that has not ended."""

_SHOWN_FROM_S = 0.001

WAITING = LIVE - {state.value for state in ON_NODE}
"""States of a job that is on no node."""


@functools.cache
def user(uid: int) -> str:
    """The user's name, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def uid_of(text: str) -> int | None:
    """The number of a user given by name or number, None where there is none."""
    if text.isdecimal():
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        return None


def cores_and_gpus(view: View) -> str:
    """Short, for a column: `4`, `4+1g`, `2x(8+4g)` for two nodes."""
    nodes = max(1, int(view["nodes"]))
    cpus, gpus = f"{view['cpus'] / nodes:g}", view["gpus"] / nodes
    if view.get("state") == "suspended":
        cpus = f"({cpus})"  # not held
    each = f"{cpus}+{gpus:g}g" if gpus else cpus
    if nodes == 1:
        return each
    return f"{nodes}x({each})" if gpus else f"{nodes}x{each}"


def demand(view: View) -> str:
    """In words, with everything that was asked for."""
    nodes = max(1, int(view["nodes"]))
    parts = [count(view["cpus"] / nodes, "core")]
    if view["gpus"]:
        parts.append(count(view["gpus"] / nodes, "GPU"))
    if view["mem_mib"]:
        parts.append(f"{human_size(view['mem_mib'] / nodes * (1 << 20))} of memory")
    if view["membw_mbs"]:
        parts.append(f"{view['membw_mbs']:,} MB/s of memory bandwidth")
    return ", ".join(parts) + (f" on each of {nodes} nodes" if nodes > 1 else "")


def count(number: float, what: str) -> str:
    """A number with its noun: `1 core`, `0.5 GPU`, `3 cores`."""
    return f"{number:g} {what}" + ("s" if number > 1 else "")


def ended(view: View) -> str:
    """How a job ended: `done`, `failed (exit status 3)`."""
    state = str(view["state"])
    if state != "failed":
        return state
    if view.get("signal"):
        return f"{state} (signal {view['signal']})"
    if view.get("exit_code"):
        return f"{state} (exit status {view['exit_code']})"
    return state


def quoted(quote: View, now: float) -> str:
    """A quote as `submit` prints it; takes the store's rows and the daemon's answers.

    One that rests on nothing promises nothing: it is called a guess, and neither a middle nor 90 % is said.
    """
    start, finish = interval(quote, "start"), interval(quote, "finish")
    words = promised(*finish, now)
    if words == "no idea":
        return f"quoted start {clock_time(start[1], now)}, no idea of the finish"
    first, _, rest = words.partition(" (")
    if not is_founded(quote.get("basis") or ""):
        known = "nothing is known of how long it runs (--expected says it, a second run will know)"
        return f"quoted start {clock_time(start[1], now)}, finish {rest.rstrip(')')}: a guess, since {known}"
    by = f" by runs {OTHER_ARGUMENTS}" if OTHER_ARGUMENTS in (quote.get("basis") or "") else ""
    return f"quoted start {clock_time(start[1], now)}, finish {first} ({rest.rstrip(')')}, 90 %{by})"


def interval(quote: View, what: str) -> tuple[float, float, float]:
    """Low, middle and high of a quote's start or finish."""
    if what in quote:
        low, mid, high = quote[what]
    else:
        low, mid, high = (quote[f"{what}_{bound}"] for bound in ("low", "mid", "high"))
    return float(low), float(mid), float(high)


def places(view: View) -> str:
    """Which cores and GPUs of which node a job holds: `node1: cores 0-3, GPU 1`."""
    nodes = [name for name in str(view.get("node") or "").split(",") if name]
    cores, gpus = view.get("cores") or [], view.get("gpus_given") or []
    found = []
    for place, node in enumerate(nodes):
        held = [
            f"{name}{'s' if len(given) > 1 else ''} {ranges(given)}"
            for name, given in (("core", _at(cores, place)), ("GPU", _at(gpus, place)))
            if given
        ]
        found.append(f"{node}: {', '.join(held)}" if held else node)
    return "; ".join(found)


def ran(view: View, now: float) -> str:
    """How long a job has run, or ran; time during which it was suspended does not count."""
    if view.get("started_at") is None:
        return NONE
    since = view.get("run_since")
    return lasted(view["ran_s"] + (now - since if since is not None else 0.0))


def lasted(seconds: float) -> str:
    """A time that has passed; clocks tell none that is shorter than a millisecond."""
    return human_duration(seconds) if seconds >= _SHOWN_FROM_S else "less than 1ms"


def _at(lists: Sequence[Sequence[int]], place: int) -> Sequence[int]:
    return lists[place] if place < len(lists) else ()


def lately(view: View) -> str:
    """How fast a job goes by what was measured last, a few seconds: not over all of its time beside its neighbours.

    >>> lately({"state": "running", "rate": 76.81, "slowdown": 1.0, "beside": []})
    'of late 76.8 steps/s, as fast as alone'
    """
    said = f"{'of late' if view['state'] in LIVE else 'at the end'} {view['rate']:.3g} steps/s"
    slowdown = view.get("slowdown")
    return f"{said}, {pace(slowdown, alone=not view.get('beside'))}" if slowdown else said


def pace(slowdown: float, *, alone: bool = False) -> str:
    """How fast a job goes beside what it goes alone; where nobody is beside it now, a difference has other reasons.

    >>> pace(1.064), pace(1.002)
    ('1.06 times slower than alone', 'as fast as alone')
    """
    said = f"{slowdown:.2f}"
    if said == "1.00":
        return "as fast as alone"
    why = " (nobody is beside it now: noise, its own variation, or measured before)" if alone else ""
    return f"{said} times slower than alone{why}"
