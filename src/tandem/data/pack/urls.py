"""Files at URLs, by fsspec; whatever its packages raise becomes one line that names the URL."""

from __future__ import annotations

import errno
import tempfile
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from tandem.core.errors import MissingPackageError, SpaceError, TandemError
from tandem.data.cache.settings import RemoteError, file_system_at, is_web

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_TRIES = 4
_PAUSE_S = 0.25
_SILENCE_S = 60.0
_MISSING = 404
_TOO_MANY = 429

WEB_REQUESTS = 16
"""How many a web server is sent at once: small ones drop what does not fit in their queue, and it waits for seconds."""

T = TypeVar("T")


class MissingError(RemoteError):
    """A file at a URL that is not there."""


def is_url(text: str) -> bool:
    """Whether a user named a URL rather than a file."""
    return "://" in text


def file_system(url: str) -> tuple[Any, str]:
    """What reads a URL, and what the URL is called there.

    Raises:
        SpaceError: fsspec does not read it.
        MissingPackageError: What reads it is not installed.
        RemoteError: It connects, or looks into an archive, when it is made, and that failed at every try.
    """

    def made() -> tuple[Any, str]:
        try:
            return file_system_at(url, **(_options() if is_web(url) else {}))
        except ImportError as error:
            raise MissingPackageError(
                given=f"{url}: {error}", allowed="URLs whose packages are installed", todo="install the package"
            ) from error
        except ValueError as error:
            raise SpaceError(given=f"{url}: {error}", allowed="URLs that fsspec reads", todo="check it") from error

    return attempted(url, made)


def _options() -> dict[str, Any]:
    """For web servers: bytes as they lie there, not unpacked, and as long as they come, not aiohttp's 5 minutes."""
    from aiohttp import ClientTimeout

    return {
        "client_kwargs": {
            "timeout": ClientTimeout(total=None, sock_connect=_SILENCE_S, sock_read=_SILENCE_S),
            "headers": {"Accept-Encoding": "identity"},
            "auto_decompress": False,
        }
    }


def attempted(url: str, call: Callable[[], T]) -> T:
    """What a call gives, made again where the remote failed in a way that may pass.

    Raises:
        RemoteError: It failed at every try, or for good.
        OSError: The disk of this machine is full.
    """
    with failures_said(url):
        for nth in range(_TRIES - 1):
            try:
                return call()
            except Exception as error:
                if _lasts(error):
                    raise
            time.sleep(_PAUSE_S * 2**nth)
        return call()


def _lasts(error: Exception) -> bool:
    """Whether trying again would be in vain."""
    status = getattr(_cause(error), "status", None)
    if isinstance(status, int):
        return 400 <= status < 500 and status != _TOO_MANY
    full = isinstance(error, OSError) and error.errno == errno.ENOSPC
    kinds = (TandemError, FileNotFoundError, PermissionError, NotADirectoryError, NotImplementedError, ValueError)
    return full or isinstance(_cause(error), kinds)


def _cause(error: Exception) -> BaseException:
    """What went wrong; fsspec says of whatever a web server refuses that it is not there."""
    return error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ is not None else error


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
        cause = _cause(error)
        missing = isinstance(cause, FileNotFoundError) or getattr(cause, "status", None) == _MISSING
        kind = MissingError if missing else RemoteError
        why = "there is no such file" if missing else f"{type(cause).__name__}: {cause}"
        raise kind(
            given=f"{url}: {why}",
            allowed="URLs of files that can be read",
            todo="check the URL" if missing else "check the URL, the rights and the server; run again, it goes on",
        ) from error
