"""Reward models and critics."""

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tandem.chat import heads, models
from tandem.chat.data.batches import padded
from tandem.chat.data.turns import Turn
from tandem.kernels.model_folder import ModelFolderError
from tandem.learn import losses
from tests.chat.small import FAMILIES, model_of, template, turns


def test_an_identical_pair_costs_log_2_and_order_and_padding_do_not_matter() -> None:
    scorer = heads.from_language_model(model_of("llama"), seed=0)
    first, second = turns([(3, 4), (3, 9)])
    alike_B = heads.scores(scorer, padded([first, first], 257))
    assert float(losses.preference(alike_B[:1], alike_B[1:]).detach()) == pytest.approx(math.log(2.0))
    there_B, back_B = (heads.scores(scorer, padded(pair, 257)) for pair in ([first, second], [second, first]))
    assert there_B.tolist() == pytest.approx(back_B.flip(0).tolist(), abs=1e-5)
    (long,) = turns([(3, 30)], seed=1)
    assert heads.scores(scorer, padded([first, second, long], 257))[:2].tolist() == pytest.approx(
        there_B.tolist(), abs=1e-5
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_reward_model_scores_alike_when_read_here_and_by_plain_transformers(
    family: str, tmp_path: Path
) -> None:
    scorer = heads.from_language_model(model_of(family), seed=1)
    models.save(scorer, template(), tmp_path / "reward")
    again = heads.read(tmp_path / "reward")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward")
    (turn,) = turns([(3, 4)])
    batch = padded([turn], 257)
    told = heads.scores(scorer, batch).item()
    assert heads.scores(again, batch).item() == told
    assert plain(input_ids=batch.tokens_BT).logits.item() == pytest.approx(told, abs=1e-5)
    assert scorer.score.bias is None


def test_a_critic_without_a_reward_model_begins_at_0_with_the_policys_body() -> None:
    policy = model_of("llama")
    critic = heads.from_language_model(policy, seed=None)
    values_BT, after_B = heads.values(critic, padded(turns([(3, 4)]), 257))
    assert not values_BT.any()
    assert not after_B.any()
    theirs, ours = policy.base_model.state_dict(), critic.base_model.state_dict()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)


def test_a_critic_that_is_a_reward_model_values_the_end_as_it_scores() -> None:
    scorer = heads.from_language_model(model_of("llama"), seed=0)
    batch = padded(turns([(3, 4), (5, 2)]), 257)
    assert torch.allclose(heads.values(scorer, batch)[1], heads.scores(scorer, batch), atol=1e-6)


def test_a_language_model_without_a_classifier_is_refused() -> None:
    with pytest.raises(ModelFolderError, match="as a reward model or critic"):
        heads.from_language_model(model_of("granite"), seed=0)


def test_the_score_of_an_empty_response_is_read_at_its_prompts_end() -> None:
    scorer = heads.from_language_model(model_of("llama"), seed=0)
    empty = padded([Turn((5, 6, 7), 3), *turns([(3, 4)])], 257)
    assert heads.last_slots(empty).tolist() == [2, 6]
    assert heads.scores(scorer, empty).isfinite().all()
