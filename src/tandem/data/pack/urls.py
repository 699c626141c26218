"""Files at URLs, by fsspec; whatever its packages raise becomes one line that names the URL."""

from __future__ import annotations

import errno
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tandem.core.errors import MissingPackageError, SpaceError, TandemError
from tandem.data.cache.settings import RemoteError

if TYPE_CHECKING:
    from collections.abc import Iterator


def is_url(text: str) -> bool:
    """Whether a user named a URL rather than a file."""
    return "://" in text


def file_system(url: str) -> tuple[Any, str]:
    """What reads a URL, and what the URL is called there.

    Raises:
        SpaceError: fsspec does not read it.
        MissingPackageError: What reads it is not installed.
    """
    from fsspec.core import url_to_fs

    try:
        files, root = url_to_fs(url)
    except ImportError as error:
        raise MissingPackageError(
            given=f"{url}: {error}", allowed="URLs whose packages are installed", todo="install the package"
        ) from error
    except ValueError as error:
        raise SpaceError(given=f"{url}: {error}", allowed="URLs that fsspec reads", todo="check it") from error
    return files, root


def fetched(url: str, path: str) -> None:
    """Copy a file at a URL to one on this machine.

    Raises:
        RemoteError: It cannot be read.
        OSError: There is no room for it.
    """
    files, name = file_system(url)
    with failures_said(url):
        files.get_file(name, path)


def matching(pattern: str) -> list[str]:
    """The URLs of files that match one with `*` in it, in order.

    Raises:
        RemoteError: What is there cannot be listed.
    """
    files, root = file_system(pattern)
    with failures_said(pattern):
        found = sorted(name for name, info in files.glob(root, detail=True).items() if info["type"] == "file")
    return [files.unstrip_protocol(name) for name in found]


@contextmanager
def failures_said(url: str) -> Iterator[None]:
    """Turn what a package raises meanwhile into a RemoteError about a URL.

    Raises:
        RemoteError: Anything went wrong that is no error of this program's.
        OSError: The disk of this machine is full.
    """
    try:
        yield
    except TandemError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise OSError(errno.ENOSPC, error.strerror, tempfile.gettempdir()) from error
        missing = isinstance(error, FileNotFoundError)
        raise RemoteError(
            given=f"{url}: " + ("there is no such file" if missing else f"{type(error).__name__}: {error}"),
            allowed="URLs of files that can be read",
            todo="check the URL" if missing else "check the URL, the rights and the server; run again, it goes on",
        ) from error
