"""Kin pairs: the process against conditioning by hand, and jobs that were never seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.estimate.kinship import NOISES, OWN, REACHES, STRANGERS, Kinship, Traits

TRAITS = {f"{group}{size}": Traits(group, float(size)) for group in ("lm", "net") for size in range(5)}
JOBS = sorted(TRAITS)


def truth(a: str, b: str) -> float:
    one, other = TRAITS[a], TRAITS[b]
    return (0.2 if one.group == "lm" else 0.6) + 0.1 * other.size - 0.02 * one.size * other.size


def test_one_pair_seen_by_hand() -> None:
    """With one observation y and median y every other pair is expected at y, whatever the likeness."""
    mids, halves = Kinship({("lm0", "lm1"): 0.5}, TRAITS).predict([("lm0", "lm1"), ("net3", "net4")])
    assert mids == pytest.approx([0.5, 0.5])
    assert halves[0] <= halves[1]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(JOBS), st.sampled_from(JOBS)), min_size=3, max_size=12, unique=True))
def test_conditioning_a_gaussian_written_out_entry_by_entry(pairs: list[tuple[str, str]]) -> None:
    seen = {pair: truth(*pair) for pair in pairs}
    asked = [(a, b) for a in JOBS[:3] for b in JOBS[-3:]]
    mids, _ = Kinship(seen, TRAITS).predict(asked)
    rows, median = sorted(seen), float(np.median(list(seen.values())))
    y = np.array([seen[pair] - median for pair in rows])

    def kin(a: str, b: str, stranger: float, reach: float) -> float:
        one, other = TRAITS[a], TRAITS[b]
        like = np.exp(-((one.size - other.size) ** 2) / (2 * reach**2)) if one.group == other.group else stranger
        return float((1 - OWN) * like + OWN * (a == b))

    def cov(p: tuple[str, str], q: tuple[str, str], stranger: float, reach: float) -> float:
        sensitive, pressing = kin(p[0], q[0], stranger, reach), kin(p[1], q[1], stranger, reach)
        return (sensitive + pressing + 2 * sensitive * pressing) / 4

    candidates = []
    for stranger in STRANGERS:
        for reach in REACHES:
            for noise in NOISES:
                inner = np.array([[cov(p, q, stranger, reach) for q in rows] for p in rows]) + noise**2 * np.eye(
                    len(rows)
                )
                across = np.array([[cov(p, q, stranger, reach) for q in rows] for p in asked])
                candidates.append(median + across @ np.linalg.solve(inner, y))
    assert any(np.allclose(mids, one, atol=1e-8) for one in candidates)


def test_a_job_never_seen_is_judged_by_its_kin() -> None:
    seen = {(a, b): truth(a, b) for a in JOBS for b in JOBS if "lm2" not in (a, b)}
    asked = [("lm2", b) for b in JOBS if b != "lm2"] + [(a, "lm2") for a in JOBS if a != "lm2"]
    mids, _ = Kinship(seen, TRAITS).predict(asked)
    errors = [abs(mid - truth(*pair)) for mid, pair in zip(mids, asked, strict=True)]
    spread = np.std([truth(*pair) for pair in asked])
    assert max(errors) < 0.25 * spread


def test_intervals_hold_for_pairs_left_out() -> None:
    rng = np.random.default_rng(0)
    noisy = {(a, b): truth(a, b) + 0.05 * rng.standard_normal() for a in JOBS for b in JOBS}
    pairs = sorted(noisy)
    seen = {pair: noisy[pair] for pair in pairs[::2]}
    asked = pairs[1::2]
    mids, halves = Kinship(seen, TRAITS).predict(asked)
    inside = [abs(mid - noisy[pair]) <= half for pair, mid, half in zip(asked, mids, halves, strict=True)]
    assert 0.75 <= np.mean(inside) <= 1.0


def test_nothing_seen_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one pair"):
        Kinship({}, TRAITS)
