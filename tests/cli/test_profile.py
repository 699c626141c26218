"""`tandem profile`: a real small programme, measured, kept, shown; and what is said where it cannot be."""

import errno
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from tandem.cli import profile as command
from tandem.cli.main import tandem
from tandem.core import durable
from tandem.core.errors import ConfigError, DaemonError, TandemError
from tandem.core.machine import discover
from tandem.estimate.bubbles import Calibration, Response, calibrating, keeping, load, save
from tandem.estimate.profile import PhaseProfile, Profile
from tandem.estimate.profiling import measure, store
from tests.cli.conftest import Shell

SPIN = "for _ in range(2_000_000): pass"
SHORT = (sys.executable, "-S", "-E", "-c", SPIN)
"""A tenth of a second, hardly any of it for its start."""


def calibrate_three_kinds(home: Path) -> None:
    """Keep a calibration of three kinds as if it had been made here: calibrating takes 20 s."""
    here = discover()
    straight = Response((0.0, 1.0), (1.0, 2.0), 0.02)
    responses = dict.fromkeys(("cpu", "membw_read", "net"), straight)
    save(
        Calibration(here.fingerprint, tuple(core.index for core in here.cores), responses, {}, 1e9, 1.0),
        home / "bubbles",
    )


@pytest.mark.slow
def test_a_short_programme_is_profiled_kept_and_shown(tandem_: Shell, tmp_path: Path, home: Path) -> None:
    calibrate_three_kinds(home)
    for _ in range(3):  # it is refused where others have more than half of its core: bursts of that pass
        done = tandem_.run("profile", "--json", "--most", 24, "--name", "spin", "--", *SHORT)
        if "others used the cores" not in done.stdout + done.stderr:
            break
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["key"], told["revision"], told["cpus"]) == ("spin", 1, 1)
    (phase,) = told["phases"]
    assert phase["phase"] == ""
    # It never waits of itself: what it did not have of its core, others had (but for the start of the next run).
    assert 0.7 < phase["cpu_use"] <= 1.0
    assert 0.5 < phase["rate"] < 100
    # Who has 1 - w of a core alone has (1 - w) / (2 - w) of it beside a bubble that never sleeps: slowed by 2 - w.
    # Others come and go between the windows, so that a quarter of the excess has to do.
    assert phase["sensitivity"]["cpu"]["slowdowns"][-1] > 1.0 + 0.25 * (1.0 - told["waited"])
    assert set(phase["sensitivity"]) <= {"cpu", "membw_read", "net"}, "what was calibrated"
    assert all(curve["levels"][0] == 0 and curve["slowdowns"][0] == 1 for curve in phase["sensitivity"].values())
    assert "Profiles" in tandem_("profile", "show")
    shown = tandem_("profile", "show", "spin", "--out", tmp_path / "spin.html")
    assert "spin: " in shown
    assert (tmp_path / "spin.html").stat().st_size > 100_000
    assert [one["revision"] for one in json.loads(tandem_("profile", "show", "spin", "--json"))] == [1]


def test_doctor_names_a_calibration_that_cannot_be_used(tandem_: Shell, home: Path) -> None:
    calibrate_three_kinds(home)
    assert json.loads(tandem_("doctor", "--json"))["calibration"] == ""
    keeping.file_of(home / "bubbles", discover().fingerprint).write_text("torn")
    (problem,) = json.loads(tandem_("doctor", "--json", status=1))["problems"]
    assert "is damaged" in problem
    assert "tandem profile calibrate makes it anew" in problem


@pytest.mark.slow
def test_mistakes_are_one_line_each(tandem_: Shell, home: Path) -> None:
    for arguments, words in (
        (("show", "nothing"), "no profile of 'nothing'; allowed: none yet on this machine"),
        (("--cpus", 999, "--", "true"), "--cpus 999; allowed: 1 to "),
        (("--most", "nan", "--", "true"), "nan is not a finite number"),
        (("--most", "inf", "--", "true"), "5<=x<=3600"),
        (("shwo",), "'shwo', which is no programme; allowed: a programme on the PATH"),
        (("shwo",), "did you mean 'show'?"),
        (("--", "./absent"), "'./absent', which is no programme"),
        (("--rate", "", "--", "true"), "'' (it matches where nothing is); allowed: Python's"),
        (("--rate", r"(\d+)/(\d+)", "--", "true"), "(it has 2 groups)"),
    ):
        done = tandem_.run("profile", *arguments)
        assert done.returncode == 2
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
    other = home / "profiles" / "elsewhere-1c"
    other.mkdir(parents=True)
    (other / "nothing.json").write_text("{}")
    done = tandem_.run("profile", "show", "nothing")
    assert "'nothing' was profiled on elsewhere-1c; this machine is " in done.stderr


def kept(home: Path, key: str, *argv: str, rate: float = 10.0) -> Profile:
    """An application with a profile as if it had been made here."""
    phase = PhaseProfile("", 1.0, rate, 0.02, 1.0)
    return store.save(home, Profile(key, argv, discover().fingerprint, 1, 0.0, 20.0, 0, (phase,)))


@pytest.mark.slow
def test_again_looks_all_names_up_before_it_measures_any(tandem_: Shell, tmp_path: Path, home: Path) -> None:
    calibrate_three_kinds(home)
    kept(home, "marks", sys.executable, "-c", f"open({str(tmp_path / 'mark')!r}, 'w').close()")
    done = tandem_.run("profile", "again", "marks", "foo")
    assert done.returncode == 2
    assert "no profile of 'foo'; allowed: marks" in done.stderr
    assert not (tmp_path / "mark").exists()


def test_again_tells_the_daemon_of_what_was_made_even_if_a_later_one_fails(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    """The measuring is played: what counts is who is told when."""
    old = {key: kept(home, key, "true") for key in ("good", "bad")}
    told: list[str] = []
    limits: set[float] = set()

    def measured(argv: object, name: str, rate: object, place: object, most: float, tell: object) -> Profile:
        del argv, rate, place, tell
        limits.add(most)
        if name == "bad":
            raise ConfigError(given="bad", allowed="good", todo="be good")
        told.append(f"measured {name}")
        return old[name]

    monkeypatch.setattr(command, "_measured", measured)
    monkeypatch.setattr(command, "_tell_daemon", lambda: told.append("daemon"))
    done = CliRunner().invoke(command.profile, ["--most", "20", "again", "good", "bad"])
    assert isinstance(done.exception, ConfigError)
    assert told == ["measured good", "daemon"]
    assert limits == {20.0}


@pytest.mark.slow
def test_a_revision_that_contradicts_the_last_one_is_said_when_it_is_kept_and_shown(
    tandem_: Shell, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = kept(home, "cg", "true")
    done = tandem_.run("profile", "show", "cg", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    calibrate_three_kinds(home)
    faster = replace(old, phases=(replace(old.phases[0], rate=20.0),))
    monkeypatch.setattr(measure, "measure", lambda *args, **more: faster)
    command._measured(["true"], "cg", None, (1, None), 55.0, lambda line: None)
    words = "cg: revision 2 contradicts revision 1: alone 10 -> 20 steps/s"
    assert words in capsys.readouterr().err
    for arguments in (("cg", "--out", home / "cg.html"), ("cg", "--json")):
        done = tandem_.run("profile", "show", *arguments)
        assert done.returncode == 0
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
    assert "contradictory" in tandem_("profile", "show")
    assert words in tandem_.run("estimate", "cg").stderr
    (told,) = json.loads(tandem_("estimate", "cg", "--json"))["applications"]
    assert told["hint"].startswith("revision 2 contradicts revision 1: alone 10 -> 20 steps/s")
    assert "Cg: revision 2 contradicts revision 1" in (home / "cg.html").read_text()


def test_a_measurement_that_is_stopped_says_what_holds(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "measure", stopped)
    monkeypatch.setattr(keeping, "calibrate", stopped)
    holding = {}
    for made in (False, True):
        if made:
            kept(home, "cg", "true")
            calibrate_three_kinds(home)
        for arguments in (["--name", "cg", "--", "true"], ["calibrate"]):
            done = CliRunner().invoke(tandem, ["profile", *arguments])
            assert done.exit_code == 130
            holding[arguments[0], made] = done.stderr.splitlines()[-1]
    assert holding == {
        ("--name", False): "stopped: nothing was kept",
        ("calibrate", False): "stopped: nothing was kept",
        ("--name", True): "stopped: nothing was kept, and revision 1 of cg holds",
        ("calibrate", True): "stopped: nothing was kept, and the earlier calibration holds",
    }


def test_a_first_calibration_that_was_kept_before_the_measurement_is_stopped_is_said(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "measure", stopped)
    monkeypatch.setattr(keeping, "calibrate", lambda **_: calibration_made())
    done = CliRunner().invoke(tandem, ["profile", "--name", "cg", "--", "true"])
    assert done.exit_code == 130
    assert done.stderr.splitlines()[-1] == "stopped: the calibration of this machine's bubbles was kept, and no more"
    assert load(home / "bubbles") == calibration_made()


@pytest.mark.parametrize("arguments", [["--name", "cg", "--", "true"], ["calibrate"]])
def test_where_nothing_can_be_kept_nothing_is_measured(
    home: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    calibrate_three_kinds(home)
    for what, name in ((measure, "measure"), (keeping, "calibrate")):
        monkeypatch.setattr(what, name, lambda *_, **__: pytest.fail("measured"))
    monkeypatch.setattr(durable, "room", full)
    monkeypatch.setattr(keeping, "room", full)
    error = CliRunner().invoke(command.profile, arguments).exception
    assert isinstance(error, TandemError)
    assert "(No space left on device)" in error.given
    assert error.todo.startswith("make room")


@pytest.mark.parametrize("left", ["gone", "a file"])
def test_again_where_the_folder_is_gone_names_it_and_says_what_to_do(home: Path, tmp_path: Path, left: str) -> None:
    if left == "a file":
        (tmp_path / left).touch()
    store.save(home, replace(kept(home, "cg", "true"), cwd=str(tmp_path / left)))
    error = CliRunner().invoke(command.profile, ["again", "cg"]).exception
    assert isinstance(error, ConfigError)
    assert error.given == f"cg, which was profiled in {tmp_path / left}: no folder that can be entered"
    assert "tandem profile --name cg -- COMMAND..." in error.todo


def calibration_made(made: float = 1e9, waited: float = 0.0) -> Calibration:
    response = Response((0.0, 1.0), (1.0, 2.0), 0.02, waited=waited)
    return Calibration(discover().fingerprint, (0, 1), {"cpu": response, "net": response}, {}, made, 1.0)


@pytest.mark.slow
def test_a_calibration_of_a_busy_machine_is_said_with_every_profile_until_it_is_made_anew(
    tandem_: Shell, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "calibrated while others had the cores for up to 34% of the time (cpu, net)"
    kept(home, "cg", "true")
    save(calibration_made(waited=0.34), home / "bubbles")
    for arguments in ((), ("--json",)):
        done = tandem_.run("profile", "show", *arguments)
        assert done.returncode == 0
        assert words in done.stderr
        assert "tandem profile calibrate when the machine is quiet" in done.stderr
    short = "bubbles (2 kinds) were calibrated on a busy machine: tandem profile show tells more\n"
    assert tandem_.run("profile", "show", "cg", "--out", home / "cg.html").stderr == short
    monkeypatch.setattr(keeping, "calibrate", lambda **_: calibration_made(2e9))
    assert CliRunner().invoke(command.profile, ["calibrate"]).exit_code == 0
    assert tandem_.run("profile", "show").stderr == ""


def test_calibrating_anew_prints_the_table_and_names_the_profiles_of_the_older_calibration(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two kinds at one level: all of it takes half a minute."""
    monkeypatch.setattr(calibrating, "KINDS", ("cpu", "fs_write"))
    monkeypatch.setattr(calibrating, "LEVELS", (0.0, 1.0))
    first = CliRunner().invoke(command.profile, ["calibrate"], catch_exceptions=False)
    assert "raw dial at 1/4 1/2 3/4" in first.stdout
    assert [line.split()[0] for line in first.stdout.splitlines()[2:]] == ["cpu", "fs_write"]
    made = load(home / "bubbles")
    old = kept(home, "old one", "true")
    store.save(home, replace(old, reporter_excess=made.reporter_excess, calibrated=made.made))
    kept(home, "cg", "true")
    again = CliRunner().invoke(command.profile, ["calibrate"], catch_exceptions=False)
    assert again.stdout.splitlines()[-2:] == [
        "profiled with an older calibration, whose units their levels are in: old one",
        "measure them anew: tandem profile again 'old one'",
    ]
    told = json.loads(CliRunner().invoke(command.profile, ["--json", "calibrate"], catch_exceptions=False).stdout)
    assert told["outdated"] == ["old one"]
    assert set(told["responses"]) == {"cpu", "fs_write"}
    assert told["warning"] == load(home / "bubbles").warning
    assert load(home / "bubbles").made > made.made


def test_calibrate_takes_no_command_and_no_gpu_that_is_not_there(home: Path) -> None:
    wrong = CliRunner().invoke(command.profile, ["calibrate", "true"])
    assert wrong.exit_code == 2
    none = CliRunner().invoke(command.profile, ["--gpu", "99", "calibrate"])
    assert isinstance(none.exception, TandemError)
    assert not (home / "bubbles").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--name", "q", "--cpus", "2", "show"], "--name says nothing to show"),
        (["--rate", "x", "calibrate", "--help"], "--rate says nothing to calibrate"),
        (["--most", "20", "calibrate"], "--most says nothing to calibrate"),
        (["--gpu", "0", "again"], "--gpu says nothing to again"),
        (["--name", "", "--", "true"], "a name has at least one character"),
    ],
)
def test_options_that_say_nothing_are_refused(home: Path, arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(command.profile, arguments)
    assert done.exit_code == 2
    assert words in done.output
    assert not home.exists()


def test_without_a_daemon_names_are_asked_for() -> None:
    error = CliRunner().invoke(command.profile, ["again"]).exception
    assert isinstance(error, DaemonError)
    assert "only a daemon sees which applications have drifted" in str(error)
    assert "tandem profile again NAME..." in error.todo


def test_a_page_is_not_written_into_a_folder_that_is_not_there(home: Path, tmp_path: Path) -> None:
    kept(home, "cg", "true")
    error = CliRunner().invoke(command.profile, ["show", "cg", "--out", str(tmp_path / "none" / "cg.html")]).exception
    assert isinstance(error, ConfigError)
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_an_error_in_json_is_the_only_thing_said(tandem_: Shell, home: Path) -> None:
    here, busy = discover(), Response((0.0, 1.0), (1.0, 2.0), 0.02, waited=0.9)
    save(
        Calibration(here.fingerprint, tuple(core.index for core in here.cores), {"cpu": busy}, {}, 1e9, 1.0),
        home / "bubbles",
    )
    assert "calibrated while others had the cores" in tandem_.run("profile", "show").stderr
    done = tandem_.run("profile", "--json", "show", "nosuch")
    assert done.returncode == 2
    assert json.loads(done.stdout + done.stderr)["error"]["error"] == "ProfileError"


@pytest.mark.slow
@pytest.mark.parametrize("pair", [("a:b", "a?b"), ("x" * 90 + "1", "x" * 90 + "2"), ("ä/ö", "ä_ö")])
def test_pictures_of_different_applications_lie_in_different_files(home: Path, pair: tuple[str, str]) -> None:
    for name in pair:
        kept(home, name, "true")
        assert CliRunner().invoke(command.profile, ["show", name]).exit_code == 0
    pages = [page.read_text() for page in (home / "profiles" / discover().fingerprint / "pictures").glob("*.html")]
    assert len(pages) == 2
    assert all(any(f"Profile of {name}" in page for page in pages) for name in pair)


@pytest.mark.slow
def test_a_profile_of_an_older_calibration_is_marked_in_the_list_when_shown_and_by_estimates(
    tandem_: Shell, home: Path
) -> None:
    save(calibration_made(2e9), home / "bubbles")
    old = replace(kept(home, "cg", "true"), reporter_excess={"cpu": 1.0, "net": 1.0}, calibrated=1e9)
    store.save(home, old)
    assert "older calibration" in tandem_("profile", "show")
    words = "bubbles have been calibrated since it was profiled"
    done = tandem_.run("profile", "show", "cg", "--out", home / "cg.html")
    assert words in done.stderr
    assert words in (home / "cg.html").read_text()
    assert words in json.loads(tandem_("profile", "show", "cg", "--json"))[-1]["older_calibration"]
    assert json.loads(tandem_("estimate", "cg", "--json"))["applications"][0]["hint"].startswith(
        f"the machine's {words}"
    )
    store.save(home, replace(old, calibrated=2e9))
    assert "older calibration" not in tandem_("profile", "show")


STEPS = """
import json, os, sys, time
with open(os.environ["TANDEM_RUN_DIR"] + "/events.jsonl", "a") as out:
    for step in range(25):
        print(json.dumps({"t": time.time(), "step": step}), file=out, flush=True)
        time.sleep(0.05)
"""
"""Twenty steps a second at most, in a job of more than a second."""


@pytest.mark.slow
def test_an_application_that_has_drifted_is_said_with_what_to_do_and_its_profile_is_set_aside(
    tandem_: Shell, home: Path
) -> None:
    old = kept(home, "pace", sys.executable, "-c", STEPS, rate=100.0)
    for _ in range(5):  # one after the other: alone
        tandem_("submit", "--wait", "--name", "pace", "--", sys.executable, "-S", "-E", "-c", STEPS)
    words = f"slower alone than when it was profiled (revision {old.revision})"
    todo = "profile it again: tandem profile again pace"
    listed = tandem_("profile", "show")
    assert "drifted" in listed
    assert "profile     set aside: pace goes" in tandem_("show", 1)
    assert words in json.loads(tandem_("show", 1, "--json"))["drift"]
    shown = tandem_.run("profile", "show", "pace", "--out", home / "pace.html")
    assert words in shown.stderr
    assert todo in shown.stderr
    assert words in (home / "pace.html").read_text()
    assert words in json.loads(tandem_("profile", "show", "pace", "--json"))[-1]["drift"]
    (told,) = json.loads(tandem_("estimate", "pace", "--json"))["applications"]
    assert told["hint"].startswith("its profile is set aside: pace goes ")
    assert todo in tandem_.run("estimate", "pace").stderr
    store.save(home, replace(old, made=1e9))
    assert json.loads(tandem_("profile", "show", "pace", "--json"))[-1]["drift"] == "", "it is of the old revision"
    assert json.loads(tandem_("estimate", "pace", "--json"))["applications"][0]["hint"] is None
    assert "set aside" in tandem_("show", 5), "the daemon has not been told of another revision"


def test_without_profiles_it_says_how_to_make_one(tandem_: Shell) -> None:
    assert "tandem profile -- COMMAND..." in tandem_("profile", "show")
