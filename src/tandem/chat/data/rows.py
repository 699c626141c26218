"""Rows: a prompt and its response, a prompt and two responses of which one is preferred, a prompt and its answer.

    rows = gather(recipe.data, seed=0, say=print)
    rows.sft[0]          # the first source's responses to imitate

The same prompt never serves two phases, nor is held out as well, however often and wherever it stands (`split`). A row
whose prompt serves a phase that the row cannot is left out, and told.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tandem.chat.data import sources, split
from tandem.chat.errors import RowsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tandem.chat.recipe import Data, Source

SHOWN = 3
"""How many bad rows are shown of each source."""

ONE_EACH = "a prompt serves one, by data.split among all that its rows can serve (a source's phases narrow that)"
"""Why a row is left out whose prompt stands elsewhere too."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response to imitate."""

    prompt: str
    response: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses of which one is preferred."""

    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt to respond to, and what a reward function may check it by."""

    prompt: str
    answer: str


Row = Response | Pair | Question
T = TypeVar("T", Response, Pair, Question)


@dataclass(slots=True)
class Rows:
    """Rows by phase, a list for each source, and those that are held out.

    Attributes:
        sft: To imitate.
        reward: To compare.
        rl: To respond to.
        held_out: Rows of all kinds that nothing is trained on.
        bad: How many rows were passed over, by source.
        left_out: How many rows each phase lacks because their prompts serve another.
    """

    sft: list[list[Response]] = field(default_factory=list)
    reward: list[list[Pair]] = field(default_factory=list)
    rl: list[list[Question]] = field(default_factory=list)
    held_out: list[Row] = field(default_factory=list)
    bad: dict[str, int] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    def held(self, kind: type[T]) -> list[T]:
        """Return the held-out rows of a kind."""
        return [row for row in self.held_out if isinstance(row, kind)]

    def texts(self) -> Iterator[str]:
        """Yield what is trained on, for a tokenizer."""
        for responses in self.sft:
            yield from (text for row in responses for text in (row.prompt, row.response))
        for pairs in self.reward:
            yield from (text for row in pairs for text in (row.prompt, row.chosen, row.rejected))
        for questions in self.rl:
            yield from (row.prompt for row in questions)


def gather(data: Data, *, seed: int, say: Callable[[str], None]) -> Rows:
    """Read all sources; twice where rows of the same prompt cannot all serve the same phases.

    Args:
        data: The recipe's part.
        seed: Of the split.
        say: Is told of bad rows, and of those that are left out.

    Raises:
        RowsError: A source without a good row, or a bad row where none is allowed, or a source of which none is left.
    """
    rows, lines, seen = _read(data, seed, {})
    if unlike := seen.unlike():
        del rows  # there is room for them once
        rows, lines, _ = _read(data, seed, unlike)
    for line in lines:
        say(line)
    return rows


def _read(data: Data, seed: int, unlike: Mapping[int, int]) -> tuple[Rows, list[str], split.Seen]:
    """Return rows, what is to be said of them, and what each could serve.

    Args:
        data: The recipe's part.
        seed: Of the split.
        unlike: Phases of prompts that have others than those of each of their rows, by digest.
    """
    rows, lines, seen = Rows(), list[str](), split.Seen()
    for source in data.sources:
        parts: dict[str, list[Any]] = {"sft": [], "reward": [], "rl": []}
        bad: list[str] = []
        good = elsewhere = unshared = 0
        for made in _good(source, data, bad):
            good += 1
            digest, phases = split.digest_of(next(iter(made.values())).prompt, seed), split.phases_of(made)
            seen.add(digest, phases)
            phase = split.phase_of(digest, unlike.get(digest, phases), data)
            if phase == split.HELD_OUT:
                rows.held_out += made.values()
            elif phase is None:
                unshared += 1
            elif phase in made:
                parts[phase].append(made[phase])
            else:
                elsewhere += 1
                rows.left_out.update(made.keys())
        if not any(parts.values()):
            raise _nothing_left(source, data, good, elsewhere, bad)
        if bad:
            rows.bad[source.path] = len(bad)
            lines.append(f"{source.path}: {len(bad)} bad rows skipped: " + "; ".join(bad[:SHOWN]))
        if elsewhere:
            lines.append(f"{source.path}: {elsewhere:,} rows left out: their prompts serve another stage; {ONE_EACH}")
        if unshared:
            lines.append(f"{source.path}: {unshared:,} rows left out: data.split gives what they can serve no share")
        rows.sft.append(parts["sft"])
        rows.reward.append(parts["reward"])
        rows.rl.append(parts["rl"])
    return rows, lines, seen


def _good(source: Source, data: Data, bad: list[str]) -> Iterator[dict[str, Row]]:
    """Yield what each good row can serve, by phase; why others are bad is added to a list."""
    for number, raw in enumerate(sources.read(Path(source.path))):
        made = raw if isinstance(raw, str) else _rows_of(raw, source, number)
        if not isinstance(made, str):
            yield made
            continue
        bad.append(made)
        if data.bad_rows == "stop":
            raise RowsError(
                given=f"data {source.path}: {made}",
                allowed="good rows alone, as data.bad_rows = 'stop' wants it",
                todo="correct the row, or let bad ones be skipped",
            )


def _nothing_left(source: Source, data: Data, good: int, elsewhere: int, bad: list[str]) -> RowsError:
    if good:
        why = f": the prompts of {elsewhere:,} serve another stage; {ONE_EACH}" if elsewhere else ""
        return RowsError(
            given=f"data {source.path}: none of {good:,} good rows is left to train on{why}",
            allowed=f"a share of them: data.held_out is {data.held_out:g}, data.split {list(data.split)}",
            todo="lower data.held_out, or give a stage that they serve a share in data.split"
            + (" (a larger one), or leave the source out" if elsewhere else ""),
        )
    what = f"no good row, {len(bad):,} bad ones, such as: {bad[0]}" if bad else "it is empty"
    return RowsError(
        given=f"data {source.path}: {what}",
        allowed="rows with the columns that the recipe names",
        todo="look at the file, or at data.sources",
    )


def _rows_of(raw: Mapping[str, Any], source: Source, number: int) -> dict[str, Row] | str:
    """Return what a row can serve, by phase, or why it is bad: what is not empty must be text, but for an answer."""
    for column in (source.prompt, source.response, source.chosen, source.rejected, source.answer):
        value = raw.get(column)
        if isinstance(value, str) and not value.isascii() and not is_unicode(value):
            return f"row {number} has half of a surrogate pair in {column!r}, which is no text"
        if column not in (source.prompt, source.answer) and value is not None and not isinstance(value, str):
            return f"row {number} has {value!r:.40} for text in {column!r}"
    prompt = _text(raw.get(source.prompt))
    if prompt is None:
        return f"row {number} has no text {source.prompt!r}"
    found: dict[str, Row] = {}
    wanted = source.phases or ("sft", "reward", "rl")
    if "sft" in wanted and (response := _text(raw.get(source.response))):
        found["sft"] = Response(prompt, response)
    if "reward" in wanted:
        chosen, rejected = _text(raw.get(source.chosen)), _text(raw.get(source.rejected))
        if chosen is not None and rejected is not None:
            if chosen == rejected:
                return f"row {number} prefers a response to itself: {chosen[:40]!r}"
            found["reward"] = Pair(prompt, chosen, rejected)
    if "rl" in wanted and (source.phases is not None or source.answer in raw or "reward" in found):
        answer = raw.get(source.answer)
        found["rl"] = Question(prompt, "" if answer is None else str(answer))
    return found or f"row {number} has no text under {source.response!r}, {source.chosen!r} or {source.answer!r}"


def is_unicode(text: str) -> bool:
    """Whether no half of a surrogate pair stands alone in it, as JSON allows and no encoding does."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
