"""What of a run was trained from a model of it: as long as it is there, no other model can take that one's place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tandem.chat import algorithm as algorithms
from tandem.chat.errors import ResumeError

if TYPE_CHECKING:
    from tandem.chat.recipe import Recipe
    from tandem.chat.run_folder import RunFolder


_LATER = {"start": ("sft", "reward", "rl"), "sft": ("reward", "rl"), "reward": ("rl",), "rl": ()}


def trained_from(run: RunFolder, name: str, recipe: Recipe) -> list[str]:
    """Return the models and checkpoints of later stages that start from a model, as paths within the run.

    Reinforcement learning starts from the reward model where that scores its responses.

    Raises:
        UnknownPluginError: There is no such algorithm as the recipe's.
    """
    later = _LATER[name]
    if not later or (name == "reward" and not _learns_from_scores(recipe)):
        return []
    models = [run.model(stage) for stage in (*later, "rl-average") if run.has(stage)]
    checkpoints = [run.checkpoint(stage) for stage in later if run.checkpoint(stage).exists()]
    return [str(path.relative_to(run.path)) for path in models + checkpoints]


def check(run: RunFolder, stage: str, recipe: Recipe) -> None:
    """Check that a stage can be trained: that nothing is there that started from another model of it, or from none.

    Raises:
        ResumeError: Something is.
        StageError: Something is, and no recipe of it.
        UnknownPluginError: There is no such algorithm as the recipe's.
    """
    if found := ", ".join(trained_from(run, stage, recipe)):
        without = getattr(run.recipe(), stage) is None
        raise ResumeError(
            given=f"stage {stage} to train in {run.path}, which holds {found} already"
            + (f", of a recipe without [{stage}]" if without else ""),
            allowed="a stage before those that start from its model",
            todo=f"remove {found} to train all of it anew, or "
            + (f"leave [{stage}] out" if without else f"put back the models/{stage} that was there")
            + ", or give another --out",
        )


def check_start(run: RunFolder, recipe: Recipe) -> None:
    """Check that the model that everything starts from is there, or that nothing is there that started from it.

    Raises:
        ResumeError: It is not, and something is.
        UnknownPluginError: There is no such algorithm as the recipe's.
    """
    if not run.has("start") and (found := ", ".join(trained_from(run, "start", recipe))):
        raise ResumeError(
            given=f"{run.path}, which holds {found}, and models/start is not there any more",
            allowed="a run with the model that all of its stages started from",
            todo=f"put back the models/start that was there, or remove {found} to train all of it anew, "
            "or give another --out",
        )


def _learns_from_scores(recipe: Recipe) -> bool:
    rl = recipe.rl
    return rl is not None and rl.reward == "model" and algorithms.load(rl.algorithm).GROUP != "pair"
