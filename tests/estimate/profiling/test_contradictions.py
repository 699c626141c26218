"""What two revisions of a profile disagree in: worked by hand, and that scatter within the intervals is none."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import product
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tandem.estimate import contention, estimators
from tandem.estimate.corun import App, Capacity
from tandem.estimate.profile import Curve, Pauses, PhaseProfile, Profile, Stepless
from tandem.estimate.profiling.contradictions import contradiction, spanning
from tandem.estimate.profiling.store import from_json, load, save
from tandem.share import codec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tandem.estimate.corun import Slowdown

CURVE = Curve((0.0, 0.5, 1.0), (1.0, 1.1, 1.4), (0.0, 0.02, 0.05))
PHASE = PhaseProfile("", 1.0, 40.0, 0.04, 1.0, {"cache": CURVE}, {"cache": 0.6}, {"cache": 0.05})
OLD = Profile("cg", ("cg",), "here", 1, 0.0, 20.0, 1, (PHASE,))


def test_pressures_of_two_calibrations_are_compared_in_the_same_units() -> None:
    old = replace(OLD, reporter_excess={"cache": 0.2}, calibrated=1.0)
    new = replace(with_phase(pressure={"cache": 0.3}), reporter_excess={"cache": 0.4}, calibrated=2.0)
    assert contradiction(old, new) == ""
    assert "presses on last-level cache 0.60 -> 0.30" in contradiction(OLD, replace(new, calibrated=0.0))


def with_phase(**changes: object) -> Profile:
    return replace(OLD, revision=2, phases=(replace(PHASE, **changes),))  # type: ignore[arg-type]


def curve(at_full: float, *, half: float = 0.05) -> Curve:
    return Curve((0.0, 1.0), (1.0, at_full), (0.0, half))


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (with_phase(), ""),
        (with_phase(rate=50.0), ""),  # 20 % of the faster one; 23 % are allowed
        (with_phase(rate=55.0), "alone 40 -> 55 steps/s"),
        (with_phase(rate=25.0), "alone 40 -> 25 steps/s"),
        (with_phase(rate=55.0, noise=0.2), ""),
        (with_phase(sensitivity={"cache": curve(1.64)}), ""),  # 0.05 + 0.05 + 0.15 = 0.25 are allowed
        (with_phase(sensitivity={"cache": curve(1.66)}), "1.40x -> 1.66x"),
        (with_phase(sensitivity={"cache": curve(1.66, half=0.1)}), ""),
        (with_phase(sensitivity={"net": curve(3.0)}), ""),
        (with_phase(pressure={"cache": 0.84}), ""),
        (with_phase(pressure={"cache": 0.86}), "0.60 -> 0.86"),
        (with_phase(cpu_use=0.78), ""),  # 0.04 + 0.04 + 0.15 of a core are allowed
        (with_phase(cpu_use=0.76), "busy 1.00 -> 0.76 cores"),
        (with_phase(cpu_use=4.0), "busy 1.00 -> 4.00 cores"),
        (with_phase(phase="other", rate=400.0), ""),
        (replace(with_phase(rate=400.0), rate_pattern="step"), ""),
    ],
)
def test_by_hand(new: Profile, words: str) -> None:
    told = contradiction(OLD, new)
    assert words in told
    assert bool(told) == bool(words)
    if told:
        assert told.startswith("cg: revision 2 contradicts revision 1: ")
        assert "\n" not in told


def test_no_more_than_a_few_are_named() -> None:
    kinds = ("cache", "membw_read", "membw_write", "net", "fs_read", "fs_write")
    old = with_phase(pressure=dict.fromkeys(kinds, 0.0))
    new = with_phase(pressure=dict.fromkeys(kinds, 1.0))
    assert contradiction(old, new).count("->") == 4
    assert " and 2 more;" in contradiction(old, new)


unit = st.floats(-1.0, 1.0)


@st.composite
def measured(draw: st.DrawFn, true: float = 1.6) -> Profile:
    """A profile that scatters within its intervals around one truth."""
    levels = (0.0, *sorted(draw(st.sets(st.sampled_from([0.25, 0.5, 0.75]), max_size=3))), 1.0)
    halves = (0.0, *[draw(st.floats(0.0, 0.2)) for _ in levels[1:]])
    slowdowns = tuple(
        1.0 + (true - 1.0) * level + half * draw(unit) for level, half in zip(levels, halves, strict=True)
    )
    noise, half = draw(st.floats(0.0, 0.3)), draw(st.floats(0.0, 0.3))
    rate = 10.0 * (1.0 + noise * draw(unit) / 2)
    sensitivity = {"cache": Curve(levels, slowdowns, halves)}
    pressure = {"net": 0.5 + half * draw(unit)}
    phase = PhaseProfile("", 1.0, rate, noise, 1.0, sensitivity, pressure, {"net": half})
    return Profile("cg", ("cg",), "here", 1, 0.0, 20.0, 1, (phase,))


@given(measured(), measured())
def test_what_scatters_within_its_intervals_contradicts_nothing(old: Profile, new: Profile) -> None:
    assert contradiction(old, new) == ""


@given(measured(), measured(true=3.0))
def test_either_order_says_so_or_neither(old: Profile, new: Profile) -> None:
    assert contradiction(old, new)
    assert contradiction(new, old)


@pytest.mark.parametrize("excess", [{}, {"cache": 1.0}])
def test_what_is_believed_of_contradictory_revisions_spans_both(excess: dict[str, float], tmp_path: Path) -> None:
    mild, hard = (
        replace(OLD, reporter_excess=excess, phases=(replace(PHASE, sensitivity={"cache": curve(at_full)}),))
        for at_full in (1.10, 2.90)
    )
    for first, second in ((mild, hard), (hard, mild)):
        found = spanning([first, second])
        felt = contention.feel(contention.vector(found), [1.0, *[0.0] * (2 * len(contention.FELT) - 1), 1.0])
        half = felt.variance**0.5
        assert felt.excess - half < 0.10 < 1.90 < felt.excess + half
    first, second = save(tmp_path, mild), save(tmp_path, hard)
    loaded = load(tmp_path, "here")
    assert loaded.profiles["cg"] == second
    assert loaded.usable["cg"] == spanning([first, second])
    third = save(tmp_path, hard)
    assert load(tmp_path, "here").usable["cg"] == third, "it tells which of them to believe"


@pytest.mark.parametrize("uses", [(0.9958, 0.2), (0.2, 0.9958)])
@pytest.mark.parametrize("pinned", [(0,), ()])
def test_busy_cores_that_contradict_are_spanned(uses: tuple[float, float], pinned: tuple[int, ...]) -> None:
    curve = Curve((0.0, 1.0), (1.0, 2.0), (0.0, 0.02))
    first, second = (
        replace(OLD, revision=n, phases=(replace(PHASE, sensitivity={"cpu": curve}, cpu_use=use),))
        for n, use in enumerate(uses, 1)
    )
    apps, one_core = (App("cg", cores=pinned), App("cg", cores=pinned)), Capacity(1000)

    def told(profile: Profile) -> Slowdown:
        return estimators.make("bubble", (), (profile,)).predict(apps, one_core)[0]

    ends, middle = sorted([told(first), told(second)]), told(spanning([first, second]))
    assert middle.low <= ends[0].mid < ends[1].mid <= middle.high
    assert middle.low < middle.mid < middle.high


@pytest.mark.parametrize("turned", [False, True])
def test_the_middle_of_contradictory_profiles_is_that_of_what_each_would_cost(turned: bool) -> None:
    """One that is busy for seven tenths of its time, and either waits or works for the rest, beside one at work."""
    half = Curve((0.0, 1.0), (1.0, 2.0), (0.0, 0.02))
    work = replace(PHASE, phase="work", share=0.7, sensitivity={"cpu": half})
    revisions = [
        replace(OLD, phases=(work, replace(PHASE, phase="save", share=0.3, cpu_use=use, sensitivity={"cpu": half})))
        for use in (0.1, 1.0)[:: -1 if turned else 1]
    ]
    beside = replace(OLD, key="sum", phases=(replace(PHASE, sensitivity={"cpu": half}),))
    apps = App("cg", cores=(0,)), App("sum", cores=(0,))
    each = [told_of((one, beside), apps) for one in revisions]
    both = told_of((spanning(revisions), beside), apps)
    for one, first, second in zip(both, *each, strict=True):
        assert one.mid == pytest.approx((first.mid + second.mid) / 2)
        ends = " and ".join(f"{mid:.2f}x" for mid in sorted((first.mid, second.mid)))
        assert one.why.startswith(f"{one.mid:.2f}x in the middle of {ends}, by profiles of cg that contradict each")


use, at_full = st.floats(0.05, 1.0), st.floats(1.0, 4.0)


def told_of(held: Iterable[Profile], apps: tuple[App, ...]) -> tuple[Slowdown, ...]:
    return estimators.make("bubble", (), tuple(held)).predict(apps, Capacity(2000))


def assert_reaches_to_all(revisions: Sequence[tuple[Profile, Profile]], apps: tuple[App, ...]) -> None:
    """Whichever revision holds of each application, the interval of both holds its interval."""
    spanned = told_of(map(spanning, revisions), apps)
    for played in product(*revisions):
        for both, one in zip(spanned, told_of(played, apps), strict=True):
            assert both.low <= both.mid <= both.high
            assert both.low <= one.low + 1e-9
            assert both.high >= one.high - 1e-9


@given(
    uses=st.tuples(st.tuples(use, use), st.tuples(use, use)),
    fulls=st.tuples(at_full, at_full),
    share=st.floats(0.1, 0.9),
    half=st.floats(0.0, 0.3),
    members=st.lists(
        st.tuples(st.sampled_from(["cg", "lu", "new"]), st.sampled_from([(0,), (1,), (0, 1), ()])),
        min_size=2,
        max_size=5,
    ),
    turned=st.booleans(),
)
def test_the_interval_of_contradictory_busy_cores_reaches_to_those_of_either_revision_of_each(
    uses: tuple[tuple[float, float], tuple[float, float]],
    fulls: tuple[float, float],
    share: float,
    half: float,
    members: list[tuple[str, tuple[int, ...]]],
    turned: bool,
) -> None:
    def revision(key: str, n: int) -> Profile:
        work, wait = uses[n] if key == "cg" else (1.05 - one for one in uses[n])  # as far apart
        shares = (("work", share, work), ("wait", 1.0 - share, wait))
        sensitivity = {"cpu": curve(fulls[n], half=half)}
        phases = (
            replace(PHASE, phase=name, share=part, cpu_use=use, sensitivity=sensitivity) for name, part, use in shares
        )
        return replace(OLD, key=key, phases=tuple(phases))

    revisions = [(revision("cg", 0), revision("cg", 1)), (revision("lu", int(turned)), revision("lu", 1 - int(turned)))]
    for one in map(spanning, revisions):
        assume(one.between)
    assert_reaches_to_all(revisions, tuple(App(key, cores=cores) for key, cores in members))


@pytest.mark.parametrize("turned", range(6))
def test_so_does_that_of_more_than_all_combinations_are_played_of(turned: int) -> None:
    uses = [(0.2, 0.9), (0.1, 1.0), (0.05, 0.5), (0.3, 0.8), (0.15, 0.95)]
    revisions = [
        tuple(
            replace(OLD, key=f"a{k}", phases=(replace(PHASE, cpu_use=use, sensitivity={"cpu": curve(2.0)}),))
            for use in (pair[::-1] if k < turned else pair)
        )
        for k, pair in enumerate(uses)
    ]
    assert_reaches_to_all(revisions, tuple(App(f"a{k}", cores=(0,)) for k in range(len(uses))))


def test_what_contradicts_about_cores_is_nothing_to_those_with_cores_of_their_own() -> None:
    first, second = OLD, with_phase(cpu_use=0.2)
    found, last = (told_of([held], (App("cg"), App("lu"))) for held in (spanning([first, second]), second))
    assert found == last


@pytest.mark.parametrize(("was", "now"), [(0.5, 0.1), (0.1, 0.5), (0.5, 0.0), (0.0, 0.5)])
def test_where_their_part_contradicts_as_little_is_known_of_phases_without_steps_as_by_either(
    was: float, now: float
) -> None:
    felt, presses, halves = (dict.fromkeys(contention.FELT, one) for one in (curve(1.2), 0.5, 0.05))

    def measured(one: Profile) -> Profile:
        return replace(one, phases=(replace(one.phases[0], sensitivity=felt, pressure=presses, pressure_half=halves),))

    beside = replace(measured(saving(0.0)), key="lu")
    both = measured(saving(was)), measured(saving(now))
    apps = App("cg"), App("lu")
    assert_reaches_to_all([both, (beside, beside)], apps)
    assert spanning(both).between
    feels, presses_on = (one.why for one in told_of([spanning(both), beside], apps))
    assert "what slows it in save is not known)" in feels
    assert "how hard cg presses in save is not known)" in presses_on


def test_pressures_that_contradict_are_spanned_and_what_agrees_is_left_as_it_is() -> None:
    new = with_phase(pressure={"cache": 0.1, "net": 0.5}, pressure_half={"cache": 0.02})
    (phase,) = spanning([OLD, new]).phases
    assert phase.pressure == {"cache": pytest.approx(0.35), "net": 0.5}
    assert phase.pressure_half == {"cache": pytest.approx(0.3)}
    assert phase.sensitivity == new.phases[0].sensitivity
    same = with_phase(pressure={"cache": 0.7})
    assert spanning([OLD, same]) is same
    assert spanning([OLD]) is OLD


def test_the_middle_of_two_profiles_is_stored_as_it_is() -> None:
    found = spanning([OLD, with_phase(sensitivity={"cache": curve(2.4)}, cpu_use=0.5)])
    assert [one.phases[0].cpu_use for one in found.between] == [1.0, 0.5]
    assert found.phases[0].sensitivity["cache"].apart == (0.0, pytest.approx(0.5))
    assert from_json(json.loads(json.dumps(asdict(found)))) == found
    assert codec.from_json(json.loads(json.dumps(codec.to_json(found)))) == found


def saving(share: float, cpu_use: float = 0.0) -> Profile:
    stepless = {"save": Stepless(share, cpu_use)} if share else {}
    return replace(OLD, revision=2, phases=(replace(PHASE, share=1.0 - share),), stepless=stepless)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (saving(0.1), saving(0.9), "10% -> 90% of the time in save"),
        (saving(0.5), saving(0.0), "50% -> 0% of the time in save"),
        (saving(0.5), saving(0.5, 1.0), "in save busy 0.00 -> 1.00 cores"),
        (saving(0.05), saving(0.05, 1.0), ""),
        (saving(0.1), saving(0.3), ""),
        (with_phase(pauses=Pauses(0.5, 1.0, 9)), with_phase(), "stands still 50% -> 0% of the time"),
    ],
)
def test_so_do_phases_without_steps_and_pauses(old: Profile, new: Profile, words: str) -> None:
    for first, second in ((old, new), (new, old)):
        assert bool(contradiction(first, second)) == bool(words)
        assert (spanning([first, second]) is second) == (not words)
    assert words in contradiction(old, new)
    other = replace(new, phases=(replace(new.phases[0], phase="other"),))
    assert contradiction(old, other) == "", "it announces other phases"


@given(
    parts=st.tuples(st.floats(0.0, 0.9), st.floats(0.0, 0.9)),
    busy=st.tuples(use, use),
    paused=st.tuples(st.booleans(), st.booleans()),
    others=st.sampled_from([["lu"], ["cg"], ["lu", "new"], ["cg", "lu"]]),
)
def test_whichever_of_those_that_wait_in_turns_was_newer_the_interval_holds_both(
    parts: tuple[float, float], busy: tuple[float, float], paused: tuple[bool, bool], others: list[str]
) -> None:
    def revision(n: int) -> Profile:
        sensitivity = {"cpu": curve(2.0)}
        if not paused[n]:
            one = saving(parts[n], busy[n])
            return replace(one, phases=(replace(one.phases[0], sensitivity=sensitivity),))
        pauses = Pauses(parts[n], 1.0, 9)
        return with_phase(cpu_use=1.0 - parts[n], rate=40.0 * (1.0 - parts[n]), pauses=pauses, sensitivity=sensitivity)

    lu = with_phase(sensitivity={"cpu": curve(2.0)}, cpu_use=0.8)
    both = [(revision(0), revision(1)), (replace(lu, key="lu"),) * 2]
    assume(contradiction(*both[0]))
    apps = tuple(App(key, cores=(0,)) for key in ("cg", *others))
    assert_reaches_to_all(both, apps)
    told, turned = (told_of([spanning(one), both[1][0]], apps) for one in (both[0], both[0][::-1]))
    assert [one[:3] for one in told] == [pytest.approx(one[:3]) for one in turned]
