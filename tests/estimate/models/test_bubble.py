"""A machine whose truth is known: one bandwidth that saturates, and profiles measured on it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.estimate.contention import FELT, GAIN
from tandem.estimate.corun import App, Capacity
from tandem.estimate.models import bubble
from tandem.estimate.prior import UNKNOWN_EXCESS
from tandem.estimate.profile import Curve, PhaseProfile, Profile, Stepless

if TYPE_CHECKING:
    from collections.abc import Iterable

NODE = Capacity(64_000)
LEVELS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def truth(bound: float, pressure: float) -> float:
    """Slowdown of one that waits for bandwidth ``bound`` of its time, beside a demand of ``pressure``."""
    return 1.0 + bound * max(0.0, pressure - 0.4)


def profiled(key: str, bound: float, pressure: float) -> Profile:
    flat = Curve((0.0, 1.0), (1.0, 1.0), (0.0, 0.0))
    curve = Curve(LEVELS, tuple(truth(bound, level) for level in LEVELS), (0.0,) * len(LEVELS))
    curves = {kind: curve if kind == "membw_read" else flat for kind in FELT}
    levels = {kind: pressure if kind == "membw_read" else 0.0 for kind in FELT}
    return Profile(key, (key,), "here", 1, 0.0, 0.0, 1, (PhaseProfile("", 1.0, 1.0, 0.0, 1.0, curves, levels),))


HELD = [profiled("stream", 1.0, 0.9), profiled("cg", 0.8, 0.5), profiled("lu", 0.0, 0.05)]
STREAM, CG, LU = App("stream"), App("cg"), App("lu")


@given(st.lists(st.sampled_from(["stream", "cg", "lu"]), min_size=2, max_size=5))
def test_sets_of_a_saturating_bandwidth(keys: list[str]) -> None:
    bound = {"stream": 1.0, "cg": 0.8, "lu": 0.0}
    pressure = {"stream": 0.9, "cg": 0.5, "lu": 0.05}
    answers = bubble.make((), HELD).predict(tuple(map(App, keys)), NODE)
    for i, (key, answer) in enumerate(zip(keys, answers, strict=True)):
        others = sum(pressure[other] for j, other in enumerate(keys) if j != i)
        assert answer.mid == pytest.approx(1 + GAIN * (truth(bound[key], others) - 1), abs=1e-6)
        assert not answer.known


def test_what_little_is_known_of_neighbours_is_no_worse_than_nothing() -> None:
    steep = dict.fromkeys(FELT, Curve((0.0, 1.0), (1.0, 3.0), (0.0, 0.0)))
    held = [
        Profile(key, (key,), "here", 1, 0.0, 0.0, 1, (PhaseProfile("", 1.0, 1.0, 0.0, 1.0, curves, {}),))
        for key, curves in (("steep", steep), ("a", {}), ("b", {}))
    ]
    for others in (("a",), ("a", "b")):
        asked = tuple(map(App, ("steep", *others)))
        (little, *_), (nothing, *_) = (bubble.make((), known).predict(asked, NODE) for known in (held, held[:1]))
        assert nothing.high == pytest.approx(1.0 + UNKNOWN_EXCESS * len(others) ** 0.5)
        assert nothing.high <= little.high < nothing.high + 0.01, "and the noise floor"


def test_it_says_what_contends_for_what() -> None:
    stream, cg, lu = bubble.make((), HELD).predict((STREAM, CG, LU), NODE)
    assert cg.why == f"{cg.mid:.2f}x by profiles, most by memory reads: stream 0.90, lu 0.05"
    assert stream.why == f"{stream.mid:.2f}x by profiles, most by memory reads: cg 0.50, lu 0.05"
    assert lu.why == "profiles: hardly feels these neighbours"


def test_a_pressure_within_its_noise_is_not_called_a_cause() -> None:
    """The cache would cost the more, but who presses on it is not known for certain."""
    curves = dict.fromkeys(FELT, Curve((0.0, 1.0), (1.0, 1.5), (0.0, 0.0)))
    levels = {**dict.fromkeys(FELT, 0.0), "cache": 0.9, "net": 0.3}

    def noisy(key: str, **halves: float) -> Profile:
        return Profile(
            key, (key,), "here", 1, 0.0, 0.0, 1, (PhaseProfile("", 1.0, 1.0, 0.0, 1.0, curves, levels, halves),)
        )

    def why(*neighbours: Profile) -> str:
        held = [noisy("cg", cache=0.9, net=0.4), *neighbours]
        return str(bubble.make((), held).predict(tuple(App(one.key) for one in held), NODE)[0].words)

    assert "most by last-level cache: lu 0." in why(noisy("lu", cache=0.8))
    assert "most by network: lu 0.30" in why(noisy("lu", cache=0.9))
    assert why(noisy("lu", cache=0.9, net=0.4)).endswith(
        "by profiles, none of it for certain: every pressure is within its noise"
    )
    assert "most by last-level cache: lu 0." in why(noisy("lu", cache=0.8), noisy("sort", cache=0.9))
    assert "sort" not in why(noisy("lu", cache=0.8), noisy("sort", cache=0.9))


@pytest.mark.parametrize(
    ("mine", "theirs", "kinds", "words"),
    [
        ("save", "", FELT, " (what slows it in save is not known)"),
        ("", "load", FELT, " (how hard b presses in load is not known)"),
        ("save", "load", FELT, " (what slows it in save and how hard b presses in load are not known)"),
        ("save", "", FELT[1:], " (what slows it in save is not known, nor are some kinds elsewhere)"),
        ("", "", FELT[1:], " (some kinds are not known)"),
        ("", "", FELT, ""),
    ],
)
def test_it_says_what_is_not_known_of_either(mine: str, theirs: str, kinds: tuple[str, ...], words: str) -> None:
    def saving(one: Profile, phase: str, measured: Iterable[str] = FELT) -> Profile:
        (steps,) = one.phases
        curves = {kind: steps.sensitivity[kind] for kind in measured}
        stepless = {phase: Stepless(0.5, 1.0)} if phase else {}
        pressure = {**steps.pressure, "cache": 0.05}
        return replace(one, phases=(replace(steps, sensitivity=curves, pressure=pressure),), stepless=stepless)

    held = saving(profiled("a", 0.8, 0.9), mine, kinds), saving(profiled("b", 0.8, 0.9), theirs)
    answer, _ = bubble.make((), held).predict((App("a"), App("b")), NODE)
    assert answer.why == f"{answer.mid:.2f}x by profiles, most by memory reads: b 0.90{words}"


def test_without_a_profile_it_says_so_and_is_wide() -> None:
    cg, new = bubble.make((), HELD).predict((CG, App("new")), NODE)
    assert cg.why.startswith("no profile of new: assumed 1.0x")
    assert cg.high >= 1.0 + UNKNOWN_EXCESS
    assert new.why == "new has no profile: assumed 1.0x"
    assert (new.mid, new.high) == (1.0, 1.0 + UNKNOWN_EXCESS)


def test_a_neighbour_that_runs_half_of_the_time_presses_half() -> None:
    shared = (App("cg", cores=(0,)), App("stream", cores=(1,)), App("stream", cores=(1,)))
    cg = bubble.make((), HELD).predict(shared, NODE)[0]
    assert cg.mid == pytest.approx(1 + GAIN * (truth(0.8, 0.9) - 1), abs=1e-6)
    assert "stream 0.45, stream 0.45" in cg.why
