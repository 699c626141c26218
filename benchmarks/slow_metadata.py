"""A mount of a folder whose metadata server is slow: see slow_metadata.cpp, which is compiled when it is needed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).with_suffix(".cpp")


def compiled(folder: Path) -> Path:
    """The program, compiled into a folder.

    Raises:
        FileNotFoundError: There is no C++ compiler, or no fusermount3 (Debian: fuse3).
    """
    for name in ("c++", "fusermount3"):
        if shutil.which(name) is None:
            message = f"{name} is not installed"
            raise FileNotFoundError(message)
    program = folder / "slow_metadata"
    subprocess.run(["c++", "-O2", "-std=c++17", "-pthread", "-o", program, SOURCE], check=True)
    return program


@contextmanager
def mounted(program: Path, folder: Path, mountpoint: Path, delay_ms: float) -> Iterator[list[float]]:
    """Show a folder, each lookup, open and stat taking so long; nothing of it is cached yet.

    Yields a list into which, at the end, the number of these requests goes, and the milliseconds each took.
    """
    mountpoint.mkdir(exist_ok=True)
    device = _connection(mountpoint)
    told: list[float] = []
    command = [str(program), str(folder), str(round(1000 * delay_ms)), str(device)]
    process = subprocess.Popen(command, pass_fds=[device], stdout=subprocess.PIPE, text=True)
    os.close(device)
    try:
        mountpoint.stat()  # it is served
        yield told
    finally:
        subprocess.run(["fusermount3", "-u", "-z", mountpoint], check=True)
        count, each_us = process.communicate(timeout=30)[0].split()
        told += [int(count), float(each_us) / 1000]


def _connection(mountpoint: Path) -> int:
    """Have fusermount3 mount; returns the open /dev/fuse that it sends back."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        environ = {**os.environ, "_FUSE_COMMFD": str(theirs.fileno())}
        command = ["fusermount3", "-o", "ro,nosuid,nodev,subtype=slow_metadata", "--", str(mountpoint)]
        subprocess.run(command, env=environ, pass_fds=[theirs.fileno()], check=True)
        _, files, _, _ = socket.recv_fds(ours, 1, 1)
    return files[0]
