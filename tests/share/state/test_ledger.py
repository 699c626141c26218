"""The ledger against a recount, and its refusals."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.share.model import Gpu, Need, Node, Placement, Share
from tandem.share.state.accounts import OverAllocationError
from tandem.share.state.ledger import Ledger

PINNED = Node(
    "p", 8000, 64, (Gpu(0), Gpu(1), Gpu(2)), cores=tuple(range(8)), numa=(0, 0, 0, 0, 1, 1, 1, 1), membw_mbs=100
)
COUNTED = Node("c", 6000, 32, (Gpu(0), Gpu(1)), nic_mbs=10)

needs = (
    st.builds(
        Need,
        cpu_milli=st.sampled_from([0, 1000, 2000, 5000]),
        mem_mib=st.sampled_from([0, 8, 20]),
        membw_mbs=st.sampled_from([0, 30]),
        nic_mbs=st.sampled_from([0, 4]),
    )
    | st.builds(Need, gpus=st.integers(1, 3))
    | st.builds(Need, gpu_milli=st.sampled_from([200, 500, 900]))
)
ops = st.tuples(
    st.sampled_from(["take", "take", "take", "give", "pause", "unpause", "undo", "foreign", "told"]),
    st.integers(0, 5),
    needs,
)


OVERTAKEN = [
    ("take", 0, Need(5000, membw_mbs=60)),
    ("pause", 0, Need()),
    ("take", 1, Need(2000)),
    ("told", 1, Need()),
    ("unpause", 0, Need()),
    ("give", 1, Need()),
]
"""A job is suspended, and its node is told to have less."""


def told_anew(node: Node, which: int) -> Node:
    """The same machine with less, with more, or with other cores and GPUs."""
    return [
        node,
        replace(node, cores=node.cores[:3], numa=node.numa[:3], cpu_milli=3000, mem_mib=10, gpus=node.gpus[:1]),
        replace(node, cores=node.cores[2:], numa=node.numa[2:], cpu_milli=6000, gpus=node.gpus[1:]),
        replace(node, cores=node.cores and (*node.cores, 8), numa=(), cpu_milli=9000, mem_mib=90),
        replace(node, membw_mbs=40, nic_mbs=3, gpus=(*node.gpus, Gpu(7))),
        replace(node, membw_mbs=None, nic_mbs=None, gpus=()),
    ][which]


class Model:
    """What each job holds on one node, in a plain dict."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.held: dict[int, list[Share]] = {}
        self.paused: set[int] = set()
        self.had: dict[int, set[int]] = {}  # the cores of a paused job
        self.cores: frozenset[int] = frozenset()
        self.gpus: frozenset[int] = frozenset()

    def free(self, without: int | None = None) -> tuple[int, ...]:
        """Free resources, summed up from nothing but the shares; ``without`` a job, as if it had left."""
        node = self.node
        held = {job: shares for job, shares in self.held.items() if job != without}
        every = [(job in self.paused, share) for job, shares in held.items() for share in shares]
        going = [share for paused, share in every if not paused]
        gpus = {gpu.index: 1000 for gpu in node.gpus}
        for _, share in every:
            for index in gpus.keys() & set(share.gpus):
                gpus[index] -= share.need.gpu_milli or 1000
        usable = [free for index, free in gpus.items() if index not in self.gpus]
        if node.cores:
            cpu = 1000 * len(set(node.cores) - self.cores - {core for share in going for core in share.cores})
        else:
            cpu = node.cpu_milli - sum(share.need.cpu_milli for share in going)
        capacity = node.capacity()
        return (
            max(0, cpu),
            max(0, node.mem_mib - sum(share.need.mem_mib for _, share in every)),
            max(0, capacity[2] - sum(share.need.membw_mbs for share in going)),
            max(0, capacity[3] - sum(share.need.nic_mbs for share in going)),
            usable.count(1000),
            max(usable, default=0),
        )


@settings(max_examples=400)
@given(st.sampled_from([PINNED, COUNTED]), st.sampled_from([0, 4, 6]), st.lists(ops, min_size=15, max_size=40))
def test_free_is_capacity_less_what_is_held(node: Node, begun: int, story: list[tuple[str, int, Need]]) -> None:
    ledger = Ledger()
    n = ledger.join(node)
    model = Model(node)
    for kind, job, need in OVERTAKEN[:begun] + story:
        match kind:
            case "take" if job not in model.paused:
                if all(f >= v for f, v in zip(model.free(), need.vector(), strict=True)):
                    model.held.setdefault(job, []).append(ledger.take(job, n, need))
                else:
                    with pytest.raises(OverAllocationError):
                        ledger.take(job, n, need)
            case "give" if job in model.held:
                ledger.give_back(job, n)
                del model.held[job]
                model.paused.discard(job)
            case "undo" if job in model.held and job not in model.paused:
                ledger.drop_last(job, n)
                model.held[job].pop()
                model.held = {k: v for k, v in model.held.items() if v}
            case "pause" if job in model.held and job not in model.paused:
                model.had[job] = {core for share in model.held[job] for core in share.cores}
                ledger.pause(job, n)
                model.held[job] = [replace(share, cores=()) for share in model.held[job]]
                model.paused.add(job)
            case "unpause" if job in model.paused:
                free, has = model.free(), model.node.capacity()
                wanted = [sum(share.need.vector()[i] for share in model.held[job]) for i in (0, 2, 3)]
                others = {core for shares in model.held.values() for share in shares for core in share.cores}
                own = model.had[job] - set(model.node.cores) - others  # which it alone gets again
                more = [max(0, w - has[i]) for w, i in zip(wanted, (0, 2, 3), strict=True)]
                more[0] = min(more[0], 1000 * len(own)) if node.cores else more[0]
                possible = all(w - m <= free[i] for w, m, i in zip(wanted, more, (0, 2, 3), strict=True))
                assert ledger.can_unpause(job, n) == possible
                if possible:
                    usable = set(model.node.cores) - model.cores - others
                    model.held[job] = list(ledger.unpause(job, n))
                    model.paused.remove(job)
                    cores = [core for share in model.held[job] for core in share.cores]
                    assert set(cores) <= usable | own
                    assert len(set(cores) - usable) <= more[0] // 1000
            case "foreign":
                model.cores = frozenset(range(job)) if node.cores else frozenset()
                model.gpus = frozenset({job}) & {gpu.index for gpu in node.gpus}
                ledger.foreign(n, model.cores, model.gpus)
            case "told":
                model.node = told_anew(node, job)
                ledger.join(model.node)
                model.cores = model.gpus = frozenset()  # who else uses it is told anew
                assert ledger.nodes == [model.node]
        assert tuple(ledger.free[n]) == ledger.rows[n] == model.free()
        ledger.audit()
        for gone in model.held:
            forecast = ledger.forecast(n)
            forecast.leave(gone, ledger.holders(n)[gone])
            assert tuple(max(0, free) for free in forecast.row()) == model.free(without=gone)[:4]
    assert list(ledger.holders(n)) == list(model.held)


def test_cores_come_from_one_domain_where_one_has_enough() -> None:
    ledger = Ledger()
    n = ledger.join(PINNED)
    assert ledger.take(1, n, Need(1000)).cores == (0,)
    assert ledger.take(2, n, Need(3000)).cores == (1, 2, 3), "the domain that is left with least"
    assert ledger.take(3, n, Need(4000)).cores == (4, 5, 6, 7)
    ledger.give_back(1, n)
    ledger.give_back(3, n)
    assert ledger.take(4, n, Need(5000)).cores == (0, 4, 5, 6, 7), "no domain has five: the lowest of all"


def test_a_fraction_goes_to_the_fullest_gpu_with_room() -> None:
    ledger = Ledger()
    n = ledger.join(PINNED)
    half = Need(0, gpu_milli=500)
    assert ledger.take(1, n, Need(0, gpu_milli=700)).gpus == (0,)
    assert ledger.take(2, n, half).gpus == (1,)
    assert ledger.take(3, n, half).gpus == (1,)
    assert ledger.take(4, n, Need(0, gpus=1)).gpus == (2,)
    assert list(ledger.free[n][4:]) == [0, 300]


def test_suspension_keeps_memory_and_gpus() -> None:
    ledger = Ledger()
    n = ledger.join(PINNED)
    ledger.take(1, n, Need(8000, 60, 100, 0, gpus=3))
    ledger.pause(1, n)
    assert ledger.free[n].tolist()[:3] == [8000, 4, 100]
    assert ledger.free[n].tolist()[4:] == [0, 0]
    with pytest.raises(OverAllocationError):
        ledger.take(2, n, Need(1000, 5))
    ledger.take(3, n, Need(1000, 4))
    assert not ledger.can_unpause(1, n)
    with pytest.raises(OverAllocationError):
        ledger.unpause(1, n)
    ledger.give_back(3, n)
    assert ledger.unpause(1, n)[0].cores == tuple(range(8))
    ledger.pause(1, n)
    with pytest.raises(OverAllocationError, match="suspended"):
        ledger.pause(1, n)


def test_a_core_that_somebody_else_uses_is_ours_until_it_is_given_back() -> None:
    ledger = Ledger()
    n = ledger.join(PINNED)
    share = ledger.take(1, n, Need(2000))
    ledger.foreign(n, frozenset({0, 7}), frozenset({1}))
    ledger.audit()
    assert ledger.holders(n)[1][0].share == share
    assert ledger.free[n][0] == 5000
    ledger.give_back(1, n)
    assert ledger.free[n][0] == 6000, "core 0 does not come back, it is somebody else's"
    assert ledger.free[n][4] == 2
    ledger.foreign(n, frozenset(), frozenset())
    assert ledger.free[n][0] == 8000


def test_a_node_given_whole_gives_nothing_else() -> None:
    ledger = Ledger()
    n = ledger.join(COUNTED)
    ledger.take(1, n, Need(1000))
    ledger.seal(1, n)
    assert ledger.free[n].max() < 0, "not even a job that needs nothing fits"
    with pytest.raises(OverAllocationError):
        ledger.take(2, n, Need(0))
    ledger.give_back(1, n)
    assert ledger.is_empty(n)
    ledger.take(2, n, Need(1000))
    ledger.take(3, n, Need(1000))
    with pytest.raises(OverAllocationError, match="whole"):
        ledger.seal(3, n)


def test_what_is_kept_free_is_given_to_nobody() -> None:
    ledger = Ledger()
    n = ledger.join(PINNED)
    ledger.take(1, n, Need(3000, membw_mbs=50))
    ledger.keep_free(n, Need(6000, membw_mbs=60), [1])
    assert ledger.rows[n][:3] == (2000, 64, 40), "5 cores are free, and 3 of 6 will come"
    with pytest.raises(OverAllocationError):
        ledger.take(2, n, Need(3000))
    ledger.take(2, n, Need(2000, membw_mbs=40))
    ledger.keep_nothing_free()
    assert ledger.rows[n][:3] == (3000, 64, 10)
    ledger.audit()


def test_lost_nodes_give_nothing_and_come_back_as_described() -> None:
    ledger = Ledger()
    n = ledger.join(COUNTED)
    ledger.take(1, n, Need(1000))
    assert ledger.join(replace(COUNTED, cpu_milli=2000)) == n
    assert (ledger.nodes[n].cpu_milli, ledger.free[n, 0]) == (2000, 1000), "what was told is in force at once"
    ledger.lose(n)
    assert not ledger.is_up(n)
    assert ledger.free[n].max() < 0
    ledger.give_back(1, n)
    ledger.join(replace(COUNTED, cpu_milli=2000))
    assert ledger.nodes[n].cpu_milli == ledger.free[n][0] == 2000


def test_audit_notices_a_core_that_is_held_twice() -> None:
    ledger = Ledger()
    n = ledger.join(PINNED)
    ledger.take(1, n, Need(1000))
    ledger.take(2, n, Need(1000))
    holding = ledger.holders(n)[2][0]
    holding.share = replace(holding.share, cores=(0,))
    with pytest.raises(OverAllocationError):
        ledger.audit()


def test_restoring_a_placement_twice_is_refused() -> None:
    ledger = Ledger()
    n = ledger.join(PINNED)
    share = ledger.take(1, n, Need(2000))
    with pytest.raises(OverAllocationError, match="twice"):
        ledger.restore(2, Placement((share,)), paused=False)


def test_a_forecast_is_what_the_ledger_then_has() -> None:
    ledger = Ledger()
    n = ledger.join(PINNED)
    ledger.take(1, n, Need(5000, 50, gpus=2))
    ledger.take(2, n, Need(3000, gpu_milli=300))
    ledger.foreign(n, frozenset({0}), frozenset())
    forecast = ledger.forecast(n)
    assert not forecast.fits(Need(1000).vector())
    forecast.leave(1, ledger.holders(n)[1])
    ledger.give_back(1, n)
    for need in (
        Need(4000),
        Need(5000),
        Need(0, gpus=2),
        Need(0, gpus=3),
        Need(0, gpu_milli=1000),
        Need(0, 64),
        Need(0, 65),
    ):
        fits = all(f >= v for f, v in zip(ledger.free[n], need.vector(), strict=True))
        assert forecast.fits(need.vector()) == fits, need
    forecast.take(Need(2000, gpu_milli=700))
    assert not forecast.fits(Need(3000).vector())
    assert forecast.fits(Need(2000, gpus=2).vector()), "the fraction went to the GPU that was begun"


def test_watchers_hear_of_every_node_that_changes() -> None:
    ledger = Ledger()
    n, m = ledger.join(PINNED), ledger.join(COUNTED)
    free, ends = ledger.watch(), ledger.watch(ends=True)
    assert free == {n, m}
    free.clear()
    ends.clear()
    ledger.take(1, m, Need(1000))
    assert free == ends == {m}
    free.clear()
    ends.clear()
    ledger.replanned(m)
    assert (free, ends) == (set(), {m})
    ledger.unwatch(free)
    ledger.give_back(1, m)
    assert free == set()


def test_emptiness_is_gpus_then_a_fraction_of_one_then_cores() -> None:
    ledger = Ledger()
    nodes = [ledger.join(Node(f"n{i}", 8000, 64, tuple(map(Gpu, range(4))))) for i in range(4)]
    ledger.take(1, nodes[0], Need(1000, gpus=2))
    ledger.take(2, nodes[1], Need(1000, gpus=3))
    ledger.take(3, nodes[1], Need(0, gpu_milli=300))
    ledger.take(4, nodes[2], Need(0, gpus=4))
    ledger.take(5, nodes[3], Need(7000, gpus=2))
    assert ledger.emptiness.argsort().tolist() == [nodes[2], nodes[1], nodes[3], nodes[0]]
