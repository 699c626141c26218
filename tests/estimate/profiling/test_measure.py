"""What is made of a profile that others disturbed."""

from __future__ import annotations

import random
import statistics
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from tandem.core.machine import discover
from tandem.estimate import contention
from tandem.estimate.bubbles import Calibration, Response
from tandem.estimate.bubbles.process import program
from tandem.estimate.meeting import fairly
from tandem.estimate.profile import Curve, Pauses, PhaseProfile, Profile, Stepless
from tandem.estimate.profiling import picture, store, trust
from tandem.estimate.profiling.campaign import Campaign
from tandem.estimate.profiling.disturbed import kept_waiting, widened
from tandem.estimate.profiling.measure import (
    MOST_NOISE,
    MOST_SLOWED,
    POINTS_PER_WINDOW,
    Terms,
    _Session,
    measure,
    own_noise,
    unheard_s,
    unsteady,
)
from tandem.estimate.profiling.programme import ProgrammeError
from tandem.estimate.profiling.progress import Trace
from tandem.estimate.profiling.windows import SETTLE_S, Stage, Window
from tests.estimate.disturbance import holds

if TYPE_CHECKING:
    from pathlib import Path

    from tandem.estimate.profiling.ratios import Interval

PHASE = PhaseProfile(
    "", 1.0, 10.0, 0.03, 1.0, {"cache": Curve((0.0, 1.0), (1.0, 2.0), (0.0, 0.3))}, {"cache": 0.5}, {"cache": 0.12}
)
QUIET = Profile("cg", ("cg",), "here", 1, 0.0, 20.0, 1, (PHASE,))


def test_intervals_are_wider_by_the_time_that_others_had_the_cores() -> None:
    assert widened(PHASE, 0.0) == PHASE
    wide = widened(PHASE, 0.2)
    assert wide.noise == pytest.approx((0.03**2 + 0.2**2) ** 0.5, abs=1e-4)
    assert wide.sensitivity["cache"].halves == (0.0, pytest.approx(0.5))  # 0.3 and 0.2 of a slowdown of 2
    assert wide.sensitivity["cache"].slowdowns == PHASE.sensitivity["cache"].slowdowns
    assert wide.pressure_half["cache"] == pytest.approx((0.12**2 + 0.2**2) ** 0.5, abs=1e-4)
    assert (wide.rate, wide.pressure) == (PHASE.rate, PHASE.pressure)


def test_it_is_refused_only_where_others_had_most_of_the_time() -> None:
    def windows(*waits: float) -> list[Window]:
        beside = Window(frozenset({"cg", "cpu@1"}), 0.0, 1.0, {}, {}, {"cg": 0.9})
        return [beside, *(Window(frozenset({"cg"}), 0.0, 1.0, {}, {}, {"cg": wait}) for wait in waits)]

    assert kept_waiting(windows(0.2, 0.4), "cg", 1) == pytest.approx(0.3)
    assert kept_waiting(windows(0.8, 0.8), "cg", 2) == pytest.approx(0.4), "of two cores, threads waited for 0.8"
    with pytest.raises(ProgrammeError, match="for 60% of the time that it was to be alone; allowed: up to 50%"):
        kept_waiting(windows(0.5, 0.7), "cg", 1)


def test_what_a_programme_scatters_itself_is_neither_its_phases_nor_what_others_take() -> None:
    def windows(*rates: tuple[float, str | None, float]) -> list[Window]:
        return [
            Window(
                frozenset({"two"}), k, k + 1.0, {"two": rate}, {} if phase is None else {"two": phase}, {"two": wait}
            )
            for k, (rate, phase, wait) in enumerate(rates)
        ]

    phases = [(250.0, "work", 0.0), (150.0, None, 0.0), (100.0, "wait", 0.0), (170.0, None, 0.0)] * 5
    assert own_noise(windows(*phases), "two", 1) == 0.0
    bursts = [(250.0, "work", 0.0), (50.0, "work", 0.8), (125.0, "work", 0.5)] * 3
    assert own_noise(windows(*bursts), "two", 1) == pytest.approx(0.0, abs=1e-9)
    assert own_noise(windows(*[(rate, phase, 0.0) for rate, phase, _ in bursts]), "two", 1) > MOST_NOISE
    erratic = [(100.0, "wait", 0.0), (200.0, "work", 0.0), (100.0, "wait", 0.0), (20.0, "work", 0.0)] * 3
    assert own_noise(windows(*erratic), "two", 1) > MOST_NOISE, "the noisiest phase counts"
    assert own_noise(windows(*phases[:8]), "two", 1) is None, "two windows of each tell nothing"


def test_a_reporter_that_scatters_alone_or_stands_still_beside_tells_nothing() -> None:
    def windows(alone: list[float | None], beside: list[float | None]) -> list[Window]:
        return [
            Window(frozenset(running), 0.0, 1.0, {} if rate is None else {"reporter net": rate}, {}, {})
            for running, rates in (({"reporter net"}, alone), ({"reporter net", "cg"}, beside))
            for rate in rates
        ]

    steady: list[float | None] = [10.0, 11.0, 9.0, 10.0, 10.5, 9.5]
    assert not unsteady(windows(steady, [5.0, 4.0, 6.0]), "reporter net")
    assert not unsteady(windows([*steady, None], [5.0, None, 6.0]), "reporter net"), "a single stall is borne"
    assert unsteady(windows([10.0, 1.0, None, 10.0, 0.0, 12.0], [5.0, 4.0, 6.0]), "reporter net")
    assert unsteady(windows([None] * 6, [5.0, 4.0, 6.0]), "reporter net")
    assert unsteady(windows(steady, [0.0, None, 0.0]), "reporter net")
    assert not unsteady(windows(steady, []), "reporter net"), "it was not tried"
    bursts = [
        Window(frozenset({"reporter net"}), 0.0, 1.0, {"reporter net": 10.0 * (1.0 - kept)}, {}, {"reporter net": kept})
        for kept in (0.0, 0.8, 0.4, 0.0, 0.7)
    ]
    assert not unsteady([*bursts, *windows([], [5.0])], "reporter net"), "others had its core"


SPIN = (
    "-S",
    "-E",
    "-c",
    "import time\nfor i in range(10**9):\n    print('step', i, flush=True)\n    time.sleep(0.005)",
)


@pytest.mark.slow
def test_kinds_that_are_not_felt_and_reporters_that_hang_give_no_pressure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reporter of writes is stopped most of the time, as by a disk that hangs."""
    hangs = tmp_path / "bubble"
    hangs.write_text(
        f"""#!/bin/sh
if [ "$1" = reporter ] && [ "$2" = fs_write ]; then
    (while kill -CONT $$ && sleep 0.02 && kill -STOP $$; do sleep 0.4; done) 2> /dev/null &
fi
exec {program()} "$@"
"""
    )
    hangs.chmod(0o755)
    monkeypatch.setenv("TANDEM_BUBBLE", str(hangs))
    here = discover()
    felt, unfelt = Response((0.0, 1.0), (1.0, 2.0), 0.02), Response((0.0, 1.0), (1.0, 1.01), 0.02)
    busy = replace(unfelt, waited=0.8)
    known = Calibration(
        here.fingerprint,
        tuple(core.index for core in here.cores),
        {"cpu": felt, "fs_write": felt, "net": unfelt, "fs_read": busy},
        {},
        5e8,
        1.0,
    )
    terms = Terms(
        key="spin", cores=known.cores[:1], beside=known.cores[1:2], rate=r"step (\d+)", most_s=50.0, folder=tmp_path
    )
    found = measure((sys.executable, *SPIN), terms, known)
    (phase,) = found.phases
    unsteady_too = set(found.left_out["unsteady"])  # where others are on the core, so is the reporter of "cpu"
    assert "fs_write" in unsteady_too
    assert set(phase.pressure) == set(phase.pressure_half) == {"cpu", "fs_write"} - unsteady_too
    assert set(phase.sensitivity) == {"cpu", "fs_write", "net", "fs_read"}
    assert found.left_out["unfelt"] == ("net",)
    assert found.left_out["uncalibrated"] == ("fs_read",)
    assert set(found.reporter_excess) == {"cpu", "fs_write", "net"}
    assert found.calibrated == 5e8
    vector = contention.vector(found)
    assert dict(zip(contention.FELT, vector.silent, strict=True)) == {
        "cache": 1, "membw_read": 1, "membw_write": 1, "fs_read": 1, "fs_write": 1, "net": 0
    }  # fmt: skip


def test_seconds_in_which_it_ran_unheard_are_those_of_its_windows() -> None:
    windows = [
        Window(frozenset(running), begin, begin + 1.0, {}, {})
        for begin, running in ((0.0, {"cg"}), (2.0, {"cg", "cpu@1"}), (4.0, {"reporter net"}), (6.0, {"cg"}))
    ]
    assert unheard_s(windows, "cg", 0.25) == pytest.approx(2.75)
    assert unheard_s(windows, "cg", 2.5) == pytest.approx(1.5)
    assert unheard_s(windows, "cg", 7.0) == 0.0


def test_the_rate_alone_is_that_of_the_time_in_which_it_had_its_cores() -> None:
    windows = [
        Window(frozenset({"cg"}), t, t + 1.0, {"cg": 100.0 * (1.0 - kept / 2)}, {"cg": ""}, {"cg": kept})
        for t, kept in ((0.0, 0.0), (1.0, 0.5), (2.0, 1.2))
    ]
    session = SimpleNamespace(_name="cg", _terms=SimpleNamespace(cores=(0, 1)), _alone_windows=lambda phase: windows)
    found = _Session._alone_rates(session, "")  # type: ignore[arg-type]
    assert found == [(t + 0.5, pytest.approx(100.0)) for t in range(3)]


def known(
    setting: tuple[str, float],
    alone: list[float],
    beside: list[float],
    noise: float = 0.004,
    waits: float = 0.0,
    waits_alone: float = 0.0,
) -> Curve:
    """The curve of a phase "work" that keeps a core busy, from such rates; others came between its windows.

    Those had its core for ``waits`` of the time beside the bubble, and alone for ``waits_alone``.
    """
    bubble = f"{setting[0]}@{setting[1]:g}"
    windows = [
        Window(frozenset({"cg"}), 2.0 * k, 2.0 * k + 1, {"cg": rate}, {"cg": "work"}, {"cg": waits_alone})
        for k, rate in enumerate(alone)
    ]
    windows += [
        Window(frozenset({"cg", bubble}), 2.0 * k + 1, 2.0 * k + 2, {"cg": rate}, {"cg": "work"}, {"cg": waits})
        for k, rate in enumerate(beside)
    ]
    windows.sort(key=lambda window: window.begin)
    session = SimpleNamespace(
        _name="cg",
        _terms=SimpleNamespace(cores=(0,)),
        _stage=SimpleNamespace(windows=windows),
        _noise=noise,
        _cpu=[("work", 1.0)],
        _alone_rates=lambda phase: [(w.middle, w.rates["cg"] / w.had("cg", 1)) for w in windows if w.running == {"cg"}],
    )
    found = _Session._known(session, setting, "work")  # type: ignore[arg-type]
    assert found is not None
    return Curve((0.0, 1.0), (1.0, found.mid), (0.0, found.half))


QUIETLY = [100.0] * 12
UNEVENLY = [100.0, 104.0, 97.0, 101.0, 96.0, 103.0] * 4


@pytest.mark.parametrize("many", [1, 2])
@pytest.mark.parametrize("alone", [QUIETLY, UNEVENLY])
def test_one_window_or_two_may_have_been_bursts(many: int, alone: list[float]) -> None:
    slow = known(("membw_write", 1.0), alone, [55.0] * many)
    assert slow.halves[1] >= slow.slowdowns[1] - 1.0 > 0.7
    profile = replace(QUIET, phases=(replace(PHASE, sensitivity={"membw_write": slow}),))
    assert trust.felt(profile, profile.phases[0], "membw_write") == "no"
    fast = known(("net", 1.0), alone, [106.0] * many)
    assert fast.slowdowns[1] + fast.halves[1] >= 1.0
    turns = known(("cpu", 1.0), alone, [50.0] * many)  # two on a core take turns: that is known beforehand
    assert turns.halves[1] < 0.4


def test_three_windows_are_known_as_well_as_all_of_its_own_are_alike() -> None:
    lucky = 0.004  # the first windows alone said so
    even, uneven = (known(("cache", 1.0), alone, [80.0] * 3, lucky) for alone in (QUIETLY, UNEVENLY))
    assert uneven.halves[1] > 1.5 * even.halves[1]
    assert 0.01 < even.halves[1] < 0.04
    few = known(("cache", 1.0), QUIETLY[:4], [80.0] * 3, lucky)
    assert even.halves[1] < few.halves[1], "four that are alike say less than twelve"
    steady = replace(PHASE, sensitivity={"cache": even})
    assert trust.felt(replace(QUIET, phases=(steady,)), steady, "cache") == "sure"


def test_others_that_come_to_its_core_when_a_bubble_has_the_other_are_no_slowdown() -> None:
    """A pure interpreter loop, and somebody else who is not pinned: alone each has a core of its own."""

    def told(kind: str, rate: float, waits: float) -> tuple[Curve, str]:
        curve = known((kind, 1.0), QUIETLY, [rate] * 6, waits=waits)
        phase = replace(PHASE, sensitivity={kind: curve})
        return curve, trust.felt(replace(QUIET, phases=(phase,), waited=0.02), phase, kind)

    moved, certainty = told("membw_write", 53.0, 0.47)
    assert (moved.slowdowns[1], certainty) == (pytest.approx(1.0), "no")
    assert moved.halves[1] == pytest.approx(0.47, abs=0.02), "how much it cost besides is not known"
    slowed, certainty = told("membw_write", 45.0, 0.1)  # half as fast while it had its core
    assert (slowed.slowdowns[1], certainty) == (pytest.approx(2.0), "sure")
    turns, certainty = told("cpu", 50.0, 0.5)  # that bubble itself has the core
    assert (turns.slowdowns[1], certainty) == (pytest.approx(2.0), "sure")


@pytest.mark.parametrize("third", [0.0, 0.05, 0.3, 0.4, 0.5, 1.0])
@pytest.mark.parametrize("many", [2, 6])
@pytest.mark.parametrize(("level", "wanted", "shared"), [(1.0, 1.0, 2.0), (0.5, 1 / 3, 1.5)])
def test_nor_do_they_change_what_taking_turns_with_a_bubble_costs(
    third: float, many: int, level: float, wanted: float, shared: float
) -> None:
    alone = fairly(1.0, [1.0, third])[0]
    beside = fairly(1.0, [1.0, wanted, third])[0]
    refilling = 0.9  # as fast while it has a core that it takes turns on
    rates = [100.0 * alone] * 12, [100.0 * refilling * beside] * many
    turns = known(("cpu", level), *rates, waits=1.0 - beside, waits_alone=1.0 - alone)
    assert turns.slowdowns[1] == pytest.approx(shared / refilling, rel=0.03)


def test_nor_are_they_a_pressure_on_the_reporter_that_has_it() -> None:
    def felt(kind: str, rate: float, waits: float) -> Interval:
        name = f"reporter {kind}"
        windows = [
            Window(frozenset({name, *beside}), k, k + 1.0, {name: one}, {"cg": "work"} if beside else {}, {name: wait})
            for k, (beside, one, wait) in enumerate([((), 100.0, 0.0), (("cg",), rate, waits)] * 3)
        ]
        session = SimpleNamespace(_name="cg", _stage=SimpleNamespace(windows=windows))
        found = _Session._felt(session, SimpleNamespace(name=name), "work")  # type: ignore[arg-type]
        assert found is not None
        return found

    moved = felt("membw_write", 53.0, 0.47)
    assert (moved.mid, moved.half) == (pytest.approx(1.0), pytest.approx(0.47, abs=0.02))
    assert felt("membw_write", 45.0, 0.1).mid == pytest.approx(2.0)
    assert felt("cpu", 50.0, 0.5).mid == pytest.approx(2.0), "they take turns"


def test_a_phase_too_short_to_be_looked_at_is_held_to_be_as_busy_as_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tandem.estimate.profiling.measure.stepless", lambda *_: ({"save": 0.1, "check": 0.2}, 2))
    session = SimpleNamespace(
        _lived=lambda: [],
        _subject=SimpleNamespace(trace=Trace()),
        _told_phases=lambda: ["train"],
        _alone_since=0.0,
        _standing=SimpleNamespace(use={"save": 0.0}.get),
        _cpu=[("train", 0.9)],
    )
    found, _ = _Session.stepless(session)  # type: ignore[arg-type]
    assert found == {"save": Stepless(0.1, 0.0), "check": Stepless(0.2, 0.9)}


def test_what_time_a_phase_takes_is_no_count_of_its_windows() -> None:
    """Windows are taken until the rarest phase has some: the last ones are its."""
    trace = Trace()
    for k in range(40):
        trace.enter(float(k), "ab"[k % 2])
        trace.add(float(k), k)

    def shares(trace: Trace, phases: list[str]) -> dict[str, float]:
        session = SimpleNamespace(
            _lived=lambda phase: [(0.0, 1.0)],
            _subject=SimpleNamespace(trace=trace),
            _told_phases=lambda: phases,
            _alone_since=float("inf"),
            _cpu=[*[("a", 1.0)] * 6, *[("b", 1.0)] * 4, ("rare", 1.0)],
            stepless=lambda: ({"save": Stepless(0.2, 0.0)}, 3),
        )
        return _Session._shares(session)  # type: ignore[arg-type]

    assert shares(trace, ["a", "b"]) == pytest.approx({"a": 0.4, "b": 0.4})
    assert shares(Trace(), ["a", "b"]) == pytest.approx({"a": 0.48, "b": 0.32}), "nothing else is known"
    assert shares(Trace(), ["a"]) == pytest.approx({"a": 0.8})


def test_a_phase_that_no_window_met_keeps_its_time_and_nothing_else_is_claimed() -> None:
    """Six seconds of work at 100 steps a second, then two of looking back at 50; others come and go."""
    trace, t = Trace(), 0.0
    for phase, seconds, each_s in [("solve", 6, 0.01), ("post", 2, 0.02)] * 3:
        trace.enter(t, phase)
        for _ in range(round(seconds / each_s)):
            trace.add(t, 0.0 if trace.last is None else trace.last[1] + 1.0)
            t += each_s
    alone = [
        Window(frozenset({"ab"}), 8.0 * k + j, 8.0 * k + j + 1, {"ab": 100.0}, {"ab": "solve"})
        for k in range(2)
        for j in range(5)
    ]
    beside = [
        Window(frozenset({"ab", "cache@1"}), 8.0 * k + 5, 8.0 * k + 6, {"ab": 50.0}, {"ab": "solve"}) for k in range(3)
    ]
    session = object.__new__(_Session)
    session._name, session._terms, session._alone_since = "ab", Terms(key="ab", cores=(0,), beside=(1,)), float("inf")
    session._stage = Stage([], window_s=0.1)
    session._stage.windows += sorted(alone + beside, key=lambda window: window.begin)
    session._stage.switches.append((0.0, frozenset({"ab"})))
    session._subject = SimpleNamespace(trace=trace)  # type: ignore[assignment]
    session._standing = SimpleNamespace(use=lambda phase: None)  # type: ignore[assignment]
    session._cpu, session._kinds, session._pressure, session._noise = [("solve", 0.9)] * 10, ["cache"], {}, 0.04
    session._calibration = SimpleNamespace(level_of=None)  # type: ignore[assignment]
    session._campaign = Campaign(session._known, session._kinds, session._counting_phases)
    solve, post = session.phases()
    assert (solve.phase, solve.share, solve.rate) == ("solve", pytest.approx(0.75, abs=0.01), 100.0)
    assert solve.sensitivity["cache"].slowdowns[1] == pytest.approx(2.0)
    assert (post.phase, post.share, post.cpu_use) == ("post", pytest.approx(0.25, abs=0.01), 0.9)
    assert post.rate == pytest.approx(50.0, rel=0.01)
    assert not post.sensitivity
    profile = replace(QUIET, phases=(solve, post))
    assert "in post, what slows it is not known" in " ".join(picture.sentences(profile))
    assert session.stepless() == ({}, 2)
    one = contention.vector(profile)
    assert one.numb[0] == pytest.approx(post.share), "nothing is known in a quarter of the time"


def spinning(tmp_path: Path, key: str, most_s: float, code: str) -> Profile:
    """What is measured of a programme that writes `step N` beside nothing but a bubble of its cores."""
    here = discover()
    cores = tuple(core.index for core in here.cores)
    known = Calibration(here.fingerprint, cores, {"cpu": Response((0.0, 1.0), (1.0, 2.0), 0.02)}, {}, 5e8, 1.0)
    terms = Terms(key=key, cores=cores[:1], beside=(), rate=r"step (\d+)", most_s=most_s, folder=tmp_path)
    return measure((sys.executable, *SPIN[:-1], code), terms, known)


@pytest.mark.slow
def test_one_that_hangs_until_the_end_of_the_time_is_refused(tmp_path: Path) -> None:
    code = SPIN[-1].replace("10**9", "200") + "\ntime.sleep(1000)"
    with pytest.raises(ProgrammeError, match=r"spin has made no progress since \d\.\d s, by its output; .* step 199;"):
        spinning(tmp_path, "spin", 6.0, code)


@pytest.mark.slow
def test_one_whose_count_goes_back_within_every_window_is_refused_with_the_reason(tmp_path: Path) -> None:
    code = "import time\nfor i in range(10**6):\n    print('step', 10 + i % 3, flush=True)\n    time.sleep(0.03)"
    words = r"spin has no whole window of .* in which its steps go on, by its output; .*; count steps on"
    with pytest.raises(ProgrammeError, match=words):
        spinning(tmp_path, "spin", 20.0, code)


@pytest.mark.slow
@pytest.mark.parametrize("count", ["i", "i % 100"])  # as well where each epoch counts afresh
def test_one_that_pauses_is_as_fast_as_it_gets_ahead_and_busy_as_long_as_it_works(tmp_path: Path, count: str) -> None:
    code = SPIN[-1].replace("'step', i", f"'step', {count}") + "\n    if i % 100 == 99: time.sleep(0.8)"
    holds(lambda: spinning(tmp_path, "ck", 25.0, code), lambda found: found.waited, gets_ahead)


def gets_ahead(found: Profile) -> None:
    (phase,) = found.phases
    assert phase.pauses is not None
    assert phase.pauses.longest_s == pytest.approx(0.8, abs=0.2)
    assert phase.rate == pytest.approx((1 - phase.pauses.part) * phase.working_rate)
    assert phase.rate < 90.0, "100 steps take 0.5 s and more, and the pause 0.8 s"
    assert phase.rate == pytest.approx(100 / 1.32, rel=0.12)


def test_pauses_are_kept_and_said_and_few_of_them_are_a_doubt(tmp_path: Path) -> None:
    pausing = replace(QUIET, phases=(replace(PHASE, pauses=Pauses(0.4, 2.0, 3)),))
    kept = store.save(tmp_path, pausing)
    assert store.revisions(tmp_path, "here", "cg") == [kept]
    older = store.as_json(QUIET)
    del older["phases"][0]["pauses"]
    assert store.from_json(older) == QUIET
    title = picture.phase_table(pausing, pausing.phases[0]).title
    assert title.endswith("; it stands still 40% of the time, for up to 2 s")
    assert trust.warning(pausing) == ""
    once = replace(QUIET, phases=(replace(PHASE, pauses=Pauses(0.4, 2.0, 1)),))
    assert "by only 1 of its pauses" in trust.warning(once)
    assert trust.warning(once).endswith("tandem profile again cg with more time (--most)")


def test_how_long_it_waited_is_kept_and_older_profiles_waited_for_nothing_that_is_known(tmp_path: Path) -> None:
    kept = store.save(tmp_path, replace(QUIET, waited=0.23))
    assert store.revisions(tmp_path, "here", "cg") == [kept]
    older = store.as_json(QUIET)
    del older["waited"]
    assert store.from_json(older).waited == 0.0


def test_it_is_said_with_what_to_do() -> None:
    disturbed = replace(QUIET, waited=0.23)
    assert trust.warning(QUIET) == trust.warning(replace(QUIET, waited=0.02)) == ""
    assert trust.warning(disturbed) == (
        "cg: others had its cores for 23% of the time that it was to be alone, and its intervals are so much wider; "
        "tandem profile again cg when the machine is quiet"
    )
    assert "others had its cores for 23% of the time" in picture.sentences(disturbed)[-1]
    assert "alone" not in picture.sentences(QUIET)[-1]


def slowed(step_s: float, slow: float, window_s: float, rng: random.Random) -> float | None:
    """What one window beside a bubble says of a programme with steps of uneven length, that was stopped amidst one."""
    trace, t, step = Trace(), -rng.random() * step_s * slow, 0
    while t < 2 * window_s:
        trace.add(t, step)
        t, step = t + step_s * slow * rng.lognormvariate(-0.06, 0.35), step + 1
    rate = trace.rate(SETTLE_S, SETTLE_S + window_s, 0.0)
    return None if rate is None else 1.0 / (step_s * rate)


@pytest.mark.parametrize("slow", [1.5, 2.0])
def test_windows_beside_bubbles_are_long_enough_not_to_pick_the_steps_that_were_slowed_least(slow: float) -> None:
    rng, step_s = random.Random(0), 0.1

    def median(window_s: float) -> float:
        found = [slowed(step_s, slow, window_s, rng) for _ in range(1500)]
        return statistics.median(one for one in found if one is not None)

    assert median(MOST_SLOWED * POINTS_PER_WINDOW * step_s) == pytest.approx(slow, rel=0.05)
    if slow == 2.0:
        assert median(POINTS_PER_WINDOW * step_s) < 0.93 * slow, "windows made for steps alone would pick the fast ones"
