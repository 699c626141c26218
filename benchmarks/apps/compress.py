"""Compression of real files, Python's standard library, by zlib, bz2 and lzma: bound by integer arithmetic.

The corpus is 48 blocks of 32 kB, each a slice of many source files, so that all compress about alike. A
step packs one block with each of the three codecs, in dictionaries that stay in the L2 cache. At the end
every block of the archive is unpacked and its SHA-256 compared to that of the files, read again.

Run: `python compress.py --scale 1`. Limits: one thread.
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import os
import zlib
from pathlib import Path

from application import Application, launch

BLOCKS = 48
SLICES_PER_BLOCK = 32
SLICE_BYTES = 1024
STANDARD_STEPS = 600
LZMA_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": 2**16}]


def read_blocks() -> list[bytes]:
    """Return the corpus: block number n holds the n-th slices of the 32 largest source files."""
    files = sorted(Path(os.__file__).parent.glob("*.py"), key=lambda path: (-path.stat().st_size, path.name))
    texts = [path.read_bytes() for path in files[:SLICES_PER_BLOCK]]
    blocks = []
    for number in range(BLOCKS):
        first = number * SLICE_BYTES
        blocks.append(b"".join(text[first % len(text) :][:SLICE_BYTES] for text in texts))
    return blocks


def pack(block: bytes) -> tuple[bytes, bytes, bytes]:
    """Return a block compressed with each codec."""
    return (
        zlib.compress(block, 9),
        bz2.compress(block, 1),
        lzma.compress(block, format=lzma.FORMAT_RAW, filters=LZMA_FILTERS),
    )


def unpack(packed: tuple[bytes, bytes, bytes]) -> list[bytes]:
    """Return what each codec makes of its part."""
    by_zlib, by_bz2, by_lzma = packed
    unpacked = [zlib.decompress(by_zlib), bz2.decompress(by_bz2)]
    return [*unpacked, lzma.decompress(by_lzma, format=lzma.FORMAT_RAW, filters=LZMA_FILTERS)]


def run(app: Application) -> str:
    app.phase("load")
    blocks = read_blocks()
    archive: dict[int, tuple[bytes, bytes, bytes]] = {}
    given, kept = 0, 0

    app.phase("compress")
    total = app.amount(STANDARD_STEPS)
    for step in app.steps(total):
        number = step % BLOCKS
        packed = pack(blocks[number])
        archive[number] = packed
        given += 3 * len(blocks[number])
        kept += sum(map(len, packed))
        app.note(ratio=kept / given)

    app.phase("check")
    fresh = read_blocks()
    for number, packed in archive.items():
        wanted = hashlib.sha256(fresh[number]).digest()
        for codec, content in zip(("zlib", "bz2", "lzma"), unpack(packed), strict=True):
            got = content[:-1] + b"\0" if app.spoiled else content
            same = hashlib.sha256(got).digest() == wanted
            app.require(same, f"block {number} came back changed by {codec}")
    app.require(0.1 < kept / given < 0.6, f"source text shrank to {kept / given:.2f} (expected 0.1 to 0.6)")
    return f"{total} blocks with 3 codecs, {given:,} bytes shrunk to {kept / given:.4f}, round trip exact"


if __name__ == "__main__":
    raise SystemExit(launch(run, __doc__))
