"""A run's folder: what was asked, what was recorded, checkpoints, models, samples, figures.

    config.toml     the recipe, resolved            checkpoints/STAGE.pt   where a stage is
    events.jsonl    records                         models/NAME/           transformers' folders: start, sft, reward, rl
    samples.jsonl   responses as training went      eval.json, report.html

A model's folder is there when its stage is done. Records are only ever appended: a stage that begins, or goes on after
a kill, first says after which step (`STAGE/after_step`), and what was recorded of later steps before counts no more.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tandem.chat import lineage
from tandem.chat import recipe as recipes
from tandem.chat.errors import ResumeError, StageError
from tandem.core import config, records
from tandem.core.durable import written_aside
from tandem.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from tandem.chat.recipe import Recipe

TRAINED = ("sft", "reward", "rl")


class RunFolder:
    """A run's folder.

    Args:
        path: Where; made by `begun`.
        writes: Whether this process is the one that writes; of several ranks the first.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path, self._writes = path, writes
        self.events = path / records.FILE_NAME
        self._recorders = [records.Recorder(self.events)] if writes else []
        job = os.environ.get(records.RUN_DIR_VARIABLE)
        if writes and job and Path(job).resolve() != path.resolve():
            self._recorders.append(records.Recorder.from_env())

    def model(self, name: str) -> Path:
        """Where a model is or will be."""
        return self.path / "models" / name

    def has(self, name: str) -> bool:
        """Whether a model is there."""
        return (self.model(name) / "config.json").exists()

    def trained(self) -> bool:
        """Whether a stage has begun; a start alone is made anew for another recipe."""
        begun = self.has("start") and self.events.exists()  # records alone may be the job's
        return begun or any(self.has(stage) or self.checkpoint(stage).exists() for stage in TRAINED)

    def trainings(self, names: Iterable[str]) -> dict[str, int]:
        """Return of each model how often its stage began anew until it was there; -1 for one that is not.

        A model that is trained once more has a higher number; the start's first is 0.
        """
        told = [record.metrics for record in records.read(self.events)]
        keys = {name: f"{name.removesuffix('-average')}/after_step" for name in names}
        begun = {name: [metrics.get(key) for metrics in told].count(0.0) for name, key in keys.items()}
        return {name: count if self.has(name) else -1 for name, count in begun.items()}

    def checkpoint(self, stage: str) -> Path:
        """Where a stage's checkpoint is or will be."""
        return self.path / "checkpoints" / f"{stage}.pt"

    def recipe(self) -> Recipe:
        """Return the recipe that this run follows.

        Raises:
            StageError: This is no run.
        """
        file = self.path / "config.toml"
        if not file.exists():
            raise StageError(
                given=f"{self.path} is no run: it has no config.toml",
                allowed="a folder that tandem chat train wrote",
                todo="check the path",
            )
        return config.load(recipes.Recipe, file)

    @contextmanager
    def begun(self, recipe: Recipe) -> Iterator[None]:
        """Hold the folder while the block runs, new or going on; a rank that does not write leaves that to the first.

        Raises:
            ResumeError: Another process holds it, or it holds a run of another recipe.
        """
        if not self._writes:
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ResumeError(
                    given=f"another process trains in {self.path}",
                    allowed="one at a time",
                    todo="wait for it, or give another --out",
                ) from error
            self._take_over(recipe)
            with written_aside(self.path / "config.toml") as file:
                file.write(config.dump(recipe).encode())
            yield
        finally:
            for recorder in self._recorders:
                recorder.close()
            os.close(descriptor)

    def record(self, **what: Any) -> None:  # noqa: ANN401 - as Recorder.record has it
        """Append a record to the run's file, and to the job's where it is another."""
        for recorder in self._recorders:
            recorder.record(**what)

    def sample(self, stage: str, step: int, prompt: str, response: str, score: float) -> None:
        """Append a response that was drawn in training."""
        if not self._writes:
            return
        line = {"stage": stage, "step": step, "prompt": prompt, "response": response, "score": score}
        with (self.path / "samples.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def goes_on(self, stage: str, step: int) -> None:
        """Say that a stage goes on after a step, 0 for anew: what was told of later ones before counts no more.

        An average of what was learnt before goes with a stage that begins anew.
        """
        self.record(**{f"{stage}/after_step": step})
        file = self.path / "samples.jsonl"
        if self._writes and step == 0:
            shutil.rmtree(self.model(f"{stage}-average"), ignore_errors=True)
        if not self._writes or not file.exists():
            return
        kept = [sample for sample in self.samples() if sample["stage"] != stage or sample["step"] < step]
        with written_aside(file) as aside:
            aside.writelines(json.dumps(sample).encode() + b"\n" for sample in kept)

    def samples(self) -> list[dict[str, Any]]:
        """Return what was appended, a step's once; a line that a kill cut short, or that is damaged, is passed over."""
        file = self.path / "samples.jsonl"
        lines = file.read_bytes().split(b"\n") if file.exists() else []
        found = [sample for sample in map(_sample, lines) if sample is not None]
        return list({(one["stage"], one["step"], one["prompt"]): one for one in found}.values())

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a small table."""
        with written_aside(self.path / name) as file:
            file.write(json.dumps(value, indent=1).encode())

    def read_json(self, name: str) -> dict[str, Any]:
        """Return a small table, empty where there is none.

        Raises:
            StageError: It is damaged.
        """
        file = self.path / name
        if not file.exists():
            return {}
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise damaged(file, str(error)) from error
        if not isinstance(found, dict):
            raise damaged(file, "it is no object")
        return found

    def series(self, stage: str) -> dict[str, list[tuple[int, float]]]:
        """Return what was recorded of a stage, as (step, value) by name; as far as the last attempt went on from it."""
        found: dict[str, dict[int, float]] = {}
        prefix = f"{stage}/"
        for record in records.read(self.events):
            after = record.metrics.get(f"{prefix}after_step")
            if after is not None:
                found = {name: {at: of[at] for at in of if at <= after} for name, of in found.items()}
            step = record.metrics.get(f"{prefix}step")
            if step is None:
                continue
            for name, value in record.metrics.items():
                if name.startswith(prefix) and name != f"{prefix}step":
                    found.setdefault(name.removeprefix(prefix), {})[int(step)] = value
        return {name: sorted(values.items()) for name, values in found.items() if values}

    def check_recipe(self, recipe: Recipe, *, left: Collection[str] = ()) -> dict[str, tuple[object, object]]:
        """Check that a recipe is this run's but for what may change; return all differences by dotted key.

        Args:
            recipe: The one asked for.
            left: Stages whose own changes are looked at elsewhere.

        Raises:
            ResumeError: It is another, or the run's own is damaged.
            UnknownPluginError: There is no such algorithm as the run's.
        """
        if not (self.path / "config.toml").exists():
            return {}
        try:
            before = self.recipe()
        except ConfigError as error:
            raise ResumeError(given=str(error), allowed="a recipe as it was written", todo="put it back") from error
        begun = {stage for stage in TRAINED if self.has(stage) or self.checkpoint(stage).exists()}
        begun |= {stage for stage in TRAINED if lineage.trained_from(self, stage, before)}
        open_stages = {*TRAINED} - begun
        open_stages |= {"eval", "save_every_steps", "strategy", "device"}
        differences = recipes.differences(before, recipe)
        changed = {key: values for key, values in differences.items() if _table(key) not in open_stages}
        if (begun or self.trained()) and not {*map(_table, changed)} <= {*left}:
            told = ", ".join(dict.fromkeys(_in_words(key, before, recipe, *values) for key, values in changed.items()))
            raise ResumeError(
                given=f"{self.path} holds a run of another recipe: {told}",
                allowed="changes to [eval], save_every_steps, strategy, device and stages that have not begun, "
                "nor any that starts from their model",
                todo="put the recipe back, or give another --out",
            )
        return differences

    def _take_over(self, recipe: Recipe) -> None:
        """Let go of what a recipe that differs in what may change makes void.

        Raises:
            ResumeError, UnknownPluginError: As `check_recipe` does.
        """
        tables = {*map(_table, self.check_recipe(recipe))}
        if tables and not self.trained():
            shutil.rmtree(self.model("start"), ignore_errors=True)
        if self.events.exists():
            for stage in tables.intersection(TRAINED):
                self.goes_on(stage, 0)  # also one that the recipe has no more


def _table(key: str) -> str:
    return key.partition(".")[0]


def _in_words(key: str, before: Recipe, now: Recipe, old: object, new: object) -> str:
    """Return what differs; of a table that is new or gone that alone, whichever of its keys it is."""
    table = _table(key)
    if getattr(before, table) is None:
        return f"[{table}] not there before"
    if getattr(now, table) is None:
        return f"[{table}] not there now"
    return f"{key}: {old} before, {new} now"


def damaged(file: Path, why: str) -> StageError:
    """Return what to raise of a small table that is not as it was written."""
    return StageError(
        given=f"{file}, which is damaged ({why})",
        allowed="the file as it was written",
        todo="remove it, and run the stage that writes it again",
    )


_SAMPLE = {"stage": str, "step": int, "prompt": str, "response": str, "score": int | float}


def _sample(line: bytes) -> dict[str, Any] | None:
    """Return the sample in one line, or None where the line is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(found, dict) and all(isinstance(found.get(name), kind) for name, kind in _SAMPLE.items())
    return found if whole else None
