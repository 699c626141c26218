"""Rates over stretches between neighbour changes, from records that a fake run folder holds."""

import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.core.records import Record, Recorder, Tail
from tandem.share.daemon.meter import KEEP_S, REPORT_S, Meter, Metered, tail_of
from tandem.share.events import Measured


class Lines(Tail):
    """Records put in by hand."""

    def __init__(self) -> None:
        self.waiting: list[Record] = []

    def poll(self, *, max_bytes: int = 0) -> list[Record]:
        taken, self.waiting = self.waiting, []
        return taken


def metered(job: int, app: str) -> Metered:
    return Metered(job, 1, app, 0, ("n",), "/nowhere")


class Day:
    """A meter, and jobs that write a record every half second at a rate of their own."""

    def __init__(self) -> None:
        self.lines: dict[int, Lines] = {}
        self.meter = Meter(lambda who: self.lines.setdefault(who.job, Lines()))
        self.step: dict[int, float] = {}
        self.now = 0.0

    def work(self, seconds: float, **rates: float) -> None:
        """Let time pass; ``j1=2.0`` makes job 1 do two steps a second."""
        for _ in range(round(seconds / 0.5)):
            self.now += 0.5
            for name, rate in rates.items():
                job = int(name[1:])
                self.step[job] = self.step.get(job, 0.0) + rate * 0.5
                self.lines[job].waiting.append(Record(self.now, step=self.step[job], total=100.0))
            self.meter.poll(self.now)


def test_a_stretch_ends_with_a_neighbour_and_the_first_record_is_its_start() -> None:
    day = Day()
    day.meter.runs(0.0, metered(1, "a"))
    day.work(2.5, j1=10.0)
    day.meter.runs(day.now, metered(2, "b"))
    day.work(2.5, j1=5.0, j2=4.0)
    day.meter.rests(day.now, 2)
    day.work(2.5, j1=10.0)
    day.meter.rests(day.now, 1)
    measured, besides = day.meter.take()
    assert [(m.job, m.rate, m.beside, m.seconds) for m in measured] == [
        (1, 10.0, (), 2.5),
        (2, 4.0, ("a",), 2.5),
        (1, 5.0, ("b",), 2.5),
        (1, 10.0, (), 2.5),
    ]
    assert measured[-1].done == pytest.approx((10 * 2.5 + 5 * 2.5 + 10 * 2.5) / 100)
    assert [(b.job, b.began_at, b.ended_at, b.beside, b.rate) for b in besides] == [
        (1, 0.0, 2.5, (), 10.0),
        (2, 2.5, 5.0, ((1, "a"),), 4.0),
        (1, 2.5, 5.0, ((2, "b"),), 5.0),
        (1, 5.0, 7.5, (), 10.0),
    ]


def test_a_long_stretch_is_reported_every_few_seconds_and_kept_once() -> None:
    day = Day()
    day.meter.runs(0.0, metered(1, "a"))
    day.work(REPORT_S, j1=10.0)
    day.work(REPORT_S, j1=20.0)
    day.meter.rests(day.now, 1)
    measured, besides = day.meter.take()
    assert [m.rate for m in measured] == [10.0, 20.0]
    [whole] = besides
    assert 10.0 < (whole.rate or 0) < 20.0


def test_what_there_is_of_stretches_is_kept_now_and_then_and_replaced() -> None:
    day = Day()
    day.meter.runs(0.0, metered(1, "a"))
    day.work(20.0, j1=10.0)
    day.meter.runs(day.now, metered(2, "b"))
    day.work(KEEP_S - 0.5, j1=10.0)
    kept = [(1, 0.0, 20.0, False)]
    day.work(0.5, j1=10.0)
    kept += [(1, 20.0, 80.0, False), (2, 20.0, 80.0, False)]
    day.work(10.0)
    day.meter.ended(day.now, 2, 1, at=85.0)
    kept += [(2, 20.0, 85.0, True), (1, 20.0, 85.0, True)]
    day.meter.rests(day.now, 1)
    kept += [(1, 85.0, 90.0, False)]
    assert [(b.job, b.began_at, b.ended_at, b.again) for b in day.meter.take()[1]] == kept


def test_nobody_was_beside_a_job_after_its_end_that_is_seen_late() -> None:
    day = Day()
    day.meter.runs(0.0, metered(1, "a"))
    day.meter.runs(0.0, metered(2, "b"))
    day.work(4.0, j2=5.0)
    day.meter.ended(5.0, 1, 1, at=3.5)
    day.meter.rests(6.0, 2)
    _, besides = day.meter.take()
    assert [(b.job, b.began_at, b.ended_at, b.beside) for b in besides] == [
        (1, 0.0, 3.5, ((2, "b"),)),
        (2, 0.0, 3.5, ((1, "a"),)),
        (2, 3.5, 6.0, ()),
    ]


def test_a_job_that_had_ended_before_it_was_adopted_was_beside_nobody() -> None:
    day = Day()
    day.meter.runs(10.0, metered(1, "a"))
    day.meter.runs(10.0, metered(2, "b"))
    day.meter.ended(11.0, 1, 1, at=7.0)
    day.meter.rests(12.0, 2)
    assert [(b.job, b.began_at, b.beside) for b in day.meter.take()[1]] == [(2, 10.0, ())]


def test_one_record_is_no_measurement_but_the_stretch_is_kept() -> None:
    day = Day()
    day.meter.runs(0.0, metered(1, "a"))
    day.work(0.5, j1=10.0)
    day.meter.rests(day.now, 1)
    measured, [beside] = day.meter.take()
    assert measured == []
    assert (beside.rate, beside.ended_at) == (None, 0.5)


def test_throttling_begins_a_new_stretch_for_the_job_and_for_its_neighbours() -> None:
    day = Day()
    day.meter.runs(0.0, metered(1, "a"))
    day.meter.runs(0.0, metered(2, "b"))
    day.work(2, j1=10.0, j2=10.0)
    day.meter.throttled(day.now, 2, 0.5)
    day.work(2, j1=12.0, j2=5.0)
    day.meter.rests(day.now, 2)
    day.meter.rests(day.now, 1)
    measured, _ = day.meter.take()
    assert (2, 5.0, ("a",), True) in [(m.job, m.rate, m.beside, m.throttled) for m in measured]
    assert (1, 12.0, ("b@0.5",), False) in [(m.job, m.rate, m.beside, m.throttled) for m in measured]


def test_a_report_names_the_phase_that_all_of_it_was_in() -> None:
    day = Day()
    day.meter.runs(0.0, metered(1, "a"))
    day.work(REPORT_S, j1=10.0)
    day.lines[1].waiting.append(Record(day.now + 0.1, phase="load"))
    day.work(REPORT_S, j1=10.0)
    day.work(REPORT_S, j1=20.0)
    day.lines[1].waiting.append(Record(day.now + 0.1, phase="solve"))
    day.work(REPORT_S, j1=5.0)
    day.meter.runs(day.now, metered(2, "b"))
    day.work(REPORT_S, j1=5.0)
    assert [(m.rate, m.phase) for m in day.meter.take()[0]] == [
        (10.0, ""),
        (10.0, None),  # its first step began before
        (20.0, "load"),
        (5.0, None),
        (5.0, "solve"),
    ]


def test_phases_that_take_turns_are_told_each_once_it_was_met_for_long_enough() -> None:
    day = Day()
    day.meter.runs(0.0, metered(1, "a"))
    for _ in range(6):
        for phase, rate in (("load", 4.0), ("solve", 20.0)):
            day.lines[1].waiting.append(Record(day.now + 0.1, phase=phase))
            day.work(1.5, j1=rate)
    day.meter.rests(day.now, 1)
    measured, _ = day.meter.take()
    assert {m.phase for m in measured} == {None}
    told = [turn for m in measured for turn in m.phases]
    # each visit of three records has two gaps, of a second in all; three make a rate
    assert told == [("load", 4.0), ("solve", 20.0), ("load", 4.0), ("solve", 20.0)]
    assert sum(m.phases == () for m in measured) >= 2


@pytest.mark.parametrize("stay_s", [0.5, 1.5])
def test_what_was_met_of_a_phase_alone_goes_on_once_those_beside_are_gone(stay_s: float) -> None:
    day = Day()
    day.meter.runs(0.0, metered(1, "a"))
    for neighbour in range(2, 20):
        for phase, rate in (("load", 4.0), ("solve", 20.0)):
            day.lines[1].waiting.append(Record(day.now + 0.1, phase=phase))
            day.work(1.5, j1=rate)
        day.work(0.5, j1=20.0)
        day.meter.runs(day.now, metered(neighbour, "b"))
        day.lines[1].waiting.append(Record(day.now + 0.1, phase="load"))
        day.work(stay_s, j1=2.0)
        day.meter.rests(day.now, neighbour)
    told = [(m.beside, turn) for m in day.meter.take()[0] for turn in m.phases]
    assert ((), ("load", 4.0)) in told
    assert ((), ("solve", 20.0)) in told
    assert len(set(told)) == 2, "no rate beside others is among them"


def test_what_a_throttled_job_does_in_a_phase_is_no_rate_of_it() -> None:
    day = Day()
    day.meter.runs(0.0, metered(1, "a"))
    day.meter.throttled(0.0, 1, 0.5)
    for _ in range(6):
        for phase in ("load", "solve"):
            day.lines[1].waiting.append(Record(day.now + 0.1, phase=phase))
            day.work(1.5, j1=2.0)
    day.meter.rests(day.now, 1)
    assert {m.phases for m in day.meter.take()[0]} == {()}


def test_a_phase_that_lasts_is_told_by_the_report_itself() -> None:
    day = Day()
    day.meter.runs(0.0, metered(1, "a"))
    day.lines[1].waiting.append(Record(0.1, phase="solve"))
    day.work(9.0, j1=10.0)
    assert [(m.phase, m.phases) for m in day.meter.take()[0]] == [("solve", ())] * 3
    day.lines[1].waiting.append(Record(day.now + 0.1, phase="store"))
    day.work(3.0, j1=5.0)
    assert [(m.phase, m.phases) for m in day.meter.take()[0]] == [(None, ())]  # what was told is not told again


@pytest.mark.parametrize("named", [False, True])
def test_a_time_with_a_phase_without_steps_in_it_is_none_of_the_phase_around_it(*, named: bool) -> None:
    day = Day()
    day.meter.runs(0.0, metered(1, "a"))
    step = 0.0
    for _ in range(8):
        day.lines[1].waiting.append(Record(day.now + 0.05, phase="work"))
        for _ in range(10):  # a second of work
            day.now, step = day.now + 0.1, step + 5
            day.lines[1].waiting.append(Record(day.now, step=step, phase="work" if named else None))
            day.meter.poll(day.now)
        day.lines[1].waiting.append(Record(day.now + 0.05, phase="save"))
        for _ in range(10):
            day.now += 0.1
            day.meter.poll(day.now)
    measured, _ = day.meter.take()
    assert {m.phase for m in measured} == {None}
    turns = [turn for m in measured for turn in m.phases]
    assert {phase for phase, _ in turns} == {"work"}
    assert [rate for _, rate in turns] == pytest.approx([50.0] * len(turns))
    assert max(m.rate for m in measured) < 40.0, "which is slower with the saving"


def test_a_count_that_begins_afresh_is_no_way_back() -> None:
    day = Day()
    day.meter.runs(0.0, metered(1, "a"))
    for _ in range(20):  # epochs of 2.5 s
        day.step[1] = 0.0
        day.work(2.5, j1=8.0)
    day.meter.rests(day.now, 1)
    measured, besides = day.meter.take()
    assert len(measured) >= 15
    assert {m.rate for m in measured} == {8.0}
    assert [one.rate for one in besides] == [8.0]


@given(st.lists(st.integers(2, 40), min_size=1, max_size=12), st.floats(0.01, 100.0))
def test_however_a_programme_counts_its_rate_is_its_rate(epochs: list[int], rate: float) -> None:
    """Steps of one length, each told; the count begins at 1 in each epoch."""
    meter, lines = Meter(lambda _: lines), Lines()
    meter.runs(0.0, metered(1, "a"))
    k = 0
    for steps in epochs:
        for step in range(1, steps + 1):
            k += 1
            lines.waiting.append(Record(k / rate, step=step))
            meter.poll(k / rate)
    meter.rests(k / rate, 1)
    measured, besides = meter.take()
    assert [m.rate for m in measured] == pytest.approx([rate] * len(measured))
    kept = [one.rate for one in besides if one.rate is not None]
    assert kept == pytest.approx([rate] * len(kept))
    assert kept


def test_a_pause_between_two_epochs_is_part_of_the_rate() -> None:
    day = Day()
    day.meter.runs(0.0, metered(1, "a"))
    for _ in range(8):
        day.step[1] = 0.0
        day.work(2.0, j1=8.0)
        day.work(2.0)  # validates, and tells nothing
    day.work(0.5, j1=8.0)
    day.meter.rests(day.now, 1)
    assert day.meter.take()[1][-1].rate == pytest.approx(4.0, rel=0.15)


def test_steps_that_are_told_late_by_another_process_change_nothing() -> None:
    """Four processes tell each step, some of them when the next one has been told."""
    day = Day()
    day.meter.runs(0.0, metered(1, "a"))
    for step in range(10, 60):
        for k, told in enumerate((step, step, step - 1, step)):
            day.lines[1].waiting.append(Record(day.now + 0.1 * k, step=told))
        day.now += 0.5
        day.meter.poll(day.now)
    assert statistics.median(m.rate for m in day.meter.take()[0]) == pytest.approx(2.0, rel=0.1)


def test_a_way_back_to_a_checkpoint_is_no_rate_and_what_follows_is_one() -> None:
    day = Day()
    day.meter.runs(0.0, metered(1, "a"))
    day.work(30.0, j1=10.0)
    day.step[1] = 200.0
    day.work(6.5, j1=10.0)
    told = [m.rate for m in day.meter.take()[0]]
    assert told[:9] == [10.0] * 9
    assert told[-1] == 10.0
    assert min(told) >= 1.0, "nothing is divided by what it went back"


def test_a_phase_that_was_announced_before_anybody_looked_is_known() -> None:
    day = Day()
    day.lines[1] = Lines()
    day.lines[1].waiting = [Record(0.1, phase="load"), Record(0.2, phase="solve"), Record(0.3, step=1.0)]
    day.meter.runs(0.0, metered(1, "a"))
    day.work(REPORT_S, j1=10.0)
    assert [m.phase for m in day.meter.take()[0]] == ["solve"]


def test_told_rates_count_where_no_steps_are_counted() -> None:
    day = Day()
    day.meter.runs(0.0, metered(1, "a"))
    day.lines[1].waiting = [Record(0.1, rate=99.0), Record(0.2, rate=4.0), Record(0.3, rate=6.0)]
    day.meter.rests(1.0, 1)
    assert day.meter.take()[0] == [Measured(1, 5.0, 1.0)]


@pytest.mark.parametrize("strange", [float("inf"), float("nan"), 1e300, -5.0])
def test_numbers_that_are_no_rate_make_none(strange: float) -> None:
    for records in (
        [Record(0.1, rate=1.0), Record(0.2, rate=strange)],
        [Record(0.1, step=0.0), Record(0.2, step=strange)],
        [Record(0.1, step=-strange), Record(0.2, step=5.0)],
    ):
        day = Day()
        day.meter.runs(0.0, metered(1, "a"))
        day.lines[1].waiting = records
        day.meter.rests(1.0, 1)
        measured, (beside,) = day.meter.take()
        assert (measured, beside.rate) == ([], None)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(-1e6, 1e6)), max_size=20))
def test_no_record_makes_a_rate_that_is_not_above_zero(pairs: list[tuple[float, float]]) -> None:
    day = Day()
    day.meter.runs(0.0, metered(1, "a"))
    day.lines[1].waiting = [Record(t, step=step, total=50.0) for t, step in pairs]
    day.meter.rests(10.0, 1)
    measured, _ = day.meter.take()
    assert all(m.rate > 0 and (m.done is None or 0 <= m.done <= 1) for m in measured)


def test_records_are_read_from_the_run_folder_but_never_through_a_link(tmp_path: Path) -> None:
    who = Metered(1, 1, "a", tmp_path.stat().st_uid, ("n",), str(tmp_path))
    recorder = Recorder(tmp_path / "events.jsonl", now=iter((1.0, 2.0, 3.0)).__next__)
    recorder.record(step=1, total=4)
    meter = Meter()
    meter.runs(0.0, who)  # what was there before is no measurement
    recorder.record(step=2, total=4)
    recorder.record(step=3, total=4)
    recorder.close()
    meter.rests(5.0, 1)
    assert [(m.rate, m.done) for m in meter.take()[0]] == [(1.0, 0.75)]
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "events.jsonl").symlink_to(tmp_path / "events.jsonl")
    assert tail_of(Metered(1, 1, "a", who.uid, ("n",), str(tmp_path / "link"))).poll() == []
    assert tail_of(Metered(1, 1, "a", who.uid + 1, ("n",), str(tmp_path))).poll() == []
