"""Rows: a prompt and its response, a prompt and two responses of which one is preferred, a prompt and its answer.

    rows = gather(recipe.data, seed=0, say=print)
    rows.sft[0]          # the first source's responses to imitate

Which prompts serve which phase, and which are held out, follows from the prompt's text and the seed alone: the same
prompt never serves two, however often and wherever it stands.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import xxhash

from tandem.chat.data import sources
from tandem.chat.errors import RowsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tandem.chat.recipe import Data, Source

SHOWN = 3
"""How many bad rows are shown of each source."""


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
    """

    sft: list[list[Response]] = field(default_factory=list)
    reward: list[list[Pair]] = field(default_factory=list)
    rl: list[list[Question]] = field(default_factory=list)
    held_out: list[Row] = field(default_factory=list)
    bad: dict[str, int] = field(default_factory=dict)

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
    """Read all sources.

    Args:
        data: The recipe's part.
        seed: Of the split.
        say: Is told of bad rows.

    Raises:
        RowsError: A source without a good row, or a bad row where none is allowed.
    """
    rows = Rows()
    for source in data.sources:
        parts: dict[str, list[Any]] = {"sft": [], "reward": [], "rl": []}
        bad: list[str] = []
        good = 0
        for number, raw in enumerate(sources.read(Path(source.path))):
            made = raw if isinstance(raw, str) else _rows_of(raw, source, number)
            if isinstance(made, str):
                bad.append(made)
                if data.bad_rows == "stop":
                    raise RowsError(
                        given=f"data {source.path}: {made}",
                        allowed="good rows alone, as data.bad_rows = 'stop' wants it",
                        todo="correct the row, or let bad ones be skipped",
                    )
                continue
            good += 1
            _share_out(made, data, seed, parts, rows.held_out)
        if not any(parts.values()):
            raise _nothing_left(source, data, good, bad)
        if bad:
            rows.bad[source.path] = len(bad)
            say(f"{source.path}: {len(bad)} bad rows skipped: " + "; ".join(bad[:SHOWN]))
        rows.sft.append(parts["sft"])
        rows.reward.append(parts["reward"])
        rows.rl.append(parts["rl"])
    return rows


def _nothing_left(source: Source, data: Data, good: int, bad: list[str]) -> RowsError:
    if good:
        return RowsError(
            given=f"data {source.path}: none of {good:,} good rows is left to train on",
            allowed=f"a share of them: data.held_out is {data.held_out:g}, data.split {list(data.split)}",
            todo="lower data.held_out, or give a stage that they serve a share in data.split",
        )
    what = f"no good row, {len(bad):,} bad ones, such as: {bad[0]}" if bad else "it is empty"
    return RowsError(
        given=f"data {source.path}: {what}",
        allowed="rows with the columns that the recipe names",
        todo="look at the file, or at data.sources",
    )


def place(prompt: str, seed: int) -> float:
    """Return where a prompt stands in [0, 1), the same wherever and whenever it is asked."""
    return xxhash.xxh3_64_intdigest(prompt.encode("utf-8", "surrogatepass"), seed=seed) / 2**64


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


def _share_out(made: dict[str, Row], data: Data, seed: int, parts: dict[str, list[Any]], held_out: list[Row]) -> None:
    """Give a prompt's rows to one phase, or hold them all out."""
    at = place(next(iter(made.values())).prompt, seed)
    if at < data.held_out:
        held_out += made.values()
        return
    shares = {
        phase: share
        for phase, share in zip(("sft", "reward", "rl"), data.split, strict=True)
        if phase in made and share
    }
    left = (at - data.held_out) / (1.0 - data.held_out) * sum(shares.values())
    for phase, share in shares.items():
        left -= share
        if left < 0.0 or phase == list(shares)[-1]:
            parts[phase].append(made[phase])
            return


def is_unicode(text: str) -> bool:
    """Whether no half of a surrogate pair stands alone in it, as JSON allows and no encoding does."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
