"""An update of policy and critic from a batch: minibatches, parts of them, and what the algorithm says of each.

Old log-probabilities and values come from the very forward passes that train, on the very same parts, so that in the
first minibatch every ratio is 1. Where a batch is one update of one part, it is one forward pass for both.

Shapes: B responses, T slots.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from tandem.chat import forward, heads, sharing
from tandem.chat.algorithm import Algorithm, Experience, Loss
from tandem.chat.data.batches import Batch
from tandem.chat.errors import DivergedError
from tandem.chat.off_policy import Behaviour, weighed
from tandem.learn.backward import backward
from tandem.learn.losses import sft
from tandem.learn.masking import Counts, masked_mean, only
from tandem.learn.ranks import Ranks
from tandem.learn.strategy import Steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed:
    """Supervised rows that are learnt beside (InstructGPT's PPO-ptx).

    Attributes:
        batch: The rows.
        coefficient: Of their loss in the policy's.
    """

    batch: Batch
    coefficient: float


@dataclass(frozen=True, slots=True)
class Said:
    """What the models say of a part: log-probabilities, and values where there is a critic."""

    logps_BT: Tensor
    values_BT: Tensor | None = None
    bootstrap_B: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that go through the models at once; of an idle part nothing counts."""

    rows: slice
    idle: bool = False


@dataclass(frozen=True, slots=True)
class Update:
    """Neighbouring rows that make one step, and this rank's parts of them: as many as each other rank's."""

    rows: slice
    parts: list[Part]


ALONE = Ranks()


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """A policy that learns; every rank is given the same batch and works on its share.

    Attributes:
        algorithm: A file of `chat/algorithms`.
        policy: The language model.
        policy_optimiser: Its optimiser.
        critic: The critic, where the algorithm needs one.
        critic_optimiser: Its optimiser.
        temperature: At which log-probabilities are taken.
        epochs: How often a batch is gone through.
        minibatches: Updates of an epoch.
        micro_rows: Responses that go through a model at once; 0 for all of a minibatch.
        ranks: Who learns together.
    """

    algorithm: Algorithm
    policy: Any
    policy_optimiser: Steps
    critic: Any = None
    critic_optimiser: Steps | None = None
    temperature: float = 1.0
    epochs: int = 1
    minibatches: int = 1
    micro_rows: int = 0
    ranks: Ranks = ALONE

    def learn(
        self,
        step: int,
        batch: Batch,
        config: Any,  # noqa: ANN401 - each algorithm has its own
        *,
        reference_logps_BT: Tensor | None,
        scores_B: Tensor | None = None,
        ended_B: Tensor | None = None,
        behaviour: Behaviour | None = None,
        mixed: Mixed | None = None,
    ) -> dict[str, float]:
        """Learn from a batch and return figures.

        Args:
            step: Of the run, from 0.
            batch: Prompts and responses.
            config: The algorithm's settings now.
            reference_logps_BT: Of the reference, where the algorithm needs them.
            scores_B: What each response earned.
            ended_B: Whether each ended by itself.
            behaviour: What drew them, where it was not the policy.
            mixed: Supervised rows to learn beside.

        Raises:
            DivergedError: The loss is no finite number; no weight has changed in that update.
            TrainingInputError: Something the algorithm needs is missing or not finite.
        """
        updates = self._updates(batch)
        at_once = self.epochs == 1 and len(updates) == 1 and len(updates[0].parts) == 1
        with torch.set_grad_enabled(at_once):
            said_first = [[self._say(batch, part) for part in update.parts] for update in updates]
        first = [self._of_all(update, said) for update, said in zip(updates, said_first, strict=True)]
        experience = self._experience(batch, first, reference_logps_BT, scores_B, ended_B)
        targets, weights = self.algorithm.prepare(experience, config), dict[str, float]()
        if behaviour is not None:
            targets, weights = weighed(targets, experience, behaviour, self.algorithm.RATIO)
        figures: dict[str, float] = {}
        for number in range(self.epochs * len(updates)):
            update = updates[number % len(updates)]
            of = Counts.of(batch.mask_BT[update.rows])
            sums: dict[str, float] = {}
            for part in update.parts:
                said = said_first[0][0] if at_once else self._say(batch, part)
                here = experience.rows(part.rows)
                if part.idle:
                    here = replace(here, mask_BT=torch.zeros_like(here.mask_BT))
                loss = self.algorithm.loss(said.logps_BT, said.values_BT, here, targets.rows(part.rows), config, of)
                backward(loss.total)
                _add(sums, loss)
                if number == 0:
                    figures["first_ratio_off"] = max(figures.get("first_ratio_off", 0.0), _ratio_off(said, here))
            if mixed is not None:
                sums["mixture"] = self._mix(mixed)
            sums = self.ranks.sums(**sums)
            self._step(step * self.epochs * len(updates) + number, sums)
            for name in sums:
                figures[name] = figures.get(name, 0.0) + sums[name] / (self.epochs * len(updates))
        figures["first_ratio_off"] = self.ranks.most(figures["first_ratio_off"])
        return figures | _figures(experience) | weights

    def _updates(self, batch: Batch) -> list[Update]:
        """Cut rows into updates, and this rank's share of each into parts; of two, for pairs."""
        rows, unit = len(batch.mask_BT), 2 if self.algorithm.GROUP == "pair" else 1
        size = math.ceil(rows / unit / self.minibatches) * unit
        updates = [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
        return [Update(update, self._parts(update, unit, batch.group)) for update in updates]

    def _parts(self, update: slice, unit: int, group: int) -> list[Part]:
        count = update.stop - update.start
        if update.start % group == 0 and count % group == 0 and count // group >= self.ranks.size:
            together = max(unit, group)  # whose prompt is then computed once
        else:
            together = unit
        shares = self.ranks.shares(count, together)
        most = max(share.stop - share.start for share in shares)
        micro = max(unit, self.micro_rows // unit * unit) if self.micro_rows else most
        own = shares[self.ranks.rank]
        start, stop = update.start + own.start, update.start + own.stop
        parts = [Part(slice(at, min(at + micro, stop))) for at in range(start, stop, micro)]
        idle = Part(slice(update.start, update.start + unit), idle=True)
        return parts + [idle] * (math.ceil(most / micro) - len(parts))

    def _of_all(self, update: Update, said: list[Said]) -> Said:
        """What all ranks said of an update's rows, without their graph."""
        if self.ranks.size == 1 and len(said) == 1:
            return said[0]
        mine = [one for one, part in zip(said, update.parts, strict=True) if not part.idle]

        def whole(name: str) -> Tensor | None:
            if getattr(said[0], name) is None:
                return None
            none_yet = getattr(said[0], name).detach()[:0]
            return self.ranks.rows(torch.cat([none_yet, *(getattr(one, name).detach() for one in mine)]))

        logps_BT = whole("logps_BT")
        assert logps_BT is not None
        return Said(logps_BT, whole("values_BT"), whole("bootstrap_B"))

    def _say(self, batch: Batch, asked: Part) -> Said:
        """Run the models on a part, without the slots that all of its rows leave empty."""
        rows = asked.rows
        width, all_slots = int(batch.real_BT[rows].any(dim=0).nonzero().max()) + 1, batch.real_BT.shape[1]
        whole_groups = rows.start % batch.group == 0 and (rows.stop - rows.start) % batch.group == 0
        part = Batch(
            batch.tokens_BT[rows, :width],
            batch.real_BT[rows, :width],
            batch.mask_BT[rows, :width] & (not asked.idle),
            group=batch.group if whole_groups else 1,
        )
        right = (0, all_slots - width)
        self.policy.eval()  # no dropout, whoever had it before: old and new are to be the same function
        logps_BT = pad(forward.logprobs(self.policy, part, temperature=self.temperature), right)
        if self.critic is None:
            return Said(logps_BT)
        self.critic.eval()
        values_BT, bootstrap_B = heads.values(self.critic, part)
        return Said(logps_BT, pad(values_BT, right), bootstrap_B)

    def _experience(
        self,
        batch: Batch,
        said: list[Said],
        reference_logps_BT: Tensor | None,
        scores_B: Tensor | None,
        ended_B: Tensor | None,
    ) -> Experience:
        values_BT = bootstrap_B = None
        if self.critic is not None:
            values_BT = torch.cat([one.values_BT for one in said if one.values_BT is not None]).detach()
            bootstrap_B = torch.cat([one.bootstrap_B for one in said if one.bootstrap_B is not None]).detach()
            if ended_B is not None:
                bootstrap_B = bootstrap_B.masked_fill(ended_B, 0.0)
        return Experience(
            mask_BT=batch.mask_BT,
            old_logps_BT=torch.cat([one.logps_BT for one in said]).detach(),
            reference_logps_BT=reference_logps_BT,
            scores_B=scores_B,
            values_BT=values_BT,
            bootstrap_B=bootstrap_B,
        )

    def _mix(self, mixed: Mixed) -> float:
        part = sharing.share(mixed.batch, self.ranks)
        loss = sft(forward.logprobs(self.policy, part), part.mask_BT, Counts.of(mixed.batch.mask_BT))
        backward(mixed.coefficient * loss)
        return float(loss.detach())

    def _step(self, update: int, sums: dict[str, float]) -> None:
        broken = {name: value for name, value in sums.items() if not math.isfinite(value)}
        if broken:
            raise DivergedError(
                given=f"update {update}: " + ", ".join(f"{name} is {value}" for name, value in broken.items()),
                allowed="finite losses",
                todo="lower the learning rate or look at the rewards; the run is whole up to its last checkpoint",
            )
        sums["gradient_norm"] = self.policy_optimiser.step(update)
        if self.critic_optimiser is not None:
            sums["critic_gradient_norm"] = self.critic_optimiser.step(update)


def _add(sums: dict[str, float], loss: Loss) -> None:
    """Add a part's share of a batch's loss to those of the parts before."""
    for name, part in {"loss": loss.total.detach(), **loss.parts}.items():
        sums[name] = sums.get(name, 0.0) + float(part)


def _ratio_off(said: Said, experience: Experience) -> float:
    """How far the largest ratio is from 1."""
    assert experience.old_logps_BT is not None
    off_BT = only((said.logps_BT.detach() - experience.old_logps_BT).exp() - 1.0, experience.mask_BT)
    return float(off_BT.abs().max())


def _figures(experience: Experience) -> dict[str, float]:
    mask_BT = experience.mask_BT
    found = {"tokens": float(mask_BT.sum()), "length_tokens": float(mask_BT.sum(dim=1).float().mean())}
    old_BT = experience.old_logps_BT
    if old_BT is not None:
        found["surprise"] = -float(masked_mean(old_BT, mask_BT))
    if old_BT is not None and experience.reference_logps_BT is not None:
        away_BT = only(old_BT, mask_BT) - only(experience.reference_logps_BT, mask_BT)
        found["kl_nats"] = float(away_BT.sum(dim=1).mean())
    return found
