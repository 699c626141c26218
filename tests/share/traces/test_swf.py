import gzip
from pathlib import Path

import pytest

from tandem.core.errors import TraceError
from tandem.share.model import Need
from tandem.share.traces import swf

HEADER = "; Version: 2.2\n; MaxNodes: 4\n; MaxProcs: 32\n; Note: made by hand\n"


def row(
    number: int,
    submit: object,
    run: object,
    *,
    used: int = -1,
    asked: int = -1,
    limit: int = -1,
    mem: int = -1,
    status: int = 1,
    user: int = -1,
    executable: int = -1,
) -> str:
    return f"{number} {submit} 5 {run} {used} -1 -1 {asked} {limit} {mem} {status} {user} -1 {executable} -1 -1 -1 -1\n"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "log.swf"
    path.write_text(text)
    return path


def test_rows_by_hand(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        HEADER
        + row(1, 100, 60, asked=20, limit=120, user=7, executable=3)
        + "\n"
        + row(2, 90, 10, used=8)
        + row(3, 300, 500, used=4, asked=2, limit=400),
    )
    work = swf.read(path)
    assert [(a.at, a.work_s, a.job.limit_s, a.job.uid, a.job.app) for a in work.arrivals] == [
        (0.0, 10.0, None, 0, ""),
        (10.0, 60.0, 120.0, 7, "executable-3"),
        (210.0, 500.0, 400.0, 0, ""),
    ]
    # 8 cores a node; 20 processors are 3 nodes of 7; asked for counts before allocated
    assert [(a.job.parts[0].nodes, a.job.parts[0].need) for a in work.arrivals] == [
        (1, Need(8000)),
        (3, Need(7000)),
        (1, Need(2000)),
    ]
    assert [node.cpu_milli for node in work.nodes] == [8000] * 4
    assert work.notes == (
        "4 nodes of 8 cores, from the comments",
        "1 gang rounded up to the same cores on each node",
        "1 job ran past the limit, where a simulated job ends",
    )


def test_what_is_unknown_is_left_out_and_counted(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        HEADER
        + row(1, 0, -1, asked=1)
        + row(2, 0, 5)
        + row(3, -1, 5, asked=1)
        + row(4, 0, 0, asked=1, status=5)
        + row(5, 0, 0, asked=1),
    )
    work = swf.read(path)
    assert [a.work_s for a in work.arrivals] == [1.0]
    assert work.notes[:4] == (
        "1 job skipped: cancelled before running",
        "1 job skipped: processors unknown",
        "1 job skipped: run time unknown",
        "1 job skipped: submit time unknown",
    )


def test_gzip(tmp_path: Path) -> None:
    path = tmp_path / "log.swf.gz"
    path.write_bytes(gzip.compress((HEADER + row(1, 0, 5, asked=1)).encode()))
    assert len(swf.read(path).arrivals) == 1
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(TraceError, match="damaged"):
        swf.read(path)


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("; MaxProcs: 128\n" + row(1, 0, 5, asked=100), [128_000]),
        ("; MaxProcs: 10\n; MaxNodes: 4\n" + row(1, 0, 5, asked=1), [10_000]),
        ("; MaxNodes: 3\n" + row(1, 0, 5, asked=1), [1000] * 3),
        (row(1, 0, 5, asked=6) + row(2, 0, 5, asked=2), [6000]),
    ],
)
def test_the_machine_from_the_comments(tmp_path: Path, text: str, nodes: list[int]) -> None:
    assert [node.cpu_milli for node in swf.read(write(tmp_path, text)).nodes] == nodes


def test_the_machine_as_given_with_memory(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + row(1, 0, 5, asked=12, mem=1_000_000))
    work = swf.read(path, nodes=3, cores=8, mem_mib=16_384)
    assert [(n.cpu_milli, n.mem_mib) for n in work.nodes] == [(8000, 16_384)] * 3
    assert work.arrivals[0].job.parts[0].need == Need(6000, 5860)  # 6 cores x 1,000,000 KB, in MiB, rounded up
    assert swf.read(path).arrivals[0].job.parts[0].need.mem_mib == 0
    assert "memory is not metered" in swf.read(path).notes[-1]
    with pytest.raises(TraceError, match="cores = 8, and nodes is missing; allowed: both or neither"):
        swf.read(path, cores=8)
    with pytest.raises(TraceError, match="nodes = 3, and cores is missing"):
        swf.read(path, nodes=3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEADER + "1 2 3\n", "line 5 has 3 fields; allowed: the 18 fields"),
        (HEADER + row(1, 0, "soon", asked=1), "line 5, column 4 (run time): 'soon'"),
        ("; Version: 2.2\n", "holds no job that ran"),
        (
            HEADER + row(1, 0, "1e15", asked=1),
            "line 5, column 4 (run time): '1e15'; allowed: a duration of at most ten",
        ),
        (HEADER + row(1, "1e300", 5, asked=1), "column 2 (submit time): '1e300'; allowed: an instant before the year"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(TraceError) as caught:
        swf.read(write(tmp_path, text))
    assert words in str(caught.value)


@pytest.mark.parametrize("cell", ["nan", "inf", "--1", "1e999"])
def test_what_is_no_number_is_named(tmp_path: Path, cell: str) -> None:
    with pytest.raises(TraceError, match=r"line 1, column 4 \(run time\)"):
        swf.read(write(tmp_path, row(1, 0, cell, asked=1)))
    assert not swf.sniff(write(tmp_path, row(1, 0, cell, asked=1)))
