"""A small language model from nothing, pruned by every method, trained under its mask, measured.

    python examples/sparse_llama.py [--text FILE] [--out runs/sparse-llama] [--steps N] [--quick]

It reads bytes, so that it needs no tokenizer: 1.3 million parameters in the shape of a Llama, trained for a few
minutes on two cores. The text is the file given, else `chat/tinyshakespeare.txt` of $TANDEM_SHARED_DATA (or of
`../shared/data` beside the repository), else Python's own standard library. Its last tenth is never trained or
calibrated on; perplexities are of that.

What is left in the folder (the repository's `runs/sparse-llama` if none is named): `dense/`, and for each method and
share of zeros one such as `wanda-60/` with its report, as `save_pretrained` leaves models. Run it again, and the dense
model is taken from there. `--quick` makes a smaller one in some 20 s, whose figures mean little.

Limits: weights of a model so small stay in the cache, where a sparse one has nothing to gain; larger ones are measured
in benchmarks/kernels_sparse.py.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import statistics
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from tandem.kernels.prune import folder
from tandem.kernels.prune.outcome import Outcome, Plan
from tandem.kernels.prune.pattern import Pattern
from tandem.kernels.prune.running import run
from tandem.kernels.prune.tuning import Tuning, tune

METHODS = ("magnitude", "wanda", "sparsegpt")
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large everything is.

    Attributes:
        width: Width of the model.
        depth: Blocks.
        inner: Width inside the MLPs.
        steps: Steps of training of the dense model.
        batch: Windows a step.
        window: Bytes of a window.
        under_mask: Steps of training of each pruned model.
        samples: Windows that methods are calibrated on.
        eval_bytes: Bytes that the perplexity is taken on.
        sparsities: Shares of zeros.
        generated: Bytes generated to time it.
    """

    width: int = 160
    depth: int = 4
    inner: int = 432
    steps: int = 600
    batch: int = 16
    window: int = 128
    under_mask: int = 40
    samples: int = 64
    eval_bytes: int = 20_000
    sparsities: tuple[float, ...] = (0.5, 0.6, 0.7)
    generated: int = 100


QUICK = Size(
    width=64, depth=2, inner=160, steps=40, batch=8, window=64, under_mask=5, samples=8, eval_bytes=4000,
    sparsities=(0.6,), generated=16,
)  # fmt: skip


def find_text(given: Path | None) -> bytes:
    """The text to train on."""
    if given is not None:
        return given.read_bytes()
    shared = os.environ.get("TANDEM_SHARED_DATA")
    folder_ = Path(shared) if shared else ROOT.parent / "shared" / "data"
    play = folder_ / "chat" / "tinyshakespeare.txt"
    if play.is_file():
        return play.read_bytes()
    library = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    return b"\n".join(file.read_bytes() for file in library)[: 1 << 20]


def split(text: bytes, out: Path, size: Size) -> tuple[Path, Path]:
    """Write what is trained and calibrated on, and what perplexities are taken on."""
    train, held_out = out / "train.txt", out / "eval.txt"
    cut = len(text) * 9 // 10
    train.write_bytes(text[:cut])
    held_out.write_bytes(text[cut:][: size.eval_bytes])
    return train, held_out


def train_dense(text: Path, out: Path, size: Size) -> None:
    """Train the dense model and save it; where it is there already nothing is done."""
    if out.exists():
        print(f"dense model: {out} (there already)")
        return
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=size.width,
        intermediate_size=size.inner,
        num_hidden_layers=size.depth,
        num_attention_heads=size.width // 32,
        num_key_value_heads=size.width // 32,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    ids_N = torch.frombuffer(bytearray(text.read_bytes()), dtype=torch.uint8).long()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"training {parameters:,} parameters on {len(ids_N):,} bytes")
    began = time.monotonic()

    def tell(step: int, loss: float) -> None:
        if step % max(1, size.steps // 10) == 0:
            print(f"  step {step:4d}: loss {loss:.3f}, {time.monotonic() - began:.0f} s", flush=True)

    tuning = Tuning(steps=size.steps, learning_rate=3e-3, batch=size.batch, length=size.window, weight_decay=0.1)
    tune(model, ids_N, tuning, tell=tell)
    with folder.written_aside(out) as aside:
        model.save_pretrained(aside)


def prune_all(dense: Path, train: Path, held_out: Path, out: Path, size: Size) -> list[Outcome]:
    """Prune by every method to every share, train each under its mask with the dense model as its teacher."""
    outcomes = []
    for sparsity in size.sparsities:
        for method in METHODS:
            where = out / f"{method}-{sparsity * 100:.0f}"
            shutil.rmtree(where, ignore_errors=True)  # an earlier run's
            plan = Plan(
                model=dense,
                out=where,
                method=method,
                pattern=Pattern.share(sparsity),
                calibration=train,
                evaluation=held_out,
                samples=size.samples,
                length=size.window,
                tuning_steps=size.under_mask,
                learning_rate=3e-4,
                distil=True,
            )
            outcomes.append(run(plan))
            print(row(outcomes[-1]), flush=True)
    return outcomes


def row(outcome: Outcome) -> str:
    """One line of the table."""
    assert outcome.before is not None
    assert outcome.after is not None
    assert outcome.tuned is not None
    error = statistics.fmean(one.error for one in outcome.lost)
    return (
        f"{outcome.plan.method:10s} {outcome.plan.pattern.sparsity:6.0%} {error:13.1%} {outcome.before.value:9.3f} "
        f"{outcome.after.value:9.3f} {outcome.tuned.value:9.3f}"
    )


@torch.no_grad()
def tokens_per_s(model: torch.nn.Module, size: Size, rounds: int = 5) -> float:
    """Bytes generated a second, one at a time; the median of some rounds."""
    start_BT = torch.tensor([list(b"The king ")])
    rates = []
    for _ in range(rounds):
        began = time.perf_counter()
        model.generate(  # type: ignore[operator]  # torch knows nothing of it
            start_BT, attention_mask=torch.ones_like(start_BT), max_new_tokens=size.generated,
            min_new_tokens=size.generated, do_sample=False, pad_token_id=0,
        )  # fmt: skip
        rates.append(size.generated / (time.perf_counter() - began))
    return statistics.median(rates)


def speeds(dense: Path, out: Path, size: Size) -> None:
    """Time the dense model in two dtypes and, where the sparse kernels are there, what SparseGPT left of it."""
    print("\ntokens/s at batch 1")
    rates = {}
    for dtype in (torch.float32, torch.bfloat16):
        rates[dtype] = tokens_per_s(folder.read(dense).model.to(dtype), size)
        print(f"  dense, {str(dtype).removeprefix('torch.'):17s} {rates[dtype]:7.0f}")
    if importlib.util.find_spec("tandem.kernels.sparse.model") is None:
        print("  sparse: not measured, its kernels are not installed")
        return
    from tandem.kernels.sparse.model import sparsify

    for sparsity in size.sparsities:
        model = folder.read(out / f"sparsegpt-{sparsity * 100:.0f}").model.to(torch.bfloat16)
        swapped = [one for one in sparsify(model, torch.bfloat16) if not one.why_dense]
        rate = tokens_per_s(model, size)
        best = rate / max(rates.values())
        print(f"  {sparsity:.0%} zeros, {len(swapped)} sparse layers {rate:7.0f}  ({best:.2f}x the best dense)")


def main() -> None:
    """Train, prune, train under masks, measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path, help="text to train on")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "sparse-llama", help="folder to write")
    parser.add_argument("--steps", type=int, help="steps of training of the dense model")
    parser.add_argument("--quick", action="store_true", help="a smaller model, some 20 s")
    given = parser.parse_args()
    size = QUICK if given.quick else Size()
    if given.steps:
        size = Size(**{**vars(size), "steps": given.steps})
    logging.disable_progress_bar()
    given.out.mkdir(parents=True, exist_ok=True)
    train, held_out = split(find_text(given.text), given.out, size)
    dense = given.out / "dense"
    train_dense(train, dense, size)
    print("\nmethod      zeros  output error     dense    pruned   trained   (perplexity of a byte)")
    outcomes = prune_all(dense, train, held_out, given.out, size)
    assert outcomes[0].before is not None
    print(f"{outcomes[0].before.tokens:,} bytes predicted; trained {size.under_mask} steps under the mask")
    speeds(dense, given.out, size)


if __name__ == "__main__":
    main()
