"""Models of Llama's shape (Llama, Qwen2, Mistral), run without their modules: few, large operations on their weights.

Query, key and value projections are one product, as are gate and up; rotations come from a table; one write puts keys
and values into the static cache; rows that share a head of keys are one small matrix to attention. Layers that are no
plain `Linear`, such as sparse ones, are called as they are. Numbers are those of the model's own forward pass, but for
rounding.

Shapes: B prompts, P prompt tokens, N rows in use, V vocabulary, E width, Q heads of queries, H of keys, G = Q / H,
D numbers a head, S tokens of room; of the cache see `cache`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention, silu

from tandem.chat.engine.adapters import bias_of, inner_model, merged_weight
from tandem.chat.engine.cache import KeyValues, masked_scores
from tandem.chat.engine.fused import joined
from tandem.chat.engine.generic import check_full_attention

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tandem.chat.engine.decoder import Step

SHAPED_LIKE_LLAMA = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM")
STATIC_ROTATIONS = ("default", "linear", "llama3", "yarn")
"""Kinds of rotary embedding whose angles depend on the position alone."""


def why_not(model: nn.Module) -> str:
    """Return why a model cannot be run this way; empty where it can."""
    inner: Any = inner_model(model)
    if type(inner).__name__ not in SHAPED_LIKE_LLAMA:
        return f"{type(inner).__name__} is not of Llama's shape"
    if why := unlike(inner.config):
        return why
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        return "its modules have hooks, which would not be called"
    if len({(type(p.data), p.device) for p in model.parameters()}) > 1 or any(
        hasattr(p, "ds_id") or type(p.data) is not Tensor for p in model.parameters()
    ):
        return "its parameters are in shards or on several devices"
    return ""


def unlike(config: Any) -> str:  # noqa: ANN401  # transformers has no types
    """Return what of a configuration keeps a model of Llama's shape from being run as one; empty where nothing does."""
    if config.hidden_act != "silu":
        return f"its activation is {config.hidden_act}"
    rotation = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    return "" if rotation in STATIC_ROTATIONS else f"its rotary embedding is {rotation}"


@dataclass(frozen=True, slots=True)
class Dense:
    """A product with a matrix: x weight^T + bias."""

    weight_MK: Tensor
    bias_M: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """Return [..., M] for [..., K]."""
        return linear(x, self.weight_MK, self.bias_M)


Product = Dense | Callable[[Tensor], Tensor]
"""What layers make of the same x, side by side: of plain ones a matrix, of others whatever they do."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: norms and products of its weights."""

    norm_E: Tensor
    qkv: Product
    out: Product
    mlp_norm_E: Tensor
    gate_up: Product
    down: Product


@final
class LlamaDecoder:
    """Runs a model of Llama's shape.

    Args:
        model: A model of which `why_not` says nothing.
        capacity: S, the most tokens a row will have.

    Attributes:
        size, queries, keys: D, Q and H.
        scale, eps: What scores are multiplied by; what is added to a norm's mean of squares.
        embedding_VE, norm_E, head, layers: Weights.
        cos_SD, sin_SF: Tables of rotations, F = D / 2.

    Raises:
        GenerationError: Its layers do not all attend to all tokens.
    """

    def __init__(self, model: nn.Module, capacity: int) -> None:
        whole: Any = inner_model(model)
        config, core = whole.config, whole.model
        check_full_attention(config, capacity)
        attention = core.layers[0].self_attn
        self.size = attention.head_dim
        self.queries = config.num_attention_heads
        self.keys = config.num_key_value_heads
        self.scale, self.eps = attention.scaling, config.rms_norm_eps
        self.embedding_VE = core.embed_tokens.weight.detach()
        self.norm_E = core.norm.weight.detach()
        self.head = _product([whole.lm_head])
        self.layers = [_layer(layer) for layer in core.layers]
        positions_1S = torch.arange(capacity, device=self.embedding_VE.device)[None]
        cos_1SD, sin_1SD = core.rotary_emb(self.embedding_VE, positions_1S)
        self.cos_SD, self.sin_SF = cos_1SD[0], sin_1SD[0, :, : self.size // 2].contiguous()

    def prefill(self, tokens_BP: Tensor) -> Tensor:
        """Return keys and values of right-padded prompts, [L, 2, B, H, P, D]; padding's are whatever they are."""
        prompts, tokens = tokens_BP.shape
        x_ME = self.embedding_VE[tokens_BP.reshape(-1)]
        cos_P1D, sin_P1F = self.cos_SD[:tokens, None], self.sin_SF[:tokens, None]
        cached: list[Tensor] = []
        for layer in self.layers:
            qkv_MC = layer.qkv(rms_norm(x_ME, layer.norm_E.shape, layer.norm_E, self.eps))
            heads_BPRD = qkv_MC.view(prompts, tokens, -1, self.size)
            turned_BPRD = _rotated(heads_BPRD[:, :, : self.queries + self.keys], cos_P1D, sin_P1F)
            q_BQPD, k_BHPD = torch.split(turned_BPRD.transpose(1, 2), [self.queries, self.keys], dim=1)
            v_BHPD = heads_BPRD[:, :, self.queries + self.keys :].transpose(1, 2)
            cached.append(torch.stack((k_BHPD, v_BHPD)))
            if len(cached) == len(self.layers):  # what comes after the last keys and values, nobody reads
                break
            shared = self.queries != self.keys
            seen_BQPD = scaled_dot_product_attention(
                q_BQPD, k_BHPD, v_BHPD, is_causal=True, scale=self.scale, enable_gqa=shared
            )
            x_ME = x_ME + layer.out(seen_BQPD.transpose(1, 2).reshape(prompts * tokens, -1))
            x_ME = self._through_mlp(layer, x_ME)
        return torch.stack(cached)

    def step(self, step: Step, cache: KeyValues) -> Tensor:
        """Append a token to each row; return the logits of the next, [N, V]."""
        rows, seen = len(step.tokens_N), step.seen
        x_NE = self.embedding_VE[step.tokens_N]
        cos_N1D, sin_N1F = self.cos_SD[step.positions_N, None], self.sin_SF[step.positions_N, None]
        places = cache.places(torch.arange(rows, device=x_NE.device), step.positions_N)
        mask = None if step.even else masked_scores(step.positions_N, seen, x_NE.dtype)
        for index, layer in enumerate(self.layers):
            qkv_NC = layer.qkv(rms_norm(x_NE, layer.norm_E.shape, layer.norm_E, self.eps))
            heads_NRD = qkv_NC.view(rows, -1, self.size)
            turned_NRD = _rotated(heads_NRD[:, : self.queries + self.keys], cos_N1D, sin_N1F)
            q_NHGD = turned_NRD[:, : self.queries].reshape(rows, self.keys, -1, self.size)
            new_NRD = torch.cat((turned_NRD[:, self.queries :], heads_NRD[:, self.queries + self.keys :]), dim=1)
            cache.flat_layer(index).index_copy_(0, places, new_NRD.view(-1, self.size))
            k_NHSD, v_NHSD = cache.kv_L2NHSD[index, :, :rows, :, :seen]
            seen_NHGD = scaled_dot_product_attention(q_NHGD, k_NHSD, v_NHSD, attn_mask=mask, scale=self.scale)
            x_NE = x_NE + layer.out(seen_NHGD.reshape(rows, -1))
            x_NE = self._through_mlp(layer, x_NE)
        return self.head(rms_norm(x_NE, self.norm_E.shape, self.norm_E, self.eps))

    def _through_mlp(self, layer: Layer, x_ME: Tensor) -> Tensor:
        gate_up = layer.gate_up(rms_norm(x_ME, layer.mlp_norm_E.shape, layer.mlp_norm_E, self.eps))
        gate, up = gate_up.chunk(2, dim=-1)
        return x_ME + layer.down(silu(gate).mul_(up))


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return heads turned by their positions' angles, a new tensor.

    Args:
        x: [..., heads, D].
        cos: [..., 1, D].
        sin: [..., 1, D / 2].

    Source: Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021, equation 34; halves, not
    neighbours, are pairs, as in GPT-NeoX.
    """
    half = x.shape[-1] // 2
    turned = x * cos
    turned[..., :half].addcmul_(x[..., half:], sin, value=-1)
    turned[..., half:].addcmul_(x[..., :half], sin)
    return turned


def _layer(layer: Any) -> Layer:  # noqa: ANN401  # a layer of any of these models
    attention, mlp = layer.self_attn, layer.mlp
    return Layer(
        norm_E=layer.input_layernorm.weight.detach(),
        qkv=_product([attention.q_proj, attention.k_proj, attention.v_proj]),
        out=_product([attention.o_proj]),
        mlp_norm_E=layer.post_attention_layernorm.weight.detach(),
        gate_up=_product([mlp.gate_proj, mlp.up_proj]),
        down=_product([mlp.down_proj]),
    )


def _product(layers: Sequence[nn.Module]) -> Product:
    weights = [weight for layer in layers if (weight := merged_weight(layer)) is not None]
    biases = [bias for layer in layers if (bias := bias_of(layer)) is not None]
    if len(weights) < len(layers) or len(biases) not in (0, len(layers)):
        return lambda x: layers[0](x) if len(layers) == 1 else torch.cat([layer(x) for layer in layers], dim=-1)
    return Dense(_whole(weights), _whole(biases) if biases else None)


def _whole(parts: Sequence[Tensor]) -> Tensor:
    """Return parameters as one, in place; what merging made has no place of its own to keep."""
    if all(isinstance(part, nn.Parameter) for part in parts):
        return joined(parts)
    return torch.cat([part.detach() for part in parts])
