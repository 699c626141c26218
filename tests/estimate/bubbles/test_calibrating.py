"""A calibration of this very machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tandem.core.machine import discover
from tandem.estimate.bubbles import Bubble, BubbleError, Reporter, Response, calibrate, calibrating, describe
from tandem.estimate.profile import KINDS
from tests.estimate.disturbance import holds

CORES = tuple(sorted(os.sched_getaffinity(0)))


def test_on_one_core_only_the_core_itself_can_be_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrating, "LEVELS", (0.0, 1.0))
    told: list[str] = []
    found = calibrate(cores=CORES[:1], folder=tmp_path, progress=told.append)
    assert found.responses.keys() == {"cpu"}
    assert found.lacking.keys() == set(KINDS) - {"cpu"}
    assert told == ["calibrating cpu"]
    assert sum("two cores" in line for line in describe(found)) == len(KINDS) - 1
    assert found.machine == discover().fingerprint


def test_a_folder_without_room_costs_its_kinds_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrating, "KINDS", ("fs_read", "cpu"))
    monkeypatch.setattr(calibrating, "LEVELS", (0.0, 1.0))
    found = calibrate(cores=(CORES[0], CORES[-1]), folder=tmp_path / "nowhere", progress=None)
    assert "cannot make a file" in found.lacking["fs_read"]
    assert "cpu" in found.responses


def test_a_core_that_is_not_there_is_refused() -> None:
    with pytest.raises(BubbleError, match="may use"):
        calibrate(cores=(max(CORES) + 1,), folder=None)


def test_a_competitor_on_its_core_slows_a_reporter() -> None:
    with Reporter("cpu", cores=CORES[:1]) as reporter, Bubble("cpu", cores=CORES[:1]) as bubble:
        holds(lambda: calibrating.respond(reporter, bubble, (0.0, 1.0), rounds=5), lambda found: found.waited, slowed)


def slowed(response: Response) -> None:
    assert response.slowdowns[1] > 1.25  # 2 when nobody else is on the core
    assert response.scatter < 1.0


def test_what_others_take_of_its_core_is_measured_and_what_the_bubble_takes_is_not() -> None:
    """Half of the core is a stranger's: the reporter waits as long as it runs, in the windows alone too."""
    stranger = subprocess.Popen([sys.executable, "-S", "-E", "-c", "while True: pass"])
    try:
        os.sched_setaffinity(stranger.pid, CORES[:1])
        with Reporter("cpu", cores=CORES[:1]) as reporter, Bubble("cpu", cores=CORES[:1]) as bubble:
            found = calibrating.taken(reporter, bubble, (1.0,), rounds=20)
    finally:
        stranger.kill()
        stranger.wait()
    assert len(found.alone) == 21
    assert found.waited > 0.25
    assert found.bubble_waited > 0.25, "it stood in line behind both"


def test_a_bubble_that_is_kept_from_cores_of_its_own_counts_and_one_that_shares_its_core_does_not() -> None:
    played = Played()
    shared = calibrating.respond(played, played, (0.0, 1.0), rounds=3, spans=calibrating.Spans(0.0, 0.0, 0.0))
    own = calibrating.respond(played, played, (0.0, 1.0), rounds=3, spans=calibrating.Spans(0.0, 0.0, 0.0), own=2)
    assert shared.waited == 0.0
    assert own.waited == 1.0, "it cannot be more than all of the time"
    assert (own.slowdowns, own.scatter) == ((1.0, 2.0), 0.0)


def test_on_a_busy_machine_rounds_are_cut_short_but_for_the_first_three() -> None:
    played, spans = Played(), calibrating.Spans(0.0, 0.0, 0.0)
    assert len(calibrating.taken(played, played, (0.5, 1.0), rounds=8, spans=spans, most_s=0.0).slowdowns[1.0]) == 3
    assert len(calibrating.taken(played, played, (0.5, 1.0), rounds=8, spans=spans).slowdowns[1.0]) == 8


class Played:
    """A reporter that goes half as fast beside its bubble, and a bubble that waits whenever it presses."""

    def __init__(self) -> None:
        self.level = self.waits_s = 0.0

    def go(self) -> None: ...

    def pause(self) -> None: ...

    def set(self, level: float) -> None:
        self.level = level

    def rate(self, seconds: float) -> float:
        del seconds
        self.waits_s += self.level
        return 1.0 / (1.0 + self.level)

    def waited_s(self) -> float:
        return self.waits_s
