"""What of a run was trained from a stage's model: as long as it is there, no other model can take that one's place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tandem.chat import algorithm as algorithms
from tandem.chat.errors import ResumeError

if TYPE_CHECKING:
    from tandem.chat.recipe import Recipe
    from tandem.chat.run_folder import RunFolder


def trained_from(run: RunFolder, stage: str, recipe: Recipe) -> list[str]:
    """Return the models and checkpoints of later stages that start from a stage's model, as paths within the run.

    Reinforcement learning starts from the reward model where that scores its responses.

    Raises:
        UnknownPluginError: There is no such algorithm as the recipe's.
    """
    if stage == "rl" or (stage == "reward" and not _learns_from_scores(recipe)):
        return []
    later = ("reward", "rl") if stage == "sft" else ("rl",)
    models = [run.model(name) for name in (*later, "rl-average") if run.has(name)]
    checkpoints = [run.checkpoint(name) for name in later if run.checkpoint(name).exists()]
    return [str(path.relative_to(run.path)) for path in models + checkpoints]


def check(run: RunFolder, stage: str, recipe: Recipe) -> None:
    """Check that a stage can be trained: that nothing is there that started from another model of it, or from none.

    Raises:
        ResumeError: Something is.
        UnknownPluginError: There is no such algorithm as the recipe's.
    """
    if found := ", ".join(trained_from(run, stage, recipe)):
        raise ResumeError(
            given=f"stage {stage} to train in {run.path}, which holds {found} already",
            allowed="a stage before those that start from its model",
            todo=f"remove {found} to train all of it anew, or put back the models/{stage} that was there, "
            "or give another --out",
        )


def _learns_from_scores(recipe: Recipe) -> bool:
    rl = recipe.rl
    return rl is not None and rl.reward == "model" and algorithms.load(rl.algorithm).GROUP != "pair"
