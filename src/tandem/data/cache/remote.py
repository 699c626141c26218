"""Bytes of files at a URL, by fsspec: in ranges, several at once, tried again after a failure.

What is tried again: no answer in time, a connection that breaks, an answer of another length than was asked for, a
server that ignores a range though it has answered one, every status of 500 and above. What is not: a file that is not
there, a right that is lacking, a server that has answered no range yet and ignores one.

Limits: file systems that are not asynchronous in fsspec (`file://`, `memory://`) know no timeout.
"""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import Future, as_completed
from typing import TYPE_CHECKING, Any, NamedTuple

from fsspec.asyn import get_loop

from tandem.core.errors import MissingPackageError
from tandem.data.cache.settings import RemoteError, file_system_at

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence

    from tandem.data.cache.settings import RemoteSettings

_MOST_BACKOFF_S = 10.0
_TRY_AGAIN = (408, 425, 429)
"""Statuses below 500 that may pass."""


class Range(NamedTuple):
    """Bytes of a file; `end` is the first that is not wanted."""

    name: str
    start: int
    end: int


class Remote:
    """A folder at a URL. Safe to use from several threads, and after a fork.

    Args:
        url: The folder.
        settings: How it is reached.
    """

    def __init__(self, url: str, settings: RemoteSettings) -> None:
        self.url = url.rstrip("/")
        self._settings = settings
        self._process = -1
        self._files: Any = None
        self._root = ""
        self._streams: asyncio.Semaphore | None = None
        self._has_answered_ranges = False

    def read(self, wanted: Range) -> bytes:
        """Bytes of a file.

        Raises:
            FileNotFoundError: There is no such file.
            RemoteError: They cannot be had.
        """
        ((_, data),) = self.read_many([wanted])
        return data

    def read_whole(self, name: str) -> bytes:
        """A small file.

        Raises:
            FileNotFoundError: There is none.
            RemoteError: It cannot be had.
        """
        return _had(self._started(self._outcome(name, None)).result())

    def read_many(self, wanted: Sequence[Range]) -> Iterator[tuple[int, bytes]]:
        """Several ranges at once, each with its place in `wanted`, in the order in which they come.

        Raises:
            FileNotFoundError: A file is not there.
            RemoteError: One cannot be had.
        """
        waiting = {self._started(self._outcome(one.name, one)): place for place, one in enumerate(wanted)}
        try:
            for future in as_completed(waiting):
                yield waiting.pop(future), _had(future.result())  # its bytes are held no longer than they must
        finally:
            for future in waiting:
                future.cancel()  # of no effect on what is done

    def _started(self, work: Coroutine[Any, Any, bytes | Exception]) -> Future[bytes | Exception]:
        if self._process != os.getpid():
            try:
                self._open()
            except BaseException:
                work.close()
                raise
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _open(self) -> None:
        """Find the file system; anew in each process. Some connect for that: that is tried again, too."""
        for tried in range(1, self._settings.tries + 1):
            try:
                self._files, self._root = file_system_at(self.url, **self._settings.options)
                break
            except ImportError as error:
                raise MissingPackageError(
                    given=f"{self.url}: {error}", allowed="URLs whose packages are installed",
                    todo="install it: pip install 'tandemlab[remote]' has those for http and s3",
                ) from error  # fmt: skip
            except Exception as error:  # OSError too: what its package needs, as Java for hdfs, is not there
                if tried == self._settings.tries or not _may_pass(error):
                    why = str(error).partition("\n")[0] or type(error).__name__
                    times = "" if tried == 1 else f" (tried {tried} times)"
                    raise RemoteError(
                        given=f"{self.url}: {why}{times}", allowed="URLs that fsspec reads", todo="check it"
                    ) from error
            time.sleep(self._backoff_s(tried))
        self._loop = self._files.loop if self._files.async_impl else get_loop()
        self._streams = asyncio.Semaphore(self._settings.streams)
        self._process = os.getpid()

    async def _outcome(self, name: str, wanted: Range | None) -> bytes | Exception:
        """What came of it. No task fails: of one that fails while it is cancelled nobody would hear but stderr."""
        try:
            return await self._tried(name, wanted)
        except Exception as error:
            return error

    async def _tried(self, name: str, wanted: Range | None) -> bytes:
        """Ask until it is there, or has failed too often."""
        settings = self._settings
        assert self._streams is not None
        for tried in range(1, settings.tries + 1):
            try:
                async with self._streams, asyncio.timeout(settings.timeout_s):
                    return await self._once(name, wanted)
            except FileNotFoundError:
                raise
            except Exception as error:
                if tried == settings.tries or _is_final(error):
                    raise self._failed(name, wanted, tried, error) from error
            await asyncio.sleep(self._backoff_s(tried))
        raise AssertionError

    def _backoff_s(self, tried: int) -> float:
        return min(_MOST_BACKOFF_S, self._settings.backoff_s * 2.0 ** (tried - 1))

    async def _once(self, name: str, wanted: Range | None) -> bytes:
        path = f"{self._root.rstrip('/')}/{name}"
        start, end = (None, None) if wanted is None else (wanted.start, wanted.end)
        size = None if wanted is None else wanted.end - wanted.start
        if self._files.async_impl:
            options = self._for_http(size) if size is not None and "http" in self._files.protocol else {}
            data: bytes = await self._files._cat_file(path, start=start, end=end, **options)
        else:
            data = await asyncio.to_thread(self._files.cat_file, path, start, end)
        if size is not None and len(data) != size:
            raise _OtherLength(len(data), size)
        return data

    def _for_http(self, size: int) -> Mapping[str, Any]:
        """Have an answer with the whole file refused before it is read; and no compression of ranges."""

        async def checked(response: Any) -> None:  # noqa: ANN401 - aiohttp is not imported for its name
            if response.status == 206:
                self._has_answered_ranges = True
            elif response.status == 200 and response.content_length != size:
                raise _IgnoresRanges if self._has_answered_ranges else _KnowsNoRanges
            await asyncio.sleep(0)

        headers = {**self._files.kwargs.get("headers", {}), "Accept-Encoding": "identity"}
        check: Callable[[Any], Coroutine[Any, Any, None]] = checked
        return {"raise_for_status": check, "headers": headers}

    def _failed(self, name: str, wanted: Range | None, tried: int, error: Exception) -> RemoteError:
        what = f"{self.url}/{name}" + (f", bytes {wanted.start:,} to {wanted.end:,}" if wanted else "")
        if isinstance(error, TimeoutError) and not str(error):
            why = f"no whole answer within {self._settings.timeout_s:g} s"
        else:
            why = f"{type(error).__name__}: {error}" if not isinstance(error, _WrongAnswer) else str(error)
        times = "once" if tried == 1 else f"{tried} times"
        patience = "check the URL, the rights and the server; TANDEM_DATA_TIMEOUT and TANDEM_DATA_TRIES set patience"
        todo = "check the URL, and the right to read it" if _is_final(error) else patience
        if isinstance(error, _KnowsNoRanges):
            todo = "have it served by one that does, such as nginx, or copy the space to a folder here"
        return RemoteError(
            given=f"{what}: {why} (tried {times})",
            allowed="a server that is reached, and answers requests for ranges of bytes with those bytes",
            todo=todo,
        )


class _WrongAnswer(Exception):
    """Something else than what was asked for."""


class _OtherLength(_WrongAnswer):
    def __str__(self) -> str:
        got, wanted = self.args
        return f"{got:,} bytes came instead of {wanted:,}"


class _IgnoresRanges(_WrongAnswer):
    def __str__(self) -> str:
        return "the server ignores ranges: it answers with the whole file"


class _KnowsNoRanges(_IgnoresRanges):
    """It has never answered one: it will not the next time."""


def _had(outcome: bytes | Exception) -> bytes:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _is_final(error: Exception) -> bool:
    """Whether it would be the same the next time."""
    status = getattr(error, "status", None)
    if isinstance(status, int) and 400 <= status < 500:
        return status not in _TRY_AGAIN
    return isinstance(error, PermissionError | IsADirectoryError | _KnowsNoRanges)


def _may_pass(error: Exception) -> bool:
    """Whether a file system that could not be made may be the next time: what it connects to did not answer."""
    cause = error.__cause__ if isinstance(error, FileNotFoundError) else error  # as fsspec tells whatever is refused
    status = getattr(cause, "status", None)
    return isinstance(cause, ConnectionError | TimeoutError | EOFError) or (
        isinstance(status, int) and (status >= 500 or status in _TRY_AGAIN)
    )
