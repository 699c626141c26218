"""Which setting is measured next: flat kinds end early, bent curves get more levels."""

import random
from collections.abc import Callable

import pytest

from tandem.estimate.profiling.campaign import FEWEST, MOST, Campaign, Setting
from tandem.estimate.profiling.ratios import Interval, interval


def played(truth: Callable[[Setting], float], noise: float = 0.01, seed: int = 0) -> tuple[Campaign, list[Setting]]:
    """Play a campaign against known slowdowns."""
    rng = random.Random(seed)
    seen: dict[Setting, list[float]] = {}

    def known(setting: Setting, phase: str) -> Interval | None:
        return interval(seen[setting], noise) if setting in seen else None

    campaign = Campaign(known, ["cache", "cpu", "net"], lambda: [""])
    order = []
    while (setting := campaign.next()) is not None:
        order.append(setting)
        seen.setdefault(setting, []).append(truth(setting) * rng.lognormvariate(0, noise / 1.645))
        assert len(order) < 500
    return campaign, order


def test_flat_kinds_end_after_the_fewest_windows() -> None:
    campaign, order = played(lambda setting: 1.0)
    assert set(order) == {("cache", 1.0), ("cpu", 1.0), ("net", 1.0)}
    assert len(order) <= 3 * (FEWEST + 1)
    curve = campaign.curve("net", "")
    assert curve is not None
    assert curve.levels == (0.0, 1.0)
    assert curve.at(0.5) == pytest.approx(1.0, abs=0.02)


def test_a_straight_curve_gets_two_levels_and_a_bent_one_four() -> None:
    def truth(setting: Setting) -> float:
        kind, level = setting
        return {"cache": 1.0 + level, "cpu": 1.0 + level**3, "net": 1.0}[kind]

    campaign, _ = played(truth)
    curves = [campaign.curve(kind, "") for kind in ("cache", "cpu", "net")]
    assert [curve.levels for curve in curves if curve] == [(0.0, 0.5, 1.0), (0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 1.0)]
    bent = curves[1]
    assert bent is not None
    for level in (0.25, 0.5, 0.75, 1.0):
        assert bent.at(level) == pytest.approx(1.0 + level**3, abs=0.05)


def test_what_stays_uncertain_is_given_up_at_some_point() -> None:
    _, order = played(lambda setting: 1.3, noise=0.3)
    assert max(order.count(setting) for setting in set(order)) == MOST


def test_a_kind_of_which_nothing_is_known_has_no_curve() -> None:
    assert Campaign(lambda setting, phase: None, ["cache"], lambda: [""]).curve("cache", "") is None


def test_a_setting_whose_windows_say_nothing_does_not_keep_the_others_from_theirs() -> None:
    rates = {"cache": None, "cpu": Interval(1.0, 0.01, 9), "net": Interval(1.0, 0.01, 9)}
    told: set[str] = set()

    def known(setting: Setting, phase: str) -> Interval | None:
        return rates[setting[0]] if setting[0] in told else None

    campaign = Campaign(known, list(rates), lambda: [""])
    order = []
    while (setting := campaign.next()) is not None:
        order.append(setting[0])
        told.add(setting[0])
        assert len(order) < 100
    assert order[:3] == ["cache", "cpu", "net"]
    assert order.count("cache") == MOST, "then it is given up"
    assert campaign.curve("cache", "") is None


def test_a_phase_that_is_first_seen_late_gets_its_windows_too() -> None:
    told: list[Setting] = []
    phases = ["work"]

    def known(setting: Setting, phase: str) -> Interval | None:
        since = 0 if phase == "work" else 4
        count = told[since:].count(setting)
        return Interval(1.0, 0.01, count) if count else None

    campaign = Campaign(known, ["cache"], lambda: phases)
    while (setting := campaign.next()) is not None:
        told.append(setting)
    assert len(told) == FEWEST
    phases.append("wait")
    while (setting := campaign.next()) is not None:
        told.append(setting)
        assert len(told) < 20
    assert len(told) == 4 + FEWEST
