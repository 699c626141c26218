"""What /proc says of a bubble's process, and waiting for it with a deadline."""

import os
from pathlib import Path

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


def alive(pid: int) -> bool:
    """Whether the process still exists, other than as a zombie that its parent has yet to read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def cpu_s(pid: int) -> float:
    """Processor time of all its threads, in whole ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def bytes_passed(pid: int, name: str) -> int:
    """`rchar` or `wchar`: bytes that it read or wrote by system calls."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def sockets(pid: int) -> set[str]:
    """Inodes of its sockets."""
    links = (str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir())
    return {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}


def tcp_connections() -> dict[str, tuple[str, str]]:
    """Inode -> (local, remote address) of every TCP socket over IPv4, as the kernel writes them."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return {row[9]: (row[1].partition(":")[0], row[2].partition(":")[0]) for row in rows}
