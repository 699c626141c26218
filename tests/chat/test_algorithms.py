"""What is each algorithm's own: where rewards land, what is clipped, variants, and what is refused."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tandem.chat.algorithm import Experience
from tandem.chat.algorithms import dpo, grpo, ppo, rloo
from tandem.learn.errors import TrainingInputError
from tandem.learn.losses import dpo as dpo_of_pairs
from tandem.learn.masking import Counts

MASK_BT = torch.tensor([[False, True, True, False], [True, True, True, True], [False, False, False, False]])
OLD_BT = torch.full((3, 4), -2.0, dtype=torch.float64)


def experience(score: float = 1.0, away: float = 0.0) -> Experience:
    return Experience(
        mask_BT=MASK_BT,
        old_logps_BT=OLD_BT,
        reference_logps_BT=OLD_BT - away,
        scores_B=torch.full((3,), score, dtype=torch.float64),
        values_BT=torch.zeros_like(OLD_BT),
    )


@given(st.floats(-20.0, 20.0), st.floats(-3.0, 3.0), st.floats(0.0, 1.0))
def test_the_score_lands_once_on_the_last_token_and_only_it_is_clipped(score: float, away: float, beta: float) -> None:
    rewards_BT = ppo.rewards(experience(score, away), ppo.Config(kl_coefficient=beta))
    paid, clipped = -beta * away, min(max(score, -5.0), 5.0)
    told = [[0.0, paid, paid + clipped, 0.0], [paid, paid, paid, paid + clipped], [0.0] * 4]
    for got, row in zip(rewards_BT.tolist(), told, strict=True):
        assert got == pytest.approx(row, abs=1e-12)


def test_ppo_pays_nothing_while_the_policy_is_the_reference_and_more_the_farther_it_goes() -> None:
    config = ppo.Config()
    sums = [float(ppo.rewards(experience(0.0, away), config).sum()) for away in (0.0, 1.0, 2.0)]
    assert sums == pytest.approx([0.0, -0.6, -1.2])


def test_ppos_critic_and_policy_learn_from_the_same_tokens() -> None:
    targets = ppo.prepare(experience(), ppo.Config(whiten_advantages=False))
    assert targets.advantages_BT is not None
    assert targets.returns_BT is not None
    assert torch.equal(targets.advantages_BT != 0, MASK_BT)
    assert torch.equal(targets.returns_BT != 0, MASK_BT)


def test_whitened_rewards_keep_their_mean() -> None:
    config = ppo.Config(whiten_rewards=True, whiten_advantages=False, gamma=0.0, lam=0.0)
    got = ppo.prepare(experience(4.0), config).advantages_BT
    assert got is not None
    assert float(got[MASK_BT].mean()) == pytest.approx(8.0 / 6.0)
    assert float(got[MASK_BT].std()) == pytest.approx(1.0)


def test_the_variants_of_grpo_differ_as_published() -> None:
    plain, doctor, dapo = grpo.Config(), grpo.Config.dr_grpo(128), grpo.Config.dapo()
    assert (plain.kl_coefficient, plain.scale, plain.aggregation) == (0.04, True, "sequence")
    assert (doctor.kl_coefficient, doctor.scale, doctor.aggregation, doctor.length_tokens) == (0.0, False, "fixed", 128)
    assert (dapo.kl_coefficient, dapo.aggregation, dapo.clip_low, dapo.clip_high) == (0.0, "token", 0.2, 0.28)


@pytest.mark.parametrize("config", [grpo.Config.dr_grpo(8, group_size=2), grpo.Config.dapo(group_size=2)])
def test_without_kl_grpo_needs_no_reference(config: grpo.Config) -> None:
    mask_BT = torch.ones(2, 3, dtype=torch.bool)
    lone = Experience(mask_BT=mask_BT, old_logps_BT=OLD_BT[:2, :3], scores_B=torch.tensor([0.0, 1.0]))
    loss = grpo.loss(OLD_BT[:2, :3], None, lone, grpo.prepare(lone, config), config, Counts.of(mask_BT))
    assert loss.total.isfinite()


@given(st.floats(0.1, 2.0))
def test_grpos_kl_is_k3_weighed_by_its_coefficient(away: float) -> None:
    mask_BT = torch.ones(2, 4, dtype=torch.bool)
    rows = experience(1.0, away).rows(slice(2))
    rows = Experience(
        mask_BT=mask_BT,
        old_logps_BT=rows.old_logps_BT,
        reference_logps_BT=rows.reference_logps_BT,
        scores_B=rows.scores_B,
    )
    config = grpo.Config(group_size=2)
    loss = grpo.loss(OLD_BT[:2], None, rows, grpo.prepare(rows, config), config, Counts.of(mask_BT))
    assert float(loss.total) == pytest.approx(0.04 * (math.exp(-away) - 1.0 + away), abs=1e-12)


def test_rloo_pays_for_the_whole_responses_kl() -> None:
    mask_BT = torch.tensor([[True, True], [True, False]])
    old_BT = torch.tensor([[-1.0, -2.0], [-3.0, 0.0]])
    rows = Experience(
        mask_BT=mask_BT, old_logps_BT=old_BT, reference_logps_BT=old_BT - 1.0, scores_B=torch.tensor([1.0, 0.0])
    )
    targets = rloo.prepare(rows, rloo.Config(group_size=2, kl_coefficient=0.1))
    assert targets.advantages_BT is not None
    assert targets.advantages_BT.flatten().tolist() == pytest.approx([0.9, 0.9, -0.9, 0.0])


def test_dpo_sums_tokens_and_starts_at_log_2() -> None:
    mask_BT = torch.tensor([[True, True, False], [True, False, False]])
    reference_BT = torch.tensor([[-1.0, -2.0, 9.0], [-4.0, 9.0, 9.0]])
    rows = Experience(mask_BT=mask_BT, reference_logps_BT=reference_BT)
    config = dpo.Config()
    start = dpo.loss(reference_BT, None, rows, dpo.prepare(rows, config), config, Counts.of(mask_BT))
    assert float(start.total) == pytest.approx(math.log(2.0))
    later = dpo.loss(reference_BT + 0.5, None, rows, dpo.prepare(rows, config), config, Counts.of(mask_BT))
    told = dpo_of_pairs(*(torch.tensor([x]) for x in (-2.0, -3.5, -3.0, -4.0)), beta=0.1)
    assert float(later.total) == pytest.approx(float(told))
    assert float(later.parts["accuracy"]) == 1.0


@pytest.mark.parametrize("mask", [[[True]], [[True], [False]]])
def test_rows_that_are_no_pairs_are_refused(mask: list[list[bool]]) -> None:
    mask_BT = torch.tensor(mask)
    with pytest.raises(TrainingInputError, match="pairs: a preferred response and then the other"):
        dpo.prepare(Experience(mask_BT=mask_BT, reference_logps_BT=torch.zeros(mask_BT.shape)), dpo.Config())


@pytest.mark.parametrize(
    ("kind", "setting", "told"),
    [
        (ppo.Config, {"clip": 0.0}, "clip above 0"),
        (ppo.Config, {"lam": 1.1}, "gamma and lam from 0 to 1"),
        (grpo.Config, {"group_size": 1}, "group_size from 2 to 1e6"),
        (grpo.Config, {"group_size": 10**22}, "group_size from 2 to 1e6"),
        (rloo.Config, {"group_size": 10**22}, "group_size from 2 to 1e6"),
        (grpo.Config, {"aggregation": "fixed"}, "length_tokens"),
        (grpo.Config, {"kl_coefficient": math.inf}, "kl_coefficient from 0 to 1e18"),
        (rloo.Config, {"kl_coefficient": -0.1}, "kl_coefficient from 0"),
        (rloo.Config, {"kl_coefficient": math.inf}, "kl_coefficient from 0 to 1e18"),
        (ppo.Config, {"value_coefficient": math.inf}, "coefficients from 0 to 1e18"),
        (ppo.Config, {"kl_coefficient": 1e300}, "coefficients from 0 to 1e18"),
        (ppo.Config, {"score_clip": 1e300}, "score_clip above 0, up to 1e18 or infinite"),
        (grpo.Config, {"clip_high": 1e300}, "clip_high above 0, up to 1e18 or infinite"),
        (dpo.Config, {"label_smoothing": 0.5}, "below 0.5"),
        (dpo.Config, {"beta": math.nan}, "beta above 0"),
        (dpo.Config, {"beta": math.inf}, "beta above 0, up to 1e18"),
    ],
)
def test_settings_that_make_no_sense_are_refused(kind: type, setting: dict[str, object], told: str) -> None:
    with pytest.raises(TrainingInputError, match=told):
        kind(**setting)
