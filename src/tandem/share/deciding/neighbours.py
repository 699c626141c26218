"""What neighbours would cost each other, from the estimator: the scheduler's only view of interference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tandem.share.model import JobClass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tandem.estimate.corun import App, Slowdown
    from tandem.share.state.life import Life
    from tandem.share.state.view import View

NODES = 4
"""Candidate nodes that are weighed against each other, in the order of the plain preference."""


class Neighbours:
    """Questions about co-running, for one pass of a policy."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._known: dict[str, bool] = {}

    def bounds_hold(self, n: int, life: Life, without: Sequence[Life] = ()) -> bool:
        """Whether no primary job on node ``n``, ``life`` included, is predicted to break its bound."""
        others = [one for one in self._running(n, life) if one not in without]
        if not others or self._quiet(life, others):
            return True
        members = [life, *others]
        return all(
            one.job.klass is not JobClass.PRIMARY or slowdown.mid <= one.job.max_slowdown
            for one, slowdown in zip(members, self._predict(n, members), strict=True)
        )

    def suit(self, n: int, a: Life, b: Life) -> bool:
        """Whether the two, alone together on node ``n``, are predicted to keep the bounds of those that are primary."""
        return self._quiet(a, [b]) or all(
            one.job.klass is not JobClass.PRIMARY or slowdown.mid <= one.job.max_slowdown
            for one, slowdown in zip((a, b), self._predict(n, [a, b]), strict=True)
        )

    def soonest_quiet(self, life: Life) -> frozenset[int]:
        """As many nodes as the first part of ``life`` needs: those whose unsuitable neighbours leave first."""
        able = self._view.index.nodes_ever(life.shape.rows[0]).nonzero()[0].tolist()

        def quiet_at(n: int) -> float:
            return max((one.planned_end for one in self._running(n, life) if not self.suit(n, life, one)), default=0.0)

        return frozenset(sorted(able, key=lambda n: (quiet_at(n), n))[: life.shape.parts[0].nodes])

    def cost_s(self, n: int, life: Life) -> float:
        """Seconds that ``life`` on node ``n`` would add to completion times: the neighbours' and its own."""
        others = self._running(n, life)
        if not others or self._quiet(life, others):
            return 0.0
        before = self._predict(n, others) if len(others) > 1 else None
        after = self._predict(n, [life, *others])
        cost = (after[0].mid - 1) * life.expected.mid
        for k, one in enumerate(others):
            was = before[k].mid if before is not None else 1.0
            cost += max(0.0, after[k + 1].mid - was) * max(0.0, one.planned_end - self._view.now) / was
        return cost

    def cheapest(self, life: Life, nodes: list[int]) -> list[int]:
        """The nodes in order of cost; those beyond the first `NODES` stay behind as they are."""
        if len(nodes) < 2 or not self._view.contended:
            return nodes
        costs = {n: round(self.cost_s(n, life), 3) for n in nodes[:NODES]}
        return sorted(nodes[:NODES], key=costs.__getitem__) + nodes[NODES:]

    def least_costly(self, candidates: list[Life]) -> Life:
        """The candidate whose start adds least to completion times, relative to its own duration; ties in order."""
        return min(candidates, key=self._relative_cost)

    def words(self, life: Life) -> str:
        """Why the placement that ``life`` has just got is a good one."""
        said = []
        for n in life.numbers:
            others = self._running(n, life)
            if others:
                slowdown = self._predict(n, [life, *others])[0]
                beside = ", ".join(one.job.app or f"job {one.id}" for one in others[:3])
                said.append(f"beside {beside}: {slowdown.why}")
            if len(said) == 2:
                break
        return "; ".join(said) or "nobody is beside it"

    def _relative_cost(self, life: Life) -> float:
        nodes = self._view.index.nodes_now(life.shape.rows[0])[:NODES].tolist()
        cost = min((self.cost_s(n, life) for n in nodes if self.bounds_hold(n, life)), default=float("inf"))
        return round(cost / max(life.expected.mid, 1e-3), 1)

    def _running(self, n: int, life: Life) -> list[Life]:
        return self._view.neighbours(n, but=life.id)

    def _predict(self, n: int, members: list[Life]) -> tuple[Slowdown, ...]:
        apps = tuple(self._view.app(one, n) for one in members)
        return self._view.estimator.predict(apps, self._view.capacity(n))

    def _quiet(self, life: Life, others: list[Life]) -> bool:
        """Nothing is known that could make anybody slow."""
        return not self._knows(self._view.app(life)) or not any(self._knows(self._view.app(one)) for one in others)

    def _knows(self, app: App) -> bool:
        key = f"{app.key}/{app.membw_mbs}/{app.nic_mbs}"
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._view.estimator.knows(app)
        return known
