"""What neighbours would cost each other, from the estimator: the scheduler's only view of interference.

Most passes ask what was asked before: one node has changed, and the same jobs wait. So the answers for a node are
kept from pass to pass, until other jobs run there or the estimator has learned something of those that do.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tandem.estimate.corun import App, Capacity, Slowdown, known_as
from tandem.share.deciding.guard import primaries
from tandem.share.model import JobClass
from tandem.share.state.life import Life

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tandem.share.state.view import View

NODES = 4
"""Candidate nodes that are weighed against each other, in the order of the plain preference."""

FULL = 0.85
"""Part of a node's bandwidth up to which stated demands are believed to leave everybody their pace."""

SAFE = 1.0
"""Bounds have to hold at the upper end of the estimator's interval too (1), or in its middle (0)."""

BOUND_BREAKS = "a bound would break beside those that run now"
"""What a waiting job is told that would fit, but not beside these neighbours."""

_KEPT = 64
"""Answers kept for each node."""

_NAMED = 3
"""Kinds of neighbours that are named."""


class Neighbours:
    """Questions about co-running on the nodes of one view."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._estimator = view.estimator
        self._touched = view.ledger.watch()
        self._layout = view.ledger.layout
        self._companies: dict[int, _Company] = {}
        self._known: dict[App, bool] = {}
        self._revisions: dict[str, tuple[int, int]] = {}
        self._pass = 0

    @classmethod
    def of(cls, view: View) -> Neighbours:
        """Those of a view, with what is known of its nodes from earlier passes."""
        found = view.kept.get(cls)
        if found is None or found._estimator is not view.estimator or found._layout != view.ledger.layout:
            if found is not None:
                view.ledger.unwatch(found._touched)
            found = view.kept[cls] = cls(view)
        found._known.clear()
        found._revisions.clear()
        found._pass += 1  # the estimator learns between passes, never in one
        return found

    def bounds_hold(self, n: int, life: Life, without: Sequence[Life] = ()) -> bool:
        """Whether no primary job on node ``n``, ``life`` included, is predicted to break its bound."""
        if without:
            return self._hold(n, life, [one for one in self._view.neighbours(n, but=life.id) if one not in without])
        company = self._company(n, life)
        joined = self._joined(n, company, life)
        if joined is None:
            return True
        return self._holds(life, joined.own, safe=joined.informed) and all(
            self._holds(one, then, safe=joined.informed) for one, then in zip(company.others, joined.after, strict=True)
        )

    def broken(self, n: int, life: Life) -> str:
        """Whose bound would break, and by what, if ``life`` joined those on node ``n``; "" where none would.

        To be read by the owner of ``life``, as `words`.
        """
        others = self._view.neighbours(n, but=life.id)
        broken = self._broken(n, life, others)
        if broken is None:
            return ""
        one, slowed = broken
        who, most = "it" if one is life else f"job {one.id}", one.job.max_slowdown
        why = f" ({slowed.why})" if _of_one_user(life, others) else ""
        if slowed.mid > most:
            return f"{who} may take {most:.2f}x as long as alone, and {slowed.mid:.2f}x is expected{why}"
        noise = self._view.history.measured_noise(one.job)
        varies = f", or {noise:.0%} more as its own pace varies by that" if noise else ""
        return f"{who} may take {most:.2f}x as long as alone{varies}, and up to {slowed.high:.2f}x is possible{why}"

    def suit(self, n: int, a: Life, b: Life) -> bool:
        """Whether the two, alone together on node ``n``, are predicted to keep the bounds of those that are primary."""
        return self._hold(n, a, [b])

    def soonest_quiet(self, life: Life) -> frozenset[int]:
        """As many nodes as the first part of ``life`` needs: those whose unsuitable neighbours leave first."""
        able = self._view.index.nodes_ever(life.shape.rows[0]).nonzero()[0].tolist()

        def quiet_at(n: int) -> float:
            others = self._view.neighbours(n, but=life.id)
            return max((one.planned_end for one in others if not self.suit(n, life, one)), default=0.0)

        return frozenset(sorted(able, key=lambda n: (quiet_at(n), n))[: life.shape.parts[0].nodes])

    def cost_s(self, n: int, life: Life) -> float:
        """Seconds that ``life`` on node ``n`` would add to completion times: the neighbours' and its own."""
        company = self._company(n, life)
        joined = self._joined(n, company, life)
        if joined is None:
            return 0.0
        now = self._view.now
        cost = (joined.own.mid - 1) * life.expected.mid
        for one, added in joined.slowed:
            cost += added * max(0.0, one.planned_end - now)
        return cost

    def cheapest(self, life: Life, nodes: Iterable[int]) -> Iterable[int]:
        """The nodes in order of cost; those beyond the first `NODES` stay behind as they are."""
        if not self._view.contended:
            return nodes
        rest = iter(nodes)
        first = list(itertools.islice(rest, NODES))
        if len(first) > 1:
            costs = {n: round(self.cost_s(n, life), 3) for n in first}
            first.sort(key=costs.__getitem__)
        return itertools.chain(first, rest)

    def relative_cost(self, life: Life, nodes: Iterable[int]) -> float:
        """The least cost on the first `NODES` of ``nodes`` over the job's own duration; infinite on none."""
        return round(self.least_cost_s(life, nodes) / max(life.expected.mid, 1e-3), 1)

    def least_cost_s(self, life: Life, nodes: Iterable[int]) -> float:
        """The least cost in seconds on the first `NODES` of ``nodes``; infinite on none."""
        return min((self.cost_s(n, life) for n in itertools.islice(nodes, NODES)), default=math.inf)

    def words(self, life: Life) -> str:
        """Why the placement that ``life`` has just got is a good one.

        Its owner reads this, who may not know what other users run: their jobs are numbers, and what an estimate beside
        them rests on, which names applications, is left out.
        """
        said = []
        for n in life.numbers:
            others = self._view.neighbours(n, but=life.id)
            if others:
                slowdown = self._predict(n, [life, *others])[0]
                why = slowdown.why if _of_one_user(life, others) else _in_figures(slowdown)
                said.append(f"beside {called(_name(one, life.job.uid) for one in others)}: {why}")
            if len(said) == 2:
                break
        return "; ".join(said) or "nobody is beside it"

    def _hold(self, n: int, life: Life, others: list[Life]) -> bool:
        return self._broken(n, life, others) is None

    def _broken(self, n: int, life: Life, others: list[Life]) -> tuple[Life, Slowdown] | None:
        """The first whose bound breaks, and its slowdown."""
        if not others or not self._knows(self._app(life)):
            return None
        if not any(self._knows(self._app(one)) for one in others):
            return None
        members = [life, *others]
        safe = self._all_known(self._app(one) for one in members)
        slowdowns = zip(members, self._predict(n, members), strict=True)
        return next(((one, slowed) for one, slowed in slowdowns if not self._holds(one, slowed, safe=safe)), None)

    def _holds(self, life: Life, slowdown: Slowdown, *, safe: bool) -> bool:
        """Whether its bound holds: in the middle of the interval, and at the upper end within the noise of its rate.

        In the middle alone where nothing but a try can tell: where somebody is not known at all, or where nobody ever
        measured what its neighbour costs the job. If a stranger had to be harmless for certain, it would never run
        beside anybody, and stay a stranger.
        """
        if life.job.klass is not JobClass.PRIMARY:
            return True
        if not safe or slowdown.untried or slowdown.mid > life.job.max_slowdown:
            return slowdown.mid <= life.job.max_slowdown
        return slowdown.high <= life.job.max_slowdown * (1 + self._view.history.measured_noise(life.job))

    def _company(self, n: int, life: Life) -> _Company:
        """Those on node ``n`` but for ``life`` (which may have taken its place already)."""
        if self._touched:
            for touched in self._touched:
                company = self._companies.get(touched)
                if company is not None:
                    company.checked = False
            self._touched.clear()
        company = self._companies.get(n)
        again = company is not None and company.asked != self._pass and (company.curbed or bool(self._view.curbed))
        if company is None or not company.checked or again:
            others = self._view.neighbours(n, but=life.id)
            apps = tuple(self._app(one, n) for one in others)
            if company is None or company.others != others or company.apps != apps:
                company = self._companies[n] = _Company(others, apps)
            company.checked = all(held.paused for held in self._view.ledger.holders(n).get(life.id, ()))
        return company

    def _joined(self, n: int, company: _Company, life: Life) -> _Joined | None:
        """What happens if ``life`` joins; None where nothing is known that could make anybody slow."""
        if not company.others:
            return None
        app = self._app(life) if len(life.job.parts) == 1 else self._app(life, n)
        if company.asked != self._pass:
            self._ask_again(company)
        if not company.known or not self._knows(app):
            return None
        own = self._revisions.get(app.key)
        if own is None:
            own = self._revisions[app.key] = self._estimator.revision((app.key,))
        found = company.answers.get(app)
        if found is None or found.revision != own:
            if len(company.answers) >= _KEPT:
                company.answers.clear()
            found = company.answers[app] = self._join(n, company, app, own)
        return found

    def _ask_again(self, company: _Company) -> None:
        """In a new pass: what the estimator knows of those who are there, and whether old answers stand."""
        company.asked = self._pass
        company.known = any(map(self._knows, company.apps))
        revision = self._estimator.revision(company.keys)
        if company.revision != revision:
            company.answers.clear()
            company.revision = revision

    def _join(self, n: int, company: _Company, app: App, revision: tuple[int, int]) -> _Joined:
        capacity = self._capacity(n)
        own, *after = self._estimator.predict((app, *company.apps), capacity)
        slowed = []
        if any(one.mid > 1.0 for one in after):
            before = self._estimator.predict(company.apps, capacity)
            for one, was, then in zip(company.others, before, after, strict=True):
                if then.mid > was.mid:
                    slowed.append((one, (then.mid - was.mid) / was.mid))
        informed = self._all_known((app, *company.apps))
        return _Joined(revision, own, informed, tuple(after), tuple(slowed))

    def _predict(self, n: int, members: list[Life]) -> tuple[Slowdown, ...]:
        apps = tuple(self._app(one, n) for one in members)
        return self._estimator.predict(apps, self._capacity(n))

    def _app(self, life: Life, n: int | None = None) -> App:
        """As the estimator sees it: a throttled one as what it is then, where that was ever seen beside others.

        Not one whose throttle is lifted, as no primary job is beside it any more.
        """
        app = self._view.app(life, n)
        if life.throttle >= 1.0 or not any(primaries(self._view, k) for k in life.numbers):
            return app
        part = life.throttle
        name = known_as(app.key, part)
        if not self._knows(App(name, app.cpu_milli)):
            return app
        return App(name, app.cpu_milli, int(app.membw_mbs * part), int(app.nic_mbs * part))

    def _capacity(self, n: int) -> Capacity:
        """The node as it is filled: stated demands may be too low."""
        whole = self._view.capacity(n)
        membw = None if whole.membw_mbs is None else int(FULL * whole.membw_mbs)
        nic = None if whole.nic_mbs is None else int(FULL * whole.nic_mbs)
        return Capacity(whole.cpu_milli, membw, nic)

    def _all_known(self, apps: Iterable[App]) -> bool:
        return bool(self._view.options.get("hybrid_safe", SAFE)) and all(map(self._knows, apps))

    def _knows(self, app: App) -> bool:
        known = self._known.get(app)
        if known is None:
            known = self._known[app] = self._estimator.knows(app)
        return known


@dataclass(slots=True)
class _Joined:
    """What the estimator says of a node that one more application joins.

    Attributes:
        own: its own slowdown.
        informed: whether something is known of every member.
        after: the slowdowns of those that are there.
        slowed: who is slowed, and by how much relative to before.
    """

    revision: tuple[int, int]
    own: Slowdown
    informed: bool
    after: tuple[Slowdown, ...]
    slowed: tuple[tuple[Life, float], ...]


@dataclass(slots=True)
class _Company:
    """Who runs on a node, and what was answered about it.

    Attributes:
        checked: until the node's accounts change.
        asked: the last pass in which the estimator was asked whether it knows them, and its revision.
        known: whether it knows any of them.
        curbed: whether somebody is throttled, whom the estimator may know as such in a later pass.
    """

    others: list[Life]
    apps: tuple[App, ...]
    checked: bool = False
    asked: int = -1
    known: bool = False
    revision: tuple[int, int] = (-1, -1)
    answers: dict[App, _Joined] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    curbed: bool = False

    def __post_init__(self) -> None:
        """Gather the keys."""
        self.keys = tuple(app.key for app in self.apps)
        self.curbed = any(one.throttle < 1.0 for one in self.others)


def _of_one_user(life: Life, others: Iterable[Life]) -> bool:
    return all(one.job.uid == life.job.uid for one in others)


def _name(life: Life, reader: int) -> str:
    """What a job is called to the user ``reader``: others' jobs by number, as their names may be command lines."""
    return life.job.app if life.job.app and life.job.uid == reader else f"job {life.id}"


def _in_figures(slowdown: Slowdown) -> str:
    """A slowdown without what it rests on."""
    return f"{slowdown.mid:.2f}x as long as alone is expected ({slowdown.low:.2f}-{slowdown.high:.2f})"


def called(names: Iterable[str]) -> str:
    """Neighbours in few words: how many of each kind, in the order in which they came, of no more than a few kinds.

    >>> called(["c", "a", "c"]), called(["job 1", "job 3", "job 4", "job 5"])
    ('2 c, a', 'job 1, job 3, job 4 and 1 other')
    """
    kinds = list(Counter(names).items())
    more = sum(count for _, count in kinds[_NAMED:])
    some = ", ".join(name if count == 1 else f"{count} {name}" for name, count in kinds[:_NAMED])
    return f"{some} and {more} other{'s' if more > 1 else ''}" if more else some
