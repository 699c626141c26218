"""What a step of reinforcement learning learns from: responses the policy draws, pairs, demonstrations beside.

Shapes: B rows, T slots, G groups of K responses to one prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tandem.chat import lora
from tandem.chat.data.batches import Budgeted, packed, padded
from tandem.chat.data.blend import ANSWERED, COMPARED, IMITATED, Blend
from tandem.chat.data.turns import Length
from tandem.chat.drawing import Drawn, draw, joined, score
from tandem.chat.engine.pruned import pruned
from tandem.chat.errors import StageError
from tandem.chat.learner import Mixed
from tandem.chat.off_policy import Behaviour
from tandem.core import config as configs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from tandem.chat.algorithm import Algorithm
    from tandem.chat.data.batches import Batch
    from tandem.chat.loop import Loop
    from tandem.chat.recipe import Recipe, Rl, SparseRollouts
    from tandem.chat.work import Work

Batches = Callable[["Loop", int], "tuple[Batch, dict[str, Any]]"]
"""A step's batch, and what else is known of it by the names that `Learner.learn` has."""


def needed_rl(work: Work) -> Rl:
    """Return the recipe's part on reinforcement learning, which is there."""
    assert work.recipe.rl is not None
    return work.recipe.rl


def length_of(rl: Rl) -> Length:
    """Return how long a response that is drawn to learn from may get."""
    return Length("rl.response_tokens", rl.response_tokens)


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
    if rl.target_kl is not None and not getattr(config, "kl_coefficient", 0.0):  # what is 0 stays 0
        raise StageError(
            given=f"rl.target_kl with {rl.algorithm!r} and no kl_coefficient",
            allowed="an algorithm with a kl_coefficient above 0, from which it starts",
            todo="set rl.settings.kl_coefficient, or leave target_kl out",
        )
    if rl.dynamic_sampling and how.GROUP != "same prompt":
        raise StageError(
            given=f"rl.dynamic_sampling with {rl.algorithm!r}",
            allowed="an algorithm that compares responses to one prompt, such as grpo",
            todo="leave dynamic_sampling out",
        )
    if rl.sparse_rollouts is not None and how.GROUP == "pair":
        raise StageError(
            given=f"rl.sparse_rollouts with {rl.algorithm!r}",
            allowed="an algorithm that learns from what is drawn",
            todo="leave sparse_rollouts out",
        )
    if rl.overlong_tokens and how.GROUP == "pair":
        raise StageError(
            given=f"rl.overlong_tokens with {rl.algorithm!r}",
            allowed="an algorithm that learns from scores of what is drawn",
            todo="leave overlong_tokens out",
        )
    return config


def from_policy(
    work: Work,
    recipe: Rl,
    policy: Callable[[], AbstractContextManager[Any]],
    config: Any,  # noqa: ANN401 - each algorithm has its own
) -> Batches:
    """Batches of responses that the policy draws and the reward scores.

    Args:
        work: The run.
        recipe: Its part on reinforcement learning.
        policy: Puts the policy's weights together while a batch is drawn: once a step, whatever it draws.
        config: The algorithm's settings.
    """
    fitting, rewarded = work.fitting, work.rewarded(recipe.reward)
    if isinstance(rewarded, torch.nn.Module):
        rewarded = work.strategy.frozen(rewarded, work.ranks)
    group = getattr(config, "group_size", 1)
    prompts = [fitting.prompts(rows, length_of(recipe)) if rows else [] for rows in work.rows.rl]
    blend = Blend(prompts, work.weights, seed=work.seed("rl"), what=ANSWERED)
    rounds = 1 + recipe.dynamic_sampling

    def draw_round(loop: Loop, model: Any, number: int) -> Scored:  # noqa: ANN401 - transformers has no types
        loop.phase("generate")
        began_s = work.clock.monotonic()
        drawn = draw(
            model,
            fitting.template,
            blend.at(number * recipe.prompts, recipe.prompts),
            response_tokens=recipe.response_tokens,
            temperature=recipe.temperature,
            group=group,
            seed=work.seed("draw", number),
            ranks=work.ranks,
            between=loop.leave_if_stopped,
        )
        loop.phase("score")
        drew_s = work.clock.monotonic()
        lengths = {"response_tokens": recipe.response_tokens, "overlong_tokens": recipe.overlong_tokens}
        scores_B, plain_B = score(drawn, rewarded, recipe.missing_eos_penalty, **lengths, ranks=work.ranks)
        return Scored(drawn, scores_B, plain_B, drew_s - began_s, work.clock.monotonic() - drew_s)

    def batch_of(loop: Loop, step: int) -> tuple[Batch, dict[str, Any]]:
        found: list[Scored] = []
        began_s = work.clock.monotonic()
        with loop.left_if_stopped(), policy() as model, drawing(model, recipe.sparse_rollouts):
            loop.tell(switch_s=work.clock.monotonic() - began_s)
            for number in range(step * rounds, (step + 1) * rounds):
                found.append(draw_round(loop, model, number))
                if rounds == 1 or sum(map(len, told_apart(found, group))) >= recipe.prompts * group:
                    break
        first = found[0]
        loop.tell(
            reward=float(torch.cat([one.plain_B for one in found]).mean()),
            ended=float(first.drawn.ended_B.float().mean()),
            generate_s=sum(one.generate_s for one in found),
            score_s=sum(one.score_s for one in found),
        )
        work.run.sample("rl", step, first.drawn.prompts[0].row.prompt, first.drawn.texts[0], float(first.plain_B[0]))
        if rounds == 1:
            return first.drawn.batch, known_of(first.drawn, first.scores_B, recipe.sparse_rollouts)
        kept = told_apart(found, group, most=recipe.prompts)
        loop.tell(rounds=len(found), told_apart=sum(map(len, kept)) / (recipe.prompts * group))
        if not any(kept):  # nothing to learn from: the step is taken all the same, so that steps stay what they are
            kept = [list(range(len(first.plain_B))), *([] for _ in found[1:])]
        drawn = joined([one.drawn for one in found], kept, fitting.template.pad_id)
        scores_B = torch.cat([one.scores_B[rows] for one, rows in zip(found, kept, strict=True)])
        return drawn.batch, known_of(drawn, scores_B, recipe.sparse_rollouts)

    return batch_of


@contextmanager
def drawing(model: Any, sparse: SparseRollouts | None) -> Iterator[None]:  # noqa: ANN401 - transformers has no types
    """Make a policy draw by a pruned copy of its layers, adapters merged, while the block runs; or leave it alone."""
    if sparse is None:
        yield
        return
    with lora.merged(model), pruned(model, sparse.zeros):
        yield


def known_of(drawn: Drawn, scores_B: Tensor, sparse: SparseRollouts | None) -> dict[str, Any]:
    """Return what a learner is told of a draw beside its tokens."""
    known: dict[str, Any] = {"scores_B": scores_B, "ended_B": drawn.ended_B}
    return known if sparse is None else {**known, "behaviour": Behaviour(drawn.logps_BT, sparse.cap)}


@dataclass(frozen=True, slots=True)
class Scored:
    """A draw, what it earned with penalties and without, and how long that took."""

    drawn: Drawn
    scores_B: Tensor
    plain_B: Tensor
    generate_s: float
    score_s: float


def told_apart(found: Sequence[Scored], group: int, most: int | None = None) -> list[list[int]]:
    """Return the rows of groups whose rewards differ, for each draw, of at most so many groups in all.

    Source: Yu et al., DAPO, 2025, section 3.2 (equation 11: some of a group are right, and some are not).
    """
    kept: list[list[int]] = []
    left = len(found) * max(len(one.plain_B) for one in found) if most is None else most
    for one in found:
        groups_GK = one.plain_B.view(-1, group)
        differs = (groups_GK != groups_GK[:, :1]).any(dim=1).nonzero()[:, 0].tolist()[:left]
        left -= len(differs)
        kept.append([row for i in differs for row in range(i * group, (i + 1) * group)])
    return kept


def from_pairs(work: Work, recipe: Rl) -> Batches:
    """Batches of pairs, the preferred response first; nothing is drawn."""
    pairs = [work.fitting.pairs(rows) if rows else [] for rows in work.rows.reward]
    blend = Blend(pairs, work.weights, seed=work.seed("rl"), what=COMPARED)

    def batch_of(loop: Loop, step: int) -> tuple[Batch, dict[str, Any]]:
        del loop
        rows = blend.at(step * recipe.prompts, recipe.prompts)
        return padded([turn for pair in rows for turn in pair], work.fitting.template.pad_id, group=2), {}

    return batch_of


def mixture_of(work: Work, recipe: Rl) -> Callable[[int], Mixed | None]:
    """Supervised rows beside the policy's, where the recipe wants them."""
    if not recipe.mixture_coefficient:
        return lambda step: None
    turns = [work.fitting.responses(rows) if rows else [] for rows in work.rows.sft]
    blend = Blend(turns, work.weights, seed=work.seed("mixture"), what=IMITATED)
    budgeted = Budgeted(blend, recipe.mixture_tokens, packing=True)
    pad_id = work.fitting.template.pad_id
    return lambda step: Mixed(batch=packed(budgeted.at(step), pad_id), coefficient=recipe.mixture_coefficient)
