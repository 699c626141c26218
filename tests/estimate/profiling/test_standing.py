"""Cores that are kept busy without a step: against a programme that is played, look by look."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.estimate.profiling.progress import Trace
from tandem.estimate.profiling.standing import Standing


class Played:
    """A subject and its programme in one, at whose looks time passes.

    Args:
        course: for each look (seconds that passed, processor time spent in them, kept from its cores for, told then).
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, course: list[tuple[float, float, float, str]]) -> None:
        self.programme, self.trace, self.runs = self, Trace(), 1
        self.left = list(course)
        self._now = self._spent_s = self._kept_s = 0.0
        self._told = ""
        monkeypatch.setattr("tandem.estimate.profiling.standing.time.monotonic", lambda: self._now)

    def cpu_s(self) -> float:
        return self._spent_s

    def waited_s(self) -> float:
        return self._kept_s

    def read(self) -> None:
        what, _, name = self._told.partition(" ")
        if what == "step":
            self.trace.add(self._now, len(self.trace))
        elif what == "end":
            self.trace.cut(self._now)
            self.runs += 1
        elif what:
            self.trace.enter(self._now, name)
        self._told = ""

    def until_it_works(self, deadline: object, look: object) -> bool:
        assert callable(look)
        while self.left:
            passed_s, spent_s, kept_s, self._told = self.left.pop(0)
            self._now, self._spent_s, self._kept_s = (
                self._now + passed_s,
                self._spent_s + spent_s,
                self._kept_s + kept_s,
            )
            look()
        return True


def played(monkeypatch: pytest.MonkeyPatch, course: list[tuple[float, float, float, str]]) -> Standing:
    subject = Played(monkeypatch, course)
    standing = Standing(subject, 1)  # type: ignore[arg-type]
    assert standing.until_it_works(None)  # type: ignore[arg-type]
    return standing


LOOK = (0.01, 0.01, 0.0, "")
"""The first one in which nothing was told: from then on it is reckoned."""

STEP, SAVE, TRAIN = (0.25, 0.25, 0.0, "step"), (0.01, 0.01, 0.0, "phase save"), (0.01, 0.01, 0.0, "phase train")


@given(busy=st.floats(0.0, 1.0), steps=st.integers(1, 5), looks=st.integers(1, 100))
def test_steps_around_a_phase_without_any_are_none_of_it(busy: float, steps: int, looks: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        standing = played(patch, [STEP, SAVE, LOOK, *[(0.01, busy * 0.01, 0.0, "")] * looks, TRAIN, *[STEP] * steps])
    assert standing.use("save") == pytest.approx(busy, abs=1e-9)


def test_each_phase_has_its_own_and_one_that_was_not_seen_none(monkeypatch: pytest.MonkeyPatch) -> None:
    check = (0.01, 0.01, 0.0, "phase check")
    saves, checks = [SAVE, LOOK, (0.5, 0.0, 0.0, "")], [check, LOOK, (0.2, 0.2, 0.0, "")]
    standing = played(monkeypatch, [STEP, *saves, *checks, TRAIN, STEP, STEP])
    assert (standing.use("save"), standing.use("check")) == (0.0, pytest.approx(1.0))
    assert standing.use("load") is None
    assert played(monkeypatch, [STEP, SAVE, LOOK, TRAIN, STEP]).use("save") is None


def test_pauses_are_what_lasts_longer_than_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Amid steps it stands for 1 s with little to do, and is looked at within steps."""
    within = (0.05, 0.05, 0.0, "")
    at_steps, pause = [STEP, LOOK, within], [STEP, LOOK, (0.5, 0.1, 0.0, ""), (0.5, 0.1, 0.0, "")]
    standing = played(monkeypatch, [*at_steps, *pause, *at_steps, STEP])
    assert standing.use("", 0.1) == pytest.approx(0.2)
    assert standing.use("", 1.5) is None


def test_what_others_took_is_no_time_that_it_stood_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    standing = played(monkeypatch, [STEP, SAVE, LOOK, (1.0, 0.5, 0.5, ""), (1.0, 0.5, 0.5, ""), TRAIN])
    assert standing.use("save") == pytest.approx(1.0)


def test_the_start_of_a_run_is_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    end = (0.01, 0.0, 0.0, "end")
    loads = [LOOK, (2.0, 2.0, 0.0, "")]
    standing = played(monkeypatch, [STEP, SAVE, LOOK, (1.0, 0.0, 0.0, ""), end, *loads, TRAIN, *loads, STEP])
    assert standing.use("save") == 0.0
    assert standing.use("train", 0.1) is None
