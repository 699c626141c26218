"""What every stage of a run needs: rows, tokens, models of the stages before, seeds, a loop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import xxhash

from tandem.chat import evaluation, heads, models, placing, scoring
from tandem.chat.data.fingerprint import Fingerprint
from tandem.chat.data.rows import gather
from tandem.chat.data.turns import Fitting, Length
from tandem.chat.engine.pruned import linear_layers
from tandem.chat.errors import StageError, StoppedError
from tandem.chat.loop import Loop
from tandem.chat.recipe import STAGES, Recipe, evaluation_reward
from tandem.chat.run_folder import RunFolder
from tandem.chat.signals import Asked
from tandem.core.clock import Clock
from tandem.core.errors import ConfigError
from tandem.learn import strategy as strategies
from tandem.learn.ranks import Ranks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tandem.chat.data.rows import Row, Rows


ALONE = Ranks()


@dataclass(frozen=True)
class Work:
    """What every stage needs.

    Attributes:
        recipe: What to do.
        run: Where it is done.
        recipe_folder: Where a reward's module is looked for.
        say: Is told what happens.
        progress: Is told (stage, done, of).
        clock: For rates.
        asked: What signals have asked.
        ranks: Who does it together.
    """

    recipe: Recipe
    run: RunFolder
    recipe_folder: Path
    say: Callable[[str], None]
    progress: Callable[[str, int, int], None]
    clock: Clock
    asked: Asked
    ranks: Ranks = ALONE

    @cached_property
    def strategy(self) -> strategies.Strategy:
        """How the ranks share models that are trained."""
        return strategies.load(self.recipe.strategy)

    @cached_property
    def place(self) -> placing.Place:
        """Where models lie, and in what type.

        Raises:
            DeviceError: The recipe's device is not there.
        """
        return placing.placed(self.recipe.device, self.recipe.dtype, self.recipe.strategy)

    @cached_property
    def rows(self) -> Rows:
        """All rows."""
        return gather(self.recipe.data, seed=self.recipe.seed, say=self.say)

    @cached_property
    def fitting(self) -> Fitting:
        """How rows become tokens, the same in all stages."""
        loaded = self.load("start")
        stop = self.recipe.data.bad_rows == "stop"
        return Fitting(loaded.template, loaded.context_tokens, stop, self.say, self.at_once)

    def at_once(self) -> AbstractContextManager[None]:
        """Have a signal that stops the run end the block at once; several ranks stop together, after a step."""
        return self.asked.ended_at_once() if self.ranks.size == 1 else nullcontext()

    @cached_property
    def held(self) -> evaluation.Held:
        """Held-out rows."""
        most = self.recipe.eval.rows if self.recipe.eval else 256
        return evaluation.Held.of(self.rows, self.fitting, most=most, response=self.eval_response)

    @property
    def eval_response(self) -> Length | None:
        """How long a response of the evaluation may get; None where it draws none."""
        how, rl = self.recipe.eval, self.recipe.rl
        if how is None or evaluation_reward(self.recipe) == "none":
            return None
        if how.response_tokens is not None:
            return Length("eval.response_tokens", how.response_tokens)
        return None if rl is None else Length("rl.response_tokens", rl.response_tokens)

    @property
    def weights(self) -> list[float]:
        """Of the sources."""
        return [source.weight for source in self.recipe.data.sources]

    def seed(self, what: str, step: int = 0) -> int:
        """Return a seed of its own for each use and step."""
        return xxhash.xxh3_64_intdigest(f"{self.recipe.seed}/{what}/{step}".encode()) >> 1

    def done(self, stage: str) -> bool:
        """Whether a stage's model is there."""
        if self.run.has(stage):
            self.say(f"{stage} is done: {self.run.model(stage)}")
            return True
        return False

    def policy_before(self) -> str:
        """Return the model that the reward model and reinforcement learning start from.

        Raises:
            StageError: The recipe has supervised fine-tuning, and it is not done.
        """
        if self.recipe.sft is None:
            return "start"
        self.needs("sft")
        return "sft"

    def needs(self, stage: str) -> None:
        """Check that a stage is done.

        Raises:
            StageError: It is not.
        """
        if not self.run.has(stage):
            raise StageError(
                given=f"a stage that starts from {stage}, and {self.run.model(stage)} is not there",
                allowed="stages in their order: " + ", ".join(STAGES),
                todo=f"run it first: --stage {stage}",
            )

    def load(self, name: str) -> models.Loaded:
        """Read a model of this run."""
        return models.read(self.run.model(name), self.place)

    def save(self, name: str, model: Any, base: str = "") -> None:  # noqa: ANN401 - transformers has no types
        """Put a model into the run's folder: its stage is done. The first rank does it, and the others wait.

        Args:
            name: What it is called.
            model: Whole, with its adapters, if any: they are saved beside what they make of their base.
            base: Which model of the run they were put into.
        """
        if self.ranks.first:
            models.save(model, self.fitting.template, self.run.model(name), base=str(self.run.model(base)))
            self.run.checkpoint(name).unlink(missing_ok=True)
        self.ranks.wait()
        self.say(f"{name}: {self.run.model(name)}")

    def stop_evaluation(self) -> None:
        """Stop if that was asked for, in an evaluation, of which nothing is kept.

        Raises:
            StoppedError: It was.
        """
        if self.asked.stop:
            raise StoppedError(
                given=f"stopped by {self.asked.stop} in the evaluation",
                allowed="going on: all models are there",
                todo="run the same command again",
            )

    def rewarded(self, name: str) -> Any:  # noqa: ANN401 - a function or a model
        """Return what scores responses: a function, the reward model, or None for "none"."""
        if name == "none":
            return None
        if name != "model":
            return scoring.load(name, self.recipe_folder)
        self.needs("reward")
        return heads.read(self.run.model("reward"), self.place).requires_grad_(False)

    def find_reward(self, name: str, stage: Literal["rl", "eval"], chosen: Sequence[str]) -> None:
        """Check that what `rewarded` will be asked for is there, or will be.

        Args:
            name: The reward.
            stage: Who asks for it; only `eval` can do without.
            chosen: The stages to come.

        Raises:
            StageError: The reward model neither is there nor will be, or `rl` has "none".
            RewardError: There is no such function, or its module cannot be imported.
        """
        if name == "model" and self.recipe.reward is not None:
            if "reward" not in chosen:
                self.needs("reward")
        elif name == "model" or (name == "none" and stage == "rl"):
            raise StageError(
                given=f"reward {name!r} for [{stage}]",
                allowed="model, in a recipe with [reward]; a file of chat/rewards; module:function; for [eval] none",
                todo=f"name another in {stage}.reward, or add [reward]",
            )
        else:
            self.rewarded(name)

    @property
    def _model_folder(self) -> Path | None:
        """The folder of the model that everything starts from; None where it is yet to be drawn."""
        if self.run.trained():
            return self.run.model("start")
        return None if self.recipe.model.path is None else Path(self.recipe.model.path)

    def check_sparse_rollouts(self) -> None:
        """Check, before the model is read, that it has layers to prune where a pruned copy of it is to draw.

        Raises:
            GenerationError: It has none.
            ModelFolderError: It is no language model.
        """
        sparse = self.recipe.rl.sparse_rollouts if self.recipe.rl is not None else None
        if sparse is not None and sparse.zeros and self._model_folder is not None:  # one that is drawn has them
            linear_layers(models.layers_of(self._model_folder))

    def check_length(self, response: Length) -> None:
        """Check that responses leave room for a prompt in the model's context, before the model is read.

        Args:
            response: How long they may get.

        Raises:
            ConfigError: They do not.
            ModelFolderError: The model's configuration cannot be read.
        """
        there = self._model_folder
        context_tokens = self.recipe.model.context_tokens if there is None else models.context_of(there)
        if response.tokens >= context_tokens:
            raise ConfigError(
                given=f"{response.key} = {response.tokens} and a model with a context of {context_tokens} tokens",
                allowed=f"1 to {context_tokens - 1}: a prompt needs room beside the response",
                todo="lower it, or take a model with more context",
            )

    def loop(
        self,
        stage: str,
        steps: int,
        parts: dict[str, Any],
        rows: Sequence[Sequence[Row]],
        ended: Callable[[], bool] = lambda: False,
    ) -> Loop:
        """Return a stage's steps.

        Args:
            stage: Which.
            steps: How many.
            parts: What its checkpoint holds.
            rows: All that decide on its weights.
            ended: Whether it ends before.
        """
        of = {name: getattr(self.recipe, name).steps if getattr(self.recipe, name) else 0 for name in STAGES[:3]}
        before = sum(of[name] for name in STAGES[: STAGES.index(stage)])
        return Loop(
            self.run,
            stage,
            steps=steps,
            parts=parts | {"rows": Fingerprint(rows, stage, self.say)},
            save_every=self.recipe.save_every_steps,
            asked=self.asked,
            clock=self.clock,
            progress=self.progress,
            before=(before, sum(of.values())),
            ended=ended,
            ranks=self.ranks,
        )
