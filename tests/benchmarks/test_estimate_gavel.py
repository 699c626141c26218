"""The study of GPU pairs, on a table made by hand in the form of the real one."""

from __future__ import annotations

import math
from typing import Any

import pytest

from benchmarks.estimate_gavel import read, score, traits
from tandem.estimate.kinship import Traits

BATCHES = (8, 16, 32, 64)
JOBS = [(f"('{net} (batch size {batch})', 1)", net, batch) for net in ("LM", "Net") for batch in BATCHES]


def made_up() -> dict[str, dict[str, Any]]:
    """Slowdowns smooth in the neighbour's batch size; two of the largest nets do not fit together."""
    raw: dict[str, dict[str, Any]] = {}
    for job, net, batch in JOBS:
        raw[job] = {"null": 100.0 / batch}
        for other, beside, size in JOBS:
            mine = 1.1 + 0.1 * math.log2(size) * (2 if beside == "Net" else 1)
            others = 1.1 + 0.1 * math.log2(batch) * (2 if net == "Net" else 1)
            both_large = net == beside == "Net" and batch * size >= 64 * 64
            raw[job][other] = [0.0, 0.0] if both_large else [100.0 / batch / mine, 100.0 / size / others]
    return raw


def test_reading() -> None:
    table = read(made_up())
    assert table.slowdowns[JOBS[0][0], JOBS[1][0]] == pytest.approx(1.1 + 0.1 * 4)
    assert len(table.fits) == 8 * 9 // 2
    assert sum(not fits for fits in table.fits.values()) == 1


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ("('ResNet-50 (batch size 16)', 4)", Traits("ResNet-50 on 4", 4.0)),
        ("('A3C', 1)", Traits("A3C on 1")),
        ("something else", Traits("something else")),
    ],
)
def test_traits_of_a_name(job: str, expected: Traits) -> None:
    assert traits(job) == expected


def test_kin_are_told_apart_from_the_mean() -> None:
    rows = score(read(made_up()), splits=2)
    for task in ("half of the pairs", "jobs never seen"):
        assert rows[task]["kinship"]["mape"] < 0.5 * rows[task]["median"]["mape"]
    assert rows["does it fit"]["kinship"]["accuracy"] >= 0.9
