"""An update: where ratios begin, that its split does not matter, what it may not see."""

import math
from typing import Any

import pytest
import torch

from tandem.chat import algorithm, forward, heads
from tandem.chat.data.batches import Batch, padded
from tandem.chat.errors import DivergedError
from tandem.chat.learner import Learner, Mixed
from tandem.chat.off_policy import Behaviour
from tandem.learn.errors import TrainingInputError
from tandem.learn.optimiser import Optimiser
from tests.chat.small import model_of, turns

LENGTHS = [(3, 4), (2, 7), (5, 1), (1, 6), (4, 2), (3, 3), (2, 2), (6, 5)]
SCORES_B = torch.tensor([1.0, 0.0, 0.5, -1.0, 2.0, 2.0, 0.0, 3.0])
ENDED_B = torch.tensor([True, False, True, True, False, True, True, True])

SETTINGS: dict[str, dict[str, Any]] = {
    "grpo": {"group_size": 4},
    "rloo": {"group_size": 4},
    "ppo": {},
    "dpo": {},
}


def learner(name: str, family: str = "llama", dtype: torch.dtype = torch.float32, **settings: Any) -> Learner:  # noqa: ANN401 - Learner's
    policy = model_of(family).to(dtype)
    how = algorithm.load(name)
    critic = heads.from_language_model(policy, seed=1).to(dtype) if "critic" in how.NEEDS else None
    rate = settings.pop("rate", 1e-3)
    return Learner(
        algorithm=how,
        policy=policy,
        policy_optimiser=Optimiser(policy.parameters(), learning_rate=rate),
        critic=critic,
        critic_optimiser=None if critic is None else Optimiser(critic.parameters(), learning_rate=rate),
        **settings,
    )


def learn(one: Learner, name: str, batch: Batch, step: int = 0, **more: Any) -> dict[str, float]:  # noqa: ANN401 - learn's
    config = one.algorithm.Config(**SETTINGS[name])
    with torch.no_grad():
        reference_BT = forward.logprobs(model_of("llama", seed=7).to(one.policy.dtype), batch)
    scored = {} if name == "dpo" else {"scores_B": SCORES_B, "ended_B": ENDED_B}
    return one.learn(step, batch, config, reference_logps_BT=reference_BT, **scored, **more)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("name", ["grpo", "rloo", "ppo"])
@pytest.mark.parametrize("split", [{}, {"micro_rows": 3}, {"minibatches": 2, "micro_rows": 2}, {"epochs": 2}])
def test_in_the_first_minibatch_every_ratio_is_1(name: str, family: str, split: dict[str, int]) -> None:
    one = learner(name, family, **split)
    one.policy.train()  # dropout would show here
    figures = learn(one, name, padded(turns(LENGTHS), 257))
    assert figures["first_ratio_off"] <= 1e-6


def test_a_second_epochs_ratios_are_not_1_so_that_the_test_above_can_fail() -> None:
    one = learner("ppo", epochs=2, rate=0.05)
    batch = padded(turns(LENGTHS), 257)
    before = forward.logprobs(one.policy, batch).detach()
    learn(one, "ppo", batch)
    assert float((forward.logprobs(one.policy, batch).detach() - before).abs().max()) > 1e-3


@pytest.mark.parametrize("name", ["grpo", "rloo", "ppo", "dpo"])
@pytest.mark.parametrize("micro_rows", [2, 3, 8])
def test_an_update_does_not_depend_on_how_it_is_cut_into_parts(name: str, micro_rows: int) -> None:
    whole, cut = (learner(name, dtype=torch.float64, micro_rows=rows) for rows in (0, micro_rows))
    batch = padded(turns(LENGTHS), 257)
    told, found = (learn(one, name, batch) for one in (whole, cut))
    for figure, value in told.items():
        assert found[figure] == pytest.approx(value, rel=1e-9, abs=1e-12)
    theirs, ours = whole.policy.state_dict(), cut.policy.state_dict()
    assert all(torch.allclose(theirs[key], ours[key], atol=1e-9) for key in theirs)


@pytest.mark.parametrize("name", ["grpo", "ppo"])
def test_what_stands_after_eos_changes_nothing(name: str) -> None:
    clean = padded(turns(LENGTHS), 257)
    spoiled = Batch(clean.tokens_BT.masked_fill(~clean.real_BT, 65), clean.real_BT, clean.mask_BT)
    first, second = learner(name), learner(name)
    assert learn(first, name, clean) == learn(second, name, spoiled)
    theirs, ours = first.policy.state_dict(), second.policy.state_dict()
    assert all(torch.equal(theirs[key], ours[key]) for key in theirs)


def test_the_divergence_is_0_while_the_policy_is_the_reference() -> None:
    one = learner("grpo")
    batch = padded(turns(LENGTHS), 257)
    with torch.no_grad():
        own_BT = forward.logprobs(one.policy, batch)
    config = one.algorithm.Config(group_size=4)
    figures = one.learn(0, batch, config, reference_logps_BT=own_BT, scores_B=SCORES_B, ended_B=ENDED_B)
    assert figures["kl"] == figures["kl_nats"] == 0.0


def test_alike_scores_and_no_divergence_move_nothing() -> None:
    one = learner("grpo")
    batch = padded(turns(LENGTHS), 257)
    with torch.no_grad():
        own_BT = forward.logprobs(one.policy, batch)
    config = one.algorithm.Config(group_size=4)
    figures = one.learn(0, batch, config, reference_logps_BT=own_BT, scores_B=torch.ones(8), ended_B=ENDED_B)
    assert figures["gradient_norm"] == pytest.approx(0.0, abs=1e-6)


def test_a_mixture_adds_the_supervised_gradient() -> None:
    batch, rows = padded(turns(LENGTHS), 257), padded(turns([(2, 3), (4, 4)], seed=5), 257)
    without, with_it = learner("ppo"), learner("ppo")
    plain = learn(without, "ppo", batch)
    mixed = learn(with_it, "ppo", batch, mixed=Mixed(batch=rows, coefficient=27.8))
    assert mixed["mixture"] == pytest.approx(
        -float(forward.logprobs(model_of("llama"), rows).detach().sum()) / 7, rel=1e-5
    )
    assert mixed["gradient_norm"] != plain["gradient_norm"]
    assert mixed["policy"] == plain["policy"]


@pytest.mark.parametrize("name", ["grpo", "ppo"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_no_number_changes_no_weight(name: str, bad: float) -> None:
    one = learner(name)
    before = {key: value.clone() for key, value in one.policy.state_dict().items()}
    batch = padded(turns(LENGTHS), 257)
    with torch.no_grad():
        own_BT = forward.logprobs(one.policy, batch)
    config = one.algorithm.Config(**SETTINGS[name])
    with pytest.raises(TrainingInputError, match="scores of which 1 of 8 are NaN or infinite"):
        one.learn(
            0,
            batch,
            config,
            reference_logps_BT=own_BT,
            scores_B=SCORES_B.index_fill(0, torch.tensor([2]), bad),
            ended_B=ENDED_B,
        )
    assert all(torch.equal(value, before[key]) for key, value in one.policy.state_dict().items())


def test_a_loss_that_is_no_number_stops_in_words_before_the_step() -> None:
    one = learner("ppo")
    with torch.no_grad():
        one.critic.score.weight.fill_(1e30)
    before = {key: value.clone() for key, value in one.policy.state_dict().items()}
    with pytest.raises((DivergedError, TrainingInputError), match=r"inf|nan|NaN"):
        learn(one, "ppo", padded(turns(LENGTHS), 257))
    assert all(torch.equal(value, before[key]) for key, value in one.policy.state_dict().items())


@pytest.mark.parametrize("name", ["grpo", "rloo", "ppo"])
def test_a_batch_that_the_policy_drew_is_learnt_as_one_of_which_nothing_is_said(name: str) -> None:
    batch = padded(turns(LENGTHS), 257)
    plain, told = (learner(name, dtype=torch.float64, micro_rows=3) for _ in range(2))
    with torch.no_grad():
        own_BT = forward.logprobs(told.policy, batch)
    expected, found = learn(plain, name, batch), learn(told, name, batch, behaviour=Behaviour(own_BT, 2.0))
    assert found.pop("rollout_ratio") == pytest.approx(1.0, abs=1e-12)
    assert found.pop("rollout_capped") == 0.0
    assert found.pop("rollout_kl_nats") == pytest.approx(0.0, abs=1e-12)
    assert found == {figure: pytest.approx(value, rel=1e-9, abs=1e-12) for figure, value in expected.items()}


@pytest.mark.parametrize(("cap", "times"), [(4.0, 2.0), (1.5, 1.5)])
def test_tokens_that_were_drawn_half_as_often_count_twice_up_to_the_cap(cap: float, times: float) -> None:
    batch, norms = padded(turns(LENGTHS), 257), []
    for less in (0.0, math.log(2.0)):
        one = learner("grpo", dtype=torch.float64)
        with torch.no_grad():
            own_BT = forward.logprobs(one.policy, batch)
        config = one.algorithm.Config(group_size=4, kl_coefficient=0.0)
        drew = Behaviour(own_BT - less, cap)
        figures = one.learn(
            0, batch, config, reference_logps_BT=None, scores_B=SCORES_B, ended_B=ENDED_B, behaviour=drew
        )
        norms.append(figures["gradient_norm"])
    assert norms[1] == pytest.approx(times * norms[0], rel=1e-7)


def test_the_critic_learns_from_the_tokens_that_the_policy_learns_from() -> None:
    one = learner("ppo", rate=0.01)
    batch = padded(turns(LENGTHS), 257)
    losses = [learn(one, "ppo", batch, step)["critic"] for step in range(12)]
    assert losses[-1] < 0.7 * losses[0]
