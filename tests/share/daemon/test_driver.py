"""The order of deciding, storing, answering and acting, with a fake engine and a virtual clock."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from tandem.core.clock import VirtualClock
from tandem.core.errors import ConfigError, UnknownPluginError
from tandem.core.machine import discover
from tandem.estimate.profile import PhaseProfile, Profile
from tandem.estimate.profiling import store as profiles
from tandem.share import events as ev
from tandem.share import paths
from tandem.share.daemon import answers
from tandem.share.daemon.driver import AGAIN_S, Change, Driver
from tandem.share.model import Job, Need, Node, Part, State
from tandem.share.node.engine import Adoptee
from tandem.share.node.launch import Launch
from tandem.share.scheduler.machine import Step
from tandem.share.simulate.replay import replay
from tandem.share.store import queries
from tandem.share.store.database import StoreFullError
from tandem.share.store.entry import Beside, Entry
from tandem.share.store.store import Store, examine, steps_of
from tests.share.conftest import fill

NODE = Node("n", 2000, 4096, cores=(0, 1))
START = 1_000_000.0


class FakeEngine:
    """Keeps what it is told and says what the test puts in."""

    def __init__(self) -> None:
        self.told: list[ev.Instruction] = []
        self.adopted: list[Adoptee] = []
        self.forgotten: list[tuple[int, int]] = []
        self.news: list[ev.Event] = []

    def nodes(self) -> list[Node]:
        return [NODE]

    def execute(self, instruction: ev.Instruction, launch: Launch | None) -> None:
        assert (launch is not None) == isinstance(instruction, ev.StartJob)
        self.told.append(instruction)

    def adopt(self, jobs: Sequence[Adoptee]) -> None:
        self.adopted = list(jobs)

    def poll(self) -> list[ev.Event]:
        news, self.news = self.news, []
        return news

    def wake_at(self) -> float | None:
        return None

    def filenos(self) -> list[int]:
        return []

    def forget(self, job: int, attempt: int) -> None:
        self.forgotten.append((job, attempt))

    def describe(self) -> dict[str, object]:
        return {}

    def close(self) -> None:
        pass

    def starts(self) -> list[tuple[int, int]]:
        return [(item.job, item.attempt) for item in self.told if isinstance(item, ev.StartJob)]


class Day:
    """A driver over a data folder; `again` is the next daemon."""

    def __init__(self, folder: Path) -> None:
        self.paths = paths.home(folder)
        paths.prepare(self.paths)
        self.clock = VirtualClock(START)
        self.answers: list[object] = []
        self.open()

    def open(self, **setup: object) -> None:
        self.engine = FakeEngine()
        self.driver = Driver(Store.open(self.paths), self.engine, self.clock, setup)
        self.driver.turn()

    def again(self, **setup: object) -> None:
        """Another daemon, after a clean stop of this one."""
        self.driver.close()
        self.open(**setup)

    def submit(self, *jobs: Job) -> None:
        launches = {job.id: Launch(("true",), "/") for job in jobs}
        events = tuple(ev.Submitted(job) for job in jobs)
        self.driver.ask(Change(events, launches, self.answers.append))

    def hear(self, *events: ev.Event) -> None:
        self.engine.news += events
        self.driver.turn()

    def state(self, job: int) -> State:
        return self.driver.machine.jobs[job].state

    def fill(self, full: bool) -> None:
        """Leave no room in the database, or make room again."""
        writer = self.driver.store._writer
        pages = writer.exec_driver_sql("PRAGMA page_count").scalar() if full else 1_000_000
        writer.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        writer.rollback()


def job(number: int, **values: object) -> Job:
    return Job(number, (Part(Need()),), app="x" * 5000, **values)  # type: ignore[arg-type]


@pytest.fixture
def day(tmp_path: Path) -> Iterator[Day]:
    made = Day(tmp_path / "home")
    yield made
    made.driver.store.close()


def test_all_that_arrived_is_one_step_and_is_answered_once_it_is_stored(day: Day) -> None:
    before = day.driver.store.steps_in_epoch
    day.submit(job(1), job(2))
    day.submit(job(3))
    assert day.answers == []
    assert day.driver.turn()
    assert day.driver.store.steps_in_epoch == before + 1
    assert len(day.answers) == 2
    assert all(isinstance(answer, Step) for answer in day.answers)
    assert day.engine.starts() == [(1, 1), (2, 1)]
    assert queries.job(day.driver.store.engine, 3) is not None
    assert not day.driver.turn()


def test_a_full_disk_undoes_the_step_refuses_the_request_and_loses_no_news(day: Day) -> None:
    day.submit(job(1))
    day.driver.turn()
    day.hear(ev.Started(1, 1))
    state = json.dumps(day.driver.machine.snapshot())
    told = list(day.engine.told)
    day.fill(True)
    day.submit(*[job(k) for k in range(2, 40)])
    day.hear(ev.Ended(1, 1, code=4))
    assert isinstance(day.answers[-1], StoreFullError)
    assert json.dumps(day.driver.machine.snapshot()) == state
    assert (day.engine.told, day.engine.forgotten) == (told, [])
    day.submit(job(2))
    day.driver.turn()
    assert isinstance(day.answers[-1], StoreFullError)
    assert day.driver.due_at() == START + AGAIN_S  # without a request the disk is left alone for a while
    day.fill(False)
    day.clock.advance_to(START + AGAIN_S)
    assert day.driver.due_at() == START + AGAIN_S
    day.driver.turn()
    assert day.driver.full is None
    assert day.engine.forgotten == [(1, 1)]
    row = queries.job(day.driver.store.engine, 1)
    assert row is not None
    assert (row["state"], row["exit_code"]) == ("failed", 4)
    day.submit(job(2))
    day.driver.turn()
    assert isinstance(day.answers[-1], Step)


def test_without_room_only_ends_and_cancellations_are_stored_and_nothing_starts(small_disk: Path) -> None:
    day = Day(small_disk)
    day.submit(job(1), job(2, limit_s=60.0), job(3), job(4))
    day.driver.turn()
    day.hear(ev.Started(1, 1), ev.Started(2, 1))
    ballast = fill(small_disk)
    day.submit(job(5))
    day.driver.ask(Change((ev.CancelAsked(4),), done=day.answers.append))
    day.driver.turn()
    assert [type(answer) for answer in day.answers[-2:]] == [StoreFullError, Step]
    day.hear(ev.Measured(1, 2.0, 1.0), ev.Ended(1, 1, code=3))
    day.clock.advance_to(START + 60)
    day.driver.turn()
    assert day.engine.told[-1] == ev.StopJob(2, 1, "", 10.0, "its time limit of 60 s is over")
    day.hear(ev.Ended(2, 1, signal=15))
    rows = queries.jobs(day.driver.store.engine, [1, 2, 3, 4])
    assert [rows[k]["state"] for k in range(1, 5)] == ["failed", "timeout", "queued", "cancelled"]
    assert day.driver.machine.jobs[3].state is State.QUEUED  # though both cores are free
    assert "disk" in day.driver.machine.why(3)
    ballast.unlink()
    day.clock.advance_to(START + 61)
    assert day.driver.due_at() == START + 61
    day.driver.turn()
    assert day.engine.starts()[-1] == (3, 1)
    day.submit(job(5))
    day.driver.turn()
    assert isinstance(day.answers[-1], Step)
    day.driver.store.close()


def test_a_request_is_taken_as_soon_as_room_was_made(day: Day) -> None:
    day.fill(True)
    day.submit(*[job(k) for k in range(2, 40)])
    day.driver.turn()
    assert day.driver.full is not None
    assert not day.driver.turn(), "nobody asks"
    day.fill(False)
    day.submit(job(1))
    assert day.driver.turn()
    assert isinstance(day.answers[-1], Step)
    assert day.driver.full is None


def test_a_request_is_taken_as_soon_as_there_is_room_for_more_than_ends(small_disk: Path) -> None:
    day = Day(small_disk)
    ballast = fill(small_disk)
    day.submit(job(1))
    day.driver.turn()
    assert isinstance(day.answers[-1], StoreFullError)
    ballast.unlink()
    day.submit(job(1))
    day.driver.turn()
    assert isinstance(day.answers[-1], Step)
    assert day.engine.starts() == [(1, 1)]
    day.driver.store.close()


def test_a_restart_goes_on_in_the_old_epoch_where_there_is_no_room_for_a_new_one(small_disk: Path) -> None:
    day = Day(small_disk)
    day.submit(*[job(k) for k in range(1, 120)])
    day.driver.turn()
    day.hear(ev.Started(1, 1))
    assert len(day.driver.machine.jobs) == 119
    state = json.dumps(day.driver.machine.snapshot()["jobs"])
    fill(small_disk)
    day.driver.store.close()  # killed: nothing is settled
    ballast = fill(small_disk)
    os.truncate(ballast, ballast.stat().st_size - 300_000)  # for what a restart always writes
    day.open()
    assert json.dumps(day.driver.machine.snapshot()["jobs"]) == state
    assert [(one.job, one.attempt) for one in day.engine.adopted] == [(1, 1), (2, 1)]
    day.driver.close()
    with Store.open(day.paths) as store, pytest.raises(StoreFullError):
        Driver(store, FakeEngine(), day.clock, {"policy": "las"})
    ballast.unlink()
    day.open(policy="las")
    assert day.driver.machine.setup.policy == "las"
    day.driver.store.close()


def test_a_restart_adopts_and_repeats_what_was_not_heard_of(day: Day) -> None:
    day.submit(job(1), job(2, checkpoint="SIGUSR1", grace_s=7.0), job(3))
    day.driver.turn()
    day.hear(ev.Started(1, 1), ev.Started(2, 1))
    day.driver.ask(Change((ev.CancelAsked(2),)))
    day.driver.turn()
    day.again()
    assert [(one.job, one.attempt) for one in day.engine.adopted] == [(1, 1), (2, 1)]
    assert day.engine.told == [ev.StopJob(2, 1, "SIGUSR1", 7.0, "it was cancelled")]
    day.hear(ev.Started(1, 1), ev.Ended(2, 1, signal=15), ev.Ended(1, 1))
    assert day.engine.starts() == [(3, 1)]
    day.hear(ev.Ended(2, 1, signal=15))  # told twice
    row = queries.job(day.driver.store.engine, 2)
    assert row is not None
    assert row["state"] == "cancelled"


def test_a_clock_that_was_set_back_between_two_daemons_does_not_halt_time(day: Day) -> None:
    day.submit(job(1, limit_s=60.0))
    day.driver.turn()
    day.hear(ev.Started(1, 1))
    day.driver.close()
    day.clock = VirtualClock(START - 3600)
    day.open()
    assert day.driver.now() == START
    day.clock.advance_to(START - 3600 + 61)
    day.driver.turn()
    assert day.state(1) is State.STOPPING


def test_a_clock_that_jumps_back_while_it_runs_does_no_harm(day: Day) -> None:
    day.submit(job(1))
    day.driver.turn()
    day.clock.now_s -= 1000
    day.hear(ev.Started(1, 1))
    day.hear(ev.Ended(1, 1))
    row = queries.job(day.driver.store.engine, 1)
    assert row is not None
    assert row["submitted_at"] <= row["started_at"] <= row["ended_at"]


def test_a_new_policy_takes_over_and_stays(day: Day) -> None:
    assert day.driver.machine.setup.policy == "hybrid"
    day.submit(job(1))
    day.driver.turn()
    day.again(policy="exclusive")
    day.again()
    assert day.driver.machine.setup.policy == "exclusive"
    assert day.state(1) is State.STARTING


@pytest.fixture
def gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """A policy and an estimator of a user, `theirs_once:policy` and `theirs_once:estimator`."""
    file = tmp_path / "theirs_once.py"
    names = "from tandem.share.policies import {} as policy\nfrom tandem.estimate.models import none as estimator\n"
    file.write_text(names.format("share"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def change(text: str) -> None:
        file.write_text(text)
        sys.modules.pop("theirs_once", None)

    yield change
    sys.modules.pop("theirs_once", None)


def test_a_policy_that_cannot_begin_leaves_no_epoch(day: Day, gone: Callable[[str], None]) -> None:
    day.submit(job(1))
    day.driver.turn()
    gone("class policy:\n    PLANS_BY_LIMIT = True\n    rank = plan_s = decide = staticmethod(lambda *_: 1 / 0)\n")
    day.driver.close()
    store = Store.open(day.paths)
    before = queries.policies(store.engine)
    with pytest.raises(ZeroDivisionError):
        Driver(store, FakeEngine(), day.clock, {"policy": "theirs_once:policy"})
    assert queries.policies(store.engine) == before
    store.close()
    day.open()
    assert day.driver.machine.jobs[1].state is State.STARTING


@pytest.mark.parametrize(
    "text", ["", "1 / 0", "class policy:\n    PLANS_BY_LIMIT = True\n    rank = plan_s = decide = 1"]
)
def test_where_a_stored_policy_can_no_longer_be_had_another_goes_on(
    day: Day, gone: Callable[[str], None], text: str
) -> None:
    day.again(policy="theirs_once:policy", estimator="theirs_once:estimator")
    day.submit(*(job(k) for k in (1, 2, 3, 4)))
    day.driver.turn()
    day.hear(ev.Started(1, 1), ev.Started(2, 1))
    day.clock.advance_to(day.clock.now() + 10.0)
    day.hear(ev.Ended(1, 1, code=0))
    expected = {
        n: (life.state, life.placement, life.attempt) for n, life in day.driver.machine.jobs.items() if not life.ended
    }
    assert [state for state, _, _ in expected.values()] == [State.RUNNING, State.STARTING, State.QUEUED]
    day.driver.close()
    gone(text)
    with Store.open(day.paths) as store:
        with pytest.raises(UnknownPluginError, match=r"'theirs_once:policy'.* go on with another: tandem up --policy"):
            Driver(store, FakeEngine(), day.clock)
        with pytest.raises(UnknownPluginError, match="'theirs_once:policy'"):
            examine(day.paths)
    day.open(policy="backfill", estimator="none")
    lives = day.driver.machine.jobs
    assert {n: (life.state, life.placement, life.attempt) for n, life in lives.items()} == expected
    assert [adopted.job for adopted in day.engine.adopted] == [2, 3]
    day.hear(ev.Ended(2, 1, code=0))
    assert lives[4].state is State.STARTING


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_quote_that_a_hold_took_back_is_made_anew_under_another_policy(day: Day, when: str) -> None:
    day.again(policy="hybrid", options={"quotes": 2.0})
    day.submit(*(job(k) for k in (1, 2, 3, 4)))
    day.driver.turn()
    assert sorted(queries.last_quotes(day.driver.store.engine, [1, 2, 3, 4])) == [2, 4]
    if when == "after":
        day.again(policy="backfill")
    day.driver.ask(Change((ev.HoldAsked(4),), {}, day.answers.append))
    day.driver.turn()
    if when == "before":
        day.again(policy="backfill")
    day.driver.ask(Change((ev.ReleaseAsked(4),), {}, day.answers.append))
    day.driver.turn()
    assert [quote["moment"] for quote in queries.quotes(day.driver.store.engine, 4)] == ["submit", "submit"]


def test_the_stored_day_replays_to_the_same_decisions(day: Day) -> None:
    for k in range(1, 9):
        day.submit(job(k, after=()))
        day.clock.advance_to(START + k)
        day.driver.turn()
        day.hear(*[ev.Started(*start) for start in day.engine.starts()])
        if k == 4:
            day.again()
        for start in day.engine.starts()[-1:]:
            day.hear(ev.Ended(*start, code=k % 2))
    entries: list[dict[str, object]] = []
    for _, setup, steps in steps_of(day.driver.store.engine):
        entries.append({"setup": json.loads(setup)})
        entries += [{"now": n, "events": json.loads(e), "decisions": json.loads(d)} for _, n, e, d in steps]
    found = replay(entries)
    assert (found.epochs, found.differences) == (2, ())
    assert found.decisions >= 5


def test_who_ran_beside_whom_is_kept(day: Day) -> None:
    day.submit(Job(1, (Part(Need()),), app="a"), Job(2, (Part(Need()),), app="b"))
    day.driver.turn()
    day.hear(ev.Started(1, 1), ev.Started(2, 1))
    day.clock.advance_to(START + 10)
    day.hear(ev.Ended(2, 1))
    day.clock.advance_to(START + 15)
    day.hear(ev.Ended(1, 1))
    day.hear()
    day.again()
    rows = queries.coruns(day.driver.store.engine)
    assert {(r["app"], tuple(map(tuple, r["beside"])), r["ended_at"] - r["began_at"]) for r in rows} == {
        ("a", ((2, "b"),), 10.0),
        ("b", ((1, "a"),), 10.0),
        ("a", (), 5.0),
    }


def test_rates_of_other_arguments_are_told_in_steps_of_the_first(day: Day) -> None:
    node = (Part(Need()),)
    day.submit(Job(1, node, app="solve", variant="small"), Job(2, node, app="solve", variant="large"))
    day.driver.turn()
    day.hear(ev.Started(1, 1), ev.Started(2, 1))
    day.hear(ev.Measured(1, 100.0, 5.0))
    besides = [
        Beside(1, 1, "solve", "n", START, START + 5, (), 100.0, False),
        Beside(2, 1, "solve", "n", START + 5, START + 9, ((3, "b"),), 1.8, False),
        Beside(2, 1, "solve", "n", START + 9, START + 10, (), None, False),
    ]
    day.driver.store.commit(Entry(START, [], besides=besides))
    ask = partial(answers.coruns, day.driver, answers.Caller(0, 0, 1, all=True))
    assert [(row["rate"], row["reference_rate"]) for row in ask({"measured": True})] == [(1.8, None), (100.0, 100.0)]
    day.hear(ev.Measured(2, 2.0, 5.0))
    assert [row["reference_rate"] for row in ask({"measured": True})] == pytest.approx([90.0, 100.0])
    assert [row["rate"] for row in ask({})] == [None, 1.8, 100.0]
    with pytest.raises(ConfigError, match="true or false"):
        ask({"measured": "no"})


def test_who_ran_beside_a_job_is_named_only_if_it_is_the_callers_own(day: Day) -> None:
    mine, own, foreign = (
        Job(n, (Part(Need()),), app=app, uid=uid) for n, app, uid in ((1, "a", 7), (2, "b", 7), (3, "secret", 8))
    )
    day.submit(mine, own, foreign)
    day.driver.turn()
    day.hear(*(ev.Started(n, 1) for n in (1, 2, 3) if n in day.driver.machine.jobs))
    beside = ((2, "b"), (3, "secret"))
    day.driver.store.commit(Entry(START, [], besides=[Beside(1, 1, "a", "n", START, START + 5, beside, 1.0, False)]))
    alice, root = answers.Caller(7, 7, 1, all=False), answers.Caller(0, 0, 1, all=True)
    for caller, name in ((alice, "another user's job"), (root, "secret")):
        for rows in (
            answers.coruns(day.driver, caller, {}),
            answers.show(day.driver, caller, {"job": 1})["coruns"],
        ):
            assert [row["beside"] for row in rows] == [[[2, "b"], [3, name]]]


def test_a_daemon_that_is_killed_loses_a_minute_at_most_of_who_ran_beside_whom(day: Day) -> None:
    day.submit(Job(1, (Part(Need()),), app="a"), Job(2, (Part(Need()),), app="b"))
    day.driver.turn()
    day.hear(ev.Started(1, 1), ev.Started(2, 1))
    for at in range(1, 500):
        day.clock.advance_to(START + at)
        day.driver.turn()
    day.driver.store.close()
    day.open()
    rows = queries.coruns(day.driver.store.engine)
    assert sorted((r["app"], r["began_at"] - START, r["ended_at"] - START) for r in rows) == [
        ("a", 0.0, 480.0),
        ("b", 0.0, 480.0),
    ]
    day.clock.advance_to(START + 510)
    day.hear(ev.Ended(2, 1))
    rows = queries.coruns(day.driver.store.engine, job_id=2)
    assert [(r["began_at"] - START, r["ended_at"] - START) for r in rows] == [(480.0, 510.0), (0.0, 480.0)]


def test_what_a_job_ran_without_a_daemon_is_kept_once(day: Day) -> None:
    day.submit(Job(1, (Part(Need()),), app="a"))
    day.driver.turn()
    day.hear(ev.Started(1, 1))
    day.clock.advance_to(START + 10)
    day.driver.machine.jobs[1].state = State.SUSPENDING
    day.hear(ev.SuspendDone(1, 1))
    day.clock.advance_to(START + 30)
    for _ in range(2):  # each daemon tells it
        day.hear(ev.WentOn(1, 1, START + 20))
    day.hear(ev.Ended(1, 1, at=START + 30))
    rows = queries.coruns(day.driver.store.engine)
    assert [(r["began_at"] - START, r["ended_at"] - START, r["beside"]) for r in rows] == [(20, 30, []), (0, 10, [])]
    assert (queries.job(day.driver.store.engine, 1) or {})["ran_s"] == 20.0


def test_a_damaged_profile_is_left_aside_and_the_others_are_taken_in(day: Day) -> None:
    fine = Profile("cg", ("cg",), discover().fingerprint, 1, 0.0, 1.0, 0, (PhaseProfile("", 1.0, 10.0, 0.02, 1.0),))
    profiles.save(day.paths.data, fine)
    file = day.paths.data / "profiles" / fine.machine / "lu.json"
    file.write_text("{")
    assert [event.profile.key for event in day.driver.profiled()] == ["cg"]
    (words,) = day.driver.unread_profiles
    assert str(file) in words
