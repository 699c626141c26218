"""A measurement keeps its limit, and says what it left out."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.core.machine import discover
from tandem.estimate.bubbles import Calibration, Response
from tandem.estimate.bubbles.process import program
from tandem.estimate.profiling import picture
from tandem.estimate.profiling.deadline import Deadline
from tandem.estimate.profiling.measure import Terms, measure
from tandem.estimate.profiling.programme import ProgrammeError

if TYPE_CHECKING:
    from pathlib import Path

    from tandem.estimate.profile import Profile

KINDS = ("cpu", "fs_write", "net")
STEPS = "import time\nfor i in range(10**6):\n    print('step', i, flush=True)\n    time.sleep(0.4)"
SELDOM = (sys.executable, "-S", "-E", "-c", STEPS)
"""A step every 0.4 s, whatever else the machine does; windows of 1.2 s therefore."""

WINDOW_S = 1.2


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1))
def test_a_share_ends_at_its_part_of_what_is_left(now: float, seconds: float, part: float) -> None:
    deadline = Deadline.after(seconds, clock=lambda: now)
    assert deadline.left_s() == pytest.approx(seconds, abs=1e-9 * (now + 1))
    assert deadline.share(part).left_s() == pytest.approx(part * seconds, abs=1e-6)
    assert not deadline.fits(seconds + 1.0)
    assert Deadline(now - 1.0, lambda: now).share(part).at_s == now, "nothing is left of what is past"


def calibration() -> Calibration:
    here = discover()
    straight = Response((0.0, 1.0), (1.0, 2.0), 0.02)
    return Calibration(
        here.fingerprint, tuple(core.index for core in here.cores), dict.fromkeys(KINDS, straight), {}, 0.0, 1.0
    )


def profiled(most_s: float, argv: tuple[str, ...] = SELDOM) -> tuple[Profile, float]:
    """Its profile within a limit, and what that took."""
    known = calibration()
    terms = Terms(key="seldom", cores=known.cores[:1], beside=known.cores[1:2], rate=r"step (\d+)", most_s=most_s)
    begun = time.monotonic()
    return measure(argv, terms, known), time.monotonic() - begun


@pytest.mark.slow
def test_the_limit_holds_within_a_window_and_what_was_left_out_is_named() -> None:
    profile, took_s = profiled(9.0)
    assert took_s < 9.0 + WINDOW_S
    assert profile.left_out["sensitivity"] == ("cpu", "fs_write", "net"), "one window beside takes 2.5 s"
    told = {*profile.phases[0].pressure, *profile.left_out.get("unsteady", ())}
    assert 1 <= len(told) < len(KINDS)
    assert set(profile.left_out["pressure"]) == set(KINDS) - told
    assert (
        "for want of time it was not tried whether it is slowed by its own cores, durable file writes, "
        "loopback network: tandem profile again seldom gives it more"
    ) in picture.sentences(profile)


@pytest.mark.slow
def test_a_disk_that_stalls_costs_its_own_kind_and_no_more_time_than_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stalls = tmp_path / "bubble"
    stalls.write_text(f'#!/bin/sh\n[ "$2" = fs_write ] && exec sleep 60\nexec {program()} "$@"\n')
    stalls.chmod(0o755)
    monkeypatch.setenv("TANDEM_BUBBLE", str(stalls))
    often = (*SELDOM[:-1], STEPS.replace("0.4", "0.01"))
    profile, took_s = profiled(10.0, often)
    assert took_s < 10.0 + WINDOW_S
    assert profile.left_out["sensitivity"] == profile.left_out["pressure"] == ("fs_write",)
    assert set(profile.phases[0].sensitivity) == {"cpu", "net"}
    unsteady = set(profile.left_out.get("unsteady", ()))  # those that others disturb
    assert set(profile.phases[0].pressure) == {"cpu", "net"} - unsteady


@pytest.mark.slow
def test_a_limit_in_which_nothing_can_be_known_is_an_error_that_says_so_in_time() -> None:
    begun = time.monotonic()
    with pytest.raises(ProgrammeError, match=r"4 windows of 1\.2 s alone did not fit in the 3 s for seldom.*--most 55"):
        profiled(3.0)
    assert time.monotonic() - begun < 3.0 + WINDOW_S


def test_one_that_hangs_is_an_error_when_the_time_is_over_and_not_when_patience_is() -> None:
    known, begun = calibration(), time.monotonic()
    terms = Terms(key="stuck", cores=known.cores[:1], beside=known.cores[1:2], most_s=0.4)
    with pytest.raises(ProgrammeError, match=r"stuck made no progress in all the time, by.*see whether it hangs"):
        measure((sys.executable, "-S", "-E", "-c", "import time; time.sleep(60)"), terms, known)
    assert time.monotonic() - begun < 10.0, "patience is 20 s"
