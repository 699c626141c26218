"""What every algorithm of chat promises: a new file of `chat/algorithms` is tested by being there."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tandem
from tandem.chat import algorithm
from tandem.chat.algorithm import Algorithm, Experience, Targets
from tandem.core import plug
from tandem.core.errors import UnknownPluginError
from tandem.learn.errors import TrainingInputError
from tandem.learn.masking import Counts

NAMES = plug.names(algorithm.FAMILY)
GROUP_SIZE = 4
ROWS, SLOTS = 8, 6
every = pytest.mark.parametrize("name", NAMES)
RNG_SEED = 7
Change = Callable[[Tensor], Tensor]


def case(name: str) -> tuple[Algorithm, Any, Experience, Tensor, Tensor]:
    """An algorithm with its defaults, and responses that a policy and a critic now see a little differently."""
    how = algorithm.load(name)
    config = how.Config(**({"group_size": GROUP_SIZE} if how.GROUP == "same prompt" else {}))
    rng = torch.Generator().manual_seed(RNG_SEED)
    old_BT, reference_BT, values_BT, now_BT, critic_BT = torch.randn(5, ROWS, SLOTS, generator=rng, dtype=torch.float64)
    mask_BT = torch.arange(SLOTS) < torch.randint(1, SLOTS, (ROWS, 1), generator=rng)
    experience = Experience(
        mask_BT=mask_BT,
        old_logps_BT=old_BT - 3.0,
        reference_logps_BT=old_BT - 3.0 + 0.1 * reference_BT,
        scores_B=torch.randn(ROWS, generator=rng, dtype=torch.float64),
        values_BT=values_BT,
        bootstrap_B=torch.zeros(ROWS, dtype=torch.float64),
    )
    return how, config, experience, old_BT - 3.0 + 0.02 * now_BT, values_BT + 0.05 * critic_BT


def run(
    how: Algorithm, config: object, experience: Experience, logps_BT: Tensor, values_BT: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, and its gradients by the policy's log-probabilities and the critic's values."""
    logps_BT, values_BT = (x_BT.detach().clone().requires_grad_() for x_BT in (logps_BT, values_BT))
    targets = how.prepare(experience, config)
    total = how.loss(logps_BT, values_BT, experience, targets, config, Counts.of(experience.mask_BT)).total
    by_policy, by_critic = torch.autograd.grad(total, (logps_BT, values_BT), allow_unused=True)
    assert by_policy is not None
    assert ("critic" in how.NEEDS) == (by_critic is not None)
    return total.detach(), by_policy, torch.zeros_like(values_BT) if by_critic is None else by_critic


def changed(experience: Experience, slots: Change, rows: Change) -> Experience:
    """The same with `slots` applied to what has a slot for each token and `rows` to what has one value a row."""
    values = {f.name: getattr(experience, f.name) for f in dataclasses.fields(experience)}
    return Experience(**{name: (slots if name.endswith("_BT") else rows)(x) for name, x in values.items()})


@every
def test_losses_are_finite_and_teach_exactly_the_tokens_of_responses(name: str) -> None:
    how, config, experience, logps_BT, values_BT = case(name)
    loss, by_policy, by_critic = run(how, config, experience, logps_BT, values_BT)
    assert loss.isfinite()
    assert loss.shape == ()
    assert torch.equal(by_policy != 0, experience.mask_BT)
    if "critic" in how.NEEDS:
        assert torch.equal(by_critic != 0, experience.mask_BT)


@every
@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf, 1e30])
def test_any_value_in_a_masked_slot_changes_nothing(name: str, junk: float) -> None:
    how, config, experience, logps_BT, values_BT = case(name)
    out_BT = ~experience.mask_BT
    dirty = changed(experience, lambda x: x if x.dtype == torch.bool else x.masked_fill(out_BT, junk), lambda x: x)
    told = run(how, config, experience, logps_BT, values_BT)
    again = run(how, config, dirty, logps_BT.masked_fill(out_BT, junk), values_BT.masked_fill(out_BT, junk))
    for one, other in zip(told, again, strict=True):
        assert torch.equal(one, other)


@every
@pytest.mark.parametrize("sides", [(3, 0), (0, 3), (2, 2)])
def test_padding_on_either_side_changes_nothing(name: str, sides: tuple[int, int]) -> None:
    how, config, experience, logps_BT, values_BT = case(name)

    def pad(x_BT: Tensor) -> Tensor:
        return torch.nn.functional.pad(x_BT, sides, value=0 if x_BT.dtype == torch.bool else math.nan)

    told = run(how, config, experience, logps_BT, values_BT)
    again = run(how, config, changed(experience, pad, lambda x: x), pad(logps_BT), pad(values_BT))
    assert again[0].item() == pytest.approx(told[0].item(), abs=1e-13)
    middle = slice(sides[0], sides[0] + SLOTS)
    for one, other in zip(told[1:], again[1:], strict=True):
        assert torch.allclose(other[:, middle], one, atol=1e-13)
        assert other.abs().sum().item() == pytest.approx(one.abs().sum().item(), abs=1e-12)


@every
def test_the_order_of_rows_does_not_matter(name: str) -> None:
    how, config, experience, logps_BT, values_BT = case(name)
    order_B = {
        "none": torch.tensor([3, 7, 0, 5, 1, 2, 6, 4]),
        "same prompt": torch.tensor([6, 5, 7, 4, 1, 0, 3, 2]),
        "pair": torch.tensor([4, 5, 0, 1, 6, 7, 2, 3]),
    }[how.GROUP]
    told = run(how, config, experience, logps_BT, values_BT)
    again = run(how, config, experience.rows(order_B), logps_BT[order_B], values_BT[order_B])
    assert again[0].item() == pytest.approx(told[0].item(), abs=1e-13)
    assert torch.allclose(again[1], told[1][order_B], atol=1e-13)
    assert torch.allclose(again[2], told[2][order_B], atol=1e-13)


@every
@pytest.mark.parametrize("size", [2, 6])
def test_microbatches_add_up_to_the_batch_however_it_is_split(name: str, size: int) -> None:
    how, config, experience, logps_BT, values_BT = case(name)
    loss, by_policy, _ = run(how, config, experience, logps_BT, values_BT)
    targets, of = how.prepare(experience, config), Counts.of(experience.mask_BT)
    now_BT = logps_BT.clone().requires_grad_()
    summed = 0.0
    for start in range(0, ROWS, size):
        part = slice(start, start + size)
        share = how.loss(now_BT[part], values_BT[part], experience.rows(part), targets.rows(part), config, of)
        share.total.backward()
        summed += share.total.item()
    assert now_BT.grad is not None
    assert summed == pytest.approx(loss.item(), abs=1e-13)
    assert torch.allclose(now_BT.grad, by_policy, atol=1e-14)


@every
def test_a_part_without_tokens_has_a_loss_of_zero_that_can_be_differentiated(name: str) -> None:
    how, config, experience, logps_BT, values_BT = case(name)
    of = Counts.of(experience.mask_BT)
    empty = dataclasses.replace(experience, mask_BT=torch.zeros_like(experience.mask_BT))
    now_BT, critic_BT = (x_BT.clone().requires_grad_() for x_BT in (logps_BT, values_BT))
    total = how.loss(now_BT, critic_BT, empty, how.prepare(empty, config), config, of).total
    total.backward()
    assert total.item() == 0.0
    assert now_BT.grad is not None
    assert not now_BT.grad.any()


@pytest.mark.parametrize("name", [name for name in NAMES if "scores" in algorithm.load(name).NEEDS])
def test_without_advantage_there_is_no_policy_gradient(name: str) -> None:
    how, config, experience, logps_BT, values_BT = case(name)
    at_start = dataclasses.replace(experience, reference_logps_BT=logps_BT)
    targets = Targets(advantages_BT=torch.zeros(ROWS, SLOTS), returns_BT=how.prepare(at_start, config).returns_BT)
    now_BT = logps_BT.clone().requires_grad_()
    how.loss(now_BT, values_BT, at_start, targets, config, Counts.of(experience.mask_BT)).total.backward()
    assert now_BT.grad is not None
    assert not now_BT.grad.any()


@every
def test_the_reference_is_felt_once_in_the_targets_or_in_the_loss(name: str) -> None:
    how, config, experience, logps_BT, values_BT = case(name)
    assert experience.reference_logps_BT is not None
    farther = dataclasses.replace(experience, reference_logps_BT=experience.reference_logps_BT * 1.1)
    targets, others = how.prepare(experience, config), how.prepare(farther, config)
    of = Counts.of(experience.mask_BT)
    losses = [how.loss(logps_BT, values_BT, e, targets, config, of).total.item() for e in (experience, farther)]
    in_targets = targets.advantages_BT is not None and not torch.equal(targets.advantages_BT, others.advantages_BT)
    assert in_targets != (losses[0] != losses[1])


@every
def test_what_is_needed_is_asked_for_by_name(name: str) -> None:
    how, config, experience, logps_BT, values_BT = case(name)
    fields = {"scores": "scores_B", "reference": "reference_logps_BT", "critic": "values_BT"}
    words = {"scores": "scores", "reference": "reference log-probabilities", "critic": "values"}
    for need in how.NEEDS:
        for value, told in ((None, "without"), (torch.full_like(getattr(experience, fields[need]), math.nan), "NaN")):
            lacking = dataclasses.replace(experience, **{fields[need]: value})
            with pytest.raises(TrainingInputError, match=f"{words[need]}|{told}"):
                run(how, config, lacking, logps_BT, values_BT)


@every
def test_a_configuration_is_frozen_and_has_a_default_with_a_source_for_everything(name: str) -> None:
    how = algorithm.load(name)
    config = how.Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.anything = 1
    told = (how.Config.__doc__ or "").split("Attributes:")[1]
    for field in dataclasses.fields(how.Config):
        assert f"        {field.name}: " in told


def test_there_is_one_file_of_room_and_an_unknown_algorithm_is_told_with_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "chat" / "algorithms").mkdir(parents=True)
    (tmp_path / "chat" / "algorithms" / "mine.py").write_text("")
    monkeypatch.setattr("tandem.__path__", [*tandem.__path__, str(tmp_path)])
    assert plug.names(algorithm.FAMILY) == sorted([*NAMES, "mine"])
    assert {"dpo", "grpo", "ppo", "rloo"} <= set(NAMES)
    with pytest.raises(UnknownPluginError, match=r"unknown algorithm 'grppo'.*did you mean 'grpo'"):
        algorithm.load("grppo")
