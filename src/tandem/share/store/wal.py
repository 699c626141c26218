"""Whether SQLite's write-ahead log is whole, looked at before SQLite does.

SQLite takes a damaged log for a shorter one, and then writes over the rest. A tail without its checksum is no damage: a
transaction that was under way when the machine or the process ended leaves one, and was never acknowledged. Since each
commit is on the disk before the next one is written, damage is what has whole commits behind it, or frames behind a
header that is none.

The format: https://www.sqlite.org/fileformat2.html#walformat. A log that is gone, or was cut short at the end of a
commit, cannot be told from one that never was longer.
"""

import struct
from pathlib import Path

_HEADER = struct.Struct(">8I")  # magic, version, page size, checkpoint, two salts, two checksums
_FRAME = struct.Struct(">6I")  # page, pages of the database after a commit (else 0), the salts, two checksums
_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}  # and the order of bytes in what is summed up
_CHECKED_BYTES = 16 << 20  # of a larger one only the beginning is looked at
_WORD = 0xFFFFFFFF


def damage(log: Path) -> str:
    """Return what is wrong with the log; nothing where it is whole, empty or missing. A daemon may be writing to it."""
    before = ""
    while True:
        try:
            with log.open("rb") as file:
                found = _look(file.read(_CHECKED_BYTES))
        except FileNotFoundError:
            return ""
        if not found or found == before:  # seen twice: it was not just being written
            return found
        before = found


def _look(content: bytes) -> str:
    if len(content) <= _HEADER.size:
        return ""
    magic, _, page_bytes, _, *salts, first, second = _HEADER.unpack_from(content)
    sums = (first, second)
    order = _MAGIC.get(magic)
    if order is None or _added(order, content[:24], (0, 0)) != sums:
        return "its header is damaged" if content[_HEADER.size :].strip(b"\0") else ""
    size = _FRAME.size + page_bytes
    broken_at, committed = -1, False
    for at in range(_HEADER.size, len(content) - size + 1, size):
        page, pages, salt, other_salt, first, second = _FRAME.unpack_from(content, at)
        is_of_log = [salt, other_salt] == salts  # else it is left of an earlier log in this file
        if broken_at < 0:
            sums = _added(order, content[at : at + 8], sums)
            sums = _added(order, content[at + _FRAME.size : at + size], sums)
            if not (is_of_log and page and sums == (first, second)):
                broken_at = at
        elif committed and is_of_log:
            return f"it is damaged at byte {broken_at}, with whole commits behind that"
        committed |= broken_at >= 0 and is_of_log and pages > 0
    return ""


def _added(order: str, data: bytes, sums: tuple[int, int]) -> tuple[int, int]:
    """SQLite's checksum of what these are the sums of, and the data after it."""
    first, second = sums
    for one, other in struct.iter_unpack(f"{order}II", data):
        first = (first + one + second) & _WORD
        second = (second + other + first) & _WORD
    return first, second
