"""Where rows are read from: JSONL, Parquet, spaces of Tandem, folders of Hugging Face datasets.

A row is a dictionary. What a line holds that is no row comes out as the reason why, so that the caller decides
whether to go on. Limits: Parquet needs pyarrow, dataset folders need datasets; a space is read for its `.jsonl` files.
"""

from __future__ import annotations

import importlib
import json
from typing import TYPE_CHECKING, Any

from tandem.chat.errors import RowsError
from tandem.core import plug
from tandem.core.errors import MissingPackageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

Raw = dict[str, Any] | str
"""A row, or why there is none."""

ALLOWED = "a .jsonl or .parquet file, a space of Tandem, or a folder that datasets' save_to_disk wrote"


def read(path: Path) -> Iterator[Raw]:
    """Yield the rows of a source, in its order.

    Raises:
        RowsError: There is no such source, or it cannot be read.
        MissingPackageError: The package that reads it is not installed.
    """
    if not path.exists():
        raise RowsError(given=f"data {path}: there is no such file or folder", allowed=ALLOWED, todo="check the path")
    if not path.is_file() and not path.is_dir():  # a pipe can be read once alone, and perhaps never
        raise RowsError(given=f"data {path}: neither a file nor a folder", allowed=ALLOWED, todo="copy it to a file")
    if path.suffix == ".parquet":
        return _parquet(path)
    if path.is_dir() and any((path / name).exists() for name in ("dataset_info.json", "dataset_dict.json")):
        return _dataset(path)
    if path.is_dir():
        return _space(path)
    return _jsonl(path)


def _jsonl(path: Path) -> Iterator[Raw]:
    try:
        with path.open("rb") as lines:
            yield from _parsed(lines)
    except OSError as error:
        raise RowsError(
            given=f"data {path}: {error.strerror or error}", allowed="a readable file", todo="check the path"
        ) from error


def _parsed(lines: Iterable[bytes]) -> Iterator[Raw]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield f"line {number} is no JSON: {error}"
            continue
        yield row if isinstance(row, dict) else f"line {number} is no object"


def _parquet(path: Path) -> Iterator[Raw]:
    parquet = _needed("pyarrow.parquet", path)
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise RowsError(given=f"data {path}: {error}", allowed="a whole Parquet file", todo="write it again") from error


def _dataset(path: Path) -> Iterator[Raw]:
    datasets = _needed("datasets", path)
    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:  # its ways to fail are many
        raise RowsError(given=f"data {path}: {error}", allowed=ALLOWED, todo="save it again") from error
    splits = loaded.values() if hasattr(loaded, "values") else [loaded]
    for split in splits:
        yield from (dict(row) for row in split)


def _space(path: Path) -> Iterator[Raw]:
    from tandem.core.errors import SpaceError
    from tandem.data.space import Space

    try:
        space = Space.open(path)
    except SpaceError as error:
        raise RowsError(given=f"data {path}: {error.given}", allowed=ALLOWED, todo="check the path") from error
    with space:
        files = [number for number in range(len(space)) if space.path(number).endswith(".jsonl")]
        if not files:
            raise RowsError(
                given=f"data {path}: a space without a .jsonl file",
                allowed="one whose rows are in .jsonl files",
                todo="pack those",
            )
        for number in files:
            yield from _parsed(space.read(number).splitlines())


def _needed(module: str, path: Path) -> Any:  # noqa: ANN401 - optional packages without types
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        raise MissingPackageError(
            given=f"data {path} needs the package {package!r}, which is not installed",
            allowed="JSONL, which needs none",
            todo=f"run: pip install 'tandemlab[{plug.extra_for(package) or 'chat'}]'",
        ) from error
