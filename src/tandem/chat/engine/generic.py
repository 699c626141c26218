"""Any causal language model of Hugging Face, run by its own forward pass over a static cache.

Works with whatever the model's modules are: adapters that are not merged, sparse layers, layers that gather their
shards when called. Limits: every layer attends to all tokens before (no sliding window shorter than what is generated,
no recurrent layers), by eager or SDPA attention.

Shapes: B prompts or rows, P prompt tokens, N rows in use, V vocabulary; of the cache see `cache`.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from tandem.chat.engine.adapters import inner_model
from tandem.chat.engine.cache import KeyValues, masked_scores
from tandem.chat.engine.errors import GenerationError

if TYPE_CHECKING:
    from tandem.chat.engine.decoder import Step

ATTENTION = ("eager", "sdpa")


@final
class GenericDecoder:
    """Runs a model's own forward pass.

    Args:
        model: A causal language model in evaluation mode.
        capacity: The most tokens a row will have.

    Raises:
        GenerationError: Its layers do not all attend to all tokens, or by an attention that takes no mask of ours.
    """

    def __init__(self, model: nn.Module, capacity: int) -> None:
        self._model: Any = model
        config = model.config
        attention = getattr(config, "_attn_implementation", "sdpa")
        if attention not in ATTENTION:
            raise GenerationError(
                given=f"a model with {attention!r} attention",
                allowed=" or ".join(ATTENTION),
                todo="model.set_attn_implementation('sdpa')",
            )
        check_full_attention(config, capacity)
        parameters = inspect.signature(inner_model(model).forward).parameters
        self._cache_name = "cache" if "cache" in parameters else "past_key_values"
        self._last = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
        self._dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())

    def prefill(self, tokens_BP: Tensor) -> Tensor:
        """Return keys and values of right-padded prompts, [L, 2, B, H, P, D]; padding's are whatever they are."""
        recording = _Recording()
        positions_BP = torch.arange(tokens_BP.shape[1], device=tokens_BP.device).expand_as(tokens_BP)
        self._forward(tokens_BP, positions_BP, None, recording)
        return torch.stack([torch.stack(pair) for pair in recording.pairs])

    def step(self, step: Step, cache: KeyValues) -> Tensor:
        """Append a token to each row; return the logits of the next, [N, V]."""
        mask_N11S = masked_scores(step.positions_N, step.seen, self._dtype)
        slots = _Slots(cache, step)
        logits_N1V = self._forward(step.tokens_N[:, None], step.positions_N[:, None], mask_N11S, slots)
        return logits_N1V[:, -1]

    def _forward(self, tokens_BT: Tensor, positions_BT: Tensor, mask: Tensor | None, cache: Cache) -> Tensor:
        given = {self._cache_name: cache, **self._last}
        out = self._model(
            input_ids=tokens_BT,
            position_ids=positions_BT,
            attention_mask=mask,
            use_cache=True,
            return_dict=True,
            **given,
        )
        logits: Tensor = out.logits
        return logits


def check_full_attention(config: Any, capacity: int) -> None:  # noqa: ANN401  # any of Hugging Face's configurations
    """Refuse a model some of whose layers do not attend to all of `capacity` tokens.

    Raises:
        GenerationError: As told.
    """
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if kinds or (window is not None and window < capacity):
        what = ", ".join(sorted(kinds)) if kinds else f"attention over a window of {window} tokens"
        raise GenerationError(
            given=f"a model with {what}, and rows of up to {capacity} tokens",
            allowed="layers that attend to all tokens before",
            todo="shorten prompts and responses to the window, or take another model",
        )


@final
class _Recording(Cache):
    """Takes down what each layer would cache; nothing came before."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        assert layer_idx == len(self.pairs), "layers run in order, each once"
        self.pairs.append((key_states, value_states))
        return key_states, value_states


@final
class _Slots(Cache):
    """The static cache as Hugging Face's layers see it, for one token a row."""

    def __init__(self, cache: KeyValues, step: Step) -> None:
        super().__init__(layers=[])
        self._cache, self._seen, self._rows = cache, step.seen, len(step.tokens_N)
        slots_N = torch.arange(self._rows, device=step.positions_N.device)
        self._places = cache.places(slots_N, step.positions_N)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        new_N2HD = torch.stack((key_states[:, :, 0], value_states[:, :, 0]), dim=1)
        self._cache.flat_layer(layer_idx).index_copy_(0, self._places, new_N2HD.flatten(0, 2))
        keys, values = self._cache.kv_L2NHSD[layer_idx, :, : self._rows, :, : self._seen]
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._seen - 1

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self._seen, 0
