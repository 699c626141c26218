import csv
from pathlib import Path

import pytest

from tandem.core.errors import TraceError
from tandem.share.model import JobClass, Need
from tandem.share.traces import philly

HEADER = "timestamp,duration,num_gpus,gpu_time,cluster\n"


def write(tmp_path: Path, rows: str, header: str = HEADER) -> Path:
    path = tmp_path / "philly.csv"
    path.write_text(header + rows)
    return path


def test_rows_by_hand(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "2017-10-09 07:01:55,66.0,1,66.0,beta\n"
        "2017-10-09 07:00:00,3600.0,8,28800.0,alpha\n"
        "2017-10-09 08:00:00,10.0,6,60.0,beta\n"
        "2017-10-09 08:00:00,20.0,0,0.0,beta\n",
    )
    work = philly.read(path, nodes=3)
    assert [a.at for a in work.arrivals] == [0.0, 115.0, 3600.0, 3600.0]
    assert [a.work_s for a in work.arrivals] == [3600.0, 66.0, 10.0, 20.0]
    parts = [a.job.parts[0] for a in work.arrivals]
    assert [(p.nodes, p.need) for p in parts] == [
        (2, Need(16_000, gpus=4)),
        (1, Need(4_000, gpus=1)),
        (2, Need(16_000, gpus=4)),  # 6 GPUs: two whole nodes
        (1, Need(4_000)),
    ]
    assert [a.job.id for a in work.arrivals] == [1, 2, 3, 4]
    assert [a.job.uid for a in work.arrivals] == [1, 2, 2, 2]
    assert {(a.job.app, a.job.limit_s, a.job.klass) for a in work.arrivals} == {("", None, JobClass.PRIMARY)}
    assert len(work.nodes) == 3
    assert (work.nodes[0].cpu_milli, len(work.nodes[0].gpus)) == (48_000, 4)
    assert "1 gang rounded up to whole nodes of 4 GPUs" in work.notes
    assert "time 0 is 2017-10-09 07:00:00" in work.notes


def test_other_nodes(tmp_path: Path) -> None:
    path = write(tmp_path, "2017-10-09 07:01:55,66.0,8,66.0,x\n")
    work = philly.read(path, nodes=1, gpus=8, cores=64, cores_per_gpu=8, mem_mib=1024)
    assert work.arrivals[0].job.parts[0].need == Need(64_000, gpus=8)
    assert work.nodes[0].mem_mib == 1024


def test_columns_in_any_order_and_more_of_them(tmp_path: Path) -> None:
    path = write(tmp_path, "9,2017-10-09 07:01:55,2,5\n", "note,timestamp,num_gpus,duration\n")
    (arrival,) = philly.read(path).arrivals
    assert (arrival.work_s, arrival.job.gpu_total_milli) == (5.0, 2000)


def test_negative_and_zero_durations_are_counted(tmp_path: Path) -> None:
    rows = "".join(f"2017-10-09 07:01:55,{d},1,1,x\n" for d in ("-1.0", "0.0", "-2", "5"))
    work = philly.read(write(tmp_path, rows))
    assert [a.work_s for a in work.arrivals] == [1.0, 5.0]
    assert work.notes[:2] == ("2 jobs skipped: negative duration", "1 duration of 0 taken as 1 s")


def test_jobs_larger_than_the_machine_are_counted_not_lost(tmp_path: Path) -> None:
    work = philly.read(write(tmp_path, "2017-10-09 07:01:55,66.0,128,66.0,x\n"), nodes=2)
    assert len(work.arrivals) == 1
    assert "1 job asking for more than the 8 GPUs there are (up to 128)" in work.notes


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("2017-10-09 07:01:55,soon,1,1,x\n", "line 2, column duration: 'soon'; allowed: a number"),
        ("yesterday,5,1,1,x\n", "line 2, column timestamp: 'yesterday'; allowed: a date"),
        ("2017-10-09 07:01:55,5,1,1,x\n2017-10-09 07:01:55,5,1.5,1,x\n", "line 3, column num_gpus: '1.5'"),
        ("2017-10-09 07:01:55,5,-1,1,x\n", "column num_gpus: '-1'; allowed: a whole number"),
        ("2017-10-09 07:01:55,nan,1,1,x\n", "column duration: 'nan'"),
        ("2017-10-09 07:01:55,5,1\n", "line 2 has 3 cells; allowed: 5 cells"),
    ],
)
def test_bad_cells_are_named(tmp_path: Path, rows: str, words: str) -> None:
    with pytest.raises(TraceError) as caught:
        philly.read(write(tmp_path, rows))
    assert words in str(caught.value)
    assert str(tmp_path / "philly.csv") in str(caught.value)


def test_a_missing_column_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(
        TraceError, match=r"no column 'num_gpus'.*columns are timestamp, duration, num_gpu.*'num_gpu'\?"
    ):
        philly.read(write(tmp_path, "", "timestamp,duration,num_gpu\n"))


def test_impossible_nodes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="4 GPUs and 8 cores, 4 cores a GPU"):
        philly.read(write(tmp_path, ""), cores=8)


def test_no_rows_is_no_job(tmp_path: Path) -> None:
    assert philly.read(write(tmp_path, "")).arrivals == ()


@pytest.mark.slow
def test_the_whole_trace(philly_trace: Path) -> None:
    work = philly.read(philly_trace)
    with philly_trace.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(work.arrivals) == len(rows) == 82_247
    assert sum(a.work_s for a in work.arrivals) == pytest.approx(sum(float(row["duration"]) for row in rows))
    asked = sum(-(-int(g) // 4) * 4 if int(g) > 4 else int(g) for g in (row["num_gpus"] for row in rows))
    assert sum(a.job.gpu_total_milli for a in work.arrivals) == 1000 * asked
    assert [a.job.id for a in work.arrivals] == list(range(1, 82_248))


@pytest.mark.parametrize("duration", ["1e15", "1e100", "1e308"])
def test_a_duration_that_nobody_could_wait_for_is_named(tmp_path: Path, duration: str) -> None:
    path = write(tmp_path, f"2017-10-01 00:00:00,66.0,1,66.0,x\n2017-10-01 00:00:00,{duration},4,1,x\n")
    with pytest.raises(TraceError, match=f"line 3, column duration: '{duration}'; allowed: a duration of at most ten"):
        philly.read(path)


def test_more_nodes_than_can_be_played_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "2017-10-01 00:00:00,66.0,1,66.0,x\n")
    with pytest.raises(TraceError, match="100000000 nodes of 4 GPUs; allowed: at most 50000 nodes"):
        philly.read(path, nodes=100_000_000)
