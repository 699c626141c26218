"""Figures on held-out rows, and with what they were made: they may be older than the models and the recipe."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, TypeAdapter, ValidationError

from tandem.chat.interval import Interval
from tandem.chat.recipe import Eval, evaluation_reward
from tandem.chat.run_folder import damaged

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tandem.chat.recipe import Recipe
    from tandem.chat.run_folder import RunFolder

_MODELS = {
    "start": "first model",
    "sft": "SFT model",
    "reward": "reward model",
    "rl": "RL model",
    "rl-average": "average of the RL model",
}


@dataclass(frozen=True, kw_only=True)
class Basis:
    """With what figures were made: the settings of the evaluation, and of which training each model is."""

    rows: int
    temperature: float
    reward: str
    response_tokens: int | None
    models: dict[str, int]


def _made(interval: Interval) -> Interval:
    if not all(map(math.isfinite, (interval.mean, interval.low, interval.high))) or interval.rows < 1:
        message = "finite numbers over at least one row are wanted"
        raise ValueError(message)
    return interval


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What eval.json holds.

    Attributes:
        figures: By model and name.
        samples: Prompts with the models' responses.
        basis: With what both were made; older versions did not tell.
    """

    figures: dict[str, dict[str, Annotated[Interval, AfterValidator(_made)]]]
    samples: list[dict[str, str]] = field(default_factory=list)
    basis: Basis | None = None


def read(run: RunFolder) -> Measured:
    """Return a run's eval.json, without any figure where there is none.

    Raises:
        StageError: It is damaged.
    """
    if not (run.path / "eval.json").exists():
        return Measured(figures={})
    found = run.read_json("eval.json")
    try:
        return TypeAdapter(Measured).validate_python(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise damaged(run.path / "eval.json", f"{where}: {first['msg']}") from error


def basis(run: RunFolder, recipe: Recipe, names: Iterable[str]) -> Basis:
    """Return what figures hang on.

    Args:
        run: Whose models.
        recipe: Whose evaluation.
        names: Which models.
    """
    how, rl = recipe.eval or Eval(), recipe.rl
    return Basis(
        rows=how.rows,
        temperature=how.temperature,
        reward=evaluation_reward(recipe),
        response_tokens=how.response_tokens or (rl.response_tokens if rl else None),
        models=run.trainings(names),
    )


def differs(run: RunFolder) -> str:
    """Say how the run's figures were made otherwise than its recipe and its models are now; empty where they were not.

    Raises:
        StageError: They are damaged.
    """
    measured = read(run)
    if not measured.figures:
        return ""
    to_do = f"To measure as things are: tandem chat eval {run.path}"
    if measured.basis is None:
        return f"Figures of an evaluation that did not tell with what it was made. {to_do}"
    before, now = (asdict(one) for one in (measured.basis, basis(run, run.recipe(), measured.basis.models)))
    models, trainings = before.pop("models"), now.pop("models")
    told = [f"{key} {value}, not {now[key]}" for key, value in before.items() if value != now[key]]
    told += [
        f"the {_MODELS.get(name, name)} is gone or was trained anew since"
        for name in models
        if models[name] != trainings[name]
    ]
    return f"Figures of another evaluation ({'; '.join(told)}). {to_do}" if told else ""
