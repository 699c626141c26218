"""Reinforcement learning raises a held-out score where imitation has come to its end: examples/chat/brackets.

For each of three seeds: demonstrations are drawn, a model imitates them for as many steps as the recipe says (its
last held-out losses are printed: whether they still fall is seen there), and from there PPO and GRPO learn from a
reward that checks the answer, on prompts that were not demonstrated. Beside them the control goes on imitating, at
the rate that imitation ended with, for as much CPU time as the longer of the two took. The score is the share of
right answers to prompts that nothing was trained on, drawn at temperature 1; greedy ones are printed beside. Settings
are those of the example's recipe, for every seed. Figures: sft_score, ppo_minus_sft, grpo_minus_sft, means over
seeds.

    python -m benchmarks.chat_learns --json          # three seeds
    python -m benchmarks.chat_learns --quick         # one seed, shorter
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "chat"
sys.path[:0] = [str(ROOT), str(EXAMPLE)]

import brackets  # noqa: E402 - its folder is found above

from benchmarks.measuring import finish, machine, options  # noqa: E402 - its folder is found above
from tandem.chat import evaluating  # noqa: E402
from tandem.chat import recipe as recipes  # noqa: E402
from tandem.chat.run_folder import RunFolder  # noqa: E402
from tandem.chat.train import train  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tandem.chat.recipe import Recipe

SEEDS = (0, 1, 2)

ALGORITHMS = {
    "grpo": [],
    "ppo": ["rl.algorithm=ppo", "rl.prompts=128", "rl.critic_learning_rate=1e-3"],
}
"""Over the recipe: 128 responses a step for both, in groups of 8 for GRPO."""


@dataclass(frozen=True)
class Scored:
    """What a model is worth, and what it cost.

    Attributes:
        drawn: Share of right answers at temperature 1.
        low: Where its 95 % interval begins.
        high: Where it ends.
        greedy: Share at temperature 0.
        cpu_s: Of its training.
        steps: Of its training.
    """

    drawn: float
    low: float
    high: float
    greedy: float
    cpu_s: float
    steps: int

    def __str__(self) -> str:
        interval = f"{self.drawn:.3f} ({self.low:.3f}-{self.high:.3f})"
        return f"{interval}, greedy {self.greedy:.3f}; {self.steps} steps, {self.cpu_s:.0f} CPU s"


def one_seed(seed: int, work: Path, overrides: Sequence[str]) -> dict[str, Scored]:
    """Train and score the four models of a seed."""
    file = work / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in brackets.rows(seed)), encoding="utf-8")
    ours = [f"seed={seed}", f"data.sources.0.path={file}", *overrides]
    recipe = recipes.load(EXAMPLE / "brackets.toml", ours)
    found = {"sft": trained(recipe, work / "sft", "sft")}
    looks = [f"{loss:.3f}" for _, loss in RunFolder(work / "sft").series("sft")["held_out_loss"][-6:]]
    print(f"seed {seed} held-out loss, last looks of imitation: {', '.join(looks)} nats a token")
    for name, its in ALGORITHMS.items():
        shutil.copytree(work / "sft", work / name)
        found[name] = trained(recipes.load(EXAMPLE / "brackets.toml", [*ours, *its]), work / name, "rl")
    longer_s = max(found[name].cpu_s for name in ALGORITHMS)
    more = round(found["sft"].steps * longer_s / found["sft"].cpu_s)
    assert recipe.sft is not None
    control = replace(
        recipe,
        model=recipes.Model(path=str(work / "sft" / "models" / "sft")),
        sft=replace(recipe.sft, steps=more, learning_rate=0.1 * recipe.sft.learning_rate, decay=False, warmup_steps=0),
    )
    found["control"] = trained(control, work / "control", "sft")
    return found


def trained(recipe: Recipe, folder: Path, stage: str) -> Scored:
    """Run a stage and measure its model."""
    began_s = time.process_time()
    run = train(recipe, folder, recipe_folder=EXAMPLE, stages=[stage])
    cpu_s = time.process_time() - began_s
    drawn, greedy = (score_of(run, stage, temperature) for temperature in (1.0, 0.0))
    steps = run.series(stage)["loss"][-1][0]
    return Scored(drawn["mean"], drawn["low"], drawn["high"], greedy["mean"], cpu_s, steps)


def score_of(run: RunFolder, stage: str, temperature: float) -> dict[str, float]:
    """Return the held-out score with its interval."""
    evaluating.again(run.path, EXAMPLE, rows=None, temperature=temperature, names=[stage])
    figure: dict[str, float] = run.read_json("eval.json")["figures"][stage]["score"]
    return figure


def main() -> None:
    """Measure and print."""
    given = options(__doc__ or "").parse_args()
    torch.set_num_threads(1)
    print(machine())
    overrides = ["sft.steps=350", "rl.steps=45", "eval.rows=200"] if given.quick else []
    rows: list[dict[str, Scored]] = []
    for seed in SEEDS[:1] if given.quick else SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(one_seed(seed, Path(folder), overrides))
        for name, scored in rows[-1].items():
            print(f"seed {seed} {name:8s} {scored}", flush=True)
    means = {name: statistics.mean(row[name].drawn for row in rows) for name in rows[0]}
    print(f"control, means: {means['control']:.3f}, below ppo by {means['ppo'] - means['control']:.3f},", end=" ")
    print(f"below grpo by {means['grpo'] - means['control']:.3f}")
    figures = {"sft_score": means["sft"]}
    figures |= {f"{name}_minus_sft": means[name] - means["sft"] for name in ("ppo", "grpo")}
    finish(figures, as_json=given.json)


if __name__ == "__main__":
    main()
