"""The question in one call, on profiles that lie in a folder."""

import os
import re
from pathlib import Path

import pytest

from tandem import estimate
from tandem.core.data_folder import SYSTEM_DATA, data_folder
from tandem.core.machine import discover
from tandem.estimate import estimators, prediction
from tandem.estimate.corun import App, Capacity, CoRun
from tandem.estimate.prediction import Work, WorkError
from tandem.estimate.profile import Curve, PhaseProfile, Profile
from tandem.estimate.profiling.store import ProfileError, save

DOCS = Path(__file__).parents[2] / "docs"
HERE = discover()
CORES = [core.index for core in HERE.cores]


def profile(key: str, feels: float = 0.4, presses: float = 1.0) -> Profile:
    curve = Curve((0.0, 1.0), (1.0, 1.0 + feels), (0.0, 0.01))
    phase = PhaseProfile("", 1.0, 10.0, 0.02, 1.0, {"cache": curve}, {"cache": presses}, {"cache": 0.01})
    return Profile(key, (key,), HERE.fingerprint, 1, 0.0, 20.0, 1, (phase,))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TANDEM_HOME", str(tmp_path))
    save(tmp_path, profile("cg"))
    save(tmp_path, profile("lu", feels=0.2))
    return tmp_path


@pytest.mark.usefixtures("home")
def test_equal_to_asking_with_everything_at_hand() -> None:
    held = (profile("cg"), profile("lu", feels=0.2))
    works = [Work(App("cg"), 90.0), Work(App("lu"), 30.0, start_s=5.0)]
    told = estimate.predict(["cg", works[1]], alone_s=90.0, cores=[0, 1, 2], model="bubble")
    assert told == prediction.predict(works, estimators.make("bubble", (), held), Capacity(3000))
    assert told.courses[0].together.mid > 1.2


def test_a_new_profile_counts_at_once(home: Path) -> None:
    before = estimate.predict(["cg", "lu"], cores=[0, 1])
    save(home, profile("lu", feels=0.9))
    after = estimate.predict(["cg", "lu"], cores=[0, 1])
    assert after.courses[1].together.mid > before.courses[1].together.mid + 0.3
    assert after == estimate.predict(["cg", "lu"], cores=[0, 1], data=home)


@pytest.mark.usefixtures("home")
def test_what_is_not_known_and_what_is_not_asked() -> None:
    assert estimate.predict([]).courses == ()
    alone, beside = estimate.predict("cg"), estimate.predict(["cg", "stranger"], cores=[0, 1]).courses[0]
    assert alone.end_s.high == 60.0
    assert beside.together.high > 1.5
    assert "stranger" in beside.why
    crowded = estimate.predict(["cg"] * 3, cores=[7, 9])
    assert [one.work.app.cores for one in crowded.courses] == [(7,), (9,), (7,)]
    seen = estimate.predict(["cg", "x"], cores=[0, 1], coruns=[CoRun("cg", (), 9.0, 60), CoRun("cg", ("x",), 3.0, 60)])
    assert seen.courses[0].together.mid == pytest.approx(3.0, rel=0.2)
    with pytest.raises(WorkError, match="no cores"):
        estimate.predict(["cg"], cores=[])
    with pytest.raises(WorkError):
        estimate.predict(["cg"], alone_s=0.0)
    with pytest.raises(AttributeError, match="predictt"):
        estimate.predictt  # noqa: B018


def test_a_profile_that_cannot_be_read_is_said_where_it_is_asked_for(home: Path) -> None:
    (home / "profiles" / HERE.fingerprint / "lu.json").write_text("{")
    assert estimate.predict(["cg", "stranger"], cores=[0, 1]).courses
    with pytest.raises(ProfileError, match=r"lu\.json cannot be read"):
        estimate.predict(["cg", "lu"], cores=[0, 1])


def test_where_nothing_was_ever_kept(tmp_path: Path) -> None:
    told = estimate.predict(["cg", "lu"], cores=[0, 1], data=tmp_path / "none")
    assert not any(one.together.known for one in told.courses)


@pytest.mark.usefixtures("home")
def test_the_example_of_the_reference_runs(capsys: pytest.CaptureFixture[str]) -> None:
    part = (DOCS / "reference" / "estimators.md").read_text().split("## In one call")[1]
    example = re.search(r"```python\n(.*?)```", part, re.DOTALL)
    assert example is not None
    exec(example[1], {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[:2]] == ["cg", "lu"]
    assert lines[2].startswith("all have ended after ")


def test_the_folder_is_that_of_the_commands() -> None:
    assert data_folder({"TANDEM_HOME": "here"}, 7) == Path("here").absolute()
    assert data_folder({"XDG_DATA_HOME": "/data"}, 7) == Path("/data/tandem")
    assert data_folder({"XDG_DATA_HOME": "/data"}, 0) == SYSTEM_DATA
    assert data_folder(os.environ, os.geteuid()).is_absolute()
