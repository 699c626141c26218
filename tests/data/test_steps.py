"""Steps and shares: every position once, the same set a step whatever the world, remainders as asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.data.steps import Batches, Last, Layout, LoaderError, Share

COUNTS = st.integers(0, 300)
SIZES = st.integers(1, 50)
WORLDS = st.integers(1, 8)


def all_ranks(count: int, size: int, world: int, last: Last = "keep", start: int = 0) -> list[list[int]]:
    """The positions of each step, of all ranks together, in the order of the ranks."""
    layouts = [Layout(count, Batches(size, last), Share(rank, world), start) for rank in range(world)]
    assert len({len(layout) for layout in layouts}) == 1, "all ranks take equally many steps"
    return [np.concatenate([layout.positions(step) for layout in layouts]).tolist() for step in range(len(layouts[0]))]


@given(count=COUNTS, size=SIZES, world=WORLDS)
def test_a_step_takes_the_same_positions_whatever_the_world(count: int, size: int, world: int) -> None:
    size = max(size, world)
    steps = all_ranks(count, size, world)
    assert steps == all_ranks(count, size, 1)
    assert [position for step in steps for position in step] == list(range(count))
    assert all(len(step) == size for step in steps[:-1])


@given(count=COUNTS, size=SIZES, world=WORLDS)
def test_the_rest_is_dropped_or_filled_up_from_the_beginning(count: int, size: int, world: int) -> None:
    size = max(size, world)
    kept = all_ranks(count, size, world)
    whole = [step for step in kept if len(step) == size]
    assert all_ranks(count, size, world, "drop") == whole
    padded = all_ranks(count, size, world, "pad")
    assert padded[: len(whole)] == whole
    if len(kept) > len(whole):
        assert padded[-1] == [position % count for position in range(len(whole) * size, (len(whole) + 1) * size)]


@given(count=COUNTS, size=SIZES, before=WORLDS, after=WORLDS, data=st.data())
def test_a_run_goes_on_with_another_world_and_batch(
    count: int, size: int, before: int, after: int, data: st.DataObject
) -> None:
    size = max(size, before, after)
    steps = all_ranks(count, size, before)
    done = data.draw(st.integers(0, len(steps)))
    end = Layout(count, Batches(size), Share(0, before)).end(done - 1) if done else 0
    assert steps[:done] + all_ranks(count, size, after, start=end) == all_ranks(count, size, 1)
    other = data.draw(st.integers(after, 60))
    rest = all_ranks(count, other, after, start=end)
    assert [p for step in steps[:done] + rest for p in step] == list(range(count))


@given(count=COUNTS, size=SIZES, world=WORLDS, last=st.sampled_from(["keep", "drop", "pad"]), data=st.data())
def test_blocks_are_the_positions_of_their_steps(
    count: int, size: int, world: int, last: Last, data: st.DataObject
) -> None:
    share = Share(data.draw(st.integers(0, world - 1)), world)
    layout = Layout(count, Batches(max(size, world), last), share, data.draw(st.integers(0, count)))
    begin = data.draw(st.integers(0, len(layout)))
    steps = range(begin, data.draw(st.integers(begin, len(layout))))
    block = [positions.tolist() for positions in layout.block(steps)]
    assert block == [layout.positions(step).tolist() for step in steps]


@given(size=SIZES, world=WORLDS)
def test_shares_differ_by_one_at_most(size: int, world: int) -> None:
    lengths = [high - low for low, high in (Share(rank, world).of(size) for rank in range(world))]
    assert sum(lengths) == size
    assert max(lengths) - min(lengths) <= 1


def test_what_cannot_be_laid_out_is_refused() -> None:
    with pytest.raises(LoaderError, match="batches of 3 samples for 4 ranks; allowed: at least a sample for each"):
        Layout(10, Batches(3), Share(0, 4))
    with pytest.raises(LoaderError, match="batches of 0"):
        Batches(0)
    with pytest.raises(LoaderError, match="last='truncate'; allowed: keep, drop, pad"):
        Batches(4, "truncate")  # type: ignore[arg-type]
    for rank, world in ((4, 4), (-1, 2), (0, 0)):
        with pytest.raises(LoaderError, match=f"rank {rank} of {world}"):
            Share(rank, world)


@pytest.mark.parametrize("last", ["keep", "drop"])
@given(count=COUNTS, size=st.integers(10**9, 10**40), world=WORLDS)
def test_a_batch_that_no_epoch_fills_may_have_any_size(last: Last, count: int, size: int, world: int) -> None:
    layouts = [Layout(count, Batches(size, last), Share(rank, world)) for rank in range(world)]
    found = [layout.block(range(len(layout))) for layout in layouts]
    once = bool(count) and last == "keep"
    assert [len(steps) for steps in found] == [once] * world
    assert [p for steps in found for step in steps for p in step.tolist()] == list(range(count if once else 0))
