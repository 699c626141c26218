"""Rows as tokens: a prompt and a response that fit the context."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tandem.chat.data.rows import Question
from tandem.chat.errors import RowsError
from tandem.chat.template import Template

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tandem.chat.data.rows import Pair, Response


@dataclass(frozen=True, slots=True)
class Turn:
    """A prompt and a response.

    Attributes:
        tokens: Of both, the response's EOS included.
        prompt_tokens: Where the response begins.
    """

    tokens: tuple[int, ...]
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt to respond to, in tokens, beside its row."""

    tokens: tuple[int, ...]
    row: Question


@dataclass(frozen=True, slots=True)
class Length:
    """How long a response may get.

    Attributes:
        key: What of the recipe says so.
        tokens: EOS included.
    """

    key: str
    tokens: int


Row = TypeVar("Row")
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Fitting:
    """Makes tokens of rows and leaves out what does not fit.

    Attributes:
        template: How texts become tokens.
        context_tokens: What the model can look at.
        stop: Whether a row that does not fit is an error.
        say: Is told how many do not.
        at_once: Around the work on all rows, which may take long, so that a signal ends it.
    """

    template: Template
    context_tokens: int
    stop: bool
    say: Callable[[str], None]
    at_once: Callable[[], AbstractContextManager[None]] = nullcontext

    def turn(self, prompt: str, response: str) -> Turn:
        """Return a prompt with a response, whether it fits or not."""
        prompt_ids = self.template.prompt(prompt)
        return Turn((*prompt_ids, *self.template.response(response)), len(prompt_ids))

    def responses(self, rows: Sequence[Response]) -> list[Turn]:
        """Return those that fit."""
        return self._kept(rows, lambda row: self.turn(row.prompt, row.response), lambda turn: len(turn.tokens))

    def pairs(self, rows: Sequence[Pair]) -> list[tuple[Turn, Turn]]:
        """Return those of which both sides fit, the preferred one first."""
        return self._kept(
            rows,
            lambda row: (self.turn(row.prompt, row.chosen), self.turn(row.prompt, row.rejected)),
            lambda pair: max(len(turn.tokens) for turn in pair),
        )

    def prompts(self, rows: Sequence[Question], response: Length) -> list[Prompt]:
        """Return those that leave room for a response."""
        return self._kept(
            rows,
            lambda row: Prompt(tuple(self.template.prompt(row.prompt)), row),
            lambda prompt: len(prompt.tokens) + response.tokens,
            f"lower {response.key}",
        )

    def check(self, rows: Sequence[Row], fitted: Callable[[Sequence[Row]], Sequence[object]]) -> None:
        """Look whether any fits, no further than the first that does; at all where one that does not is an error.

        Args:
            rows: Which.
            fitted: `responses`, `pairs` or `prompts`.

        Raises:
            RowsError: None does.
        """
        for row in () if self.stop else rows:
            with suppress(RowsError):
                fitted([row])
                return
        fitted(rows)

    def _kept(
        self,
        rows: Iterable[Row],
        make: Callable[[Row], Made],
        tokens_of: Callable[[Made], int],
        *todo: str,
    ) -> list[Made]:
        with self.at_once():
            made = [make(row) for row in rows]
        kept = [one for one in made if tokens_of(one) <= self.context_tokens]
        lost = len(made) - len(kept)
        if not lost:
            return kept
        longest = max(map(tokens_of, made))
        if self.stop or not kept:
            raise RowsError(
                given=f"{lost} of {len(made)} rows need more than the model's context, the longest {longest} tokens",
                allowed=f"{self.context_tokens} tokens of prompt and response together",
                todo=", ".join(("shorten them", *todo, "or take a model with more context")),
            )
        self.say(f"{lost} of {len(made)} rows skipped: longer than the context of {self.context_tokens} tokens")
        return kept
