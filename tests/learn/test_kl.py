"""Estimates of the KL divergence: their signs, their means, and where they are zero."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tandem.learn.kl import Estimator, kl

ESTIMATORS: tuple[Estimator, ...] = ("k1", "k2", "k3")
EVERY = torch.ones(1, 1, dtype=torch.bool)
logits = st.lists(st.floats(-3.0, 3.0), min_size=4, max_size=4)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@given(st.floats(-50.0, 0.0))
def test_it_is_zero_while_the_policy_is_the_reference(estimator: Estimator, logp: float) -> None:
    logp_BT = torch.tensor([[logp]])
    assert kl(logp_BT, logp_BT.clone(), EVERY, estimator).tolist() == [[0.0]]


@given(st.floats(-20.0, 0.0), st.floats(-20.0, 0.0))
def test_values_and_signs(logp: float, reference: float) -> None:
    told = {
        "k1": logp - reference,
        "k2": (logp - reference) ** 2 / 2,
        "k3": math.exp(reference - logp) - 1.0 - (reference - logp),
    }
    for estimator in ESTIMATORS:
        logp_BT, reference_BT = (torch.tensor([[x]], dtype=torch.float64) for x in (logp, reference))
        value = float(kl(logp_BT, reference_BT, EVERY, estimator))
        assert value == pytest.approx(told[estimator], rel=1e-9, abs=1e-12)
        assert estimator == "k1" or value >= 0.0


@given(logits, logits)
def test_k1_and_k3_have_the_divergence_itself_as_their_mean(policy: list[float], reference: list[float]) -> None:
    logp_V, ref_V = (torch.tensor(x, dtype=torch.float64).log_softmax(0) for x in (policy, reference))
    divergence = float(
        torch.distributions.kl_divergence(*(torch.distributions.Categorical(logits=x) for x in (logp_V, ref_V)))
    )
    mask_BT = torch.ones(1, 4, dtype=torch.bool)
    for estimator in ("k1", "k3"):
        mean = float((logp_V.exp() * kl(logp_V[None], ref_V[None], mask_BT, estimator)).sum())
        assert mean == pytest.approx(divergence, abs=1e-9)


def test_masked_slots_are_zero_and_have_no_gradient() -> None:
    logp_BT = torch.tensor([[-1.0, math.nan]], requires_grad=True)
    for estimator in ESTIMATORS:
        value_BT = kl(logp_BT, torch.tensor([[-2.0, math.inf]]), torch.tensor([[True, False]]), estimator)
        (grad_BT,) = torch.autograd.grad(value_BT.sum(), logp_BT)
        assert value_BT[0, 1] == 0.0
        assert grad_BT[0, 1] == 0.0
        assert grad_BT[0, 0].isfinite()
