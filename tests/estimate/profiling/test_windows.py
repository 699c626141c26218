"""Windows that alternate: who runs when, and what they say of programmes whose speeds are known."""

import os
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tandem.estimate.profiling.programme import Programmes
from tandem.estimate.profiling.progress import Trace
from tandem.estimate.profiling.sources import follow
from tandem.estimate.profiling.windows import Stage, Window, slowdown, slowdowns
from tests.estimate.disturbance import holds


class Clockwork:
    """A participant whose speed is set by who runs beside it; it makes a step a millisecond when alone."""

    def __init__(self, name: str, company: set[str], slow: float) -> None:
        self.name, self.trace = name, Trace()
        self._company, self._slow = company, slow
        self._at, self._steps = time.time(), 0.0
        self.trace.add(self._at, 0.0)

    def _advance(self) -> None:
        now = time.time()
        if self.name in self._company:
            self._steps += (now - self._at) * 1000 / (self._slow if len(self._company) > 1 else 1.0)
        self._at = now

    def go(self) -> None:
        self._advance()
        self._company.add(self.name)

    def pause(self) -> None:
        self._advance()
        self._company.discard(self.name)

    def read(self) -> None:
        self._advance()
        self.trace.add(self._at, self._steps)

    def waited_s(self) -> float:
        return 0.0

    def filenos(self) -> list[int]:
        return []


@pytest.fixture
def programmes() -> Iterator[Programmes]:
    with Programmes() as made:
        yield made


@pytest.mark.slow
def test_known_slowdowns_are_found() -> None:
    company: set[str] = set()
    stage = Stage([Clockwork(name, company, slow) for name, slow in (("a", 1.5), ("b", 3.0))], window_s=0.05)
    stage.compare(["a", "b"], most_s=1.5)
    for name, slow in (("a", 1.5), ("b", 3.0)):
        one = slowdown(stage.windows, name, {"a", "b"})
        assert one is not None
        assert one.count >= 3
        assert one.mid == pytest.approx(slow, rel=0.05)
    assert [sorted(w.running) for w in stage.windows[:4]] == [["a"], ["a", "b"], ["b"], ["a", "b"]]
    assert len(stage.windows[-1].running) == 1


def window(begin: float, running: set[str], rates: dict[str, float], phase: str = "") -> Window:
    return Window(frozenset(running), begin, begin + 1, rates, dict.fromkeys(rates, phase))


def test_windows_of_another_phase_do_not_count() -> None:
    windows = [
        window(0, {"a"}, {"a": 10.0}, "train"),
        window(1, {"a", "b"}, {"a": 5.0}, "train"),
        window(2, {"a"}, {"a": 90.0}, "generate"),
        window(3, {"a", "b"}, {"a": 30.0}, "generate"),
        window(4, {"a"}, {"a": 90.0}, "generate"),
        window(5, {"a", "b"}, {}, "generate"),
    ]
    assert slowdowns(windows, "a", {"a", "b"}, "train") == [2.0]
    assert slowdowns(windows, "a", {"a", "b"}, "generate") == [3.0]
    assert slowdown(windows, "a", {"a", "c"}) is None
    assert slowdowns(windows, "a", {"a", "b"}) == [2.0, 3.0], "of all phases, each is compared with itself"
    changing = [replace(one, phases={} if one.begin in (1, 4) else one.phases) for one in windows]
    assert slowdowns(changing, "a", {"a", "b"}) == [3.0]
    never_one = [replace(one, phases={}) for one in windows[:2]]
    assert slowdowns(never_one, "a", {"a", "b"}) == [2.0]


@pytest.mark.slow
def test_real_programmes_on_one_core_halve_each_other(programmes: Programmes) -> None:
    code = (
        "from tandem.core.records import Recorder\n"
        "recorder, step = Recorder.from_env(), 0\n"
        "while True:\n"
        "    for _ in range(40000): pass\n"
        "    step += 1\n"
        "    recorder.record(step=step)\n"
    )
    core = [min(os.sched_getaffinity(0))]
    subjects = [follow(programmes.add(name, [sys.executable, "-c", code], core)) for name in "ab"]
    stage = Stage(subjects, window_s=0.2, settle_s=0.05)

    def windows() -> list[Window]:
        stage.windows.clear()
        stage.compare(["a", "b"], most_s=5.0)
        return list(stage.windows)

    def alone(windows: list[Window], name: str) -> float:
        return statistics.mean(w.waits[name] for w in windows if w.running == {name})

    def halved(windows: list[Window]) -> None:
        for name in "ab":
            one = slowdown(windows, name, {"a", "b"})
            assert one is not None
            waited = alone(windows, name)
            together = statistics.mean(w.waits[name] for w in windows if len(w.running) == 2)
            # One of n + 1 that take turns on a core waits n / (n + 1) of the time; with one more, 1 / (2 - that).
            assert together - waited > 0.4 * (1.0 / (2.0 - waited) - waited)
            assert 1.2 < one.mid < 3.0  # a third programme on that core, as of a busy machine, makes it 1.5

    holds(windows, lambda windows: max(alone(windows, name) for name in "ab"), halved)
