"""Every kind of source that packing reads: what it accepts, and that it gives the same samples in any process."""

import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tandem.core import plug
from tandem.data.pack.source import FAMILY, Item, open_source

FILES = {"a/1": b"one", "a/2": b"", "b": b"x" * 100_000, "c d/\u00fc\n": b"odd"}


def folder(root: Path) -> str:
    for path, data in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return str(root)


def tar(root: Path) -> str:
    with tarfile.open(root.with_suffix(".tar"), "w") as archive:
        archive.add(folder(root), ".")
    return f"{root}.tar"


def zipped(root: Path) -> str:
    with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
        for path in FILES:
            archive.write(Path(folder(root)) / path, path)
    return f"{root}.zip"


def url(root: Path) -> str:
    files = fsspec.filesystem("memory")
    for path, data in FILES.items():
        files.pipe(f"{root}/{path}", data)
    return f"memory:/{root}"


MADE: dict[str, Callable[[Path], str]] = {"folder": folder, "tar": tar, "zip": zipped, "url": url}


def whole(items: Any) -> dict[str, bytes]:  # noqa: ANN401 - an iterator of items
    def data(item: Item) -> bytes:
        return item.data if isinstance(item.data, bytes) else b"".join(iter(item.data, b""))

    return {item.path.decode(): data(item) for item in items}


@pytest.mark.parametrize("name", plug.names(FAMILY))
def test_a_source_gives_its_samples_wherever_it_is_read(name: str, tmp_path: Path) -> None:
    text = MADE[name](tmp_path / "it")
    kinds: dict[str, Any] = {kind: plug.load(FAMILY, kind) for kind in plug.names(FAMILY)}
    assert [kind for kind in kinds if kinds[kind].accepts(text)] == [name]
    source = open_source(text)
    entries = source.entries()
    assert whole(source.items(entries)) == FILES
    other = pickle.loads(pickle.dumps(source))
    assert other.entries() == entries  # the same names for the same parts: what packing goes on by
    assert whole(other.items(entries[1:2])) == {k: v for k, v in FILES.items() if k == entries[1].path.decode()}
    assert dict(source.left_out()) == {}


@pytest.mark.parametrize("name", plug.names(FAMILY))
def test_what_is_not_there_is_not_accepted(name: str, tmp_path: Path) -> None:
    kind: Any = plug.load(FAMILY, name)
    for text in ("", "nothing", f"{tmp_path}/no.tar", f"{tmp_path}/no.zip", f"{tmp_path}/no/*.tar"):
        assert not kind.accepts(text)
