"""The point of the system: sharing that keeps its promises.

Each pass, in this order:

1. *Guard*: where a primary job is measured to go slower than its bound allows (beyond the noise of its own rate alone),
   a harvest neighbour is throttled to a half or a quarter, whichever should be enough, and else suspended; where nobody
   needs that any more it is lifted again.
2. *Start*: primary jobs before the harvest jobs of their priority, each class in order of submission plus `WEIGHT`
   times the expected duration, so short ones pass long ones but not for ever. Among the first few of a class and
   priority that fit, the one that costs its neighbours and itself least is taken, and on the node where it costs least;
   never where the estimator says that a primary job's bound breaks (a node counts as full at `neighbours.FULL` of its
   bandwidth, since stated demands may be too low). Jobs without GPUs leave a few cores for each free GPU, unless they
   are harvest. The last few that wait, of like lengths, start in the order that leaves the least idle time at the end
   and waiting till then, added up (`tandem.share.deciding.last_few`).
3. *Room*: a primary head that lacks cores gets those of harvest jobs of no higher priority, which are suspended. This
   comes before step 2 once room is being made for it, or once it has waited for `DUE` times its expected duration: what
   is freed would go from one harvest job to the next.
4. *Reserve and backfill* around the head, as EASY does, with expected durations instead of limits; what harvest jobs
   hold that would be suspended for the head counts as free, so they may fill what is kept for it.
5. *Resume* suspended harvest jobs where that breaks no bound; before step 2 those that go before whoever could start:
   harvest jobs that have not begun come after those of their priority that have.

Its options are in `OPTIONS`.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from tandem.core.units import human_duration
from tandem.share.deciding.guard import guard
from tandem.share.deciding.last_few import FEW, costs_s
from tandem.share.deciding.neighbours import BOUND_BREAKS, NODES, Neighbours
from tandem.share.deciding.owed import Owed
from tandem.share.deciding.policy import Range
from tandem.share.deciding.primary_room import PrimaryRoom, displaces, gives_way, gives_way_to, primary_room
from tandem.share.deciding.resuming import resume, suspended
from tandem.share.events import Decision, Reserve, Resume, Start, Suspend
from tandem.share.model import JobClass, Need
from tandem.share.state.demand_index import Shape
from tandem.share.state.life import Life
from tandem.share.state.view import Reservation, View, best_fit, node_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np

    from tandem.share.deciding.making_room import Suits
    from tandem.share.model import Node, Placement
    from tandem.share.state.accounts import Forecast
    from tandem.share.state.pending import Key

__all__ = [
    "OPTIONS",
    "PLANS_BY_LIMIT",
    "RANGES",
    "RESUMES",
    "WINDOW",
    "barred_until",
    "decide",
    "displaces",
    "gives_way",
    "held_back_until",
    "kept_milli",
    "plan_s",
    "rank",
    "wake_at",
]

PLANS_BY_LIMIT = False
RESUMES = True
OPTIONS: Mapping[str, str] = {
    "hybrid_window": "how many waiting jobs are weighed against each other",
    "hybrid_safe": "1: bounds have to hold at the upper end of the estimator's interval too; 0: in its middle",
    "hybrid_cores_per_gpu": "cores that primary jobs without GPUs leave for each free GPU",
}
RANGES: Mapping[str, Range] = {
    "hybrid_window": Range(1, 100_000),  # so long a queue is looked through whole
    "hybrid_safe": Range(0, 1),
    "hybrid_cores_per_gpu": Range(0, whole=False),
}

WEIGHT = 4.0

HARVEST_AFTER_S = 1e10
"""Harvest jobs fill what primary ones of their priority leave: they stand behind all of them in the queue."""

WINDOW = 6
CORES_PER_GPU = 4
LOOK = 64
"""How many waiting jobs of one shape are looked at where the first ones find no place."""

DUE = 1.0
"""A primary job that has waited this many times its expected duration does so for no harvest job any more."""

WORTH_SAYING_S = 1.0
"""Of a wait shorter than this nothing is said."""

PATIENCE = 8.0
"""A job that has waited this many times its expected duration (and a minute) is not passed over any more."""


def rank(life: Life, options: Mapping[str, float]) -> float:
    """Submission plus a multiple of the expected duration, harvest jobs after all primary ones: a static order."""
    del options
    after_s = HARVEST_AFTER_S if life.job.klass is JobClass.HARVEST else 0.0
    return after_s + life.submitted_at + WEIGHT * life.expected.mid


def plan_s(life: Life) -> float:
    """The expected duration."""
    return life.expected.mid


def decide(view: View, now: float) -> list[Decision]:
    """One pass."""
    decisions = guard(view, now)
    near = Neighbours.of(view)
    first = view.head()
    owed = first is not None and (first.has_room or now >= _due_at(first))  # what is freed for it is nobody else's
    made = primary_room(view, first, _good_for(view, near, first)) if first is not None and owed else None
    if made is not None:
        decisions += made.suspensions
    elif view.curbed:
        decisions += resume(view, near, now, _of_head(view, near), before=_first_let_on(view))
    if view.pending.fitting():
        decisions += _start(view, near, None, made)
    if made is not None:
        return decisions
    head = view.head()
    if head is not None:
        decisions += _for_head(view, near, head)
    if not any(isinstance(decision, Suspend | Resume) for decision in decisions):  # cores that come free are spoken for
        decisions += resume(view, near, now, _of_head(view, near))
    return decisions


def wake_at(view: View) -> float | None:
    """When the head is due, if harvest jobs may have to go for it then, or one that fits leaves cores no longer."""
    head = view.head()
    times = [_due_at(head)] if head is not None and displaces(head) and view.harvesting else []
    if view.has_gpus:
        window = int(view.options.get("hybrid_window", WINDOW))
        shapes = (shape for shape in view.pending.fitting() if not shape.gpu_milli)
        keys = itertools.chain.from_iterable(itertools.islice(view.pending.shape(shape), window) for shape in shapes)
        times += [held_back_until(view, view.jobs[key[2]]) for key in keys]
    return min((at for at in times if at > view.now), default=None)


def barred_until(view: View, life: Life) -> float:
    """Until when no node takes a waiting job though it would fit, for the sake of bounds; now where none does.

    Harvest jobs that give way to it do so for that, too.
    """
    near = Neighbours.of(view)
    ends = []
    for n in _unsuitable(view, life):
        there = view.neighbours(n)
        gone = [one for one in there if gives_way_to(one, life)]
        if gone and near.bounds_hold(n, life, gone):
            return view.now
        ends.append(max((one.planned_end for one in there if one not in gone), default=view.now))
    until = min(ends, default=view.now)
    return view.now if math.isinf(until) else until


def _unsuitable(view: View, life: Life) -> list[int]:
    """The nodes on which a waiting job would fit, where a bound would break on each of them; else none."""
    if len(life.shape.parts) > 1 or not view.contended:
        return []
    near = Neighbours.of(view)
    fitting: list[int] = view.index.nodes_now(life.shape.rows[0])[:NODES].tolist()
    return [] if any(near.bounds_hold(n, life) for n in fitting) else fitting


def _first_let_on(view: View) -> Life | None:
    """The first job that waits and would be let onto a node now.

    Only the first few jobs are looked at, and the one with GPUs for which cores are kept from the head.
    """
    head = view.head()
    guest = _kept_for(view, head) if head is not None else None
    first = itertools.islice(view.pending.in_order(), int(view.options.get("hybrid_window", WINDOW)))
    for life in itertools.chain(() if guest is None else (guest,), (view.jobs[key[2]] for key in first)):
        if view.index.may_fit(life.shape) and not _unsuitable(view, life):
            return life
    return None


def _due_at(life: Life) -> float:
    return life.submitted_at + DUE * life.expected.mid


def impatient(life: Life, now: float) -> bool:
    """Whether the job has waited so long that it is not passed over any more."""
    return now > _impatient_from(life)


def _impatient_from(life: Life) -> float:
    return life.submitted_at + 60 + PATIENCE * life.expected.mid


def _for_head(view: View, near: Neighbours, head: Life) -> list[Decision]:
    """Room for a primary head at the cost of harvest jobs; otherwise a reservation and what fits around it."""
    made = primary_room(view, head, _good_for(view, near, head))
    if made is None and (other := _kept_for(view, head)) is not None:
        made = primary_room(view, other, _good_for(view, near, other, behind=head))
    if made is not None:
        return list(made.suspensions)
    passed_over = len(head.shape.parts) == 1 and view.index.may_fit(head.shape)  # a bound would break, or GPU jobs lack
    if passed_over or not view.pending.fitting():
        return []
    reservation = _reservation(view, near, head)
    if reservation is None:  # the nodes that could hold it are away: nobody has to wait for that
        return _start(view, near, Reservation(head.id, {}, math.inf))
    names = node_names(view, reservation.nodes)
    kept = Reserve(head.id, reservation.at, names, "it is first in the queue; nodes are kept for it")
    return [kept, *_start(view, near, reservation)]


def _of_head(view: View, near: Neighbours) -> Reservation | None:
    """What is kept for a head that does not fit."""
    head = view.head()
    return None if head is None or not view.curbed or view.index.may_fit(head.shape) else _reservation(view, near, head)


def _reservation(view: View, near: Neighbours, head: Life) -> Reservation | None:
    """When and where the head can start, for which, if it is of one part, harvest jobs are suspended then.

    Where that would be enough now, but bounds do not hold with those that stay, it is when they leave.
    """
    if not displaces(head) or len(head.shape.parts) > 1:
        return view.earliest(head)
    found = view.earliest(head, lambda one: gives_way_to(one, head))
    if found is None or found.at > view.now:
        return found
    stay = {one.id: one for n in found.nodes for one in view.neighbours(n) if not gives_way_to(one, head)}
    ends = (one.planned_end for one in stay.values() if any(not near.suit(n, head, one) for n in one.numbers))
    return replace(found, at=max(ends, default=found.at))


def _kept_for(view: View, head: Life) -> Life | None:
    """The first primary job with GPUs, for which cores are kept from the head; None where there is none."""
    if not _holds_back(view, head) or not any(_keeps_from(view, node, head) for node in view.ledger.nodes):
        return None
    first = (view.jobs[key[2]] for key in itertools.islice(view.pending.in_order(), LOOK))
    other = next((life for life in first if life.shape.gpu_milli and displaces(life)), None)
    fitting = other is not None and _on_one_node(other.shape) and other.job.priority >= head.job.priority
    return other if fitting else None


def _keeps_from(view: View, node: Node, head: Life) -> bool:
    """Whether cores of a node are kept from the head for GPU jobs."""
    return bool(node.gpus) and _each_milli(view, node, head.shape.parts[0].need.cpu_milli) > 0


def _good_for(view: View, near: Neighbours, head: Life, behind: Life | None = None) -> Suits:
    """Whether a node is good for a job: the head, or one ``behind`` it, for which cores have to be kept from that."""
    holds_back = _holds_back(view, head)

    def suits(n: int, need: Need, gone: list[Life], forecast: Forecast) -> bool:
        if behind is not None and not _keeps_from(view, view.ledger.nodes[n], behind):
            return False
        free = forecast.cpu_milli - need.cpu_milli
        return (not holds_back or _leaves_cores(view, n, need, free, gone)) and near.bounds_hold(n, head, gone)

    return suits


Kind = tuple[str, JobClass, float]
"""What, besides its shape, decides whether bounds hold with a job: its application, class and bound."""


@dataclass(slots=True)
class _Pass:
    """One pass over the waiting jobs.

    Attributes:
        barred: shapes of which only jobs that end before the reservation, or yield to it, may still be tried.
        shut: shapes of which none may be tried any more.
        closed: kinds of jobs of which none may be tried any more, by their shape, which is not shut.
        quiet: nodes on which nobody starts who would disturb ``guest``, which waits for its neighbours to go.
        made: room that is being made, where nobody else starts.
        costs_s: of the candidates, where they are the last few: what it costs in seconds to start each of them first.
        owed: what suspended jobs are owed, for jobs of one priority and class, until somebody is placed.
    """

    reservation: Reservation | None
    window: float
    barred: set[Shape] = field(default_factory=set)
    shut: set[Shape] = field(default_factory=set)
    closed: dict[Shape, set[Kind]] = field(default_factory=dict)
    quiet: frozenset[int] = frozenset()
    guest: Life | None = None
    made: PrimaryRoom | None = None
    costs_s: Mapping[int, float] = field(default_factory=dict)
    owed: tuple[tuple[int, int, JobClass], Owed] | None = None


def _start(
    view: View, near: Neighbours, reservation: Reservation | None, made: PrimaryRoom | None = None
) -> list[Decision]:
    """Start what fits, in order; with a reservation, only what does not delay it.

    Without one the pass ends when the head of the queue does not fit by count: then it is owed a reservation.
    """
    decisions: list[Decision] = []
    this = _Pass(reservation, reservation.at - view.now if reservation is not None else 0.0, made=made)
    while True:
        candidates = _candidates(view, this)
        if not candidates:
            return decisions
        life = candidates[0] if len(candidates) == 1 else _least_costly(view, near, candidates, this)
        resumed = resume(view, near, view.now, _of_head(view, near), before=life) if view.curbed and not made else []
        if resumed:
            decisions += resumed
            continue
        placement = _place(view, near, life, this)
        if placement is not None:
            decisions.append(Start(life.id, placement, near.words(life) + _waited(life, view.now)))
        elif reservation is None or life.shape in this.barred:
            _close(view, this, life)
            if this.guest is None and life is view.head() and impatient(life, view.now):
                this.guest, this.quiet = life, near.soonest_quiet(life)
        else:
            this.barred.add(life.shape)


def _waited(life: Life, now: float) -> str:
    """How long it had waited, and why it was refused a place last, where it was."""
    waited_s = now - life.queued_at
    if not life.hindered or waited_s < WORTH_SAYING_S:
        return ""
    return f"; it had waited {human_duration(waited_s)}, and was refused a place meanwhile: {life.hindered}"


def _close(view: View, this: _Pass, life: Life) -> None:
    """No job like ``life`` is tried any more; others of its shape are, which may suit the neighbours better."""
    alike = not (view.contended or view.curbed or _holds_back(view, life))  # in all that bars them
    if alike or len(life.shape.parts) > 1:
        this.shut.add(life.shape)
    else:
        this.closed.setdefault(life.shape, set()).add(_kind(life))


def _kind(life: Life) -> Kind:
    return life.job.app, life.job.klass, life.job.max_slowdown


def _candidates(view: View, this: _Pass) -> list[Life]:
    """The first few jobs in order that may be tried now."""
    head = view.head()
    guest = _kept_for(view, head) if head is not None and this.reservation is None else None
    if guest is not None and guest.has_room and _may_be_tried(view, this, guest):
        return [guest]
    if head is None or (this.reservation is None and not _may_go_first(view, head, this)):
        return []
    open_shapes = [shape for shape in view.pending.fitting() if shape not in this.shut]
    firsts = sorted(key for shape in open_shapes for key in _first_of(view, this, shape, 1))
    if not firsts:
        return []
    first = view.jobs[firsts[0][2]]
    if first.has_room or impatient(first, view.now):
        return [first]
    window = int(view.options.get("hybrid_window", WINDOW))
    this.costs_s = _last_few(view, this, window)
    if this.costs_s:
        last = sorted(this.costs_s, key=this.costs_s.__getitem__)  # of equal ones in the order of the queue
        return [view.jobs[job] for job in (last if view.contended else last[:1])]
    if not view.contended:
        return [first]
    shapes = [view.jobs[key[2]].shape for key in firsts[:window]]
    keys = heapq.merge(*(_first_of(view, this, shape, window) for shape in shapes))
    lives = [view.jobs[key[2]] for key in itertools.islice(keys, window)]
    return list(itertools.takewhile(lambda life: _rivals(life, first), lives))


def _may_be_tried(view: View, this: _Pass, life: Life) -> bool:
    shape = life.shape
    return view.index.may_fit(shape) and shape not in this.shut and _kind(life) not in this.closed.get(shape, ())


def _last_few(view: View, this: _Pass, window: int) -> Mapping[int, float]:
    """What it costs to start each of the last few jobs that wait, in seconds; nothing where they keep their order.

    They are of one class and priority, and any of them may start now. Whoever is passed over was not submitted earlier.
    """
    free_choice = this.reservation is None and this.made is None and not (this.shut or this.closed)
    if not free_choice or not 1 < len(view.pending) <= min(window, FEW):
        return {}
    lives = [view.jobs[key[2]] for key in view.pending.in_order()]
    if any(
        not _on_one_node(life.shape) or not view.index.may_fit(life.shape) or not _rivals(life, lives[0])
        for life in lives
    ):
        return {}
    costs = costs_s(view, lives)
    return {
        life.id: costs[life.id]
        for k, life in enumerate(lives if costs else ())
        if all(one.submitted_at >= life.submitted_at and not impatient(one, view.now) for one in lives[:k])
    }


def _on_one_node(shape: Shape) -> bool:
    return len(shape.parts) == 1 and shape.parts[0].nodes == 1


def _rivals(one: Life, other: Life) -> bool:
    """Whether neither of the two goes before the other whatever it costs."""
    return one.job.klass is other.job.klass and one.job.priority == other.job.priority


def _first_of(view: View, this: _Pass, shape: Shape, most: int) -> Iterable[Key]:
    """The first ``most`` jobs of a shape that may be tried; one, where only those that are over in time may be."""
    queue = view.pending.shape(shape)
    closed, barred = this.closed.get(shape), shape in this.barred
    if not closed:
        if not barred:
            return itertools.islice(queue, most)
        key = queue.first_within(this.window)
        others = (one for one in itertools.islice(queue, LOOK) if _yields(this, view.jobs[one[2]]))
        return sorted({one for one in (key, next(others, None)) if one is not None})[:1]
    open_keys = (
        key
        for key in itertools.islice(queue, LOOK)
        if _kind(life := view.jobs[key[2]]) not in closed
        and (not barred or life.plan_s <= this.window or _yields(this, life))
    )
    return itertools.islice(open_keys, 1 if barred else most)


def _yields(this: _Pass, life: Life) -> bool:
    """Whether the job would be suspended for the one that has the reservation, so that it need not be over by then."""
    return this.reservation is not None and this.reservation.displaces(life)


def _may_go_first(view: View, head: Life, this: _Pass) -> bool:
    """Whether the head fits, as far as that is known; a gang of several parts may not, though each part does."""
    return view.index.may_fit(head.shape) and (len(head.shape.parts) == 1 or head.shape not in this.shut)


def _least_costly(view: View, near: Neighbours, candidates: list[Life], this: _Pass) -> Life:
    """The candidate whose start adds least to completion times, relative to its own duration; ties in order.

    Of the last few it is the one that adds least in all.
    """
    preference = best_fit(view.ledger)

    def cost(life: Life) -> float:
        part = life.shape.parts[0]
        accept = _acceptance(view, near, life, this)
        nodes = preference(view.index.nodes_now(life.shape.rows[0]), part.need)
        good = (n for n in nodes if accept(n, part.need, taken=False))
        if this.costs_s:
            return near.least_cost_s(life, good) + this.costs_s[life.id] - least_of_last_s
        return near.relative_cost(life, good)

    least_of_last_s = min(this.costs_s.values(), default=0.0)
    best, least = candidates[0], math.inf
    for life in candidates:
        costs = cost(life)
        if costs < least:
            best, least = life, costs
        if least == 0.0:
            break
    return best


def _place(view: View, near: Neighbours, life: Life, this: _Pass) -> Placement | None:
    preference = best_fit(view.ledger)
    accept = _acceptance(view, near, life, this)

    def order(nodes: np.ndarray, need: Need) -> Iterable[int]:
        """Refused before anything is taken, which costs much less; a gang's parts may meet, so it is asked after."""
        ranked: Iterable[int] = preference(nodes, need)
        if len(life.shape.parts) == 1:
            ranked = (n for n in ranked if accept(n, need, taken=False))
        return near.cheapest(life, ranked)

    whole = len(life.shape.parts) > 1 or life.shape.parts[0].need.gpu_milli
    return view.place(life, order, accept if whole else None)


class _Accepts(Protocol):
    def __call__(self, n: int, need: Need, *, taken: bool = True) -> bool: ...


def _acceptance(view: View, near: Neighbours, life: Life, this: _Pass) -> _Accepts:
    """Whether ``life`` may have ``need`` on a node, before it is taken there or after; says in the job why not."""
    reservation = None if life.plan_s <= this.window else this.reservation
    holds_back = _holds_back(view, life)
    owed = _owed(view, near, life, this) if view.curbed else None

    def accept(n: int, need: Need, *, taken: bool = True) -> bool:
        free = view.ledger.free[n, 0] - (0 if taken else need.cpu_milli)
        if reservation is not None and not (
            view.keeps(reservation, n)
            if taken
            else view.would_keep(reservation, n, _held_then(reservation, life, need))
        ):
            life.hindered = f"it would delay job {reservation.job}"
        elif holds_back and not _leaves_cores(view, n, need, free):
            life.hindered = "the cores that are left are kept for GPU jobs"
        elif this.made is not None and n in this.made.nodes and life is not this.made.guest:
            life.hindered = f"room is being made there for job {this.made.guest.id}"
        elif this.guest is not None and n in this.quiet and not near.suit(n, life, this.guest):
            life.hindered = f"job {this.guest.id} has waited for long, and beside it a bound would break"
        elif owed is not None and (one := owed.delayed(n, need, life.plan_s)) is not None:
            life.hindered = f"job {one.id}, which is suspended, is to have the cores it lacks first"
        elif not near.bounds_hold(n, life):
            life.hindered = BOUND_BREAKS
        else:
            return True
        return False

    return accept


def _owed(view: View, near: Neighbours, life: Life, this: _Pass) -> Owed:
    """What suspended jobs that go before ``life`` are owed now."""
    stage = len(view.placed), life.job.priority, life.job.klass
    if this.owed is None or this.owed[0] != stage:
        this.owed = stage, Owed(view, near, suspended(view, life))
    return this.owed[1]


def _held_then(reservation: Reservation, life: Life, need: Need) -> Need:
    """What the job still holds when the reservation comes, if it has not ended: memory alone if it is suspended."""
    return replace(need, cpu_milli=0, membw_mbs=0, nic_mbs=0) if reservation.displaces(life) else need


def _holds_back(view: View, life: Life) -> bool:
    """Whether the job has to leave cores for GPU jobs."""
    return view.now < held_back_until(view, life)


def held_back_until(view: View, life: Life) -> float:
    """Until when a waiting job leaves cores for GPU jobs; one of a raised priority never does."""
    cpu_only_primary = not life.job.gpu_total_milli and life.job.klass is JobClass.PRIMARY
    leaves = cpu_only_primary and life.job.priority <= 0 and view.has_gpus
    return _impatient_from(life) if leaves else -math.inf


def kept_milli(view: View, cpu_milli: int) -> float:
    """How much CPU for each free GPU, on average, a job leaves that takes ``cpu_milli`` of a node."""
    nodes = [node for n, node in enumerate(view.ledger.nodes) if node.gpus and view.ledger.is_up(n)]
    kept = sum(_each_milli(view, node, cpu_milli) * len(node.gpus) for node in nodes)
    return kept / max(1, sum(len(node.gpus) for node in nodes))


def _each_milli(view: View, node: Node, cpu_milli: int) -> float:
    """A few cores for each free GPU, as far as the node has four times as many; none where that is no whole core.

    A job that takes more than that even of an empty node is not kept from it.
    """
    spare = view.options.get("hybrid_cores_per_gpu", CORES_PER_GPU)
    each = min(1000 * spare, node.cpu_milli / (4 * len(node.gpus)))
    kept = each * len(node.gpus)
    return 0.0 if kept < 1000 or node.cpu_milli - cpu_milli < kept else each


def _leaves_cores(view: View, n: int, need: Need, free_milli: float, gone: Sequence[Life] = ()) -> bool:
    """Whether ``free_milli`` are what is kept for GPU jobs, with the cores of harvest jobs that are not ``gone``.

    Those would give way.
    """
    node = view.ledger.nodes[n]
    if not node.gpus:
        return True
    kept = _each_milli(view, node, need.cpu_milli) * view.ledger.free[n, 4] // 1000 * 1000  # whole cores
    if free_milli < kept and view.harvesting:
        harvest = [one.id for one in view.neighbours(n) if gives_way(one) and one not in gone]
        held = itertools.chain.from_iterable(map(view.ledger.holders(n).__getitem__, harvest))
        free_milli += sum(holding.share.need.cpu_milli for holding in held)
    return bool(free_milli >= kept)
