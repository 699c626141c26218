"""A Slurm cluster's own history: the output of `sacct -P` with its header row, columns in any order.

    sacct -P -X -a -S now-30days -E now --format=JobID,JobName,User,Submit,Start,End,ElapsedRaw,Timelimit,ReqCPUS,\
NNodes,ReqMem,ReqTRES,State,QOS > history.txt

Steps ("12.batch") are left out; array elements ("12_3") stay together. A job's application is its name. Jobs that have
not ended, or never ran, are left out and counted. Memory with "n" is a node's, with "c" a core's, and without either
the whole job's (as Slurm 21.08 and later report it). A heterogeneous job's components ("12+0") count as jobs of
their own. The nodes: `nodes_file` (the output of `sinfo -N -o "%N|%c|%m|%G"`) or `nodes`, `cores`, `gpus`; what is
not given is inferred from the largest job and the peak use, and the notes say so.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from tandem.core.units import counted
from tandem.share.model import Job, JobClass, Need, Node, Part
from tandem.share.workloads.slurm_nodes import read_nodes
from tandem.share.workloads.trace_table import (
    Table,
    at_most_ten_years,
    bad_cell,
    before_year_10000,
    counted_nodes,
    first_line,
    open_table,
    submission_order,
    whole,
)
from tandem.share.workloads.workload import Arrival, Workload

EXTENSIONS = (".txt", ".sacct", ".psv", ".csv", ".txt.gz", ".sacct.gz")
COMMAND = (
    "sacct -P -X -a -S now-30days -E now --format=JobID,JobName,User,Submit,Start,End,ElapsedRaw,Timelimit,"
    "ReqCPUS,NNodes,ReqMem,ReqTRES,State,QOS"
)

_DELIMITERS = "|;,\t"
_NOT_ENDED = frozenset(
    {"PENDING", "RUNNING", "SUSPENDED", "REQUEUED", "RESIZING", "CONFIGURING", "COMPLETING", "STAGE_OUT", "STOPPED"}
)
_NO_TIME = frozenset({"", "unknown", "none", "n/a", "invalid"})
_NO_LIMIT = _NO_TIME | {"unlimited", "partition_limit"}
_CLOCK = re.compile(r"(?:(?P<d>\d+)-)?(?:(?P<h>\d+):)?(?P<m>\d+):(?P<s>\d+(?:\.\d+)?)")
_MEMORY = re.compile(r"(?P<n>\d+(?:\.\d+)?)(?P<unit>[KMGTP]?)(?P<per>[cn]?)", re.IGNORECASE)
_MIB = {"K": 1 / 1024, "": 1.0, "M": 1.0, "G": 1024.0, "T": 1024.0**2, "P": 1024.0**3}


@dataclass(frozen=True, slots=True)
class _Row:
    at: float
    start: float
    work_s: float
    part: Part
    name: str
    user: str
    klass: JobClass
    limit_s: float | None
    priority: int
    array: tuple[str, int] | None


def sniff(path: Path) -> bool:
    """Whether the first line is a delimited header with a JobID column."""
    line = first_line(path)
    return any(d in line and "jobid" in [cell.strip().lower() for cell in line.split(d)] for d in _DELIMITERS)


def read(
    path: Path,
    *,
    nodes_file: str = "",
    nodes: int = 0,
    cores: int = 0,
    gpus: int = 0,
    mem_mib: int = 0,
    harvest_qos: str = "scavenger,scavenge,preempt,preemptible,standby,idle,spot,besteffort",
    priorities: int = 0,
) -> Workload:
    """Read the history.

    Args:
        path: the output of `sacct -P`, gzipped or not; another delimiter is recognised by the header.
        nodes_file: the output of `sinfo -N -o "%N|%c|%m|%G"`.
        nodes, cores, gpus, mem_mib: equal nodes, where there is no ``nodes_file``; 0 is inferred (memory: left out).
        harvest_qos: QOS names, with commas, whose jobs are harvest; all others are primary.
        priorities: 1 takes the column Priority as the jobs' priority. Slurm's number holds ages and fair shares of
            that day, so by default it is left out.

    Raises:
        TraceError: A column is missing, or a cell cannot be understood.
    """
    table = _open(path)
    rows, notes = _Columns(table, harvest_qos, bool(priorities)).read()
    if nodes_file:
        return Workload(read_nodes(Path(nodes_file)), _arrivals(rows, lambda part: part), path.name, tuple(notes))
    machines, as_the_nodes_are, words = _inferred(rows, nodes, cores, gpus, mem_mib)
    return Workload(machines, _arrivals(rows, as_the_nodes_are), path.name, (*notes, *words))


def _open(path: Path) -> Table:
    line = first_line(path)
    found = [d for d in _DELIMITERS if "jobid" in [cell.strip().lower() for cell in line.split(d)]]
    return open_table(path, found[0] if found else "|", quoting=False)


class _Columns:
    """The columns of the table, and how a row becomes a job."""

    def __init__(self, table: Table, harvest_qos: str, priorities: bool) -> None:
        self._table = table
        self._harvest = {name.strip().lower() for name in harvest_qos.split(",") if name.strip()}
        todo = f"run: {COMMAND}"
        self._id, self._submit = table.column("JobID", todo=todo), table.column("Submit", todo=todo)
        self._elapsed = table.column("ElapsedRaw", "Elapsed", todo=todo)
        self._cpus = [i for name in ("ReqCPUS", "AllocCPUS", "NCPUS") if (i := table.optional(name)) is not None]
        self._tres = [i for name in ("ReqTRES", "AllocTRES") if (i := table.optional(name)) is not None]
        if not self._cpus and not self._tres:
            table.column("ReqCPUS", "AllocCPUS", "ReqTRES", "AllocTRES", todo=todo)
        self._name, self._user = table.optional("JobName"), table.optional("User", "UID")
        self._start, self._state = table.optional("Start"), table.optional("State")
        self._limit = table.optional("Timelimit")
        self._limit_raw = table.optional("TimelimitRaw")
        self._memory, self._nodes = table.optional("ReqMem"), table.optional("NNodes", "ReqNodes", "AllocNodes")
        self._qos = table.optional("QOS")
        self._priority = table.optional("Priority") if priorities else None

    def read(self) -> tuple[list[_Row], list[str]]:
        """Return the jobs that ran to an end, and notes on what was left out."""
        rows: list[_Row] = []
        skipped: Counter[str] = Counter()
        for line, row in self._table.rows():
            cells = [cell.strip() for cell in row]
            if "." in cells[self._id]:
                continue
            found = self._row(line, cells)
            if isinstance(found, str):
                skipped[found] += 1
            else:
                rows.append(found)
        notes = [f"{counted(count, 'job')} skipped: {why}" for why, count in sorted(skipped.items())]
        over = sum(row.limit_s is not None and row.work_s >= row.limit_s for row in rows)
        if over:
            notes.append(f"{counted(over, 'job')} at the limit: the true run time is at least that")
        return rows, notes

    def _row(self, line: int, cells: list[str]) -> _Row | str:
        """Return the job of a row, or why it is left out."""
        state = cells[self._state].split()[0].upper() if self._state is not None and cells[self._state] else ""
        if state in _NOT_ENDED:
            return "not ended yet"
        at = self._time(line, "Submit", cells[self._submit])
        if at is None:
            return "submission time unknown"
        text = cells[self._elapsed]
        work_s = self._duration(line, self._table.header[self._elapsed], text)
        if work_s is None:
            return "run time unknown"
        if work_s < 0:
            return "negative run time"
        start = self._time(line, "Start", cells[self._start]) if self._start is not None else at
        if work_s == 0 and (start is None or not state.startswith(("COMPLETED", "FAILED"))):
            return "never ran"
        qos = cells[self._qos].lower() if self._qos is not None else ""
        return _Row(
            at=at,
            start=at if start is None else start,
            work_s=max(work_s, 1.0),
            part=self._part(line, cells),
            name=cells[self._name] if self._name is not None else "",
            user=cells[self._user] if self._user is not None else "",
            klass=JobClass.HARVEST if qos in self._harvest else JobClass.PRIMARY,
            limit_s=self._limit_s(line, cells),
            priority=self._count(line, cells, self._priority),
            array=_array(cells[self._id]),
        )

    def _part(self, line: int, cells: list[str]) -> Part:
        nodes = max(1, self._count(line, cells, self._nodes))
        tres = [_tres(cells[i]) for i in self._tres]
        cpus = next((n for i in self._cpus if (n := self._count(line, cells, i)) > 0), 0)
        cpus = cpus or next((int(t["cpu"]) for t in tres if t.get("cpu", "").isdigit()), 1)
        gpus, gpu_type = next((found for t in tres if (found := _gpus(t))[0]), (0, ""))
        need = Need(
            cpu_milli=1000 * -(-cpus // nodes),
            mem_mib=self._mem_mib(line, cells, cpus, nodes),
            gpus=-(-gpus // nodes),
            gpu_type=gpu_type,
        )
        return Part(need, nodes)

    def _count(self, line: int, cells: list[str], column: int | None) -> int:
        if column is None or cells[column].lower() in _NO_TIME:
            return 0
        return whole(self._table, line, self._table.header[column], cells[column])

    def _time(self, line: int, column: str, text: str) -> float | None:
        if text.lower() in _NO_TIME:
            return None
        if text.isdigit():
            return before_year_10000(self._table.path, line, column, text, float(text))
        try:
            return (datetime.fromisoformat(text).replace(tzinfo=None) - datetime(1970, 1, 1)).total_seconds()
        except ValueError:
            raise bad_cell(
                self._table.path, line, column, text, "2024-01-31T12:00:00, Unix seconds, or Unknown"
            ) from None

    def _duration(self, line: int, column: str, text: str) -> float | None:
        """Read seconds, or [days-][hours:]minutes:seconds; None where it is unknown or has no limit."""
        if text.lower() in _NO_LIMIT:
            return None
        if text.lstrip("-").isdigit():
            return at_most_ten_years(self._table.path, line, column, text, float(text))
        match = _CLOCK.fullmatch(text)
        if match is None:
            raise bad_cell(self._table.path, line, column, text, "seconds, [days-][hours:]minutes:seconds, Unknown")
        days, hours, minutes = (int(match[k] or 0) for k in ("d", "h", "m"))
        seconds = 86_400 * days + 3_600 * hours + 60 * minutes + float(match["s"])
        return at_most_ten_years(self._table.path, line, column, text, seconds)

    def _limit_s(self, line: int, cells: list[str]) -> float | None:
        if self._limit is not None:
            limit_s = self._duration(line, "Timelimit", cells[self._limit])
        elif self._limit_raw is not None:  # minutes
            minutes = self._duration(line, "TimelimitRaw", cells[self._limit_raw])
            limit_s = None if minutes is None else 60 * minutes
        else:
            limit_s = None
        return limit_s if limit_s else None

    def _mem_mib(self, line: int, cells: list[str], cpus: int, nodes: int) -> int:
        if self._memory is None or cells[self._memory].lower() in _NO_TIME:
            return 0
        match = _MEMORY.fullmatch(cells[self._memory])
        if match is None:
            raise bad_cell(self._table.path, line, "ReqMem", cells[self._memory], "4G, 4000Mn (a node), 2Gc (a core)")
        mib = float(match["n"]) * _MIB[match["unit"].upper()]
        per = match["per"].lower()
        each = mib if per == "n" else mib * -(-cpus // nodes) if per == "c" else mib / nodes
        return -int(-each // 1)


def _tres(text: str) -> dict[str, str]:
    """Read "cpu=4,gres/gpu=1" as a mapping."""
    return {key: value for key, _, value in (pair.partition("=") for pair in text.split(",")) if value}


def _gpus(tres: dict[str, str]) -> tuple[int, str]:
    """Return how many GPUs and of which type; the typed entry repeats the count of the plain one."""
    typed = {k.partition(":")[2]: int(v) for k, v in tres.items() if k.startswith("gres/gpu:") and v.isdigit()}
    plain = tres.get("gres/gpu", "")
    count = int(plain) if plain.isdigit() else sum(typed.values())
    return count, "|".join(sorted(typed))


def _array(job_id: str) -> tuple[str, int] | None:
    first, _, index = job_id.partition("_")
    return (first, int(index)) if index.isdigit() else None


def _arrivals(rows: list[_Row], fitted: Callable[[Part], Part]) -> tuple[Arrival, ...]:
    """Return the arrivals, each part as ``fitted`` to what is known of the nodes."""
    order = submission_order([row.at for row in rows])
    start = rows[order[0]].at if order else 0.0
    uids = {user: uid for uid, user in enumerate(sorted({row.user for row in rows}), start=1)}
    parts: dict[Part, tuple[Part, ...]] = {row.part: () for row in rows}
    for part in parts:
        parts[part] = (fitted(part),)
    heads: dict[str, int] = {}
    arrivals = []
    for job_id, i in enumerate(order, start=1):
        row = rows[i]
        job = Job(
            job_id,
            parts[row.part],
            name=row.name,
            app=row.name,
            uid=uids[row.user],
            klass=row.klass,
            limit_s=row.limit_s,
            priority=row.priority,
            array=(heads.setdefault(row.array[0], job_id), row.array[1]) if row.array else None,
        )
        arrivals.append(Arrival(row.at - start, job, row.work_s))
    return tuple(arrivals)


def _inferred(
    rows: list[_Row], nodes: int, cores: int, gpus: int, mem_mib: int
) -> tuple[tuple[Node, ...], Callable[[Part], Part], list[str]]:
    """Return nodes, how a part is told to what is known of them, and notes on what was assumed."""
    needs = [(row.part.need, row.part.nodes) for row in rows]
    given = bool(nodes and cores)
    cores = cores or max((need.cpu_milli for need, _ in needs), default=1000) // 1000
    gpus = gpus or max((need.gpus for need, _ in needs), default=0)
    if not nodes:
        peak_cores = _peak(rows, [count * need.cpu_milli / 1000 for need, count in needs])
        peak_gpus = _peak(rows, [float(count * need.gpus) for need, count in needs])
        most = max((count for _, count in needs), default=1)
        nodes = int(max(most, -(-peak_cores // cores), -(-peak_gpus // gpus) if gpus else 0))
    notes = [f"{counted(nodes, 'node')} of {counted(cores, 'core')} and {counted(gpus, 'GPU')}"]
    if given:
        notes[0] += ", as given"
    else:
        notes[0] += ": inferred from the largest job and the peak use; give nodes_file or nodes, cores and gpus"
    types = {need.gpu_type for need, _ in needs if need.gpus}
    gpu_type = next(iter(types)) if len(types) == 1 else ""
    if len(types) > 1:
        notes.append("GPU types are left out, since the nodes' are not known: give nodes_file")
    if not mem_mib and any(need.mem_mib for need, _ in needs):
        notes.append("memory is not metered: give nodes_file or mem_mib, the memory of a node")

    def fitted(part: Part) -> Part:
        need = replace(part.need, gpu_type=gpu_type and part.need.gpu_type, mem_mib=mem_mib and part.need.mem_mib)
        return replace(part, need=need)

    return counted_nodes(nodes, cores, gpus, mem_mib, gpu_type), fitted, notes


def _peak(rows: list[_Row], amounts: list[float]) -> float:
    """Return the most that ever was in use at once."""
    changes = [(row.start, amount) for row, amount in zip(rows, amounts, strict=True)]
    changes += [(row.start + row.work_s, -amount) for row, amount in zip(rows, amounts, strict=True)]
    changes.sort()  # what ends at an instant makes room for what starts then
    peak = now = 0.0
    for _, amount in changes:
        now += amount
        peak = max(peak, now)
    return peak
