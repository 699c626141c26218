"""Bodies of Llama's shape say what their own forward pass says, and teach what it teaches."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from tandem.chat import forward, heads, llama_body, lora, passes
from tandem.chat.data.batches import padded
from tandem.chat.recipe import Lora
from tests.chat.small import model_of, turns

FAMILIES = ("llama", "mistral", "qwen2")
TOKENS = torch.arange(3 * 11).view(3, 11) % 251
SLOTS = torch.tensor([4, 0, 32, 13, 13, 21])
"""In any order, one of them twice."""


def own_words(model: Any, **given: Tensor) -> Tensor:  # noqa: ANN401 - transformers has no types
    found: Tensor = model.base_model(input_ids=TOKENS, use_cache=False, **given).last_hidden_state.flatten(0, 1)[SLOTS]
    return found


def taught(model: Any, hidden_ND: Tensor) -> dict[str, Tensor]:  # noqa: ANN401 - transformers has no types
    model.zero_grad()
    (hidden_ND * torch.linspace(-1.0, 1.0, hidden_ND.numel()).view_as(hidden_ND)).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(ours: dict[str, Tensor], told: dict[str, Tensor]) -> None:
    assert ours.keys() == told.keys()
    for name in told:
        assert torch.allclose(ours[name], told[name], rtol=1e-4, atol=1e-5 * float(told[name].abs().max())), name


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_says_and_teaches_what_the_model_itself_does(family: str, packed: bool) -> None:
    model = model_of(family, **({"sliding_window": None} if family == "mistral" else {}))
    assert llama_body.why_not(model, TOKENS.shape[1]) == passes.why_not()
    given = {}
    if packed:  # two turns a row, which do not see each other
        positions = torch.cat([torch.arange(6), torch.arange(5)]).expand(3, -1)
        turn = torch.tensor([0] * 6 + [1] * 5)
        sees = (turn[:, None] == turn) & torch.ones(11, 11).tril().bool()
        added = torch.zeros(3, 1, 11, 11).masked_fill(~sees, torch.finfo(torch.float32).min)
        given = {"position_ids": positions, "attention_mask": added}
    told = own_words(model, **given)
    ours = llama_body.hidden(
        model, TOKENS, SLOTS, positions_RW=given.get("position_ids"), added_R1WW=given.get("attention_mask")
    )
    assert torch.allclose(ours, told, atol=2e-5)
    assert_same(taught(model, ours), taught(model, told))


def test_adapters_are_taught_and_nothing_else_is() -> None:
    model = model_of("llama")
    lora.put_in(model, Lora(rank=2), seed=1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(2))
    batch = padded(turns([(3, 4), (5, 1)]), 257)
    assert llama_body.why_not(model, 7) == passes.why_not()
    ours = taught(model, forward.logprobs(model, batch))
    handle = model.register_forward_hook(lambda *_: None)
    assert "hooks" in llama_body.why_not(model, 7)
    assert_same(ours, taught(model, forward.logprobs(model, batch)))
    handle.remove()
    assert {name.split(".")[-3] for name in ours} == {"lora_A", "lora_B"}


def test_no_slots_are_none() -> None:
    assert llama_body.hidden(model_of("llama"), TOKENS, torch.tensor([], dtype=torch.long)).shape[0] == 0


def test_a_critic_and_a_reward_model_have_bodies_too() -> None:
    scorer = heads.from_language_model(model_of("qwen2"), seed=3)
    assert llama_body.why_not(scorer, 7) == passes.why_not()
    batch = padded(turns([(3, 4), (5, 1), (1, 7)]), 257)
    ours = [heads.scores(scorer, batch), *heads.values(scorer, batch)]
    handle = scorer.model.layers[0].register_forward_hook(lambda *_: None)
    told = [heads.scores(scorer, batch), *heads.values(scorer, batch)]
    handle.remove()
    for mine, other in zip(ours, told, strict=True):
        assert torch.allclose(mine, other, atol=2e-5)


def of_gelu() -> Any:  # noqa: ANN401 - transformers has no types
    return model_of("llama", hidden_act="gelu")


def in_bfloat16() -> Any:  # noqa: ANN401 - transformers has no types
    return model_of("llama").bfloat16()


def dropping_out() -> Any:  # noqa: ANN401 - transformers has no types
    return model_of("llama", attention_dropout=0.5).train()


def computing_anew() -> Any:  # noqa: ANN401 - transformers has no types
    model = model_of("llama").train()
    model.activation_checkpointing_enable()
    return model


def of_long_texts() -> Any:  # noqa: ANN401 - transformers has no types
    return model_of("llama", rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0})


def with_windows() -> Any:  # noqa: ANN401 - transformers has no types
    return model_of("mistral", sliding_window=6)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: model_of("gpt2"), "not of Llama's shape"),
        (of_gelu, "activation"),
        (in_bfloat16, "float32"),
        (dropping_out, "drops out"),
        (computing_anew, "computes anew"),
        (of_long_texts, "rotary"),
        (with_windows, "last tokens"),
    ],
)
def test_what_it_cannot_run_is_left_to_the_model_itself(make: Callable[[], Any], why: str) -> None:
    model = make()
    assert why in llama_body.why_not(model, 7)
    batch = padded(turns([(3, 4), (5, 1)]), 257)
    assert bool(forward.logprobs(model, batch).isfinite().all())


def test_it_is_left_to_autocast() -> None:
    model = model_of("llama")
    for how, why in ((nullcontext(), passes.why_not()), (torch.autocast("cpu", torch.bfloat16), "autocast")):
        with how:
            assert why in llama_body.why_not(model, 7)
