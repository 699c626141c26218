"""The Standard Workload Format 2.2 of the Parallel Workloads Archive: 18 numbers a line, -1 is unknown.

Field by field (numbered from 1): submission 2, run time 4, processors asked for 8 (allocated 5 where that is unknown),
memory asked for 10 (KB a processor), time asked for 9, user 12, application 14. Dependencies (17, 18) are not used:
recorded submission times already hold those waits. Comments give the machine: with `MaxNodes` and `MaxProcs` nodes of
MaxProcs / MaxNodes cores, and a job of more processors than a node has is a gang of ceil(p / cores) nodes with
ceil(p / nodes) cores each (a few more than p where that does not divide: counted). Without `MaxNodes` the machine is
one pool of processors, as most simulators of the format take it.

Source: Chapin et al., "Benchmarks and Standards for the Evaluation of Parallel Job Schedulers", JSSPP 1999.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tandem.core.errors import TraceError
from tandem.core.units import counted
from tandem.share.model import Job, Need, Part
from tandem.share.workloads.trace_table import (
    DAMAGED,
    at_most_ten_years,
    bad_cell,
    before_year_10000,
    counted_nodes,
    damaged,
    first_line,
    open_text,
    submission_order,
)
from tandem.share.workloads.workload import Arrival, Workload

EXTENSIONS = (".swf", ".swf.gz")

_FIELDS = (
    "job number",
    "submit time",
    "wait time",
    "run time",
    "allocated processors",
    "average CPU time",
    "used memory",
    "requested processors",
    "requested time",
    "requested memory",
    "status",
    "user",
    "group",
    "executable",
    "queue",
    "partition",
    "preceding job",
    "think time",
)
_HEADER = re.compile(r";\s*(MaxNodes|MaxProcs)\s*:\s*(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Row:
    at: float
    work_s: float
    processors: int
    limit_s: float | None
    mem_kib: int
    user: int
    executable: int


def sniff(path: Path) -> bool:
    """Whether the first line is a comment of the format or has its 18 numbers."""
    line = first_line(path)
    if line.startswith(";"):
        return True
    cells = line.split()
    return len(cells) == len(_FIELDS) and all(math.isfinite(_number(cell)) for cell in cells)


def read(path: Path, *, nodes: int = 0, cores: int = 0, mem_mib: int = 0) -> Workload:
    """Read the history.

    Args:
        path: the file, gzipped or not.
        nodes, cores: the machine, where the comments do not say it or should not count; 0 takes the comments.
        mem_mib: memory of a node; 0 leaves memory out, of nodes and of jobs.

    Raises:
        TraceError: A line has not 18 numbers, or the file says nothing of the machine and holds no job.
    """
    header, rows, notes = _lines(path)
    most = max((row.processors for row in rows), default=0)
    shapes: dict[tuple[int, int], tuple[Part, ...]] = {}
    nodes, cores, words = _machine(path, header, nodes, cores, most)
    notes.append(words)
    order = submission_order([row.at for row in rows])
    start = rows[order[0]].at if order else 0.0
    arrivals = []
    for job_id, i in enumerate(order, start=1):
        row = rows[i]
        shape = (row.processors, row.mem_kib if mem_mib else 0)
        parts = shapes.get(shape) or shapes.setdefault(shape, _parts(*shape, cores))
        job = Job(
            job_id,
            parts,
            app=f"executable-{row.executable}" if row.executable >= 0 else "",
            uid=max(0, row.user),
            limit_s=row.limit_s,
        )
        arrivals.append(Arrival(row.at - start, job, row.work_s))
    rounded = sum(a.job.cpu_milli > 1000 * rows[i].processors for a, i in zip(arrivals, order, strict=True))
    if rounded:
        notes.append(f"{counted(rounded, 'gang')} rounded up to the same cores on each node")
    over = sum(row.limit_s is not None and row.work_s > row.limit_s for row in rows)
    if over:
        notes.append(f"{counted(over, 'job')} ran past the limit, where a simulated job ends")
    if any(row.mem_kib > 0 for row in rows) and not mem_mib:
        notes.append("memory is not metered: give mem_mib, the memory of a node")
    return Workload(counted_nodes(nodes, cores, 0, mem_mib), tuple(arrivals), path.name, tuple(notes))


def _lines(path: Path) -> tuple[dict[str, int], list[_Row], list[str]]:
    header: dict[str, int] = {}
    rows: list[_Row] = []
    skipped: Counter[str] = Counter()
    line = 0
    with open_text(path) as file:
        try:
            for line, text in enumerate(file, start=1):
                if text.startswith(";"):
                    match = _HEADER.match(text)
                    if match:
                        header[match[1].lower()] = int(match[2])
                    continue
                cells = text.split()
                if not cells:
                    continue
                row = _row(path, line, cells)
                if isinstance(row, str):
                    skipped[row] += 1
                else:
                    rows.append(row)
        except DAMAGED as error:
            raise damaged(path, line, error) from error
    return header, rows, [f"{counted(count, 'job')} skipped: {why}" for why, count in sorted(skipped.items())]


def _row(path: Path, line: int, cells: list[str]) -> _Row | str:
    """Return the job of a line, or why it is left out."""
    if len(cells) != len(_FIELDS):
        raise TraceError(
            given=f"{path} line {line} has {len(cells)} fields",
            allowed=f"the {len(_FIELDS)} fields of SWF 2.2, -1 for what is unknown",
            todo="correct the line or remove it",
        )
    values = [_number(cell) for cell in cells]
    if math.nan in values:  # the very object that `_number` gives
        bad = next(i for i, value in enumerate(values) if value is math.nan)
        raise bad_cell(path, line, _column(bad), cells[bad], "a number, -1 unknown")
    before_year_10000(path, line, _column(1), cells[1], values[1])
    for i in (3, 8):
        at_most_ten_years(path, line, _column(i), cells[i], values[i])
    at, work_s = values[1], values[3]
    processors = int(values[7]) if values[7] > 0 else int(values[4])
    if at < 0:
        return "submit time unknown"
    if work_s < 0:
        return "run time unknown"
    if work_s == 0 and int(values[10]) == 5:
        return "cancelled before running"
    if processors <= 0:
        return "processors unknown"
    return _Row(
        at,
        max(work_s, 1.0),
        processors,
        values[8] if values[8] > 0 else None,
        int(max(0.0, values[9])),
        int(values[11]),
        int(values[13]),
    )


def _column(i: int) -> str:
    return f"{i + 1} ({_FIELDS[i]})"


def _number(cell: str) -> float:
    """Return the number, or `math.nan` itself where it is none."""
    try:
        value = float(cell)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def _machine(path: Path, header: dict[str, int], nodes: int, cores: int, most: int) -> tuple[int, int, str]:
    """Return nodes, cores a node, and in words where they come from."""
    if nodes and cores:
        return nodes, cores, f"{counted(nodes, 'node')} of {counted(cores, 'core')}, as given"
    if nodes or cores:
        here, missing = (f"nodes = {nodes}", "cores") if nodes else (f"cores = {cores}", "nodes")
        raise TraceError(
            given=f"{here}, and {missing} is missing", allowed="both or neither", todo=f"add --set {missing}=..."
        )
    processors = header.get("maxprocs", 0) or header.get("maxnodes", 0)
    if not processors and not most:
        raise TraceError(
            given=f"{path} holds no job that ran, and its comments no MaxProcs",
            allowed="a file with jobs",
            todo="check that the file is whole",
        )
    count = header.get("maxnodes", 0)
    if count and processors % count == 0:
        cores = processors // count
        return count, cores, f"{counted(count, 'node')} of {counted(cores, 'core')}, from the comments"
    if processors:
        return 1, processors, f"one pool of {counted(processors, 'processor')}, from the comments"
    return 1, most, f"one pool of {counted(most, 'processor')}: the largest job, since the comments say nothing"


def _parts(processors: int, mem_kib: int, cores: int) -> tuple[Part, ...]:
    nodes = -(-processors // cores)
    each = -(-processors // nodes)
    return (Part(Need(cpu_milli=1000 * each, mem_mib=-(-mem_kib * each // 1024)), nodes=nodes),)
