"""Jobs from end to end: the command as a user types it, a real daemon, real processes."""

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tandem.core.process import locks
from tests import disks
from tests.cli.conftest import Shell
from tests.conftest import requires
from tests.waiting import until

pytestmark = pytest.mark.slow

CORE = str(min(os.sched_getaffinity(0)))
HERE = ["--cores", CORE, "--machine", "membw=off"]  # measuring the bandwidth takes a second


@pytest.fixture
def tandem(tandem_: Shell) -> Shell:
    """The command with a daemon that has one core to give out."""
    tandem_("up", *HERE)
    return tandem_


def blocked_by(gate: Path) -> list[str]:
    """A command that ends when the file is there."""
    return ["--", "sh", "-c", f"while [ ! -e {gate} ]; do sleep 0.02; done"]


def state(tandem: Shell, job: object) -> str:
    found: str = json.loads(tandem("show", job, "--json"))["state"]
    return found


def test_a_job_from_submission_to_the_ledger(tandem: Shell, tmp_path: Path) -> None:
    told = tandem(
        "submit", "--expected", "5s", "--name", "hello", "--env", "WHO=world", "--", "sh", "-c", "echo hello $WHO"
    )
    assert told.startswith("job 1: quoted start ")
    assert "90 %)" in told
    assert tandem("wait", "1").startswith("job 1: done after ")
    assert tandem("logs", "1") == "hello world\n"
    shown = tandem("show", "1")
    assert shown.startswith("job 1  hello  done\n")
    for words in (
        "sh -c 'echo hello $WHO'",
        "WHO=world",
        "1 core; expected 5s",
        f"cores {CORE}"[:4],
        "at submit",
        "at start",
    ):
        assert words in shown
    assert tandem("history").splitlines()[2].split()[:2] == ["1", "hello"]
    assert json.loads(tandem("history", "--app", "other", "--json")) == []
    assert json.loads(tandem("history", "--app", "hello", "--json"))[0]["state"] == "done"
    lines = json.loads(tandem("promises", "--json"))["lines"]
    assert [(line["moment"], line["quotes"], line["kept"] + line["late"] + line["early"]) for line in lines] == [
        ("submit", 1, 1.0),
        ("start", 1, 1.0),
    ]
    tandem("submit", "-q", "--wait", "--", "true")  # of which nothing is known
    lines = json.loads(tandem("promises", "--json"))["lines"]
    assert [(line["moment"], line["quotes"], line["unfounded"]) for line in lines] == [
        ("submit", 1, 1),
        ("start", 1, 1),
    ]
    assert f"report: {tmp_path / 'r' / 'report.html'}" in tandem("promises", "--report", tmp_path / "r")
    assert "At submission" in (tmp_path / "r" / "report.html").read_text()


def test_submit_without_dashes_quietly_and_in_json(tandem: Shell, tmp_path: Path) -> None:
    assert tandem("submit", "-q", "sh", "-c", "exit 0") == "1\n"
    told = json.loads(
        tandem(
            "submit", "--json", "--wait", "-o", "out-%j", "--", "sh", "-c", "echo out; echo err >&2; exit 4", status=1
        )
    )
    assert told["ids"] == [2]
    assert (told["ends"][0]["state"], told["ends"][0]["exit_code"]) == ("failed", 4)
    assert (tmp_path / "out-2").read_text() == "out\nerr\n"


def test_logs_follow_to_the_end_of_the_job(tandem: Shell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    program = f"echo before; while [ ! -e {gate} ]; do sleep 0.02; done; echo after; echo wrong >&2"
    tandem("submit", "-q", "--", "sh", "-c", program)
    following = tandem.start("logs", "-f", "1")
    assert following.stdout is not None
    assert following.stdout.readline() == "before\n"
    gate.touch()
    rest, err = following.communicate(timeout=30)
    assert (rest, err, following.returncode) == ("after\n", "", 0)
    assert tandem("logs", "--err", "1") == "wrong\n"
    assert tandem("logs", "-n", "1", "1") == "after\n"
    assert tandem("logs", "-n", "0", "1") == ""
    assert tandem("logs", "-n", "9", "1") == "before\nafter\n"


def test_ctrl_c_leaves_the_job_alone(tandem: Shell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    tandem("submit", "-q", "--", "sh", "-c", f"echo here; while [ ! -e {gate} ]; do sleep 0.02; done")
    following = tandem.start("logs", "-f", "1")
    assert following.stdout is not None
    following.stdout.readline()
    following.send_signal(signal.SIGINT)
    _, err = following.communicate(timeout=30)
    assert following.returncode == 130
    assert "Traceback" not in err
    assert state(tandem, 1) == "running"
    gate.touch()
    tandem("wait", "1")


def test_why_it_waits_hold_release_and_cancel(tandem: Shell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    tandem("submit", "-q", "--name", "first", *blocked_by(gate))
    tandem("submit", "-q", "--name", "second", "--", "true")
    tandem("submit", "-q", "--name", "third", "--after", "2:any", "--", "true")
    assert "not enough free cores on any node" in tandem("show", "2")
    assert "waits       it waits for job 2 to end" in tandem("show", "3")
    table = tandem("queue").splitlines()
    assert table[0] == "1 running, 2 waiting; 0 of 1 cores free"
    assert [line.split()[1] for line in table[3:]] == ["first", "second", "third"]
    assert "has printed nothing yet" in tandem.run("logs", "2").stderr

    assert all(job["promise"] for job in json.loads(tandem("queue", "--json")))
    assert tandem("hold", "2") == "job 2: held\n"
    assert "`tandem release` lets it go" in tandem("show", "2")
    assert [job["promise"] for job in json.loads(tandem("queue", "--json"))][1:] == [None, None]
    assert ": taken back by a hold" in tandem("show", "2")
    assert json.loads(tandem("show", "3", "--json"))["promise"] is None
    refused = tandem.run("hold", "1")
    assert (refused.returncode, refused.stderr.split(";")[0]) == (2, "tandem: job 1 is running, it cannot be held")
    gate.touch()
    tandem("wait", "1")
    assert state(tandem, 2) == "held"
    assert tandem("release", "2") == "job 2: released\n"
    assert tandem("wait", "2", "3").count(": done") == 2
    promises = json.loads(tandem("show", "3", "--json"))["promises"]
    assert [(one["moment"], one["taken_back"]) for one in promises] == [
        ("submit", True),
        ("submit", False),
        ("start", False),
    ]

    tandem("submit", "-q", "--grace", "5s", *blocked_by(tmp_path / "never"))
    until(lambda: state(tandem, 4) == "running")
    assert tandem("cancel", "4") == "job 4 is being stopped (killed after 5s)\n"
    assert "job 4: cancelled" in tandem("wait", "4", status=1)
    assert "job 4 has ended" in tandem.run("cancel", "4").stderr

    tandem("submit", "-q", "--hold", "--", "true")
    mixed = tandem.run("cancel", "1", "5")
    assert (mixed.returncode, mixed.stdout) == (2, "job 5: cancelled\n")
    assert "job 1 has ended" in mixed.stderr
    assert "job 5: cancelled" in tandem("wait", "5", status=1)

    tandem("submit", "-q", "--hold", "--", "true")
    follower = tandem("submit", "--after", "6", "--", "true")
    assert follower == "job 7: queued, without a quote: `tandem show 7` says why\n"
    assert "it waits for job 6, which is held" in tandem("show", "7")


def test_of_an_array_those_that_wait_are_held_and_those_that_are_held_released(tandem: Shell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    tandem("submit", "-q", "--array", "0-3", *blocked_by(gate))
    until(lambda: state(tandem, 1) == "running")
    assert tandem("hold", "1_2") == "job 1_2: held\n"
    assert tandem("hold", "1") == "2 jobs held; left as they are: 1 running, 1 held\n"
    refused = tandem.run("hold", "1")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "job 1_0 (id 1) is running, it cannot be held" in refused.stderr
    mixed = tandem.run("release", "1_0", "1_1", "1_2")
    assert (mixed.returncode, mixed.stdout) == (2, "2 jobs released\n")
    assert "job 1_0 (id 1) is running, it cannot be released" in mixed.stderr
    released = json.loads(tandem("release", "1", "--json"))
    assert released == {"jobs": [4], "left": {"running": 1, "queued": 2}}
    tandem("hold", "1_3")
    assert tandem("release", "1") == "job 1_3: released; left as they are: 1 running, 2 queued\n"
    gate.touch()
    assert tandem("wait", "1").count(": done") == 4


def test_an_array_that_has_ended_is_refused_as_a_job_is(tandem: Shell) -> None:
    tandem("submit", "-q", "--array", "0-1", "--", "true")
    tandem("wait", "1")
    tandem("submit", "-q", "--hold", "--", "true")
    for change in ("hold", "release", "cancel"):
        refused = tandem.run(change, "1")
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "job 1_0 (id 1) has ended" in refused.stderr
    mixed = tandem.run("cancel", "1", "3")
    assert (mixed.returncode, mixed.stdout) == (2, "job 3: cancelled\n")
    assert "job 1_0 (id 1) has ended" in mixed.stderr


def test_an_array_is_shown_chosen_and_cancelled_by_element_or_whole(tandem: Shell) -> None:
    told = tandem("submit", "--array", "0-2,7", "--hold", "--", "sh", "-c", "echo $TANDEM_ARRAY_INDEX")
    assert told.startswith("array 1, 4 jobs: ")
    assert "1_[0-2,7]" in tandem("queue")
    assert tandem("show", "1_7").startswith("job 1_7  ")
    assert tandem("cancel", "1_2") == "job 1_2: cancelled\n"
    assert tandem("release", "1") == "3 jobs released\n"
    ends = tandem("wait", "1", status=1)
    assert sorted(line.split(":")[0] for line in ends.splitlines()) == ["job 1_0", "job 1_1", "job 1_2", "job 1_7"]
    assert tandem("logs", "1_7") == "7\n"
    tandem("submit", "-q", "--hold", "--", "true")
    assert "job 5_3, and job 5 is no array; allowed: 5 alone" in tandem.run("cancel", "5_3").stderr
    tandem("cancel", "5")
    unknown = tandem.run("show", "1_5")
    assert (unknown.returncode, "the indices of array 1: 0-2,7" in unknown.stderr) == (2, True)
    tandem("submit", "-q", "--after", "1:any", "--", "true")
    assert [after["job"] for after in json.loads(tandem("show", "6", "--json"))["after"]] in ([], [1, 2, 3, 4])
    tandem("wait", "6")


def test_wait_for_any_and_not_for_ever(tandem: Shell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    tandem("submit", "-q", "--", "true")
    tandem("submit", "-q", *blocked_by(gate))
    assert tandem("wait", "--any", "1", "2").startswith("job 1: done")
    late = tandem.run("wait", "--timeout", "0.2s", "1", "2")
    assert late.returncode == 1
    assert late.stdout.startswith("job 1: done")
    assert late.stderr == "tandem: the time is over; not ended: 2\n"
    told = json.loads(tandem("wait", "--timeout", "0.1s", "--json", "2", status=1))
    assert told == {"ends": [], "waiting": [2]}
    gate.touch()
    tandem("wait", "1", "2")


def test_a_binary_that_does_not_exist_fails_with_the_reason(tandem: Shell, tmp_path: Path) -> None:
    submitted = tandem.run("submit", "-q", "--", "/no/such/programme")
    assert (submitted.returncode, submitted.stdout) == (0, "1\n")
    assert submitted.stderr.startswith("tandem: warning: there is no programme '/no/such/programme'; ")
    ends = tandem("wait", "1", status=1)
    assert ends.startswith("job 1: failed")
    assert "/no/such/programme" in ends
    for args in (["1"], ["--err", "1"], ["-f", "1"]):
        done = tandem.run("logs", *args)
        assert (done.returncode, done.stdout) == (0, "")
        assert "job 1 has printed nothing: failed (exit status 127): cannot execute '/no/such/programme'" in done.stderr

    told = json.loads(tandem("submit", "--json", "--cwd", tmp_path / "later", "--hold", "--", "true"))
    assert told["warnings"] == [
        f"the folder {tmp_path / 'later'} does not exist; the job fails unless that has changed when it starts"
    ]
    (tmp_path / "later").mkdir()
    tandem("release", "2")
    assert tandem("wait", "2").startswith("job 2: done")  # somebody made it meanwhile
    assert json.loads(tandem("submit", "--json", "--hold", "--", "true"))["warnings"] == []

    refused = tandem.run("submit", "-o", tmp_path / "none" / "out", "--", "true")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"the folder {tmp_path / 'none'} does not exist" in refused.stderr
    tandem("submit", "-q", "-o", tmp_path / "%j" / "out", "--", "true")
    ends = tandem("wait", "4", status=1)
    assert f"cannot open the output '{tmp_path}/4/out': No such file or directory" in ends


def test_how_each_attempt_ended_is_shown(tandem: Shell, tmp_path: Path) -> None:
    first = f"if [ -e {tmp_path}/second ]; then exec sleep 60; fi; if [ -e {tmp_path}/first ]; then "
    script = f"{first} touch {tmp_path}/second; exit 3; fi; touch {tmp_path}/first; kill -9 $$"
    tandem("submit", "--retries", "5", "--time", "0.3s", "--wait", "--", "sh", "-c", script, status=1)
    ends = ["killed by signal 9", "exit status 3", "its time limit of 0.3 s is over"]
    told = json.loads(tandem("show", "1", "--json"))["attempts"]
    assert [one["attempt"] for one in told] == [1, 2, 3]
    assert [one["reason"] for one in told] == ends
    assert [(one["exit_code"], one["signal"]) for one in told[:2]] == [(0, 9), (3, 0)]
    moments = [one[name] for one in told for name in ("started_at", "ended_at")]
    assert moments == sorted(moments)
    shown = re.findall(r"^ +(?:attempts )? +(\d): (.*), [\d:]+$", tandem("show", "1"), re.MULTILINE)
    assert shown == [(str(one["attempt"]), one["reason"]) for one in told]
    tandem("down")  # a daemon that starts again still knows
    assert json.loads(tandem("show", "1", "--json"))["attempts"] == told
    tandem("submit", "--wait", "--", "true")
    assert "attempts" not in tandem("show", "2")


def test_a_demand_that_nothing_is_known_of_is_taken_with_a_warning(tandem: Shell) -> None:
    said = "--nic is not checked: no node says how much network bandwidth it has"
    done = tandem.run("submit", "-q", "--hold", "--nic", "900GB/s", "--", "true")
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", f"tandem: warning: {said}\n")
    told = json.loads(tandem("submit", "--hold", "--nic", "900GB/s", "--json", "--", "true"))
    assert told["warnings"] == [said]
    assert "`--nic` asks for is not checked here" in tandem("doctor")
    assert tandem.run("submit", "--hold", "--", "true").stderr == ""


def test_logs_say_where_the_output_went(tandem: Shell) -> None:
    tandem("submit", "-q", "--wait", "--", "sh", "-c", "echo trouble >&2")
    done = tandem.run("logs", "1")
    assert (done.stdout, done.stderr) == ("", "tandem: job 1 has printed nothing here; see `tandem logs --err 1`\n")
    tandem("submit", "-q", "--wait", "--", "true")
    assert tandem.run("logs", "2").stderr == ""


def test_an_array_is_printed_element_by_element(tandem: Shell) -> None:
    tandem("submit", "-q", "--wait", "--array", "3,7%1", "--", "sh", "-c", "printf $TANDEM_ARRAY_INDEX; echo e >&2")
    assert tandem("logs", "1") == "==> 1_3 (done) <==\n3\n==> 1_7 (done) <==\n7\n"
    assert tandem("logs", "1_7") == "7"
    assert tandem("logs", "--err", "-n", "1", "1") == "==> 1_3 (done) <==\ne\n==> 1_7 (done) <==\ne\n"
    assert [one["id"] for one in json.loads(tandem("logs", "--json", "1"))] == [1, 2]
    refused = tandem.run("logs", "-f", "1")
    assert refused.returncode == 2
    assert "allowed: one of them: 1_3, 1_7; as in `tandem logs -f 1_3`" in refused.stderr
    assert tandem("show", "1").startswith("array 1: indices 3,7: 2 done; this is 1_3, see also 1_7\njob 1_3  ")
    assert tandem("show", "2").startswith("array 1: indices 3,7: 2 done; this is 1_7, see also 1_3\njob 1_7  ")
    tandem("submit", "-q", "--wait", "--array", "5", "--", "true")
    assert tandem("show", "3").startswith("array 3: indices 5: 1 done; this is 3_5\njob 3_5  ")
    assert "array       1, of which at most 1 run at a time\n" in tandem("show", "1_7")
    assert "after " not in tandem("show", "1_7")


def test_dependencies_on_elements_and_throttles_are_named_as_users_name_them(tandem: Shell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    tandem("submit", "-q", "--array", "0-2%1", *blocked_by(gate))
    tandem("submit", "-q", "--after", "1_0,1_2:any", "--", "true")
    why = {view["id"]: view["why"] for view in json.loads(tandem("queue", "--json"))}
    assert why[2] == "its array runs at most 1 at a time"
    assert why[4] == "it waits for jobs 1_0, 1_2 to end"
    assert "after       1_0, 1_2 (any end)\n" in tandem("show", "4")
    late = tandem.run("wait", "--timeout", "0", "1", "4")
    assert (late.returncode, late.stderr) == (1, "tandem: the time is over; not ended: 1_0, 1_1, 1_2, 4\n")
    gate.touch()
    tandem("wait", "1", "4")


def test_no_time_to_wait_is_enough_for_what_has_ended(tandem: Shell, tmp_path: Path) -> None:
    tandem("submit", "-q", "--wait", "--", "true")
    tandem("submit", "-q", *blocked_by(tmp_path / "never"))
    assert tandem("wait", "--timeout", "0", "1").startswith("job 1: done")
    assert tandem("wait", "--any", "--timeout", "0", "2", "1").startswith("job 1: done")
    both = tandem.run("wait", "--timeout", "0", "2", "1")
    assert (both.returncode, both.stdout.split(":")[0]) == (1, "job 1")
    assert both.stderr == "tandem: the time is over; not ended: 2\n"


def test_a_dependency_on_what_has_failed_is_refused_at_once(tandem: Shell) -> None:
    tandem("submit", "-q", "--wait", "--array", "0,5", "--", "false", status=1)
    refused = tandem.run("submit", "--after", "1_5", "--", "true")
    assert refused.returncode == 2
    assert "the success of job 1_5, which ended as failed; allowed: jobs that ended well" in refused.stderr
    assert tandem("submit", "-q", "--after", "1:any", "--wait", "--", "true") == "3\n"


def test_promises_and_why_are_in_json(tandem: Shell, tmp_path: Path) -> None:
    tandem("submit", "-q", "--expected", "5s", "--", "true")
    tandem("wait", "1")
    tandem("submit", "-q", "--expected", "5s", *blocked_by(tmp_path / "never"))
    tandem("submit", "-q", "--class", "harvest", "--expected", "5s", "--", "true")
    waiting = next(view for view in json.loads(tandem("queue", "--json")) if view["id"] == 3)
    assert (waiting["class"], waiting["why"]) == ("harvest", "not enough free cores on any node")
    for view in (waiting, json.loads(tandem("show", "3", "--json"))):
        promise = view["promise"]
        assert (promise["moment"], promise["policy"], bool(promise["basis"])) == ("submit", "hybrid", True)
        for what in ("start", "finish"):
            assert promise[f"{what}_low"] <= promise[f"{what}_mid"] <= promise[f"{what}_high"]
    lines = json.loads(tandem("promises", "--json"))["lines"]
    assert {(line["policy"], line["klass"]) for line in lines} == {("hybrid", "primary")}
    shown = tandem("show", "3")
    assert ", under hybrid\n              rests on " in shown
    tandem("down")
    tandem("up", "--policy", "share")
    tandem("submit", "-q", "--hold", "--", "true")
    promise = json.loads(tandem("show", "3", "--json"))["promises"][0]
    assert promise["policy"] == "hybrid"  # it was made under it


def test_columns_of_the_queue_and_long_names_in_history(tandem: Shell) -> None:
    tandem("submit", "-q", "--wait", "--name", "n" * 200, "--", "true")
    assert max(map(len, tandem("history").splitlines())) < 120
    tandem("submit", "-q", "--hold", "--name", "h", "--", "true")
    head, _, line = tandem("queue", "-o", "name, id").splitlines()[1:]
    assert (head.split(), line.split()) == (["NAME", "ID"], ["h", "2"])


def test_quotes_of_different_shell_commands_do_not_share_a_history(tandem: Shell) -> None:
    for text in ("sleep 0.1", "sleep 0.1", "sleep 0.2"):
        tandem("submit", "-q", "--wait", "--", "sh", "-c", text)
    basis = [json.loads(tandem("show", n, "--json"))["promises"][0]["basis"] for n in (1, 2, 3)]
    assert basis[0] == basis[2] != basis[1]
    assert [view["app"] for view in json.loads(tandem("history", "--json"))] == [
        "sh -c 'sleep 0.2'",
        *["sh -c 'sleep 0.1'"] * 2,
    ]


def test_an_export_that_cannot_be_written_names_the_path(tandem: Shell, tmp_path: Path) -> None:
    log = tmp_path / "no" / "day"
    refused = tandem.run("replay", "--export", log)
    said = f"tandem: --export {log}: No such file or directory; allowed: a file that can be written; make room, or name"
    assert (refused.returncode, refused.stderr) == (2, f"{said} another file\n")


def test_a_job_that_failed_where_no_room_is_left_is_shown_so(tandem: Shell, tmp_path: Path) -> None:
    with disks.small(tmp_path / "small", 4) as small:
        out = ["--output", small / "out", "--error", tmp_path / "err"]
        assert tandem("submit", "--wait", *out, "--", "head", "-c", "8M", "/dev/zero", status=1)
        assert f"\n  disk        that of {small} is full now\n" in tandem("show", "1")
        (small / "out").unlink()
        assert "is full" not in tandem("show", "1")


def test_nobody_is_fooled_by_a_name(tandem: Shell) -> None:
    name = "a\n\x1b[31mred\x1b]0;title\x07'\"\u202e é"
    tandem("submit", "-q", "--name", name, "--hold", "--", "true")
    for text in (tandem("queue"), tandem("show", "1"), tandem("cancel", "1"), tandem("history")):
        assert not any(sign in text for sign in ("\x1b", "\x07", "\u202e"))
    assert "a\\n\\x1b[31mred" in tandem("show", "1")
    assert json.loads(tandem("show", "1", "--json"))["name"] == name


def test_the_day_replays_to_the_same_decisions(tandem: Shell, tmp_path: Path) -> None:
    tandem("submit", "-q", "--array", "0-4", "--", "true")
    tandem("wait", "1")
    assert "every decision is the same" in tandem("replay")
    log = tmp_path / "day.jsonl"
    assert tandem("replay", "--export", log).endswith(f" entries in {log}\n")
    told = json.loads(tandem("replay", log, "--json"))
    assert (told["decisions"], told["differences"]) == (5, [])
    assert tandem("replay", log, "--policy", "exclusive").splitlines()[0].endswith("decisions")

    entries = log.read_text().splitlines()
    setup, *steps = map(json.loads, entries)
    gone = setup | {"setup": setup["setup"] | {"policy": "gone:away"}}
    last = steps[-1]["step"]
    later = [one | {"step": last + place} for place, one in enumerate(steps, 1)]
    two = tmp_path / "two.jsonl"
    two.write_text("".join(f"{json.dumps(one)}\n" for one in (setup, *steps, gone, *later)))
    lines = tandem("replay", two).splitlines()
    assert re.fullmatch(r"the epoch from [\d:]+ is left out, for .* decided again: .*'gone:away'.*", lines[1])
    assert lines[2] == "every other decision is the same"

    changed = next(i for i, entry in enumerate(entries) if '"Start"' in entry)
    entries[changed] = json.dumps(json.loads(entries[changed]) | {"decisions": []})
    log.write_text("\n".join(entries) + "\n")
    other = tandem("replay", log, status=1)
    assert "this version decides otherwise in 1 step" in other
    assert "then: nothing" in other
    log.write_text("\n".join([*entries[:changed], *entries[changed + 1 :]]) + "\n")
    assert f"line {changed + 1} of the log is step " in tandem.run("replay", log).stderr
    log.write_text("nonsense\n")
    assert "line 1: 'nonsense" in tandem.run("replay", log).stderr


def test_decisions_about_a_job_are_shown_with_their_reasons(tandem: Shell) -> None:
    tandem("submit", "-q", "--", "true")
    tandem("wait", "1")
    decided = [line for line in tandem("show", "1", "--decisions").splitlines() if line.startswith("  decided")]
    assert len(decided) == 1
    assert " start: " in decided[0]


def test_up_and_down(tandem_: Shell, tmp_path: Path) -> None:
    assert tandem_("down") == "no daemon runs\n"
    assert tandem_("up", "--policy", "backfill", *HERE).startswith("daemon started: process ")
    again = tandem_("up")
    assert again.startswith("daemon runs already: ")
    assert "policy backfill" in again
    refused = tandem_.run("up", "--policy", "share")
    assert (refused.returncode, "stop it with `tandem down`" in refused.stderr) == (2, True)
    gate = tmp_path / "gate"
    tandem_("submit", "-q", *blocked_by(gate))
    until(lambda: state(tandem_, 1) == "running")
    assert tandem_("down").startswith("daemon stopped; 1 job kept")
    assert json.loads(tandem_("up", "--json"))["policy"] == "backfill"  # settings are kept
    assert state(tandem_, 1) == "running"  # adopted
    assert json.loads(tandem_("down", "--kill", "--json")) == {"stopped": True, "jobs": 0, "cancelled": 1}
    assert tandem_("history").splitlines()[2].split()[-1] == "cancelled"


def test_an_unknown_policy_starts_no_daemon(tandem_: Shell) -> None:
    refused = tandem_.run("up", "--policy", "hybird")
    assert (refused.returncode, "did you mean 'hybrid'?" in refused.stderr) == (2, True)
    assert tandem_("down") == "no daemon runs\n"


REFUSED: list[tuple[list[str], str]] = [
    (["--cores", "4096"], "the daemon did not start: cores = '4096'; allowed: a list such as"),
    (["--machine", "foo=1"], "the daemon did not start: the setting 'foo' of this machine; allowed: cores, mem,"),
    (["--machine", "mem"], "--machine 'mem'; allowed: KEY=VALUE"),
    (["--option", "foo=1"], "the daemon did not start: option 'foo' of the policy hybrid; allowed: quotes"),
    (["--option", "quotes=nan"], "--option quotes=nan; allowed: a number"),
    (["--policy", "las", "--option", "hybrid_window=1"], "las_step_s ("),
]  # fmt: skip


@pytest.mark.parametrize(("args", "words"), REFUSED)
def test_settings_that_do_not_fit_start_no_daemon(tandem_: Shell, args: list[str], words: str) -> None:
    refused = tandem_.run("up", *args, "--machine", "membw=off")
    assert refused.returncode == 2
    assert words in refused.stderr
    assert refused.stderr.count("allowed:") == 1
    assert tandem_("down") == "no daemon runs\n"


def test_settings_for_a_daemon_that_runs_are_named_as_they_were_given(tandem: Shell) -> None:
    refused = tandem.run("up", "--cores", CORE, "--machine", "mem=1G", "--option", "quotes=1")
    assert f"a daemon that runs already, and --option quotes=1 --cores {CORE} --machine mem=1G; " in refused.stderr


def node(tandem: Shell) -> tuple[list[int], int, float]:
    """Cores, memory in MiB, and free cores of the one node."""
    (one,) = json.loads(tandem("nodes", "--json"))
    return one["cores"], one["capacity"]["mem_mib"], one["free"]["cpu_milli"] / 1000


def test_other_settings_are_in_force_at_once_and_adopted_jobs_keep_what_they_hold(
    tandem: Shell, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    core = int(CORE)
    whole = node(tandem)[1]
    tandem("submit", "-q", "--mem", "100M", *blocked_by(gate))
    until(lambda: state(tandem, 1) == "running")
    tandem("submit", "-q", "--mem", "90M", "--", "true")
    tandem("down")
    tandem("up", *HERE, "--machine", "mem=64M")
    assert node(tandem) == ([core], 64, 0)
    assert state(tandem, 1) == "running"
    assert "it asks for 1 core, 90 MiB of memory on one node (at most 64 MiB of memory on a node)" in tandem(
        "show", "2"
    )
    refused = tandem.run("submit", "--mem", "80M", "--", "true")
    assert (refused.returncode, "at most 64 MiB of memory" in refused.stderr) == (2, True)
    gate.touch()
    tandem("wait", "1")
    assert node(tandem) == ([core], 64, 1)
    tandem("down")
    tandem("up", *HERE)
    assert tandem("wait", "2").count(": done") == 1
    assert node(tandem) == ([core], whole, 1)


def test_a_job_that_ends_while_no_daemon_runs_leaves_the_next_one_its_settings(tandem: Shell, tmp_path: Path) -> None:
    gate, over = tmp_path / "gate", tmp_path / "over"
    whole = node(tandem)[1]
    tandem("submit", "-q", "--", "sh", "-c", f"while [ ! -e {gate} ]; do sleep 0.05; done; touch {over}")
    until(lambda: state(tandem, 1) == "running")
    tandem("down")
    gate.touch()
    until(over.exists)
    tandem("up", *HERE, "--machine", "mem=64M")
    assert node(tandem)[:2] == ([int(CORE)], 64)
    tandem("wait", "1")
    tandem("down")
    tandem("up", *HERE)
    assert node(tandem)[1] == whole


def test_up_in_the_foreground_ends_with_ctrl_c(tandem_: Shell, home: Path) -> None:
    process = tandem_.start("up", "--foreground", *HERE)
    until(lambda: (home / "tandem.sock").exists())
    assert "policy hybrid" in tandem_("up")
    second = tandem_.run("up", "--foreground")
    assert (second.returncode, second.stderr.count("\n")) == (2, 1)
    assert second.stderr.startswith("tandem: ")
    assert f"process {process.pid}" in second.stderr
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert tandem_("down") == "no daemon runs\n"


def test_down_with_kill_reaches_what_a_killed_daemon_left(tandem: Shell, tmp_path: Path, home: Path) -> None:
    tandem("submit", "-q", "--grace", "0s", "--", "sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 1000")
    tandem("submit", "-q", "--", "sh", "-c", f"touch {tmp_path}/started")
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n"))
    daemon, job = int(json.loads(tandem("up", "--json"))["pid"]), int((tmp_path / "pid").read_text())
    os.kill(daemon, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{daemon}/cmdline").exists() or not Path(f"/proc/{daemon}/cmdline").read_bytes())
    assert Path(f"/proc/{job}").exists()
    assert tandem("down", "--kill") == "no daemon runs; 2 jobs that the last one had left: cancelled\n"
    assert not Path(f"/proc/{job}").exists()
    assert not (tmp_path / "started").exists(), "what waited was not started to be cancelled"
    assert json.loads(tandem("down", "--kill", "--json")) == {"stopped": False, "cancelled": []}
    ends = {view["id"]: (view["state"], view["reason"]) for view in json.loads(tandem("history", "--json"))}
    assert ends == {1: ("cancelled", "it was cancelled"), 2: ("cancelled", "it was cancelled")}


def test_a_socket_that_was_removed_is_made_again(tandem: Shell, home: Path) -> None:
    daemon = json.loads(tandem("doctor", "--json"))["daemon"]["pid"]
    for args in (["submit", "-q", "--hold", "--", "true"], ["up"], ["doctor"]):
        (home / "tandem.sock").unlink()
        tandem(*args)
    assert json.loads(tandem("doctor", "--json"))["daemon"]["pid"] == daemon
    (home / "tandem.sock").unlink()
    assert tandem("down").startswith("daemon stopped; 1 job kept")


def test_a_daemon_that_cannot_be_reached_is_seen_and_stopped(tandem: Shell, tmp_path: Path, home: Path) -> None:
    gate = tmp_path / "gate"
    tandem("submit", "-q", *blocked_by(gate))
    daemon = json.loads(tandem("doctor", "--json"))["daemon"]["pid"]
    (home / "tandem.sock").unlink()
    (home / "tandem.sock").mkdir()
    refused = tandem.run("queue")
    assert refused.returncode == 2
    assert f"the daemon (process {daemon}) runs, but nobody listens" in refused.stderr
    assert f"process {daemon}" in json.loads(tandem("doctor", "--json", status=1))["problems"][0]
    assert tandem("down") == f"daemon stopped (process {daemon}, which could not be reached); its jobs are kept\n"
    assert tandem("down") == "no daemon runs\n"
    (home / "tandem.sock").rmdir()
    assert state(tandem, 1) == "running"


def test_who_locks_the_data_folder_is_not_stopped_for_its_daemon(tandem_: Shell, home: Path) -> None:
    home.mkdir()
    folder = os.open(home, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_SH)
    refused = tandem_.run("queue")
    assert refused.returncode == 2
    assert f"{home} is locked by process {os.getpid()}, which is no daemon" in refused.stderr
    assert tandem_("down") == "no daemon runs\n"
    os.close(folder)


def test_down_with_kill_makes_nothing_where_nothing_was(tandem_: Shell, home: Path) -> None:
    assert tandem_("down", "--kill") == "no daemon runs\n"
    assert not home.exists()


def test_down_with_kill_says_how_many_were_cancelled(tandem: Shell) -> None:
    tandem("submit", "-q", "--array", "0-2", "--hold", "--", "true")
    assert tandem("down", "--kill") == "daemon stopped; 3 jobs cancelled\n"


def test_ctrl_c_while_submit_waits_says_that_the_job_goes_on(tandem: Shell, tmp_path: Path) -> None:
    process = tandem.start("submit", "--wait", *blocked_by(tmp_path / "never"))
    assert process.stdout is not None
    process.stdout.readline()
    until(lambda: state(tandem, 1) == "running")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.strip() == "tandem: job 1 goes on; `tandem wait 1` waits again, `tandem cancel 1` stops it"
    assert state(tandem, 1) == "running"


def test_ctrl_c_before_submit_is_answered_says_that_the_job_may_have_been_taken_in(tandem_: Shell, home: Path) -> None:
    home.mkdir()
    with socket.socket(socket.AF_UNIX) as daemon:  # which takes the request, and does not answer in time
        daemon.bind(str(home / "tandem.sock"))
        daemon.listen()
        process = tandem_.start("submit", "--", "true")
        with daemon.accept()[0] as asked, asked.makefile() as requests:
            assert json.loads(requests.readline())["method"] == "submit"
            process.send_signal(signal.SIGINT)
            printed, said = process.communicate(timeout=30)
    (home / "tandem.sock").unlink()
    assert (process.returncode, printed) == (130, "")
    told = "tandem: the job may have been taken in: `tandem queue` and `tandem history` show whether it was"
    assert said.strip() == told


def test_an_element_that_was_named_by_its_id_is_recognised_in_the_error(tandem: Shell) -> None:
    tandem("submit", "--wait", "--array", "4-5", "--", "true")
    assert "job 1_5 (id 2) has ended" in tandem.run("cancel", "2").stderr
    assert "job 1_5 (id 2) has ended" in tandem.run("cancel", "1_5").stderr


def test_an_output_that_was_removed_is_said(tandem: Shell, tmp_path: Path) -> None:
    tandem("submit", "--wait", "--", "true")
    assert tandem("logs", 1) == ""
    Path(json.loads(tandem("show", 1, "--json"))["stdout"]).unlink()
    done = tandem.run("logs", 1)
    assert done.returncode == 2
    assert "the file was removed" in done.stderr


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFDIR])
def test_what_has_taken_an_outputs_place_is_not_waited_for(tandem: Shell, tmp_path: Path, kind: int) -> None:
    tandem("submit", "--wait", "-o", "out", "--", "true")
    (tmp_path / "out").unlink()
    if kind == stat.S_IFDIR:
        (tmp_path / "out").mkdir()
    else:
        os.mknod(tmp_path / "out", 0o600 | kind)
    for args in ([], ["-n", "1"], ["-f"]):
        done = tandem.run("logs", *args, 1)
        assert done.returncode == 2
        assert f"the output {tmp_path}/out is a file no more" in done.stderr


def test_logs_tell_what_is_empty_from_what_was_removed(tandem: Shell) -> None:
    tandem("submit", "--wait", "--", "true")
    tandem("submit", "--wait", "--", "false", status=1)
    views = {job: json.loads(tandem("show", job, "--json")) for job in (1, 2)}
    files = {job: (Path(view["stdout"]), Path(view["stderr"])) for job, view in views.items()}
    end = {1: "", 2: ": failed (exit status 1) after "}
    for job, (out, err) in files.items():
        for option in ([], ["--err"]):
            done = tandem.run("logs", *option, job)
            assert (done.returncode, done.stdout) == (0, "")
            assert done.stderr.startswith(f"tandem: job {job} has printed nothing{end[job]}" if end[job] else "")
            assert bool(done.stderr) == bool(end[job])
        out.unlink()
        done = tandem.run("logs", job)
        assert done.returncode == 2
        assert f"is not there: the file was removed; allowed: jobs whose file is there, here {out}" in done.stderr
        assert f"logs --err {job}" not in done.stderr, "there is nothing either"
        said = f"has printed nothing to standard error, and the file of its standard output, {out}, was removed"
        assert tandem.run("logs", "--err", job).stderr.startswith(f"tandem: job {job} {said}{end[job]}")
        err.write_text("some words")
        assert f"see `tandem logs --err {job}`" in tandem.run("logs", job).stderr


def test_a_name_that_is_no_utf8_is_refused_for_just_that(tandem: Shell) -> None:
    done = tandem.run("submit", "--name", "bad\udcff", "--", "true")
    assert done.returncode == 2
    assert "allowed: text in UTF-8" in done.stderr
    assert "at most 256 characters; choose a shorter" in tandem.run("submit", "--name", "b" * 257, "--", "true").stderr


def test_nobody_reads_stdout(tandem: Shell) -> None:
    for stream in (">&-", "2>&-"):
        command = f'exec "$0" "$@" {stream}'
        done = subprocess.run(
            ["/bin/sh", "-c", command, *tandem.prefix, "queue"], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_doctor_in_a_fresh_home_says_that_there_is_no_database_yet(tandem_: Shell) -> None:
    assert "database none yet" in tandem_("doctor")


def test_doctor_says_of_a_home_that_cannot_be_written_to_just_that(
    tandem_: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_HOME", "/proc/none")  # nobody writes there, root neither
    (problem,) = json.loads(tandem_("doctor", "--json", status=1))["problems"]
    assert problem.startswith("nothing can be written to /proc: ")
    assert "TANDEM_HOME" in problem
    assert "does not run, and cannot start: see below" in tandem_("doctor", status=1)


def test_a_job_that_just_ended_is_not_live(tandem: Shell) -> None:
    tandem("submit", "--wait", "--", "true")
    assert json.loads(tandem("doctor", "--json"))["daemon"]["jobs"] == {"live": 0, "on_nodes": 0}


def test_doctor_sees_a_corrupted_database(tandem: Shell, home: Path) -> None:
    tandem("submit", "--wait", "--", "true")
    tandem("down")
    database = home / "tandem.db"
    assert json.loads(tandem("doctor", "--json"))["database"] == "ok"
    damaged = bytearray(database.read_bytes())
    damaged[4096:20480] = bytes(k % 251 for k in range(16384))
    database.write_bytes(damaged)
    assert "is corrupted" in json.loads(tandem("doctor", "--json", status=1))["problems"][0]
    said = tandem("doctor", status=1)
    assert "nothing was overwritten" in said
    assert "daemon      does not run, and cannot start: see below" in said
    assert database.read_bytes() == damaged
    database.unlink()


def test_outputs_that_the_user_named_follow_the_umask(tandem: Shell, tmp_path: Path, home: Path) -> None:
    for umask, mode in ((0o022, 0o644), (0o007, 0o660)):
        before = os.umask(umask)
        try:
            tandem("submit", "--wait", "-o", f"out-{mode:o}", "--", "true")
            tandem("submit", "--wait", "--", "true")
        finally:
            os.umask(before)
        assert (tmp_path / f"out-{mode:o}").stat().st_mode & 0o777 == mode
    assert {(home / "jobs" / job / "stdout").stat().st_mode & 0o777 for job in ("2", "4")} == {0o600}


@pytest.mark.slow
def test_doctor_tells_when_the_bandwidth_was_measured_and_measures_anew(tandem_: Shell, home: Path) -> None:
    assert "not measured yet" in tandem_("doctor")
    began = time.time()
    told = json.loads(tandem_("doctor", "--measure", "--json"))["memory_bandwidth"]
    assert began <= told["measured_at"] <= time.time()
    assert 100 < told["mbs"] < 1e8
    assert told["cores"] == sorted(os.sched_getaffinity(0))
    kept = json.loads((home / "membw.json").read_text())
    (home / "membw.json").write_text(json.dumps(kept | {"mbs": 7, "load": 99.0, "cores": told["cores"][:1]}))
    said = tandem_("doctor")
    assert "0.0 GB/s of memory" in said
    assert "at a load average of 99.00: something else ran then" in said
    again = json.loads(tandem_("doctor", "--measure", "--json"))["memory_bandwidth"]
    assert again["mbs"] > 100
    assert again["cores"] == told["cores"][:1]  # those of the daemon that measured it


@pytest.mark.slow
def test_doctor_names_a_core_that_was_given_out_twice(tandem: Shell, tmp_path: Path) -> None:
    tandem("submit", "-q", *blocked_by(tmp_path / "never"))
    until(lambda: state(tandem, 1) == "running")
    ((core,),) = json.loads(tandem("queue", "--json"))[0]["cores"]
    (tmp_path / "locks" / "cores").unlink()
    with locks.held([core]):
        (problem,) = until(lambda: json.loads(tandem.run("doctor", "--json").stdout)["problems"])
    assert f"core {core} of job 1 was given out twice" in problem


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("TANDEM_KEEPER", "nowhere", "TANDEM_KEEPER={}; allowed: a file that can be run"),
        ("TANDEM_LOCK_DIR", "missing/locks", "the lock directory {}, which cannot be made"),
        ("TANDEM_LOCK_DIR", "a file", "the lock directory {}, which this user cannot use"),
    ],
)
def test_doctor_says_that_no_job_could_start(
    tandem_: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    (tmp_path / "a file").touch()
    place = tmp_path / value
    monkeypatch.setenv(variable, str(place))
    (problem,) = json.loads(tandem_("doctor", "--json", status=1))["problems"]
    assert problem.startswith(f"no job can start: {words.format(place)}")
    refused = tandem_.run("submit", "--", "true")
    assert refused.returncode == 2
    assert words.format(place) in refused.stderr


@requires("root")
def test_doctor_says_that_the_data_folder_is_another_users(
    tandem_: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o755)
    os.chown(theirs, 12346, 12346)
    monkeypatch.setenv("TANDEM_HOME", str(theirs))
    (problem,) = json.loads(tandem_("doctor", "--json", status=1))["problems"]
    assert problem.startswith(f"{theirs} belongs to 12346, of whom no daemon answers")
    said = tandem_("doctor", status=1)
    assert "none that you may read, it is for 12346 to measure" in said
    assert "that of 12346's daemon is known while it answers; one of your own would give: " in said


@pytest.mark.slow
def test_beside_a_daemon_doctor_tells_what_that_protects_jobs_with(
    tandem: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the caller could do, with their rights and their variables, is beside the point."""
    before = json.loads(tandem("doctor", "--json"))
    monkeypatch.setenv("TANDEM_KEEPER", "/nowhere")
    after = json.loads(tandem("doctor", "--json"))
    assert [after[name] for name in ("keeper", "protection", "problems")] == [
        before["daemon"]["engine"]["keeper"],
        before["daemon"]["engine"]["cgroups"],
        [],
    ]


def test_doctor_and_nodes(tandem: Shell) -> None:
    told = json.loads(tandem("doctor", "--json"))
    assert told["problems"] == []
    assert told["daemon"]["policy"] == "hybrid"
    assert set(told) >= {"cores", "gpus", "protection", "keeper", "data", "python", "version"}
    assert "protection" in tandem("doctor")
    (node,) = json.loads(tandem("nodes", "--json"))
    assert node["capacity"]["cpu_milli"] == 1000
    assert "1 of 1" in tandem("nodes")


MISTAKES: list[tuple[list[str], str]] = [
    (["submit", "--expected", "5m", "--time", "1m", "--", "true"], "--expected '5m'; allowed: at most its limit, 1m"),
    (["submit", "--class", "harvest", "--max-slowdown", "1.1", "--", "true"], "--max-slowdown '1.1'; allowed: a bound"),
    (["submit", "--cpus", "9999", "--", "true"], "9999 cores on one node; allowed: at most 1 core on a node"),
    (["submit", "--cpus", "two", "--", "true"], "--cpus 'two'; allowed: a number"),
    (["submit", "--class", "harvset", "--", "true"], "did you mean 'harvest'?"),
    (["submit", "--env", "X", "--", "true"], "allowed: KEY=VALUE"),
    (["submit", "--after", "77", "--", "true"], "job 77"),
    (["submit", "--after", "99:foo", "--", "true"], "--after 99:foo; allowed: ID (it ends well) or ID:any"),
    (["submit", "--array", "1,1,1", "--", "true"], "1 is there twice"),
    (["submit", "--priority", "x", "--", "true"], "allowed: a whole number from -1000000 to 1000000"),
    (["submit", "--mem", "9000T", "--", "true"], "1 core, 8.8PiB of memory on one node; allowed: at most "),
    (["submit", "--cpus", "0.5", "--", "true"], "allowed: whole cores (jobs are pinned here); ask for 1"),
    (["submit", "--time", "soon", "--", "true"], "--time 'soon'; allowed: 90s, 5m,"),
    (["submit", "--array", "5-1", "--", "true"], "--array '5-1'; allowed: rising"),
    (["submit", "--max-slowdown", "0.5", "--", "true"], "--max-slowdown '0.5'; allowed: a number of at least 1"),
    (["submit", "--checkpoint-signal", "KILL", "--", "true"], "--checkpoint-signal 'KILL'; allowed: a signal"),
    (["submit", "--gpus", "many", "--", "true"], "--gpus 'many'; allowed: a number such as 2, a fraction"),
    (["submit", "--gpu-mem", "80G", "--", "true"], "--gpu-mem '80G'; allowed: the memory of GPUs that are asked for"),
    (["submit"], "missing argument"),
    (["show", "77"], "job 77"),
    (["wait", "0x1"], "job '0x1'; allowed: an id such as 12"),
    (["cancel"], "ids of jobs, or --all-mine"),
    (["cancel", "1", "--all-mine"], "ids of jobs, or --all-mine"),
    (["queue", "--user", "nobody-of-that-name"], "user 'nobody-of-that-name'"),
    (["queue", "--watch"], "--watch without a terminal"),
]  # fmt: skip


def test_mistakes_are_one_line_and_status_2(tandem: Shell) -> None:
    for args, words in MISTAKES:
        done = tandem.run(*args)
        assert (done.returncode, done.stdout) == (2, ""), args
        assert done.stderr.startswith("tandem: ")
        assert done.stderr.count("\n") == 1
        assert words in done.stderr
        as_json = tandem.run(args[0], "--json", *args[1:])
        assert as_json.returncode == 2
        assert set(json.loads(as_json.stderr)) == {"error"}
    assert json.loads(tandem("queue", "--json")) == []


def test_json_on_the_jobs_own_command_line_is_the_jobs(tandem: Shell) -> None:
    assert tandem("submit", "-q", "echo", "--json") == "1\n"
    tandem("wait", "1")
    assert tandem("logs", "1") == "--json\n"


def test_a_reader_that_goes_away_is_no_error(tandem: Shell) -> None:
    tandem("submit", "-q", "--", "seq", "200000")
    tandem("wait", "1")
    script = " ".join([*(f"'{word}'" for word in tandem.prefix), "logs 1 | head -1; echo ${PIPESTATUS[0]}"])
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("1\n141\n", "")


class Screen:
    """Runs the command on a terminal of 100 columns."""

    def __init__(self, prefix: Sequence[str], *args: str, **environ: str) -> None:
        """``environ``: what is other than usual, such as ``COLUMNS``."""
        self._ours, theirs = pty.openpty()
        env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30", **environ}
        command = [*prefix, *args]
        self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, close_fds=True)
        os.close(theirs)
        self.text = ""

    def read_until(self, words: str) -> str:
        """Read until the words have come, or the end."""
        with contextlib.suppress(OSError):  # Linux says EIO at the end of a terminal
            while words not in self.text and (chunk := os.read(self._ours, 1 << 16)):
                self.text += chunk.decode()
        return self.text

    def close(self) -> int:
        """Read the rest; return the exit status."""
        self.read_until("\0")
        os.close(self._ours)
        return self.process.wait(timeout=30)


def test_a_terminal_gets_colours_and_no_line_is_too_wide(tandem: Shell, tmp_path: Path) -> None:
    tandem("submit", "-q", "--name", "a rather long name", "--expected", "1h", *blocked_by(tmp_path / "never"))
    tandem("submit", "-q", "--array", "0-99", "--expected", "2d", "--", "true")
    until(lambda: state(tandem, 1) == "running")
    for args in (["queue"], ["show", "1"], ["nodes"], ["doctor"]):
        screen = Screen(tandem.prefix, *args)
        assert screen.close() == 0
        plain = re.sub(r"\x1b\[[0-9;]*m", "", screen.text)
        assert max(map(len, plain.splitlines())) <= 100, args
        assert ("\x1b[32mrunning" in screen.text) == (args == ["queue"])
    for columns in (40, 80):
        for args in (["queue"], ["nodes"], ["estimate", "application=3m", "other", "third"]):
            screen = Screen(tandem.prefix, *args, COLUMNS=str(columns))
            assert screen.close() == 0
            plain = re.sub(r"\x1b\[[0-9;]*m", "", screen.text)
            heads = {"queue": {"ID", "NAME", "STATE"}, "nodes": {"CORES", "FREE"}, "estimate": {"APPLICATION"}}
            assert heads[args[0]] <= set(plain.split()), (args, columns)
            assert columns == 80 or args == ["queue"] or "left out, as the terminal is narrow: " in plain
    sober = Screen(tandem.prefix, "queue", NO_COLOR="1")
    assert (sober.close(), "\x1b[32m" in sober.text) == (0, False)


def test_watch_shows_the_queue_until_ctrl_c(tandem: Shell, tmp_path: Path) -> None:
    tandem("submit", "-q", "--name", "watched", *blocked_by(tmp_path / "never"))
    screen = Screen(tandem.prefix, "queue", "--watch")
    assert "watched" in screen.read_until("watched")
    screen.process.send_signal(signal.SIGINT)
    assert screen.close() == 130
    assert "Traceback" not in screen.text
