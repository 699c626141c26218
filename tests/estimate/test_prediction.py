"""Ends worked by hand, and against a clock that takes small steps."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.estimate import estimators
from tandem.estimate.corun import App, Capacity, CoRun, Slowdown
from tandem.estimate.prediction import Work, WorkError, predict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NODE = Capacity(64_000)


@dataclass
class Table:
    """An estimator whose answers are written down: slowdown by (application, sorted neighbours)."""

    slowdowns: dict[tuple[str, tuple[str, ...]], float]
    spread: float = 0.0
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def observe(self, corun: CoRun) -> None:
        """Learns nothing."""

    def predict(self, apps: tuple[App, ...], capacity: Capacity) -> tuple[Slowdown, ...]:
        keys = [app.key for app in apps]
        self.asked.append(tuple(keys))
        answers = []
        for i, key in enumerate(keys):
            mid = self.slowdowns.get((key, tuple(sorted(keys[:i] + keys[i + 1 :]))), 1.0)
            low, high = max(1.0, mid - self.spread), mid + (self.spread if len(keys) > 1 else 0.0)
            answers.append(Slowdown(mid, low, high, True, f"{key} with {len(keys) - 1}"))
        return tuple(answers)

    def knows(self, app: App) -> bool:
        return True

    def revision(self, keys: Iterable[str]) -> tuple[int, int]:
        return 0, 0


def work(key: str, alone_s: float, start_s: float = 0.0) -> Work:
    return Work(App(key), alone_s, start_s)


PAIR = {("a", ("b",)): 2.0, ("b", ("a",)): 1.5}


def test_two_that_start_together() -> None:
    # b (30 s alone) goes at 2/3: done at 45. By then a has done 22.5 of its 60 s; the rest is alone: 82.5.
    told = predict([work("a", 60.0), work("b", 30.0)], Table(PAIR), NODE)
    assert [course.end_s.mid for course in told.courses] == pytest.approx([82.5, 45.0])
    assert told.end_s.mid == pytest.approx(82.5)
    assert told.courses[0].slowdown.mid == pytest.approx(82.5 / 60)
    assert [(piece.begin_s, piece.end_s, piece.members) for piece in told.pieces] == [
        (0.0, pytest.approx(45.0), (0, 1)),
        (pytest.approx(45.0), pytest.approx(82.5), (0,)),
    ]


def test_one_that_comes_later() -> None:
    # a is alone for 20 s, 40 s are left; b ends at 20 + 45 = 65; a has done 22.5 more, 17.5 are left: 82.5.
    told = predict([work("a", 60.0), work("b", 30.0, 20.0)], Table(PAIR), NODE)
    assert [course.end_s.mid for course in told.courses] == pytest.approx([82.5, 65.0])
    assert told.courses[1].took_s.mid == pytest.approx(45.0)
    assert told.courses[1].why == "b with 1"


def test_those_that_never_meet_do_not_slow_each_other_and_gaps_are_gaps() -> None:
    told = predict([work("a", 10.0), work("b", 30.0, 50.0)], Table(PAIR), NODE)
    assert [course.end_s.mid for course in told.courses] == [10.0, 80.0]
    assert [course.why for course in told.courses] == ["", ""]
    assert told.courses[0].together.mid == 2.0


def test_the_interval_is_that_of_all_slowdowns_at_their_ends() -> None:
    told = predict([work("a", 60.0), work("b", 30.0)], Table(PAIR, spread=0.5), NODE)
    # Lower: b 1.0 -> 30 s; a has done 20, 40 left: 70. Upper: b 2.0 -> 60 s; a has done 24, 36 left: 96.
    assert told.courses[0].end_s.low == pytest.approx(70.0)
    assert told.courses[0].end_s.high == pytest.approx(96.0)
    assert told.courses[1].end_s.high == pytest.approx(60.0)


def test_nobody_and_a_hundred() -> None:
    assert predict([], Table({}), NODE).courses == ()
    model = estimators.make("learned")
    told = predict([work(f"app{i}", 1.0 + i, 0.5 * i) for i in range(100)], model, Capacity(1000_000))
    assert [course.end_s.mid for course in told.courses] == pytest.approx([1.0 + 1.5 * i for i in range(100)])
    assert len(told.pieces) <= 200


def test_a_set_that_comes_again_is_asked_for_once() -> None:
    table = Table(PAIR)
    predict([work("a", 60.0), work("b", 30.0)], table, NODE)
    assert sorted(table.asked) == [("a",), ("a", "b")]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (work("a", 0.0), "0.0 s of work for 'a'"),
        (work("a", math.nan), "nan s"),
        (work("a", 1.0, -1.0), "start at -1.0"),
    ],
)
def test_what_is_no_time_is_refused(wrong: Work, message: str) -> None:
    with pytest.raises(WorkError, match=message):
        predict([wrong], Table({}), NODE)


def stepped(works: Sequence[Work], table: Table, step_s: float) -> list[float]:
    """Ends by a clock that takes small steps: nothing is known of events."""
    left = [one.alone_s for one in works]
    ends = [0.0] * len(works)
    for step in itertools.count():
        now = step * step_s
        on = [i for i, one in enumerate(works) if left[i] > 0.0 and one.start_s <= now]
        if not on and all(one <= 0.0 for one in left):
            return ends
        for i, slowdown in zip(on, table.predict(tuple(works[i].app for i in on), NODE), strict=True):
            left[i] -= step_s / slowdown.mid
            ends[i] = now + step_s
    raise AssertionError


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.5, 8.0), st.floats(0.0, 6.0)), min_size=1, max_size=4),
    st.dictionaries(
        st.tuples(
            st.sampled_from("abc"), st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(sorted).map(tuple)
        ),
        st.floats(1.0, 3.0),
        max_size=20,
    ),
)
def test_events_agree_with_a_clock_that_takes_small_steps(
    given_works: list[tuple[str, float, float]], slowdowns: dict[tuple[str, tuple[str, ...]], float]
) -> None:
    works, table, step_s = [work(*one) for one in given_works], Table(slowdowns), 0.005
    told = predict(works, table, NODE)
    # A step's error at each event, carried on at most threefold by each later one.
    for course, end in zip(told.courses, stepped(works, table, step_s), strict=True):
        assert course.end_s.mid == pytest.approx(end, abs=0.15)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.1, 9.0), st.floats(0.0, 9.0)), min_size=1, max_size=6))
def test_nobody_ends_before_its_time_alone_and_intervals_are_ordered(
    given_works: list[tuple[str, float, float]],
) -> None:
    works = [work(*one) for one in given_works]
    told = predict(works, Table(PAIR, spread=0.3), NODE)
    for one, course in zip(works, told.courses, strict=True):
        assert course.end_s.low <= course.end_s.mid <= course.end_s.high
        assert course.took_s.low >= one.alone_s * (1 - 1e-9)
