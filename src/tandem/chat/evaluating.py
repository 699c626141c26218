"""`tandem chat eval`: a run's evaluation once more, with as many rows and at the temperature that is asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tandem.chat import memory, placing
from tandem.chat.recipe import Eval
from tandem.chat.run_folder import RunFolder
from tandem.chat.signals import Asked
from tandem.chat.train import evaluate
from tandem.chat.work import Work
from tandem.core.clock import SystemClock
from tandem.kernels.model_folder import quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


def again(
    folder: Path,
    recipe_folder: Path,
    *,
    rows: int | None,
    temperature: float | None,
    device: str | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, of: None,
    names: Sequence[str] = ("start", "sft", "rl"),
) -> RunFolder:
    """Measure the models that are there, and write eval.json.

    Args:
        folder: The run's.
        recipe_folder: Where a reward's module is looked for.
        rows: Held-out rows; None as in the recipe.
        temperature: Of the responses; None as in the recipe.
        device: Where models compute; None as in the recipe.
        progress: Is told (what, done, of).
        names: Which models; those that are not there are passed over.

    Raises:
        StageError: It is no run.
        DeviceError: The device is not there.
        DivergedError: A model's loss is no number.
        ShortOfMemoryError: A model or a batch does not fit.
    """
    run = RunFolder(folder)
    recipe = run.recipe()
    how = recipe.eval or Eval()
    how = replace(
        how,
        rows=how.rows if rows is None else rows,
        temperature=how.temperature if temperature is None else temperature,
    )
    place = placing.asked_for(recipe, device)
    with run.begun(recipe), memory.shortage_in_words(memory.OF_ASKING), quiet():
        asked = replace(recipe, eval=how, device=str(place.device), strategy="single")  # whoever trained it
        work = Work(asked, run, recipe_folder, lambda text: None, progress, SystemClock(), Asked())
        evaluate(work, names)
    return run
