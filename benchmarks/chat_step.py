"""A training step against TRL's: the same model, tokens, optimiser and threads, step by step in turns.

    make peers
    python benchmarks/chat_step.py --quick --json    # 9 million parameters, few rounds
    python benchmarks/chat_step.py                   # 60 million parameters beside
    python benchmarks/chat_step.py --device cuda     # a billion parameters in bf16, on a GPU

16 sequences of 64 + 64 tokens a step (32 + 32 with --quick): 2 prompts of 8 responses (GRPO; its reference at 0.04 on
both sides), 16 prompts (PPO with policy, reference, critic and reward model), 16 rows (SFT, the response's loss alone),
8 pairs (DPO). Each side is a process of its own that runs a step when it is told to; ours is `tandem chat train`'s own
loop. `grpo_vs_trl`, `sft_vs_trl` and `dpo_vs_trl` are TRL's seconds over ours, `ppo_vs_trl_grpo` is TRL's GRPO step
over our PPO step (TRL has no PPO any more), each by the clock and by CPU time, of which the lower one counts; `_60m`
marks 60 million parameters. `_1b_gpu` is a Llama of a billion parameters on a GPU, by the clock alone: TRL's weights
and moments are bf16, ours have float32 copies beside them, which is more work for us. Memory is the most that a process
ever held. Without TRL the figures are null.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import random
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.gates import Gate, Sides, split  # noqa: E402 - its folder is found above
from benchmarks.measuring import finish, machine, noise_floor, options, ratio  # noqa: E402

PEERS = ROOT / ".venv-peers" / "bin" / "python"
VOCABULARY, TOKENS, SEQUENCES, GROUP = 8192, 64, 16, 8
SMALL = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 6, "num_attention_heads": 8}
LARGE = {"hidden_size": 640, "intermediate_size": 1728, "num_hidden_layers": 10, "num_attention_heads": 10}

BILLION = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
"""Of Llama 3.2 1B."""

COMPARED = {"grpo": ("grpo", "ppo"), "sft": ("sft",), "dpo": ("dpo",)}
"""TRL's -> ours that run beside it."""

FIGURES = {"grpo": "grpo_vs_trl", "ppo": "ppo_vs_trl_grpo", "sft": "sft_vs_trl", "dpo": "dpo_vs_trl"}


def main() -> None:
    """Measure, print tables and figures."""
    parser = options(__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2, help="threads of both sides")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where both compute")
    parser.add_argument("--in", dest="folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("sides", nargs="*", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.sides:  # of a GPU by the environment
        split(given.sides, lambda name, gate: run_side(name, given.folder, gate))
        return
    if given.device == "cuda":
        finish(on_gpu(given.threads), as_json=given.json)
        return
    print(f"{machine()}; torch {torch.__version__}, {given.threads} threads")
    beside = PEERS.exists() and any(PEERS.parent.parent.glob("lib/python*/site-packages/trl"))
    if not beside:
        print("TRL is not installed (`make peers`): ours alone")
    figures: dict[str, float | None] = {}
    sizes = {"": (SMALL, 2 if given.quick else 11)} | ({} if given.quick else {"_60m": (LARGE, 5)})
    for suffix, (shape, rounds) in sizes.items():
        figures |= {f"{figure}{suffix}": None for figure in FIGURES.values()}
        with tempfile.TemporaryDirectory() as folder:
            tokens = TOKENS // 2 if given.quick else TOKENS
            prepare(Path(folder), shape, tokens)
            for together in [list(COMPARED)] if given.quick else [[one] for one in COMPARED]:
                found = compared(Path(folder), together, rounds, tokens, given.threads, beside=beside)
                figures |= {f"{FIGURES[name]}{suffix}": faster for name, faster in found.items()}
    finish(figures, as_json=given.json)


def compared(
    folder: Path, theirs: list[str], rounds: int, tokens: int, threads: int, *, beside: bool
) -> dict[str, float]:
    """Run steps of both sides in turns, print what they took; return by how much each of ours is faster.

    Args:
        theirs: Trainers of TRL: they run, unless ``beside`` is false, and ours that are compared with them do.
    """
    environ = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with Sides() as sides:
        peer = [PEERS, Path(__file__).with_name("peer_trl.py"), folder, tokens, threads]
        if beside:
            sides.start(peer, {name: f"TRL {name}" for name in theirs}, environ)
        ours = [name for one in theirs for name in COMPARED[one]]
        sides.start(
            [sys.executable, __file__, "--threads", threads, "--in", folder], {name: name for name in ours}, environ
        )
        sides.ready()
        rows = [{name: side.step() for name, side in sides.items()} for _ in range(rounds)]
        for side in sides.values():
            side.end()
    for name, side in sides.items():
        walls_s, cpus_s = [row[name].wall_s for row in rows], [row[name].cpu_s for row in rows]
        took = f"{statistics.median(walls_s):7.3f} s a step, {statistics.median(cpus_s):7.3f} CPU s"
        print(f"{name:10s} {took}, noise {noise_floor(walls_s):.0f} %, at most {side.peak_mib:.0f} MiB")
    found = {}
    for name, other in ((name, f"TRL {one}") for one in theirs if beside for name in COMPARED[one]):
        by_wall = ratio([row[other].wall_s for row in rows], [row[name].wall_s for row in rows])
        by_cpu = ratio([row[other].cpu_s for row in rows], [row[name].cpu_s for row in rows])
        print(f"{name} against {other}: by the clock {by_wall}, by CPU time {by_cpu}")
        found[name] = min(by_wall.mid, by_cpu.mid)
    return found


# ---------------------------------------------------------------------------------------------------------- on a GPU

DEVICE, GPU_ROUNDS = "cuda", 5


def on_gpu(threads: int) -> dict[str, float | None]:
    """Run steps of a billion parameters on a GPU, print what they took as soon as it is known; return the figures.

    Each side is started at once and loads its model when it is its turn; a side that fails leaves the others alone.
    """
    figures: dict[str, float | None] = {f"{figure}_1b_gpu": None for figure in FIGURES.values()}
    if not torch.cuda.is_available():
        print("not measured: torch sees no GPU")
        return figures
    print(f"{torch.cuda.get_device_name()}; {machine()}; torch {torch.__version__}", flush=True)
    environ = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TANDEM_BENCHMARK_DEVICE": DEVICE}
    python = PEERS if PEERS.exists() else Path(sys.executable)
    beside = PEERS.exists() or importlib.util.find_spec("trl") is not None
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name, Sides() as sides:
        folder = Path(name)
        for one in COMPARED if beside else ():
            peer = [python, Path(__file__).with_name("peer_trl.py"), folder, TOKENS, threads]
            sides.start(peer, {one: f"TRL {one}"}, environ)
        for one in FIGURES:
            own = [sys.executable, __file__, "--threads", threads, "--in", folder]
            sides.start(own, {one: one}, environ)
        prepare(folder, BILLION, TOKENS, torch.device(DEVICE))
        torch.cuda.empty_cache()
        other = {ours: f"TRL {theirs}" for theirs, all_ours in COMPARED.items() for ours in all_ours}
        up: set[str] = set()
        for one in ("sft", "dpo", "grpo", "ppo"):
            pair = [one, *([other[one]] if beside else [])]
            for side in pair:
                if side not in up and started(sides, side):
                    up.add(side)
            figures[f"{FIGURES[one]}_1b_gpu"] = in_turns(sides, [side for side in pair if side in up])
            for side in pair:
                if side in up and (side, one) != ("TRL grpo", "grpo"):  # which runs beside PPO too
                    up.remove(side)
                    with contextlib.suppress(SystemExit, OSError, ValueError):
                        sides[side].end()
        sides.stop()
    return figures


def started(sides: Sides, name: str) -> bool:
    """Let a side load its model and warm up; whether it could."""
    try:
        sides[name].ready()
        sides[name].step()
    except (SystemExit, OSError) as error:
        print(f"{name} failed: {error}", flush=True)
        return False
    return True


def in_turns(sides: Sides, pair: list[str]) -> float | None:
    """Run the steps of ours and the other side; return the ratio of their times, if both are there."""
    try:
        rows = [{name: sides[name].step().wall_s for name in pair} for _ in range(GPU_ROUNDS)]
    except (SystemExit, OSError) as error:
        print(f"failed: {error}", flush=True)
        return None
    for name in pair:
        took_s = [row[name] for row in rows]
        print(f"{name:10s} {statistics.median(took_s):7.3f} s a step, noise {noise_floor(took_s):.0f} %", flush=True)
    if len(pair) < 2:
        return None
    found = ratio([row[pair[1]] for row in rows], [row[pair[0]] for row in rows])
    print(f"{pair[0]} against {pair[1]}: by the clock {found}", flush=True)
    return found.mid


# ------------------------------------------------------------------------------------------- the model and its rows


def prepare(folder: Path, shape: dict[str, int], tokens: int, device: torch.device | None = None) -> None:
    """Write a model of random weights, a tokenizer of whole words, and rows of as many words as there are tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", "<unk>", *(f"w{number}" for number in range(VOCABULARY - 3))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    fast.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    torch.manual_seed(0)
    with device or torch.device("cpu"):
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCABULARY,
                max_position_embeddings=256,
                tie_word_embeddings=False,
                pad_token_id=0,
                bos_token_id=None,
                eos_token_id=1,
                **shape,
            )
        )
    if device is not None:
        model.bfloat16()
    print(f"Llama of {sum(p.numel() for p in model.parameters()) / 1e6:.1f}M parameters, {model.dtype}", flush=True)
    model.save_pretrained(folder / "model")
    fast.save_pretrained(folder / "model")
    rng = random.Random(0)

    def text(length: int) -> str:
        return " ".join(rng.choices(words[3:], k=length))

    rows = [
        {
            "prompt": text(tokens),
            "response": text(tokens - 1),
            "chosen": text(tokens - 1),
            "rejected": text(tokens - 1),
        }
        for _ in range(8 * SEQUENCES)
    ]
    (folder / "tokens").write_text(str(tokens))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


# ----------------------------------------------------------------------------------------------------- our own side


def run_side(algorithm: str, folder: Path, gate: Gate) -> None:
    """Train with the chat recipe's own loop until nobody asks for a step any more."""
    from tandem.chat.train import train

    recipe, stages = recipe_of(algorithm, folder)

    def progress(stage: str, done: int, of: int) -> None:
        del done, of
        if stage == stages[-1]:
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            gate.between_steps()

    train(recipe, folder / f"run-{algorithm}", recipe_folder=Path(__file__).parent, stages=stages, progress=progress)


def recipe_of(algorithm: str, folder: Path) -> tuple[Any, list[str]]:
    """Return what to train, and by which stages."""
    from tandem.chat.recipe import Data, Model, Recipe, Reward, Rl, Sft, Source

    model, tokens = Model(path=str(folder / "model")), int((folder / "tokens").read_text())
    phases = {"sft": ("sft",), "ppo": ("reward", "rl"), "dpo": ("reward",)}.get(algorithm, ("rl",))
    data = Data(sources=(Source(path=str(folder / "rows.jsonl"), phases=phases),), held_out=0.0)
    device = os.environ.get("TANDEM_BENCHMARK_DEVICE", "cpu")
    often = {"save_every_steps": 1_000_000, "model": model, "data": data, "device": device}
    if algorithm == "sft":
        rows = SEQUENCES * 2 * tokens
        return Recipe(**often, sft=Sft(steps=10_000, batch_tokens=rows, packing=False, decay=False)), ["sft"]
    settings = {"group_size": GROUP, "kl_coefficient": 0.04} if algorithm == "grpo" else {}
    rl = Rl(
        steps=10_000,
        algorithm=algorithm,
        settings=settings,
        reward="model" if algorithm == "ppo" else "chat_step:score",
        prompts={"grpo": SEQUENCES // GROUP, "ppo": SEQUENCES, "dpo": SEQUENCES // 2}[algorithm],
        response_tokens=tokens,
    )
    if algorithm == "ppo":
        return Recipe(**often, reward=Reward(steps=1, pairs=2), rl=rl), ["reward", "rl"]
    return Recipe(**often, rl=rl), ["rl"]


def score(prompts: list[str], responses: list[str], answers: list[str]) -> list[float]:
    """The share of letters that are a 7, as on the other side."""
    del prompts, answers
    return [text.count("7") / max(1, len(text)) for text in responses]


if __name__ == "__main__":
    main()
