"""What a step of reinforcement learning learns from: responses the policy draws, pairs, demonstrations beside.

Shapes: B rows, T slots.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tandem.chat.data.batches import Budgeted, packed, padded
from tandem.chat.data.blend import Blend
from tandem.chat.drawing import draw, score
from tandem.chat.errors import StageError
from tandem.chat.learner import Mixed
from tandem.core import config as configs

if TYPE_CHECKING:
    from tandem.chat.algorithm import Algorithm
    from tandem.chat.data.batches import Batch
    from tandem.chat.loop import Loop
    from tandem.chat.recipe import Recipe, Rl
    from tandem.chat.work import Work

Batches = Callable[["Loop", int], "tuple[Batch, dict[str, Any]]"]
"""A step's batch, and what else is known of it by the names that `Learner.learn` has."""


def needed_rl(work: Work) -> Rl:
    """Return the recipe's part on reinforcement learning, which is there."""
    assert work.recipe.rl is not None
    return work.recipe.rl


def settings(recipe: Recipe, how: Algorithm) -> Any:  # noqa: ANN401 - each algorithm has its own
    """Return an algorithm's configuration: its defaults, a published variant's, and what the recipe says.

    Raises:
        ConfigError: A setting that it does not have.
        StageError: A variant that it does not have, or an adaptive KL where there is no coefficient.
    """
    rl = recipe.rl
    assert rl is not None
    base: dict[str, Any] = {}
    if rl.variant is not None:
        variants = {"dr_grpo": {"length_tokens": rl.response_tokens}, "dapo": {}}
        make = getattr(how.Config, rl.variant, None)
        if rl.variant not in variants or make is None:
            raise StageError(
                given=f"rl.variant {rl.variant!r} of {rl.algorithm!r}",
                allowed="dr_grpo and dapo, of grpo",
                todo="leave it out, or choose one of them",
            )
        base = asdict(make(**variants[rl.variant]))
    config = configs.of_table(how.Config, base | rl.settings, "[rl.settings]")
    if rl.target_kl is not None and not hasattr(config, "kl_coefficient"):
        raise StageError(
            given=f"rl.target_kl with {rl.algorithm!r}",
            allowed="an algorithm with a kl_coefficient",
            todo="leave target_kl out",
        )
    return config


def from_policy(work: Work, recipe: Rl, policy: Any, config: Any) -> Batches:  # noqa: ANN401 - transformers has no types
    """Batches of responses that the policy draws and the reward scores."""
    fitting = work.fitting
    rewarded = work.rewarded(recipe.reward)
    group = getattr(config, "group_size", 1)
    prompts = [fitting.prompts(rows, recipe.response_tokens) if rows else [] for rows in work.rows.rl]
    blend = Blend(prompts, work.weights, seed=work.seed("rl"), what="prompt to respond to")

    def batch_of(loop: Loop, step: int) -> tuple[Batch, dict[str, Any]]:
        loop.phase("generate")
        began_s = work.clock.monotonic()
        drawn = draw(
            policy,
            fitting.template,
            blend.at(step * recipe.prompts, recipe.prompts),
            response_tokens=recipe.response_tokens,
            temperature=recipe.temperature,
            group=group,
            seed=work.seed("draw", step),
        )
        loop.phase("score")
        drew_s = work.clock.monotonic()
        scores_B, plain_B = score(drawn, rewarded, recipe.missing_eos_penalty)
        loop.tell(
            reward=float(plain_B.mean()),
            ended=float(drawn.ended_B.float().mean()),
            generate_s=drew_s - began_s,
            score_s=work.clock.monotonic() - drew_s,
        )
        work.run.sample("rl", step, drawn.prompts[0].row.prompt, drawn.texts[0], float(plain_B[0]))
        return drawn.batch, {"scores_B": scores_B, "ended_B": drawn.ended_B}

    return batch_of


def from_pairs(work: Work, recipe: Rl) -> Batches:
    """Batches of pairs, the preferred response first; nothing is drawn."""
    pairs = [work.fitting.pairs(rows) if rows else [] for rows in work.rows.reward]
    blend = Blend(pairs, work.weights, seed=work.seed("rl"), what="preference pair")

    def batch_of(loop: Loop, step: int) -> tuple[Batch, dict[str, Any]]:
        del loop
        rows = blend.at(step * recipe.prompts, recipe.prompts)
        return padded([turn for pair in rows for turn in pair], work.fitting.template.pad_id), {}

    return batch_of


def mixture_of(work: Work, recipe: Rl) -> Callable[[int], Mixed | None]:
    """Supervised rows beside the policy's, where the recipe wants them."""
    if not recipe.mixture_coefficient:
        return lambda step: None
    turns = [work.fitting.responses(rows) if rows else [] for rows in work.rows.sft]
    blend = Blend(turns, work.weights, seed=work.seed("mixture"), what="response to imitate")
    budgeted = Budgeted(blend, recipe.mixture_tokens, packing=True)
    pad_id = work.fitting.template.pad_id
    return lambda step: Mixed(batch=packed(budgeted.at(step), pad_id), coefficient=recipe.mixture_coefficient)
