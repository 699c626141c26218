"""Responses that are drawn: masks, log-probabilities, penalties."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tandem.chat import forward, heads, scoring
from tandem.chat.data.rows import Question
from tandem.chat.data.turns import Prompt
from tandem.chat.drawing import Drawn, draw, joined, overlong, score
from tandem.chat.experience import Scored, told_apart
from tests.chat.small import FAMILIES, model_of, template

PROMPTS = [Prompt((65, 66, 67), Question("ABC", "x")), Prompt((70,), Question("F", "y"))]


def drawn_by(family: str, temperature: float = 1.0, seed: int = 0) -> Drawn:
    model = model_of(family)
    if hasattr(model, "lm_head"):
        with torch.no_grad():  # EOS is likely, so that some end
            model.get_output_embeddings().weight[256] *= 3.0
    return draw(model, template(), PROMPTS, response_tokens=8, temperature=temperature, group=3, seed=seed)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_of_drawing_are_those_of_training(family: str, temperature: float) -> None:
    model = model_of(family)
    drawn = draw(model, template(), PROMPTS, response_tokens=8, temperature=temperature, group=3, seed=1)
    trained_BT = forward.logprobs(model, drawn.batch, temperature=temperature).detach()
    assert float((trained_BT - drawn.logps_BT).abs().max()) < 1e-4
    assert bool((drawn.logps_BT[drawn.batch.mask_BT] < 0).all())


def test_eos_is_the_responses_last_token_and_nothing_after_it_is_in_the_mask() -> None:
    ends = 0
    for seed in range(20):
        drawn = drawn_by("llama", seed=seed)
        for i, prompt in enumerate(drawn.prompts):
            response = drawn.batch.tokens_BT[i][drawn.batch.mask_BT[i]].tolist()
            assert drawn.batch.tokens_BT[i, : len(prompt.tokens)].tolist() == list(prompt.tokens)
            assert int(drawn.batch.real_BT[i].sum()) == len(prompt.tokens) + len(response)
            assert (response.index(256) == len(response) - 1) if 256 in response else len(response) == 8
            assert bool(drawn.ended_B[i]) == (256 in response)
            ends += 256 in response
    assert 0 < ends < 20 * 6


def test_what_is_drawn_follows_from_the_seed() -> None:
    first, same, other = (drawn_by("llama", seed=seed).batch.tokens_BT for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert first.shape != other.shape or not torch.equal(first, other)


def test_a_group_stands_together_and_a_greedy_one_is_alike() -> None:
    drawn = drawn_by("llama", temperature=0.0)
    assert [prompt.row.prompt for prompt in drawn.prompts] == ["ABC"] * 3 + ["F"] * 3
    assert len(set(drawn.texts[:3])) == len(set(drawn.texts[3:])) == 1


def test_a_response_that_was_cut_short_costs_a_penalty_and_the_plain_reward_stays(tmp_path: Path) -> None:
    (tmp_path / "told_rewards.py").write_text("def one(p, r, a): return [float(len(x)) for x in a]\n")
    reward = scoring.load("told_rewards:one", tmp_path)
    drawn = drawn_by("llama")
    drawn = Drawn(drawn.prompts, drawn.texts, drawn.batch, torch.tensor([True, False] * 3), drawn.logps_BT)
    scores_B, plain_B = score(drawn, reward, 0.25)
    assert plain_B.tolist() == [1.0] * 6
    assert scores_B.tolist() == [1.0, 0.75] * 3


def test_a_reward_model_reads_the_last_token_of_a_response() -> None:
    scorer = heads.from_language_model(model_of("llama"), seed=0)
    drawn = drawn_by("llama")
    scores_B, _ = score(drawn, scorer, 0.0)
    for i in range(6):
        row = drawn.batch.tokens_BT[i][drawn.batch.real_BT[i]][None]
        plain = scorer(input_ids=row).logits  # plain transformers reads its last token too
        assert float(scores_B[i]) == pytest.approx(float(plain.detach()), abs=2e-5)


@given(st.integers(1, 40), st.integers(1, 40))
def test_a_lengths_cost_is_dapos_equation_13(response_tokens: int, within: int) -> None:
    overlong_tokens = min(within, response_tokens)
    for length in range(response_tokens + 1):
        cost = float(overlong(torch.tensor([length]), response_tokens, overlong_tokens)[0])
        if length <= response_tokens - overlong_tokens:
            expected = 0.0
        else:
            expected = -((response_tokens - overlong_tokens) - length) / overlong_tokens
        assert cost == pytest.approx(expected, abs=1e-6)
    assert float(overlong(torch.tensor([response_tokens]), response_tokens, 0)[0]) == 0.0


@given(st.lists(st.lists(st.integers(0, 1), min_size=3, max_size=3), min_size=1, max_size=6), st.integers(1, 6))
def test_groups_that_are_told_apart_are_kept_in_their_order_up_to_as_many_as_fit(
    groups: list[list[int]], most: int
) -> None:
    plain_B = torch.tensor([float(x) for group in groups for x in group])
    one = Scored(None, plain_B, plain_B, 0.0, 0.0)  # type: ignore[arg-type]  # only rewards are looked at
    differing = [i for i, group in enumerate(groups) if len(set(group)) > 1]
    rows = [[3 * i + k for i in differing for k in range(3)]]
    assert told_apart([one], 3) == rows
    twice = told_apart([one, one], 3, most=most)
    first = min(most, len(differing))
    assert [len(kept) // 3 for kept in twice] == [first, min(most - first, len(differing))]
    assert twice[0] == rows[0][: 3 * most]


def test_rows_of_several_draws_stay_what_they_are_when_joined() -> None:
    said = {"temperature": 1.0, "group": 3, "seed": 0}
    parts = [draw(model_of("gpt2"), template(), PROMPTS, response_tokens=tokens, **said) for tokens in (8, 4, 6, 3)]
    widths = {part.batch.tokens_BT.shape[1] for part in parts}
    assert len(widths) > 1
    kept = [[0, 2], [], [5], [1, 3]]
    one = joined(parts, kept, 257)
    assert one.batch.tokens_BT.shape == (5, max(widths))
    rows = [(part, row) for part, some in zip(parts, kept, strict=True) for row in some]
    for i, (part, row) in enumerate(rows):
        width = part.batch.tokens_BT.shape[1]
        assert torch.equal(one.batch.tokens_BT[i, :width], part.batch.tokens_BT[row])
        assert bool((one.batch.tokens_BT[i, width:] == 257).all())
        assert torch.equal(one.batch.mask_BT[i, :width], part.batch.mask_BT[row])
        assert not bool(one.batch.real_BT[i, width:].any() or one.batch.mask_BT[i, width:].any())
        assert torch.equal(one.logps_BT[i, :width], part.logps_BT[row])
        said = (part.texts[row], part.prompts[row], bool(part.ended_B[row]))
        assert (one.texts[i], one.prompts[i], bool(one.ended_B[i])) == said


def test_a_long_response_costs_more_than_a_short_one_whatever_the_reward(tmp_path: Path) -> None:
    (tmp_path / "flat.py").write_text("def score(p, r, a):\n    return [2.0] * len(r)\n")
    drawn = drawn_by("gpt2", seed=3)
    flat = scoring.load("flat:score", tmp_path)
    scores_B, plain_B = score(drawn, flat, 0.0, response_tokens=8, overlong_tokens=4)
    lengths_B = drawn.batch.mask_BT.sum(dim=1)
    assert plain_B.tolist() == [2.0] * 6
    assert scores_B.tolist() == [2.0 - max(0.0, (length - 4) / 4) for length in lengths_B.tolist()]
    assert len(set(scores_B.tolist())) > 1
