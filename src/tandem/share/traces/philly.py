"""Microsoft's Philly trace as a table: `timestamp, duration, num_gpus, gpu_time, cluster`.

The trace knows no nodes, CPU demands, applications or users. What stands in for them: equal nodes (110 of 4 GPUs and
48 cores unless given), `cores_per_gpu` cores a GPU, no application key, and the virtual cluster as the user. A job of
more GPUs than a node has is a gang of whole nodes: ceil(GPUs / GPUs a node) of them; where that does not divide, the
gang holds a few GPUs more than the job asked for (counted in the notes). Time limits are unknown: see
`tandem.share.workloads.workload.limits_with_error`.

Source: Jeon et al., "Analysis of Large-Scale Multi-Tenant GPU Clusters for DNN Training Workloads", USENIX ATC 2019;
the table as republished with AdaptDL (OSDI 2021 artifact).
"""

from datetime import datetime, timedelta
from pathlib import Path

from tandem.core.errors import TraceError
from tandem.core.units import counted
from tandem.share.model import Job, Need, Part
from tandem.share.workloads.trace_table import (
    Table,
    at_most_ten_years,
    bad_cell,
    counted_nodes,
    first_line,
    number,
    open_table,
    submission_order,
    whole,
)
from tandem.share.workloads.workload import Arrival, Workload

EXTENSIONS = (".csv", ".csv.gz")

_EPOCH = datetime(1970, 1, 1)


def sniff(path: Path) -> bool:
    """Whether the header has the trace's columns."""
    return {"timestamp", "duration", "num_gpus"} <= {cell.strip() for cell in first_line(path).split(",")}


def read(
    path: Path, *, nodes: int = 110, gpus: int = 4, cores: int = 48, cores_per_gpu: int = 4, mem_mib: int = 0
) -> Workload:
    """Read the trace.

    Args:
        path: the table.
        nodes, gpus, cores, mem_mib: the nodes: how many, and what each has. Jobs ask for no memory.
        cores_per_gpu: cores a job takes for each GPU; a job without GPUs takes that many cores.

    Returns:
        The workload; times count from the first submission.

    Raises:
        TraceError: A cell cannot be understood, or the nodes have too few GPUs or cores.
    """
    if min(nodes, gpus, cores_per_gpu) < 1 or cores < gpus * cores_per_gpu:
        raise TraceError(
            given=f"{nodes} nodes of {gpus} GPUs and {cores} cores, {cores_per_gpu} cores a GPU",
            allowed="at least one node, a GPU, and cores for all GPUs of a node",
            todo="change nodes, gpus, cores or cores_per_gpu",
        )
    table = open_table(path)
    times, works, counts, clusters, notes = _rows(table)
    shapes = {count: _parts(count, gpus, cores_per_gpu) for count in set(counts)}
    users = {cluster: uid for uid, cluster in enumerate(sorted(set(clusters)), start=1)}
    arrivals = []
    order = submission_order(times)
    for job_id, i in enumerate(order, start=1):
        job = Job(job_id, shapes[counts[i]], uid=users[clusters[i]])
        arrivals.append(Arrival(times[i] - times[order[0]], job, works[i]))
    notes.append(f"nodes, cores ({cores_per_gpu} a GPU) and users (the virtual cluster) are assumed, not in the trace")
    largest = max(counts, default=0)
    if largest > nodes * gpus:
        over = sum(count > nodes * gpus for count in counts)
        notes.append(f"{counted(over, 'job')} asking for more than the {nodes * gpus} GPUs there are (up to {largest})")
    rounded = sum(count > gpus and count % gpus > 0 for count in counts)
    if rounded:
        notes.append(f"{counted(rounded, 'gang')} rounded up to whole nodes of {counted(gpus, 'GPU')}")
    if order:
        notes.append(f"time 0 is {(_EPOCH + timedelta(seconds=times[order[0]])).isoformat(' ')}")
    return Workload(counted_nodes(nodes, cores, gpus, mem_mib), tuple(arrivals), path.name, tuple(notes))


def _rows(table: Table) -> tuple[list[float], list[float], list[int], list[str], list[str]]:
    """Read columns: submission (s since 1970), run time (s), GPUs, cluster; and notes on what was left out."""
    at, took, gpus = table.column("timestamp"), table.column("duration"), table.column("num_gpus")
    cluster = table.optional("cluster", "vc")
    times: list[float] = []
    works: list[float] = []
    counts: list[int] = []
    clusters: list[str] = []
    negative = zero = 0
    for line, row in table.rows():
        work_s = number(table, line, "duration", row[took])
        at_most_ten_years(table.path, line, "duration", row[took], work_s)
        if work_s <= 0:
            negative += work_s < 0
            zero += work_s == 0
            if work_s < 0:
                continue
            work_s = 1.0
        times.append(_seconds(table, line, row[at]))
        works.append(work_s)
        counts.append(whole(table, line, "num_gpus", row[gpus]))
        clusters.append(row[cluster] if cluster is not None else "")
    notes = []
    if negative:
        notes.append(f"{counted(negative, 'job')} skipped: negative duration")
    if zero:
        notes.append(f"{counted(zero, 'duration')} of 0 taken as 1 s")
    return times, works, counts, clusters, notes


def _seconds(table: Table, line: int, text: str) -> float:
    try:
        return (datetime.fromisoformat(text).replace(tzinfo=None) - _EPOCH).total_seconds()
    except ValueError:
        raise bad_cell(table.path, line, "timestamp", text, "a date and time such as 2017-10-09 07:01:55") from None


def _parts(count: int, gpus: int, cores_per_gpu: int) -> tuple[Part, ...]:
    if count <= gpus:
        return (Part(Need(cpu_milli=1000 * cores_per_gpu * max(1, count), gpus=count)),)
    return (Part(Need(cpu_milli=1000 * cores_per_gpu * gpus, gpus=gpus), nodes=-(-count // gpus)),)
