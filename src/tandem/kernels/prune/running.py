"""`tandem kernels prune` from the folder of a dense model to the folder of a sparse one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tandem.kernels.prune import folder, page, text
from tandem.kernels.prune.blocks import blocks_of, left_dense
from tandem.kernels.prune.errors import PruneError
from tandem.kernels.prune.layerwise import prune_model
from tandem.kernels.prune.outcome import Outcome, Plan
from tandem.kernels.prune.perplexity import Perplexity, perplexity
from tandem.kernels.prune.tuning import Tuning, tune
from tandem.report.page import write

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from tandem.kernels.prune.folder import Loaded
    from tandem.kernels.prune.layerwise import Tell


def run(plan: Plan, tell: Tell = lambda what, done, of: None) -> Outcome:
    """Prune a model and write it with its report; nothing is left of a run that fails or is stopped.

    Args:
        plan: What to do.
        tell: Is told of progress.

    Raises:
        PruneError: Something in the plan cannot be read, met or written.
        UnknownPluginError: There is no such method.
        MissingPackageError: transformers is not installed.
    """
    if plan.tuning_steps and plan.calibration is None:
        raise PruneError(
            given="--finetune without a text",
            allowed="training on the calibration text",
            todo="give --calibration FILE",
        )
    with folder.written_aside(plan.out) as aside:
        loaded = folder.read(plan.model, plan.device)
        outcome = _pruned(plan, loaded, tell)
        folder.save(loaded, aside, outcome.note())
        write(page.page(outcome), aside / "report.html")
    return outcome


def _pruned(plan: Plan, loaded: Loaded, tell: Tell) -> Outcome:
    """Measure, prune, measure, train, measure."""
    model, length = loaded.model, _length(plan, loaded)
    ids_N = _text(plan.calibration, loaded, "the calibration text")
    eval_N = _text(plan.evaluation, loaded, "the evaluation text")
    batches_BT = [] if ids_N is None else text.calibration_batches(ids_N, plan.samples, length)

    def measured(what: str) -> Perplexity | None:
        if eval_N is None:
            return None
        return perplexity(model, eval_N, length, lambda done, of: tell(what, done, of))

    blocks = blocks_of(model)
    before = measured("perplexity, dense")
    lost = prune_model(model, plan.method, plan.pattern, batches_BT, by_outliers=plan.by_outliers, tell=tell)
    after = measured("perplexity, pruned")
    losses: list[float] = []
    if plan.tuning_steps and ids_N is not None:
        losses = tune(
            model,
            ids_N,
            Tuning(steps=plan.tuning_steps, learning_rate=plan.learning_rate, length=min(length, Tuning.length)),
            pruned=blocks,
            teacher=folder.read(plan.model, plan.device).model if plan.distil else None,
            tell=lambda step, loss: tell("training", step, plan.tuning_steps),
        )
    return Outcome(
        plan=plan,
        lost=lost,
        left_dense=left_dense(model, blocks),
        tokens_are_bytes=loaded.tokenizer is None,
        calibration_tokens=sum(ids_BT.numel() for ids_BT in batches_BT),
        length=length,
        before=before,
        after=after,
        tuned=measured("perplexity, trained") if losses else None,
        tuning_loss=_ends(losses) if losses else None,
    )


def _length(plan: Plan, loaded: Loaded) -> int:
    if plan.length is None:
        return min(2048, loaded.most_tokens)
    if not 2 <= plan.length <= loaded.most_tokens:
        raise PruneError(
            given=f"--length {plan.length}",
            allowed=f"2 to {loaded.most_tokens} tokens, which is what the model takes",
            todo="leave it out to let the model decide",
        )
    return plan.length


def _text(path: Path | None, loaded: Loaded, purpose: str) -> Tensor | None:
    return None if path is None else text.read(path, loaded.tokenize, loaded.vocabulary, purpose)


def _ends(losses: list[float]) -> tuple[float, float]:
    tenth = max(1, len(losses) // 10)
    return sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
