"""Run records: what a running job says about itself, one line of JSON each.

A job appends to `$TANDEM_RUN_DIR/events.jsonl`; whoever watches it reads. A line holds `t` (unix
seconds), and where known `step`, `total`, `rate` (steps/s), `phase` (`load`, `generate`, `train`, ...)
and `m`, the metrics. Any program can write such lines; `Recorder` does it from Python:

    recorder = Recorder.from_env()
    recorder.phase("train")
    recorder.record(step=3, total=100, rate=12.5, loss=0.7)

Writing never makes the job fail: what cannot be written is counted in `dropped` and said once on
stderr. Each record is one `write(2)` on a descriptor opened with O_APPEND, so that threads and
processes may share a file. Readers tolerate a torn last line, a truncated or replaced file, and lines
that are not records. Not finite numbers are written as the strings "NaN", "Infinity" and "-Infinity",
because JSON has no word for them.
"""

import contextlib
import json
import math
import os
import stat
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import SupportsFloat

from tandem.core.clock import SystemClock

RUN_DIR_VARIABLE = "TANDEM_RUN_DIR"
FILE_NAME = "events.jsonl"
MAX_LINE_BYTES = 1 << 16

_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
_PLAIN = frozenset((float, int))
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a run's records; None and an empty mapping stand for what the line does not say.

    Attributes:
        t: When it was written, in unix seconds.
        step: How far the job is, in steps of its own.
        total: How many steps there will be.
        rate: Steps per second.
        phase: The phase that begins with this record, or the one that the job is in, named once more.
        metrics: Other figures by name.
    """

    t: float
    step: float | None = None
    total: float | None = None
    rate: float | None = None
    phase: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


class Recorder:
    """Appends records to a file, or does nothing where there is none to append to.

    Args:
        path: The file; None makes a silent recorder. It is created with its first record; its folder is not.
        now: Where the time comes from, in unix seconds.

    Attributes:
        dropped: How many records or single metrics could not be written.
    """

    def __init__(self, path: Path | None, *, now: Callable[[], float] | None = None) -> None:
        self.dropped = 0
        self._path = path
        self._now = SystemClock().now if now is None else now
        self._fd: int | None = None
        self._torn = False  # the file ends within a line: the next record begins a new one
        self._warned = False

    @classmethod
    def from_env(cls) -> "Recorder":
        """Return a recorder for `$TANDEM_RUN_DIR/events.jsonl`, silent where the variable is unset."""
        folder = os.environ.get(RUN_DIR_VARIABLE)
        return cls(Path(folder) / FILE_NAME if folder else None)

    def record(
        self,
        /,
        *,
        step: float | None = None,
        total: float | None = None,
        rate: float | None = None,
        phase: str | None = None,
        **metrics: SupportsFloat,
    ) -> None:
        """Append one record.

        Args:
            step: How far the job is, in steps of its own choice.
            total: How many steps there will be.
            rate: Steps per second.
            phase: The phase that begins now.
            **metrics: Further numbers by name; Python, NumPy or one-element tensor values.
        """
        if self._path is None:
            return
        try:
            line: dict[str, object] = {"t": self._now()}
            if step is not None:
                line["step"] = step
            if total is not None:
                line["total"] = total
            if rate is not None:
                line["rate"] = rate
            if phase is not None:
                line["phase"] = str(phase)
            if metrics:
                line["m"] = metrics
            self._append(self._text(line, metrics))
        except Exception as error:  # whatever a value's own methods raise, the job goes on
            self._drop(error)

    def phase(self, name: str) -> None:
        """Say that the job enters the phase `name`."""
        self.record(phase=name)

    def close(self) -> None:
        """Close the file; a later record opens it again."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            try:
                os.close(fd)
            except OSError as error:
                self._drop(error)

    def _text(self, line: dict[str, object], metrics: Mapping[str, SupportsFloat]) -> str:
        numbers: dict[str, object] = {key: line[key] for key in ("step", "total", "rate") if key in line}
        if all(type(value) in _PLAIN for value in (*numbers.values(), *metrics.values())):
            try:
                return _encode(line)
            except ValueError:
                pass  # a number that is not finite
        for key in numbers:
            del line[key]
        line |= self._plain(numbers)
        if metrics:
            line["m"] = self._plain(metrics)
        return _encode(line)

    def _plain(self, values: Mapping[str, object]) -> dict[str, float | str]:
        """Return finite numbers, and strings for those that are not; what is no number is dropped."""
        plain: dict[str, float | str] = {}
        for key, value in values.items():
            try:
                number = float(value)  # type: ignore[arg-type]  # what is no number raises
            except Exception as error:  # whatever a value's own methods raise, the job goes on
                self._drop(error)
                continue
            if math.isnan(number):
                plain[key] = "NaN"
            elif math.isinf(number):
                plain[key] = "Infinity" if number > 0 else "-Infinity"
            else:
                plain[key] = number
        return plain

    def _append(self, text: str) -> None:
        fd = self._open() if self._fd is None else self._fd
        if os.fstat(fd).st_nlink == 0:  # the file was deleted: start it again, if the folder is still there
            self.close()
            fd = self._open()
        data = f"\n{text}\n".encode() if self._torn else f"{text}\n".encode()
        if len(data) > MAX_LINE_BYTES:
            message = f"a record of {len(data)} bytes, at most {MAX_LINE_BYTES} are allowed"
            raise ValueError(message)
        written = os.write(fd, data)
        self._torn = written != len(data)
        if self._torn:
            message = f"only {written} of {len(data)} bytes were written"
            raise OSError(message)

    def _open(self) -> int:
        assert self._path is not None
        fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        size = os.fstat(fd).st_size
        self._torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
        self._fd = fd
        return fd

    def _drop(self, error: Exception) -> None:
        self.dropped += 1
        if self._warned:
            return
        self._warned = True
        with contextlib.suppress(Exception):  # stderr may be closed or full
            sys.stderr.write(f"tandem: a run record was dropped ({error}); the job goes on\n")


def parse(line: bytes) -> Record | None:
    """Return the record in one line, or None where the line is not a record."""
    try:
        values = json.loads(line)
        if not isinstance(values, dict):
            return None
        phase, metrics = values.get("phase"), values.get("m", {})
        if not isinstance(phase, str | None) or not isinstance(metrics, dict):
            return None
        t = _number(values["t"])
        own = {key: _number(values[key]) for key in ("step", "total", "rate") if key in values}
        figures = {str(key): _number(value) for key, value in metrics.items()}
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return Record(t, **own, phase=phase, metrics=figures) if math.isfinite(t) else None


def _number(value: object) -> float:
    if isinstance(value, str):
        return _NOT_FINITE[value]
    if not isinstance(value, int | float):
        message = f"{value!r} is no number"
        raise TypeError(message)
    return float(value)


def open_regular(path: Path) -> int:
    """Open a file for reading without ever waiting (a named pipe in its place would make the reader wait)."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)


def open_owned_by(uid: int) -> Callable[[Path], int]:
    """Return an opener for a privileged reader: no symbolic link, and nothing that is not the user's own.

    The opener raises `PermissionError` for a file of anybody else than `uid`.
    """

    def open_own(path: Path) -> int:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW
        fd = os.open(path, flags)
        if os.fstat(fd).st_uid != uid:
            os.close(fd)
            message = f"{path} does not belong to uid {uid}"
            raise PermissionError(message)
        return fd

    return open_own


class Tail:
    """Reads a growing file of records, each record once.

    Args:
        path: The file; it need not exist yet.
        opener: Returns a descriptor open for reading, or raises `OSError`; see `open_owned_by`.

    Attributes:
        corrupt: How many lines were no records, or too long, and were passed over.
        offset: Where in the file the next call goes on, in bytes.
    """

    def __init__(self, path: Path, *, opener: Callable[[Path], int] = open_regular) -> None:
        self.corrupt = 0
        self._path = path
        self._opener = opener
        self.offset = 0
        self._file: tuple[int, int] | None = None  # device and inode
        self._skipping = False  # within a line that is too long

    def poll(self, *, max_bytes: int = 1 << 20) -> list[Record]:
        """Return the records that were completed since the last call.

        Args:
            max_bytes: How much is read at most, in bytes; the rest is left to the next call. At least
                `MAX_LINE_BYTES` are read.
        """
        lines = self._chunk(max(max_bytes, MAX_LINE_BYTES)).split(b"\n")
        rest = lines.pop()
        self.offset += sum(map(len, lines)) + len(lines)
        if self._skipping and lines:
            self._skipping = False
            lines = lines[1:]
        if self._skipping or len(rest) >= MAX_LINE_BYTES:
            self.corrupt += not self._skipping
            self._skipping = True
            self.offset += len(rest)
        records = [parse(line) for line in lines if line and len(line) < MAX_LINE_BYTES]
        found = [record for record in records if record is not None]
        self.corrupt += sum(1 for line in lines if line) - len(found)
        return found

    def _chunk(self, max_bytes: int) -> bytes:
        """Return what follows the offset, from the start again where the file is another or a shorter one."""
        try:
            fd = self._opener(self._path)
        except OSError:
            return b""
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return b""
            file = (status.st_dev, status.st_ino)
            if file != self._file or status.st_size < self.offset:
                self._file, self.offset, self._skipping = file, 0, False
            return os.pread(fd, max_bytes, self.offset)
        except OSError:
            return b""
        finally:
            os.close(fd)


def read(path: Path) -> list[Record]:
    """Return all records of a file, none where there is no such file."""
    tail = Tail(path)
    found: list[Record] = []
    while True:
        before = tail.offset
        found += tail.poll()
        if tail.offset == before:
            return found
