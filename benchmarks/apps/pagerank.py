"""PageRank by power iteration on a generated power-law graph of 2 million pages: a random gather from memory.

A step is one iteration: gather the rank of every link's source (10 million random reads from 16 MB), add
them up per page. The ranks have to sum to 1; their L1 residual, computed by a sparse matrix instead, has to
be below what the damping guarantees (`2 d^n`); and the same iteration on a small graph has to give what a
direct solve gives.

Run: `python pagerank.py --scale 1`. Limits: one thread; 420 MB of memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse
from application import Application, launch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable

Vector = NDArray[np.float64]

DAMPING = 0.85
PAGES, LINKS = 2 * 10**6, 10**7
STANDARD_STEPS = 52
PIECES, GATHERING = 8, 0.78  # of the gather; its part of a step's time


@dataclass(frozen=True)
class Graph:
    """Links grouped by the page they lead to; every page has at least one.

    Attributes:
        sources: page that each link comes from.
        starts: where in `sources` each page's links begin.
        shares: 1 / links that leave a page, 0 where none does.
        dangling: pages that no link leaves.
    """

    sources: NDArray[np.int64]
    starts: NDArray[np.int64]
    shares: Vector
    dangling: NDArray[np.int64]


def generate(pages: int, links: int, seed: int) -> Graph:
    """Return a random graph in which a few pages have most of the links, going in and coming out."""
    rng = np.random.default_rng(seed)
    wanted = np.sort(rng.pareto(1.3, pages))[::-1] + 0.5
    incoming = 1 + np.floor(wanted * ((links - pages) / wanted.sum())).astype(np.int64)
    rng.shuffle(incoming)
    ends = np.cumsum(incoming)
    drawn = rng.random(int(ends[-1]))
    sources = np.multiply(drawn * drawn, pages, out=drawn).astype(np.int64)
    outgoing = np.bincount(sources, minlength=pages)
    shares = np.divide(1.0, outgoing, out=np.zeros(pages), where=outgoing > 0)
    return Graph(sources, ends - incoming, shares, np.flatnonzero(outgoing == 0))


class Iteration:
    """Power iteration with its arrays allocated once."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.pages = graph.starts.size
        self.ranks = np.full(self.pages, 1 / self.pages)
        self._passed = np.empty(self.pages)
        self._gathered = np.empty(graph.sources.size)

    def advance(self, tell: Callable[[float], None] = lambda part: None) -> None:
        """Do one step; `tell` hears now and then what part of it is done, as far as time goes."""
        lost = float(self.ranks[self.graph.dangling].sum())
        np.multiply(self.ranks, self.graph.shares, out=self._passed)
        links = self.graph.sources.size
        for piece in range(PIECES):
            part = slice(piece * links // PIECES, (piece + 1) * links // PIECES)
            np.take(self._passed, self.graph.sources[part], out=self._gathered[part], mode="clip")
            tell(GATHERING * (piece + 1) / PIECES)
        np.add.reduceat(self._gathered, self.graph.starts, out=self.ranks)
        self.ranks *= DAMPING
        self.ranks += (1 - DAMPING + DAMPING * lost) / self.pages


def link_matrix(graph: Graph) -> scipy.sparse.csr_array:
    """Return the matrix that passes ranks along the links, dangling pages left out."""
    ends = np.append(graph.starts, graph.sources.size)
    size = graph.starts.size
    return scipy.sparse.csr_array((graph.shares[graph.sources], graph.sources, ends), shape=(size, size))


def error_on_small_graph() -> float:
    """Return how far the iteration's ranks on 300 pages are from those of a direct dense solve, in L1."""
    graph = generate(300, 1500, seed=2)
    iteration = Iteration(graph)
    for _ in range(250):
        iteration.advance()
    passing = link_matrix(graph).toarray()
    passing[:, graph.dangling] += 1 / 300
    direct = np.linalg.solve(np.eye(300) - DAMPING * passing, np.full(300, (1 - DAMPING) / 300))
    return float(np.abs(iteration.ranks - direct).sum())


def run(app: Application) -> str:
    app.phase("load")
    graph = generate(PAGES, LINKS, seed=1)
    iteration = Iteration(graph)
    ranks = iteration.ranks

    app.phase("solve")
    total = app.amount(STANDARD_STEPS)
    for step in app.steps(total):
        iteration.advance(lambda part, done=step - 1: app.within(done + part))

    app.phase("check")
    if app.spoiled:
        ranks *= 1.0001
    off = abs(float(ranks.sum()) - 1)
    app.require(off < 1e-9, f"the ranks sum to 1 but for {off:.1e} (allowed 1e-9)")
    after = DAMPING * (link_matrix(graph) @ ranks)
    after += (1 - DAMPING + DAMPING * float(ranks[graph.dangling].sum())) / PAGES
    residual = float(np.abs(after - ranks).sum())
    bound = max(2 * DAMPING**total, 1e-12)
    app.require(residual <= bound, f"the L1 residual is {residual:.2e}, above the bound {bound:.2e}")
    small = error_on_small_graph()
    app.require(small < 1e-12, f"300 pages are off the direct solve by {small:.1e} (allowed 1e-12)")
    return f"{total} iterations on {graph.sources.size:,} links, residual {residual:.2e} (bound {bound:.1e})"


if __name__ == "__main__":
    raise SystemExit(launch(run, __doc__))
