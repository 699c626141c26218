"""Which causes a profile names for certain, and which only as a perhaps."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.estimate.bubbles import Calibration, Response
from tandem.estimate.profile import KINDS, LEAST_EXCESS, Curve, PhaseProfile, Profile
from tandem.estimate.profiling import picture, trust

if TYPE_CHECKING:
    from pathlib import Path


def phase(noise: float, **slowed: tuple[float, float]) -> PhaseProfile:
    """A phase that kinds slow so much, with such half-widths."""
    curves = {kind: Curve((0.0, 1.0), (1.0, slow), (0.0, half)) for kind, (slow, half) in slowed.items()}
    return PhaseProfile("", 1.0, 10.0, noise, 1.0, curves)


def profile(only: PhaseProfile) -> Profile:
    return Profile("cg", ("cg",), "here", 1, 0.0, 20.0, 1, (only,))


def test_a_cause_within_the_noise_is_a_perhaps_and_how_many_kinds_were_tried_is_said() -> None:
    noisy = profile(phase(0.59, cpu=(1.9, 0.2), cache=(1.4, 0.2), net=(1.3, 0.4)))
    said = picture.sentences(noisy)
    assert said[0] == "slowed by its own cores (up to 1.90x)"
    assert said[1] == "perhaps slowed by last-level cache (up to 1.40x): its own noise, +- 59%, could feign that"
    assert not any("network" in one for one in said)
    assert picture.sentences(profile(phase(0.59, cpu=(1.3, 0.1))))[0] == (
        "slowed by nothing for certain of the one kind that was tried: its own cores"
    )
    assert picture.sentences(profile(phase(0.02, cpu=(1.0, 0.1), net=(1.0, 0.1))))[0] == (
        "slowed by nothing for certain of the 2 kinds that were tried"
    )
    assert "not known" in picture.sentences(profile(phase(0.02)))[0]


@given(st.floats(0, 1), st.floats(1, 3), st.floats(0, 1))
def test_only_what_exceeds_noise_interval_and_a_twentieth_is_sure(noise: float, slow: float, half: float) -> None:
    only = phase(noise, net=(slow, half))
    found = trust.felt(profile(only), only, "net")
    assert (found == "sure") == (slow - 1.0 > max(0.05, half, noise))
    assert (found == "no") == (slow - 1.0 <= max(0.05, half))


def test_what_a_disturbed_profile_says_of_causes_is_a_perhaps() -> None:
    arithmetic = phase(0.97, fs_write=(2.06, 0.5))
    words = "slowed by durable file writes (up to 2.06x)"
    assert words in picture.sentences(profile(arithmetic))
    said = picture.sentences(replace(profile(arithmetic), waited=0.42))
    assert said[0].startswith("slowed by nothing for certain")
    assert said[1] == f"perhaps {words}: others had its cores for 42% of the time, which could feign that"


def test_the_more_kinds_were_tried_the_more_one_has_to_exceed_its_interval() -> None:
    """Nobody feels anything: of seven normal errors one is taken for a cause in 5 % of profiles, not in 30 %."""
    rng, errors = np.random.default_rng(3), 0
    for _ in range(2000):
        excess = rng.normal(0.0, 1.0 / 1.6449, size=len(KINDS))
        only = phase(0.0, **{kind: (max(0.01, 1.0 + one), 1.0) for kind, one in zip(KINDS, excess, strict=True)})
        errors += any(trust.felt(profile(only), only, kind) == "sure" for kind in KINDS)
    assert errors / 2000 == pytest.approx(0.05, abs=0.015)


def test_what_presses_harder_than_any_bubble_can_is_told_as_at_least_that() -> None:
    hard = replace(phase(0.02), pressure={"net": 128.0, "cache": 0.9}, pressure_half={"net": 4.0, "cache": 0.1})
    assert picture.sentences(profile(hard))[-1] == "presses on loopback network (at least 4), last-level cache (0.90)"
    assert "a pressure of 4 or more: at least 4" in picture.phase_table(profile(hard), hard).note
    doubtful = replace(hard, pressure={"net": 4.0}, pressure_half={"net": 4.0})
    assert "at least" not in picture.sentences(profile(doubtful))[1]


def test_pressures_that_older_versions_made_of_nothing_are_not_shown() -> None:
    absurd = replace(phase(0.02), pressure={"net": 49.0, "cache": 0.9}, pressure_half={"net": 1.0, "cache": 0.1})
    old = replace(profile(absurd), reporter_excess={"net": LEAST_EXCESS, "cache": 0.2})
    said = picture.sentences(trust.believed(old))
    assert said[1] == "presses on last-level cache (0.90)"
    assert said[2].startswith("how hard it presses on loopback network cannot be known here")
    assert trust.believed(trust.believed(old)) == trust.believed(old)
    felt = replace(old, reporter_excess={"net": 0.2, "cache": 0.2})
    assert trust.believed(felt) is felt


def test_of_kinds_whose_reporter_tells_nothing_it_is_said_why() -> None:
    known = profile(replace(phase(0.02), pressure={"cache": 0.9}))
    said = picture.sentences(replace(known, left_out={"unfelt": ("net", "fs_read"), "unsteady": ("fs_write",)}))
    assert said[-2:] == [
        "how hard it presses on loopback network, file reads cannot be known here: "
        "the strongest bubbles of this machine do not slow even their own reporters",
        "how hard it presses on durable file writes is not known: "
        "its reporter stood still or scattered by itself; tandem profile again cg at a quieter time",
    ]


def test_a_profile_is_of_an_older_calibration_where_a_newer_one_is_kept() -> None:
    def calibration(made: float, slowest: float) -> Calibration:
        return Calibration("here", (0, 1), {"net": Response((0.0, 1.0), (1.0, slowest), 0.01)}, {}, made, 1.0)

    kept = calibration(2.0, 1.5)
    of_it = replace(profile(phase(0.02)), reporter_excess=kept.reporter_excess, calibrated=2.0)
    assert trust.older(of_it, kept) == trust.older(of_it, None) == ""
    words = trust.older(of_it, calibration(3.0, 1.5))
    assert words.startswith("cg: the machine's bubbles have been calibrated since it was profiled")
    assert "tandem profile again cg" in words
    unnamed = replace(of_it, calibrated=0.0)  # as older versions kept it: told by what the reporters felt
    assert trust.older(unnamed, calibration(3.0, 1.5)) == ""
    assert trust.older(unnamed, calibration(3.0, 1.6)) != ""
    assert trust.older(profile(phase(0.02)), kept) == "", "nothing is known of it"


def test_a_noisy_profile_is_marked_in_the_table_on_the_page_and_in_words(tmp_path: Path) -> None:
    quiet, noisy = profile(phase(0.05, cpu=(1.9, 0.2))), profile(phase(0.59, cpu=(1.9, 0.2)))
    words = trust.warning(noisy)
    assert "scatters by 59% between windows" in words
    assert "tandem profile again cg when the machine is quiet" in words
    assert (trust.warning(quiet), trust.mark(quiet), trust.mark(noisy)) == ("", "", "noisy")
    table = picture.list_table([quiet, noisy])
    column = [one.name for one in table.columns].index("make again")
    assert [getattr(row[column], "value", row[column]) for row in table.rows] == ["", "noisy"]
    assert "scatters by 59%" in picture.write_report(noisy, [noisy], tmp_path / "cg.html").read_text()
    assert "scatters by" not in picture.write_report(quiet, [quiet], tmp_path / "quiet.html").read_text()
    assert trust.mark(replace(noisy, waited=0.3)) == "disturbed"
    assert trust.causes(noisy)[""]["sure"] == ["cpu"]
