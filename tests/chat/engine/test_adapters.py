"""LoRA merged for decoding: the same numbers as unmerged, and base weights that stay what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tandem.chat.engine.choosing import decoder_for
from tandem.chat.engine.generate import Rollout, Sampling, generate
from tandem.chat.engine.generic import GenericDecoder
from tandem.chat.engine.native_llama import NativeLlamaDecoder
from tests.chat.engine.families import EOS, PAD, plain_logps, prompts_of, tiny

if TYPE_CHECKING:
    from peft import PeftModel

    from tandem.chat.engine.choosing import Way


# PEFT itself asks transformers for what the latter is about to rename.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def adapted(family: str, **changed: object) -> PeftModel:
    """A model whose adapters are far from nothing."""
    given: dict[str, Any] = {"r": 2, "lora_alpha": 4, "lora_dropout": 0.5, "task_type": "CAUSAL_LM"} | changed
    torch.manual_seed(0)
    model = get_peft_model(tiny(family), LoraConfig(**given))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    return model.train()


def rolled(model: torch.nn.Module, way: Way = "auto") -> Rollout:
    sampling, generator = Sampling(max_new_tokens=6, eos_id=EOS), torch.Generator().manual_seed(0)
    return generate(model, prompts_of([4, 2]), sampling, group=2, generator=generator, pad_id=PAD, way=way)


@pytest.mark.parametrize(
    ("family", "way", "targets"),
    [
        ("gpt2", "generic", ["c_attn"]),
        ("llama", "generic", ["q_proj", "v_proj"]),
        ("llama", "llama", ["q_proj", "v_proj"]),
        ("llama", "native", ["q_proj", "v_proj"]),
        ("qwen2", "native", "all-linear"),
    ],
)
def test_log_probabilities_are_those_of_the_model_with_its_adapter(family: str, way: Way, targets: object) -> None:
    model = adapted(family, target_modules=targets, fan_in_fan_out=family == "gpt2")
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    rollout = rolled(model, way)
    assert torch.allclose(rollout.logps_BT, plain_logps(model, rollout, 1.0), atol=1e-4)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    with model.disable_adapter():
        assert (plain_logps(model, rollout, 1.0) - rollout.logps_BT).abs().max() > 0.01
        base = rolled(model, way)
        assert torch.allclose(base.logps_BT, plain_logps(model, base, 1.0), atol=1e-4)


def test_an_adapter_s_update_is_seen() -> None:
    model = adapted("llama", target_modules=["q_proj", "down_proj"])
    assert isinstance(decoder_for(model, 8), NativeLlamaDecoder)
    rolled(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_A" in name:
                parameter.add_(0.5)
    rollout = rolled(model)
    assert torch.allclose(rollout.logps_BT, plain_logps(model, rollout, 1.0), atol=1e-4)


def test_dora_runs_unmerged() -> None:
    model = adapted("llama", target_modules=["q_proj", "o_proj"], use_dora=True)
    assert not isinstance(decoder_for(model, 8), GenericDecoder | NativeLlamaDecoder)
    rollout = rolled(model)
    assert torch.allclose(rollout.logps_BT, plain_logps(model, rollout, 1.0), atol=1e-4)
