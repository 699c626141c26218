"""Scoring, on co-runs whose truth is known."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from benchmarks import estimate_score
from tandem.estimate.contention import FELT
from tandem.estimate.corun import Slowdown
from tandem.estimate.profile import Curve, PhaseProfile, Profile

BOUND = {"cg": 0.9, "lu": 0.05, "sort": 0.4, "stream": 0.7, "fft3d": 0.5, "imageprep": 0.1}
PRESSURE = {"cg": 0.5, "lu": 0.02, "sort": 0.3, "stream": 0.9, "fft3d": 0.4, "imageprep": 0.1}


def profiles() -> list[Profile]:
    flat = Curve((0.0, 1.0), (1.0, 1.0), (0.0, 0.0))
    found = []
    for key, bound in BOUND.items():
        curves = {kind: Curve((0.0, 1.0), (1.0, 1.0 + bound), (0.0, 0.0)) if kind == "cache" else flat for kind in FELT}
        levels = {kind: PRESSURE[key] if kind == "cache" else 0.0 for kind in FELT}
        found.append(Profile(key, (), "here", 1, 0.0, 0.0, 1, (PhaseProfile("", 1.0, 1.0, 0.0, 1.0, curves, levels),)))
    return found


def measured(members: tuple[str, ...], cores: list[int], kind: str = "pair") -> dict[str, Any]:
    slowdowns = []
    for i, key in enumerate(members):
        others = [j for j in range(len(members)) if j != i]
        turns = [j for j in others if cores[j] == cores[i]]
        stretch = 1 + len(turns)
        pressed = sum(PRESSURE[members[j]] / cores.count(cores[j]) for j in others if cores[j] != cores[i])
        slowdowns.append(stretch * (1 + BOUND[key] * pressed))
    return {"kind": kind, "set": list(members), "cores": cores, "slowdowns": slowdowns, "halves": [0.01] * len(members)}


def table() -> dict[str, Any]:
    pairs = [measured(pair, [0, 1]) for pair in itertools.combinations(sorted(BOUND), 2)]
    triples = [measured(one, [0, 1, 0]) for one in itertools.combinations(sorted(BOUND), 3)]
    wide = [measured(one, [0, 1, 2]) for one in itertools.combinations(sorted(BOUND), 3)]
    again = [{**pairs[0], "kind": "pair again"}]
    return {
        "noise": [{"app": "cg", "ratio": 1.02}, {"app": "lu", "ratio": 0.96}],
        "sets": [*pairs, *triples, *wide, *again],
    }


def test_the_truth_of_the_physics_is_found_and_kept_apart() -> None:
    rows = estimate_score.read(table())
    scores = estimate_score.score(rows, profiles())
    held = "with an application held out, "
    groups = {"2 members that fit", "3 members that fit", "3 members that share cores"}
    assert set(scores) == groups | {held + group for group in groups}
    for models in scores.values():
        assert models["bubble"].mean < 0.1
        assert models["bubble"].r2 > 0.99
        assert models["bubble"].coverage90 == 1.0
        assert models["none"].mean > models["bubble"].mean
    assert scores["2 members that fit"]["bubble"].count == 2 * 6
    assert scores["3 members that fit"]["learned"].mean < 2.0
    assert scores["3 members that share cores"]["additive"].mean < 2.0, "the same share of cores as ours"


def test_pairs_of_an_application_with_itself_are_a_group_of_their_own() -> None:
    raw = table()
    raw["sets"].append(measured(("cg", "cg"), [0, 1]))
    scores = estimate_score.score(estimate_score.read(raw), profiles())
    assert scores["2 members (an application with itself) that fit"]["bubble"].count == 2
    assert scores["2 members that fit"]["bubble"].count == 2 * 6


def test_goals_are_said_as_reached_or_missed() -> None:
    def of(mean: float, coverage: float) -> estimate_score.Score:
        return estimate_score.Score(mean, mean, 0.0, coverage, 10)

    group = {"bubble": of(6.0, 0.9), "learned": of(4.5, 0.9), "additive": of(5.0, 0.9), "worst_pair": of(7.0, 0.9)}
    said = list(estimate_score.goals({"2 members that fit": group, "3 members that fit": group}, 2.0))
    assert "bubble: mean 6.0 %, goal at most 5.0 %: missed" in said
    assert "bubble: not better than additive (5.0 %) there" in said
    assert "learned: better than worst_pair (7.0 %) there" in said
    assert "coverage of triples and quadruples: 0.90, goal 0.85 to 0.95: reached" in said
    assert "learned: mean 4.5 %, goal at most 6.0 %: reached" in list(
        estimate_score.goals({"3 members that fit": group}, 4.0)
    )


def test_those_held_out_are_drawn_by_a_seed_whatever_the_order() -> None:
    names = [f"app{n}" for n in range(9)]
    assert estimate_score.drawn(names) == estimate_score.drawn(names[::-1] * 2)
    assert len(set(estimate_score.drawn(names))) == 2
    assert estimate_score.drawn(["a", "b"]) == ()


def test_figures_and_the_noise_floor() -> None:
    raw = table()
    noise = estimate_score.noise_floor(raw)
    assert noise == pytest.approx(3.0)
    found = estimate_score.figures(estimate_score.score(estimate_score.read(raw), profiles()), noise)
    assert set(found) == {
        "noise_floor",
        "bubble_median",
        "bubble_mean",
        "learned_mean_3_4",
        "additive_mean_3_4",
        "worst_pair_mean_3_4",
        "coverage90",
    }
    assert all(value is not None for value in found.values())


def test_what_a_pair_differs_by_at_another_time_is_told_to_the_models() -> None:
    raw = table()
    assert estimate_score.between(raw) == 0.0, "the same, and both know it"
    for one in raw["sets"]:
        if one["kind"] == "pair again":
            one["slowdowns"] = [1.2 * slowdown for slowdown in one["slowdowns"]]
    single = 0.2 * 1.4826 * 1.6449 / 2**0.5
    assert estimate_score.between(raw) == pytest.approx(single, abs=0.001)
    pair = estimate_score.Row(("a", "b"), (0, 1), (2.0, 1.0), (0.3, 0.1))
    rates = [1 / one.rate for one in estimate_score.told([pair], 0.2) if one.app == "a" and one.beside]
    assert max(rates) - 2.0 == pytest.approx((0.3**2 + 0.4**2) ** 0.5 / (1.4826 * 1.6449), rel=1e-3)
    assert estimate_score.between({"sets": []}) == 0.0


def test_a_summary_by_hand() -> None:
    def point(seen: float, mid: float, low: float, high: float, stretch: float = 1.0) -> estimate_score.Point:
        return estimate_score.Point(seen, 0.0, Slowdown(mid, low, high, False, ""), stretch)

    one = estimate_score.summarise(
        [point(0.96, 1.0, 1.0, 1.1), point(2.0, 1.5, 1.2, 1.8), point(4.0, 4.0, 3.0, 5.0, 2.0)]
    )
    assert one.mean == pytest.approx((100 * (1 / 0.96 - 1) + 25 + 0) / 3)
    assert one.coverage90 == pytest.approx(2 / 3)
    noisy = estimate_score.Point(2.0, 0.5, Slowdown(1.5, 1.2, 1.8, False, ""), 1.0)
    assert estimate_score.summarise([noisy]).coverage90 == 1.0
    mean = (0.96 + 2 + 2) / 3
    assert one.r2 == pytest.approx(1 - (0.04**2 + 0.5**2) / sum((x - mean) ** 2 for x in (0.96, 2, 2)))


def test_even_who_knows_the_truth_errs_by_the_noise_of_what_was_measured() -> None:
    half = 0.1
    rng = random.Random(5)
    rows = [estimate_score.Row(("a", "b"), (0, 1), (2.0, None), (half, None))] * 3
    seen = [abs(rng.gauss(2.0, half / 1.6449) / 2.0 - 1.0) for _ in range(20_000)]
    assert estimate_score.perfect(rows) == pytest.approx(100 * sum(seen) / len(seen), rel=0.03)
    assert estimate_score.perfect([]) is None
