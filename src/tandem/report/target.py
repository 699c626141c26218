"""Where a report is to be written: checked before the work whose result it shows, and before anything is replaced.

A report carries `MARK` near its beginning; a file without it is somebody's own, and is never replaced.
"""

import tempfile
from pathlib import Path

from tandem.core.errors import TandemError

MARK = '<meta name="generator" content="tandem">'
_BEFORE_THE_MARK = "img-src data: blob:; base-uri "
"""Reports of old carry no mark; this part of their content policy tells them."""

_LOOKED_AT = 4096


class ReportError(TandemError):
    """A report that cannot be written."""


def check(path: Path) -> None:
    """Refuse a path at which no report can be written; nothing is made there.

    Args:
        path: The file; its folder need not be there yet.

    Raises:
        ReportError: It is a folder or a file of somebody's own, or its folder cannot be written to.
    """
    refuse_foreign(path)
    try:
        folder = next(folder for folder in path.absolute().parents if folder.exists())
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise unwritten(path, error.strerror or str(error)) from error


def refuse_foreign(path: Path) -> None:
    """Refuse to replace what is no report.

    Raises:
        ReportError: Something is there, and it does not begin as a report does.
    """
    try:
        with path.open("rb") as file:
            beginning = file.read(_LOOKED_AT)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise unwritten(path, error.strerror or str(error)) from error
    if beginning and not any(sign.encode() in beginning for sign in (MARK, _BEFORE_THE_MARK)):
        raise ReportError(
            given=f"{path}, which is not a report that Tandem wrote",
            allowed="a new file, or an older report to replace",
            todo="move it away, or name another folder or file: --report there/, --report day.html",
        )


def unwritten(path: Path, why: str, size_bytes: int = 0) -> ReportError:
    """The error for a path that cannot be written to."""
    room = f", with {size_bytes / 1e6:.0f} MB free" if size_bytes else ""
    return ReportError(
        given=f"the report cannot be written to {path}: {why}",
        allowed=f"a file in a folder you may write to{room}",
        todo="choose another path or make room" if size_bytes else "choose another path",
    )
