"""What models are worth on rows that nothing was trained on, each figure with its interval.

Shapes: B rows, T slots.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from tandem.chat import forward, heads
from tandem.chat.data.batches import padded
from tandem.chat.data.rows import Pair, Question, Response
from tandem.chat.data.turns import Prompt, Turn
from tandem.chat.drawing import draw, score
from tandem.chat.errors import DivergedError
from tandem.chat.interval import Interval, of_mean
from tandem.learn.masking import only

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tandem.chat.data.rows import Rows
    from tandem.chat.data.turns import Fitting, Length
    from tandem.chat.scoring import Rewarded

ROWS_AT_ONCE = 64

MOST_PERPLEXITY = 1e12
"""A larger one is no figure to read, and soon none that a float holds: of a model that only ever errs."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Replies:
    """What a model says to held-out prompts.

    Attributes:
        texts: The responses.
        scores: What each earns, without any penalty.
        model_scores: What the reward model says of each; empty without one.
    """

    texts: list[str]
    scores: list[float]
    model_scores: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Held-out rows, as tokens.

    Attributes:
        turns: With responses.
        pairs: With two.
        prompts: To respond to.
    """

    turns: list[Turn]
    pairs: list[tuple[Turn, Turn]]
    prompts: list[Prompt]

    @classmethod
    def of(cls, rows: Rows, fitting: Fitting, *, most: int, response: Length | None) -> Held:
        """Take up to `most` rows of each kind, spread evenly over all; prompts only where responses are drawn."""
        responses, pairs, questions = rows.held(Response), rows.held(Pair), rows.held(Question)
        return cls(
            turns=fitting.responses(_spread(responses, most)) if responses else [],
            pairs=fitting.pairs(_spread(pairs, most)) if pairs else [],
            prompts=fitting.prompts(_spread(questions, most), response) if questions and response else [],
        )


def _spread(rows: Sequence[T], most: int) -> list[T]:
    count = min(most, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]


@torch.no_grad()
def losses(model: Any, turns: Sequence[Turn], pad_id: int) -> tuple[list[float], list[int]]:  # noqa: ANN401
    """Return the summed loss of each response in nats, and its tokens."""
    nats: list[float] = []
    tokens: list[int] = []
    for start in range(0, len(turns), ROWS_AT_ONCE):
        batch = padded(turns[start : start + ROWS_AT_ONCE], pad_id)
        nats += (-only(forward.logprobs(model, batch), batch.mask_BT)).sum(dim=1).tolist()
        tokens += batch.mask_BT.sum(dim=1).tolist()
    return nats, tokens


def mean_loss(model: Any, turns: Sequence[Turn], pad_id: int) -> float:  # noqa: ANN401
    """Return the mean loss of a token in nats."""
    nats, tokens = losses(model, turns, pad_id)
    return sum(nats) / max(1, sum(tokens))


def likelihood(model: Any, turns: Sequence[Turn], pad_id: int, name: str) -> dict[str, Interval]:  # noqa: ANN401
    """Return the perplexity of held-out responses by its name; rows are resampled with their tokens.

    Where it, or an end of its interval, is above `MOST_PERPLEXITY`, its logarithm takes its place: the mean loss.

    Raises:
        DivergedError: The loss of the model of that name is no finite number.
    """
    nats, tokens = losses(model, turns, pad_id)
    mean = sum(tokens) / max(1, len(tokens))
    # the ratio of two means, linearised about itself: each row's share of what the ratio is off by
    ratio = sum(nats) / max(1, sum(tokens))
    if not math.isfinite(ratio):
        raise DivergedError(
            given=f"the loss of model {name} on held-out rows is {ratio}",
            allowed="finite losses",
            todo=f"remove models/{name}, lower the learning rate or look at the data, and train it anew",
        )
    spread = of_mean([ratio + (n - ratio * t) / mean for n, t in zip(nats, tokens, strict=True)])
    loss = Interval(ratio, spread.low, spread.high, len(nats))
    if max(loss.mean, loss.high) > math.log(MOST_PERPLEXITY):
        return {"loss, nats a token": loss}
    return {"perplexity": Interval(math.exp(loss.mean), math.exp(loss.low), math.exp(loss.high), loss.rows)}


@torch.no_grad()
def pair_accuracy(scorer: Any, pairs: Sequence[tuple[Turn, Turn]], pad_id: int) -> Interval:  # noqa: ANN401
    """Return how often a reward model prefers what people did; a tie is half right."""
    right: list[float] = []
    for start in range(0, len(pairs), ROWS_AT_ONCE):
        part = pairs[start : start + ROWS_AT_ONCE]
        chosen_P, rejected_P = (heads.scores(scorer, padded(list(side), pad_id)) for side in zip(*part, strict=True))
        right += (0.5 + 0.5 * (chosen_P - rejected_P).sign()).tolist()
    return of_mean(right)


@torch.no_grad()
def replies(
    model: Any,  # noqa: ANN401 - transformers has no types
    fitting: Fitting,
    prompts: Sequence[Prompt],
    *,
    reward: Rewarded | Any,  # noqa: ANN401 - or a reward model
    scorer: Any,  # noqa: ANN401 - transformers has no types
    response_tokens: int,
    temperature: float,
    seed: int,
    between: Callable[[], None],
) -> Replies:
    """Let a model respond to all prompts, and score it; `between` is called before each of generation's steps."""
    found = Replies([], [], [])
    for start in range(0, len(prompts), ROWS_AT_ONCE):
        drawn = draw(
            model,
            fitting.template,
            prompts[start : start + ROWS_AT_ONCE],
            response_tokens=response_tokens,
            temperature=temperature,
            group=1,
            seed=seed + start,
            between=between,
        )
        found.texts.extend(drawn.texts)
        found.scores.extend(score(drawn, reward, 0.0)[1].tolist())
        if scorer is not None:
            found.model_scores.extend(heads.scores(scorer, drawn.batch).tolist())
    return found


def win_rate(ours: Replies, theirs: Replies) -> Interval:
    """Return how often the reward model scores our response above theirs to the same prompt; a tie is half."""
    pairs = zip(ours.model_scores, theirs.model_scores, strict=True)
    return of_mean([0.5 + 0.5 * ((a > b) - (a < b)) for a, b in pairs])


def as_json(figures: dict[str, dict[str, Interval]]) -> dict[str, Any]:
    """Return figures by model and name, as JSON has them."""
    return {model: {name: asdict(one) for name, one in by_name.items()} for model, by_name in figures.items()}
