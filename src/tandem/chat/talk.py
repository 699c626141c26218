"""A talk with a run's model: its history, a system prompt, and replies as they are drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from tandem.chat import memory, models, placing
from tandem.chat.data.rows import is_unicode
from tandem.chat.engine.generate import Sampling, generate
from tandem.chat.errors import RowsError, StageError
from tandem.chat.run_folder import RunFolder
from tandem.chat.streaming import Stream

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAMES = ("rl", "sft", "start", "rl-average")
"""In the order in which one is looked for that is not named."""


@dataclass(slots=True)
class Talk:
    """A talk.

    Attributes:
        loaded: The model.
        temperature: At which tokens are drawn; 0 takes the likeliest.
        tokens: Of a reply at most.
        generator: Where chance comes from.
        system: What the model is told first.
        messages: What was said so far.
    """

    loaded: models.Loaded
    temperature: float
    tokens: int
    generator: torch.Generator
    system: str = ""
    messages: list[dict[str, str]] = field(default_factory=list)

    def forget(self) -> None:
        """Begin anew."""
        self.messages.clear()

    def say(self, text: str, on_text: Callable[[str], None] = lambda piece: None) -> str:
        """Say something and return the reply.

        Args:
            text: What to say.
            on_text: Is told each piece of the reply as soon as it is whole text.

        Raises:
            RowsError: The message is no Unicode, alone longer than the context (earlier ones go by themselves), or one
                that the chat template does not take. What is not answered is forgotten.
            ShortOfMemoryError: It does not fit.
        """
        _check_unicode(text, "a message")
        self.messages.append({"role": "user", "content": text})
        try:
            reply = self._answer(on_text)
        except BaseException:
            self.messages.pop()
            raise
        self.messages.append({"role": "assistant", "content": reply})
        return reply

    def _answer(self, on_text: Callable[[str], None]) -> str:
        prompt = self._fitting()
        template = self.loaded.template
        stream = Stream(template)
        pieces: list[str] = []

        def show(piece: str) -> None:
            pieces.append(piece)
            on_text(piece)

        def on_tokens(rows: list[int], tokens: list[int]) -> None:
            assert rows == [0]
            show(stream.add(tokens[0]))

        sampling = Sampling(max_new_tokens=self.tokens, temperature=self.temperature, eos_id=template.eos_id)
        with memory.shortage_in_words(memory.OF_ASKING):
            generate(
                self.loaded.model,
                [prompt],
                sampling,
                generator=self.generator,
                pad_id=template.pad_id,
                on_tokens=on_tokens,
            )
        show(stream.rest())
        return "".join(pieces)

    def _fitting(self) -> list[int]:
        """The tokens of the talk, without its oldest turns where the context is too short for all."""
        first = [{"role": "system", "content": self.system}] if self.system else []
        for start in range(0, len(self.messages), 2):
            tokens = self.loaded.template.chat([*first, *self.messages[start:]])
            if len(tokens) <= self._room:
                return tokens
        alone = len(self.loaded.template.chat(self.messages[-1:]))
        told = f", {len(tokens)} with the system prompt," if first else ""
        shorter = ", or give a shorter --system" if first and alone <= self._room else ""
        message = f"a message of {alone} tokens{told}"
        raise self._too_long(message, len(tokens), "say less" + shorter)

    @property
    def _room(self) -> int:
        """The tokens that a prompt may have."""
        return self.loaded.context_tokens - self.tokens

    def _check_system(self) -> None:
        """Refuse a system prompt beside which no message has room."""
        said = [{"role": "system", "content": self.system}, {"role": "user", "content": ""}]
        tokens = len(self.loaded.template.chat(said)) if self.system else 0
        if tokens > self._room:
            prompt = f"a system prompt (--system) of {tokens} tokens"
            raise self._too_long(prompt, tokens, "give a shorter one")

    def _too_long(self, what: str, tokens: int, todo: str) -> RowsError:
        helps = tokens < self.loaded.context_tokens
        return RowsError(
            given=f"{what} and a reply of up to {self.tokens}",
            allowed=f"{self.loaded.context_tokens} tokens together, which is the model's context",
            todo=todo + (", or ask for a shorter reply: --tokens" if helps else ""),
        )


def begun(
    run: Path, *, model: str, system: str, temperature: float, tokens: int, seed: int, device: str | None = None
) -> Talk:
    """Begin a talk with a run's model.

    Args:
        run: The run's folder.
        model: Which; empty for that of the last stage that is done.
        system: What it is told first.
        temperature: At which tokens are drawn.
        tokens: Of a reply at most.
        seed: Of chance.
        device: Where to; None for the recipe's.

    Raises:
        StageError: It is no run, or has no such model.
        RowsError: The system prompt is no Unicode, too long, or one that the chat template does not take.
        DeviceError: The device is not there.
        ShortOfMemoryError: The model does not fit.
    """
    _check_unicode(system, "a system prompt")
    _, loaded = model_of(run, model, device)
    tokens = min(tokens, loaded.context_tokens // 2)
    talk = Talk(loaded, temperature, tokens, torch.Generator().manual_seed(seed), system)
    talk._check_system()
    return talk


def _check_unicode(text: str, what: str) -> None:
    """Refuse bytes that were no UTF-8, which Python reads as lone surrogates."""
    if not is_unicode(text):
        raise RowsError(
            given=f"{what} that is not UTF-8: {text[:60]!r}", allowed="text in UTF-8", todo="convert it: iconv -t UTF-8"
        )


def model_of(run: Path, name: str, device: str | None = None) -> tuple[str, models.Loaded]:
    """Return a run's model and what it is called.

    Args:
        run: The run's folder.
        name: Which; empty for that of the last stage that is done.
        device: Where to; None for the recipe's.

    Raises:
        StageError: It is no run, or has no such model.
        DeviceError: The device is not there.
        ShortOfMemoryError: The model does not fit.
    """
    folder = RunFolder(run)
    recipe = folder.recipe()
    there = [stage for stage in NAMES if folder.has(stage)]
    if not there or (name and name not in there):
        raise StageError(
            given=f"model {name or 'of any stage'!r} of {run}",
            allowed=", ".join(there) or "none is there yet",
            todo="train it first, or choose another",
        )
    name = name or there[0]
    with memory.shortage_in_words(memory.OF_ASKING):
        return name, models.read(folder.model(name), placing.asked_for(recipe, device))
