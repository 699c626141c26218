"""Where `--report` writes: checked before the work, and what was found is printed whether or not it can be written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tandem.report.page import Page
    from tandem.report.target import ReportError

_NAME = "report.html"


def target(given: str | None) -> Path | None:
    """Where the report goes: a file that ends in .html, or a folder's report.html; None where none is asked for.

    Raises:
        ReportError: No report can be written there.
    """
    if given is None:
        return None
    from tandem.report.target import check

    path = Path(given)
    path = path if path.suffix == ".html" else path / _NAME
    check(path)
    return path


def write(page: Page, path: Path) -> ReportError | None:
    """Write the report; what went wrong, to be raised once the figures are printed."""
    from tandem.report import page as pages

    try:
        pages.write(page, path)
    except pages.ReportError as error:
        return error
    return None
