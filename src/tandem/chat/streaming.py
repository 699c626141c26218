"""A reply's text as it is drawn: whole letters only, and nothing that a stop may begin with.

stream = Stream(template, stops=("END",))
for token in tokens:
    print(stream.add(token), end="")
print(stream.rest())
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tandem.chat.template import Template

HALF = "\ufffd"
"""What a letter of several bytes reads as while some are yet to come."""


@final
class Stream:
    """A reply's text as it is drawn.

    Args:
        template: How tokens become text.
        stops: Texts before which the reply ends.

    Attributes:
        tokens: What was drawn so far.
        stopped: Whether a stop was found; what is added afterwards is passed over.
    """

    def __init__(self, template: Template, stops: Sequence[str] = ()) -> None:
        self.tokens: list[int] = []
        self.stopped = False
        self._template, self._stops = template, tuple(stops)
        self._text = ""
        self._shown = 0
        self._from = self._read = 0  # the tokens between are in the text; those after them are read beside them

    def add(self, token: int) -> str:
        """Take the next token and return what can be shown because of it."""
        if self.stopped:
            return ""
        self.tokens.append(token)
        if not self._take():
            return ""
        places = [place for stop in self._stops if (place := self._text.find(stop, self._shown)) >= 0]
        if places:
            self._text, self.stopped = self._text[: min(places)], True
            return self._show(len(self._text))
        held = max((_overlap(self._text[self._shown :], stop) for stop in self._stops), default=0)
        return self._show(len(self._text) - held)

    def rest(self) -> str:
        """Return what was held back, once nothing more comes."""
        if not self.stopped:
            self._take(torn=True)
        return self._show(len(self._text))

    def _take(self, *, torn: bool = False) -> bool:
        """Make text of tokens, with the few before them, on which some tokenizers' blanks depend.

        Returns:
            Whether it could: a letter that is not whole waits, unless it may be torn.
        """
        before = self._template.text(self.tokens[self._from : self._read])
        text = self._template.text(self.tokens[self._from :])
        if text.endswith(HALF) and not torn:
            return False
        self._text += text[len(before) :]
        self._from, self._read = self._read, len(self.tokens)
        return True

    def _show(self, end: int) -> str:
        piece = self._text[self._shown : end]
        self._shown = max(self._shown, end)
        return piece


def _overlap(text: str, stop: str) -> int:
    """How many letters at the text's end are a beginning of the stop."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
