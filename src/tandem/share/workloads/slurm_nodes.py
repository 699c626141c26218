"""Nodes as Slurm lists them: the output of

    sinfo -N -o "%N|%c|%m|%G"

with its header row: name, cores, memory (MiB) and generic resources ("gpu:a100:4(S:0-1)"). A node that is in several
partitions is listed several times and counts once.
"""

import re
from pathlib import Path

from tandem.share.model import Gpu, Node
from tandem.share.workloads.trace_table import open_table, whole

COMMAND = 'sinfo -N -o "%N|%c|%m|%G"'

_GRES = re.compile(r"gpu(?::(?P<type>[^:,(]+))??:(?P<count>\d+)")


def read_nodes(path: Path) -> tuple[Node, ...]:
    """Read the list.

    Raises:
        TraceError: A column is missing, or a cell cannot be understood.
    """
    table = open_table(path, "|", quoting=False)
    todo = f"run: {COMMAND}"
    name, cpus = table.column("NODELIST", "NODEHOST", todo=todo), table.column("CPUS", todo=todo)
    memory, gres = table.column("MEMORY", todo=todo), table.optional("GRES")
    nodes: dict[str, Node] = {}
    for line, row in table.rows():
        cells = [cell.strip() for cell in row]
        nodes[cells[name]] = Node(
            cells[name],
            1000 * whole(table, line, "CPUS", cells[cpus].rstrip("+")),
            whole(table, line, "MEMORY", cells[memory].rstrip("+")),
            gpus_of(cells[gres]) if gres is not None else (),
        )
    return tuple(nodes.values())


def gpus_of(gres: str) -> tuple[Gpu, ...]:
    """The GPUs in a list of generic resources.

    >>> [(gpu.index, gpu.type) for gpu in gpus_of("gpu:a100:2(S:0-1),nvme:1")]
    [(0, 'a100'), (1, 'a100')]
    """
    types = [m["type"] or "" for m in _GRES.finditer(gres) for _ in range(int(m["count"]))]
    return tuple(Gpu(i, kind) for i, kind in enumerate(types))
