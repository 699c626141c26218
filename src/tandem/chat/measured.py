"""With what figures were made, as it is kept beside them: they may be older than the models and the recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tandem.chat.recipe import Eval, evaluation_reward

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tandem.chat.recipe import Recipe
    from tandem.chat.run_folder import RunFolder

_MODELS = {"start": "first model", "sft": "SFT model", "reward": "reward model", "rl": "RL model"}


def basis(run: RunFolder, recipe: Recipe, names: Iterable[str]) -> dict[str, Any]:
    """Return what figures hang on: the settings of the evaluation, and of which training each model is.

    Args:
        run: Whose models.
        recipe: Whose evaluation.
        names: Which models.
    """
    how, rl = recipe.eval or Eval(), recipe.rl
    return {
        "rows": how.rows,
        "temperature": how.temperature,
        "reward": evaluation_reward(recipe),
        "response_tokens": how.response_tokens or (rl and rl.response_tokens),
        "models": run.trainings(names),
    }


def differs(run: RunFolder) -> str:
    """Say how the run's figures were made otherwise than its recipe and its models are now; empty where they were not.

    Raises:
        StageError: They are damaged.
    """
    measured = run.read_json("eval.json")
    if not measured:
        return ""
    to_do = f"To measure as things are: tandem chat eval {run.path}"
    before = measured.get("basis")
    if before is None:
        return f"Figures of an evaluation that did not tell with what it was made. {to_do}"
    now = basis(run, run.recipe(), before["models"])
    models, trainings = before.pop("models"), now.pop("models")
    told = [f"{key} {value}, not {now[key]}" for key, value in before.items() if value != now[key]]
    told += [
        f"the {_MODELS[name]} is gone or was trained anew since" for name in models if models[name] != trainings[name]
    ]
    return f"Figures of another evaluation ({'; '.join(told)}). {to_do}" if told else ""
