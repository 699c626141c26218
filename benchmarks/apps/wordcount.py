"""Word counts over real text, Python's own standard library, in plain Python: bound by the interpreter.

A step splits the same 100 kB into words and counts them in a dictionary, file by file. The totals have to
be what a sort of all words gives, which counts runs of equal neighbours and uses no dictionary.

Run: `python wordcount.py --scale 1`. Limits: one thread.
"""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

from application import Application, launch

TEXT_CHARACTERS = 100_000
PIECES = 8
WORD = re.compile(r"[A-Za-z_]+")
STANDARD_STEPS = 1050


def read_pieces() -> list[str]:
    """Return the text in pieces of equal size, each from the start of one of the largest source files."""
    files = sorted(Path(os.__file__).parent.glob("*.py"), key=lambda path: (-path.stat().st_size, path.name))
    return [path.read_text(encoding="utf-8")[: TEXT_CHARACTERS // PIECES] for path in files[:PIECES]]


def count_words(text: str, counts: dict[str, int]) -> None:
    """Add the words of a text to the counts."""
    for found in WORD.finditer(text):
        word = found.group().lower()
        counts[word] = counts.get(word, 0) + 1


def count_by_sorting(pieces: list[str]) -> dict[str, int]:
    """Return the counts of one step, found without counting: as lengths of runs of equal words."""
    kept = "".join(c if c.isascii() and (c.isalpha() or c == "_") else " " for c in "\n".join(pieces))
    words = sorted(kept.lower().split())
    return {word: sum(1 for _ in run_of_equals) for word, run_of_equals in itertools.groupby(words)}


def run(app: Application) -> str:
    app.phase("load")
    pieces = read_pieces()
    counts: dict[str, int] = {}

    app.phase("count")
    total = app.amount(STANDARD_STEPS)
    for _ in app.steps(total):
        for piece in pieces:
            count_words(piece, counts)
        app.note(distinct=len(counts))

    app.phase("check")
    if app.spoiled:
        counts["import"] += 1
    wanted = count_by_sorting(pieces)
    wrong = {word for word in counts.keys() | wanted if counts.get(word) != total * wanted.get(word, 0)}
    app.require(not wrong, f"{len(wrong)} words are miscounted, such as {min(wrong, default='')!r}")
    return f"{sum(counts.values()):,} words, {len(counts):,} distinct, as found by sorting"


if __name__ == "__main__":
    raise SystemExit(launch(run, __doc__))
