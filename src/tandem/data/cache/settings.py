"""How remote spaces are reached and cached: arguments, or environment variables where an argument is left out.

| attribute | variable | default |
|---|---|---|
| `folder` | `TANDEM_DATA_CACHE` | `$XDG_CACHE_HOME/tandem/data`, else `~/.cache/tandem/data` |
| `limit_bytes` | `TANDEM_DATA_CACHE_LIMIT` | what `tandem data cache --limit` has set, else 32 GiB |
| `block_bytes` | `TANDEM_DATA_CACHE_BLOCK` | 1 MiB |
| `ahead_bytes` | `TANDEM_DATA_READ_AHEAD` | 256 MiB |
| `timeout_s` | `TANDEM_DATA_TIMEOUT` | 60 s |
| `tries` | `TANDEM_DATA_TRIES` | 5 |
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tandem.core import data_folder
from tandem.core.errors import TandemError
from tandem.core.units import parse_duration, parse_size

DEFAULT_LIMIT_BYTES = 32 << 30
_LEAST_BLOCK_BYTES, _MOST_BLOCK_BYTES = 4096, 1 << 30


class RemoteError(TandemError):
    """A remote that does not answer, or not with what was asked for; or a cache that cannot be kept."""


def is_web(url: str) -> bool:
    """Whether a web server has it: names are percent-encoded then, and folders are pages of links."""
    return url.startswith(("http://", "https://"))


def file_system_at(url: str, **options: Any) -> tuple[Any, str]:  # noqa: ANN401 - fsspec ships no types
    """What reads a URL, and what the URL is called there, as fsspec finds it; `::` in a web address is of no chain."""
    from fsspec import filesystem
    from fsspec.core import url_to_fs

    if is_web(url):
        return filesystem(url.partition(":")[0], **options), url
    files, root = url_to_fs(url, **options)
    return files, root


def _text(name: str, default: str) -> str:
    return os.environ.get(name, "") or default


def cache_folder() -> str:
    """Where the cache is, if nothing else is said."""
    return _text("TANDEM_DATA_CACHE", f"{data_folder.cache_folder(os.environ, os.geteuid())}/data")


def _limit() -> int | None:
    text = _text("TANDEM_DATA_CACHE_LIMIT", "")
    return parse_size(text) if text else None


@dataclass(frozen=True, kw_only=True)
class RemoteSettings:
    """How a remote space is reached and cached.

    Attributes:
        folder: The cache; on a disk of this node. Jobs that name the same one share it.
        limit_bytes: How many bytes of shards it holds at most; None for what was set for the folder.
        block_bytes: In pieces of how many bytes shards are fetched, a multiple of 4,096 up to 1 GiB; the first
            job that caches a space decides for it.
        ahead_bytes: How many bytes may be fetched before a loader needs them; 0 for none.
        timeout_s: How long one request may take.
        tries: How often a request is made before it has failed.
        backoff_s: How long to wait before the second; doubled before each further one.
        streams: How many requests are under way at once.
        options: For fsspec's file system: credentials, an endpoint, ...

    Raises:
        RemoteError: Values that cannot be.
    """

    folder: str = field(default_factory=cache_folder)
    limit_bytes: int | None = field(default_factory=_limit)
    block_bytes: int = field(default_factory=lambda: parse_size(_text("TANDEM_DATA_CACHE_BLOCK", "1M")))
    ahead_bytes: int = field(default_factory=lambda: parse_size(_text("TANDEM_DATA_READ_AHEAD", "256M")))
    timeout_s: float = field(
        default_factory=lambda: parse_duration(_text("TANDEM_DATA_TIMEOUT", "60s"), bare_unit_s=1.0)
    )
    tries: int = field(default_factory=lambda: _whole("TANDEM_DATA_TRIES", 5))
    backoff_s: float = 0.2
    streams: int = 8
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.limit_bytes is not None and self.limit_bytes < 1:
            _refuse(f"a limit of {self.limit_bytes} bytes", "1 byte or more")
        if not _LEAST_BLOCK_BYTES <= self.block_bytes <= _MOST_BLOCK_BYTES or self.block_bytes % _LEAST_BLOCK_BYTES:
            _refuse(f"blocks of {self.block_bytes:,} bytes", "multiples of 4,096 up to 1 GiB")
        if self.tries < 1 or self.streams < 1 or not self.timeout_s > 0:
            given = f"tries={self.tries}, streams={self.streams}, timeout_s={self.timeout_s}"
            _refuse(given, "1 or more tries and streams, a time above 0")


def _whole(name: str, default: int) -> int:
    text = _text(name, str(default))
    if not text.isdigit():
        _refuse(f"{name}={text!r}", "a whole number")
    return int(text)


def _refuse(given: str, allowed: str) -> None:
    raise RemoteError(given=given, allowed=allowed, todo="change the settings of the cache")
