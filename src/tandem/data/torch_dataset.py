"""Samples as a map-style dataset of PyTorch, for programs that already have a `DataLoader`.

    loader = torch.utils.data.DataLoader(TorchDataset(space, png), batch_size=64, shuffle=True, num_workers=2)

DataLoader hands a whole batch of numbers over (`__getitems__`), which is read at once. The dataset can be pickled where
its samples and its decoder can (a `Space` opens again where it arrives).

Limits: DataLoader's processes cost more than the reading; `Loader` is several times as fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.utils.data import Dataset

from tandem.data.batch import whole_numbers
from tandem.data.decoding import Decode, DecoderFailure, told
from tandem.data.integers import sample_number
from tandem.data.mixture import read_views, refuse_unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tandem.data.batch import Samples


class TorchDataset(Dataset[Any]):
    """Numbered samples, decoded.

    Args:
        samples: A `Space`, or anything else with `__len__` and `read_batch`; no `Mixture`, whose turns a `DataLoader`,
            which draws the numbers itself, would not keep.
        decode: Called with the bytes of a sample, a view; by default they are copied into `bytes`, which can go from
            one process to another.

    Raises:
        LoaderError: Samples that cannot be read so.
    """

    def __init__(self, samples: Samples, decode: Callable[[memoryview], Any] = bytes) -> None:
        refuse_unreadable(
            "samples", samples, of_mixture="iterate a Loader of it: a DataLoader would not keep its weights"
        )
        self._samples = samples
        self._decode = Decode(decode)

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self._samples)

    def __getitem__(self, number: int | slice) -> object:
        """One sample, negative numbers counting from the end; or the list of a run of them.

        Raises:
            IndexError: There is no such sample.
            TypeError: It is no integer.
            DataError: Its bytes are not what was packed.
            DecodeError: The decoder raised.
        """
        if isinstance(number, slice):
            return self.__getitems__(range(*number.indices(len(self))))
        number = sample_number(number)
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        return self.__getitems__([number % len(self)])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[Any]:
        """Several samples, read at once; raises what `__getitem__` raises."""
        numbers_N = whole_numbers(numbers)
        views = read_views(self._samples, numbers_N)
        try:
            found = self._decode(views, [])
        except DecoderFailure as failure:
            raise told(failure, self._samples, numbers_N) from failure.cause
        assert isinstance(found, list)
        return found
