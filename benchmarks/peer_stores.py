"""How peers store many small files: MDS shards (mosaicml-streaming), LitData's chunks, WebDataset's tar files.

Imported by the interpreter of .venv-peers only. A store is written where there is none, each by its package's own
writer with its usual shard sizes, uncompressed.

mosaicml-streaming imports torchvision and transformers for classes that files of bytes have no use for; they are not
installed: empty modules of these names stand in for them.
"""

from __future__ import annotations

import shutil
import sys
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_STOOD_IN = {
    "torchvision": (),
    "torchvision.datasets": ("VisionDataset",),
    "torchvision.transforms": (),
    "torchvision.transforms.functional": ("to_tensor",),
    "transformers": (),
    "transformers.feature_extraction_utils": ("BatchFeature",),
    "transformers.tokenization_utils_base": ("BatchEncoding",),
    "transformers.models": (),
    "transformers.models.auto": (),
    "transformers.models.auto.tokenization_auto": ("AutoTokenizer",),
}


def streaming() -> Any:  # noqa: ANN401 - a module
    """The package mosaicml-streaming."""
    for name, members in _STOOD_IN.items():
        if name not in sys.modules:
            module = ModuleType(name)
            for member in members:
                setattr(module, member, type(member, (), {}))
            sys.modules[name] = module
    import streaming

    return streaming


def mds(paths: Sequence[Path], store: Path) -> None:
    """MDS shards of 64 MiB."""
    with _whole(store) as fresh:
        if fresh:
            with streaming().MDSWriter(out=str(store), columns={"data": "bytes"}, progress_bar=False) as writer:
                for path in paths:
                    writer.write({"data": path.read_bytes()})


def chunks(paths: Sequence[Path], store: Path) -> None:
    """LitData's chunks of 64 MB."""
    with _whole(store) as fresh:
        if fresh:
            from litdata.streaming.cache import Cache

            cache = Cache(str(store), chunk_bytes=64_000_000)
            for number, path in enumerate(paths):
                cache[number] = path.read_bytes()
            cache.done()
            cache.merge()


def tars(paths: Sequence[Path], store: Path) -> list[str]:
    """WebDataset's tar files, a thousand samples to each; returns their names."""
    with _whole(store) as fresh:
        if fresh:
            from webdataset import ShardWriter

            with ShardWriter(f"{store}/%06d.tar", maxcount=1000, verbose=0) as writer:
                for number, path in enumerate(paths):
                    writer.write({"__key__": f"{number:08d}", "bin": path.read_bytes()})
    return sorted(str(path) for path in store.glob("*.tar"))


@contextmanager
def _whole(store: Path) -> Iterator[bool]:
    """Whether there is nothing yet; no half a store stays for the next run."""
    if store.exists():
        yield False
        return
    store.mkdir(parents=True)
    try:
        yield True
    except BaseException:
        shutil.rmtree(store, ignore_errors=True)
        raise
