from pathlib import Path

import pytest

from tandem.core.errors import TraceError
from tandem.share.model import JobClass, Need
from tandem.share.traces import sacct
from tandem.share.workloads.workload import Workload

FULL = """\
State|JobID|JobName|User|Submit|Start|End|ElapsedRaw|Timelimit|ReqCPUS|AllocCPUS|NNodes|ReqMem|ReqTRES|QOS|Priority
COMPLETED|10|train|ann|2024-03-01T10:00:00|2024-03-01T10:05:00|2024-03-01T11:05:00|3600|02:00:00|8|8|2|32G|\
billing=8,cpu=8,gres/gpu:a100=4,gres/gpu=4,mem=32G,node=2|normal|1000
COMPLETED|10.batch|batch||2024-03-01T10:05:00|2024-03-01T10:05:00|2024-03-01T11:05:00|3600||4|4|1||||
TIMEOUT|11_3|sweep|bob|2024-03-01T10:01:00|2024-03-01T10:10:00|2024-03-01T10:20:00|600|00:10:00|4|64|1|4000Mn||scavenger|1
COMPLETED|11_4|sweep|bob|2024-03-01T10:01:00|2024-03-01T10:10:00|2024-03-01T10:10:30|30|UNLIMITED|3|64|1|2Gc|cpu=3|normal|1
RUNNING|12|now|ann|2024-03-01T10:02:00|2024-03-01T10:10:00|Unknown|99|1-00:00:00|1|1|1|1G||normal|1
PENDING|13_[1-9]|soon|ann|2024-03-01T10:02:00|Unknown|Unknown|0|Partition_Limit|1|0|1|1G||normal|1
CANCELLED by 17|14|never|ann|2024-03-01T10:02:00|None|2024-03-01T10:03:00|0|Partition_Limit|1|0|1|1G||normal|1
"""


def write(tmp_path: Path, text: str = FULL) -> Path:
    path = tmp_path / "history.txt"
    path.write_text(text)
    return path


def read_cell(tmp_path: Path, column: str, cell: str) -> Workload:
    """One job with one more column."""
    header = f"JobID|Submit|Elapsed|AllocCPUS|NNodes|{column}\n"
    return sacct.read(write(tmp_path, f"{header}1|2024-03-01T10:00:00|00:10:00|8|2|{cell}\n"), mem_mib=1 << 20)


def test_rows_by_hand(tmp_path: Path) -> None:
    work = sacct.read(write(tmp_path), mem_mib=65_536)
    assert [(a.at, a.work_s, a.job.app, a.job.limit_s, a.job.uid, a.job.array) for a in work.arrivals] == [
        (0.0, 3600.0, "train", 7200.0, 1, None),
        (60.0, 600.0, "sweep", 600.0, 2, (2, 3)),
        (60.0, 30.0, "sweep", None, 2, (2, 4)),
    ]
    assert [(a.job.parts[0].nodes, a.job.parts[0].need) for a in work.arrivals] == [
        (2, Need(4000, 16_384, gpus=2, gpu_type="a100")),
        (1, Need(4000, 4000)),
        (1, Need(3000, 6144)),
    ]
    assert [a.job.klass for a in work.arrivals] == [JobClass.PRIMARY, JobClass.HARVEST, JobClass.PRIMARY]
    assert {a.job.priority for a in work.arrivals} == {0}
    assert work.notes[:3] == (
        "1 job skipped: never ran",
        "2 jobs skipped: not ended yet",
        "1 job at the limit: the true run time is at least that",
    )


def test_nodes_are_inferred_from_the_largest_job_and_the_peak(tmp_path: Path) -> None:
    work = sacct.read(write(tmp_path))
    # from 10:10:00 to 10:10:30 8 + 4 + 3 cores and 4 GPUs are in use; the largest part is 4 cores and 2 GPUs
    assert [(n.cpu_milli, [g.type for g in n.gpus]) for n in work.nodes] == [(4000, ["a100", "a100"])] * 4
    assert any(note.startswith("4 nodes of 4 cores and 2 GPUs: inferred") for note in work.notes)
    assert any("memory is not metered" in note for note in work.notes)
    assert {a.job.parts[0].need.mem_mib for a in work.arrivals} == {0}


def test_nodes_as_given(tmp_path: Path) -> None:
    work = sacct.read(write(tmp_path), nodes=2, cores=32, gpus=4, mem_mib=1000)
    assert [(n.cpu_milli, len(n.gpus), n.mem_mib) for n in work.nodes] == [(32_000, 4, 1000)] * 2
    assert "2 nodes of 32 cores and 4 GPUs, as given" in work.notes


def test_nodes_from_sinfo(tmp_path: Path) -> None:
    (tmp_path / "nodes.txt").write_text("NODELIST|CPUS|MEMORY|GRES\na|32|1000|gpu:a100:4\nb|16|1000|(null)\n")
    work = sacct.read(write(tmp_path), nodes_file=str(tmp_path / "nodes.txt"))
    assert [(n.id, n.cpu_milli, len(n.gpus)) for n in work.nodes] == [("a", 32_000, 4), ("b", 16_000, 0)]
    assert work.arrivals[0].job.parts[0].need.mem_mib == 16_384


def test_priorities_and_harvest_only_when_asked_for(tmp_path: Path) -> None:
    work = sacct.read(write(tmp_path), priorities=1, harvest_qos="normal")
    assert [a.job.priority for a in work.arrivals] == [1000, 1, 1]
    harvest, primary = JobClass.HARVEST, JobClass.PRIMARY
    assert [a.job.klass for a in work.arrivals] == [harvest, primary, harvest]


@pytest.mark.parametrize(
    ("cell", "mem_mib"),
    [("4G", 2048), ("4000Mn", 4000), ("2Gc", 8192), ("512K", 1), ("0", 0), ("", 0), ("1.5Gn", 1536), ("100", 50)],
)
def test_memory_forms(tmp_path: Path, cell: str, mem_mib: int) -> None:
    # 8 cores on 2 nodes: without n or c it is the whole job's
    assert read_cell(tmp_path, "ReqMem", cell).arrivals[0].job.parts[0].need.mem_mib == mem_mib


@pytest.mark.parametrize(
    ("column", "cell", "limit_s"),
    [
        ("Timelimit", "1-02:03:04", 93_784.0),
        ("Timelimit", "10:00", 600.0),
        ("Timelimit", "UNLIMITED", None),
        ("Timelimit", "Partition_Limit", None),
        ("TimelimitRaw", "90", 5400.0),
    ],
)
def test_limit_forms(tmp_path: Path, column: str, cell: str, limit_s: float | None) -> None:
    assert read_cell(tmp_path, column, cell).arrivals[0].job.limit_s == limit_s


@pytest.mark.parametrize(
    ("cell", "gpus", "gpu_type"),
    [
        ("cpu=8,gres/gpu=2,node=2", 1, ""),
        ("gres/gpu:a100=4", 2, "a100"),
        ("gres/gpu:a100=3,gres/gpu=3", 2, "a100"),
        ("cpu=8,mem=4G", 0, ""),
        ("", 0, ""),
    ],
)
def test_gpu_forms(tmp_path: Path, cell: str, gpus: int, gpu_type: str) -> None:
    need = read_cell(tmp_path, "AllocTRES", cell).arrivals[0].job.parts[0].need
    assert (need.gpus, need.gpu_type) == (gpus, gpu_type)


def test_types_are_left_out_where_the_nodes_are_unknown(tmp_path: Path) -> None:
    text = (
        "JobID|Submit|Elapsed|ReqTRES\n"
        "1|2024-03-01T10:00:00|10:00|cpu=4,gres/gpu:a100=1\n"
        "2|1709287200|0|cpu=2,gres/gpu:t4=1\n"
        "3|1709287300|05:00|cpu=2,gres/gpu:t4=1\n"
    )
    work = sacct.read(write(tmp_path, text))
    assert {a.job.parts[0].need.gpu_type for a in work.arrivals} == {""}
    assert [a.job.cpu_milli for a in work.arrivals] == [4000, 2000]
    assert [a.at for a in work.arrivals] == [0.0, 100.0]  # 10:00:00 UTC is 1709287200
    assert any("GPU types are left out" in note for note in work.notes)


@pytest.mark.parametrize("delimiter", [";", ",", "\t"])
def test_other_delimiters(tmp_path: Path, delimiter: str) -> None:
    text = "JobID|Submit|ElapsedRaw|ReqCPUS|JobName\n1|2024-03-01T10:00:00|5|2|a \"quoted' name\n"
    path = write(tmp_path, text.replace("|", delimiter))
    assert sacct.sniff(path)
    assert sacct.read(path).arrivals[0].job.app == "a \"quoted' name"


def test_a_missing_column_names_the_command_and_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(TraceError) as caught:
        sacct.read(write(tmp_path, "JobID|Sumbit|Elapsed|ReqCPUS\n"))
    words = str(caught.value)
    assert "no column 'Submit'" in words
    assert "the columns are JobID, Sumbit, Elapsed, ReqCPUS" in words
    assert "did you mean 'Sumbit'?" in words
    assert "run: sacct -P -X -a" in words
    with pytest.raises(TraceError, match="'ReqCPUS' or 'AllocCPUS' or 'ReqTRES' or 'AllocTRES'"):
        sacct.read(write(tmp_path, "JobID|Submit|Elapsed\n"))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("1|yesterday|5|1|n", "line 2, column Submit: 'yesterday'"),
        ("1|2024-03-01T10:00:00|999999999999|1|n", "column ElapsedRaw: '999999999999'; allowed: a duration of at most"),
        ("1|999999999999999|5|1|n", "column Submit: '999999999999999'; allowed: an instant before the year 10000"),
        ("1|2024-03-01T10:00:00|a while|1|n", "line 2, column ElapsedRaw: 'a while'"),
        ("1|2024-03-01T10:00:00|5|few|n", "line 2, column ReqCPUS: 'few'"),
        ("1|2024-03-01T10:00:00|5|1|a|b", "line 2 has 6 cells; allowed: 5 cells"),
    ],
)
def test_bad_cells_are_named(tmp_path: Path, row: str, words: str) -> None:
    with pytest.raises(TraceError) as caught:
        sacct.read(write(tmp_path, f"JobID|Submit|ElapsedRaw|ReqCPUS|JobName\n{row}\n"))
    assert words in str(caught.value)


def test_negative_run_times_are_counted(tmp_path: Path) -> None:
    work = sacct.read(write(tmp_path, "JobID|Submit|ElapsedRaw|ReqCPUS\n1|2024-03-01T10:00:00|-5|1\n"))
    assert work.arrivals == ()
    assert "1 job skipped: negative run time" in work.notes
