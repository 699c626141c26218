"""Alibaba's openb trace (cluster-trace-gpu-v2023): a table of pods, and a table of nodes beside it.

A pod is a job of one node. With one GPU and `gpu_milli` below 1000 it takes a fraction of a GPU; `gpu_spec` ("V100|T4")
holds the types it accepts. Its run time is deletion minus scheduling (minus creation where it never was scheduled).
Pods of the classes LS and Guaranteed are primary; BE and Burstable are harvest. No users, applications or time limits
are in the trace.

Source: Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent",
USENIX ATC 2023; alibaba/clusterdata.
"""

from dataclasses import dataclass
from pathlib import Path

from tandem.core.errors import TraceError
from tandem.core.units import counted
from tandem.share.model import Gpu, Job, JobClass, Need, Node, Part
from tandem.share.workloads.trace_table import (
    Table,
    at_most_ten_years,
    bad_cell,
    before_year_10000,
    first_line,
    number,
    open_table,
    submission_order,
    whole,
)
from tandem.share.workloads.workload import Arrival, Workload

EXTENSIONS = (".csv", ".csv.gz")

_CLASSES = {
    "LS": JobClass.PRIMARY,
    "Guaranteed": JobClass.PRIMARY,
    "": JobClass.PRIMARY,
    "BE": JobClass.HARVEST,
    "Burstable": JobClass.HARVEST,
}


@dataclass(frozen=True, slots=True)
class _Pod:
    name: str
    at: float
    work_s: float
    part: Part
    klass: JobClass


def sniff(path: Path) -> bool:
    """Whether the header has the columns of the pods' table."""
    cells = {cell.strip() for cell in first_line(path).split(",")}
    return {"cpu_milli", "num_gpu", "gpu_milli", "creation_time"} <= cells


def read(path: Path, *, nodes: str = "") -> Workload:
    """Read pods and nodes.

    Args:
        path: the pods' table.
        nodes: the nodes' table; by default the file beside it with "node" where this one's name has "pod".

    Raises:
        TraceError: A table or a cell cannot be understood, or there is no nodes' table.
    """
    machines = _nodes(_nodes_path(path, nodes))
    pods, notes = _pods(open_table(path))
    order = submission_order([pod.at for pod in pods])
    start = pods[order[0]].at if order else 0.0
    arrivals = []
    for job_id, i in enumerate(order, start=1):
        pod = pods[i]
        job = Job(job_id, (pod.part,), name=pod.name, klass=pod.klass)
        arrivals.append(Arrival(pod.at - start, job, pod.work_s))
    return Workload(machines, tuple(arrivals), path.name, tuple(notes))


def _nodes_path(path: Path, given: str) -> Path:
    guesses = [Path(given)] if given else [path.with_name(path.name.replace("pod", "node", 1))]
    if not given:
        guesses += sorted(p for p in path.parent.glob("*node*.csv*") if p != path)
    for guess in guesses:
        if guess != path and guess.is_file():
            return guess
    raise TraceError(
        given=f"no nodes' table for {path}: {guesses[0]} is not there",
        allowed="a table with the columns sn, cpu_milli, memory_mib, gpu, model",
        todo="put it beside the pods' table or give its path as the option nodes",
    )


def _nodes(path: Path) -> tuple[Node, ...]:
    table = open_table(path)
    name, cpu, mem = table.column("sn", "name"), table.column("cpu_milli"), table.column("memory_mib")
    gpu, model = table.column("gpu", "num_gpu"), table.column("model", "gpu_model")
    nodes = []
    for line, row in table.rows():
        count = whole(table, line, "gpu", row[gpu], empty=0)
        nodes.append(
            Node(
                row[name],
                whole(table, line, "cpu_milli", row[cpu]),
                whole(table, line, "memory_mib", row[mem]),
                tuple(Gpu(i, row[model]) for i in range(count)),
            )
        )
    return tuple(nodes)


def _pods(table: Table) -> tuple[list[_Pod], list[str]]:
    created, deleted = table.column("creation_time"), table.column("deletion_time")
    scheduled, qos, name = table.optional("scheduled_time"), table.column("qos"), table.optional("name")
    needs = _NeedColumns(table)
    pods: list[_Pod] = []
    negative = zero = unscheduled = 0
    for line, row in table.rows():
        text = row[created]
        at = before_year_10000(table.path, line, "creation_time", text, number(table, line, "creation_time", text))
        began = row[scheduled] if scheduled is not None else ""
        unscheduled += not began
        from_s = number(table, line, "scheduled_time", began) if began else at
        text = row[deleted]
        work_s = number(table, line, "deletion_time", text) - from_s
        at_most_ten_years(table.path, line, "deletion_time", text, work_s)
        if work_s < 0:
            negative += 1
            continue
        zero += work_s == 0
        if row[qos] not in _CLASSES:
            raise bad_cell(table.path, line, "qos", row[qos], ", ".join(k for k in _CLASSES if k))
        label = row[name] if name is not None else ""
        pods.append(_Pod(label, at, max(work_s, 1.0), Part(needs.read(line, row)), _CLASSES[row[qos]]))
    notes = []
    if negative:
        notes.append(f"{counted(negative, 'pod')} skipped: deleted before being scheduled")
    if unscheduled:
        notes.append(f"{counted(unscheduled, 'pod')} never scheduled: the run time counts from creation")
    if zero:
        notes.append(f"{counted(zero, 'run time')} of 0 taken as 1 s")
    return pods, notes


class _NeedColumns:
    """The columns that say what a pod takes."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._cpu, self._mem = table.column("cpu_milli"), table.column("memory_mib")
        self._gpus, self._milli = table.column("num_gpu"), table.column("gpu_milli")
        self._spec = table.optional("gpu_spec")

    def read(self, line: int, row: list[str]) -> Need:
        """Return what the pod of this row takes."""
        gpus = whole(self._table, line, "num_gpu", row[self._gpus], empty=0)
        milli = whole(self._table, line, "gpu_milli", row[self._milli], empty=0)
        if milli > 1000:
            raise bad_cell(self._table.path, line, "gpu_milli", row[self._milli], "0 to 1000, for each GPU")
        fraction = milli if gpus == 1 and 0 < milli < 1000 else 0
        return Need(
            cpu_milli=whole(self._table, line, "cpu_milli", row[self._cpu]),
            mem_mib=whole(self._table, line, "memory_mib", row[self._mem], empty=0),
            gpus=0 if fraction else gpus,
            gpu_milli=fraction,
            gpu_type=row[self._spec] if self._spec is not None and gpus else "",
        )
