"""TRL's trainers, one step at a time, for `chat_step.py`, which runs this with the peers' Python.

    python peer_trl.py FOLDER TOKENS THREADS grpo:5:6 sft:7:8 ...    # names with descriptors, see `benchmarks.gates`

It is given its best on processors: no gradient checkpointing (its default), no bf16, no logging, AdamW fused as it
chooses; responses of as many tokens, a reference with GRPO's KL coefficient 0.04, no dropout. On a GPU
(`TANDEM_BENCHMARK_DEVICE=cuda`) weights, moments and all are bf16, which is the least work that it can be given.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.gates import Gate, split

SEQUENCES, GROUP = 16, 8
ON_GPU = os.environ.get("TANDEM_BENCHMARK_DEVICE") == "cuda"
DTYPE = "bfloat16" if ON_GPU else "float32"


def main() -> None:
    """Train until nobody asks for a step any more."""
    folder, tokens, threads, *sides = sys.argv[1:]
    torch.set_num_threads(int(threads))
    import transformers
    import trl.trainer.dpo_trainer
    import trl.trainer.grpo_trainer
    import trl.trainer.sft_trainer  # noqa: F401 - before the process splits

    transformers.utils.logging.set_verbosity_error()
    split(sides, lambda name, gate: run(name, Path(folder), int(tokens), gate))


def run(algorithm: str, folder: Path, tokens: int, gate: Gate) -> None:
    """Train by one algorithm."""
    import transformers
    from datasets import Dataset

    class Gated(transformers.TrainerCallback):  # type: ignore[misc]
        """Holds the trainer between steps."""

        def on_step_end(self, *args: object, **kwargs: object) -> None:
            if ON_GPU:
                torch.cuda.synchronize()
            gate.between_steps()

    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    trainer = make(algorithm, str(folder / "model"), rows, tokens, Dataset)
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.add_callback(Gated())
    trainer.train()


def make(
    algorithm: str,
    model: str,
    rows: list[dict[str, Any]],
    tokens: int,
    dataset: Any,  # noqa: ANN401 - of the datasets package
) -> Any:  # noqa: ANN401 - TRL has no types
    """Return a trainer; responses get so many tokens."""
    from transformers import AutoTokenizer
    from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(model)
    common = {
        "output_dir": f"{model}/../trl-{algorithm}",
        "learning_rate": 1e-5,
        "max_steps": 10_000,
        "use_cpu": not ON_GPU,
        "bf16": ON_GPU,
        "gradient_checkpointing": False,
        "logging_steps": 1_000_000,
        "save_strategy": "no",
        "disable_tqdm": True,
        "report_to": "none",
    }
    if algorithm == "grpo":
        config = GRPOConfig(
            **common,
            per_device_train_batch_size=SEQUENCES,
            num_generations=GROUP,
            max_completion_length=tokens,
            beta=0.04,
            model_init_kwargs={"dtype": DTYPE},
        )
        prompts = dataset.from_list([{"prompt": row["prompt"]} for row in rows])
        return GRPOTrainer(
            model=model, args=config, train_dataset=prompts, processing_class=tokenizer, reward_funcs=reward
        )
    if algorithm == "sft":
        sft = SFTConfig(
            **common, per_device_train_batch_size=SEQUENCES, model_init_kwargs={"dtype": DTYPE}, eos_token="<eos>"
        )
        pairs = dataset.from_list([{"prompt": row["prompt"], "completion": " " + row["response"]} for row in rows])
        return SFTTrainer(model=model, args=sft, train_dataset=pairs, processing_class=tokenizer)
    dpo = DPOConfig(**common, per_device_train_batch_size=SEQUENCES // 2, model_init_kwargs={"dtype": DTYPE})
    sides = [
        {"prompt": row["prompt"], "chosen": " " + row["chosen"], "rejected": " " + row["rejected"]} for row in rows
    ]
    return DPOTrainer(model=model, args=dpo, train_dataset=dataset.from_list(sides), processing_class=tokenizer)


def reward(completions: list[str], **others: object) -> list[float]:
    """The share of letters that are a 7."""
    del others
    return [text.count("7") / max(1, len(text)) for text in completions]


if __name__ == "__main__":
    main()
