"""A programme of two phases that differ, profiled for real: one works without pause, the other waits most of the time.

Everything is compared between the phases of one run, so that a machine which others use as well changes nothing: they
take from both alike. Where they take much of the time, profiling says so, and is tried again.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tandem.core.machine import discover
from tandem.estimate import estimators
from tandem.estimate.bubbles import Calibration, Response
from tandem.estimate.corun import App, Capacity
from tandem.estimate.profiling.measure import Terms, measure
from tests.estimate.disturbance import holds

if TYPE_CHECKING:
    from tandem.estimate.profile import PhaseProfile, Profile

PROGRAMME = """
import time
from tandem.core.records import Recorder
recorder, step = Recorder.from_env(), 0
while True:
    for phase in ("work", "wait"):
        recorder.phase(phase)
        for _ in range(80):
            if phase == "work":
                for _ in range(150_000): pass
            else:
                time.sleep(0.01)
            step += 1
            recorder.record(step=step)
"""


def only(profile: Profile, phase: PhaseProfile) -> Profile:
    """As if the programme were nothing but this phase."""
    return replace(profile, phases=(replace(phase, share=1.0),))


@pytest.mark.slow
def test_each_phase_has_its_own_profile_and_predictions_use_both() -> None:
    here = discover()
    cores = tuple(core.index for core in here.cores)
    straight = Response((0.0, 1.0), (1.0, 2.0), 0.02)
    calibration = Calibration(here.fingerprint, cores, {"cpu": straight}, {}, 1e9, 1.0)
    terms = Terms(key="two", cores=cores[:1], beside=cores[1:], most_s=25.0)
    argv = [sys.executable, "-c", PROGRAMME]
    holds(lambda: measure(argv, terms, calibration), lambda found: found.waited, differs_by_phase)


def differs_by_phase(found: Profile) -> None:
    phases = {phase.phase: phase for phase in found.phases}
    assert set(phases) == {"work", "wait"}
    work, wait = phases["work"], phases["wait"]
    assert work.share + wait.share == pytest.approx(1.0, abs=0.001)
    assert work.cpu_use > 3 * wait.cpu_use
    assert set(work.sensitivity) == set(wait.sensitivity) == {"cpu"}
    assert work.sensitivity["cpu"].slowdowns[-1] - 1 > 2 * (wait.sensitivity["cpu"].slowdowns[-1] - 1)

    crowd = (App("two", cores=(0,)),) * 8  # more than fit one core, even if others had half of it meanwhile

    def slowdown(profile: Profile) -> float:
        return estimators.make("bubble", (), (profile,)).predict(crowd, Capacity(2000))[0].mid

    assert slowdown(only(found, wait)) < slowdown(found) < slowdown(only(found, work))
