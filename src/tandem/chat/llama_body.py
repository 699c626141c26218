"""Bodies of Llama's shape (Llama, Qwen2, Mistral) for training in float32 on a processor: their own layers, with fewer
passes over memory, and of the last layer no more than is asked for.

Products are the model's own modules, adapters and all; what lies between them is `tandem.chat.passes`. What comes
after the last layer's attention is computed for those slots alone whose output anybody reads: of supervised rows and
pairs the responses, of a reward model one slot a row. Numbers are those of the model's own forward pass, but for
rounding.

Shapes: R rows, W slots, N slots that are asked for, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from tandem.chat import passes
from tandem.chat.engine.adapters import inner_model
from tandem.chat.engine.llama import unlike

if TYPE_CHECKING:
    from collections.abc import Iterator

SHAPED_LIKE_LLAMA = ("Llama", "Mistral", "Qwen2")
HEADS = ("ForCausalLM", "ForSequenceClassification")


def why_not(model: nn.Module, slots: int) -> str:
    """Return why a model's body cannot be run this way over rows of so many slots; empty where it can."""
    inner: Any = inner_model(model)
    config = inner.config
    if type(inner).__name__ not in {family + head for family in SHAPED_LIKE_LLAMA for head in HEADS}:
        return f"{type(inner).__name__} is not of Llama's shape"
    if why := unlike(config):
        return why
    if any(window is not None and window < slots for window in _windows(config)):
        return "some of its layers attend to the last tokens alone"
    if getattr(config, "_attn_implementation", "sdpa") not in ("eager", "sdpa"):
        return "its attention is neither eager nor SDPA"
    if model.training and (
        config.attention_dropout or any(getattr(layer, "gradient_checkpointing", False) for layer in inner.model.layers)
    ):
        return "it drops out or computes anew"
    if torch.is_autocast_enabled("cpu"):
        return "autocast chooses its types"
    if any(
        module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module) for module in model.modules()
    ):
        return "its modules have hooks, which would not be called"
    if any(
        hasattr(p, "ds_id") or type(p.data) is not Tensor or p.dtype != torch.float32 or p.device.type != "cpu"
        for p in inner.model.parameters()
    ):
        return "its parameters are in shards, or not all float32 on the CPU"
    return passes.why_not()


def hidden(
    model: nn.Module,
    tokens_RW: Tensor,
    at_N: Tensor,
    *,
    positions_RW: Tensor | None = None,
    added_R1WW: Tensor | None = None,
) -> Tensor:
    """Return what a model's body says at some slots, [N, D].

    Args:
        model: A model of which `why_not` says nothing.
        tokens_RW: What it reads.
        at_N: Slots, as row · W + slot; any of them, in any order, as often as wanted.
        positions_RW: Of each slot; None for 0 to W - 1.
        added_R1WW: What attention adds to its scores; None where a slot sees all that come before it in its row.
    """
    inner: Any = inner_model(model)
    core = inner.model
    rows, slots = tokens_RW.shape
    positions_TW = torch.arange(slots)[None] if positions_RW is None else positions_RW
    x_RWD = core.embed_tokens(tokens_RW)
    cos_TWD, sin_TWD = core.rotary_emb(x_RWD, positions_TW)
    cos_TD, sin_TD = cos_TWD.flatten(0, 1), sin_TWD.flatten(0, 1)
    added: Tensor | None = None  # to x by the layer before
    last = len(core.layers) - 1
    for index, layer in enumerate(core.layers):
        attention = layer.self_attn
        x_RWD, normed_RWD = passes.rms_norm(x_RWD, *_norm(layer.input_layernorm), added)
        heads = (rows, slots, -1, attention.head_dim)
        q_RWHD = passes.rotated(attention.q_proj(normed_RWD).view(heads), cos_TD, sin_TD)
        k_RWHD = passes.rotated(attention.k_proj(normed_RWD).view(heads), cos_TD, sin_TD)
        v_RWHD = attention.v_proj(normed_RWD).view(heads)
        seen_RHWD = scaled_dot_product_attention(
            q_RWHD.transpose(1, 2),
            k_RWHD.transpose(1, 2),
            v_RWHD.transpose(1, 2),
            attn_mask=added_R1WW,
            is_causal=added_R1WW is None,
            scale=attention.scaling,
            enable_gqa=attention.num_key_value_groups > 1,
        )
        seen_RWD = seen_RHWD.transpose(1, 2).reshape(rows, slots, -1)
        if index == last:
            x_RWD, seen_RWD = x_RWD.flatten(0, 1).index_select(0, at_N), seen_RWD.flatten(0, 1).index_select(0, at_N)
        x_RWD, normed_RWD = passes.rms_norm(x_RWD, *_norm(layer.post_attention_layernorm), attention.o_proj(seen_RWD))
        mlp = layer.mlp
        added = mlp.down_proj(passes.gated(mlp.gate_proj(normed_RWD), mlp.up_proj(normed_RWD)))
    return passes.rms_norm(x_RWD, *_norm(core.norm), added)[1]


def _norm(module: Any) -> tuple[Tensor, float]:  # noqa: ANN401  # a norm of any of these models
    return module.weight, module.variance_epsilon


def _windows(config: Any) -> Iterator[int | None]:  # noqa: ANN401  # transformers has no types
    """The windows of layers that attend to the last tokens alone."""
    kinds = getattr(config, "layer_types", None) or ()
    if "sliding_attention" in kinds or (not kinds and getattr(config, "use_sliding_window", True)):
        yield getattr(config, "sliding_window", None)
