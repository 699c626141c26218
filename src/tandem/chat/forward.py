"""Forward passes of training: log-probabilities of responses, values before tokens, scores after them.

Shapes: B rows, T slots, D width, N response tokens, V vocabulary.

The head is computed for response tokens alone: prompts and padding need no logits, and a vocabulary is wide. Padding
may stand on either side; positions are counted from the mask, so that it changes nothing. Of neighbours with one prompt
it is computed once (`tandem.chat.siblings`). A batch goes to where the model is, and what is said of it comes back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tandem.chat import llama_body, siblings
from tandem.learn.logprobs import token_logprobs
from tandem.learn.sharding import through

if TYPE_CHECKING:
    from torch import Tensor

    from tandem.chat.data.batches import Batch


def hidden_at(model: Any, batch: Batch, at_BT: Tensor) -> Tensor:  # noqa: ANN401 - transformers has no types
    """Return what a model's body says at some slots, row by row, [N, D].

    Rows that begin at slot 0 need no attention mask: no token sees what comes after it, and only padding does. Then
    attention takes its fast causal path.
    """
    if batch.positions_BT is not None:
        apart_B1TT = _apart(batch.positions_BT, model.dtype)
        return _said(model, batch.tokens_BT, _places(at_BT), batch.positions_BT, apart_B1TT)
    if bool(batch.real_BT[:, 0].all()):
        return _said(model, batch.tokens_BT, _places(at_BT))
    positions_BT = (batch.real_BT.long().cumsum(dim=1) - 1).clamp(min=0)
    attention_BT = batch.real_BT.long()
    output = model.base_model(
        input_ids=batch.tokens_BT, attention_mask=attention_BT, position_ids=positions_BT, use_cache=False
    )
    return _last(output)[at_BT]


def _said(
    model: Any,  # noqa: ANN401 - transformers has no types
    tokens_RW: Tensor,
    at_N: Tensor,
    positions_RW: Tensor | None = None,
    added_R1WW: Tensor | None = None,
) -> Tensor:
    """What the body says at slots, as row · W + slot, [N, D]; see `tandem.chat.llama_body.hidden`."""
    if not llama_body.why_not(model, tokens_RW.shape[1]):
        return llama_body.hidden(model, tokens_RW, at_N, positions_RW=positions_RW, added_R1WW=added_R1WW)
    given = {} if positions_RW is None else {"attention_mask": added_R1WW, "position_ids": positions_RW}
    return _last(model.base_model(input_ids=tokens_RW, use_cache=False, **given)).flatten(0, 1)[at_N]


def _places(at_BT: Tensor) -> Tensor:
    return at_BT.flatten().nonzero().squeeze(1)


def logprobs(model: Any, batch: Batch, *, temperature: float = 1.0) -> Tensor:  # noqa: ANN401
    """Return log p of each response token at a temperature, [B, T], 0 outside of the mask, where the batch is.

    Args:
        model: A causal language model of transformers.
        batch: Its tokens; no row's response begins at its first real token.
        temperature: Logits are divided by it.
    """
    logps_BT: Tensor = through(model, _logprobs, batch.to(model.device), temperature)
    return logps_BT.to(batch.mask_BT.device)


def _logprobs(model: Any, batch: Batch, temperature: float) -> Tensor:  # noqa: ANN401
    next_BT = batch.mask_BT[:, 1:]
    together = siblings.best_together(model, batch)
    hidden_ND = _hidden_before(model, batch, together)
    logits_NV = model.get_output_embeddings()(hidden_ND)
    tokens_N = batch.tokens_BT[:, 1:][next_BT]
    logps_N = token_logprobs(logits_NV[None], tokens_N[None], temperature=temperature)[0]
    logps_BT = logps_N.new_zeros(batch.mask_BT.shape)
    return logps_BT.masked_scatter(_shifted(next_BT), logps_N)


def _hidden_before(model: Any, batch: Batch, together: int) -> Tensor:  # noqa: ANN401
    """What the body says before each response token, [N, D], with prompts computed once for so many neighbours."""
    if together == 1:
        return hidden_at(model, batch, torch.nn.functional.pad(batch.mask_BT[:, 1:], (0, 1), value=False))
    joined = siblings.join(batch, together)
    return _said(model, joined.tokens_RW, joined.before_N, joined.positions_RW, _added(joined.sees_RWW, model.dtype))


def head_is_plain(model: Any) -> bool:  # noqa: ANN401 - transformers has no types
    """Say whether logits are the head's product of the body's output, without scaling or caps of the model's own."""
    device = model.get_input_embeddings().weight.device
    tokens_BT = torch.arange(4, device=device)[None] % model.get_input_embeddings().weight.shape[0]
    with torch.no_grad():
        whole_BTV = model(input_ids=tokens_BT, use_cache=False).logits
        ours_BTV = model.get_output_embeddings()(_last(model.base_model(input_ids=tokens_BT, use_cache=False)))
    return torch.allclose(whole_BTV, ours_BTV, atol=1e-5, equal_nan=True)


def _apart(positions_BT: Tensor, dtype: torch.dtype) -> Tensor:
    """What attention adds to its scores in packed rows: 0 within a turn backwards, else the least there is.

    Written out, since not every family of transformers finds packed turns from their positions (OPT does not).
    """
    turn_BT = (positions_BT == 0).cumsum(dim=1)
    slots_T = torch.arange(positions_BT.shape[1], device=positions_BT.device)
    sees_BTT = (turn_BT[:, :, None] == turn_BT[:, None, :]) & (slots_T[:, None] >= slots_T)
    return _added(sees_BTT, dtype)


def _added(sees_BTT: Tensor, dtype: torch.dtype) -> Tensor:
    """What attention adds to its scores, [B, 1, T, T]: 0 where it looks, else the least there is."""
    return torch.zeros_like(sees_BTT, dtype=dtype).masked_fill(~sees_BTT, torch.finfo(dtype).min)[:, None]


def _shifted(next_BT: Tensor) -> Tensor:
    """The mask over tokens again: nothing is predicted of the first slot."""
    return torch.nn.functional.pad(next_BT, (1, 0), value=False)


def _last(output: Any) -> Tensor:  # noqa: ANN401 - transformers has no types
    found = output.last_hidden_state
    assert isinstance(found, torch.Tensor)
    return found
