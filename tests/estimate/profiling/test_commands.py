"""Commands that are offered: whatever an application is called, a shell reads its name and nothing else."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.estimate.bubbles import Calibration
from tandem.estimate.profile import Curve, PhaseProfile, Profile
from tandem.estimate.profiling import picture, trust
from tandem.estimate.profiling.commands import profile_again, profile_as, show_profile
from tandem.estimate.profiling.contradictions import contradiction
from tandem.estimate.profiling.drift import drifted
from tandem.estimate.profiling.store import ProfileError, revisions, save

WEIRD = "weird name; rm -rf $HOME"
PHASE = PhaseProfile("", 1.0, 10.0, 0.02, 1.0, {"cache": Curve((0.0, 1.0), (1.0, 1.1), (0.0, 0.02))}, {"cache": 0.5})
PROFILE = Profile(
    WEIRD,
    ("x",),
    "here",
    1,
    0.0,
    20.0,
    1,
    (PHASE,),
    waited=0.4,
    calibrated=1.0,
    reporter_excess={"cache": 0.5},
    left_out={"sensitivity": ("net",), "unsteady": ("net",)},
)


@given(st.lists(st.text(min_size=1), min_size=1))
def test_a_shell_reads_the_names_and_no_option(keys: list[str]) -> None:
    words = shlex.split(profile_again(*keys))[3:]
    assert words == (["--", *keys] if any(key.startswith("-") for key in keys) else keys)
    assert shlex.split(profile_as(keys[0]))[3:] == [keys[0], "--", "COMMAND..."]
    assert shlex.split(show_profile(keys[0]))[-1] == keys[0]


def test_whatever_is_said_of_a_profile_quotes_its_name() -> None:
    calibration = Calibration("here", (0, 1), {}, {}, made=2.0, cost_s=20.0)
    slower = replace(PROFILE, phases=(replace(PHASE, rate=5.0),), revision=2)
    noisy = replace(PROFILE, waited=0.0, phases=(replace(PHASE, noise=0.5),))
    said = [
        trust.warning(PROFILE),
        trust.warning(noisy),
        trust.older(PROFILE, calibration),
        contradiction(PROFILE, slower),
        drifted(PROFILE, [1.0] * 5),
        " ".join(picture.sentences(PROFILE)),
    ]
    for words in said:
        assert f"tandem profile again '{WEIRD}'" in str(words)


def test_an_error_quotes_it(tmp_path: Path) -> None:
    with pytest.raises(ProfileError) as missing:
        revisions(tmp_path, "here", WEIRD)
    save(tmp_path, PROFILE)
    with pytest.raises(ProfileError) as away:
        revisions(tmp_path, "there", WEIRD)
    for caught in (missing, away):
        assert f"tandem profile --name '{WEIRD}' -- COMMAND..." in caught.value.todo
