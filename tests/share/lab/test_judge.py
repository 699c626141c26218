"""Reading a day from its log and judging it: a hand-written log with hand-worked answers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tandem.report.table import Cell
from tandem.share import events as ev
from tandem.share.codec import to_json
from tandem.share.lab import report as lab_report
from tandem.share.lab.day import read_day
from tandem.share.lab.judge import QUICKER, as_json, doubts, judge, noise_alone, sentences
from tandem.share.lab.report import job_table, write_report
from tandem.share.model import NOTHING, Interval, Job, JobClass, Need, Part, Placement, Quote, Share
from tandem.share.state.history import History

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

T0 = 1000.0
PARTS = (Part(Need(1000)),)
SOLVER = Job(1, PARTS, name="solver", app="cg", max_slowdown=1.1)
HOG = Job(2, PARTS, name="hog", app="stream", klass=JobClass.HARVEST)


def on(core: int) -> Placement:
    return Placement((Share("box", Need(1000), (core,)),))


def entry(at: float, events: list[Any], decisions: Sequence[Any] = ()) -> dict[str, Any]:
    return {"now": T0 + at, "events": [to_json(e) for e in events], "decisions": [to_json(d) for d in decisions]}


def setup(policy: str) -> dict[str, Any]:
    return {"setup": {"policy": policy, "estimator": "proportional", "options": {}, "snapshot": None}}


def alone() -> list[dict[str, Any]]:
    return [
        setup("exclusive"),
        entry(0, [ev.Submitted(SOLVER), ev.Submitted(HOG)], [ev.Start(1, on(0), "empty")]),
        entry(0, [ev.Started(1, 1)]),
        entry(5, [ev.Measured(1, 10.0, 4.0), ev.Measured(1, 10.2, 1.0), ev.Measured(1, 9.9, 1.0)]),
        entry(10, [ev.Ended(1, 1)], [ev.Start(2, on(0), "empty")]),
        entry(10, [ev.Started(2, 1)]),
        entry(14, [ev.Ended(2, 1)]),
    ]


def together() -> list[dict[str, Any]]:
    return [
        setup("hybrid"),
        entry(0, [ev.Submitted(SOLVER), ev.Submitted(HOG)], [ev.Start(1, on(0), "a"), ev.Start(2, on(1), "b")]),
        entry(0, [ev.Started(1, 1), ev.Started(2, 1)]),
        entry(3, [ev.Measured(1, 5.0, 3.0, ("stream",))], [ev.Throttle(2, 0.5, "too loud")]),
        entry(4, [], [ev.Suspend(2, "still too loud")]),
        entry(4, [ev.SuspendDone(2, 1)]),
        entry(6, [], [ev.Resume(2, on(1), "free again")]),
        entry(6, [ev.ResumeDone(2, 1)]),
        entry(9, [ev.Ended(2, 1)]),
        entry(13, [ev.Ended(1, 1)]),
    ]


NAMES = {"exclusive": {1: "solver", 2: "hog"}, "hybrid": {1: "solver", 2: "hog"}}


def quote(job: int, low: float, mid: float, high: float, basis: str = "its time limit") -> Quote:
    return Quote(job, T0, "submit", Interval(T0, T0, T0), Interval(T0 + low, T0 + mid, T0 + high), basis)


def test_stretches_say_how_cores_were_held() -> None:
    hog = read_day(together()).courses[2]
    held = [(s.start - T0, s.end - T0, s.how, s.cores) for s in hog.stretches]
    assert held == [
        (0, 3, "ran", (1,)),
        (3, 4, "throttled", (1,)),
        (4, 6, "suspended", (1,)),
        (6, 9, "ran", (1,)),
    ]
    assert hog.reasons == ["start: b", "throttle: too loud", "suspend: still too loud", "resume: free again"]


def test_a_bound_is_judged_against_the_same_job_alone() -> None:
    days = [read_day(alone()), read_day(together(), [quote(1, 9, 12, 14), quote(2, 3, 4, 5)])]
    exclusive, hybrid = judge(days, NAMES, cores=2)
    assert exclusive.broken == 0
    assert (exclusive.makespan_s, hybrid.makespan_s) == (14.0, 13.0)
    solver, hog = hybrid.verdicts
    assert (solver.alone_s, solver.run_s, solver.slowdown, solver.kept) == (10.0, 13.0, 1.3, False)
    assert (hog.slowdown, hog.kept) == (None, None), "a job that was throttled says nothing of neighbours"
    assert (hybrid.broken, hybrid.bounded) == (1, 1)
    assert hybrid.cpu_utilisation == pytest.approx((13 + 7) / 26)
    assert "solver was slowed 1.30 times, beyond its bound of 1.1" in sentences(hybrid)[0]


def test_quotes_are_kept_or_not() -> None:
    days = [read_day(alone()), read_day(together(), [quote(1, 9, 12, 14), quote(2, 3, 4, 5)])]
    hybrid = judge(days, NAMES, cores=2)[1]
    assert [v.in_time for v in hybrid.verdicts] == [True, False]
    assert hybrid.quote_coverage == 0.5
    assert hybrid.quote_width == pytest.approx((5 / 12 + 2 / 4) / 2)


def test_quotes_that_rest_on_nothing_are_not_in_the_coverage(tmp_path: Path) -> None:
    known = History().expect(Job(2, (), app="hog"))[1]
    days = [read_day(alone()), read_day(together(), [quote(1, 9, 12, 14), quote(2, 3, 4, 5, known)])]
    judged = judge(days, NAMES, cores=2)
    assert [v.founded for v in judged[1].verdicts] == [True, False]
    assert judged[1].quote_coverage == 1.0
    assert judged[1].quote_width == pytest.approx(5 / 12)
    page = write_report("Day", days, judged, NAMES, tmp_path / "report.html").read_text()
    assert "90 % was promised; 1 of 2 rested on nothing" in page
    rows = job_table(judged[1]).rows
    assert [row[3] for row in rows] == [Cell("12.0 (9.0-14.0)"), Cell("nothing known", "muted")]


def test_a_column_of_which_nothing_is_known_is_left_out() -> None:
    started = replace(quote(1, 10, 12, 15, "its time limit"), moment="start")
    exclusive, hybrid = judge([read_day(alone()), read_day(together(), [started])], NAMES, cores=2)
    headings = [[column.name for column in job_table(day).columns] for day in (exclusive, hybrid)]
    assert [name for name in headings[1] if name not in headings[0]] == ["predicted slowdown"]
    assert "took" in headings[0]


@pytest.mark.parametrize(("basis", "predicted"), [("its time limit", (1.0, 1.2, 1.5)), (NOTHING, None)])
def test_a_slowdown_is_predicted_by_a_quote_that_rests_on_something(
    basis: str, predicted: tuple[float, ...] | None
) -> None:
    started = replace(quote(1, 10, 12, 15, basis), moment="start")
    hybrid = judge([read_day(alone()), read_day(together(), [started])], NAMES, cores=2)[1]
    assert hybrid.verdicts[0].predicted == predicted


def test_the_picture_of_slowdowns_leaves_out_jobs_that_were_stopped_or_throttled(tmp_path: Path) -> None:
    quotes = [replace(quote(job, 10, 12, 15), moment="start") for job in (1, 2)]
    days = [read_day(alone()), read_day(together(), quotes)]
    judged = judge(days, NAMES, cores=2)
    assert [v.predicted is not None for v in judged[1].verdicts] == [True, True]
    assert [one.label for one in lab_report._predictions(judged[1])] == ["solver"]  # hog was throttled and suspended


def test_within_the_noise_a_bound_is_not_broken() -> None:
    quieter = [e for e in together() if e.get("now") != T0 + 13]
    quieter.append(entry(11.3, [ev.Ended(1, 1)]))
    hybrid = judge([read_day(alone()), read_day(quieter)], NAMES, cores=2)[1]
    assert hybrid.verdicts[0].slowdown == pytest.approx(1.13)
    assert hybrid.broken == 0, "1.13 is within 1.10 and 4 % of noise"


def test_noise_is_measured_alone_with_a_floor() -> None:
    assert noise_alone(read_day(alone())) == 0.04
    noisy = [*alone()[:3], entry(5, [ev.Measured(1, rate, 1.0) for rate in (10.0, 8.0, 12.0)]), *alone()[4:]]
    assert noise_alone(read_day(noisy)) == pytest.approx(0.2)


def test_without_exclusive_nothing_is_said_of_bounds() -> None:
    (only,) = judge([read_day(together())], NAMES, cores=2)
    assert (only.broken, only.bounded) == (0, 0)


def test_a_failed_job_is_said() -> None:
    for end, why in (
        (ev.Ended(1, 1, code=3), "exit status 3"),
        (ev.Ended(1, 1, signal=11), "killed by signal 11"),
        (ev.Ended(1, 1, code=127, reason="cannot execute 'x'"), "cannot execute 'x'"),
        (ev.Ended(1, 1, lost=True), "its end is not known: its keeper was killed, or the machine restarted"),
    ):
        failed = [*together()[:-1], entry(13, [end])]
        hybrid = judge([read_day(alone()), read_day(failed)], NAMES, cores=2)[1]
        assert sentences(hybrid) == [f"hybrid: solver did not end well: {why}"]
        assert f"failed: {why}" in [cell.value for cell in job_table(hybrid).rows[0]]


def test_the_daemon_knows_better_how_a_job_ended() -> None:
    """One that its time limit stopped may have ended with status 0; one that waited in vain never started."""
    ends = [
        {"id": 1, "state": "timeout", "reason": "its time limit of 5 s is over"},
        {"id": 2, "state": "done", "reason": "exit status 0"},
    ]
    hybrid = judge([read_day(alone()), read_day(together(), ends=ends)], NAMES, cores=2)[1]
    assert [v.well for v in hybrid.verdicts] == [False, True]
    assert sentences(hybrid) == ["hybrid: solver did not end well: its time limit of 5 s is over"]
    assert hybrid.verdicts[1].why == "resume: free again"


def test_a_job_that_gains_from_neighbours_says_that_its_run_alone_was_disturbed() -> None:
    assert doubts(judge([read_day(alone()), read_day(together())], NAMES, cores=2)) == []
    quick = [*together()[:-1], entry(8, [ev.Ended(1, 1)])]
    judged = judge([read_day(alone()), read_day(quick)], NAMES, cores=2)
    slowdown = judged[1].verdicts[0].slowdown
    assert slowdown is not None
    assert slowdown < QUICKER
    (said,) = doubts(judged)
    assert f"solver ({slowdown:.2f})" in said


def test_reasons_speak_of_jobs_by_their_names() -> None:
    ends = [{"id": 2, "state": "failed", "reason": "job 1, which had to end well, did not; job 77 neither"}]
    day = read_day(together(), ends=ends, names=NAMES["hybrid"])
    assert day.courses[2].why == "job solver, which had to end well, did not; job 77 neither"
    assert not [reason for course in day.courses.values() for reason in course.reasons if "job 1" in reason]


def test_results_are_plain() -> None:
    day = as_json(judge([read_day(alone())], NAMES, cores=2))[0]
    assert day["policy"] == "exclusive"
    assert day["jobs"][0]["klass"] == "primary"
