"""The plan of the raw co-runs, their pinning, and a table that is gone on with."""

import json
from pathlib import Path

import pytest

from benchmarks import estimate_corun_measure as raw
from tandem.core.machine import Core

APPS = [f"app{k}" for k in range(12)]


def row(kind: str, members: list[str], half: float) -> dict[str, object]:
    return {
        "kind": kind,
        "set": members,
        "slowdowns": [1.0] * len(members),
        "halves": [half] * len(members),
        "disturbed": 0.0,
    }


def test_the_plan_holds_all_pairs_and_enough_larger_sets_and_is_always_the_same() -> None:
    planned = raw.plan(APPS)
    pairs = [members for kind, members in planned if kind == "pair"]
    assert sorted(pairs) == sorted((a, b) for i, a in enumerate(APPS) for b in APPS[i:])
    assert sum(kind == "3 members" for kind, _ in planned) >= 40
    assert sum(kind == "4 members" for kind, _ in planned) >= 20
    larger = [tuple(sorted(members)) for _, members in planned if len(members) > 2]
    assert len(set(larger)) == len(larger)
    assert all(len(set(members)) == len(members) for members in larger)
    assert raw.plan(APPS) == planned


def test_pinning_gives_cores_of_their_own_where_there_are_enough() -> None:
    assert raw.pinning(3, [4, 5, 6, 7]) == [4, 5, 6]
    assert raw.pinning(4, [0, 1]) == [0, 1, 0, 1]


def test_of_two_measurements_the_narrower_stays_and_both_count() -> None:
    rows: list[dict[str, object]] = []
    for half in (0.2, 0.1, 0.3):
        raw.keep(rows, row("pair", ["a", "b"], half))
    assert [(one["halves"], one["tries"]) for one in rows] == [([0.1, 0.1], 3)]
    assert raw.too_wide({"sets": [row("pair", ["a", "b"], 0.01), row("pair", ["a", "c"], 0.5)]}) == [
        ("pair", ("a", "c"))
    ]
    assert raw.too_wide({"sets": rows}) == []
    disturbed = row("pair", ["a", "b"], 0.001) | {"disturbed": 0.5}
    raw.keep(rows, disturbed)
    assert rows[0]["halves"] == [0.1, 0.1]
    assert raw.too_wide({"sets": [disturbed]}) == [("pair", ("a", "b"))]


def test_what_was_measured_is_not_planned_again_and_other_machines_are_refused(tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    kept = raw.load(table)
    planned = raw.plan(APPS)
    kept["sets"].append(row(planned[0][0], list(planned[0][1]), 0.01))
    kept["noise"].append({"app": "app3"})
    raw.save(table, kept)
    left = raw.left(raw.load(table), planned)
    assert len(left) == len(planned) - 2
    assert planned[0] not in left
    assert ("alone twice", ("app3",)) not in left
    table.write_text(json.dumps(kept | {"machine": "elsewhere"}))
    with pytest.raises(SystemExit, match="was measured on elsewhere"):
        raw.load(table)


def test_physical_cores_of_their_own_come_first() -> None:
    siblings = [Core(index, 0, physical) for index, physical in enumerate([0, 0, 2, 2, 4, 4])]
    assert raw.spread(siblings) == [0, 2, 4, 1, 3, 5]
    assert raw.spread([Core(1, 0, 1), Core(0, 0, 0)]) == [0, 1]
