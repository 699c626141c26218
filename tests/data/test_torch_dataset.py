"""A map-style dataset: the same as a list would give, through PyTorch's own DataLoader too."""

import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tandem.data.batch import Samples
from tandem.data.decoding import DecodeError
from tandem.data.mixture import Mixture
from tandem.data.space import Space
from tandem.data.space.writer import SpaceWriter
from tandem.data.steps import LoaderError
from tandem.data.torch_dataset import TorchDataset
from tests.data.samples import InMemory, numbered, refuse_seven


def test_it_is_read_like_a_list_and_a_batch_at_once() -> None:
    samples = numbered(20)
    dataset = TorchDataset(samples)
    assert len(dataset) == 20
    assert dataset[3] == samples.contents[3]
    assert dataset[-1] == samples.contents[-1]
    assert dataset[3:9:2] == samples.contents[3:9:2]
    assert dataset[-2:] == samples.contents[-2:]
    samples.asked.clear()
    assert dataset.__getitems__([5, 2, 5]) == [samples.contents[number] for number in (5, 2, 5)]
    assert samples.asked == [[5, 2, 5]]
    for outside in (20, -21):
        with pytest.raises(IndexError):
            dataset[outside]


def test_samples_may_be_read_as_a_list_of_bytes() -> None:
    class Listed(InMemory):
        def read_batch(self, numbers_N: np.ndarray) -> list[bytes]:  # type: ignore[type-arg,override]
            return [self.contents[number] for number in numbers_N]

    assert TorchDataset(Listed([b"a", b"", b"c"]))[:] == [b"a", b"", b"c"]


def test_a_part_of_a_number_or_a_mask_is_refused() -> None:
    dataset: Any = TorchDataset(numbered(20))
    masked = np.ma.array(1, mask=True)
    assert dataset[np.int64(3)] == dataset[3]
    assert dataset[torch.tensor(3)] == dataset[np.array(3)] == dataset[3]
    for wrong in (1.5, True, np.True_, torch.tensor(True), torch.tensor(1.0), torch.tensor(1, device="meta"), masked):
        with pytest.raises(TypeError, match="the number of a sample is an integer, not"):
            dataset[wrong]
        with pytest.raises(TypeError, match="the number of a sample is an integer, not"):
            dataset.__getitems__([1, wrong])
    for numbers in (np.array([2.0]), torch.tensor([True])):
        with pytest.raises(TypeError, match="numbers of samples are integers"):
            dataset.__getitems__(numbers)


def test_it_can_be_iterated_like_a_sequence() -> None:
    samples = numbered(5)
    assert list(TorchDataset(samples)) == samples.contents


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_torchs_dataloader_reads_a_space_through_it(workers: int, tmp_path: Path) -> None:
    samples = numbered(50)
    with SpaceWriter(tmp_path / "s") as writer:
        for number, content in enumerate(samples.contents):
            writer.add(samples.path(number), content)
        writer.commit()
    with Space.open(tmp_path / "s") as space:
        dataset = pickle.loads(pickle.dumps(TorchDataset(space, bytes)))
        loader = DataLoader(
            dataset,
            batch_size=8,
            shuffle=True,
            num_workers=workers,
            collate_fn=list,
            multiprocessing_context="spawn" if workers else None,
        )
        batches = list(loader)
    assert [len(batch) for batch in batches] == [8] * 6 + [2]
    assert sorted(itertools.chain.from_iterable(batches)) == sorted(samples.contents)


def test_a_decoders_error_names_the_sample() -> None:
    with pytest.raises(DecodeError, match=r"sample 7 \('folder/7.bin'\)"):
        TorchDataset(numbered(20), refuse_seven).__getitems__(np.arange(20).tolist())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (Mixture([numbered(2)], weights=[1]), "samples is a Mixture; .*; iterate a Loader of it: a DataLoader would"),
        ([b"a", b"b"], "samples is a list; allowed: a Space, or anything else with __len__ and read_batch; pack it"),
    ],
)
def test_what_cannot_be_read_by_its_numbers_is_refused_at_once(wrong: Samples, words: str) -> None:
    with pytest.raises(LoaderError, match=words):
        TorchDataset(wrong)
