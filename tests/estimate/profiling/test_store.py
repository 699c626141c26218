"""Profiles on disk: revisions, other machines, damage; and drift."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.estimate.profile import Curve, Pauses, PhaseProfile, Profile, Stepless
from tandem.estimate.profiling.drift import drifted
from tandem.estimate.profiling.store import ProfileError, as_json, from_json, load, revisions, room, save
from tests.disks import small

PHASE = PhaseProfile(
    phase="solve",
    share=1.0,
    rate=40.0,
    noise=0.04,
    cpu_use=0.99,
    sensitivity={"cache": Curve((0.0, 0.5, 1.0), (1.0, 1.1, 1.4), (0.0, 0.02, 0.03))},
    pressure={"cache": 0.6, "net": 0.0},
    pressure_half={"cache": 0.05, "net": 0.02},
)
PROFILE = Profile("cg", ("python", "cg.py"), "machine-1", 1, 1e9, 20.5, 1, (PHASE,), calibrated=9e8)


def test_what_is_kept_comes_back_and_revisions_count_up(tmp_path: Path) -> None:
    first = save(tmp_path, PROFILE)
    second = save(tmp_path, replace(PROFILE, cost_s=1.0))
    assert (first.revision, second.revision) == (1, 2)
    assert revisions(tmp_path, "machine-1", "cg") == [first, second]
    assert load(tmp_path, "machine-1").profiles == {"cg": second}
    assert load(tmp_path, "machine-2").profiles == {}


@given(key=st.text(min_size=1, max_size=400))
def test_any_name_can_be_kept(key: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    key = key.encode(errors="replace").decode()
    folder = tmp_path_factory.mktemp("data")
    kept = save(folder, replace(PROFILE, key=key))
    assert revisions(folder, "machine-1", key) == [kept]
    assert load(folder, "machine-1").profiles == {key: kept}


def test_plain_values_survive_json() -> None:
    assert from_json(json.loads(json.dumps(as_json(PROFILE)))) == PROFILE


def test_a_profile_of_another_machine_is_refused(tmp_path: Path) -> None:
    save(tmp_path, PROFILE)
    with pytest.raises(ProfileError, match="'cg' was profiled on machine-1; this machine is machine-2"):
        revisions(tmp_path, "machine-2", "cg")


def test_a_profile_that_says_it_is_of_another_machine_is_refused_wherever_it_lies(tmp_path: Path) -> None:
    save(tmp_path, PROFILE)
    (tmp_path / "profiles" / "machine-1").rename(tmp_path / "profiles" / "machine-2")
    with pytest.raises(ProfileError, match="'cg' was profiled on machine-1, and lies with those of machine-2"):
        revisions(tmp_path, "machine-2", "cg")
    assert load(tmp_path, "machine-2").profiles == {}


NONSENSE = [
    {"made": 1e300},
    {"calibrated": -1.0},
    {"cpus": 0},
    {"key": None},
    {"key": "lu"},
    {"argv": "python cg.py"},
    {"machine": "\ud800"},
    {"phases": [{"share": 5.0}]},
    {"phases": [{"rate": 0.0}]},
    {"phases": [{"cpu_use": float("nan")}]},
    {"phases": [{"cpu_use": -1.0}]},
    {"phases": [{"noise": float("inf")}]},
    {"phases": [{"sensitivity": {"cache": {"levels": [0, 1], "slowdowns": [1.0, 1e308], "halves": [0, 0]}}}]},
    {"phases": [{"sensitivity": {"cache": {"levels": [0, 1], "slowdowns": [1.0, 0.0], "halves": [0, 0]}}}]},
]


@pytest.mark.parametrize("change", NONSENSE, ids=[json.dumps(one)[:40] for one in NONSENSE])
def test_values_that_nobody_can_have_measured_are_not_believed(tmp_path: Path, change: dict[str, object]) -> None:
    kept = as_json(save(tmp_path, PROFILE))
    phases = change.pop("phases", [{}])
    assert isinstance(phases, list)
    told = {**kept, **change, "phases": [{**kept["phases"][0], **phases[0]}]}
    file = tmp_path / "profiles" / "machine-1" / "cg.json"
    file.write_text(json.dumps({"format": 1, "profiles": [told]}))
    with pytest.raises(ProfileError, match="cannot be read"):
        revisions(tmp_path, "machine-1", "cg")
    assert list(load(tmp_path, "machine-1").unread) == [file]


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), 1e300])
def test_a_profile_that_makes_no_sense_is_not_kept(tmp_path: Path, rate: float) -> None:
    kept = save(tmp_path, PROFILE)
    with pytest.raises(ProfileError, match="a profile of 'cg' that makes no sense"):
        save(tmp_path, replace(PROFILE, phases=(replace(PHASE, rate=rate),)))
    assert revisions(tmp_path, "machine-1", "cg") == [kept]


@pytest.mark.parametrize("change", [{"phases": [{**as_json(PROFILE)["phases"][0], "rate": "nan"}]}, {"cpus": None}])
def test_a_revision_that_makes_no_sense_costs_no_other_and_goes_with_the_next_profile(
    tmp_path: Path, change: dict[str, object]
) -> None:
    first = save(tmp_path, PROFILE)
    file = tmp_path / "profiles" / "machine-1" / "cg.json"
    wrong = {**as_json(first), "revision": 2, **change}
    file.write_text(json.dumps({"format": 1, "profiles": [as_json(first), wrong, wrong]}))
    loaded = load(tmp_path, "machine-1")
    assert loaded.profiles == {"cg": first}
    assert f"a revision in {file} cannot be read" in loaded.left_out()
    assert ", and 1 more: revision 1 holds instead; profile" in loaded.left_out()
    assert revisions(tmp_path, "machine-1", "cg") == [first]
    assert loaded.why_not("cg") is not None
    second = save(tmp_path, replace(PROFILE, cost_s=1.0))
    assert revisions(tmp_path, "machine-1", "cg") == [first, second]
    assert not load(tmp_path, "machine-1").left_out()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"argv": []}, "argv is empty"),
        ({"argv": "python cg.py"}, "argv is 'python cg.py', which is no list"),
        ({"argv": [None]}, "a part of argv is None, which is no text"),
        ({"key": "\ud800"}, "key is '\\ud800', which is no text"),
        ({"cwd": 7}, "cwd is 7, which is no text"),
        ({"cpus": 2.7}, "cpus is 2.7, which is no whole number"),
        ({"cpus": 10**400}, f"cpus is 1{'0' * 59}..., which is no number that fits"),
        ({"rate_pattern": "("}, "rate_pattern is '(', which is no regular expression"),
        ({"phases": []}, "it has no phase"),
        ({"phases": as_json(PROFILE)["phases"] * 2}, "the phase 'solve' is there twice"),
        ({"phases": [{**as_json(PROFILE)["phases"][0], "rate": "fast"}]}, "rate is 'fast', which is no number"),
        ({"phases": [{**as_json(PROFILE)["phases"][0], "rate": True}]}, "rate is True, which is no number"),
        ({"reporter_excess": {"cpu": 1e-200}}, "reporter_excess is 1e-200"),
        ({"phases": [{**as_json(PROFILE)["phases"][0], "pressure": {"cpu": 1e-200}}]}, "pressure is 1e-200"),
        ({"waited": {"a": 1}}, "waited is {'a': 1}, which is no number"),
        ({"phases": [{**as_json(PROFILE)["phases"][0], "pressure": {"bogus": 5}}]}, "'bogus' is no kind of bubble"),
        ({"phases": [{**as_json(PROFILE)["phases"][0], "share": 0}]}, "the sum of all phases' share is 0"),
        (
            {
                "phases": [{**as_json(PROFILE)["phases"][0], "share": 0.3}],
                "stepless": {"save": {"share": 0.9, "cpu_use": 0}, "wait": {"share": 0.9, "cpu_use": 0}},
            },
            "the sum of all phases' share is 2.1",
        ),
        (
            {"phases": [{**as_json(PROFILE)["phases"][0], "phase": phase} for phase in ("load", "solve")]},
            "the sum of all phases' share is 2",
        ),
        ({"phases": [{**as_json(PROFILE)["phases"][0], "cpu_use": 5}]}, "cpu_use is 5"),
        ({"stepless": {"save": {"share": 0, "cpu_use": 5}}}, "cpu_use is 5"),
        ({"cpus": None}, "cpus is None, which is no number"),
        ({"reporter_excess": 5}, "a revision in it is no profile of this format"),
        ({"phases": [{}]}, "a revision in it lacks 'phase'"),
    ],
)
def test_what_is_wrong_with_a_revision_is_said_in_words(tmp_path: Path, change: dict[str, object], words: str) -> None:
    file = tmp_path / "profiles" / "machine-1" / "cg.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"format": 1, "profiles": [{**as_json(PROFILE), **change}]}))
    with pytest.raises(ProfileError) as caught:
        revisions(tmp_path, "machine-1", "cg")
    assert f"({words})" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("null", "it holds no profiles of this format"),
        ("[]", "it holds no profiles of this format"),
        ('{"a": 1}', "it holds no profiles of this format"),
        ('{"format": 1, "profiles": {"a": 1}}', "it holds no profiles of this format"),
        ('{"format": 99}', "format 99, this version reads 1"),
        ("{", "it is damaged: no JSON"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_words(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "profiles" / "machine-1" / "cg.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(ProfileError) as caught:
        revisions(tmp_path, "machine-1", "cg")
    assert f"({words})" in str(caught.value)


def test_a_pipe_among_the_files_is_not_waited_for(tmp_path: Path) -> None:
    kept = save(tmp_path, PROFILE)
    pipe = tmp_path / "profiles" / "machine-1" / "pipe.json"
    os.mkfifo(pipe)
    loaded = load(tmp_path, "machine-1")
    assert loaded.profiles == {"cg": kept}
    assert list(loaded.unread) == [pipe]


def test_an_unknown_name_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="none yet on this machine"):
        revisions(tmp_path, "machine-1", "cg")
    save(tmp_path, PROFILE)
    with pytest.raises(ProfileError, match="no profile of 'lu'; allowed: cg"):
        revisions(tmp_path, "machine-1", "lu")


DAMAGED = ["", "{", "[]", '{"format": 99}', '{"format": 1, "profiles": []}', '{"format": 1}', "[" * 100_000]
DAMAGED.append(json.dumps({"format": 1, "profiles": [{**as_json(PROFILE), "cpus": float("inf")}]}))


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_file_is_said_and_left_alone_and_the_others_are_read(tmp_path: Path, text: str) -> None:
    save(tmp_path, PROFILE)
    other = save(tmp_path, replace(PROFILE, key="lu"))
    file = tmp_path / "profiles" / "machine-1" / "cg.json"
    file.write_text(text)
    for action in (lambda: revisions(tmp_path, "machine-1", "cg"), lambda: save(tmp_path, PROFILE)):
        with pytest.raises(ProfileError, match="cannot be read"):
            action()
    loaded = load(tmp_path, "machine-1")
    assert loaded.profiles == {"lu": other}
    assert list(loaded.unread) == [file]
    assert str(file) in loaded.left_out()
    assert loaded.why_not("cg") is loaded.unread[file]
    assert loaded.why_not("lu") is None
    assert file.read_text() == text


@pytest.mark.slow  # it mounts a disk
def test_room_is_held_until_the_profile_is_kept_and_a_full_disk_is_said_before(tmp_path: Path) -> None:
    with small(tmp_path / "disk", 1) as disk:
        with room(disk, "here", "cg"):
            with pytest.raises(OSError, match="No space"):
                (disk / "output").write_bytes(bytes(1 << 20))
            assert [one.name for one in (disk / "profiles" / "here").iterdir()] == []
        assert save(disk, PROFILE).revision == 1
        with pytest.raises(OSError, match="No space"):
            (disk / "more").write_bytes(bytes(1 << 20))
        with pytest.raises(ProfileError, match=r"cannot be kept .*No space left.*make room"):
            room(disk, "here", "cg")


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "profiles").write_text("in the way")
    with pytest.raises(ProfileError, match="cannot be kept"):
        save(tmp_path, PROFILE)


@pytest.mark.parametrize(
    ("rates", "is_drift"),
    [
        ([30.0] * 5, True),
        ([60.0, 55, 58, 61, 57], True),
        ([40.0] * 20 + [30.0] * 5, True),
        ([30.0] * 4, False),
        ([30.0] * 20 + [40.0], False),
        ([36.0] * 5, False),  # 10 %: no more than cores' speeds change
        ([30.0, 30, 50, 30, 30], False),
        ([], False),
    ],
)
def test_drift_needs_several_agreeing_observations(rates: list[float], is_drift: bool) -> None:
    found = drifted(PROFILE, rates, "solve")
    assert (found is not None) == is_drift
    if found:
        assert "profile it again: tandem profile again cg" in found


def test_times_between_the_pauses_of_one_that_pauses_are_no_drift() -> None:
    (phase,) = PROFILE.phases
    pausing = replace(PROFILE, phases=(replace(phase, pauses=Pauses(0.4, 20.0, 3)),))
    assert drifted(pausing, [phase.rate / 0.6] * 5, "solve") is None
    assert drifted(pausing, [0.5 * phase.rate] * 5, "solve") is not None
    assert drifted(PROFILE, [phase.rate / 0.6] * 5, "solve") is not None


def test_a_phase_that_was_not_profiled_says_nothing() -> None:
    both = replace(PROFILE, phases=(PHASE, replace(PHASE, phase="check")))
    assert drifted(both, [1.0] * 5, "load") is None
    assert drifted(PROFILE, [1.0] * 5, "load") is None
    assert drifted(PROFILE, [1.0] * 5) is not None


TWO_PHASES = replace(
    PROFILE, phases=(replace(PHASE, phase="load", rate=100.0, share=0.2), replace(PHASE, rate=10.0, share=0.8))
)


@pytest.mark.parametrize(
    ("rates", "phase", "words"),
    [
        ([20.0] * 5, "solve", "100% faster alone in solve"),
        ([50.0] * 5, "load", "50% slower alone in load"),
        ([10.0, 11.0, 60.0, 100.0, 10.0], "", None),  # some mean of both
        ([30.0] * 5, None, None),
        ([5.0] * 5, "", "at least 50% slower alone than"),
        ([200.0] * 5, None, "at least 100% faster alone than"),
    ],
)
def test_each_phase_has_a_rate_of_its_own_and_a_mean_of_them_lies_between(
    rates: list[float], phase: str | None, words: str | None
) -> None:
    found = drifted(TWO_PHASES, rates, phase)
    assert (found is None) == (words is None)
    assert found is None or (words or "") in found


@pytest.mark.parametrize(
    ("rate", "phase", "words"),
    [
        (4.0, None, None),  # half of the time may have been without a step
        (4.0, "", None),
        (4.0, "save", None),
        (4.0, "work", "60% slower alone than"),
        (20.0, None, "at least 100% faster alone than"),
    ],
)
def test_a_time_that_may_have_been_in_a_phase_without_steps_is_never_too_slow(
    rate: float, phase: str | None, words: str | None
) -> None:
    saving = replace(
        PROFILE,
        phases=(replace(PHASE, phase="work", rate=10.0, share=0.5),),
        stepless={"save": Stepless(share=0.5, cpu_use=0.0)},
    )
    found = drifted(saving, [rate] * 5, phase)
    assert (found is None) == (words is None)
    assert found is None or (words or "") in found
