"""Rewards that are functions: found by name, called, and checked.

    rewarded = load("rewards:in_words", Path("examples/chat"))
    scores_B = rewarded(prompts, responses, answers)

A reward function takes three lists of texts, as long as each other, and returns a number for each response.
"""

from __future__ import annotations

import inspect
import math
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch

from tandem.chat.errors import RewardError
from tandem.core import plug
from tandem.core.errors import in_words
from tandem.learn.bounds import MOST

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

FAMILY = "chat.rewards"

SIGNATURE = "score(prompts, responses, answers) -> a number for each response, from -1e18 to 1e18"


@dataclass(frozen=True, slots=True)
class Rewarded:
    """A reward function, checked at every call.

    Attributes:
        name: As the recipe has it.
        function: What it calls.
    """

    name: str
    function: Callable[[Sequence[str], Sequence[str], Sequence[str]], Sequence[float]]

    def __call__(self, prompts: Sequence[str], responses: Sequence[str], answers: Sequence[str]) -> Tensor:
        """Return scores_B.

        Raises:
            RewardError: It raises, or what it returns is not one number for each response.
        """
        try:
            given = self.function(list(prompts), list(responses), list(answers))  # its own, to change as it likes
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            frames = [at for at in traceback.extract_tb(error.__traceback__) if at.filename != __file__]
            where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
            raise RewardError(
                given=f"reward {self.name!r} raised {in_words(error)}{where}",
                allowed=SIGNATURE,
                todo="correct it there",
            ) from error
        try:
            scores = [float(score) for score in given]
        except Exception as error:  # a generator runs here, and a tensor of several numbers fails in its own way
            raise RewardError(
                given=f"reward {self.name!r} returned {type(given).__name__}: {in_words(error, kind=False)}",
                allowed=SIGNATURE,
                todo="correct it",
            ) from error
        if len(scores) != len(responses):
            raise RewardError(
                given=f"reward {self.name!r} returned {len(scores)} scores for {len(responses)} responses",
                allowed=SIGNATURE,
                todo="return one for each",
            )
        for score, prompt, response in zip(scores, prompts, responses, strict=True):
            if not abs(score) <= MOST:  # as NaN is not
                raise RewardError(
                    given=f"reward {self.name!r} returned {score} for {response[:60]!r} to {prompt[:60]!r}",
                    allowed=SIGNATURE,
                    todo="return 0 for what cannot be scored"
                    if not math.isfinite(score)
                    else "scale the scores down, all alike",
                )
        return torch.tensor(scores)


def load(name: str, folder: Path) -> Rewarded:
    """Find a reward function.

    Args:
        name: A file of `chat/rewards`, or `module:function`.
        folder: Where `module` is looked for first: the recipe's folder.

    Raises:
        RewardError: It is no function of three lists.
        UnknownPluginError: There is no such name or module, or the module cannot be imported.
        MissingPackageError: What its module needs is not installed.
    """
    found = plug.load(FAMILY, name, beside=folder)
    function = getattr(found, "score", found)
    if not callable(function):
        raise RewardError(given=f"reward {name!r} is no function", allowed=SIGNATURE, todo="name a function")
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        raise RewardError(given=f"reward {name!r} is an async function", allowed=SIGNATURE, todo="make it a plain one")
    _check_takes_three(name, function)
    return Rewarded(name, cast("Callable[..., Sequence[float]]", function))


def _check_takes_three(name: str, function: Callable[..., object]) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # one of C may have none
    try:
        signature.bind([], [], [])
    except TypeError as error:
        raise RewardError(
            given=f"reward {name!r} takes {signature}, not three lists: {error}", allowed=SIGNATURE, todo="correct it"
        ) from error
