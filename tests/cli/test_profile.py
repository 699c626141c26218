"""`tandem profile`: a real small programme, measured, kept, shown; and what is said where it cannot be."""

import json
import sys
from pathlib import Path

import pytest

from tandem.core.machine import discover
from tandem.estimate.bubbles import Calibration, Response, save
from tests.cli.conftest import Shell

SPIN = "for _ in range(2_000_000): pass"


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
    told = json.loads(tandem_("profile", "--json", "--most", 8, "--name", "spin", "--", sys.executable, "-c", SPIN))
    assert (told["key"], told["revision"], told["cpus"]) == ("spin", 1, 1)
    (phase,) = told["phases"]
    assert phase["phase"] == ""
    assert 0.1 < phase["cpu_use"] < 1.3
    assert 1 < phase["rate"] < 100
    assert phase["sensitivity"]["cpu"]["slowdowns"][-1] > 1.3
    assert "Profiles" in tandem_("profile", "show")
    shown = tandem_("profile", "show", "spin", "--out", tmp_path / "spin.html")
    assert "cpu (its own cores)" in shown
    assert "slowed by " in shown
    assert (tmp_path / "spin.html").stat().st_size > 100_000
    assert [one["revision"] for one in json.loads(tandem_("profile", "show", "spin", "--json"))] == [1]


@pytest.mark.slow
def test_mistakes_are_one_line_each(tandem_: Shell, home: Path) -> None:
    for arguments, words in (
        (("show", "nothing"), "no profile of 'nothing'; allowed: none yet on this machine"),
        (("--cpus", 999, "--", "true"), "--cpus 999; allowed: 1 to "),
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


def test_without_profiles_it_says_how_to_make_one(tandem_: Shell) -> None:
    assert "tandem profile -- COMMAND..." in tandem_("profile", "show")
