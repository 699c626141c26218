"""Log-probabilities, values and scores: plain transformers says the same, and padding and packing change nothing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.chat import forward, heads
from tandem.chat.data.batches import Batch, packed, padded
from tandem.chat.data.turns import Turn
from tests.chat.small import FAMILIES, model_of, turns

LENGTHS = [(3, 4), (5, 1), (1, 7), (9, 3)]


def to_the_left(batch: Batch) -> Batch:
    """The same rows with their padding in front, and a slot more of it."""
    tokens, real, mask = (
        torch.full((len(x), x.shape[1] + 1), fill)
        for x, fill in ((batch.tokens_BT, 257), (batch.real_BT, False), (batch.mask_BT, False))
    )
    for i, length in enumerate(batch.real_BT.sum(dim=1).tolist()):
        tokens[i, -length:] = batch.tokens_BT[i, :length]
        real[i, -length:] = True
        mask[i, -length:] = batch.mask_BT[i, :length]
    return Batch(tokens, real, mask)


def alone(model: object, turn: Turn) -> list[float]:
    """Log-probabilities of one response by transformers' own forward pass, one row without any padding."""
    logits = model(input_ids=torch.tensor([turn.tokens])).logits[0].detach().log_softmax(-1)
    return [float(logits[t - 1, turn.tokens[t]]) for t in range(turn.prompt_tokens, len(turn.tokens))]


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_are_those_of_plain_transformers_whatever_is_padded_or_packed(family: str) -> None:
    model, rows = model_of(family), turns(LENGTHS)
    told = [alone(model, turn) for turn in rows]
    right = padded(rows, 257)
    for batch in (right, to_the_left(right)):
        logps_BT = forward.logprobs(model, batch)
        for i, row in enumerate(told):
            assert logps_BT[i][batch.mask_BT[i]].tolist() == pytest.approx(row, abs=2e-5)
        assert bool((logps_BT[~batch.mask_BT] == 0).all())
    dense = packed(rows, 257)
    assert len(dense.tokens_BT) == 1
    longest_first = [x for turn in sorted(rows, key=lambda turn: -len(turn.tokens)) for x in alone(model, turn)]
    assert forward.logprobs(model, dense)[dense.mask_BT].tolist() == pytest.approx(longest_first, abs=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_values_and_scores_do_not_see_padding(family: str) -> None:
    scorer = heads.from_language_model(model_of(family), seed=3)
    rows = turns(LENGTHS)
    right = padded(rows, 257)
    left = to_the_left(right)
    one_by_one = [heads.scores(scorer, padded([turn], 257))[0].item() for turn in rows]
    for batch in (right, left):
        assert heads.scores(scorer, batch).tolist() == pytest.approx(one_by_one, abs=2e-5)
    (right_BT, after_right_B), (left_BT, after_left_B) = (heads.values(scorer, batch) for batch in (right, left))
    assert torch.allclose(right_BT[right.mask_BT], left_BT[left.mask_BT], atol=2e-5)
    assert torch.allclose(after_right_B, after_left_B, atol=2e-5)
    assert after_right_B.tolist() == pytest.approx(one_by_one, abs=2e-5)


def test_a_value_before_a_token_does_not_know_the_token() -> None:
    scorer = heads.from_language_model(model_of("llama"), seed=3)
    (turn,) = turns([(3, 4)])
    other = Turn((*turn.tokens[:-1], (turn.tokens[-1] + 1) % 256), 3)
    values, others = (heads.values(scorer, padded([one], 257)) for one in (turn, other))
    assert torch.equal(values[0], others[0])
    assert not torch.equal(values[1], others[1])


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(1, 8), st.integers(1, 8)), min_size=1, max_size=6), st.integers(0, 9))
def test_the_mean_loss_of_packed_rows_is_that_of_padded_ones(lengths: list[tuple[int, int]], seed: int) -> None:
    model, rows = MODEL, turns(lengths, seed)
    sums = [
        (float(forward.logprobs(model, batch).detach().sum()), int(batch.mask_BT.sum()))
        for batch in (padded(rows, 257), packed(rows, 257))
    ]
    assert sums[0][1] == sums[1][1] == sum(response for _, response in lengths)
    assert sums[0][0] == pytest.approx(sums[1][0], rel=1e-5)


MODEL = model_of("llama")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_may_be_taken_apart(family: str) -> None:
    assert forward.head_is_plain(model_of(family))


def test_a_model_that_scales_its_logits_is_told_from_others() -> None:
    assert not forward.head_is_plain(model_of("granite", logits_scaling=4.0))


def test_the_temperature_divides_the_logits() -> None:
    model, (turn,) = model_of("llama"), turns([(3, 4)])
    logits = (model(input_ids=torch.tensor([turn.tokens])).logits[0].detach() / 0.7).log_softmax(-1)
    told = [float(logits[t - 1, turn.tokens[t]]) for t in range(3, 7)]
    batch = padded([turn], 257)
    assert forward.logprobs(model, batch, temperature=0.7)[batch.mask_BT].tolist() == pytest.approx(told, abs=2e-5)
