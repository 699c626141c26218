"""Constants are found again where they are known, on pairs alone."""

from __future__ import annotations

import pytest

from benchmarks import estimate_fit, estimate_score
from tandem.estimate import contention
from tests.benchmarks.test_estimate_score import profiles, table


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid that is tried in a moment."""
    monkeypatch.setattr(estimate_fit, "GAINS", (0.7, 1.0, 1.4))
    monkeypatch.setattr(estimate_fit, "EXPONENTS", (1.0, 8.0))
    monkeypatch.setattr(estimate_fit, "MOSTS", (0.5, 1.0))
    monkeypatch.setattr(estimate_fit, "DOUBTS", (1.0,))
    monkeypatch.setattr(estimate_fit, "RIDGES", (0.1,))


def test_constants_come_from_pairs_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    small(monkeypatch)
    spoiled = [
        {**one, "slowdowns": [9.0] * 3, "halves": [0.1] * 3} if len(one["set"]) == 3 else one for one in table()["sets"]
    ]
    before = estimate_fit.in_source()
    found = estimate_fit.fit(estimate_score.read({"sets": spoiled}), profiles(), ("fft3d", "imageprep"))
    assert (found.constants.gain, found.constants.most) == (1.0, 1.0)
    assert found.constants.spread == min(estimate_fit.SPREADS), "profiles that are right need no width"
    assert found.pairs == 6
    assert found.agreed["gain"] == 1.0
    assert found.trial_mean < 0.1
    assert estimate_fit.in_source() == before
    estimate_fit.show(found)
    assert "GAIN          1  (1; 1.00)" in capsys.readouterr().out


def test_a_gain_that_is_off_is_found_and_the_applications_held_out_are_not_looked_at(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small(monkeypatch)
    held_out = ("fft3d", "imageprep")
    sets = []
    for one in table()["sets"]:
        factor = 9.0 if set(one["set"]) & set(held_out) else 1.4
        sets.append({**one, "slowdowns": [1 + factor * (slowdown - 1) for slowdown in one["slowdowns"]]})
    found = estimate_fit.fit(estimate_score.read({"sets": sets}), profiles(), held_out)
    assert found.constants.gain == 1.4
    assert found.trial_mean < 0.1 < found.source_mean
    estimate_fit.show(found)
    assert "end of what was tried" in capsys.readouterr().out


def test_other_constants_hold_within_the_block_only() -> None:
    now = estimate_fit.in_source()
    with estimate_fit.physics(now._replace(gain=1.4)):
        assert contention.GAIN == 1.4
        scores = estimate_score.score(estimate_score.read(table()), profiles(), ("fft3d", "imageprep"))
    assert scores["2 members that fit"]["bubble"].mean > 1.0
    assert now == estimate_fit.in_source()


def test_no_pair_to_choose_on() -> None:
    with pytest.raises(ValueError, match="no pair that fits"):
        estimate_fit.fit([], profiles(), ())
