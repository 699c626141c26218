"""The loader: every sample once an epoch, the same order whoever reads, states that go on exactly, errors in place."""

import errno
import gc
import itertools
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.data import Batches, Decode, Loader, Mixture
from tandem.data.ahead import ClosedError
from tandem.data.decoding import DecodeError
from tandem.data.order import Shuffled
from tandem.data.steps import LoaderError
from tests.data.samples import InMemory, Returning, crc, numbered, numbers_of, refuse_seven, with_number


def epoch_of(loader: Loader, samples: InMemory) -> list[list[int]]:
    return [numbers_of(batch, samples) for batch in loader]


def joined(parts: Iterable[list[Any]]) -> list[Any]:
    return list(itertools.chain.from_iterable(parts))


@pytest.fixture
def samples() -> InMemory:
    return numbered(103)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_epoch_is_the_shuffled_order_in_batches(samples: InMemory, workers: int) -> None:
    with Loader(samples, 10, seed=5, workers=workers) as loader:
        assert len(loader) == 11
        for epoch in range(3):
            batches = epoch_of(loader, samples)
            assert loader.epoch == epoch
            assert [len(batch) for batch in batches] == [10] * 10 + [3]
            wanted = Shuffled(103, seed=5, epoch=epoch).at(np.arange(103)).tolist()
            assert [number for batch in batches for number in batch] == wanted


def test_without_shuffling_samples_come_as_they_are_numbered(samples: InMemory) -> None:
    with Loader(samples, 50, shuffle=False) as loader:
        for _ in range(2):
            assert joined(epoch_of(loader, samples)) == list(range(103))


@pytest.mark.parametrize("workers", [0, 1])
def test_undecoded_batches_are_lists_of_bytes(samples: InMemory, workers: int) -> None:
    with Loader(samples, 4, workers=workers) as loader:
        batch = next(iter(loader))
    assert isinstance(batch, list)
    assert {type(sample) for sample in batch} == {bytes}


@settings(max_examples=25)
@given(
    count=st.integers(0, 80),
    size=st.integers(4, 30),
    world=st.integers(1, 4),
    workers=st.integers(0, 2),
    prefetch=st.integers(1, 5),
)
def test_the_union_over_ranks_is_the_order_whatever_world_workers_and_prefetch(
    count: int, size: int, world: int, workers: int, prefetch: int
) -> None:
    samples = numbered(count)
    ranks = [
        epoch_of(Loader(samples, size, seed=1, rank=rank, world=world, workers=workers, prefetch=prefetch), samples)
        for rank in range(world)
    ]
    steps = [joined(parts) for parts in zip(*ranks, strict=True)]
    assert steps == epoch_of(Loader(samples, size, seed=1, workers=0), samples)


def test_the_rest_of_an_epoch_is_dropped_or_filled_up(samples: InMemory) -> None:
    order = Shuffled(103, seed=0, epoch=0).at(np.arange(103)).tolist()
    dropped = epoch_of(Loader(samples, Batches(10, last="drop")), samples)
    assert joined(dropped) == order[:100]
    padded = epoch_of(Loader(samples, Batches(10, last="pad")), samples)
    assert joined(padded) == order + order[:7]


@settings(max_examples=25)
@given(done=st.integers(0, 23), before=st.integers(1, 4), after=st.integers(1, 4), workers=st.integers(0, 2))
def test_a_run_goes_on_at_the_next_sample_with_another_world_and_other_workers(
    done: int, before: int, after: int, workers: int
) -> None:
    samples = numbered(93)
    states, seen = [], []
    for rank in range(before):
        loader = Loader(samples, 8, seed=9, rank=rank, world=before, workers=1)
        batches = iter(batch for _ in range(2) for batch in loader)
        seen.append([numbers_of(next(batches), samples) for _ in range(done)])
        states.append(json.loads(json.dumps(loader.state_dict())))
        loader.close()
    assert all(state == states[0] for state in states)
    rest = []
    for rank in range(after):
        loader = Loader(samples, 8, seed=4, rank=rank, world=after, workers=workers)
        loader.load_state_dict(states[0])
        following = [batch for _ in range(2) for batch in loader]
        rest.append([numbers_of(batch, samples) for batch in following[: 24 - done]])
        loader.close()
    whole = [joined(parts) for ranks in (seen, rest) for parts in zip(*ranks, strict=True)]
    reference = Loader(samples, 8, seed=9, workers=0)
    assert whole == epoch_of(reference, samples) + epoch_of(reference, samples)


def test_a_state_holds_what_was_handed_out_not_what_was_read_ahead(samples: InMemory) -> None:
    loader = Loader(samples, 10, workers=2, prefetch=8)
    batches = iter(loader)
    next(batches)
    next(batches)
    assert loader.state_dict()["position"] == 20
    loader.close()


def test_the_state_after_an_epoch_begins_the_next_one(samples: InMemory) -> None:
    loader = Loader(samples, 10, workers=0)
    epoch_of(loader, samples)
    state = loader.state_dict()
    resumed = Loader(samples, 10, workers=0)
    resumed.load_state_dict(state)
    assert epoch_of(resumed, samples) == epoch_of(loader, samples)
    assert (resumed.epoch, loader.epoch) == (1, 1)


def test_breaking_off_and_iterating_again_begins_the_next_epoch(samples: InMemory) -> None:
    loader = Loader(samples, 10, workers=1)
    for _ in loader:
        break
    assert loader.epoch == 0
    assert joined(epoch_of(loader, samples)) == Shuffled(103, seed=0, epoch=1).at(np.arange(103)).tolist()


def test_resuming_reads_nothing_that_was_read_before_and_is_quick() -> None:
    samples = numbered(200_000)
    loader = Loader(samples, 64, workers=1, prefetch=1)
    loader.load_state_dict({**loader.state_dict(), "epoch": 3, "position": 150_016})
    begun_s = time.process_time()
    batch = next(iter(loader))
    assert time.process_time() - begun_s < 0.1
    assert len(samples.asked) == 1
    wanted = Shuffled(200_000, seed=0, epoch=3).at(np.arange(150_016, 150_080)).tolist()
    assert [bytes(view) for view in batch] == [samples.contents[number] for number in wanted]
    loader.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"samples": "104 samples"}, "a state of 104 samples; this loader reads 103 samples"),
        ({"version": 2}, "a state of version 2"),
        ({"position": "7"}, "a state of version 1 with position='7'"),
        ({"seed": None}, "a state of version 1 with seed=None"),
        ({"epoch": 1.5}, r"a state of version 1 with epoch=1\.5; allowed: .*whole numbers"),
        ({"position": 104}, "a state of position 104 in an epoch; allowed: 0 to 103"),
        ({"position": -5}, "a state of epoch 0, position -5"),
        ({"epoch": -1}, "a state of epoch -1"),
        ({"epoch": 10**30}, f"a state of epoch {10**30}"),
        ({"learning_rate": 0.1}, "a state that also says 'learning_rate'"),
    ],
)
def test_states_of_something_else_are_refused(samples: InMemory, change: dict[str, object], words: str) -> None:
    loader = Loader(samples, 10)
    with pytest.raises(LoaderError, match=words):
        loader.load_state_dict({**loader.state_dict(), **change})
    with pytest.raises(LoaderError, match="with nothing"):
        loader.load_state_dict({})
    with pytest.raises(LoaderError, match="a state that is None"):
        loader.load_state_dict(None)  # type: ignore[arg-type]


def test_no_more_batches_are_read_than_prefetch_allows(samples: InMemory) -> None:
    with Loader(samples, 5, workers=2, prefetch=3) as loader:
        batches = iter(loader)
        for handed_out in range(1, 10):
            next(batches)
            assert len(samples.asked) <= handed_out + 3 - 1


def test_what_comes_next_is_known(samples: InMemory) -> None:
    loader = Loader(samples, 10, seed=2, rank=1, world=3, workers=1)
    batches = iter(batch for _ in range(3) for batch in loader)
    for _ in range(3):
        next(batches)
    coming = loader.coming(60).tolist()
    assert len(coming) == 60
    following = [number for batch in batches for number in numbers_of(batch, samples)]
    assert coming == following[:60]
    assert Loader(numbered(0), 10).coming(5).tolist() == []
    assert Loader(samples, Batches(200, last="drop")).coming(5).tolist() == []


def test_decoding_in_threads(samples: InMemory) -> None:
    decoded = joined(Loader(samples, 10, decode=crc, workers=2))
    assert sorted(decoded) == sorted(crc(memoryview(content)) for content in samples.contents)


def test_a_decoder_of_the_whole_batch(samples: InMemory) -> None:
    loader = Loader(samples, 10, shuffle=False, decode=Decode(sample=len, batch=np.array))
    batches = list(loader)
    assert [type(batch) for batch in batches] == [np.ndarray] * 11
    assert np.concatenate(batches).tolist() == [len(content) for content in samples.contents]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_decoder_is_told_the_number_where_it_wants_it(samples: InMemory, workers: int) -> None:
    loader = Loader(samples, 10, seed=3, decode=Decode(with_number, numbered=True), workers=workers)
    pairs = joined(loader)
    assert [number for number, _ in pairs] == Shuffled(103, seed=3, epoch=0).at(np.arange(103)).tolist()
    assert all(content == samples.contents[number] for number, content in pairs)
    loader.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_decoders_error_comes_at_its_batch_and_names_the_sample(samples: InMemory, workers: int) -> None:
    loader = Loader(samples, 5, shuffle=False, decode=refuse_seven, workers=workers, prefetch=8)
    batches = iter(loader)
    assert len(next(batches)) == 5
    with pytest.raises(
        DecodeError, match=r"sample 7 \('folder/7.bin'\) could not be decoded: ValueError: no sevens: 7"
    ):
        next(batches)
    assert loader.state_dict()["position"] == 5
    assert list(batches) == []
    assert len(next(iter(loader))) == 5, "the loader can be used again"
    loader.close()


def test_the_cause_of_a_decoders_error_is_what_it_raised(samples: InMemory) -> None:
    with pytest.raises(DecodeError) as caught:
        list(Loader(samples, 5, shuffle=False, decode=refuse_seven))
    assert isinstance(caught.value.__cause__, ValueError)
    names = [entry.name for entry in caught.traceback] + [frame_name(caught.value.__cause__)]
    assert "refuse_seven" in names


def frame_name(error: BaseException) -> str:
    at = error.__traceback__
    assert at is not None
    while at.tb_next is not None:
        at = at.tb_next
    return at.tb_frame.f_code.co_name


def test_an_error_in_a_batchs_decoder_names_the_batch(samples: InMemory) -> None:
    loader = Loader(samples, 3, shuffle=False, decode=Decode(batch=lambda views: views[5]))
    with pytest.raises(DecodeError, match="the batch of samples 0, 1, 2 could not be put together: IndexError"):
        next(iter(loader))


def test_what_reading_raises_is_raised_at_its_batch() -> None:
    class Failing(InMemory):
        def read_batch(self, numbers_N: np.ndarray) -> object:  # type: ignore[type-arg,override]
            if 7 in numbers_N:
                raise OSError(5, "a broken disk")
            return super().read_batch(numbers_N)

    batches = iter(Loader(Failing(numbered(20).contents), 5, shuffle=False, workers=2))  # type: ignore[arg-type]
    assert len(next(batches)) == 5
    with pytest.raises(OSError, match="a broken disk"):
        next(batches)


@pytest.mark.parametrize("in_mixture", [False, True])
@pytest.mark.parametrize("decode", [None, bytes])
@pytest.mark.parametrize(
    "made",
    [list, tuple, lambda few: [*map(memoryview, few)], lambda few: [np.frombuffer(one, np.uint8) for one in few]],
)
def test_samples_may_be_read_as_a_list_of_bytes(
    made: Callable[[list[bytes]], object], decode: Callable[[memoryview], bytes] | None, in_mixture: bool
) -> None:
    contents = numbered(20).contents
    samples: Any = Returning(contents, made)
    samples = Mixture([samples], weights=[1]) if in_mixture else samples
    read = Loader(samples, 6, shuffle=False, decode=decode, workers=2)
    assert [one for batch in read for one in batch] == contents
    assert [one for batch in Loader(samples, 3, rank=1, world=2, shuffle=False) for one in batch][:2] == contents[1:3]


@pytest.mark.parametrize("in_mixture", [False, True])
@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda few: few[1:], "returned 4 samples of 5"),
        (lambda few: InMemory(few).read_batch(np.arange(4)), "returned 4 samples of 5"),
        (lambda few: [one.decode() for one in few], "returned a list: .* not 'str'"),
        (lambda few: b"12345", "returned a bytes: .* not 'int'"),
        (lambda few: np.arange(5), "returned a ndarray: int64 is no row of bytes"),
        (lambda few: np.ones((5, 2)), "returned a ndarray: ndarray is no row of bytes"),
        (lambda few: None, "returned a NoneType: "),
    ],
)
def test_samples_read_as_something_else_are_refused(
    made: Callable[[list[bytes]], object], words: str, in_mixture: bool
) -> None:
    samples: Any = Returning(numbered(5).contents, made)
    samples = Mixture([samples], weights=[1]) if in_mixture else samples
    words = f"Returning.read_batch {words}.*; allowed: a list of the bytes of each sample asked for"
    with pytest.raises(LoaderError, match=words):
        next(iter(Loader(samples, 5)))


def test_an_iteration_that_was_overtaken_says_so(samples: InMemory) -> None:
    loader = Loader(samples, 10, workers=1)
    first = iter(loader)
    next(first)
    second = iter(loader)
    with pytest.raises(RuntimeError, match="this iteration is over"):
        next(first)
    assert len(list(second)) == 11
    third = iter(loader)
    next(third)
    loader.close()
    with pytest.raises((RuntimeError, ClosedError), match=r"over|closed"):
        next(third)


def test_a_mixture_is_read_in_its_own_order_and_goes_on_from_a_state() -> None:
    sources = [InMemory([b"a%d" % i for i in range(40)]), InMemory([b"b%d" % i for i in range(10)])]
    mixture = Mixture(sources, weights=[3, 1], epoch_size=44)

    def contents(batches: Iterator[list[memoryview]]) -> list[bytes]:
        return [bytes(view) for batch in batches for view in batch]

    loader = Loader(mixture, 8, seed=1)
    whole = contents(iter(loader)) + contents(iter(loader))
    assert sum(content.startswith(b"b") for content in whole) == 22
    assert len(loader) == 6
    stopped = Loader(mixture, 8, seed=1)
    begun = [next(batches) for batches in [iter(stopped)] for _ in range(2)]
    resumed = Loader(mixture, 8, workers=0)
    resumed.load_state_dict(stopped.state_dict())
    assert contents(iter(begun)) + contents(iter(resumed)) + contents(iter(resumed)) == whole
    other = Loader(Mixture(sources, weights=[2, 1], epoch_size=44), 8)
    with pytest.raises(LoaderError, match="a mixture of 3 x 40 samples \\+ 1 x 10 samples, 44 an epoch"):
        other.load_state_dict(stopped.state_dict())
    stopped.close()


def test_a_decoders_error_in_a_mixture_names_the_source() -> None:
    mixture = Mixture([InMemory([b"1"]), InMemory([b"2", b"7"])], weights=[1, 2])
    with pytest.raises(DecodeError, match=r"sample 1 \('folder/1.bin'\) of source 1 could not be decoded"):
        list(Loader(mixture, 1, decode=refuse_seven))


def test_metrics_tell_the_rate_and_the_wait(samples: InMemory) -> None:
    loader = Loader(samples, 10, workers=1)
    begun_s = time.monotonic()
    list(loader)
    passed_s = time.monotonic() - begun_s
    metrics = loader.metrics()
    assert metrics["samples_per_s"] >= 103 / passed_s
    assert 0 < metrics["data_wait_share"] <= 1
    assert loader.metrics() == {"samples_per_s": 0.0, "data_wait_share": 0.0}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workers": -1}, "workers=-1; allowed: 0 or more"),
        ({"prefetch": 0}, "prefetch=0; allowed: 1 or more"),
        ({"decode_in": "thread"}, "decode_in='thread'; allowed: threads, processes"),
        ({"decode_in": "processes"}, "without a decoder"),
        ({"rank": 2, "world": 2}, "rank 2 of 2"),
        ({"world": 20}, "batches of 10 samples for 20 ranks"),
        ({"rank": 0.5, "world": 2}, r"rank=0\.5; allowed: a whole number; round it"),
        ({"world": 2.0}, r"world=2\.0; allowed: a whole number"),
        ({"seed": 1.5}, r"seed=1\.5; allowed: a whole number"),
        ({"workers": 1.5}, r"workers=1\.5; allowed: a whole number"),
        ({"prefetch": "4"}, "prefetch='4'; allowed: a whole number"),
        ({"rank": True, "world": 2}, "rank=True; allowed: a whole number; write the number itself"),
        ({"rank": np.ma.array(0, mask=True), "world": 2}, r"rank=masked_array\((.|\n)*; allowed: a whole number"),
        ({"world": np.True_}, "world=np.True_; allowed: a whole number"),
        ({"seed": False}, "seed=False; allowed: a whole number"),
        ({"seed": np.ma.masked}, "seed=masked; allowed: a whole number"),
        ({"workers": True}, "workers=True; allowed: a whole number"),
        ({"prefetch": True}, "prefetch=True; allowed: a whole number"),
        ({"shuffle": "no"}, "shuffle='no'; allowed: True, False"),
        ({"decode": 5}, "decode.sample=5; allowed: a function"),
        ({"decode": Decode(pin=True)}, "pin=True, but torch finds no GPU"),
    ],
)
def test_arguments_that_cannot_be_met_are_refused(
    samples: InMemory, options: dict[str, object], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(LoaderError, match=words):
        Loader(samples, 10, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error", [RuntimeError("can't start new thread"), OSError(errno.EMFILE, os.strerror(errno.EMFILE))]
)
def test_more_workers_than_can_be_started_are_told_and_none_is_left(
    samples: InMemory, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[threading.Thread] = []
    start = threading.Thread.start

    def start_two(thread: threading.Thread) -> None:
        if len(begun) == 2:
            raise error
        begun.append(thread)
        start(thread)

    loader = Loader(samples, 10, workers=3)
    words = (
        f"workers=3 in threads, more than could be started: {re.escape(str(error))}; allowed: as many .*; take fewer"
    )
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_two)
        with pytest.raises(LoaderError, match=words):
            iter(loader)
    assert not any(thread.is_alive() for thread in begun)
    with loader:
        assert len(list(loader)) == 11


@pytest.mark.parametrize("which", ["memory", "process"])
def test_processes_that_cannot_be_started_leave_no_descriptor(
    samples: InMemory, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(process: BaseProcess) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    counts = []
    create, refused = os.memfd_create, itertools.count(1)

    def create_or_refuse(name: str, flags: int) -> int:
        if which == "memory" and next(refused) % 2 == 0:  # the second that a process needs
            raise OSError(errno.EMFILE, "Too many open files")
        return create(name, flags)

    with monkeypatch.context() as patch:
        patch.setattr(BaseProcess, "start", refuse)
        patch.setattr(os, "memfd_create", create_or_refuse)
        for _ in range(3):
            with pytest.raises(LoaderError, match="take fewer"):
                iter(Loader(samples, 10, decode=len, decode_in="processes", workers=2))
            gc.collect()
            counts.append(len(list(Path("/proc/self/fd").iterdir())))
    assert counts[1] == counts[2] == counts[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda samples: Loader(samples, 2.5),
        lambda samples: Loader(samples, True),
        lambda samples: Mixture([samples], weights=[1], epoch_size=True),
        lambda samples: Loader(samples, Batches(2.5)),
        lambda samples: Mixture([samples], weights=[1], epoch_size=10.5),
    ],
)
def test_sizes_that_are_no_whole_numbers_are_refused(samples: InMemory, make: Callable[[InMemory], object]) -> None:
    with pytest.raises(LoaderError, match=r"(batch|epoch)_size=(\d+\.5|True); allowed: a whole number"):
        make(samples)


def test_what_cannot_be_read_is_refused_before_the_first_batch(samples: InMemory) -> None:
    with pytest.raises(LoaderError, match="samples is a list; allowed: a Space"):
        Loader([b"a"], 1)  # type: ignore[arg-type]
    mixture = Mixture([samples], weights=[1])
    with pytest.raises(LoaderError, match=r"source 1 is a Mixture; .*mix all sources in one Mixture"):
        Mixture([samples, mixture], weights=[1, 1])  # type: ignore[list-item]
    with pytest.raises(LoaderError, match=r"decode\.batch=7"):
        Decode(batch=7)  # type: ignore[arg-type]


def test_a_batch_larger_than_an_epoch_is_the_epoch(samples: InMemory) -> None:
    (batch,) = Loader(samples, 10**12, shuffle=False)
    assert numbers_of(batch, samples) == list(range(103))


def test_whole_numbers_of_numpy_are_taken_and_states_stay_plain(samples: InMemory) -> None:
    share = {"rank": np.uint8(3), "world": np.int32(4), "seed": np.int64(7), "workers": np.int8(0)}
    loader = Loader(samples, np.int64(100), **share)  # type: ignore[arg-type]
    assert numbers_of(next(iter(loader)), samples) == Shuffled(103, seed=7, epoch=0).at(np.arange(75, 100)).tolist()
    loader.load_state_dict(json.loads(json.dumps(loader.state_dict())))


def test_a_state_at_the_end_of_an_epoch_is_one_of_the_next_also_in_a_mixture(samples: InMemory) -> None:
    for source, size in ((samples, 103), (Mixture([samples], weights=[1], epoch_size=11), 11)):
        loader = Loader(source, 10, workers=0)
        loader.load_state_dict({**loader.state_dict(), "position": size})
        next(iter(loader))
        assert loader.epoch == 1
        with pytest.raises(LoaderError, match=f"a state of position {size + 1} in an epoch; allowed: 0 to {size}"):
            loader.load_state_dict({**loader.state_dict(), "position": size + 1})


def test_torchs_dataloader_is_told_what_it_wants_instead_of_a_loader(samples: InMemory) -> None:
    from torch.utils.data import DataLoader

    words = r"by torch's DataLoader, as a dataset; allowed: iterating a Loader.*TorchDataset\(space, decode\)"
    for shuffle in (False, True):
        wrapped = DataLoader(Loader(samples, 10), shuffle=shuffle)  # type: ignore[arg-type,var-annotated]
        with pytest.raises(LoaderError, match=words):
            next(iter(wrapped))
    assert isinstance(next(iter(Loader(samples, 10))), list)
