"""`tandem kernels prune` from the folder of a dense model to the folder of a sparse one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tandem.kernels.prune import folder, page, text
from tandem.kernels.prune.blocks import blocks_of, left_dense
from tandem.kernels.prune.errors import PruneError
from tandem.kernels.prune.layerwise import Lost, prune_model
from tandem.kernels.prune.pattern import Pattern
from tandem.kernels.prune.perplexity import Perplexity, perplexity
from tandem.kernels.prune.tuning import Tuning, tune
from tandem.report.page import write

if TYPE_CHECKING:
    from torch import Tensor

    from tandem.kernels.prune.folder import Loaded
    from tandem.kernels.prune.layerwise import Tell


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done.

    Attributes:
        model: Folder of the dense model.
        out: Folder to write; must not be there.
        method: A file of `methods/`.
        pattern: How many zeros, and where.
        by_outliers: Whether OWL gives each block its share.
        calibration: A text; a method that looks at weights alone can do without.
        evaluation: A text for the perplexity before and after; None measures none.
        samples: Windows of the calibration text.
        length: Tokens of a window; None takes what the model takes, 2048 at most.
        tuning_steps: Steps of training under the mask on the calibration text, 0 for none.
        learning_rate: Of that training.
        distil: Whether the dense model teaches in it.
    """

    model: Path
    out: Path
    method: str
    pattern: Pattern
    by_outliers: bool = False
    calibration: Path | None = None
    evaluation: Path | None = None
    samples: int = 128
    length: int | None = None
    tuning_steps: int = 0
    learning_rate: float = 1e-4
    distil: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of it.

    Attributes:
        plan: What was to be done.
        lost: A line for each layer.
        left_dense: Weights that stayed dense, by module.
        tokens_are_bytes: Whether the model came without a tokenizer.
        calibration_tokens: Tokens that the layers' inputs were taken from.
        length: Tokens of a window.
        before: Perplexity of the dense model.
        after: Perplexity of the pruned one, before it was trained.
        tuned: Perplexity after training.
        tuning_loss: Mean loss over the first and the last tenth of the training.
    """

    plan: Plan
    lost: list[Lost]
    left_dense: dict[str, int]
    tokens_are_bytes: bool
    calibration_tokens: int
    length: int
    before: Perplexity | None = None
    after: Perplexity | None = None
    tuned: Perplexity | None = None
    tuning_loss: tuple[float, float] | None = field(default=None)


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
        loaded = folder.read(plan.model)
        outcome = _pruned(plan, loaded, tell)
        folder.save(loaded, aside, note(outcome))
        write(page.page(outcome), aside / "report.html")
    return outcome


def note(outcome: Outcome) -> dict[str, object]:
    """What `config.json` says about it."""
    plan = outcome.plan
    return {
        "method": plan.method,
        "pattern": f"{plan.pattern.kept}:{plan.pattern.of}" if plan.pattern.of else "unstructured",
        "owl": plan.by_outliers,
        "sparsity": round(zeros(outcome.lost), 6),
        "finetuned_steps": plan.tuning_steps,
        "dense": sorted(outcome.left_dense),
    }


def zeros(lost: list[Lost]) -> float:
    """Share of zeros over all pruned layers."""
    return sum(one.zeros * one.rows * one.columns for one in lost) / sum(one.rows * one.columns for one in lost)


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
            teacher=folder.read(plan.model).model if plan.distil else None,
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
