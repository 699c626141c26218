"""From a space back to files, with the sizes, times and modes they had."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tandem.data.space.writer import checked_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from tandem.data.space.space import Space

_BATCH = 256
_BATCH_BYTES = 32 << 20


def export(
    space: Space, folder: str, prefix: str = "", tell: Callable[[int, int], None] = lambda done, of: None
) -> int:
    """Write all samples whose paths begin with `prefix` as files below a folder; returns how many.

    Raises:
        DataError: A sample is damaged; those before it are written.
        FileExistsError: A file is there already.
        OSError: A file cannot be written.
    """
    numbers = sorted(space.under(prefix), key=lambda number: space.index.place(number)[1:3])  # as they lie
    root, done, start = Path(folder), 0, 0
    root.mkdir(parents=True, exist_ok=True)
    while start < len(numbers):
        end, size = start, 0
        while end < len(numbers) and end - start < _BATCH and size < _BATCH_BYTES:
            size += space.index.place(numbers[end])[3]
            end += 1
        for number, data in zip(numbers[start:end], space.read_batch(np.array(numbers[start:end])), strict=True):
            _write(space, number, data, root)
        done, start = end, end
        tell(done, len(numbers))
    return len(numbers)


def _write(space: Space, number: int, data: memoryview, root: Path) -> None:
    sample = space.stat(number)
    path = root / os.fsdecode(checked_path(sample.path))
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        view = data
        while view:
            view = view[os.write(file, view) :]
        os.fchmod(file, sample.mode & 0o777)
        os.utime(file, ns=(sample.mtime_ns, sample.mtime_ns))
    finally:
        os.close(file)
