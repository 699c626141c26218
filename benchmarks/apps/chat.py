"""A small Llama learns to close brackets as `tandem chat train` teaches it: by demonstrations, then by rewards.

The recipe is examples/chat/brackets.toml with fewer steps: imitation, then GRPO with a reward that checks each answer.
Phases go round as in any chat run, `train` for imitation, then `generate`, `score` and `train` in every step of GRPO.
The run's folder is `chat` in $TANDEM_RUN_DIR (else a temporary one). At the end plain transformers, on demonstrations
that nobody was trained on, has to find the last model less than half as surprised as the first, and in every step of
GRPO the probability of what was drawn has to be what it was when it was drawn.

Run: `python chat.py --scale 1`. SIGUSR1 saves a checkpoint, SIGTERM saves one and ends. Limits: on the CPU; at least
20 steps. More than half of a standard run loads torch and transformers.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("DS_ACCELERATOR", "cpu")  # transformers imports DeepSpeed, if there, which else tells stdout so

import torch
from application import TERMINATED, Application, launch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tandem.chat import recipe as recipes
from tandem.chat.errors import StoppedError
from tandem.chat.train import train
from tandem.core.errors import TandemError
from tandem.kernels.model_folder import quiet

if TYPE_CHECKING:
    from tandem.chat.run_folder import RunFolder

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "chat"
sys.path.insert(0, str(EXAMPLE))

import brackets  # noqa: E402 - its folder is found above

STANDARD_STEPS, LEAST_STEPS = 36, 20
ROWS, UNSEEN = 1024, 64
IGNORED = -100  # what transformers leaves out of a loss
RATIO_OFF = 1e-4


def recipe_of(folder: Path, steps: int) -> recipes.Recipe:
    """Write the rows and return the example's recipe, cut to so many steps: two thirds imitate, a third is GRPO."""
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in brackets.rows(0)[:ROWS]), encoding="utf-8")
    drawn = steps // 3
    ours = {
        "data.sources.0.path": rows,
        "save_every_steps": steps,  # and whenever a signal asks for it
        "sft.steps": steps - drawn,
        "sft.batch_tokens": 2048,  # then a step of either kind is about the same work
        "sft.validate_every": 0,
        "sft.decay": "false",
        "rl.steps": drawn,
    }
    recipe = recipes.load(EXAMPLE / "brackets.toml", [f"{key}={value}" for key, value in ours.items()])
    return replace(recipe, reward=None, eval=None)


@torch.no_grad()
def surprise(folder: Path, *, spoiled: bool = False) -> float:
    """Return the nats a token of unseen demonstrations costs a saved model, by transformers alone."""
    with quiet():
        model: Any = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    nats = tokens = 0.0
    for row in brackets.rows(1)[:UNSEEN]:
        turns = [{"role": "user", "content": row["prompt"]}]
        asked = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        prompt = tokenizer(asked, add_special_tokens=False)["input_ids"]
        answer = [*tokenizer(row["prompt" if spoiled else "response"])["input_ids"], tokenizer.eos_token_id]
        labels_1T = torch.tensor([[IGNORED] * len(prompt) + answer])
        nats += len(answer) * float(model(input_ids=torch.tensor([prompt + answer]), labels=labels_1T).loss)
        tokens += len(answer)
    return nats / tokens


def check(app: Application, run: RunFolder) -> tuple[float, float]:
    """Check what was learnt and return the surprise before and after."""
    before, after = (surprise(run.model(name), spoiled=app.spoiled) for name in ("start", "rl"))
    app.require(after < before / 2, f"{after:.3f} nats a token after training, {before:.3f} before")
    off = max(value for _, value in run.series("rl")["first_ratio_off"])
    app.require(off < RATIO_OFF, f"a drawn token's probability is off by {off:.1e} (allowed {RATIO_OFF})")
    return before, after


def run(app: Application) -> str:
    app.phase("load")
    torch.set_num_threads(app.threads)
    total = app.amount(STANDARD_STEPS, least=LEAST_STEPS)
    with tempfile.TemporaryDirectory() as scratch:
        folder = (app.run_dir or Path(scratch)) / "chat"
        folder.mkdir(exist_ok=True)
        try:
            done = train(recipe_of(folder, total), folder, recipe_folder=EXAMPLE)
        except TandemError as error:
            print(f"chat: {error}", file=sys.stderr)
            raise SystemExit(TERMINATED if isinstance(error, StoppedError) else error.exit_code) from None
        app.phase("check")
        before, after = check(app, done)
        shutil.rmtree(folder)
    return f"{total} steps, {before:.6f} nats a token before and {after:.6f} after"


if __name__ == "__main__":
    raise SystemExit(launch(run, __doc__))
