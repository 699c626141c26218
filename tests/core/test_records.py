import json
import math
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tandem.core import records
from tandem.core.records import Record, Recorder, Tail, open_owned_by, parse, read

figures = st.floats(allow_nan=False) | st.integers(-(2**60), 2**60).map(float)
lines_of_records = st.builds(
    Record,
    t=st.floats(0, 1e10),
    step=st.none() | figures,
    total=st.none() | figures,
    rate=st.none() | figures,
    phase=st.none() | st.text(max_size=8),
    metrics=st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda key: key not in {"step", "total", "rate", "phase"}),
        figures,
        max_size=3,
    ),
)


def write(recorder: Recorder, record: Record) -> None:
    recorder.record(step=record.step, total=record.total, rate=record.rate, phase=record.phase, **dict(record.metrics))


def bytes_of(path: Path, wanted: list[Record]) -> bytes:
    """Return what a recorder writes for these records."""
    path.unlink(missing_ok=True)
    times = iter([record.t for record in wanted])
    recorder = Recorder(path, now=lambda: next(times))
    for record in wanted:
        write(recorder, record)
    recorder.close()
    assert recorder.dropped == 0
    return path.read_bytes() if wanted else b""


@settings(max_examples=50)
@given(st.lists(lines_of_records, max_size=6))
@example([Record(1.0, metrics={"self": 1.0, "m": 2.0, "t": 3.0})])
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, wanted: list[Record]) -> None:
    path = tmp_path_factory.mktemp("run") / "events.jsonl"
    data = bytes_of(path, wanted)
    assert read(path) == wanted
    assert all(json.loads(line) for line in data.splitlines())


@given(st.lists(lines_of_records, min_size=1, max_size=6), st.data())
def test_a_file_torn_anywhere_gives_its_whole_lines_and_later_the_rest(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[Record], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("run") / "events.jsonl"
    whole = bytes_of(path, wanted)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    tail, seen = Tail(path), []
    for cut in cuts:
        path.write_bytes(whole[:cut])
        seen += tail.poll()
        assert seen == wanted[: whole[:cut].count(b"\n")]
        assert read(path) == seen
    path.write_bytes(whole)
    assert seen + tail.poll() == wanted
    assert tail.corrupt == 0


@given(st.lists(st.binary(max_size=40) | st.just(b'{"t":1}'), max_size=8))
def test_lines_that_are_no_records_are_counted_and_passed_over(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    lines = [line.replace(b"\n", b"") for line in lines]
    path = tmp_path_factory.mktemp("run") / "events.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    tail = Tail(path)
    good = tail.poll()
    assert len(good) == sum(parse(line) is not None for line in lines)
    assert len(good) + tail.corrupt == sum(1 for line in lines if line)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"nonsense",
        b"{}",
        b'{"t":"soon"}',
        b'{"t":"NaN"}',
        b'{"t":NaN}',
        b'{"t":1,"step":null}',
        b'{"t":1,"phase":3}',
        b'{"t":1,"m":[1]}',
        b'{"t":1,"m":{"a":"b"}}',
        b'{"t":1' + b"0" * 400 + b"}",
        b"[" * 50_000,
        b"\xff\xfe",
    ],
)
def test_what_is_no_record(line: bytes) -> None:
    assert parse(line) is None


def test_numbers_that_are_not_finite_are_valid_json(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "events.jsonl")
    recorder.record(step=math.inf, loss=math.nan, gain=-math.inf, fine=1.5)
    line = (tmp_path / "events.jsonl").read_text()
    assert json.loads(line, parse_constant=pytest.fail)["m"] == {
        "loss": "NaN",
        "gain": "-Infinity",
        "fine": 1.5,
    }
    (record,) = read(tmp_path / "events.jsonl")
    assert record.step == math.inf
    assert math.isnan(record.metrics["loss"])
    assert record.metrics["gain"] == -math.inf
    assert recorder.dropped == 0


def test_numpy_values_are_numbers(tmp_path: Path) -> None:
    Recorder(tmp_path / "e").record(step=np.int64(3), loss=np.float32(0.5), ok=np.bool_(True), one=np.array(2))
    (record,) = read(tmp_path / "e")
    assert (record.step, record.metrics) == (3, {"loss": 0.5, "ok": 1, "one": 2})


def test_a_bad_value_costs_only_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder(tmp_path / "events.jsonl")
    for _ in range(2):
        recorder.record(step=1, rate="fast", bad=object(), good=2)  # type: ignore[arg-type]
    assert [(r.step, r.rate, r.metrics) for r in read(tmp_path / "events.jsonl")] == [(1, None, {"good": 2})] * 2
    assert recorder.dropped == 4
    assert capsys.readouterr().err.count("\n") == 1


def test_values_whose_methods_raise_do_not_reach_the_job(tmp_path: Path) -> None:
    class Hostile:
        def __float__(self) -> float:
            raise RuntimeError

        def __str__(self) -> str:
            raise RuntimeError

    recorder = Recorder(tmp_path / "events.jsonl")
    recorder.record(loss=Hostile())
    recorder.phase(Hostile())  # type: ignore[arg-type]
    assert recorder.dropped == 2


def test_a_folder_that_is_missing_or_deleted_does_not_reach_the_job(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    recorder = Recorder(folder / "events.jsonl")
    recorder.record(step=1)
    folder.mkdir()
    recorder.record(step=2)
    (folder / "events.jsonl").unlink()
    recorder.record(step=3)
    assert [r.step for r in read(folder / "events.jsonl")] == [3]
    (folder / "events.jsonl").unlink()
    folder.rmdir()
    recorder.record(step=4)
    assert recorder.dropped == 2


def test_a_full_disk_does_not_reach_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder(Path("/dev/full"))
    recorder.record(step=1)
    recorder.record(step=2)
    assert recorder.dropped == 2
    assert "No space left" in capsys.readouterr().err


def test_a_record_after_a_torn_one_begins_a_new_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.jsonl"
    recorder = Recorder(path)
    recorder.record(step=1)
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, data[:5]))
    recorder.record(step=2)
    monkeypatch.undo()
    recorder.record(step=3)
    assert [r.step for r in read(path)] == [1, 3]
    assert recorder.dropped == 1


def test_a_new_recorder_goes_on_after_a_torn_line_of_an_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"t":1,"step":1}\n{"t":2,"st')
    Recorder(path).record(step=3)
    assert [r.step for r in read(path)] == [1, 3]


def test_threads_and_recorders_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    recorders = [Recorder(path), Recorder(path)]

    def work(worker: int) -> None:
        for i in range(200):
            recorders[worker % 2].record(step=i, worker=worker)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = read(path)
    for worker in range(4):
        assert [r.step for r in found if r.metrics["worker"] == worker] == list(range(200))


def test_without_a_run_folder_the_recorder_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TANDEM_RUN_DIR", "")
    recorder = Recorder.from_env()
    recorder.phase("train")
    recorder.close()
    assert (recorder.dropped, list(tmp_path.iterdir())) == (0, [])


def test_from_env_writes_into_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_RUN_DIR", str(tmp_path))
    recorder = Recorder.from_env()
    recorder.phase("train")
    recorder.close()
    recorder.record(step=1)
    assert [(r.phase, r.step) for r in read(tmp_path / "events.jsonl")] == [("train", None), (None, 1)]


def test_tail_starts_again_when_the_file_is_truncated_or_replaced(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    tail = Tail(path)
    assert tail.poll() == []
    path.write_bytes(b'{"t":1,"step":1}\n{"t":1,"step":2}\n')
    assert [r.step for r in tail.poll()] == [1, 2]
    path.write_bytes(b'{"t":1,"step":3}\n')
    assert [r.step for r in tail.poll()] == [3]
    (tmp_path / "other").write_bytes(b'{"t":1,"step":4}\n')
    (tmp_path / "other").replace(path)
    assert [r.step for r in tail.poll()] == [4]
    path.unlink()
    assert tail.poll() == []


def test_tail_reads_a_bounded_amount_a_poll(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    one = b'{"t":1,"step":7}\n'
    count = 3 * records.MAX_LINE_BYTES // len(one)
    path.write_bytes(one * count)
    tail = Tail(path)
    sizes = [len(tail.poll(max_bytes=1)) for _ in range(4)]
    assert sum(sizes) == count
    assert max(sizes) <= records.MAX_LINE_BYTES // len(one)
    assert len(read(path)) == count


@pytest.mark.parametrize("ends", [b"\n", b""])
def test_a_line_without_end_is_passed_over(tmp_path: Path, ends: bytes) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"t":1,"step":1}\n' + b"x" * (3 * records.MAX_LINE_BYTES))
    tail = Tail(path)
    found = [r for _ in range(5) for r in tail.poll(max_bytes=1)]
    with path.open("ab") as file:
        file.write(b"x" + ends + b'\n{"t":1,"step":2}\n')
    found += tail.poll()
    assert [r.step for r in found] == [1, 2]
    assert tail.corrupt == 1


def test_a_named_pipe_in_place_of_the_file_does_not_make_the_reader_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "events.jsonl")
    assert Tail(tmp_path / "events.jsonl").poll() == []


def _is_link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def _is_file(path: Path, target: Path) -> None:
    path.write_bytes(target.read_bytes())


@pytest.mark.parametrize(
    ("make", "uid_offset", "count"), [(_is_file, 0, 1), (_is_file, 1, 0), (_is_link, 0, 0), (_is_link, 1, 0)]
)
def test_a_privileged_reader_follows_no_link_and_reads_only_the_users_own(
    tmp_path: Path, make: Callable[[Path, Path], None], uid_offset: int, count: int
) -> None:
    (tmp_path / "target").write_bytes(b'{"t":1}\n')
    make(tmp_path / "events.jsonl", tmp_path / "target")
    tail = Tail(tmp_path / "events.jsonl", opener=open_owned_by(os.getuid() + uid_offset))
    assert len(tail.poll()) == count
