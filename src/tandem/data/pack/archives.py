"""Archives by their names and by what is in them, and as files of this machine wherever they are."""

from __future__ import annotations

import os
import tarfile
import tempfile
import weakref
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

from tandem.data.pack.stream import fetched
from tandem.data.pack.urls import is_url

ZIP = (".zip",)
PLAIN_TAR = (".tar",)
COMPRESSED_TAR = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ALL = ZIP + PLAIN_TAR + COMPRESSED_TAR

_BEGINNINGS = {
    b"\x1f\x8b\x08": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x5d\0\0": "xz",  # its older form, .lzma
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",  # an empty one
}


def is_called(text: str, endings: tuple[str, ...]) -> bool:
    """Whether a name ends so, or the path of a URL; a URL within another (`tar://::...`) is fsspec's affair."""
    if is_url(text):
        return "::" not in text and urlsplit(text).path.lower().endswith(endings)
    return text.lower().endswith(endings)


def is_at_url(text: str, endings: tuple[str, ...] = ALL) -> bool:
    """Whether it is a URL that ends as archives do."""
    return is_url(text) and is_called(text, endings)


def content(place: str) -> str:
    """What a file is whatever it is called: "tar", "zip", what it is compressed by, or "" for anything else."""
    with open(place, "rb") as file:  # noqa: PTH123 - names are texts here
        begin = file.read(tarfile.BLOCKSIZE)
    with suppress(tarfile.HeaderError):
        tarfile.TarInfo.frombuf(begin, "utf-8", "surrogateescape")
        return "tar"
    return next((kind for beginning, kind in _BEGINNINGS.items() if begin.startswith(beginning)), "")


class Archive(NamedTuple):
    """An archive: `name` for people, `place` to open it by, from any process while the one that fetched it lives."""

    name: str
    place: str


class Fetched:
    """Keeps fetched archives: files without names, in $TMPDIR or /tmp, that go with it or the process, however it ends.

    Pickled, it keeps none.
    """

    def here(self, name: str) -> Archive:
        """An archive as a file of this machine; one at a URL is fetched, whole.

        Raises:
            RemoteError: It cannot be read.
            OSError: There is no room for it.
        """
        if not is_url(name):
            return Archive(name, name)
        file = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as this is there
        weakref.finalize(self, file.close)
        place = f"/proc/{os.getpid()}/fd/{file.fileno()}"
        fetched(name, place)
        return Archive(name, place)
