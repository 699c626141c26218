"""A space as its readers see it: what is read is verified; what does not verify raises, and no byte of it returns."""

from __future__ import annotations

import os
from functools import cached_property

from tandem.core.errors import SpaceError
from tandem.core.light_typing import TYPE_CHECKING, cast
from tandem.data.integers import sample_number
from tandem.data.space.homes import Folder
from tandem.data.space.reading import Readers, check_terms, closed
from tandem.data.space.snapshot import open_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from tandem.data.batch import Batch, Coming
    from tandem.data.cache.settings import RemoteSettings
    from tandem.data.space.foresight import Foresight
    from tandem.data.space.homes import Home
    from tandem.data.space.index import Index, Sample
    from tandem.data.space.pieces import Pieces
    from tandem.data.space.reading import How
    from tandem.data.space.remote_home import RemoteHome

_PART_BYTES = 16 << 20


class Space:
    """One generation of a space; what writers do afterwards does not change it.

    Safe to use from several threads, after a fork, and pickled to another process. Samples are numbered from 0. Once it
    is closed, whatever is asked of it raises ValueError.
    """

    def __init__(self, folder: str, index: Index, how: How, threads: int | None, home: Home | None = None) -> None:
        """Use `Space.open`."""
        self.folder = folder
        self.how: How = how
        self.threads = threads
        self._index = index
        self._home = home or Folder(folder)
        self._readers = Readers(folder, index, how, threads, self._home)

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        *,
        generation: int | None = None,
        how: How = "auto",
        threads: int | None = None,
        remote: RemoteSettings | None = None,
    ) -> Space:
        """Open a space.

        Args:
            folder: Where it is: a folder, or a URL that fsspec reads (`https://`, `s3://`, ...).
            generation: Which generation; the present one if None.
            how: How bytes are read: "auto" lets the reader choose, others are for measurements and tests.
            threads: How many threads read one batch; if None, one for each core, at most 4.
            remote: How a space at a URL is reached and cached; if None, as the environment says.

        Raises:
            ValueError: There is no such way of reading, or number of threads.
            SpaceError: There is no space, no such generation, or it is of a newer version.
            DataError: Its index is damaged.
            RemoteError: The URL cannot be reached.
        """
        check_terms(how, threads)
        name = os.fspath(folder)
        if "://" in name:
            from tandem.data.space.remote_snapshot import open_remote

            index, home = open_remote(name, generation, remote)
            return cls(name, index, how, threads, home)
        return cls(name, open_snapshot(name, generation), how, threads)

    def close(self) -> None:
        """Let the snapshot go; batches that were read stay valid."""
        self.__dict__.pop("_pieces", None)
        self._readers.close()
        self._index.close()

    def __enter__(self) -> Self:
        """Nothing more."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        """Open the same generation where it is unpickled."""
        return _reopened, (self.folder, self.generation, self.how, self.threads, self._home.settings)

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self._index)

    @property
    def index(self) -> Index:
        """Paths, sizes, times, modes and checksums."""
        return self._index

    @property
    def identity(self) -> str:
        """Which numbered samples these are: a space's id, which its copies share, and the generation."""
        return f"space {self._index.header.space_id.hex()[:12]}, generation {self.generation}"

    @property
    def generation(self) -> int:
        """Which generation this is."""
        return self._index.header.generation

    @property
    def home(self) -> Home:
        """Where the shards are."""
        return self._home

    @property
    def space_id(self) -> str:
        """What all generations of this space, and no other, are called: 32 hexadecimal digits."""
        return self._index.header.space_id.hex()

    @property
    def data_bytes(self) -> int:
        """Bytes of all samples."""
        return self._index.header.data_bytes

    def read(self, number: int) -> bytes:
        """Read and verify one sample.

        Raises:
            IndexError: The number is out of range.
            DataError: Its bytes are not what was packed.
        """
        try:
            return self._readers.read(number if type(number) is int else self._in_range(number))
        except (TypeError, OverflowError):
            self._in_range(number)  # what it is says it better
            raise

    def read_batch(self, numbers_N: ArrayLike) -> Batch:
        """Read and verify these samples, in this order; a number may be there more than once.

        The interpreter lock is not held meanwhile. The batch's buffer comes from a pool and goes back to it when
        nothing refers to the batch, or to a view of it, any more.

        Raises:
            IndexError: A number is out of range.
            DataError: A sample's bytes are not what was packed; names it.
        """
        return self._readers.read_batch(numbers_N)

    def foresee(self, numbers: Iterator[NDArray[np.int64]]) -> Foresight | None:
        """Let the cache know what will be read: it keeps what is needed soonest, and fetches ahead of its use.

        Args:
            numbers: Samples in the order in which they will be read, some at a time, without end.

        Returns:
            What is to be told of progress, and closed; None where the space is on this machine.
        """
        if self._home.is_here:
            return None
        from tandem.data.space.foresight import Foresight

        return Foresight(cast("RemoteHome", self._home), numbers)

    def read_part(self, number: int, start: int, size: int) -> bytes:
        """Read some bytes of a sample, for samples that are too large to be read whole for a part of them.

        They are verified all the same: see `Pieces`, which keeps what was read last. Past the sample's end there is
        nothing.

        Raises:
            IndexError: The number is out of range.
            DataError: The sample's bytes, also others than these, are not what was packed; names it.
        """
        return self._pieces.read(self._in_range(number), start, size)

    def pieces(self, number: int) -> Iterator[bytes]:
        """Read a sample that may be larger than the memory: in parts of at most 16 MiB, each verified.

        At a URL it comes whole all the same: a cache of fewer bytes would fetch all of it for each part.

        Raises:
            IndexError: The number is out of range.
            DataError: The sample's bytes are not what was packed; names it, before any of a sample that was damaged.
        """
        number = self._in_range(number)
        size = self._index.place(number)[3]
        if size <= _PART_BYTES or not self._home.is_here:
            yield self.read(number)
            return
        for start in range(0, size, _PART_BYTES):
            yield self.read_part(number, start, _PART_BYTES)

    @cached_property
    def _pieces(self) -> Pieces:
        from tandem.data.space.pieces import Pieces

        return Pieces(self._index, self._readers)

    def begin_batch(self, numbers_N: ArrayLike, threads: int) -> Coming | None:
        """Have native threads read and verify these samples into `bytes`, while the caller does something else.

        None where they cannot: the native reader is not built, or a shard was never read from and is not open yet;
        `read_batch` opens it.

        Raises:
            IndexError: A number is out of range.
            DataError: The index is damaged.
        """
        return self._readers.begin(numbers_N, threads)

    def number(self, path: str) -> int:
        """The number of the sample with this path.

        Raises:
            SpaceError: There is none.
        """
        found = self._open_index().find(path)
        if found is None:
            raise self._unknown(path)
        return found

    def __contains__(self, path: object) -> bool:
        """Whether there is a sample with this path."""
        return isinstance(path, str) and self._open_index().find(path) is not None

    def path(self, number: int) -> str:
        """The path of a sample.

        Raises:
            IndexError: The number is out of range.
        """
        return self._index.path(self._in_range(number))

    def stat(self, number: int) -> Sample:
        """Path, size, time, mode, checksum and place of a sample.

        Raises:
            IndexError: The number is out of range.
        """
        return self._index.sample(self._in_range(number))

    def under(self, prefix: str = "") -> Iterator[int]:
        """The numbers of all samples whose paths begin so, in the order of their paths."""
        index = self._open_index()
        return map(index.in_order, index.under(prefix))

    def numbers_under(self, prefix: str = "") -> NDArray[np.int64]:
        """The same as an array, for `read_batch`."""
        import numpy as np

        return np.fromiter(self.under(prefix), np.int64)

    def _open_index(self) -> Index:
        if self._index.file < 0:
            raise closed(self.folder)
        return self._index

    def _in_range(self, number: int) -> int:
        self._open_index()
        whole = sample_number(number)
        if not 0 <= whole < len(self):
            message = f"sample {whole} of a space of {len(self)}"
            raise IndexError(message)
        return whole

    def _unknown(self, path: str) -> SpaceError:
        from tandem.core.nearest import did_you_mean

        plain = os.path.normpath(path).lstrip("/")
        if self._index.find(plain) is not None:
            todo = f"did you mean {plain!r}?"
        else:
            todo = did_you_mean(path, self._near(path), "give a path as it was packed, relative to the source")
        return SpaceError(
            given=f"{self.folder} has no sample {path!r}",
            allowed=f"{len(self):,} paths; see: tandem data ls {self.folder}",
            todo=todo,
        )

    def _near(self, path: str) -> list[str]:
        """Paths before and after where one would be."""
        begin = self._index.rank_after(path.encode(errors="replace"))
        return [self._index.path(self._index.in_order(i)) for i in range(max(0, begin - 3), min(len(self), begin + 3))]


def _reopened(folder: str, generation: int, how: How, threads: int | None, remote: RemoteSettings | None) -> Space:
    return Space.open(folder, generation=generation, how=how, threads=threads, remote=remote)
