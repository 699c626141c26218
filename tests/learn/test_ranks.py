"""Who has which rows, and who is still there: without processes."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tandem.learn import sharding, strategy
from tandem.learn.errors import RankError
from tandem.learn.ranks import Ranks
from tandem.learn.watch import NAMED, Beats, Watch
from tests.waiting import until


@given(st.integers(1, 9), st.integers(0, 40), st.integers(1, 4))
def test_shares_are_all_rows_once_in_order_in_whole_units_and_even(size: int, units: int, unit: int) -> None:
    shares = Ranks(0, size).shares(units * unit, unit)
    rows = [row for share in shares for row in range(share.start, share.stop)]
    assert rows == list(range(units * unit))
    counts = [(share.stop - share.start) / unit for share in shares]
    assert all(count.is_integer() for count in counts)
    assert max(counts) - min(counts) <= 1
    assert [Ranks(rank, size).share(units * unit, unit) for rank in range(size)] == shares


def test_of_one_rank_every_answer_is_its_own() -> None:
    ranks = Ranks()
    rows_BT = torch.ones(2, 3)
    assert ranks.first
    assert ranks.sums(loss=0.1) == {"loss": 0.1}
    assert ranks.most(0.1) == ranks.of_first(0.1) == 0.1
    assert ranks.rows(rows_BT) is rows_BT


class Shared:
    """A store in one process."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def set(self, key: str, value: bytes) -> None:
        self.values[key] = value

    def multi_get(self, keys: list[str]) -> list[bytes]:
        return [self.values.get(key, b"") for key in keys]


def test_a_rank_that_stands_still_is_gone_after_so_many_looks_of_ours_and_one_that_ended_is_not() -> None:
    store = Shared()
    first, second, third = (Beats(store, rank, 3) for rank in range(3))
    for _ in range(3):
        for beats in (first, second, third):
            beats.look()
    third.end()
    for _ in range(5):  # the first of these sees a beat that came after the last look
        first.look()
    assert first.gone(4) == [1]
    assert first.gone(5) == []
    second.look()
    first.look()
    assert first.gone(1) == []  # it was only slow
    second.end("its reward raised")
    first.look()
    assert first.failed() == {1: "its reward raised"}


def test_a_watch_tells_of_a_rank_that_is_gone_and_names_it_when_asked() -> None:
    store = Shared()
    Beats(store, 1, 2).look()
    told: list[RankError] = []
    watch = Watch(Beats(store, 0, 2), told.append, beat_s=0.001, patience=20)
    why = watch.why()
    assert why is not None
    assert "rank 1 of 2 is gone" in str(why)
    watch._thread.join(timeout=60.0)
    assert [str(error) for error in told] == [str(why)]
    watch.end()


def test_a_watch_names_a_rank_that_said_how_it_failed() -> None:
    store = Shared()
    other = Beats(store, 1, 2)
    other.look()
    other.end("no such reward")
    watch = Watch(Beats(store, 0, 2), lambda lost: None, beat_s=0.001, patience=10**9)
    assert "rank 1 ended by an error: no such reward" in str(watch.why())
    watch.end()


def test_a_rank_that_was_slow_before_a_connection_broke_is_not_blamed_for_it() -> None:
    store = Shared()
    slow, failing = Beats(store, 1, 3), Beats(store, 2, 3)
    watch = Watch(Beats(store, 0, 3), lambda lost: None, beat_s=3600.0, patience=10**9)

    def look() -> None:
        with watch._looked:
            watch._beats.look()
            watch._looked.notify_all()

    for _ in range(NAMED + 2):
        failing.look()
        look()
    assert watch._beats.gone(NAMED) == [1]
    with ThreadPoolExecutor() as pool:
        why = pool.submit(watch.why)
        until(lambda: why.done() or watch._looked._waiters)  # type: ignore[attr-defined]
        slow.look()
        failing.end("no such reward")
        look()
        assert "rank 2 ended by an error: no such reward" in str(why.result(timeout=60.0))


def test_a_store_that_does_not_answer_is_told() -> None:
    class Broken(Shared):
        def multi_get(self, keys: list[str]) -> list[bytes]:
            if self.values[f"beat/{0}"] == b"1":
                return super().multi_get(keys)
            message = "connection reset"
            raise RuntimeError(message)

    told: list[RankError] = []
    watch = Watch(Beats(Broken(), 0, 2), told.append, beat_s=0.001)
    watch._thread.join(timeout=60.0)
    assert "store does not answer: connection reset" in str(told[0])
    watch.end()


def test_one_process_is_no_strategy_for_many_nor_many_for_one() -> None:
    with pytest.raises(RankError, match=r"strategy 'single' on 2 ranks; allowed: one process; .*strategy=fsdp"):
        strategy.load("single").check(Ranks(1, 2, launched=True))
    with pytest.raises(RankError, match=r"strategy 'fsdp' in a process of its own; .*torchrun"):
        strategy.load("fsdp").check(Ranks())


def test_a_shell_is_a_model_without_weights_that_can_be_filled_and_emptied_again() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 3))
    model[1].weight = torch.nn.Parameter(torch.ones(3, 3))
    empty = sharding.shell(model)
    assert all(parameter.numel() == 0 for parameter in empty.parameters())
    x_BD = torch.ones(1, 2)
    with sharding.filled(empty, model) as plain:
        assert torch.equal(plain(x_BD), model(x_BD))
    assert all(parameter.numel() == 0 for parameter in empty.parameters())
