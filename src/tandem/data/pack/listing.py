"""What lies below a URL: by one request where a protocol has it, as object stores do, by folders, or by web pages."""

from __future__ import annotations

import glob
import os
import posixpath
import re
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from tandem.data.cache.settings import is_web
from tandem.data.pack import web_pages
from tandem.data.pack.urls import attempted, failures_said, file_system

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Found(NamedTuple):
    """A file, or what is none: its path below what was listed, fsspec's name of it and what fsspec knows of it."""

    path: bytes
    name: str
    info: Mapping[str, Any]


def all_below(url: str) -> Iterator[Found]:
    """All that is no folder below a URL, or the one file there.

    A web server's names are percent-encoded, up to a query, which is as it is; of one file alone it is left out: it may
    be a signature.

    Raises:
        RemoteError: A folder cannot be listed, or a file not be asked for.
    """
    files, root = file_system(url)
    if is_web(url):
        root, pages = web_pages.files_below(files, url)
        for place, info in pages.items():
            path, mark, query = place.partition("?")
            alone = posixpath.basename(urlsplit(place).path)
            whole = unquote_to_bytes(path) + os.fsencode(mark + query) if root else unquote_to_bytes(alone)
            yield Found(whole, root + place, info)
        return
    for name, info in _listed(files, root).items():
        place = posixpath.basename(name) if name == root else name.removeprefix(root.rstrip("/") + "/")
        yield Found(os.fsencode(place), name, info)


def matching(pattern: str) -> list[str]:
    """The URLs of files that match one with `*` in it, in order.

    Raises:
        RemoteError: What is there cannot be listed.
    """
    from fsspec.utils import glob_translate

    files, text = file_system(pattern)
    if _lists_at_once(files):
        found = attempted(pattern, partial(files.glob, text, detail=True))
        return [files.unstrip_protocol(name) for name, info in sorted(found.items()) if info["type"] == "file"]
    root = text[: text.index("*")].rpartition("/")[0] + "/"
    below = text.removeprefix(root)
    levels = None if "**" in below else below.count("/") + 1
    if is_web(pattern):  # what is percent-encoded is no pattern
        below = re.sub("(?:%[0-9A-Fa-f]{2})+", lambda encoded: glob.escape(unquote(encoded[0])), below)
    with failures_said(pattern):
        meant = re.compile(glob_translate(below))
    if is_web(pattern):
        place, pages = web_pages.files_below(files, root, levels)
        return sorted(
            place + one
            for one, info in pages.items()
            if place and info["type"] == "file" and meant.fullmatch(unquote(one.partition("?")[0]))
        )
    listed = _listed_by_folder(files, root, levels)
    names = sorted(name for name, info in listed.items() if info["type"] == "file" and name.startswith(root))
    return [files.unstrip_protocol(name) for name in names if meant.fullmatch(name.removeprefix(root))]


def _lists_at_once(files: Any) -> bool:  # noqa: ANN401 - fsspec ships no types
    """Whether a protocol has its own way to list all below a folder."""
    from fsspec.asyn import AsyncFileSystem
    from fsspec.spec import AbstractFileSystem

    if isinstance(files, AsyncFileSystem):
        return type(files)._find is not AsyncFileSystem._find
    return type(files).find is not AbstractFileSystem.find


def _listed(files: Any, root: str) -> dict[str, Mapping[str, Any]]:  # noqa: ANN401
    if not _lists_at_once(files):
        return _listed_by_folder(files, root)
    found: dict[str, Mapping[str, Any]] = attempted(root, partial(files.find, root, detail=True))
    return {name: info or attempted(name, partial(files.info, name)) for name, info in found.items()}


def _listed_by_folder(files: Any, root: str, levels: int | None = None) -> dict[str, Mapping[str, Any]]:  # noqa: ANN401
    """As fsspec's own walk does, which leaves out without a word what it cannot list."""
    found: dict[str, Mapping[str, Any]] = {}
    folders = [(root, 1)]
    while folders:
        folder, level = folders.pop()
        for info in attempted(folder, partial(files.ls, folder, detail=True)):
            name = info["name"]
            if info["type"] != "directory":
                found[name] = info
            elif name.rstrip("/") != folder.rstrip("/") and level != levels:
                folders.append((name, level + 1))
    return found
