"""Find the reader for a history by looking at the file, and read it with options given as text.

workload = read_trace(Path("philly.csv"), options={"nodes": "110"})
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

from tandem.core import plug
from tandem.core.errors import TraceError
from tandem.core.nearest import did_you_mean
from tandem.share.workloads.trace_table import first_line, open_text
from tandem.share.workloads.workload import Workload

_FAMILY = "share.traces"


class TraceReader(Protocol):
    """What a file in `tandem.share.traces` exposes."""

    EXTENSIONS: tuple[str, ...]

    def read(self, path: Path, **options: object) -> Workload:
        """Read a history; the keyword options are the reader's own, each with a default."""

    def sniff(self, path: Path) -> bool:
        """Whether the file's first line looks like this format; reads no more of it."""


def load_reader(name: str) -> TraceReader:
    """The reader of a format by its name."""
    return cast("TraceReader", plug.load(_FAMILY, name, TraceReader))


def detect(path: Path) -> str:
    """Name of the format of a file, by its beginning; where two formats know it, its extension decides.

    Raises:
        TraceError: No reader knows it, or several do; the message lists the formats and the first line.
    """
    open_text(path).close()
    formats = plug.names(_FAMILY)
    readers = {name: load_reader(name) for name in formats}
    found = [name for name, reader in readers.items() if reader.sniff(path)]
    if len(found) > 1:
        narrowed = [name for name in found if path.name.lower().endswith(readers[name].EXTENSIONS)]
        found = narrowed or found
    if len(found) == 1:
        return found[0]
    beginning = first_line(path)[:80]
    raise TraceError(
        given=f"{path} begins with {beginning!r}, which {'several formats' if found else 'no format'} would read",
        allowed=", ".join(found or formats),
        todo="say which format it is, or check that this is the file you meant",
    )


def read_trace(path: Path, name: str | None = None, options: Mapping[str, object] | None = None) -> Workload:
    """Read a history.

    Args:
        path: the file, gzipped or not.
        name: the format, or None to look at the file.
        options: the reader's options; text is turned into the type of the option's default.

    Raises:
        TraceError: The file or an option cannot be understood.
    """
    name = name or detect(path)
    reader = load_reader(name)
    return reader.read(path, **_converted(name, reader, options or {}))


def _converted(name: str, reader: TraceReader, options: Mapping[str, object]) -> dict[str, object]:
    known = {
        key: parameter.default
        for key, parameter in inspect.signature(reader.read).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    converted = {}
    for key, value in options.items():
        if key not in known:
            raise TraceError(
                given=f"trace option {key!r} for the format {name}",
                allowed=", ".join(known),
                todo=did_you_mean(key, known),
            )
        converted[key] = _as_type_of(known[key], key, value)
    return converted


def _as_type_of(default: object, key: str, value: object) -> object:
    """Turn text into the default's type; an option whose default is a number is a whole number of at least 0.

    A machine without nodes or cores runs nothing; where the default is 0, that asks for what the history itself shows.
    """
    if not isinstance(default, int) or not isinstance(value, str):
        return value
    least = int(key in ("nodes", "cores"))
    if not value.isascii() or not value.isdigit() or int(value) < least:
        raise TraceError(
            given=f"trace option {key}={value!r}",
            allowed=f"a whole number of at least {least}",
            todo=f"for example {default}" if default >= least else "leave it out for what the history itself shows",
        )
    return int(value)
