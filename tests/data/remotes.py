"""Spaces to serve, and settings that try again without long waits, for tests of remote spaces."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.range_server import RangeServer
from tandem.data.cache.settings import RemoteSettings
from tandem.data.space import Space
from tandem.data.space.writer import SpaceWriter

BLOCK_BYTES = 4096


def settings(folder: Path, **changed: object) -> RemoteSettings:
    """A cache in small blocks, without read-ahead unless it is asked for."""
    values: dict[str, Any] = {"block_bytes": BLOCK_BYTES, "ahead_bytes": 0, "backoff_s": 0.001, "timeout_s": 20.0}
    return RemoteSettings(folder=str(folder), **{**values, **changed})


def opened(server: RangeServer, **changed: object) -> Space:
    """The space that a server shows, through a cache beside what it shows."""
    return Space.open(server.url, remote=settings(server.folder.parent / "cache", **changed))


@contextmanager
def s3_endpoint() -> Iterator[str]:
    """The URL of a real S3 server, empty, that takes any key."""
    from moto.server import ThreadedMotoServer

    endpoint = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    endpoint.start()
    host, port = endpoint.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        endpoint.stop()


def all_of(space: Space) -> dict[str, bytes]:
    """Everything in it."""
    return {space.path(number): bytes(view) for number, view in enumerate(space.read_batch(range(len(space))))}


def contents(count: int = 200, least: int = 500, most: int = 3000, seed: int = 1) -> dict[str, bytes]:
    """Files of random bytes, one of them empty."""
    rng = random.Random(seed)
    found = {f"{i % 3}/f{i:04d}": rng.randbytes(rng.randrange(least, most)) for i in range(count)}
    return {**found, "empty": b""}


def space_of(folder: Path, files: dict[str, bytes], shard_bytes: int = 100_000) -> Path:
    """A space that holds these files."""
    with SpaceWriter(folder, shard_bytes=shard_bytes) as writer:
        for path, data in files.items():
            writer.add(path, data)
        writer.commit()
    return folder


def one_block_each(folder: Path, count: int) -> Path:
    """A space of one shard in which sample i is block i, all of it but for the shard's header."""
    files = {f"{i:03d}": random.Random(i).randbytes(BLOCK_BYTES - (64 if i == 0 else 0)) for i in range(count)}
    return space_of(folder, files, 1 << 30)
