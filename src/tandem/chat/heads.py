"""Models that say one number: the reward model, and the critic that starts from it.

They are transformers' sequence classifiers with one label: the body of the language model and a head without bias,
`score`, so that a saved one loads in plain transformers. Ours read the score at the last token of the response, EOS
included, whatever is padding; and the value of a token where the one before it was read.

Shapes: B rows, T slots, D width.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

from tandem.chat.forward import hidden_at
from tandem.chat.models import loaded_whole
from tandem.chat.placing import ON_CPU
from tandem.kernels.model_folder import ModelFolderError, quiet
from tandem.learn.masking import at_last
from tandem.learn.sharding import through

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from tandem.chat.data.batches import Batch
    from tandem.chat.placing import Place


def from_language_model(model: Any, *, seed: int | None) -> Any:  # noqa: ANN401 - transformers has no types
    """Return a scorer with a copy of a language model's body.

    Args:
        model: The language model.
        seed: Of the head, drawn with variance 1 / (D + 1) (Huang et al., The N+ Implementation Details of RLHF with
            PPO, 2024, detail 12); None sets it to 0, for a critic that begins without an opinion.

    Raises:
        ModelFolderError: transformers has no sequence classifier with this body.
    """
    import transformers

    config = copy.deepcopy(model.config)
    config.num_labels = 1
    with torch.random.fork_rng(devices=[]), quiet(), model.device:
        try:
            kind: Any = transformers.AutoModelForSequenceClassification
            scorer = kind.from_config(config, dtype=model.dtype)
        except ValueError as error:
            raise ModelFolderError(
                given=f"a model of the kind {config.model_type!r} as a reward model or critic",
                allowed="kinds that transformers has a sequence classifier of, such as llama, qwen2, gpt2 and opt",
                todo="take another model, or an algorithm without a critic and a reward that is a function",
            ) from error
        scorer.base_model.load_state_dict(model.base_model.state_dict())
        with torch.no_grad():
            if seed is None:
                scorer.score.weight.zero_()
            else:
                torch.manual_seed(seed)
                width = scorer.score.weight.shape[1]
                scorer.score.weight.copy_(torch.empty(1, width, device="cpu").normal_(std=(width + 1) ** -0.5))
    return _with_wide_head(scorer.eval())


def read(path: Path, place: Place = ON_CPU) -> Any:  # noqa: ANN401 - transformers has no types
    """Load a saved scorer.

    Args:
        path: Its folder.
        place: Where to.

    Raises:
        ModelFolderError: It is none.
    """
    import transformers

    with quiet():
        return _with_wide_head(loaded_whole(transformers.AutoModelForSequenceClassification, path, place, num_labels=1))


def _with_wide_head(scorer: Any) -> Any:  # noqa: ANN401 - transformers has no types
    """Let scores be at least float32: in bfloat16 one of 3 has steps of 1/64, and pairs tie."""
    scorer.score.to(torch.promote_types(scorer.score.weight.dtype, torch.float32))
    return scorer


def values(scorer: Any, batch: Batch) -> tuple[Tensor, Tensor]:  # noqa: ANN401 - transformers has no types
    """Return the value before each response token, [B, T], 0 elsewhere, and the one after the last, [B]."""
    before_BT, after_B = through(scorer, _values, batch.to(scorer.device))
    return before_BT.to(batch.mask_BT.device), after_B.to(batch.mask_BT.device)


def _values(scorer: Any, batch: Batch) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    at_BT = batch.mask_BT | torch.nn.functional.pad(batch.mask_BT[:, 1:], (0, 1), value=False)
    after_N = scorer.score(hidden_at(scorer, batch, at_BT).to(scorer.score.weight.dtype)).squeeze(-1)
    after_BT = after_N.new_zeros(at_BT.shape).masked_scatter(at_BT, after_N)
    before_BT = torch.nn.functional.pad(after_BT[:, :-1], (1, 0))
    return before_BT.masked_fill(~batch.mask_BT, 0.0), at_last(after_BT, batch.mask_BT)


def scores(scorer: Any, batch: Batch) -> Tensor:  # noqa: ANN401 - transformers has no types
    """Return each response's score, [B]."""
    scores_B: Tensor = through(scorer, _scores, batch.to(scorer.device))
    return scores_B.to(batch.mask_BT.device)


def _scores(scorer: Any, batch: Batch) -> Tensor:  # noqa: ANN401
    last_B1 = last_slots(batch)[:, None]
    at_BT = torch.zeros_like(batch.real_BT).scatter(1, last_B1, value=True)
    last_BD = hidden_at(scorer, batch, at_BT).to(scorer.score.weight.dtype)
    scored: Tensor = scorer.score(last_BD).view(-1)
    return scored


def last_slots(batch: Batch) -> Tensor:
    """Return the slot of each row's last real token, that of its prompt where the response is empty."""
    slots_T = torch.arange(batch.real_BT.shape[1], device=batch.real_BT.device)
    return torch.where(batch.real_BT, slots_T, 0).amax(dim=1)
