"""A calibration of this very machine."""

import os
from pathlib import Path

import pytest

from tandem.core.machine import discover
from tandem.estimate.bubbles import Bubble, BubbleError, Reporter, calibrate, calibrating, describe
from tandem.estimate.profile import KINDS

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
        response = calibrating.respond(reporter, bubble, (0.0, 1.0), rounds=5)
    assert response.slowdowns[1] > 1.25  # 2 when nobody else is on the core
