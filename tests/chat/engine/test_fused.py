"""Weights that lie together: still the parameters they were."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from transformers import AutoModelForCausalLM

from tandem.chat.engine.fused import joined
from tandem.chat.engine.generate import Rollout, Sampling, generate
from tests.chat.engine.families import EOS, PAD, plain_logps, prompts_of, tiny

if TYPE_CHECKING:
    from pathlib import Path


def rolled(model: torch.nn.Module) -> Rollout:
    generator = torch.Generator().manual_seed(0)
    sampling = Sampling(max_new_tokens=6, eos_id=EOS)
    return generate(model, prompts_of([4, 2]), sampling, group=2, generator=generator, pad_id=PAD, way="native")


def pointers(model: torch.nn.Module) -> list[int]:
    return [parameter.data_ptr() for parameter in model.parameters()]


def test_the_whole_holds_the_parts_and_shares_their_memory() -> None:
    parts = [torch.nn.Parameter(torch.randn(rows, 3)) for rows in (4, 2, 1)]
    told, same = torch.cat([part.detach() for part in parts]), list(parts)
    whole = joined(parts)
    assert torch.equal(whole, told)
    assert all(part is before and part.requires_grad for part, before in zip(parts, same, strict=True))
    with torch.no_grad():
        parts[1].fill_(7.0)
    assert whole[4:6].unique().tolist() == [7.0]
    assert joined(parts).data_ptr() == whole.data_ptr()


@pytest.mark.parametrize("order", [(1, 0), (0, 0), (0, 2)])
def test_parts_that_lie_otherwise_are_laid_out_anew(order: tuple[int, int]) -> None:
    whole = torch.arange(12.0).view(6, 2)
    parts = [torch.nn.Parameter(whole[2 * i : 2 * i + 2]) for i in order]
    told = torch.cat([part.detach() for part in parts])
    assert torch.equal(joined(parts), told)
    assert [part.tolist() for part in parts] == [told[:2].tolist(), told[2:].tolist()]


def test_only_the_first_rollout_moves_weights() -> None:
    model = tiny("llama")
    before = pointers(model)
    rolled(model)
    laid_out = pointers(model)
    assert laid_out != before
    for parameter in model.parameters():
        parameter.data.add_(0.01)
    rolled(model)
    assert pointers(model) == laid_out


@pytest.mark.parametrize("optimizer_of", [torch.optim.AdamW, torch.optim.SGD])
def test_training_goes_on_as_without_rollouts(optimizer_of: type[torch.optim.Optimizer]) -> None:
    plain, hybrid = tiny("llama"), tiny("llama")
    tokens_BT = torch.tensor(prompts_of([9, 9]))
    optimizers = [optimizer_of(model.parameters(), lr=0.1) for model in (plain, hybrid)]  # type: ignore[call-arg]
    for _ in range(3):
        rolled(hybrid)
        for model, optimizer in zip((plain, hybrid), optimizers, strict=True):
            model(input_ids=tokens_BT, labels=tokens_BT).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    told = dict(plain.named_parameters())
    assert all(torch.equal(parameter, told[name]) for name, parameter in hybrid.named_parameters())


def test_saved_copied_and_loaded_models_are_whole(tmp_path: Path) -> None:
    model = tiny("llama")
    rolled(model)
    told = {name: value.clone() for name, value in model.state_dict().items()}
    model.save_pretrained(tmp_path / "folder")
    torch.save(model.state_dict(), tmp_path / "state.pt")
    again = tiny("llama", seed=1)
    rolled(again)
    again.load_state_dict(torch.load(tmp_path / "state.pt"))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "folder")
    for other in (again, loaded, copy.deepcopy(model)):
        assert all(torch.equal(value, told[name]) for name, value in other.state_dict().items())
        rollout = rolled(other)
        assert torch.allclose(rollout.logps_BT, plain_logps(other, rollout, 1.0), atol=1e-5)
    size = (tmp_path / "folder" / "model.safetensors").stat().st_size
    assert size < 1.2 * sum(value.nbytes for value in told.values()) + 4096


def test_a_copy_is_not_tied_to_its_original() -> None:
    model = tiny("llama")
    rolled(model)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.model.layers[0].self_attn.q_proj.weight.zero_()
    rolled(other)
    assert model.model.layers[0].self_attn.q_proj.weight.count_nonzero() == 16 * 16
