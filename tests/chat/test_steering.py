"""What follows a run: the averaged policy, the adaptive KL, the plateau, intervals."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tandem.chat.adaptive_kl import AdaptiveKl
from tandem.chat.averaged import Averaged
from tandem.chat.interval import of_mean
from tandem.chat.plateau import Plateau


def test_an_average_is_the_sum_it_is_defined_as() -> None:
    module = torch.nn.Linear(2, 2)
    before = [p.detach().clone() for p in module.parameters()]
    average = Averaged(module, 0.9)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1.0)
    average.update(module)
    average.update(module)
    with average.in_place_of(module):
        for mean, start in zip(module.parameters(), before, strict=True):
            assert torch.allclose(mean, start + 1.0 - 0.9**2, atol=1e-6)
    for own, start in zip(module.parameters(), before, strict=True):
        assert torch.equal(own, start + 1.0)


@given(st.floats(0.01, 1.0), st.floats(0.0, 100.0), st.integers(1, 512))
def test_the_coefficient_moves_towards_the_target_by_a_fifth_of_the_horizon_at_most(
    start: float, kl_nats: float, responses: int
) -> None:
    adaptive = AdaptiveKl(start, 6.0, 10_000)
    adaptive.update(kl_nats, responses)
    change = adaptive.coefficient / start - 1.0
    assert abs(change) <= 0.2 * responses / 10_000 + 1e-12
    assert (change > 0) == (kl_nats > 6.0) or abs(kl_nats / 6.0 - 1.0) < 1e-9


def test_an_adaptive_kl_reaches_its_target_where_more_pay_means_less_divergence() -> None:
    adaptive = AdaptiveKl(0.05, 6.0, 100)
    for _ in range(2000):
        adaptive.update(1.2 / adaptive.coefficient, 32)
    assert adaptive.coefficient == pytest.approx(0.2, rel=0.05)


def test_a_plateau_is_as_many_looks_without_half_a_percent() -> None:
    plateau = Plateau(patience=2)
    told = []
    for loss in (1.0, 0.9, 0.899, 0.8, 0.799, 0.798):
        plateau.look(loss)
        told.append(plateau.reached())
    assert told == [False] * 5 + [True]
    never = Plateau(patience=0)
    for _ in range(9):
        never.look(1.0)
    assert not never.reached()


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_an_interval_of_a_share_holds_it_and_stays_within_0_and_1(right: list[bool]) -> None:
    found = of_mean([float(x) for x in right])
    assert 0.0 <= found.low <= found.mean <= found.high <= 1.0
    assert found.high - found.low > 0.0
    assert found.rows == len(right)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = random.Random(0)
    kinds = (lambda: float(rng.random() < 0.3), lambda: rng.gauss(0.3, 1.0))
    for draw in kinds:
        held = sum(1 for _ in range(300) if (x := of_mean([draw() for _ in range(80)])).low <= 0.3 <= x.high)
        assert 0.90 <= held / 300 <= 0.99


def test_of_nothing_there_is_no_mean() -> None:
    assert of_mean([]).rows == 0
    assert of_mean([]).mean != of_mean([]).mean
