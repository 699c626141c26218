"""Those that work and wait in turns meet on shared cores by chance: what part of the cores each then gets.

A closed queueing network with one customer for each member: the cores are a station that all who are at work share
evenly, and one that waits (a phase without steps, a pause) is elsewhere. A member that arrives finds the others as they
are in the network without it (the arrival theorem: Reiser and Lavenberg, J. ACM 27, 1980); that network is solved by
the fixed point of Bard and Schweitzer (1979). Of two on one core it is exact.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROUNDS = 3
"""Of the fixed point; each leaves less than a quarter of the error."""


def fairly(capacity: float, asked: Sequence[float]) -> list[float]:
    """Max-min fair shares of ``capacity``.

    >>> fairly(1.0, [0.2, 1.0, 1.0])
    [0.2, 0.4, 0.4]
    """
    if sum(asked) <= capacity:
        return list(asked)
    level = _level(capacity, sorted(asked), len(asked))
    return [one if one < level else level for one in asked]


def level_beside(capacity: float, asked: Sequence[float], got: Sequence[float]) -> list[float]:
    """What each would get if it took all that it can, beside the others as they ask.

    Args:
        capacity: cores.
        asked: by each.
        got: of it, `fairly`: who gets less than it asks for would get no more if it asked for more.

    >>> level_beside(1.0, [0.2, 1.0, 0.3], [0.2, 0.5, 0.3])
    [0.35, 0.5, 0.4]
    """
    ascending = sorted(asked)
    found = []
    for one, level in zip(asked, got, strict=True):
        if level < one:
            found.append(level)
        else:
            others = ascending.copy()
            others.remove(one)
            found.append(_level(capacity, others, len(asked)))
    return found


def _level(capacity: float, ascending: Sequence[float], many: int) -> float:
    """The max-min fair share of those of ``many`` that ask for more than it; who is not named asks for any number."""
    left = level = capacity
    for one in ascending:
        level = left / many
        if one >= level:
            return level
        left, many = left - one, many - 1
    return left / many if many else level


def by_chance(
    capacity: float, asked: Sequence[float], at_work: Sequence[float], met: Sequence[float] | None = None
) -> list[float]:
    """Cores that each gets on average, where those that are not always at work meet by chance.

    Args:
        capacity: cores.
        asked: cores that each keeps busy alone, over all its time.
        at_work: the same while it works, at least as many.
        met: of those, `fairly`, for who has it.

    >>> by_chance(1.0, [0.5, 1.0], [1.0, 1.0])  # both 1.5 times as slow
    [0.3333333333333333, 0.6666666666666666]
    """
    got = list(asked)
    if sum(at_work) <= capacity:
        return got
    most = met or fairly(capacity, at_work)
    if asked == at_work:
        return list(most)
    # The others lack nothing, whoever comes. The fixed point is near, but not reached: in one order for all.
    all_there = enumerate(zip(at_work, asked, most, strict=True))
    short = sorted([(width, mean, i) for i, (width, mean, one) in all_there if one < width - 1e-12])
    if not short:
        return got
    widths = [width for width, _, _ in short]
    parts = [mean / width for width, mean, _ in short]
    left = capacity - sum(asked) + sum([mean for _, mean, _ in short])
    steps = [(j, part, 1.0 - part, width / left) for j, (part, width) in enumerate(zip(parts, widths, strict=True))]
    for k, (width, mean, i) in enumerate(short):
        longer = _crowding(left, k, _present(parts, steps, k), widths)
        got[i] /= 1.0 + mean / width * (longer - 1.0)
    return fairly(capacity, got) if sum(got) > capacity else got


def _present(parts: Sequence[float], steps: Sequence[tuple[int, float, float, float]], without: int) -> list[float]:
    """Of each, the part of the time that it is at work in the network ``without`` one member, which has 0.

    Args:
        parts: of each, alone.
        steps: of the fixed point: who, its part of the time at work and waiting, its cores in parts of the capacity.
        without: whom.
    """
    present = [*parts]
    present[without] = 0.0
    if len(present) == 2:
        return present
    many = 1.0 + sum(present)
    for j, part, waiting, width in [*steps[:without], *steps[without + 1 :]] * _ROUNDS:
        many -= present[j]
        longer = width * many
        present[j] = often = part / (part + waiting / longer) if longer > 1.0 else part
        many += often
    return present


def _crowding(capacity: float, one: int, present: Sequence[float], widths: Sequence[float]) -> float:
    """How much longer the work of ``one`` takes on average beside others that are ``present`` so often.

    Where it matters who meets whom at once, the cores that others take are held to be normally distributed; a line from
    nobody to everybody, exact for one other, lies above whatever they are.
    """
    width = widths[one]
    level = capacity / (1.0 + sum(present))  # what each gets about; the narrower ones take what they ask for
    mean = everybody = squares = 0.0
    for j, other in enumerate(widths):
        if j != one:
            cores = width if other >= level else width * other / level
            everybody += cores
            met = present[j] * cores
            mean += met
            squares += met * (cores - met)
    over = (width + mean) / capacity - 1.0
    if width >= capacity:
        return 1.0 + over
    line = 1.0 + mean / everybody * max(0.0, (width + everybody) / capacity - 1.0) if everybody else 1.0
    if len(widths) == 2:
        return line
    deviation = math.sqrt(squares) / capacity
    if deviation < 1e-9:
        return max(1.0, 1.0 + over)
    density = math.exp(-0.5 * (over / deviation) ** 2) / math.sqrt(2.0 * math.pi)
    below = 0.5 * (1.0 + math.erf(over / deviation / math.sqrt(2.0)))
    return min(line, 1.0 + over * below + deviation * density)
