"""Closing brackets: a task that a small model learns in minutes, with demonstrations by people who lose count.

A prompt is a row of opening brackets, `([{<`, its answer the brackets that close them, `>}])`. Whoever wrote the
demonstrations forgot the last bracket the more often, the more there were to close: 3 in 20 per cent of rows, 6 in 80.
Imitating them can be no better than they are. A reward that checks the answer can.

    python examples/chat/brackets.py --out brackets/        # writes rows.jsonl
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

CLOSING = {"(": ")", "[": "]", "{": "}", "<": ">"}

FORGOTTEN = {3: 0.2, 4: 0.4, 5: 0.6, 6: 0.8}
"""How often the last bracket is forgotten, by how many there are to close."""

ROWS_EACH = 1024


def closed(prompt: str) -> str:
    """Return the brackets that close a prompt's."""
    return "".join(CLOSING[sign] for sign in reversed(prompt))


def score(prompts: Sequence[str], responses: Sequence[str], answers: Sequence[str]) -> list[float]:
    """Return 1 for each response that closes all brackets and does nothing else."""
    del answers
    return [float(response == closed(prompt)) for prompt, response in zip(prompts, responses, strict=True)]


def rows(seed: int) -> list[dict[str, str]]:
    """Return prompts with a demonstration, the right answer, and what was forgotten as the rejected response."""
    rng = random.Random(seed)
    found: list[dict[str, str]] = []
    for depth, forgotten in FORGOTTEN.items():
        prompts = ["".join(signs) for signs in itertools.product(CLOSING, repeat=depth)]
        for prompt in rng.choices(prompts, k=ROWS_EACH):
            right = closed(prompt)
            shown = right[:-1] if rng.random() < forgotten else right
            found.append(
                {"prompt": prompt, "response": shown, "answer": right, "chosen": right, "rejected": right[:-1]}
            )
    rng.shuffle(found)
    return found


def main() -> None:
    """Write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("brackets"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows(given.seed))
    (given.out / "rows.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
