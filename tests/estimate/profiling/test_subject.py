"""How a programme's progress becomes known, and what is said where it does not."""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tandem.estimate.profiling.programme import ProgrammeError, Programmes
from tandem.estimate.profiling.progress import Trace
from tandem.estimate.profiling.sources import follow
from tandem.estimate.profiling.subject import MOST_RECORDS_BYTES, Output, Records, Runs, Subject
from tandem.estimate.profiling.windows import Stage

RECORDS = (
    "import time\n"
    "from tandem.core.records import Recorder\n"
    "recorder = Recorder.from_env()\n"
    "recorder.phase('load')\n"
    "recorder.phase('solve')\n"
    "for step in range({steps}):\n"
    "    time.sleep(0.01)\n"
    "    recorder.record(step=step)\n"
)

MISTOLD = (
    "import os, time\n"
    "with open(os.environ['TANDEM_RUN_DIR'] + '/events.jsonl', 'w') as records:\n"
    '    for step in range(3): print(\'{"step": 1, "time": 2}\', file=records)\n'
)
NAN = RECORDS.format(steps=10**6).replace("step=step", "step=float('nan')")


@pytest.fixture
def programmes() -> Iterator[Programmes]:
    with Programmes() as made:
        yield made


def followed(programmes: Programmes, code: str, rate: str | None = None, patience_s: float = 20.0) -> Subject:
    one = programmes.add("one", [sys.executable, "-c", code], [min(os.sched_getaffinity(0))])
    return follow(one, rate, patience_s)


def run_for(subject: Subject, points: int) -> None:
    deadline = time.monotonic() + 20.0
    while len(subject.trace) < points:
        assert time.monotonic() < deadline
        time.sleep(0.005)
        subject.read()


@pytest.mark.slow
def test_records_are_followed_with_their_phase(programmes: Programmes) -> None:
    subject = followed(programmes, RECORDS.format(steps=100_000))
    assert isinstance(subject.source, Records)
    run_for(subject, 60)
    last = subject.trace.last
    assert last is not None
    assert subject.trace.phase(last[0] - 0.05, last[0]) == "solve"
    assert subject.step_s() == pytest.approx(0.0105, abs=0.004)


@pytest.mark.slow
def test_a_run_that_ends_is_followed_by_the_next_and_no_window_reaches_across(programmes: Programmes) -> None:
    subject = followed(programmes, RECORDS.format(steps=150))
    run_for(subject, 170)
    assert subject.programme.runs == 2
    last = subject.trace.last
    assert last is not None
    assert subject.trace.rate(last[0] - 2.0, last[0]) is None


@pytest.mark.slow
def test_a_short_programme_is_measured_by_its_runs(programmes: Programmes) -> None:
    subject = followed(programmes, "import time; time.sleep(0.05)")
    assert isinstance(subject.source, Runs)
    run_for(subject, 6)
    assert subject.trace.last is not None
    assert subject.trace.last[1] >= 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "pattern", "per_line"),
    [
        ("print('step', k)", r"step (\d+)", 1.0),
        ("print('done one, done two')", r"done", 2.0),
        ("print('at 100.0 it/s', end='\\r')", r"at (?P<rate>[\d.]+) it/s", None),
    ],
)
def test_output_is_followed_by_a_regular_expression(
    programmes: Programmes, line: str, pattern: str, per_line: float | None
) -> None:
    code = f"import time, sys\nfor k in range(100000):\n    {line}\n    sys.stdout.flush()\n    time.sleep(0.01)"
    subject = followed(programmes, code, pattern)
    assert isinstance(subject.source, Output)
    run_for(subject, 80)
    (last, _), gap = subject.trace.last or (0.0, 0.0), subject.step_s()
    assert gap is not None
    rate = subject.trace.rate(last - 0.6, last)
    assert rate is not None
    assert rate * gap == pytest.approx(per_line, rel=0.3) if per_line else rate == pytest.approx(100.0, rel=0.15)
    assert (subject.programme.run_dir / "stdout").stat().st_size > 0


@pytest.mark.slow
def test_steps_are_as_long_as_they_last_however_often_they_are_told(programmes: Programmes) -> None:
    printed = "import time\nfor k in range(10**6):\n    print('epoch', k // 40, flush=True)\n    time.sleep(0.005)"
    step_s = followed(programmes, printed, r"epoch (\d+)").step_s()
    assert step_s is not None
    assert step_s > 0.15


@pytest.mark.slow
def test_a_slow_first_step_is_not_what_steps_take(programmes: Programmes) -> None:
    printed = "import time\nfor k in range(10**6):\n    print('step', k, flush=True)\n    time.sleep(0.1 if k else 1.5)"
    step_s = followed(programmes, printed, r"step (\d+)").step_s()
    assert step_s is not None
    assert step_s < 0.5


@pytest.mark.slow
def test_records_are_followed_once_a_second_step_was_reached(programmes: Programmes) -> None:
    seldom = RECORDS.format(steps=10**6).replace("step=step", "step=step // 130")
    step_s = followed(programmes, seldom).step_s()
    assert step_s is not None
    assert step_s > 1.0


@pytest.mark.parametrize(
    ("pattern", "strange"),
    [
        (r"(?P<rate>\S+) it/s", "nan"),
        (r"(?P<rate>\S+) it/s", "1e300"),
        (r"(?P<rate>\S+) it/s", "-5"),
        (r"(\S+) it", "inf"),
    ],
)
def test_a_number_that_is_no_step_or_rate_is_passed_over_and_named(
    programmes: Programmes, pattern: str, strange: str
) -> None:
    one, output, trace = programmes.add("one", ["/bin/true"], [min(os.sched_getaffinity(0))]), Output(pattern), Trace()
    one.run_dir.mkdir(parents=True)
    output.begin(one)
    begun = time.monotonic()
    for value in ("5.5", strange, "6.5", "7.5"):
        os.write(one.output or -1, f"{value} it/s\n".encode())
        output.read(one, trace)
    assert trace.last is not None
    assert 0.0 <= trace.last[1] <= 7.5 * max(1.0, time.monotonic() - begun)
    assert f"passed over: {float(strange):g}" in output.way
    output.close()


@pytest.mark.slow
def test_an_expression_that_takes_for_ever_is_named_and_ends(programmes: Programmes) -> None:
    begun, code = os.times(), "while True: print('a' * 40 + 'b')"
    with pytest.raises(ProgrammeError, match=r"'\(\?P<rate>\(a\+\)\+\)\$' \(it takes more than 1 s .* 'aaaa") as caught:
        followed(programmes, code, r"(?P<rate>(a+)+)$")
    ended = (
        os.times()
    )  # in seconds of their own, which a busy machine does not lengthen; 2 ** 40 ways to match take hours
    assert ended.children_user + ended.children_system - begun.children_user - begun.children_system < 15.0
    assert "a+ for (a+)+" in caught.value.todo


def test_only_the_beginning_of_a_line_is_looked_at_however_it_comes(programmes: Programmes) -> None:
    one, output, trace = programmes.add("one", ["/bin/true"], [min(os.sched_getaffinity(0))]), Output("step"), Trace()
    one.run_dir.mkdir(parents=True)
    output.begin(one)
    for piece in ("step ", *["x" * 1500] * 4, "step\n", "step\n"):
        os.write(one.output or -1, piece.encode())
        output.read(one, trace)
    output.close()
    assert trace.last is not None
    assert trace.last[1] == 2.0


FLOOD = (
    "import os, time\n"
    "with open(os.environ['TANDEM_RUN_DIR'] + '/events.jsonl', 'w') as records:\n"
    "    for step in range(10**9):\n"
    '        print(f\'{{"t": {time.time():.6f}, "step": {step}}}\\n\' * 10, file=records)\n'
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argv", "rate", "what"), [([sys.executable, "-c", FLOOD], None, "records"), (["yes", "step"], "step", "output")]
)
def test_a_programme_that_tells_more_than_can_be_read_is_refused(
    programmes: Programmes, argv: list[str], rate: str | None, what: str
) -> None:
    def follow_on() -> None:
        subject = follow(programmes.add("one", argv, [min(os.sched_getaffinity(0))]), rate)
        stage, until = Stage([subject]), time.monotonic() + 60.0
        while time.monotonic() < until:
            stage.take({"one"})

    with pytest.raises(ProgrammeError, match=f"one writes {what} faster than .* can be read") as caught:
        follow_on()
    assert "every N-th step" in caught.value.todo


class _Answering(Trace):
    """For each step that is read one more is written."""

    def __init__(self, records: Path) -> None:
        super().__init__()
        self.records, self.read = records, 0

    def reach(self, t: float, step: float) -> None:
        self.read += 1
        assert self.read < 100
        with self.records.open("a") as file:
            print(json.dumps({"t": t + 1.0, "step": step + 1.0}), file=file)


def test_records_that_are_written_while_others_are_read_are_left_to_the_next_time(programmes: Programmes) -> None:
    one, source = programmes.add("one", ["/bin/true"], [min(os.sched_getaffinity(0))]), Records()
    one.run_dir.mkdir(parents=True)
    source.begin(one)
    trace = _Answering(one.run_dir / "events.jsonl")
    trace.records.write_text('no record\n{"t": 1, "step": 1}\n')
    for turn in (1, 2, 3):
        source.read(one, trace)
        assert trace.read == turn


def test_records_that_fill_the_disk_are_refused(programmes: Programmes) -> None:
    one, source = programmes.add("one", ["/bin/true"], [min(os.sched_getaffinity(0))]), Records()
    one.run_dir.mkdir(parents=True)
    source.begin(one)
    with (one.run_dir / "events.jsonl").open("w") as records:
        records.truncate(MOST_RECORDS_BYTES + 1)  # a hole: nothing is written
    with pytest.raises(ProgrammeError, match="one writes records faster than they can be read"):
        source.read(one, Trace())


@pytest.mark.slow
def test_many_steps_are_followed_where_they_can_be_read(programmes: Programmes) -> None:
    code = "import time\nwhile True:\n    for _ in range(100): print('step')\n    time.sleep(0.005)"
    subject = followed(programmes, code, "step")
    stage = Stage([subject])
    rates = [stage.take({"one"}).rates["one"] for _ in range(10)]
    assert 1000.0 < max(rates) < 20_000.0
    assert len(subject.trace) < 10_000


def test_a_wrong_pattern_is_refused() -> None:
    with pytest.raises(ProgrammeError, match=r"the regular expression 'step \('"):
        Output("step (")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "rate", "words"),
    [
        ("raise SystemExit(3)", None, "one ended with status 3"),
        ("print('boo'); import os; os.kill(os.getpid(), 9)", None, "one was killed by signal 9; it last wrote: "),
        ("raise ValueError('bad input')", "x", "it last wrote: .*ValueError: bad input"),
        ("import time; time.sleep(60)", None, "one made no progress in 0.3 s, by its run records"),
        ("while True: print('hello')", "step", "one made no progress in 0.3 s, by its output"),
        ("while True: print('step 5')", r"step (\d+)", "one made no progress in 0.3 s, by its output"),
        (MISTOLD + "time.sleep(60)", None, r"in 0.3 s, by its run records \(passed over: 3 lines .* a number t, in"),
        (MISTOLD + "time.sleep(2.1)", None, r"one wrote no record with a step \(passed over: 3 lines .*: it ran for 2"),
        (NAN, None, r"one made no progress in 0.3 s, by its run records \(passed over: nan, which is no step\)"),
        ("import time; time.sleep(2.1)", None, "one wrote no record with a step: it ran for 2"),
        (
            "import time; time.sleep(2.1); exec(" + repr(RECORDS.format(steps=20)) + ")",
            None,
            "one finished before its steps could be measured",
        ),
    ],
)
def test_what_cannot_be_measured_is_said_plainly(
    programmes: Programmes, code: str, rate: str | None, words: str
) -> None:
    patience_s = 0.3 if "0.3 s" in words else 20.0
    with pytest.raises(ProgrammeError, match=words) as caught:
        followed(programmes, code, rate, patience_s)
    assert caught.value.todo


@pytest.mark.slow
def test_one_that_dies_while_it_is_measured_is_noticed(programmes: Programmes) -> None:
    subject = followed(programmes, RECORDS.format(steps=150) + "raise SystemExit(7)")
    with pytest.raises(ProgrammeError, match="one ended with status 7"):
        run_for(subject, 100_000)


def test_a_programme_that_is_over_at_once_is_refused(programmes: Programmes) -> None:
    one = programmes.add("true", ["/bin/true"], [min(os.sched_getaffinity(0))])
    with pytest.raises(
        ProgrammeError, match=r"true finishes before it can be measured: a whole run takes .* more to do"
    ):
        follow(one)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("", "matches where nothing is"),
        ("x*", "matches where nothing is"),
        (r"(\d+) of (\d+)", "2 groups.*one group"),
        ("(", "regular expression"),
    ],
)
def test_a_pattern_that_says_no_step_is_refused(pattern: str, words: str) -> None:
    with pytest.raises(ProgrammeError, match=words):
        Output(pattern)


@pytest.mark.parametrize(
    ("pattern", "steps"),
    [
        ("step", 1),  # a match is one
        (r"step (\d+)", 5),
        (r"(\d+) (?:of|in) \d+", 5),
        (r"(\w+) (?P<rate>\d+)", 0),  # at that rate from now on
    ],
)
def test_a_pattern_with_one_meaning_is_taken(programmes: Programmes, pattern: str, steps: int) -> None:
    one, output, trace = programmes.add("one", ["/bin/true"], [min(os.sched_getaffinity(0))]), Output(pattern), Trace()
    one.run_dir.mkdir(parents=True)
    output.begin(one)
    assert one.output is not None
    os.write(one.output, b"step 5 of 9\n")
    output.read(one, trace)
    output.close()
    assert trace.last is not None
    assert trace.last[1] == steps
