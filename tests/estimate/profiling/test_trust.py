"""Which causes a profile names for certain, and which only as a perhaps."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from tandem.estimate.profile import Curve, PhaseProfile, Profile
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
    found = trust.felt(phase(noise, net=(slow, half)), "net")
    assert (found == "sure") == (slow - 1.0 > max(0.05, half, noise))
    assert (found == "no") == (slow - 1.0 <= max(0.05, half))


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
