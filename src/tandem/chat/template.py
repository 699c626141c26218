"""How texts become tokens: one place for all stages, so that they cannot disagree on templates or EOS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tandem.chat.errors import RowsError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Template:
    """A tokenizer and its chat template.

    Attributes:
        tokenizer: Of transformers, completed by `tokenizers.completed`.
    """

    tokenizer: Any

    @property
    def eos_id(self) -> int:
        """The token that ends a response."""
        return int(self.tokenizer.eos_token_id)

    @property
    def pad_id(self) -> int:
        """The token that fills up."""
        return int(self.tokenizer.pad_token_id)

    def prompt(self, text: str) -> list[int]:
        """Return the tokens of a user's one message, up to where the model's turn begins; may raise as `chat` does."""
        return self.chat([{"role": "user", "content": text}])

    def chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Return the tokens of a whole talk, up to where the model's turn begins.

        Raises:
            RowsError: The model's chat template does not take these messages.
        """
        try:
            rendered = self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template refuses in ways of its own, such as two turns of one side
            roles = [message["role"] for message in messages]
            raise RowsError(
                given=f"messages of {', '.join(roles)}, which the model's chat template does not take: {error}",
                allowed="those that it was written for",
                todo="leave the system prompt out" if "system" in roles else "change the text, or the template",
            ) from error
        return self._encode(rendered)

    def response(self, text: str) -> list[int]:
        """Return the tokens of a response, EOS included."""
        return [*self._encode(text), self.eos_id]

    def text(self, tokens: Sequence[int]) -> str:
        """Return what tokens of a response say, up to and without the first EOS."""
        tokens = list(tokens)
        if self.eos_id in tokens:
            tokens = tokens[: tokens.index(self.eos_id)]
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
