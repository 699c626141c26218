"""Comparisons: ratios are over the best dense product, round by round."""

import itertools
from collections.abc import Callable

import pytest
import torch

from tandem import _native
from tandem.kernels.sparse import contenders, measuring, pictures
from tandem.kernels.sparse.contenders import Contender
from tandem.kernels.sparse.measuring import Comparison, Timed
from tandem.report.table import text_of


def comparison() -> Comparison:
    ours = Timed("bf16 60%", 0.6, 1000, (1e-6, 2e-6, 4e-6))
    dense = (
        Timed("F.linear bf16", None, 2000, (4e-6, 4e-6, 4e-6)),
        Timed("F.linear fp32", None, 4000, (3e-6, 3e-6, 3e-6)),
        Timed("fbgemm int8", None, 1000, (1e-6, 1e-6, 1e-6)),
    )
    return Comparison(8, 16, 1, (ours,), dense, 1e9, 2, 2e9)


def test_the_speedup_is_over_the_best_dense_of_16_or_32_bits() -> None:
    one = comparison()
    assert one.best_dense.name == "F.linear fp32"
    assert one.speedup(one.ours[0]) == 1.5
    assert one.share_of_bandwidth(one.ours[0]) == 0.5
    assert one.ns_per_32(one.ours[0]) == 1e9 * 2e-6 * 2 * 32 / 128
    assert one.cycles_per_32(one.ours[0]) == 2 * one.ns_per_32(one.ours[0])


def test_rounds_that_only_one_was_in_do_not_count() -> None:
    seldom = Timed("F.linear fp16", None, 2000, (6e-6,))
    assert comparison().speedup(seldom) == 0.5


def test_the_clock_is_that_of_a_processor() -> None:
    assert 3e8 < measuring.clock_hz() < 6.5e9  # none is that fast; additions that a processor folds would seem so


def test_the_table_tells_it() -> None:
    table = pictures.table(comparison())
    assert [text_of(table, 0, column) for column in range(8)] == [
        "sparse bf16 60%",
        "2",
        "62.50",
        "0.5",
        "50 %",
        "1,000.0",
        "2,000.0",
        "1.50x",
    ]
    assert [text_of(table, row, 0) for row in range(1, 4)] == [
        "dense fbgemm int8",
        "dense F.linear fp32",
        "dense F.linear bf16",
    ]


def test_the_table_says_which_statistic_each_column_is() -> None:
    note = pictures.table(comparison()).note
    assert "time: median of the rounds" in note
    assert "over best dense: median of each round's ratio to F.linear fp32" in note


def test_the_memory_is_read_at_some_speed() -> None:
    assert 1e8 < measuring.read_bandwidth() < 1e13
    one = torch.ones(1000)
    assert 1e8 < _native.read_bandwidth(1, [(one.data_ptr(), one.nbytes), (one.data_ptr(), 10)], 0.01) < 1e13
    for threads, parts, seconds in [(0, [one], 0.1), (1, [], 0.1), (1, [one[:60]], 0.1), (1, [one], 0.0)]:
        with pytest.raises(ValueError, match="parts of at least 256 bytes"):
            _native.read_bandwidth(threads, [(part.data_ptr(), part.nbytes) for part in parts], seconds)


def test_what_is_read_is_what_products_read_where_that_outgrows_the_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[list[tuple[int, int]]] = []

    def reads(threads: int, parts: list[tuple[int, int]], seconds: float) -> float:
        assert threads >= 1
        assert seconds > 0
        read.append(parts)
        return 1.0

    monkeypatch.setattr(_native, "read_bandwidth", reads)
    monkeypatch.setattr(contenders, "cache_bytes", lambda: 10 << 20)
    parts = [torch.ones(15 << 20, dtype=torch.uint8) for _ in range(4)]
    measuring.read_bandwidth(parts)
    measuring.read_bandwidth(parts[:2])
    assert read[0] == [(part.data_ptr(), part.nbytes) for part in parts[:3]]
    assert [size for _, size in read[1]] == [40 << 20]


def test_all_are_timed_in_every_round_where_none_is_hopeless() -> None:
    dense, weights = contenders.Dense(torch.ones(8, 8)), contenders.pruned(torch.ones(8, 8), [0.5], [torch.bfloat16])
    one = measuring.measure(dense, weights, 2, rounds=5, clock=itertools.count().__next__)
    assert {len(timed.rounds_s) for timed in (*one.ours, *one.dense)} == {5}
    assert (len(one.ours), one.rows, one.cols, one.count) == (1, 8, 8, 2)


def test_what_seemed_hopeless_and_is_not_stays_in() -> None:
    now_s, cost_s = 0.0, {"sparse": 1.0, "F.linear bf16": 4.0, "F.linear fp32": 5.0, "MKL packed fp32": 9.0}

    def product(name: str) -> Callable[[], torch.Tensor]:
        def run() -> torch.Tensor:
            nonlocal now_s
            now_s += cost_s[name]
            return torch.empty(0)

        return run

    class Few:
        rows = cols = 8

        def contenders(self, count: int, clock: Callable[[], float]) -> list[Contender]:
            del count, clock
            seldom = {"F.linear bf16": False, "F.linear fp32": True, "MKL packed fp32": True}
            return [Contender(name, 256, product(name), seldom=kind) for name, kind in seldom.items()]

    class One:
        parts: tuple[torch.Tensor, ...] = ()

        def contender(self, count: int) -> Contender:
            del count
            return Contender("sparse", 64, product("sparse"), 0.5)

    one = measuring.measure(Few(), [One()], 1, rounds=7, clock=lambda: now_s)  # type: ignore[arg-type,list-item]
    assert {timed.name: (timed.median_s, len(timed.rounds_s)) for timed in (*one.ours, *one.dense)} == {
        "sparse": (1.0, 7),
        "F.linear bf16": (4.0, 7),
        "F.linear fp32": (5.0, 7),
        "MKL packed fp32": (9.0, 3),
    }
