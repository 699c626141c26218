"""Other people's ways to feed a training, one a process, for `data_loader.py`, which tells it what to do line by line.

Run by it: `python peer_loaders.py BATCH KIND FILES STORE [KIND FILES STORE ...]`, with FILES a folder of sample files.
Writes `ready`, then for each line on standard input (which of the kinds, counted from 0, and a seed) goes through one
epoch, in an exact global shuffle unless said otherwise, batch by batch, keeping nothing, and writes seconds, samples,
bytes and the CPU seconds of this process. Where an epoch needs preparation that a training would do once (worker
processes, opened stores), it is done before `ready`.

    torch           torch DataLoader over the raw files, 2 workers that persist, collate_fn=list
    torch-pillow    the same, each file decoded by Pillow, each batch stacked by `stack`
    torch-opencv    the same, each file decoded by OpenCV
    lmdb            LMDB, a permutation, `get` for each key: lists of bytes
    hf              HF datasets (Arrow), a permutation, indexed by whole batches: lists of bytes

    streaming       mosaicml-streaming with its exact shuffle, "naive", in this process: lists of bytes
    litdata         LitData's StreamingDataset with shuffle=True, in this process: its chunks, and samples within chunks
    webdataset      WebDataset with shuffled tar files and a buffer of 1,000 samples, in this process

The last three are written by their own writers (peer_stores.py). Of streaming and webdataset, which are slow, an epoch
is its first 10,000 samples.
"""

from __future__ import annotations

import io
import itertools
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import peer_stores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    Epoch = Callable[[int], Iterable[Any]]

WORKERS = 2
MOST = 10_000


def pillow(data: bytes | memoryview) -> NDArray[np.uint8]:
    """A decoder of both sides: Pillow's, to an array of rows and columns. It holds the interpreter lock mostly."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)))


def opencv(data: bytes | memoryview) -> Any:  # noqa: ANN401  # an array; OpenCV's types are its own
    """A decoder of both sides: OpenCV's, which lets go of the interpreter lock."""
    import cv2

    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


DECODERS: dict[str, Callable[[bytes | memoryview], Any]] = {"pillow": pillow, "opencv": opencv}


def stack(images: list[Any]) -> NDArray[np.uint8]:
    """What both sides make of a batch of images."""
    return np.stack(images)


class RawFiles:
    """A map-style dataset of files, as torch wants it."""

    def __init__(self, paths: Sequence[str], decode: Callable[[bytes], Any] | None) -> None:
        self.paths, self.decode = paths, decode

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> object:
        with open(self.paths[number], "rb") as file:  # noqa: PTH123  # the quickest way there is
            data = file.read()
        return data if self.decode is None else self.decode(data)


def torch_files(paths: list[Path], batch: int, decode: Callable[[bytes], Any] | None) -> Epoch:
    import torch
    from torch.utils.data import DataLoader

    dataset: Any = RawFiles([str(path) for path in paths], decode)
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=batch,
        shuffle=True,
        num_workers=WORKERS,
        collate_fn=list if decode is None else stack,
        persistent_workers=True,
    )
    next(iter(loader))  # starts the workers

    def epoch(seed: int) -> Iterable[Any]:
        torch.manual_seed(seed)
        return loader

    return epoch


def lmdb_store(paths: list[Path], store: Path, batch: int) -> Epoch:
    import lmdb

    if not store.exists():
        with lmdb.open(str(store), map_size=4 << 30, sync=False) as new, new.begin(write=True) as writing:
            for number, path in enumerate(paths):
                writing.put(b"%08d" % number, path.read_bytes())
    opened = lmdb.open(str(store), readonly=True, lock=False, readahead=False)

    def epoch(seed: int) -> Iterable[Any]:
        order = np.random.default_rng(seed).permutation(len(paths))
        with opened.begin() as reading:
            get = reading.get
            for begin in range(0, len(order), batch):
                yield [get(b"%08d" % number) for number in order[begin : begin + batch].tolist()]

    return epoch


def hf_datasets(paths: list[Path], store: Path, batch: int) -> Epoch:
    os.environ["HF_DATASETS_OFFLINE"] = "1"
    import datasets

    if not store.exists():
        features = datasets.Features({"data": datasets.Value("large_binary")})
        contents = [path.read_bytes() for path in paths]
        datasets.Dataset.from_dict({"data": contents}, features=features).save_to_disk(str(store))
    opened = datasets.load_from_disk(str(store))

    def epoch(seed: int) -> Iterable[Any]:
        order = np.random.default_rng(seed).permutation(len(paths))
        for begin in range(0, len(order), batch):
            yield opened[order[begin : begin + batch].tolist()]["data"]

    return epoch


def streaming_naive(paths: list[Path], store: Path, batch: int) -> Epoch:
    peer_stores.mds(paths, store)
    dataset: Any = peer_stores.streaming().StreamingDataset(
        local=str(store), shuffle=True, shuffle_algo="naive", num_canonical_nodes=1, batch_size=batch
    )

    def epoch(_: int) -> Iterable[Any]:
        return batches((sample["data"] for sample in itertools.islice(dataset, MOST)), batch)

    return epoch


def litdata_chunks(paths: list[Path], store: Path, batch: int) -> Epoch:
    peer_stores.chunks(paths, store)
    from litdata import StreamingDataset

    dataset: Any = StreamingDataset(str(store), shuffle=True)

    def epoch(seed: int) -> Iterable[Any]:
        dataset.set_epoch(seed)
        return batches(iter(dataset), batch)

    return epoch


def webdataset_tars(paths: list[Path], store: Path, batch: int) -> Epoch:
    names = peer_stores.tars(paths, store)
    import webdataset

    def epoch(seed: int) -> Iterable[Any]:
        dataset = webdataset.WebDataset(names, shardshuffle=len(names), seed=seed).shuffle(1000)
        return batches((sample["bin"] for sample in itertools.islice(dataset, MOST)), batch)

    return epoch


def batches(samples: Iterable[bytes], batch: int) -> Iterable[list[bytes]]:
    iterator = (sample for sample in samples)  # LitData's own begins anew when it is asked once more
    while some := list(itertools.islice(iterator, batch)):
        yield some


def prepared(kind: str, paths: list[Path], store: Path, batch: int) -> Epoch:
    name, _, decoder = kind.partition("-")
    if name == "torch":
        return torch_files(paths, batch, DECODERS[decoder] if decoder else None)
    makers = {
        "lmdb": lmdb_store,
        "hf": hf_datasets,
        "streaming": streaming_naive,
        "litdata": litdata_chunks,
        "webdataset": webdataset_tars,
    }
    try:
        return makers[kind](paths, store, batch)
    except BaseException:
        shutil.rmtree(store, ignore_errors=True)  # no half a store for the next run
        raise


def main() -> None:
    batch, epochs = int(sys.argv[1]), []
    for kind, files, store in zip(sys.argv[2::3], sys.argv[3::3], sys.argv[4::3], strict=True):
        paths = sorted(path for path in Path(files).rglob("*") if path.is_file())
        epochs.append(prepared(kind, paths, Path(store), batch))
    print("ready", flush=True)
    for line in sys.stdin:
        which, seed = map(int, line.split())
        begun_s, begun_cpu_s, samples, size_bytes = time.perf_counter(), time.process_time(), 0, 0
        for found in epochs[which](seed):
            samples += len(found)
            if isinstance(found, list):
                size_bytes += sum(map(len, found))
        print(time.perf_counter() - begun_s, samples, size_bytes, time.process_time() - begun_cpu_s, flush=True)


if __name__ == "__main__":
    main()
