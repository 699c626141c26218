"""From a recipe to a chat model: supervised fine-tuning, reward model, reinforcement learning, evaluation.

    train(recipe, Path("runs/words"), recipe_folder=Path("examples/chat"))

Each stage is a function that reads the models of the stages before it from the run's folder and leaves its own there.
A stage whose model is there is done. A stage that was stopped goes on at its last checkpoint and ends with the same
bits: which rows a step takes and what it draws follow from the seed and the step's number alone.

Started by torchrun it is one of several ranks, which take each step together, each with its share of the rows; the
recipe's strategy says how they share the models. The first alone writes, and evaluates.

Shapes: B rows, T slots.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch

from tandem.chat import algorithm as algorithms
from tandem.chat import evaluation, forward, heads, lineage, lora, measured, memory, models, placing, sharing
from tandem.chat.adaptive_kl import AdaptiveKl
from tandem.chat.averaged import Averaged
from tandem.chat.data.batches import Budgeted, packed, padded
from tandem.chat.data.blend import ANSWERED, COMPARED, IMITATED, Blend, nothing_of
from tandem.chat.data.rows import Response
from tandem.chat.data.turns import Length
from tandem.chat.errors import StageError
from tandem.chat.experience import from_pairs, from_policy, length_of, mixture_of, needed_rl, settings
from tandem.chat.interval import of_mean
from tandem.chat.learner import Learner
from tandem.chat.plateau import Plateau
from tandem.chat.recipe import STAGES, evaluation_reward
from tandem.chat.run_folder import RunFolder
from tandem.chat.signals import Asked, listening
from tandem.chat.work import Work
from tandem.core.clock import SystemClock
from tandem.kernels.model_folder import quiet
from tandem.learn import losses
from tandem.learn.backward import backward
from tandem.learn.joining import joined
from tandem.learn.masking import Counts
from tandem.learn.strategy import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from torch import Tensor

    from tandem.chat.algorithm import Algorithm
    from tandem.chat.data.batches import Batch
    from tandem.chat.interval import Interval
    from tandem.chat.recipe import Recipe
    from tandem.core.clock import Clock


def train(
    recipe: Recipe,
    folder: Path,
    *,
    recipe_folder: Path,
    stages: Sequence[str] | None = None,
    say: Callable[[str], None] = lambda text: None,
    progress: Callable[[str, int, int], None] = lambda stage, done, of: None,
    clock: Clock | None = None,
) -> RunFolder:
    """Run the stages that are not done yet, as one of the ranks that the environment tells of.

    Args:
        recipe: What to do.
        folder: The run's folder, new or of a run that was stopped.
        recipe_folder: Where a reward's module is looked for.
        stages: Which; None for all that the recipe has.
        say: Is told what happens.
        progress: Is told (stage, done, of).
        clock: For rates.

    Raises:
        StageError: A stage that the recipe lacks, or one whose predecessor is not done.
        UnknownPluginError: There is no such algorithm or reward; as all that the recipe names, before any stage.
        RewardError: The reward is none, or its module cannot be imported.
        ModelFolderError: There is no such model, or its tokenizer or chat template cannot be used.
        ConfigError, TrainingInputError: A setting that the algorithm lacks, or outside of what it allows.
        GenerationError: Sparse rollouts of a model without linear layers.
        ResumeError: The folder holds a run of another recipe, or models from one that is to be made.
        StoppedError: A signal asked to stop; the checkpoint is written.
        DivergedError: A loss is no number any more, in a step or on held-out rows.
        RankError: Another rank ended, or the strategy is none for so many.
        DeviceError: The recipe's device is not there.
        ShortOfMemoryError: A model or a batch does not fit.
    """
    chosen = _chosen(recipe, stages)
    clock = SystemClock() if clock is None else clock
    with joined() as group, listening() as asked, group.telling(), memory.shortage_in_words(), quiet():
        ranks = group.ranks
        run = RunFolder(folder, writes=ranks.first)
        work = Work(recipe, run, recipe_folder, say, progress, clock, asked, ranks)
        work.strategy.check(ranks)
        _find(work, chosen)
        with run.begun(recipe):
            _run(work, chosen)
    return run


def check(recipe: Recipe, folder: Path, *, recipe_folder: Path, stages: Sequence[str] | None = None) -> None:
    """Look up what stages that are not done yet name, as `train` does before any of them.

    Args:
        recipe: What is to be done.
        folder: The run's folder.
        recipe_folder: Where a reward's module is looked for.
        stages: Which; None for all that the recipe has.

    Raises:
        StageError, UnknownPluginError, RewardError, ModelFolderError, ConfigError, TrainingInputError, GenerationError,
            DeviceError, ResumeError: As `train` does.
    """
    run = RunFolder(folder, writes=False)
    silent = Work(recipe, run, recipe_folder, lambda text: None, lambda what, done, of: None, SystemClock(), Asked())
    _find(silent, _chosen(recipe, stages))


def _run(work: Work, chosen: Sequence[str]) -> None:
    with work.at_once():
        _prepare(work, chosen)
    for stage in chosen:
        {"sft": sft, "reward": reward, "rl": rl, "eval": evaluate}[stage](work)


def _prepare(work: Work, chosen: Sequence[str]) -> None:
    phases = _find_rows(work, chosen)
    if work.ranks.first and not work.run.has("start"):
        begin(work)
    work.ranks.wait()
    began = models.dtype_of(work.run.model("start"))
    changed = f"; it began in {placing.in_words(began)}" if began != work.place.dtype else ""
    work.say(f"computing on {work.place}{changed}")
    _fit_rows(work, phases)
    if "eval" in chosen:
        _ = work.held  # raises where none of a kind fits


def _find(work: Work, chosen: Sequence[str]) -> None:
    """Look up what later stages name: a mistake there must not come to light when the stages before are trained."""
    recipe, _ = work.recipe, work.place  # raises where there is no such device
    to_train = [stage for stage in chosen if stage != "eval" and not work.run.has(stage)]
    work.run.check_recipe(recipe, left=to_train)
    lineage.check_start(work.run, recipe)
    for stage in to_train:
        lineage.check(work.run, stage, recipe)
    if not work.run.trained():
        models.check(recipe.model)
    if "sft" not in chosen and any(stage in chosen and not work.run.has(stage) for stage in ("reward", "rl")):
        work.policy_before()
    if recipe.rl is not None and "rl" in chosen and not work.run.has("rl"):
        how = algorithms.load(recipe.rl.algorithm)
        settings(recipe, how)
        if how.GROUP != "pair":
            work.find_reward(recipe.rl.reward, "rl", chosen)
            work.check_length(length_of(recipe.rl))
            work.check_sparse_rollouts()
    if recipe.eval is not None and "eval" in chosen:
        work.find_reward(evaluation_reward(recipe), "eval", chosen)
        if recipe.eval.response_tokens is not None:
            work.check_length(Length("eval.response_tokens", recipe.eval.response_tokens))


def _find_rows(work: Work, chosen: Sequence[str]) -> list[str]:
    """Look whether there are rows for every stage that is not done; return the phases that these take them from."""
    phases = [stage for stage in chosen if stage != "eval" and not work.run.has(stage)]
    if "rl" in phases:
        phases[phases.index("rl")] = "rl" if _draws(work, chosen) else "reward"
        phases += ["sft"] if needed_rl(work).mixture_coefficient else []
    for phase in phases:
        if not any(getattr(work.rows, phase)):
            what = {"sft": IMITATED, "reward": COMPARED, "rl": ANSWERED}[phase]
            raise nothing_of(what, work.rows.left_out[phase])
    return phases


def _fit_rows(work: Work, phases: Sequence[str]) -> None:
    """Look whether of each source that serves a phase any row fits the model's context."""
    fitting: Any = work.fitting
    for phase in phases:
        fitted = {"sft": fitting.responses, "reward": fitting.pairs}.get(phase)
        for rows in filter(None, getattr(work.rows, phase)):
            fitting.check(rows, fitted or (lambda rows: fitting.prompts(rows, length_of(needed_rl(work)))))


def _draws(work: Work, chosen: Sequence[str]) -> bool:
    """Whether responses are yet to be drawn and learnt from."""
    if "rl" not in chosen or work.run.has("rl"):
        return False
    return algorithms.load(needed_rl(work).algorithm).GROUP != "pair"


def begin(work: Work) -> None:
    """Put the model that everything starts from into the folder."""
    loaded = models.start(work.recipe.model, work.rows.texts, work.recipe.seed, work.place)
    models.save(loaded.model, loaded.template, work.run.model("start"))
    if work.run.events.exists():  # in the place of one that was removed; the first records nothing yet
        work.run.goes_on("start", 0)


def sft(work: Work) -> None:
    """Learn to imitate responses."""
    recipe = work.recipe.sft
    if recipe is None or work.done("sft"):
        return
    loaded = work.load("start")
    lora.put_in(loaded.model, work.recipe.lora, work.seed("sft adapters"))
    turns = [work.fitting.responses(rows) for rows in work.rows.sft]
    blend = Blend(turns, work.weights, seed=work.seed("sft"), what=IMITATED)
    budgeted = Budgeted(blend, recipe.batch_tokens, packing=recipe.packing)
    held = work.held.turns if recipe.validate_every else []
    decay_steps = recipe.steps if recipe.decay else 0
    schedule = Schedule(learning_rate=recipe.learning_rate, warmup_steps=recipe.warmup_steps, decay_steps=decay_steps)
    learning, ranks = work.strategy.learning(loaded.model, work.ranks, schedule), work.ranks
    plateau = Plateau(recipe.patience)
    parts = {"model": lora.Learnt(learning.model), "optimiser": learning.optimiser, "plateau": plateau}
    deciding = [*work.rows.sft, *([work.rows.held(Response)] if recipe.validate_every and recipe.patience else [])]
    loop = work.loop("sft", recipe.steps, parts, deciding, plateau.reached)
    for step in loop:
        loop.phase("train")
        batch = (packed if recipe.packing else padded)(budgeted.at(step), loaded.template.pad_id)
        of = Counts.of(batch.mask_BT)
        part = sharing.share(batch, ranks)
        loss = losses.sft(forward.logprobs(learning.model, part), part.mask_BT, of)
        loop.tell(**ranks.sums(loss=float(loss.detach())), tokens=of.tokens)
        backward(loss)
        loop.tell(gradient_norm=learning.optimiser.step(step))
        if held and (step + 1) % recipe.validate_every == 0:
            with learning.whole() as model:
                measured = evaluation.mean_loss(model, held, loaded.template.pad_id) if ranks.first else 0.0
            held_out_loss = ranks.of_first(measured)
            plateau.look(held_out_loss)
            loop.tell(held_out_loss=held_out_loss)
    with learning.whole() as model:
        work.save("sft", model, base="start")


def reward(work: Work) -> None:
    """Learn which of two responses people prefer."""
    recipe = work.recipe.reward
    if recipe is None or work.done("reward"):
        return
    scorer = heads.from_language_model(work.load(work.policy_before()).model, seed=work.seed("head"))
    pairs = [work.fitting.pairs(rows) for rows in work.rows.reward]
    blend = Blend(pairs, work.weights, seed=work.seed("reward"), what=COMPARED)
    schedule = Schedule(learning_rate=recipe.learning_rate, warmup_steps=recipe.warmup_steps)
    learning, ranks = work.strategy.learning(scorer, work.ranks, schedule), work.ranks
    parts = {"model": lora.Learnt(learning.model), "optimiser": learning.optimiser}
    loop = work.loop("reward", recipe.steps, parts, work.rows.reward)
    for step in loop:
        loop.phase("train")
        rows = blend.at(step * recipe.pairs, recipe.pairs)
        batch = padded([turn for pair in rows for turn in pair], work.fitting.template.pad_id)
        part = sharing.share(batch, ranks, unit=2)
        counts_P = part.mask_BT[0::2].any(dim=1)  # none of an idle part's
        scores_B = heads.scores(learning.model, part)
        losses_P = losses.preference(scores_B[0::2], scores_B[1::2])
        loss = (losses_P * counts_P).sum() / len(rows)
        right = ((scores_B[0::2] > scores_B[1::2]) & counts_P).sum() / len(rows)
        told = ranks.sums(loss=float(loss.detach()), accuracy=float(right))
        loop.tell(**told, tokens=int(batch.real_BT.sum()))
        backward(loss)
        loop.tell(gradient_norm=learning.optimiser.step(step))
    with learning.whole() as scorer:
        work.save("reward", scorer)


def rl(work: Work) -> None:
    """Learn from scores of responses that are drawn, or from pairs alone."""
    recipe = work.recipe.rl
    if recipe is None or work.done("rl"):
        return
    how = algorithms.load(recipe.algorithm)
    config = settings(work.recipe, how)
    policy = work.load(work.policy_before()).model
    lora.put_in(policy, work.recipe.lora, work.seed("rl adapters"))
    learner, whole = _learner(work, how, policy)
    reference = _reference(work, how, config, policy)
    parts: dict[str, Any] = {"policy": lora.Learnt(policy), "policy_optimiser": learner.policy_optimiser}
    if learner.critic is not None:
        parts |= {"critic": lora.Learnt(learner.critic), "critic_optimiser": learner.critic_optimiser}
    average = Averaged(policy, recipe.ema) if recipe.ema else None
    if average is not None:
        parts["average"] = average
    adaptive = None
    if recipe.target_kl is not None:
        adaptive = AdaptiveKl(config.kl_coefficient, recipe.target_kl, recipe.kl_horizon)
        parts["kl"] = adaptive
    batches = from_pairs(work, recipe) if how.GROUP == "pair" else from_policy(work, recipe, whole, config)
    mixture = mixture_of(work, recipe)
    deciding = [*(work.rows.reward if how.GROUP == "pair" else work.rows.rl)]
    deciding += work.rows.sft if recipe.mixture_coefficient else []
    loop = work.loop("rl", recipe.steps, parts, deciding)
    for step in loop:
        if adaptive is not None:
            config = replace(config, kl_coefficient=adaptive.coefficient)
        batch, earned = batches(loop, step)
        reference_BT = reference(batch)
        loop.phase("train")
        figures = learner.learn(step, batch, config, reference_logps_BT=reference_BT, mixed=mixture(step), **earned)
        loop.tell(**figures)
        if average is not None:
            average.update(policy)
        if adaptive is not None:
            adaptive.update(figures["kl_nats"], len(batch.mask_BT))
            loop.tell(kl_coefficient=adaptive.coefficient)
    with whole() as plain:
        if average is not None:
            with average.in_place_of(plain):
                work.save("rl-average", plain, base=work.policy_before())
        work.save("rl", plain, base=work.policy_before())


def evaluate(work: Work, names: Sequence[str] = ("start", "sft", "rl")) -> None:
    """Measure each model on what was held out; the first rank does it alone, when the others are done."""
    recipe = work.recipe.eval
    if recipe is None or not work.ranks.first:
        return
    memory.begin()
    names = [name for name in names if work.run.has(name)]
    held, pad_id, response = work.held, work.fitting.template.pad_id, work.eval_response
    rewarded = work.rewarded(evaluation_reward(work.recipe))
    scorer = heads.read(work.run.model("reward"), work.place) if work.run.has("reward") else None
    figures: dict[str, dict[str, Interval]] = {name: {} for name in names}
    replies: dict[str, evaluation.Replies] = {}
    for done, name in enumerate(names):
        work.progress("eval", done, len(names))
        model = work.load(name).model
        if held.turns:
            figures[name] |= evaluation.likelihood(model, held.turns, pad_id, name)
        if held.prompts and response is not None:
            replies[name] = evaluation.replies(
                model,
                work.fitting,
                held.prompts,
                reward=rewarded,
                scorer=scorer,
                response_tokens=response.tokens,
                temperature=recipe.temperature,
                seed=work.seed("eval"),
                between=work.stop_evaluation,
            )
            figures[name]["score"] = of_mean(replies[name].scores)
    if scorer is not None and held.pairs:
        figures["reward"] = {"pair accuracy": evaluation.pair_accuracy(scorer, held.pairs, pad_id)}
    if scorer is not None and {"sft", "rl"} <= replies.keys():
        figures["rl"]["win rate over sft"] = evaluation.win_rate(replies["rl"], replies["sft"])
    shown = [
        {"prompt": prompt.row.prompt, **{name: said.texts[i] for name, said in replies.items()}}
        for i, prompt in enumerate(held.prompts[:SHOWN])
    ]
    work.run.record(**{"eval/step": 1, "eval/peak_bytes": memory.peak_bytes()})
    basis = measured.basis(work.run, work.recipe, [*names, *(["reward"] if scorer is not None else [])])
    work.run.write_json("eval.json", {"figures": evaluation.as_json(figures), "samples": shown, "basis": asdict(basis)})


SHOWN = 8
"""Held-out prompts whose responses are kept for the report."""


def _reference(work: Work, how: Algorithm, config: Any, policy: Any) -> Callable[[Batch], Tensor | None]:  # noqa: ANN401
    """What the policy was before says of a batch: nothing where no coefficient asks for it.

    With adapters it is the policy without them; else a copy.
    """
    recipe = needed_rl(work)
    if "reference" not in how.NEEDS or (recipe.target_kl is None and getattr(config, "kl_coefficient", 1.0) == 0.0):
        return lambda batch: None
    adapted = work.recipe.lora is not None
    if adapted:
        model = policy
    else:
        model = work.strategy.frozen(work.load(work.policy_before()).model.requires_grad_(False), work.ranks)

    def says(batch: Batch) -> Tensor:
        with torch.no_grad(), lora.off(model):
            return sharing.by_share(
                lambda part: forward.logprobs(model, part, temperature=recipe.temperature), batch, work.ranks
            )

    return says


def _learner(work: Work, how: Algorithm, policy: Any) -> tuple[Learner, Callable[[], AbstractContextManager[Any]]]:  # noqa: ANN401
    """The policy with its optimiser, and the critic with its own, which starts from the reward model, else from 0.

    Beside it what puts the policy's weights together.
    """
    recipe = needed_rl(work)
    critic = critic_optimiser = None
    warmup_steps = recipe.warmup_steps
    if "critic" in how.NEEDS:
        with lora.merged(policy):
            critic = (
                work.rewarded("model").requires_grad_(True)
                if recipe.reward == "model"
                else heads.from_language_model(policy, seed=None)
            )
        schedule = Schedule(learning_rate=recipe.critic_learning_rate, warmup_steps=warmup_steps)
        critic_learning = work.strategy.learning(critic, work.ranks, schedule)
        critic, critic_optimiser = critic_learning.model, critic_learning.optimiser
    schedule = Schedule(learning_rate=recipe.learning_rate, warmup_steps=warmup_steps)
    learning = work.strategy.learning(policy, work.ranks, schedule)
    learner = Learner(
        algorithm=how,
        policy=learning.model,
        policy_optimiser=learning.optimiser,
        critic=critic,
        critic_optimiser=critic_optimiser,
        temperature=recipe.temperature,
        epochs=recipe.epochs,
        minibatches=recipe.minibatches,
        micro_rows=recipe.micro_rows,
        ranks=work.ranks,
    )
    return learner, learning.whole


def _chosen(recipe: Recipe, stages: Sequence[str] | None) -> list[str]:
    there = [stage for stage in STAGES if getattr(recipe, stage) is not None]
    for stage in stages or ():
        if stage not in there:
            raise StageError(
                given=f"stage {stage!r}",
                allowed=", ".join(there),
                todo=f"add [{stage}] to the recipe, or choose another",
            )
    return [stage for stage in there if stages is None or stage in stages]
