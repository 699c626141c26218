"""What cannot be generated is told in one line."""

import math
from typing import Any

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM, PreTrainedModel

from tandem.chat.engine.errors import GenerationError
from tandem.chat.engine.generate import Sampling, generate
from tests.chat.engine.families import CONTEXT, EOS, PAD, tiny


def run(model: PreTrainedModel, prompts: list[list[int]], **changed: object) -> None:
    given: dict[str, Any] = {"generator": torch.Generator(), "pad_id": PAD} | changed
    sampling = given.pop("sampling", Sampling(max_new_tokens=4, eos_id=EOS))
    generate(model, prompts, sampling, **given)


@pytest.mark.parametrize(
    ("prompts", "changed", "told"),
    [
        ([[1], []], {}, "prompt 1, which is empty"),
        ([[1] * (CONTEXT - 3)], {}, f"allowed: {CONTEXT} tokens in all"),
        ([[1, 13]], {}, "0 to 12, the model's vocabulary"),
        ([[-100, 1]], {}, "tokens from -100 to 1"),
        ([[1]], {"pad_id": EOS}, "add a padding token to the tokenizer"),
        ([[1]], {"pad_id": -100}, "pad_id -100"),
        ([[1]], {"sampling": Sampling(max_new_tokens=4, eos_id=13)}, "eos_id 13"),
        ([[1]], {"group": 0}, "group 0"),
        ([[1]], {"slots": 0}, "slots 0"),
    ],
)
def test_prompts_and_settings(prompts: list[list[int]], changed: dict[str, Any], told: str) -> None:
    with pytest.raises(GenerationError) as raised:
        run(tiny("llama"), prompts, **changed)
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens of at least 1"),
        ({"temperature": -1.0}, "a finite temperature of at least 0"),
        ({"temperature": math.nan}, "a finite temperature of at least 0"),
        ({"temperature": math.inf}, "a finite temperature of at least 0"),
        ({"top_k": -1}, "top_k of at least 0"),
        ({"top_p": 0.0}, "top_p above 0 and at most 1"),
        ({"top_p": 1.1}, "top_p above 0 and at most 1"),
        ({"eos_id": -1}, "an eos_id of at least 0"),
    ],
)
def test_sampling(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(GenerationError) as raised:
        Sampling(**{"max_new_tokens": 4, "eos_id": EOS, **changed})
    assert told in str(raised.value)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("way", ["generic", "llama", "native"])
def test_logits_that_are_not_finite_name_the_row(bad: float, temperature: float, way: str) -> None:
    model = tiny("llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[5] = bad  # the token that ends the second prompt
    sampling = Sampling(max_new_tokens=4, temperature=temperature, eos_id=EOS)
    with pytest.raises(GenerationError, match="logits of row 2 that are NaN or infinite, at token 0"):
        run(model, [[1, 2], [1, 5]], group=2, sampling=sampling, way=way)
    assert model.training


def test_a_window_shorter_than_a_row() -> None:
    config = MistralConfig(
        vocab_size=13,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        sliding_window=8,
    )
    model = MistralForCausalLM(config)
    run(model, [[1, 2, 4, 5]])
    for way in ("auto", "generic"):
        with pytest.raises(GenerationError, match="a window of 8 tokens, and rows of up to 9 tokens"):
            run(model, [[1, 2, 4, 5, 6]], way=way)


def test_a_way_that_does_not_fit() -> None:
    with pytest.raises(GenerationError, match="GPT2LMHeadModel is not of Llama's shape"):
        run(tiny("gpt2"), [[1]], way="llama")
    with pytest.raises(GenerationError, match=r"not all float32 on the CPU.*take way 'llama'"):
        run(tiny("llama", torch.bfloat16), [[1]], way="native")
    hooked = tiny("llama")
    hooked.lm_head.register_forward_hook(lambda *_: None)
    with pytest.raises(GenerationError, match="hooks"):
        run(hooked, [[1]], way="llama")
