"""Cores that are shared: how much longer each member of a set takes for want of CPU time, and who runs beside whom.

The part of every model that has nothing to do with caches or bandwidth, so that models differ in contention alone.

- Each member asks for as many cores as it keeps busy alone (`PhaseProfile.cpu_use`; what it states where that is not
  known). Members pinned to one core share it max-min fairly, as a fair kernel scheduler does: nobody gets more than it
  asks for, and who asks for more than an equal part gets what the others leave. A member pinned to several cores asks
  for an equal part of each. Where nobody is pinned and all together ask for more than the node has, they share the
  node in the same way.
- A member with the share s of what it asks for, d, takes d / s times as long, and really runs s / d of the time that
  it would run alone. So others feel it that part of the time: its *weight*. Members of one core take turns: they never
  feel each other's bandwidth, and the weight is 0.
- A member whose phases keep unlike numbers of cores busy, those without steps (`Profile.stepless`) and pauses
  included, works and waits in turns. When it works it meets others that do by chance (`tandem.estimate.meeting`); the
  interval reaches from where they never meet to where they always do, and are below their peaks together as long as
  each is below its own.
- A member without a profile keeps busy some part of what it states, nobody knows which: all of it is assumed, and the
  least stretch is what it would be if it and its like mostly waited.
- Taking turns costs caches that have to be filled again. How much was measured with the ``cpu`` bubble: what remains of
  its curve once the fair share is taken out. Where it was not measured, nothing is added and the interval reaches up to
  what an unknown neighbour may cost.

Limits: no priorities, no simultaneous multithreading (a hardware thread counts as a core), and a member on several
cores does not move its work to the emptier one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from tandem.estimate.corun import Words
from tandem.estimate.meeting import by_chance, fairly, level_beside
from tandem.estimate.prior import UNKNOWN_EXCESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from tandem.estimate.corun import App, Capacity
    from tandem.estimate.profile import Profile

_TURNS_MOST = 2.0
"""Taking turns is believed to cost at most this factor: beyond it the curve measured something else."""

SHARE_SPREAD = 0.08
"""Relative half-width of the 90 % interval of a fair share of a contended core."""

_SLIGHT = 0.005

_KEPT = 1 << 14
"""Of so many companies on one core it is remembered what they get: most sets are made of pairs that were met."""

_LEAST_ASKED = 1e-3

_ALIKE = 0.005
"""A phase that keeps so many cores more busy than the mean is no peak."""

_ALL_COMBINED = 3
"""Of so many contradicted applications in a set all combinations are played."""

LEAST_USE = 0.25
"""Part of what it states that an application without a profile keeps busy at the least."""


@dataclass(frozen=True, slots=True, eq=False)
class CpuNeed:
    """Of one application: cores that it keeps busy alone, and what taking turns with one that never waits costs it.

    ``turns_half`` is the half-width of the latter's 90 % interval; ``unmeasured`` the part of the run time of which it
    is not known, in the phases ``unmeasured_in``: "" where those are all of it. ``peak`` cores are kept busy for
    ``peak_part`` of the time by one that works and waits in turns: its phases keep unlike numbers busy, or it pauses,
    and ``use`` is less, as is ``rest`` in the time outside it. ``ends`` are what its last two profiles say, the older
    one first, where those contradict each other; each is reckoned by itself (`by_ends`). What is not ``profiled`` was
    stated. ``on_a_core`` is what it asks for (`asks`) where it is pinned to one.

    Needs are compared as objects: companies are remembered by them.
    """

    use: float
    turns: float = 1.0
    turns_half: float = 0.0
    unmeasured: float = 0.0
    unmeasured_in: str = ""
    ends: tuple[CpuNeed, CpuNeed] | None = None
    peak: float = 0.0
    peak_part: float = 1.0
    profiled: bool = True
    rest: float = field(init=False)
    on_a_core: tuple[float, float, float] = field(init=False)

    def __post_init__(self) -> None:
        """Make ready what is asked for again and again."""
        rest = self.use
        if self.in_turns:
            rest = max(0.0, self.use - self.peak_part * self.peak) / (1.0 - self.peak_part)
        object.__setattr__(self, "rest", rest)
        object.__setattr__(self, "on_a_core", self.asks(1.0))

    @property
    def in_turns(self) -> bool:
        """Whether it works and waits in turns."""
        return self.peak > self.use

    def asks(self, most: float) -> tuple[float, float, float]:
        """Cores that it asks for on average, at work and at rest, of ``most``."""
        asked = min(max(self.use, _LEAST_ASKED), most)
        return asked, max(asked, min(self.peak, most)), max(_LEAST_ASKED, min(asked, self.rest))


@lru_cache(maxsize=_KEPT)
def _stranger(use: float) -> CpuNeed:
    return CpuNeed(use, unmeasured=1.0, profiled=False)


class Sharing(NamedTuple):
    """Of the members of one set, in their order.

    Attributes:
        stretch: run time over run time alone for want of CPU time only, at least 1.
        weights: ``weights[i][j]``, the part of the running time of i in which j runs beside it on other cores, in
            [0, 1], relative to j alone; 0 on the diagonal.
        why: in words, "" for a member that lacks nothing.
        half: half-widths of the 90 % intervals of ``stretch`` for what taking turns costs; () where nobody does.
        unmeasured: how far the intervals of ``stretch`` reach up besides, where what turns cost was not measured.
        least: what ``stretch`` may be as well, where members without a profile mostly wait, and those that wait in
            turns never meet; () where there are none.
    """

    stretch: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    why: tuple[str | Words, ...]
    half: tuple[float, ...] = ()
    unmeasured: tuple[float, ...] = ()
    least: tuple[float, ...] = ()


def needs(profiles: Iterable[Profile]) -> dict[str, CpuNeed]:
    """What profiles say, by application key; phases count by the run time they take."""
    return {profile.key: _with_ends(profile) for profile in profiles}


def share(members: Sequence[App], capacity: Capacity, known: Mapping[str, CpuNeed]) -> Sharing | None:
    """How the members share cores; None where each has what it asks for and cores of its own."""
    pinned = [core for app in members for core in app.cores]
    if len(set(pinned)) == len(pinned) if pinned else sum([app.cpu_milli for app in members]) <= capacity.cpu_milli:
        return None
    needed = [known.get(app.key) or _stranger(app.cpu_milli / 1000) for app in members]
    found = _shared(members, capacity, needed)
    if found is None or all([need.profiled for need in needed]):  # noqa: C419 - it is faster
        return found
    calm = [
        need if need.profiled else _stranger(LEAST_USE * need.asks(_most(app))[0])
        for app, need in zip(members, needed, strict=True)
    ]
    played = _shared(members, capacity, calm, in_turns=False)
    least = (1.0,) * len(members) if played is None else tuple(map(min, found.least or found.stretch, played.stretch))
    return found._replace(least=least)


def _most(app: App) -> float:
    """Cores that it can keep busy: there is no limit but the node's to one that is not pinned."""
    return len(app.cores) or math.inf


def _shared(
    members: Sequence[App], capacity: Capacity, needed: Sequence[CpuNeed], *, in_turns: bool = True
) -> Sharing | None:
    """The same of what is needed; without ``in_turns`` as if nobody worked and waited in turns."""
    places = _places(members)
    if places and all([len(app.cores) < 2 for app in members]):  # noqa: C419 - it is faster
        return _by_core(members, needed, places, in_turns)
    one_way = partial(_granted, members, capacity, places)
    asked, at_work, at_rest = _asked([need.asks(_most(app)) for app, need in zip(members, needed, strict=True)])
    if not (in_turns and any(need.in_turns for need in needed)):
        granted = one_way(asked)
        return None if granted.enough else _told(members, capacity, needed, granted)
    mixed = _each_beside(one_way, at_rest, at_work), _each_beside(one_way, at_work, at_rest)
    ways = _Ways(one_way(asked), one_way(asked, at_work), one_way(at_work), one_way(at_rest), *mixed)
    if ways.met.enough:
        return None
    unmet = [[j for j, other in enumerate(members) if not _meet(app, other)] for app in members]
    return _widened(_told(members, capacity, needed, ways.mean()), needed, ways, unmet)


def _asked(asks: Sequence[tuple[float, float, float]]) -> tuple[list[float], list[float], list[float]]:
    """What each asks for on average; at work; at rest."""
    return [one[0] for one in asks], [one[1] for one in asks], [one[2] for one in asks]


def _meet(one: App, other: App) -> bool:
    return not one.cores or not set(one.cores).isdisjoint(other.cores)


def _by_core(
    members: Sequence[App], needed: Sequence[CpuNeed], places: Sequence[Sequence[int]], in_turns: bool
) -> Sharing:
    """Where nobody is pinned to several cores: each core's company by itself."""
    if len(places[0]) == len(members):
        return _company(tuple(needed), in_turns)[0]
    count = len(members)
    running, stretch, least = [1.0] * count, [1.0] * count, [1.0] * count
    half, unmeasured = [0.0] * count, [0.0] * count
    why: list[str | Words] = [""] * count
    for here in places:
        if len(here) > 1:
            of, parts = _company(tuple([needed[i] for i in here]), in_turns)
            for k, i in enumerate(here):
                running[i], stretch[i], why[i] = parts[k], of.stretch[k], of.why[k]
                half[i], unmeasured[i], least[i] = of.half[k], of.unmeasured[k], (of.least or of.stretch)[k]
    weights: list[tuple[float, ...]] = [()] * count
    for here in [*places, *[[i] for i, app in enumerate(members) if not app.cores]]:
        row = running.copy()
        for i in here:
            row[i] = 0.0
        told = tuple(row)
        for i in here:
            weights[i] = told
    return Sharing(tuple(stretch), tuple(weights), tuple(why), tuple(half), tuple(unmeasured), tuple(least))


@lru_cache(maxsize=_KEPT)
def _company(needed: tuple[CpuNeed, ...], in_turns: bool) -> tuple[Sharing, list[float]]:
    """How those that are pinned to one core share it, and how much of the time that each would run alone it does."""
    asked, at_work, at_rest = _asked([need.on_a_core for need in needed])
    apart = ((0.0,) * len(needed),) * len(needed)
    if not (in_turns and any([need.in_turns for need in needed])):  # noqa: C419 - it is faster
        granted = _Granted(asked, fairly(1.0, asked), _others(asked))
        running = granted.running()
        return _said(_pinned(needed, granted, running, apart), needed), running
    beside, beside_work, beside_rest = _others(asked), _others(at_work), _others(at_rest)
    met, rest = fairly(1.0, at_work), fairly(1.0, at_rest)
    lulled, roused = level_beside(1.0, at_work, met), level_beside(1.0, at_rest, rest)
    ways = _Ways(
        _Granted(asked, fairly(1.0, asked), beside),
        _Granted(asked, by_chance(1.0, asked, at_work, met), beside),
        _Granted(at_work, met, beside_work),
        _Granted(at_rest, rest, beside_rest),
        _Granted(at_rest, [*map(min, at_rest, lulled)], beside_work),
        _Granted(at_work, [*map(min, at_work, roused)], beside_rest),
    )
    mean = ways.mean()
    running = mean.running()
    return _widened(_pinned(needed, mean, running, apart), needed, ways), running


def _widened(
    mean: Sharing, needed: Sequence[CpuNeed], ways: _Ways, unmet: Sequence[Sequence[int]] | None = None
) -> Sharing:
    """The same where some work and wait in turns, and meet by chance.

    The intervals reach from where they never meet to where they always do: those that began together stay together.

    Args:
        mean: of what each gets on average; ``why`` may lack.
        needed: by each.
        ways: what each gets.
        unmet: those that each never meets on a core; None where all meet.
    """
    never, together, below, beside, roused = [
        _stretches(way, needed) for way in (ways.never, ways.met, ways.rest, ways.lulled, ways.roused)
    ]
    resting = [*map(_rests, needed, beside, roused)]
    all_resting = sum(resting)
    least, most, said = [], [], []
    where = "cores" if ways.met.beside is None else "core"
    up = mean.unmeasured or (0.0,) * len(needed)
    each = zip(needed, mean.stretch, never, together, below, beside, resting, up, strict=True)
    for i, (need, mid, apart, met, low, beside_work, rests, unmeasured) in enumerate(each):
        alone = all_resting - rests
        if unmet is not None:
            alone = sum([one for j, one in enumerate(resting) if j != i and j not in unmet[i]])
        if alone > 1.0:
            alone = 1.0
        at_work, part = need.peak_part * met, 1.0 - need.peak_part
        always = max(at_work + part * low, (at_work + part * beside_work) / (1.0 - alone + alone * beside_work / low))
        shortest, _, longest = sorted((mid, apart, always))
        least.append(shortest)
        more = longest - mid
        most.append(more if more > unmeasured else unmeasured)
        if longest <= shortest + 2 * _SLIGHT:  # the same to two digits
            said.append(mean.why[i] if mean.why else _why(need, mid, unmeasured))
        else:
            unsaid = need if need.profiled and unmeasured > _SLIGHT else None
            said.append(Words(_by_chance_in_words, mid, shortest, longest, where, unsaid))
    return Sharing(mean.stretch, mean.weights, tuple(said), mean.half, tuple(most), tuple(least))


def _rests(need: CpuNeed, at_rest: float, at_work: float) -> float:
    """The most of the time that one is outside its peak, there stretched the most, and in its peak the least."""
    outside = (1.0 - need.peak_part) * at_rest
    return outside / (outside + need.peak_part * at_work)


def _by_chance_in_words(mid: float, least: float, most: float, where: str, unmeasured: CpuNeed | None) -> str:
    said = f"{mid:.2f}x as it meets the others on the {where} by chance ({least:.2f}x to {most:.2f}x)"
    return f"{said}, {_unmeasured_in_words(unmeasured)}" if unmeasured else said


def _unmeasured_in_words(need: CpuNeed) -> str:
    words = "what taking turns costs it was not measured"
    return f"{words} in {need.unmeasured_in}" if need.unmeasured_in else words


def by_ends(members: Sequence[App], capacity: Capacity, known: Mapping[str, CpuNeed]) -> Iterator[dict[str, CpuNeed]]:
    """What is known by one or the other of profiles that contradict each other; none where those change nothing.

    Each contradicted application may be as either says, whatever holds for the others: all combinations of a few; of
    more, each one both ways beside others that all need little or all need much, which hold the ends of its stretch.
    """
    two = {app.key: sorted(need.ends, key=_little) for app in members if (need := known.get(app.key)) and need.ends}
    if not two or not (sum(app.cpu_milli for app in members) > capacity.cpu_milli or any(app.cores for app in members)):
        return
    numbers = range(len(two))
    if len(two) <= _ALL_COMBINED:
        chosen = [*product((0, 1), repeat=len(two))]
    else:
        chosen = [tuple(one if k == own else 1 - one for k in numbers) for own in (*numbers, -1) for one in (0, 1)]
    for which in chosen:
        yield {**known, **{key: ends[k] for (key, ends), k in zip(two.items(), which, strict=True)}}


def _little(need: CpuNeed) -> tuple[float, float]:
    return need.use, need.turns


def _with_ends(profile: Profile) -> CpuNeed:
    if not profile.between:
        return _need(profile)
    old, new = map(_need, profile.between)
    return replace(new, ends=(old, new))


def _need(profile: Profile) -> CpuNeed:
    use = turns = half = total = 0.0
    unmeasured: dict[str, float] = {}
    levels: list[tuple[float, float]] = []  # (part of the time, cores kept busy)
    for phase in profile.phases:
        cpu_use = phase.cpu_use
        use += phase.share * cpu_use
        total += phase.share
        curve = phase.sensitivity.get("cpu")
        share = phase.share * (1.0 - phase.pauses.part if phase.pauses else 1.0)  # curves are those of its work
        turns += phase.share - share
        if phase.pauses:
            levels.append((phase.share - share, 0.0))
            cpu_use = min(cpu_use * phase.share / share, max(profile.cpus, cpu_use))
        levels.append((share, cpu_use))
        on_a_core = min(1.0, max(cpu_use, 1e-3))
        ideal = on_a_core / fairly(1.0, [on_a_core, 1.0])[0]
        measured = curve.at(1.0) / ideal if curve else 1.0
        turns += share * min(_TURNS_MOST, max(1.0, measured))
        half += share * min(_TURNS_MOST - 1.0, max(curve.halves) / ideal) if curve else 0.0
        unmeasured[phase.phase] = 0.0 if curve else share
    for name, one in profile.stepless.items():
        use += one.share * one.cpu_use
        turns += one.share
        unmeasured[name] = one.share * min(1.0, one.cpu_use)
        total += one.share
        levels.append((one.share, one.cpu_use))
    peak, peak_part = 0.0, 1.0
    busy = [(part, cores) for part, cores in levels if part > 0.0 and cores > use / total + _ALIKE]
    if busy:
        peak_part = sum(part for part, _ in busy)
        peak = sum(part * cores for part, cores in busy) / peak_part
        peak_part /= total
    named = [name for name, part in unmeasured.items() if part > _SLIGHT]
    return CpuNeed(
        use / total,
        turns / total,
        half / total,
        sum(unmeasured.values()) / total,
        ", ".join(named) if len(named) < len(unmeasured) else "",
        peak=peak,
        peak_part=peak_part,
    )


class _Granted(NamedTuple):
    """Of one set: cores that each asks for, and gets; what others ask of each of its own; what all ask for.

    ``beside`` is None where nobody is pinned, ``total`` told only there.
    """

    asked: list[float]
    got: list[float]
    beside: list[float] | None
    total: float = 0.0

    @property
    def enough(self) -> bool:
        """Whether each has what it asks for, and cores of its own."""
        return self.beside is None and self.got is self.asked

    def running(self) -> list[float]:
        """How much of the time that each would run alone it does."""
        return [got / asked if got < asked else 1.0 for got, asked in zip(self.got, self.asked, strict=True)]


class _Ways(NamedTuple):
    """Where they never meet; by chance; all at work; all at rest; each one at rest beside all at work; the reverse."""

    never: _Granted
    chance: _Granted
    met: _Granted
    rest: _Granted
    lulled: _Granted
    roused: _Granted

    def mean(self) -> _Granted:
        """By chance, and no more than where all rest."""
        asked, got, beside, total = self.chance
        got = [min(cores, one * most) for cores, one, most in zip(got, asked, self.rest.running(), strict=True)]
        return _Granted(asked, got, beside, total)


def _places(members: Sequence[App]) -> list[list[int]]:
    """Of each core that any are pinned to, who is; none where nobody is."""
    on_core: dict[int, list[int]] = {}
    for i, app in enumerate(members):
        for core in app.cores:
            on_core.setdefault(core, []).append(i)
    return [*on_core.values()]


def _granted(
    members: Sequence[App],
    capacity: Capacity,
    places: Sequence[Sequence[int]],
    asked: list[float],
    at_work: Sequence[float] | None = None,
) -> _Granted:
    """``at_work``: what they ask for while they work; with it those that wait in turns meet by chance."""
    if places:
        return _on_cores(members, places, asked, at_work)
    total = capacity.cpu_milli / 1000
    stated = [app.cpu_milli / 1000 for app in members]
    asked = [max(1e-3, min(one, limit)) for one, limit in zip(asked, stated, strict=True)]
    alone = [min(one, total) for one in asked]
    if at_work:
        at_most = [max(1e-3, min(one, limit, total)) for one, limit in zip(at_work, stated, strict=True)]
        return _Granted(alone, by_chance(total, alone, at_most), None, sum(asked))
    return _Granted(alone, alone if sum(alone) <= total else fairly(total, alone), None, sum(asked))


def _each_beside(granted: Callable[[list[float]], _Granted], own: Sequence[float], others: Sequence[float]) -> _Granted:
    """Where each one asks for its ``own`` while the rest ask for what they do as ``others``."""
    each = [granted([*others[:i], one, *others[i + 1 :]]) for i, one in enumerate(own)]
    beside = [one.beside[i] for i, one in enumerate(each) if one.beside is not None]
    got = [one.got[i] for i, one in enumerate(each)]
    return _Granted([one.asked[i] for i, one in enumerate(each)], got, beside or None)


def _others(asked: Sequence[float]) -> list[float]:
    total = sum(asked)
    return [1.0 if total - one > 1.0 else max(0.0, total - one) for one in asked]


def _on_cores(
    members: Sequence[App], places: Sequence[Sequence[int]], asked: list[float], at_work: Sequence[float] | None
) -> _Granted:
    got, beside = [0.0 if app.cores else one for app, one in zip(members, asked, strict=True)], [0.0] * len(asked)
    for here in places:
        widths = [len(members[i].cores) for i in here]
        parts = [asked[i] / cores for i, cores in zip(here, widths, strict=True)]
        if at_work:
            shares = by_chance(1.0, parts, [at_work[i] / cores for i, cores in zip(here, widths, strict=True)])
        else:
            shares = fairly(1.0, parts)
        for i, granted, others, cores in zip(here, shares, _others(parts), widths, strict=True):
            got[i] += granted
            beside[i] += others / cores
    return _Granted(asked, got, beside)


def _stretches(granted: _Granted, needed: Sequence[CpuNeed]) -> list[float]:
    asked, got, beside = granted.asked, granted.got, granted.beside
    if beside is None:
        return [1.0 / part for part in granted.running()]
    return [
        (1.0 + (need.turns - 1.0) * cost) / (had / one if had < one else 1.0)
        for need, one, had, cost in zip(needed, asked, got, beside, strict=True)
    ]


def _told(members: Sequence[App], capacity: Capacity, needed: Sequence[CpuNeed], granted: _Granted) -> Sharing:
    running = granted.running()
    if granted.beside is None:
        return _crowded(capacity.cpu_milli / 1000, granted, running)
    return _said(_pinned(needed, granted, running, _weights(members, running)), needed)


def _pinned(
    needed: Sequence[CpuNeed], granted: _Granted, running: Sequence[float], weights: tuple[tuple[float, ...], ...]
) -> Sharing:
    assert granted.beside is not None
    costs = [cost / part for cost, part in zip(granted.beside, running, strict=True)]
    half = tuple([need.turns_half * cost for need, cost in zip(needed, costs, strict=True)])
    up = tuple([UNKNOWN_EXCESS * need.unmeasured * cost for need, cost in zip(needed, costs, strict=True)])
    return Sharing(tuple(_stretches(granted, needed)), weights, (), half, up)


def _said(sharing: Sharing, needed: Sequence[CpuNeed]) -> Sharing:
    return sharing._replace(why=tuple(map(_why, needed, sharing.stretch, sharing.unmeasured)))


def _why(need: CpuNeed, stretch: float, unmeasured: float) -> str | Words:
    unsaid = need if unmeasured > _SLIGHT and need.profiled else None
    return Words(_sharing_in_words, stretch, unsaid) if unsaid or stretch > 1.0 + _SLIGHT else ""


def _sharing_in_words(stretch: float, unmeasured: CpuNeed | None) -> str:
    said = [f"{stretch:.2f}x by sharing a core"] if stretch > 1.0 + _SLIGHT else []
    return ", ".join([*said, _unmeasured_in_words(unmeasured)] if unmeasured else said)


def _weights(members: Sequence[App], running: Sequence[float]) -> tuple[tuple[float, ...], ...]:
    cores = [app.cores for app in members]
    placed = {here: frozenset(here) for here in cores}
    apart = {(a, b): _apart(placed[a], placed[b]) for a in placed for b in placed}
    count = range(len(members))
    return tuple([tuple([0.0 if i == j else running[j] * apart[cores[i], cores[j]] for j in count]) for i in count])


def _apart(a: frozenset[int], b: frozenset[int]) -> float:
    """Part of the time that two, each spread evenly over its cores, are on different ones."""
    return 1.0 - len(a & b) / (len(a) * len(b)) if a and b else 1.0


def _crowded(total: float, granted: _Granted, running: Sequence[float]) -> Sharing:
    alone, got = granted.asked, granted.got
    stretch = tuple(1.0 / part for part in running)
    words = f"by cores: {granted.total:.5g} of {total:.5g} cores"
    why = tuple([f"{factor:.2f}x {words}" if factor > 1.0 + _SLIGHT else "" for factor in stretch])
    # While i runs, the others have what it leaves.
    all_got, count = sum(got), range(len(got))
    left = [min(1.0, (total - alone[i]) / max(all_got - got[i], 1e-9)) for i in count]
    weights = tuple(tuple(0.0 if i == j else running[j] * left[i] for j in count) for i in count)
    return Sharing(stretch, weights, why)
