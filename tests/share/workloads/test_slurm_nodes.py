from pathlib import Path

import pytest

from tandem.core.errors import TraceError
from tandem.share.workloads.slurm_nodes import gpus_of, read_nodes


@pytest.mark.parametrize(
    ("gres", "types"),
    [
        ("(null)", []),
        ("", []),
        ("gpu:4", [""] * 4),
        ("gpu:a100:2(S:0-1)", ["a100"] * 2),
        ("gpu:a100:1,nvme:8,gpu:t4:2(S:1)", ["a100", "t4", "t4"]),
    ],
)
def test_generic_resources(gres: str, types: list[str]) -> None:
    assert [(gpu.index, gpu.type) for gpu in gpus_of(gres)] == list(enumerate(types))


def test_a_node_in_two_partitions_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "nodes.txt"
    path.write_text("NODELIST|CPUS|MEMORY|GRES\na|64|515000+|gpu:a100:4\nb|32|128000|(null)\na|64|515000+|gpu:a100:4\n")
    nodes = read_nodes(path)
    assert [(n.id, n.cpu_milli, n.mem_mib, len(n.gpus)) for n in nodes] == [
        ("a", 64_000, 515_000, 4),
        ("b", 32_000, 128_000, 0),
    ]


def test_a_missing_column_names_the_command(tmp_path: Path) -> None:
    path = tmp_path / "nodes.txt"
    path.write_text("NODELIST|CPU|MEMORY\n")
    with pytest.raises(TraceError, match=r"no column 'CPUS'.*did you mean 'CPU'\? run: sinfo -N"):
        read_nodes(path)
