"""`tandem estimate` from the command line, on profiles that lie in the data folder."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tandem.cli import estimate as command
from tandem.core.machine import discover
from tandem.estimate import estimators
from tandem.estimate.bubbles import Calibration, Response, keeping
from tandem.estimate.corun import App, Capacity, CoRun
from tandem.estimate.prediction import Work, predict
from tandem.estimate.profile import Curve, PhaseProfile, Profile
from tandem.estimate.profiling import store
from tandem.share import paths
from tandem.share.store.entry import Beside, Entry
from tandem.share.store.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Shell

pytestmark = pytest.mark.slow

KINDS = ("cache", "membw_read", "membw_write")


def profile(key: str, feels: float, presses: float) -> Profile:
    """An application on this machine that feels and exerts pressure on memory."""
    curve = Curve((0.0, 0.5, 1.0), (1.0, 1.0 + feels / 2, 1.0 + feels), (0.0, 0.005, 0.005))
    phase = PhaseProfile(
        "", 1.0, 10.0, 0.02, 1.0, dict.fromkeys(KINDS, curve), dict.fromkeys(KINDS, presses), dict.fromkeys(KINDS, 0.01)
    )
    return Profile(key, (key,), discover().fingerprint, 1, 0.0, 20.0, 0, (phase,))


@pytest.fixture
def profiled(home: Path) -> None:
    """Two applications that were profiled here."""
    store.save(home, profile("loud", 0.5, 1.0))
    store.save(home, profile("calm", 0.0, 0.0))


@pytest.mark.usefixtures("profiled")
def test_one_alone_takes_what_it_takes_alone(tandem_: Shell) -> None:
    told = json.loads(tandem_("estimate", "loud=90s", "--json"))
    (one,) = told["applications"]
    assert one["took_s"] == {"low": 90.0, "mid": 90.0, "high": 90.0}
    assert one["hint"] is None
    assert told["machine"] == discover().fingerprint


@pytest.mark.usefixtures("profiled")
def test_neighbours_by_their_profiles_and_time_after_one_has_ended(tandem_: Shell) -> None:
    told = json.loads(tandem_("estimate", "loud=60s", "loud=30s", "--model", "bubble", "--json"))
    long, short = told["applications"]
    slow = short["slowdown_together"]["mid"]
    assert slow > 1.2
    assert short["took_s"]["mid"] == pytest.approx(30 * slow)
    assert long["took_s"]["mid"] == pytest.approx(30 + 30 * slow), "the second half runs alone"
    assert "loud: 1.5" in tandem_("estimate", "loud", "loud"), "and in words what contends for what"
    told = tandem_.run("estimate", "calm", "stranger").stderr
    assert told == (
        "stranger: nothing is known of it (profiled here: calm, loud); tandem profile --name stranger -- COMMAND...\n"
        "no daemon runs, so what it saw of jobs beside each other does not count: tandem up\n"
    )
    assert tandem_.run("estimate", "calm", "loud").stderr == ""


@pytest.mark.usefixtures("profiled")
def test_short_times_have_two_digits_that_say_something(tandem_: Shell) -> None:
    told = tandem_("estimate", "calm=1ms", "calm=0.1s", "calm=20s", "--cores", discover().cores[0].index)
    assert "0.0030 s (0.00" in told
    assert "0.10 s" in told
    assert "20.1 s" in told
    tiny = tandem_("estimate", "calm=1e-300")
    assert "6.0e-299 s (6.0e-299-6.0e-299)" in tiny
    assert "0000" not in tiny


@pytest.mark.usefixtures("profiled")
def test_a_mistyped_application_is_said_with_the_nearest_known_one(tandem_: Shell) -> None:
    done = tandem_.run("estimate", "lood", "loud")
    assert done.returncode == 0
    hint = "nothing is known of it (profiled here: calm, loud); did you mean 'loud'? Else: tandem profile --name lood "
    assert done.stderr.startswith(f"lood: {hint}")
    mistyped, right = json.loads(tandem_("estimate", "lood", "loud", "--json"))["applications"]
    assert mistyped["hint"].startswith(hint)
    assert right["hint"] is None


def test_of_one_that_was_only_seen_that_is_said() -> None:
    apps = [App("alone"), App("beside"), App("both")]
    coruns = [
        CoRun("alone", (), 1.0, 60.0),
        CoRun("beside", ("other",), 1.0, 60.0),
        CoRun("both", ("other",), 1.0, 9.0),
        CoRun("alone", ("other",), 1.0, 0.9),  # moments say nothing
    ]
    told = predict([Work(app, 60.0) for app in apps], estimators.make("learned", coruns), Capacity(8000))
    hints = command._hints(told, "here", {"both"}, coruns)
    assert hints == {
        "alone": "nothing is known of it (profiled here: both); tandem profile --name alone -- COMMAND...",
        "beside": "it was not profiled, only seen beside others (profiled here: both); "
        "tandem profile --name beside -- COMMAND...",
    }


@pytest.mark.usefixtures("profiled")
def test_more_applications_than_cores_share_them(tandem_: Shell) -> None:
    told = json.loads(tandem_("estimate", "calm=10s", "calm=10s", "--cores", "0", "--json"))
    assert [one["cores"] for one in told["applications"]] == [[0], [0]]
    assert all(one["slowdown_together"]["mid"] == pytest.approx(2.0, rel=0.1) for one in told["applications"])


def test_of_none_and_of_a_hundred(tandem_: Shell) -> None:
    assert "no applications" in tandem_("estimate")
    told = json.loads(tandem_("estimate", *[f"app{k}" for k in range(100)], "--json"))
    assert len(told["applications"]) == 100


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["=3s"], "NAME or NAME=TIME"),
        (["cg="], "'cg='; allowed: NAME or NAME=TIME"),
        (["a=soon"], "the time 'soon' of the application 'a=soon'"),
        (["a=soon"], "an application of this very name, with a time: a=soon=10m"),
        (["a", "--stagger", "-1s"], "the time '-1s' of --stagger"),
        (["a=1e308"], "'1e308' of the application 'a=1e308'"),
        (["a=99999999"], "ten years"),
        (["a", "--stagger", "3651d"], "ten years"),
        (["a", "--model", "bubbel"], "did you mean 'bubble'"),
        (["a", "--cores", "4096"], "cores of this machine"),
        (["a", "--cores", "0-999999999"], "cores of this machine"),
        (["a=0s"], "above 0"),
    ],
)
def test_what_cannot_be_meant_is_one_line(tandem_: Shell, args: list[str], word: str) -> None:
    done = tandem_.run("estimate", *args)
    assert done.returncode == 2
    assert word in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("profiled")
def test_no_other_name_is_proposed_where_none_can_be_meant(tandem_: Shell) -> None:
    for text in ("", "calm=", "calm=nan", "calm=-5m"):
        done = tandem_.run("estimate", text)
        assert (done.returncode, repr(text) in done.stderr) == (2, True)
        assert "of this very name" not in done.stderr
    assert "of this very name, with a time: clam=nan=10m" in tandem_.run("estimate", "clam=nan").stderr


@pytest.mark.usefixtures("profiled")
def test_a_name_that_holds_the_sign_of_a_time_is_that_application(tandem_: Shell, home: Path) -> None:
    store.save(home, profile("lr=1m", 0.5, 1.0))
    told = json.loads(tandem_("estimate", "lr=1m", "lr=1m=5m", "lr=2m", "--json"))["applications"]
    assert [(one["app"], one["alone_s"]) for one in told] == [("lr=1m", 60.0), ("lr=1m", 300.0), ("lr", 120.0)]
    assert "did you mean 'lr=1m' (with a time: lr=1m=10m)?" in tandem_.run("estimate", "lr=1=2m").stderr
    (home / "profiles" / discover().fingerprint / "lr=1m.json").write_text("{")
    assert "lr=1m.json cannot be read" in tandem_.run("estimate", "lr=1m").stderr


def test_a_name_that_was_only_seen_may_hold_the_sign_too() -> None:
    names = command._names(["lr=1m", "lr=2m", "cg=3m"], [], [CoRun("cg", ("lr=1m",), 1.0, 9.0)])
    assert names == {"lr=1m", "cg"}


@pytest.mark.usefixtures("profiled")
def test_a_damaged_calibration_is_one_line_wherever_it_would_count(tandem_: Shell, home: Path) -> None:
    file = keeping.file_of(home / "bubbles", discover().fingerprint)
    file.parent.mkdir()
    file.write_text("{")
    words = f"left out: the calibration in {file} is damaged"
    page = home / "loud.html"
    for arguments in (("estimate", "loud"), ("profile", "show"), ("profile", "show", "loud", "--out", page)):
        done = tandem_.run(*arguments)
        assert done.returncode == 0
        assert done.stderr.count(words) == done.stderr.count("\n") == 1
        assert "tandem profile calibrate makes it anew" in done.stderr
    file.unlink()
    assert tandem_.run("profile", "show").stderr == ""


def test_profiles_of_another_machine_do_not_count(tandem_: Shell, home: Path) -> None:
    store.save(home, replace(profile("loud", 0.5, 1.0), machine="elsewhere"))
    told = json.loads(tandem_("estimate", "loud", "loud", "--json"))
    assert not any(one["known"] for one in told["applications"])
    text = tandem_.run("estimate", "loud", "stranger").stderr
    assert f"loud: profiled on elsewhere; this machine is {discover().fingerprint} (" in text
    assert "stranger: nothing is known of it" in text
    done = tandem_.run("profile", "show", "loud")
    assert done.returncode == 2
    assert "elsewhere" in done.stderr


@pytest.mark.usefixtures("profiled")
def test_a_damaged_profile_costs_one_line_and_only_its_own_application(tandem_: Shell, home: Path) -> None:
    file = home / "profiles" / discover().fingerprint / "calm.json"
    file.write_text('{"format": 99}')
    done = tandem_.run("estimate", "loud", "loud", "--json")
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert f"{file} cannot be read (format 99" in done.stderr
    assert json.loads(done.stdout)["applications"][0]["slowdown_together"]["mid"] > 1.2
    done = tandem_.run("estimate", "loud", "calm")
    assert done.returncode == 2
    assert "calm.json cannot be read" in done.stderr
    done = tandem_.run("profile", "show")
    assert done.returncode == 0
    assert "loud" in done.stdout
    assert "calm.json cannot be read" in done.stderr
    told = json.loads(tandem_("doctor", "--json", status=1))
    assert "calm.json cannot be read" in told["problems"][-1]


@pytest.mark.usefixtures("profiled")
def test_nothing_known_is_said_where_cores_are_shared_too(tandem_: Shell) -> None:
    done = tandem_.run("estimate", "calm", "stranger", "stranger", "--cores", "0")
    assert done.stderr.count("stranger: nothing is known of it") == 1
    assert "calm: nothing" not in done.stderr
    text = done.stdout
    assert "by sharing a core" in text
    assert "nobody runs beside it" not in text
    told = json.loads(tandem_("estimate", "calm", "calm", "stranger", "stranger", "--cores", "0-1", "--json"))
    low = {one["app"]: one["slowdown_together"]["low"] for one in told["applications"]}
    assert low["stranger"] < low["calm"]


def test_a_bare_number_counts_minutes_as_everywhere(tandem_: Shell) -> None:
    told = json.loads(tandem_("estimate", "a=2", "a", "--stagger", "1", "--json"))
    assert [(one["alone_s"], one["start_s"]) for one in told["applications"]] == [(120.0, 0.0), (60.0, 60.0)]


@pytest.mark.usefixtures("profiled")
def test_where_they_never_all_meet_it_is_said_what_the_slowdown_together_is(tandem_: Shell) -> None:
    clause = "they never all run at once: SLOWDOWN TOGETHER is what it would be then"
    assert clause in tandem_("estimate", "loud", "calm", "loud", "--cores", "0-1", "--stagger", "50s")
    assert clause not in tandem_("estimate", "loud", "calm", "loud", "--cores", "0-1", "--stagger", "10s")
    assert clause not in tandem_("estimate", "loud", "--stagger", "50s")


@pytest.mark.usefixtures("profiled")
def test_a_disturbed_profile_and_a_disturbed_calibration_are_said_with_the_estimate(tandem_: Shell, home: Path) -> None:
    here = discover()
    busy = Response((0.0, 1.0), (1.0, 1.0), 0.02, waited=0.84)
    made = Calibration(here.fingerprint, tuple(core.index for core in here.cores), {"net": busy}, {}, 5.0, 20.0)
    keeping.save(made, home / "bubbles")
    store.save(home, replace(profile("loud", 0.5, 1.0), waited=0.42, calibrated=5.0, reporter_excess={"cache": 0.5}))
    told = json.loads(tandem_("estimate", "loud", "calm", "--json"))
    loud, calm = (one["hint"] for one in told["applications"])
    assert "others had its cores for 42% of the time" in loud
    assert "bubbles (net) were calibrated on a busy machine: tandem profile show tells more" in loud
    assert "42%" not in (calm or "")
    assert "loud: others had its cores" in tandem_.run("estimate", "loud", "calm").stderr


def paced(folder: Path) -> tuple[str, str]:
    """A program that takes so many steps a second, whoever is beside it, for so many seconds."""
    program = folder / "paced.py"
    program.write_text(
        "import sys, time\n"
        "from tandem.core.records import Recorder\n"
        "rate, seconds = map(float, sys.argv[1:])\n"
        "recorder, began = Recorder.from_env(), time.monotonic()\n"
        "for step in range(1, int(rate * seconds) + 1):\n"
        "    time.sleep(max(0.0, began + step / rate - time.monotonic()))\n"
        "    recorder.record(step=step, total=int(rate * seconds))\n"
    )
    return sys.executable, str(program)


def test_rates_of_other_arguments_are_no_slowdown(tandem_: Shell, tmp_path: Path) -> None:
    stepping = paced(tmp_path)
    tandem_("up", "--policy", "share")
    tandem_("submit", "-q", "--wait", "--", *stepping, 100, 6)
    tandem_("submit", "-q", "--name", "sleeper", "--", "sleep", 60)
    tandem_("submit", "-q", "--wait", "--", *stepping, 25, 4)
    assert "not known" in tandem_("estimate", "paced", "sleeper")  # 25 steps/s were never seen alone
    tandem_("cancel", 2)
    tandem_("submit", "-q", "--wait", "--", *stepping, 25, 4)
    assert "paced: seen once beside sleeper: 1.0" in tandem_("estimate", "paced", "sleeper")


@pytest.mark.parametrize(("moment_s", "told"), [(0.9, 0), (1.1, 1)])
def test_moments_beside_others_are_not_counted_as_seen_and_nothing_hides_what_was(
    moment_s: float, told: int, tandem_: Shell, home: Path
) -> None:
    stepping = paced(tandem_.cwd)
    tandem_("submit", "-q", "--wait", "--name", "a", "--", *stepping, 10, 4)
    tandem_("down")
    with Store.open(paths.home(home)) as stored:
        now = time.time()
        besides = [
            Beside(1, 1, "a", "n", now - 100.0, now - 90.0, (), 10.0, False),
            Beside(1, 1, "a", "n", now - 90.0, now - 90.0 + moment_s, ((2, "b"),), 5.0, False),
            *[Beside(1, 1, "a", "n", now - 80.0 + k / 200, now - 79.9 + k / 200, (), None, False) for k in range(6000)],
        ]
        stored.commit(Entry(now, [], besides=besides))
    tandem_("up")
    assert tandem_("estimate", "a", "b", "--model", "learned").count("seen once beside b: 2.00x") == told
