import csv
from pathlib import Path

import pytest

from tandem.core.errors import TraceError
from tandem.share.model import JobClass, Need
from tandem.share.traces import openb

HEADER = (
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n"
)
NODES = "sn,cpu_milli,memory_mib,gpu,model\nn0,32000,262144,0,\nn1,96000,393216,2,T4\n"


def write(tmp_path: Path, rows: str, nodes: str | None = NODES) -> Path:
    path = tmp_path / "pods.csv"
    path.write_text(HEADER + rows)
    if nodes is not None:
        (tmp_path / "nodes.csv").write_text(nodes)
    return path


def test_rows_by_hand(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "p0,12000,16384,1,1000,,LS,Running,100,500,150\n"
        "p1,6000,12288,1,460,V100M16|V100M32,BE,Failed,50,90,60\n"
        "p2,4000,1024,0,0,,Burstable,Succeeded,200,260,200\n"
        "p3,64000,65536,8,1000,,Guaranteed,Pending,300,330,\n",
    )
    work = openb.read(path)
    assert [(a.at, a.work_s, a.job.name) for a in work.arrivals] == [
        (0.0, 30.0, "p1"),
        (50.0, 350.0, "p0"),
        (150.0, 60.0, "p2"),
        (250.0, 30.0, "p3"),
    ]
    assert [a.job.parts[0].need for a in work.arrivals] == [
        Need(6000, 12_288, gpu_milli=460, gpu_type="V100M16|V100M32"),
        Need(12_000, 16_384, gpus=1),
        Need(4000, 1024),
        Need(64_000, 65_536, gpus=8),
    ]
    primary, harvest = JobClass.PRIMARY, JobClass.HARVEST
    assert [a.job.klass for a in work.arrivals] == [harvest, primary, harvest, primary]
    assert [(n.id, n.cpu_milli, n.mem_mib, [g.type for g in n.gpus]) for n in work.nodes] == [
        ("n0", 32_000, 262_144, []),
        ("n1", 96_000, 393_216, ["T4", "T4"]),
    ]
    assert work.notes == ("1 pod never scheduled: the run time counts from creation",)
    assert {a.job.app for a in work.arrivals} == {""}


def test_deleted_before_scheduled_is_skipped_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path, "p0,1000,1,0,0,,LS,Failed,100,120,150\np1,1000,1,0,0,,LS,Failed,100,150,150\n")
    work = openb.read(path)
    assert [(a.job.name, a.work_s) for a in work.arrivals] == [("p1", 1.0)]
    assert work.notes == (
        "1 pod skipped: deleted before being scheduled",
        "1 run time of 0 taken as 1 s",
    )


def test_nodes_may_be_given(tmp_path: Path) -> None:
    path = write(tmp_path, "p0,1000,1,0,0,,LS,Running,0,10,0\n", nodes=None)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "machines.csv").write_text(NODES)
    assert len(openb.read(path, nodes=str(elsewhere / "machines.csv")).nodes) == 2
    with pytest.raises(TraceError, match=r"no nodes' table for .*pods\.csv: .*nodes\.csv is not there"):
        openb.read(path)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("p0,1000,1,0,0,,GOLD,Running,0,10,0", "line 2, column qos: 'GOLD'; allowed: LS, Guaranteed, BE, Burstable"),
        ("p0,1000,1,1,1500,,LS,Running,0,10,0", "column gpu_milli: '1500'; allowed: 0 to 1000"),
        ("p0,1000,1,1,1000,,LS,Running,0,1e15,0", "column deletion_time: '1e15'; allowed: a duration of at most ten"),
        ("p0,1000,1,1,1000,,LS,Running,-1e300,1,0", "column creation_time: '-1e300'; allowed: an instant before"),
        ("p0,lots,1,1,1000,,LS,Running,0,10,0", "column cpu_milli: 'lots'; allowed: a number"),
        ("p0,1000,1,1,1000,,LS,Running,0,,0", "column deletion_time: ''; allowed: a number"),
    ],
)
def test_bad_cells_are_named(tmp_path: Path, row: str, words: str) -> None:
    with pytest.raises(TraceError) as caught:
        openb.read(write(tmp_path, row + "\n"))
    assert words in str(caught.value)


def test_the_whole_trace(openb_trace: Path) -> None:
    work = openb.read(openb_trace)
    with openb_trace.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert (len(work.arrivals), len(work.nodes)) == (8_152, 1_523)
    gpu_milli = sum(int(row["num_gpu"]) * int(row["gpu_milli"]) for row in rows)
    assert sum(a.job.gpu_total_milli for a in work.arrivals) == gpu_milli
    assert sum(a.job.cpu_milli for a in work.arrivals) == sum(int(row["cpu_milli"]) for row in rows)
    seconds = sum(
        max(1, int(row["deletion_time"]) - int(row["scheduled_time"] or row["creation_time"])) for row in rows
    )
    assert sum(a.work_s for a in work.arrivals) == seconds
