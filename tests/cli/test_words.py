"""How instants, demands, ids, quotes and tables are written."""

import errno
import json
import math
import os
import time
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tandem.cli import control, lab, moments, promises, queue, selection, show, submit, terminal, wait, words
from tandem.core.errors import ConfigError
from tandem.report.formats import MISSING
from tandem.report.page import render
from tandem.report.table import text_of
from tandem.share.model import NOTHING, OTHER_ARGUMENTS

NOON = time.mktime((2026, 3, 4, 12, 0, 0, 0, 0, -1))  # a Wednesday


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "12:00:00"),
        (3600 + 65, "13:01:05"),
        (86400, "Thu 12:00:00"),
        (-86400, "Tue 12:00:00"),
        (30 * 86400, "Apr 03 12:00"),
        (400 * 86400, "2027-04-08 12:00"),
    ],
)
def test_an_instant_is_as_short_as_the_day_allows(seconds: float, text: str) -> None:
    assert moments.clock_time(NOON + seconds, NOON) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "less than 1ms"), (-0.2, "less than 1ms"), (0.0004, "less than 1ms"), (0.005, "5ms"), (2.0, "2s")],
)
def test_however_short_a_job_was_it_took_some_time(seconds: float, text: str) -> None:
    view = {"state": "done", "started_at": NOON, "ended_at": NOON + seconds, "ran_s": seconds}
    assert words.ran(view, NOON) == text
    assert wait.sentence(view) == f"done after {text}"


def test_no_instant_and_no_idea() -> None:
    assert moments.clock_time(None, NOON) == moments.NONE
    assert moments.clock_time(math.inf, NOON) == "no idea"
    assert moments.clock_time(1e18, NOON) == "no idea"


def test_a_quote_has_seconds_only_where_they_mean_something() -> None:
    assert moments.promised(NOON + 5, NOON + 10, NOON + 20, NOON) == "12:00:10 (12:00:05-12:00:20)"
    assert moments.promised(NOON, NOON + 600, NOON + 4000, NOON) == "12:10 (12:00-13:06)"
    quote = {"start": [NOON, NOON + 1, NOON + 2], "finish": [NOON, NOON + 600, NOON + 4000]}
    assert words.quoted(quote, NOON) == "quoted start 12:00:01, finish 12:10 (12:00-13:06, 90 %)"
    guess = words.quoted(quote | {"basis": f"{NOTHING}; the cores of 3 others"}, NOON)
    assert guess.startswith("quoted start 12:00:01, finish 12:00-13:06: a guess, since nothing is known")
    others = words.quoted(quote | {"basis": f"3 earlier runs of solve {OTHER_ARGUMENTS}"}, NOON)
    assert others == "quoted start 12:00:01, finish 12:10 (12:00-13:06, 90 % by runs with other arguments)"
    row = {f"{what}_{bound}": NOON for what in ("start", "finish") for bound in ("low", "mid", "high")}
    assert words.quoted(row, NOON) == "quoted start 12:00:00, finish 12:00:00 (12:00:00-12:00:00, 90 %)"


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "short", "long"),
    [
        (1, 4, 0, "4", "4 cores"),
        (1, 1, 0.5, "1+0.5g", "1 core, 0.5 GPU"),
        (2, 16, 8, "2x(8+4g)", "8 cores, 4 GPUs on each of 2 nodes"),
        (3, 6, 0, "3x2", "2 cores on each of 3 nodes"),
    ],
)
def test_demand(nodes: int, cpus: float, gpus: float, short: str, long: str) -> None:
    view = {"nodes": nodes, "cpus": cpus, "gpus": gpus, "mem_mib": 0, "membw_mbs": 0}
    assert words.cores_and_gpus(view) == short
    assert words.demand(view) == long


def test_places() -> None:
    view = {"node": "a,b", "cores": [[0, 1, 2, 5], []], "gpus_given": [[], [3]]}
    assert words.places(view) == "a: cores 0-2,5; b: GPU 3"
    assert words.places({"node": "", "cores": [], "gpus_given": []}) == ""


@given(st.sets(st.integers(0, 60)))
def test_ranges_hold_exactly_the_numbers(numbers: set[int]) -> None:
    text = words.ranges(sorted(numbers))
    read: set[int] = set()
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("-")
        read |= set(range(int(low), int(high or low) + 1))
    assert read == numbers


@pytest.mark.parametrize("text", ["", "x", "12_", "_3", "1_2_3", "-1", "1.5", "१", "9" * 30])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="an id such as 12"):
        selection.parse(text)


def test_the_time_in_which_a_job_stood_still_is_not_told_as_run() -> None:
    view = {"state": "suspended", "started_at": NOON, "ran_s": 60.0, "run_since": None}
    assert words.ran(view, NOON + 3600) == "1m"
    assert words.ran(view | {"state": "running", "run_since": NOON + 3000}, NOON + 3600) == "11m"
    assert words.ran(view | {"state": "done", "ended_at": NOON + 3000}, NOON + 3600) == "1m"


def test_what_was_decided_about_a_job_in_words() -> None:
    told = [
        {"at": 10.0, "is": "Suspend", "reason": "for job 2_0"},
        {"at": 21.0, "is": "WentOn", "reason": "no daemon ran, and no other job held a core"},
        {"at": 31.0, "is": "Resume", "reason": ""},
    ]
    assert [text.split(" ", 1)[1] for _, text in show._decided({"decisions": told}, 40.0)] == [
        "suspend: for job 2_0",
        "went on: no daemon ran, and no other job held a core",
        "resume",
    ]


def test_how_a_job_ended() -> None:
    view: dict[str, Any] = {
        "state": "failed",
        "exit_code": 3,
        "started_at": 1.0,
        "ended_at": 3.0,
        "ran_s": 2.0,
        "reason": "exit status 3",
    }
    assert wait.sentence(view) == "failed (exit status 3) after 2s"
    assert wait.sentence(view | {"reason": "no such file"}) == "failed (exit status 3) after 2s: no such file"
    assert wait.sentence({"state": "cancelled", "reason": "by root", "signal": 15}) == "cancelled: by root"
    assert wait.sentence({"state": "done", "reason": "x"}) == "done"


def job(number: int, state: str, **more: object) -> dict[str, Any]:
    view = {"id": number, "uid": 0, "class": "primary", "state": state, "cpus": 1, "gpus": 0, "nodes": 1, "array": None}
    return (
        view
        | {"throttle": 1.0, "own": True, "name": f"job-{number}", "why": "not enough free cores on any node"}
        | more
    )


def test_an_array_is_found_in_the_queue_that_is_there_without_asking_again() -> None:
    class Client:
        def show(self, job: int) -> dict[str, Any]:
            return {"id": job, "array": [1, 0]}

    queue = [job(1, "running", array=[1, 0]), job(2, "queued", array=[1, 1]), job(3, "queued")]
    assert selection.resolve(cast("Any", Client()), ["1"], live=True, queue=queue) == [1, 2]


def drawn(found: list[dict[str, Any]], columns: int) -> list[str]:
    page = Console(width=columns, no_color=True, force_terminal=False)
    with page.capture() as captured:
        page.print(queue.table(found, NOON, columns))
    return [line.rstrip() for line in captured.get().splitlines() if line.strip()]


@pytest.mark.parametrize("columns", [60, 80, 100, 160])
def test_the_queue_fits_the_terminal_and_cuts_only_the_note(columns: int) -> None:
    promise = {"start": [NOON, NOON, NOON], "finish": [NOON + 60, NOON + 90, NOON + 86400]}
    found = [
        job(1, "running", done=0.43, phase="train", promise=promise, name="x" * 40),
        job(2, "suspended", uid=1000),
        job(3, "queued", promise=promise, why="y" * 200),
    ]
    lines = drawn(found, columns)
    assert all(len(line) <= columns for line in lines)
    heads = lines[0].split()
    assert {"ID", "NAME", "STATE", "CORES", "FINISH"} <= set(heads)
    assert ("NOTE" in heads) == (columns >= 80)
    assert ("PROGRESS" in heads) == (columns >= 100)
    assert "12:01-Thu 12:00" in lines[2]
    assert lines[4].endswith("…") == ("NOTE" in heads)


class _Idle:
    """A client whose only node has all its cores free."""

    @staticmethod
    def nodes() -> list[dict[str, Any]]:
        return [{"up": True, "free": {"cpu_milli": 2000, "gpus": 0}, "capacity": {"cpu_milli": 2000, "gpus": 0}}]


def test_a_suspended_job_is_not_counted_as_running_nor_its_cores_as_held() -> None:
    found = [job(1, "running", cpus=2), job(2, "suspended", cpus=2), job(3, "resuming", cpus=2), job(4, "queued")]
    told = queue.summary(cast("Any", _Idle()), found)
    assert told == "2 running, 1 suspended, 1 waiting; 2 of 2 cores free"
    assert queue.summary(cast("Any", _Idle()), []) == "0 running, 0 waiting; 2 of 2 cores free"
    cores = [words.cores_and_gpus(view) for view in found]
    assert cores[:3] == ["2", "(2)", "2"]
    assert words.cores_and_gpus({"nodes": 2, "cpus": 4, "gpus": 2, "state": "suspended"}) == "2x((2)+1g)"


def test_elements_of_an_array_that_wait_alike_share_a_row() -> None:
    found = [job(9, "running", array=[9, 0]), job(16, "queued", array=[9, 7], elements="1-3,7", count=4)]
    assert [line.split()[0] for line in drawn(found, 120)[2:]] == ["9_0", "9_[1-3,7]"]


def test_the_columns_that_are_asked_for_are_shown() -> None:
    found = [job(1, "running", beside=["x" * 40, "cg"]), job(2, "queued")]
    page = Console(width=160, no_color=True, force_terminal=False)
    with page.capture() as captured:
        page.print(queue.table(found, NOON, 160, ["STATE", "ID", "NOTE"]))
    lines = [line.split() for line in captured.get().splitlines() if line.strip()]
    assert lines[0] == ["STATE", "ID", "NOTE"]
    assert lines[2] == ["running", "1", "beside", "x" * 15 + "…,", "cg"]
    assert lines[3][:3] == ["queued", "2", "not"]


def test_the_note_of_a_running_job_tells_of_now() -> None:
    alone = job(1, "running", beside=[], why="beside cg: seen 3 times at 1.2x")
    assert drawn([alone], 120)[2].endswith("nobody is beside it")
    curbed = job(1, "running", beside=["cg"], throttle=0.5, why="job 2 is slowed")
    assert drawn([curbed], 120)[2].endswith("throttled to 50%; job 2 is slowed")


def test_the_live_view_of_a_lab_shows_quotes() -> None:
    quote = {f"finish_{bound}": 100.0 + at for bound, at in (("low", 5), ("mid", 10), ("high", 20))}
    assert lab._quoted(quote, 100.0) == "10 s (5-20)"
    assert lab._quoted(dict.fromkeys(quote, math.inf), 100.0) == "no idea"


def test_output_goes_to_a_folder_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(output: str | None = None, error: str | None = None, *, after: tuple[str, ...] = ()) -> None:
        submit.check_outputs({"output": output, "error": error, "cwd": str(tmp_path), "after": after})

    (tmp_path / "logs").mkdir()
    (tmp_path / "file").touch()
    for good in ("out", "logs/%j", f"{tmp_path}/logs/out", "%j/out", None):
        check(good, good)
    check("later/out", after=("3",))
    wrong = (
        rf"--output later it/out, and the folder {tmp_path}/later it does not exist; .* `mkdir -p '{tmp_path}/later it'"
    )
    with pytest.raises(ConfigError, match=wrong):
        check("later it/out")
    with pytest.raises(ConfigError, match=rf"--error file/out, and the folder {tmp_path}/file is none"):
        check("out", "file/out")
    for folder in (".", "logs", "logs/", f"{tmp_path}/logs", ".."):
        with pytest.raises(ConfigError, match=rf"--output {folder}, which is a folder; .*name a file, such as"):
            check(folder, after=("3",))
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "to nowhere").symlink_to("none")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "one").touch()
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    for other, what in (
        ("link", "is a link"),
        ("to nowhere", "is a link"),
        ("pipe", "is a pipe"),
        ("two", "has several names"),
        ("a" * 300, r"cannot be used \(File name too long\)"),
    ):
        with pytest.raises(ConfigError, match=rf"--output {other}, which {what}; .*name a file, such as"):
            check(other)
    for output in ("to nowhere/out", "to nowhere/below/out"):
        with pytest.raises(ConfigError, match=rf"and {tmp_path}/to nowhere is a link that leads nowhere; ") as link:
            check(output)
        assert "mkdir" not in str(link.value)
    check("/dev/null")
    monkeypatch.setattr("os.geteuid", lambda: (tmp_path / "file").stat().st_uid + 1)
    check("new", "/dev/null")
    with pytest.raises(ConfigError, match="--output file, which belongs to another user"):
        check("file")
    with pytest.raises(ConfigError, match="--error '', which names no file"):
        check("out", "")
    with pytest.raises(ConfigError, match=rf"the folder {tmp_path}/~ does not exist; .*leave ~ unquoted") as home:
        check("~/out")
    assert "mkdir" not in str(home.value)
    with pytest.raises(
        ConfigError, match=r"--output 'a\\nb/out', and .*a\\nb' does not exist; .*make it first$"
    ) as lines:
        check("a\nb/out")
    assert "\n" not in str(lines.value)


def test_what_will_fail_is_known_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for place in (tmp_path / "bin" / "here", tmp_path / "mine" / "solve"):
        place.parent.mkdir()
        place.touch(mode=0o755)
    (tmp_path / "mine" / "plain").touch(mode=0o644)
    mine = str(tmp_path / "mine")
    for argv, cwd, env in (
        (["here"], None, None),
        (["./solve"], mine, None),
        (["solve"], None, {"PATH": f"/none:{mine}"}),
        (["solve"], mine, {"PATH": "."}),
        ([f"{mine}/solve"], None, None),
    ):
        assert submit.misgivings(argv, cwd, env) == []
    assert "there is no programme 'solve' on your PATH" in submit.misgivings(["solve"], mine, None)[0]
    assert "there is no programme './here'" in submit.misgivings(["./here"], mine, None)[0]
    assert "'./plain' may not be executed" in submit.misgivings(["./plain"], mine, None)[0]
    for folder in (mine, ".", "./", ".."):
        assert f"{folder!r} is a folder, no programme" in submit.misgivings([folder], None, None)[0]
    assert f"the folder {mine}x does not exist" in submit.misgivings(["here"], f"{mine}x", None)[0]
    assert "is no folder" in submit.misgivings(["here"], f"{mine}/plain", None)[0]


def test_what_cannot_be_looked_at_is_a_doubt_and_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed, truly = tmp_path / "closed", Path.stat
    (tmp_path / "solve").touch(mode=0o755)

    def as_its_user(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:  # root may search any folder
        if closed in path.parents:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return truly(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", as_its_user)
    assert submit.misgivings(["solve"], None, {"PATH": f"{closed}:{tmp_path}"}) == []
    assert "there is no programme 'solve' on your PATH" in submit.misgivings(["solve"], None, {"PATH": f"{closed}"})[0]
    assert "there is no programme" in submit.misgivings(["a" * 300], None, None)[0]
    assert "cannot be entered (Permission denied)" in submit.misgivings(["solve"], f"{closed}/in", None)[0]
    assert "cannot be entered (File name too long)" in submit.misgivings(["solve"], "a" * 300, None)[0]


def test_one_that_goes_as_fast_as_alone_is_not_said_to_be_slower() -> None:
    assert words.pace(1.004) == "as fast as alone"
    assert words.pace(1.06) == "1.06 times slower than alone"
    assert words.pace(1.06, alone=True).startswith("1.06 times slower than alone (nobody is beside it now: noise")
    assert words.pace(1.001, alone=True) == "as fast as alone"


def test_the_rate_and_the_pace_that_were_measured_last_say_when() -> None:
    view = {"state": "running", "rate": 76.8, "slowdown": 1.6, "beside": ["cg"]}
    assert words.lately(view) == "of late 76.8 steps/s, 1.60 times slower than alone"
    assert words.lately({**view, "state": "done"}) == "at the end 76.8 steps/s, 1.60 times slower than alone"
    assert words.lately({"state": "running", "rate": 2.0, "slowdown": None}) == "of late 2 steps/s"


def test_a_suspended_job_is_not_said_to_be_throttled() -> None:
    view = {"own": True, "phase": None, "throttle": 0.25, "beside": [], "why": "primary job 2 goes 1.40 times slower"}
    assert queue._note(view | {"state": "suspended"}) == "primary job 2 goes 1.40 times slower"
    assert queue._note(view | {"state": "running"}).startswith("throttled to 25%; primary")


def row(job: int, end: float, **more: object) -> dict[str, Any]:
    base = {"job": job, "name": f"n{job}", "app": "a", "class": "primary", "moment": "submit", "reason": "", "at": 0.0}
    base |= {"founded": True, "attempt": 1}
    times = {
        "submitted_at": 0.0,
        "started_at": 10.0,
        "ended_at": end,
        "ran_s": end - 10.0,
        "start_low": 5.0,
        "start_mid": 8.0,
        "start_high": 9.0,
    }
    return base | times | {"finish_low": 90.0, "finish_mid": 100.0, "finish_high": 120.0} | more


def test_the_ledger_counts_kept_late_and_early() -> None:
    rows = [row(1, 90.0), row(2, 120.0), row(3, 121.0), row(4, 89.0), row(5, 100.0, moment="start")]
    submit, start = promises.lines(rows)
    assert (submit.moment, submit.quotes, submit.kept, submit.late, submit.early) == ("submit", 4, 0.5, 0.25, 0.25)
    assert submit.width == pytest.approx(0.3)  # (120 - 90) / 100
    assert (start.moment, start.kept) == ("start", 1.0)
    assert [one["job"] for one in promises.late(rows)] == [3]


def test_quotes_of_others_jobs_count_and_are_not_told_one_by_one() -> None:
    others = {"job": None, "uid": None, "name": "", "app": ""}
    rows = [row(1, 121.0), row(2, 121.0) | others, row(3, 100.0) | others]
    assert promises.lines(rows)[0].quotes == 3
    assert [one["job"] for one in promises.late(rows)] == [1]
    page = render(promises.page(rows))
    assert "2 of them are of other users&#39; jobs, which are in the figures only" in page
    assert "0 of 1; 90 % were promised" in page
    assert "other users" not in render(promises.page(rows[:1]))
    assert promises.late(rows[1:]) == []
    render(promises.page(rows[1:]))


def test_the_quotes_of_several_attempts_are_numbered() -> None:
    def told(*moments: str) -> list[str]:
        quotes = [row(1, 0.0, moment=moment) for moment in moments]
        return [text.partition("finish")[0] for _, text in show._promised({"promises": quotes}, 0.0)]

    assert told("submit", "start", "start", "start")[1:] == ["attempt 1: ", "attempt 2: ", "attempt 3: "]
    assert told("submit", "start")[1:] == [""]


def test_quotes_that_rest_on_nothing_are_counted_apart() -> None:
    rows = [row(1, 100.0), row(2, 121.0), row(3, 100.0, founded=False), row(4, 999.0, founded=False)]
    rows += [row(5, 50.0, founded=False, policy="share")]
    share, line = promises.lines(rows)
    assert (line.quotes, line.kept, line.late, line.unfounded, line.unfounded_kept) == (2, 0.5, 0.5, 2, 0.5)
    assert (share.quotes, share.kept, share.width, share.unfounded, share.unfounded_kept) == (0, None, None, 1, 0.0)
    assert [one["job"] for one in promises.late(rows)] == [2]
    told = promises.table(rows)
    assert [text_of(told, 0, k) for k in (3, 4, 8, 9)] == ["0", MISSING, "1", "0 %"]
    assert [text_of(told, 1, k) for k in (3, 4, 8, 9)] == ["2", "50 %", "2", "50 %"]
    assert [column.name for column in promises.table(rows[:2]).columns][-1] == "median width"
    page = render(promises.page(rows))
    assert "quotes that rest on nothing" in page
    assert "1 of 2; 90 % were promised" in page


def test_classes_and_policies_are_told_apart() -> None:
    rows = [
        row(1, 100.0, policy="hybrid"),
        row(2, 200.0, policy="hybrid", **{"class": "harvest"}),
        row(3, 1.0, policy="share"),
    ]
    found = {(line.policy, line.klass): line.quotes for line in promises.lines(rows)}
    assert found == {("hybrid", "all"): 2, ("hybrid", "primary"): 1, ("hybrid", "harvest"): 1, ("share", "primary"): 1}


def test_why_it_was_late() -> None:
    took = "it took 2m20s, 1m32s were expected"
    assert promises.why(row(1, 150.0, start_high=6.0)) == f"it started 4s after its quoted start; {took}"
    assert promises.why(row(1, 150.0)) == took, "one second late is no reason for half a minute"


def test_a_job_that_was_tried_again_was_late_for_that() -> None:
    over = [{"attempt": 1, "started_at": 10.0, "ended_at": 45.0, "reason": "exit status 3"}]
    again = {"started_at": 50.0, "began_at": 10.0, "attempts": over, "attempt": 2}
    assert promises.why(row(1, 140.0, **again)) == "attempt 1 ended (exit status 3), started again 5s later"
    assert promises.why(row(1, 140.0, **again, start_high=6.0)) == (
        "it started 4s after its quoted start; attempt 1 ended (exit status 3), started again 5s later"
    )
    twice = again | {
        "attempts": [*over, {"attempt": 2, "started_at": None, "ended_at": 48.0, "reason": "killed by signal 9"}]
    }
    assert promises.why(row(1, 140.0, **twice)) == "attempts 1-2 ended (killed by signal 9), started again 2s later"
    took = "it took 2m20s, 1m32s were expected"
    assert promises.why(row(1, 200.0, **again | {"started_at": 60.0})).endswith(f"later; {took}")


def test_that_a_failed_attempt_took_too_long_is_a_cause() -> None:
    over = [{"attempt": 1, "started_at": 10.0, "ended_at": 190.0, "reason": "exit status 3"}]
    late = row(1, 290.0, started_at=200.0, began_at=10.0, attempts=over, attempt=2)
    took = "attempt 1 took 3m, 1m32s were expected"
    ended = "attempt 1 ended (exit status 3), started again 10s later"
    assert promises.why(late) == f"{took}; {ended}"
    stretches = [stretch(1, 10.0, 190.0, "lu"), stretch(1, 200.0, 290.0, "stream", attempt=2)]
    assert promises.why(late, promises.companies(stretches)) == f"{took}, it ran beside lu; {ended}"


def stretch(
    job: int, began: float, ended: float, *beside: str, throttled: bool = False, attempt: int = 1
) -> dict[str, Any]:
    others = [(100 + place, app) for place, app in enumerate(beside)]
    which = {"job": job, "attempt": attempt}
    return which | {"beside": others, "began_at": began, "ended_at": ended, "throttled": throttled}


def test_of_many_stretches_the_latest_are_shown_and_that_there_are_more_is_said() -> None:
    ran = [stretch(1, at, at + 1.0, f"app{at:.0f}") | {"rate": None} for at in range(11)]
    [_, first], *rest = show._beside({"coruns": ran[::-1]}, 20.0)
    assert (first, len(rest)) == ("(the latest 10; --json tells more)", 10)
    assert "app1 " in rest[0][1]
    [head, first], *rest = show._beside({"coruns": ran[10:0:-1]}, 20.0)
    assert (head, "app1 " in first, len(rest)) == ("beside", True, 9)


def test_elements_of_arrays_are_named_as_users_name_them() -> None:
    [(_, text)] = show._beside(
        {"coruns": [stretch(1, 0.0, 1.0, "cg", "lu") | {"rate": None}], "labels": {"101": "100_1"}}, 9.0
    )
    assert text.endswith("cg (100), lu (100_1)")
    late = promises.late_table([row(25, 290.0) | {"array": [24, 1], "name": "arr"}, row(3, 290.0)], 300.0)
    assert [cells[0] for cells in late.rows] == ["24_1 arr", "3 n3"]


@pytest.mark.parametrize(("count", "said"), [(10, ""), (11, "; the latest 10 (--json tells all)")])
def test_of_many_late_jobs_the_latest_are_shown(capsys: pytest.CaptureFixture[str], count: int, said: str) -> None:
    promises._show([row(number, 290.0) for number in range(count, 0, -1)], {}, 300.0, None)
    told = capsys.readouterr().out
    assert f"late: {count} of {count} quotes{said}\n" in told
    assert (f"{count} n{count} " in told, "\n1 n1 " in told) == (True, not said)


def test_how_a_late_job_ran_is_told() -> None:
    took = "it took 2m20s, 1m32s were expected"
    ran = promises.companies(
        [
            stretch(1, 10.0, 30.0, "stream", ""),
            stretch(1, 30.0, 150.0, "lu"),
            stretch(2, 10.0, 150.0),
            stretch(3, 10.0, 40.0),
            stretch(3, 100.0, 150.0, throttled=True),
            stretch(5, 0.0, 9.0, "lu"),
            stretch(5, 10.0, 150.0, "ft", attempt=2),
        ]
    )
    ran_s = {3: 80.0, 4: 50.0}
    whys = [promises.why(row(job, 150.0, ran_s=ran_s.get(job, 140.0)), ran) for job in (1, 2, 3, 4)]
    assert promises.why(row(5, 150.0, attempt=2), ran) == f"{took}, it ran beside ft", (
        "in the attempt that took so long"
    )
    assert whys[0] == f"{took}, it ran beside lu, stream, another job"
    assert whys[1] == took
    assert whys[3] == f"{took}, it stood still for 1m30s", "also where no stretch of it is stored"
    lost = promises.companies([stretch(1, 100.0, 150.0, "lu")])
    assert promises.why(row(1, 150.0), lost) == f"{took}, it ran beside lu", "a daemon that was killed is no standstill"
    assert whys[2] == f"{took}, it stood still for 1m, it was throttled for 50s"


def test_late_by_milliseconds_is_no_exit_status() -> None:
    narrow = {"started_at": 8.0, "finish_low": 8.01, "finish_mid": 8.012, "finish_high": 8.014}
    told = promises.why(row(1, 8.0162, **narrow, start_mid=0.0, reason="exit status 0"))
    assert told == "its interval was too narrow: 4ms, and late by 2ms"
    narrow |= {"finish_high": 8.0122, "finish_low": 8.0118}
    told = promises.why(row(1, 8.0125, **narrow, start_mid=0.0, reason="exit status 0"))
    assert told == "its interval was too narrow: less than 1ms, and late by less than 1ms"


def test_json_holds_no_number_that_json_has_not(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_json({"a": [math.inf, math.nan, 1.5], "b": ("x\x1b[0m", {3: True})})
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert json.loads(out) == {"a": [None, None, 1.5], "b": ["x\x1b[0m", {"3": True}]}


def test_who_is_cancelled_at_once_and_who_is_being_stopped() -> None:
    views = {
        1: {"id": 1, "array": None, "state": "running", "grace_s": 10.0},
        2: {"id": 2, "array": (2, 0), "state": "queued", "grace_s": 10.0},
        3: {"id": 3, "array": None, "state": "suspended", "grace_s": 90.0},
        4: {"id": 4, "array": None, "state": "running"},  # of another user
    }
    assert control._told("cancel", [1], views) == "job 1 is being stopped (killed after 10s)"
    assert control._told("cancel", [2], views) == "job 2_0: cancelled"
    assert control._told("cancel", [4], views) == "job 4 is being stopped"
    assert control._told("cancel", [9], views) == "job 9: cancelled"
    assert control._told("cancel", [1, 2, 3], views) == "1 job cancelled; 2 jobs being stopped (killed after 1m30s)"
    assert control._told("hold", [1, 2], views) == "2 jobs held"
