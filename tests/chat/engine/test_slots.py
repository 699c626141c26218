"""Rows in slots: who runs, what is computed, and that nothing is computed twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tandem.chat.engine import slots as slots_module
from tandem.chat.engine.slots import Slots

if TYPE_CHECKING:
    from tandem.chat.engine.cache import KeyValues
    from tandem.chat.engine.decoder import Step

CPU = torch.device("cpu")


class Scripted:
    """A decoder that keeps tokens themselves as keys and values, so that what a row's cache holds can be read."""

    def __init__(self) -> None:
        self.prefilled: list[list[int]] = []
        self.rows_stepped = 0

    def prefill(self, tokens_BP: torch.Tensor) -> torch.Tensor:
        self.prefilled += tokens_BP.tolist()
        return tokens_BP.double()[None, None, :, None, :, None].expand(1, 2, -1, 1, -1, 1)

    def step(self, step: Step, cache: KeyValues) -> torch.Tensor:
        rows_N = torch.arange(len(step.tokens_N))
        self.rows_stepped += len(rows_N)
        places = cache.places(rows_N, step.positions_N)
        cache.flat_layer(0).index_copy_(0, places, step.tokens_N.double().repeat_interleave(2)[:, None])
        assert step.seen == int(step.positions_N.max()) + 1
        assert step.even == (len(step.positions_N.unique()) == 1)
        return rows_N


@pytest.mark.slow
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    group=st.integers(1, 4),
    limit=st.integers(1, 8),
    data=st.data(),
)
def test_each_row_keeps_its_own_tokens_and_nothing_is_computed_for_those_that_are_done(
    lengths: list[int], group: int, limit: int, data: st.DataObject
) -> None:
    prompts = [[100 * prompt + place for place in range(length)] for prompt, length in enumerate(lengths)]
    rows = len(prompts) * group
    wanted = data.draw(st.lists(st.integers(1, 6), min_size=rows, max_size=rows))
    written: list[list[int]] = [[] for _ in range(rows)]
    decoder = Scripted()
    running = Slots(decoder, prompts, group=group, limit=min(limit, rows), capacity=16, device=CPU)
    while running.running:
        assert running.running <= limit
        step = running.step()
        decoder.step(step, running.cache)
        tokens, done = [], []
        for slot, row in enumerate(running.rows_N[: running.running].tolist()):
            so_far = [*prompts[row // group], *written[row]]
            assert step.positions_N[slot] == len(so_far) - 1
            assert running.cache.kv_L2NHSD[0, 0, slot, 0, : len(so_far), 0].tolist() == so_far
            assert running.cache.kv_L2NHSD[0, 1, slot, 0, : len(so_far), 0].tolist() == so_far
            written[row].append(1000 * row + len(written[row]))
            tokens.append(written[row][-1])
            done.append(len(written[row]) == wanted[row])
        running.advance(torch.tensor(tokens), torch.tensor(done))
    assert [len(row) for row in written] == wanted
    assert decoder.rows_stepped == sum(wanted)
    assert [min(row) for row in decoder.prefilled] == [min(prompt) for prompt in prompts], "each prompt once, in order"


def test_long_prompts_are_prefilled_a_few_at_a_time() -> None:
    decoder = Scripted()
    prompts = [[index] * 400 for index in range(5)]
    taken: list[int] = []
    inner = decoder.prefill

    def watched(tokens_BP: torch.Tensor) -> torch.Tensor:
        taken.append(tokens_BP.numel())
        return inner(tokens_BP)

    decoder.prefill = watched  # type: ignore[method-assign]
    Slots(decoder, prompts, group=1, limit=5, capacity=500, device=CPU)
    assert taken == [800, 800, 400]
    assert max(taken) <= slots_module.PREFILL_TOKENS
