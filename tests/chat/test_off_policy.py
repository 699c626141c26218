"""What another policy drew, weighed: without bias where every response is enumerated, and nothing where it is the same.

A policy over two tokens of K arms is a table: theta_K for the first token, theta_KK for the second after each first.
J = sum of pi(response) r(response) is differentiated exactly. An algorithm's gradient is its mean over all batches that
mu could draw, weighed by their probability under mu; no sampling, so that equality is exact.
"""

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tandem.chat import algorithm
from tandem.chat.algorithm import Experience, Targets
from tandem.chat.algorithms import grpo, ppo, rloo
from tandem.chat.off_policy import Behaviour, log_ratios, weighed
from tandem.learn.errors import TrainingInputError
from tandem.learn.masking import Counts

K = 3
RNG = torch.Generator().manual_seed(3)
FIRST_K, MU_FIRST_K = torch.randn(2, K, generator=RNG, dtype=torch.float64)
SECOND_KK, MU_SECOND_KK = torch.randn(2, K, K, generator=RNG, dtype=torch.float64)
REWARDS_KK = torch.randn(K, K, generator=RNG, dtype=torch.float64)
BASELINE = 0.7
Table = tuple[Tensor, Tensor]


def table() -> Table:
    return FIRST_K.clone().requires_grad_(), SECOND_KK.clone().requires_grad_()


def logps(of: Table, responses: Tensor) -> Tensor:
    """Log-probabilities of responses of one or two tokens, [B, T]."""
    first_B = of[0].log_softmax(0)[responses[:, 0]]
    if responses.shape[1] == 1:
        return first_B[:, None]
    return torch.stack((first_B, of[1].log_softmax(1)[responses[:, 0], responses[:, 1]]), dim=1)


def reward(responses: Tensor) -> Tensor:
    return REWARDS_KK[responses[:, 0], responses[:, -1]]


def every(tokens: int) -> Tensor:
    return torch.tensor(list(itertools.product(range(K), repeat=tokens)))


def true_gradient(tokens: int) -> Tensor:
    """Of J, by differentiating the sum over all responses."""
    of = table()
    ((logps(of, every(tokens)).sum(dim=1).exp() * reward(every(tokens))).sum()).backward()
    return flat(of)


def flat(of: Table) -> Tensor:
    return torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in of])


def mean_step(name: str, config: Any, draws: int, tokens: int, cap: float = math.inf, weigh: bool = True) -> Tensor:  # noqa: ANN401 - each algorithm has its own
    """Minus the mean gradient over all batches that mu can draw."""
    how, mu, mean = algorithm.load(name), (MU_FIRST_K, MU_SECOND_KK), torch.zeros(K + K * K, dtype=torch.float64)
    for batch in itertools.product(every(tokens), repeat=draws):
        responses, of = torch.stack(batch), table()
        now_BT, mu_BT = logps(of, responses), logps(mu, responses)
        experience = Experience(
            mask_BT=torch.ones(draws, tokens, dtype=torch.bool),
            old_logps_BT=now_BT.detach(),
            reference_logps_BT=now_BT.detach(),
            scores_B=reward(responses),
            values_BT=torch.full_like(mu_BT, BASELINE),
        )
        targets = how.prepare(experience, config)
        if weigh:
            targets, _ = weighed(targets, experience, Behaviour(mu_BT, cap), how.RATIO)
        how.loss(
            now_BT, experience.values_BT, experience, targets, config, Counts.of(experience.mask_BT)
        ).total.backward()
        mean -= mu_BT.sum().exp() * flat(of)
    return mean


def test_rloo_on_responses_of_several_tokens_has_no_bias() -> None:
    step = mean_step("rloo", rloo.Config(group_size=2), draws=2, tokens=2)
    assert torch.allclose(step, true_gradient(2), atol=1e-12)
    unweighed = mean_step("rloo", rloo.Config(group_size=2), draws=2, tokens=2, weigh=False)
    assert not torch.allclose(unweighed, true_gradient(2), atol=0.05)


@pytest.mark.parametrize(
    ("name", "config", "draws", "scale"),
    [
        ("ppo", ppo.Config(whiten_advantages=False), 1, 1.0),
        ("grpo", grpo.Config.dr_grpo(1, group_size=2), 2, 0.5),  # itself in its baseline: 1 - 1/2
        ("rloo", rloo.Config(group_size=3), 3, 1.0),
    ],
)
def test_each_algorithm_on_one_token_has_no_bias(name: str, config: object, draws: int, scale: float) -> None:
    assert torch.allclose(mean_step(name, config, draws, tokens=1), scale * true_gradient(1), atol=1e-12)


@pytest.mark.parametrize("cap", [1.0, 1.5])
def test_a_cap_is_the_gradient_of_what_it_leaves_of_each_probability(cap: float) -> None:
    """Mean over mu of min(pi / mu, cap) grad log pi (r - V), written out."""
    responses, mu = every(1), (MU_FIRST_K, MU_SECOND_KK)
    pi_B, mu_B = (logps(of, responses).sum(dim=1).exp() for of in ((FIRST_K, SECOND_KK), mu))
    left_B = torch.minimum(pi_B, cap * mu_B)
    assert bool((left_B < pi_B).any())
    scores_KB = torch.eye(K, dtype=torch.float64) - pi_B[:, None]  # grad of log pi by theta, one column a response
    told_K = scores_KB @ (left_B * (reward(responses) - BASELINE))
    step = mean_step("ppo", ppo.Config(whiten_advantages=False), draws=1, tokens=1, cap=cap)
    assert torch.allclose(step[:K], told_K, atol=1e-12)
    assert not torch.allclose(step, true_gradient(1), atol=1e-3)


def case(rows: int, slots: int, seed: int, spread: float) -> tuple[Targets, Experience, Behaviour]:
    rng = torch.Generator().manual_seed(seed)
    pi_BT, off_BT, advantages_BT = torch.randn(3, rows, slots, generator=rng, dtype=torch.float64)
    mask_BT = torch.arange(slots) < torch.randint(1, slots + 1, (rows, 1), generator=rng)
    experience = Experience(mask_BT=mask_BT, old_logps_BT=pi_BT - 3.0)
    return (
        Targets(advantages_BT=advantages_BT * mask_BT, returns_BT=advantages_BT),
        experience,
        Behaviour(pi_BT - 3.0 + spread * off_BT, 2.0),
    )


@given(
    st.integers(1, 5),
    st.integers(1, 6),
    st.integers(0, 99),
    st.floats(0.0, 3.0),
    st.sampled_from(["token", "response"]),
)
def test_ratios_are_what_they_say_and_junk_outside_of_the_mask_is_not_seen(
    rows: int, slots: int, seed: int, spread: float, of: algorithm.Ratio
) -> None:
    targets, experience, behaviour = case(rows, slots, seed, spread)
    found, figures = weighed(targets, experience, behaviour, of)
    assert experience.old_logps_BT is not None
    assert found.advantages_BT is not None
    for b, row in enumerate(experience.mask_BT.tolist()):
        own = [math.exp(experience.old_logps_BT[b, t] - behaviour.logps_BT[b, t]) for t, on in enumerate(row) if on]
        for t, ratio in enumerate(own if of == "token" else [math.prod(own)] * len(own)):
            expected = min(ratio, 2.0) * float(targets.advantages_BT[b, t])  # type: ignore[index]
            assert float(found.advantages_BT[b, t]) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert found.returns_BT is targets.returns_BT
    assert 0.0 < figures["rollout_ratio"] <= 2.0
    assert 0.0 <= figures["rollout_capped"] <= 1.0
    junk = Behaviour(behaviour.logps_BT.masked_fill(~experience.mask_BT, math.nan), 2.0)
    again, same = weighed(targets, experience, junk, of)
    assert torch.equal(again.advantages_BT, found.advantages_BT)  # type: ignore[arg-type]
    assert same == figures


@pytest.mark.parametrize("of", ["token", "response"])
def test_what_the_policy_drew_itself_is_left_as_it_is(of: algorithm.Ratio) -> None:
    targets, experience, behaviour = case(4, 6, 0, 0.0)
    found, figures = weighed(targets, experience, behaviour, of)
    assert torch.equal(found.advantages_BT, targets.advantages_BT)  # type: ignore[arg-type]
    assert figures == {"rollout_ratio": 1.0, "rollout_capped": 0.0, "rollout_kl_nats": 0.0}


def test_the_divergence_is_the_mean_over_responses_of_what_mu_says_over_what_pi_says() -> None:
    targets, experience, behaviour = case(5, 6, 1, 0.5)
    _, figures = weighed(targets, experience, behaviour, "token")
    off_BT = log_ratios(experience, behaviour, "token")
    assert figures["rollout_kl_nats"] == pytest.approx(-float(off_BT.sum()) / 5, rel=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_log_probability_that_is_no_number_is_refused(bad: float) -> None:
    targets, experience, behaviour = case(3, 4, 2, 0.5)
    behaviour.logps_BT[1, 0] = bad
    with pytest.raises(TrainingInputError, match="log-probabilities of what drew of which 1 of"):
        weighed(targets, experience, behaviour, "token")
