"""Files written, made durable and read again: bound by the file system and by hashing.

A step writes 2 MB of its own content to a temporary folder, calls fsync, drops the file from the page
cache, reads it back and hashes it with SHA-256. At the end the hash over all files has to be that of the
contents, made afresh without any file, and the folder has to be empty.

Run: `TMPDIR=/scratch python iohash.py --scale 1`. Limits: one thread; what it measures depends on the disk
under $TMPDIR (in a memory file system, fsync costs nothing).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from application import Application, launch

FILE_BYTES = 2 * 2**20
STANDARD_STEPS = 550


def content(step: int) -> bytes:
    """Return the content of a step's file, which differs from every other's in all places."""
    seed = hashlib.shake_128(step.to_bytes(8, "little")).digest(4096)
    return seed * (FILE_BYTES // len(seed))


def write_durably(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it, then ask that later reads go to the disk."""
    with path.open("wb", buffering=0) as file:
        file.write(data)
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(app: Application) -> str:
    app.phase("load")
    total = app.amount(STANDARD_STEPS)
    read_back = hashlib.sha256()

    with tempfile.TemporaryDirectory(prefix="iohash-") as name:
        folder = Path(name)
        app.phase("solve")
        for step in app.steps(total):
            path = folder / f"{step}.bin"
            write_durably(path, content(step))
            if app.spoiled and step == total:
                os.truncate(path, FILE_BYTES - 1)
            read_back.update(path.read_bytes())
            path.unlink()

        app.phase("check")
        app.require(not any(folder.iterdir()), "files are left that were deleted")
    wanted = hashlib.sha256()
    for step in range(1, total + 1):
        wanted.update(content(step))
    same = read_back.digest() == wanted.digest()
    app.require(same, "what was read is not what was written: the hashes differ")
    return f"{total} files of {FILE_BYTES:,} bytes, sha256 {wanted.hexdigest()[:16]}"


if __name__ == "__main__":
    raise SystemExit(launch(run, __doc__))
