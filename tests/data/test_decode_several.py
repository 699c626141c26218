"""Several small batches go to a decoding process at once; each has a result, or a failure, of its own."""

import numpy as np
import pytest

from tandem.data import Decode, Loader
from tandem.data.decode_process import DecodingProcess
from tandem.data.decoding import DecodeError, DecoderEndedError, DecoderFailure
from tests.data import samples as decoders
from tests.data.samples import InMemory, numbered

pytestmark = pytest.mark.slow


def batches(*contents: list[bytes]) -> list[tuple[list[memoryview], list[int]]]:
    return [([memoryview(one) for one in some], list(range(len(some)))) for some in contents]


def test_each_batch_has_its_own_result_or_failure() -> None:
    process = DecodingProcess(Decode(decoders.refuse_seven))
    first, second, third, none = process.several(batches([b"1", b"22"], [b"333", b"7"], [b"4444"], []))
    assert (first, third, none) == ([1, 2], [4], [])
    assert isinstance(second, DecoderFailure)
    assert second.place == 1
    assert isinstance(second.cause, ValueError)
    process.close()


def test_arrays_of_several_batches_do_not_share_memory() -> None:
    process = DecodingProcess(Decode(decoders.to_array))
    for round_ in range(3):  # the shared memory is used again, and grows
        asked = [[bytes([round_ + 10 * k + i]) * 10 ** (round_ + 4) for i in range(3)] for k in range(4)]
        found = process.several(batches(*asked))
        for some, contents in zip(found, asked, strict=True):
            assert isinstance(some, list)
            assert [array.tobytes() for array in some] == contents
            some[0][:] = 255
        assert isinstance(found[0], list)
        assert found[0][1].tobytes() == asked[0][1]
    process.close()


def test_of_a_process_that_ends_half_way_what_was_decoded_counts_and_what_was_to_be_is_not_blamed() -> None:
    process = DecodingProcess(Decode(decoders.die_at_seven))
    first, second, third = process.several(batches([b"1", b"22"], [b"3", b"4", b"7", b"5"], [b"6"]))
    assert first == [1, 2]
    assert isinstance(second, DecoderFailure)
    assert isinstance(third, DecoderFailure)
    assert (second.place, third.place) == (2, None)
    assert isinstance(third.cause, DecoderEndedError)
    assert "status 3" in str(third.cause)
    process.close()


def test_a_loader_hands_out_all_batches_before_the_one_that_fails() -> None:
    samples = InMemory([b"7" if number == 90 else b"%d" % (number % 5) for number in range(200)])
    for decode in (decoders.refuse_seven, decoders.die_at_seven):
        with Loader(samples, 2, shuffle=False, decode=decode, workers=1, decode_in="processes") as loader:
            handed_out, batches_ = [], iter(loader)
            with pytest.raises(DecodeError, match=r"sample 90 \('folder/90.bin'\) could not be decoded"):
                handed_out.extend(batches_)
        assert handed_out == [[1, 1]] * 45


def test_small_batches_are_asked_for_several_at_a_time_and_large_ones_by_themselves() -> None:
    for size_bytes, most in ((10, 4), (40_000, 1)):
        samples = InMemory([bytes([number]) * size_bytes for number in range(120)])
        with Loader(samples, 3, decode=decoders.to_array, workers=1, decode_in="processes") as loader:
            seen = [int(array[0]) for batch in loader for array in batch]
        assert sorted(seen) == list(range(120))
        assert max(map(len, samples.asked)) == 3 * most


def test_results_are_those_of_threads_whatever_is_grouped() -> None:
    samples = numbered(300)
    with (
        Loader(samples, 7, decode=Decode(len, np.array), workers=2, decode_in="processes") as there,
        Loader(samples, 7, decode=Decode(len, np.array), workers=0) as here,
    ):
        for _ in range(2):
            assert [batch.tolist() for batch in there] == [batch.tolist() for batch in here]
