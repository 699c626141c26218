"""The index against asking every node."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.share.model import Gpu, Need, Node, Part
from tandem.share.state.demand_index import IDLE, DemandIndex, Shape, could_ever_fit
from tandem.share.state.ledger import Ledger

NODES = [
    Node("small", 2000, 8),
    Node("gpu", 8000, 32, (Gpu(0, "a", 16), Gpu(1, "a", 16))),
    Node("pinned", 4000, 16, cores=(0, 1, 2, 3), labels=frozenset({"ssd"})),
    Node("other", 8000, 32, (Gpu(0, "b", 80),), membw_mbs=50),
]
NEEDS = [
    Need(0),
    Need(500),
    Need(1000),
    Need(3000, 4),
    Need(8000),
    Need(1000, gpus=1),
    Need(1000, gpus=2),
    Need(0, gpu_milli=400),
    Need(1000, gpus=1, gpu_type="b"),
    Need(1000, gpus=1, gpu_type="a|b", gpu_mem_mib=40),
    Need(1000, membw_mbs=40),
    Need(1000, labels=frozenset({"ssd"})),
    Need(10_000),
]
ops = st.tuples(
    st.sampled_from(["add", "drop", "join", "take", "give", "lose"]), st.integers(0, 20), st.integers(0, 20)
)


@settings(max_examples=150)
@given(st.lists(ops, min_size=30, max_size=50))
def test_it_says_what_every_node_says(story: list[tuple[str, int, int]]) -> None:
    ledger = Ledger()
    index = DemandIndex(ledger)
    shapes: list[Shape] = []
    held: dict[int, tuple[int, Need]] = {}
    for i, (kind, a, b) in enumerate(story):
        if kind == "add":
            parts = (Part(NEEDS[a % len(NEEDS)], 1 + b % 2), Part(NEEDS[b % len(NEEDS)]))
            shapes.append(Shape(parts[: 1 + b % 3 // 2]))
            index.add(shapes[-1])
        elif kind == "drop" and shapes:
            index.drop(shapes.pop(a % len(shapes)))
        elif kind == "join":
            ledger.join(NODES[a % len(NODES)])
        elif kind == "take" and ledger.nodes:
            n, need = b % len(ledger.nodes), NEEDS[a % len(NEEDS)]
            if _fits(ledger, n, need):
                ledger.take(i, n, need)
                held[i] = (n, need)
        elif kind == "give" and held:
            job = list(held)[a % len(held)]
            ledger.give_back(job, held.pop(job)[0])
        elif kind == "lose" and ledger.nodes:
            n = a % len(ledger.nodes)
            for job in list(ledger.holders(n)):
                ledger.give_back(job, n)
                del held[job]
            ledger.lose(n)
        for shape in shapes:
            _check(ledger, index, shape)
        assert set(index.fitting()) == {shape for shape in shapes if index.may_fit(shape)}


def _fits(ledger: Ledger, n: int, need: Need) -> bool:
    return could_ever_fit(ledger.nodes[n], need) and all(
        f >= v for f, v in zip(ledger.free[n], need.vector(), strict=True)
    )


def _check(ledger: Ledger, index: DemandIndex, shape: Shape) -> None:
    enough = True
    for part, row in zip(shape.parts, shape.rows, strict=True):
        now = [n for n in range(len(ledger.nodes)) if _fits(ledger, n, part.need)]
        ever = [could_ever_fit(node, part.need) for node in ledger.nodes]
        assert index.nodes_now(row).tolist() == now
        assert index.mask_now(row).nonzero()[0].tolist() == now
        assert index.count_now(row) == len(now)
        assert np.array_equal(index.nodes_ever(row), ever)
        enough = enough and len(now) >= part.nodes
    assert index.may_fit(shape) == enough


def test_two_shapes_may_share_a_need() -> None:
    ledger = Ledger()
    ledger.join(NODES[1])
    index = DemandIndex(ledger)
    one, two = Shape((Part(NEEDS[2]),)), Shape((Part(NEEDS[2], 2),))
    index.add(one)
    index.add(two)
    assert one.rows == two.rows
    index.drop(one)
    assert index.nodes_now(two.rows[0]).tolist() == [0]
    assert not index.may_fit(two)


def test_what_could_ever_fit() -> None:
    assert could_ever_fit(NODES[1], Need(8000, 32, gpus=2, gpu_type="a"))
    assert not could_ever_fit(NODES[1], Need(8000, 33))
    assert not could_ever_fit(NODES[1], Need(0, gpus=1, gpu_type="b"))
    assert not could_ever_fit(NODES[1], Need(0, gpus=1, gpu_mem_mib=17))
    assert not could_ever_fit(NODES[1], Need(0, labels=frozenset({"ssd"})))
    assert not could_ever_fit(NODES[0], Need(0, gpu_milli=1))
    assert could_ever_fit(NODES[1], Need(1500)), "counted nodes give parts of a core"
    assert not could_ever_fit(NODES[2], Need(1500)), "pinned ones do not"
    assert not could_ever_fit(NODES[3], Need(0, membw_mbs=51))
    assert could_ever_fit(NODES[1], Need(0, membw_mbs=10**9)), "not metered there"


def test_a_column_is_not_taken_from_before_a_need_came() -> None:
    ledger = Ledger()
    n = ledger.join(NODES[0])
    index = DemandIndex(ledger)
    one, two = Shape((Part(NEEDS[2]),)), Shape((Part(NEEDS[1]),))
    index.add(one)
    ledger.take(1, n, Need(2000))
    assert index.fitting() == []
    ledger.give_back(1, n)
    assert index.fitting() == [one]
    index.add(two)
    ledger.take(1, n, Need(2000))
    assert index.fitting() == [], "what is free was seen before, but without the second need"
    ledger.give_back(1, n)
    assert index.fitting() == [one, two]


def test_rows_are_used_again() -> None:
    ledger = Ledger()
    ledger.join(Node("n", 10**6, 0))
    index = DemandIndex(ledger)
    rows = set()
    for cpu_milli in range(1000, 1200):
        shape = Shape((Part(Need(cpu_milli)),))
        index.add(shape)
        assert index.fitting() == [shape]
        rows.update(shape.rows)
        index.drop(shape)
        assert index.fitting() == []
    assert len(rows) <= IDLE + 1
