"""Batches in page-locked memory: the same values, wherever they stand in the batch."""

import numpy as np
import pytest
import torch

from tandem.data import Decode, Loader
from tandem.data.pinning import pinned
from tests.conftest import requires
from tests.data.samples import numbered


@requires("gpu")
@pytest.mark.slow
def test_views_arrays_and_tensors_are_pinned_wherever_they_stand() -> None:
    array, tensor = np.arange(6.0).reshape(2, 3), torch.arange(4)
    found = pinned({"a": [array, (tensor, memoryview(b"xyz"))], "b": "a word"})
    assert isinstance(found, dict)
    first, (second, third) = found["a"]
    assert first.is_pinned()
    assert second.is_pinned()
    assert third.is_pinned()
    assert np.array_equal(first.numpy(), array)
    assert torch.equal(second, tensor)
    assert bytes(third.tolist()) == b"xyz"
    assert found["b"] == "a word"


@requires("gpu")
@pytest.mark.slow
def test_a_loader_pins_what_it_hands_out() -> None:
    samples = numbered(50)
    with Loader(samples, 10, shuffle=False, decode=Decode(pin=True)) as loader:
        tensors = [tensor for batch in loader for tensor in batch]
    assert [bytes(tensor.tolist()) for tensor in tensors] == samples.contents
    assert all(tensor.is_pinned() for tensor in tensors if len(tensor))
