"""A disk that is small enough to be filled."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def small(folder: Path, size_mib: int, files: int = 0) -> Iterator[Path]:
    """A file system of its own in a folder, which is made, in memory; only root may mount one.

    ``files``: how many files it takes at most; 0 for as many as it likes.
    """
    folder.mkdir()
    options = f"size={size_mib}m" + (f",nr_inodes={files}" if files else "")
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
