"""What pruning is asked for, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tandem.kernels.prune.layerwise import Lost
from tandem.kernels.prune.pattern import Pattern
from tandem.kernels.prune.perplexity import Perplexity


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
        device: Where it is computed, as torch names it: `cpu`, `cuda`, `cuda:1`.
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
    device: str = "cpu"


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
    tuning_loss: tuple[float, float] | None = None

    @property
    def weights(self) -> int:
        """How many weights were up for pruning."""
        return sum(one.rows * one.columns for one in self.lost)

    @property
    def zeros(self) -> float:
        """Share of them that are zero."""
        return sum(one.zeros * one.rows * one.columns for one in self.lost) / self.weights

    @property
    def bits(self) -> float:
        """Mean bits a weight, packed as bf16."""
        return sum(one.bits * one.rows * one.columns for one in self.lost) / self.weights

    def note(self) -> dict[str, object]:
        """What `config.json` says about it."""
        plan = self.plan
        return {
            "method": plan.method,
            "pattern": f"{plan.pattern.kept}:{plan.pattern.of}" if plan.pattern.of else "unstructured",
            "owl": plan.by_outliers,
            "sparsity": round(self.zeros, 6),
            "finetuned_steps": plan.tuning_steps,
            "dense": sorted(self.left_dense),
        }
