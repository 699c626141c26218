"""Generation against Hugging Face's `generate`: the same weights, prompts, numbers of tokens and threads.

    python benchmarks/chat_generate.py --quick --json
    python benchmarks/chat_generate.py                  # more tokens and rounds, and more widths at 60 million
    python benchmarks/chat_generate.py --device cuda    # a billion parameters in bf16, on a GPU

`generate_bB_vs_hf` is tokens a second at batch B over those of `generate`, with whichever of its dynamic and its static
cache was faster in a first round, on a Llama of 9 million random parameters; `_60m` marks one of 60 million. All
prompts differ, of 64 tokens (16 at 60 million); no row ends early. `generate_uneven_vs_hf` is the ratio of useful
tokens a second, EOS included, where EOS is as likely at any token (lengths scatter as an exponential does, cut at
`max_new_tokens`) and rows are groups of 8 to a prompt; Hugging Face gets all rows at once. Both sides draw at
temperature 1 from the whole vocabulary; ours also returns log-probabilities. `switch_share` is what getting ready to
decode costs, over a step of generating and training (forward, backward, AdamW).

Each ratio is taken twice, by the clock and by the process's CPU time, and the lower one counts. `_1b_gpu` is a Llama of
a billion parameters in bf16 on a GPU, by the clock alone, over `generate` as it is without settings of the cache;
`generate_b1_vs_hf_static_1b_gpu` is over its static cache, for which it compiles the model, which is not counted.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
import traceback
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tandem.chat.engine.choosing import decoder_for
from tandem.chat.engine.decoder import evaluating
from tandem.chat.engine.generate import Sampling, generate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.chat_step import BILLION
from benchmarks.measuring import Ratio, finish, machine, noise_floor, options, ratio

if TYPE_CHECKING:
    from collections.abc import Callable

PROMPT, SHORT_PROMPT = 64, 16
PAD, EOS = 0, 1
NEVER = -1e4
GROUP = 8

SMALL = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 6, "num_attention_heads": 8}
LARGE = {"hidden_size": 640, "intermediate_size": 1728, "num_hidden_layers": 10, "num_attention_heads": 10}


@dataclass(frozen=True, slots=True)
class Taken:
    """What one run took, for how many useful tokens."""

    wall_s: float
    cpu_s: float
    tokens: int


def main() -> None:
    """Measure, print tables and figures."""
    parser = options(__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2, help="threads of both sides")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where both compute")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.device == "cuda":
        finish(on_gpu(), as_json=args.json)
        return
    print(f"{machine()}; torch {torch.__version__}, {args.threads} threads")
    figures: dict[str, float | None] = {}
    small = llama(vocabulary=8192, **SMALL)
    for rows, tokens, rounds in [(1, 16, 7), (4, 8, 7), (16, 12, 7), (64, 3, 7)] if args.quick else FULL:
        figures[f"generate_b{rows}_vs_hf"] = even(small, rows, tokens, rounds)
    figures["generate_uneven_vs_hf"] = uneven(small, rounds=7 if args.quick else 15, quick=args.quick)
    figures["switch_share"] = switch_share(small, rounds=2 if args.quick else 9)
    large = llama(vocabulary=8192, **LARGE)
    for rows, tokens, rounds in [(1, 8, 7), (16, 4, 7)] if args.quick else FULL_LARGE:
        figures[f"generate_b{rows}_vs_hf_60m"] = even(large, rows, tokens, rounds, SHORT_PROMPT)
    finish(figures, as_json=args.json)


FULL = [(1, 64, 15), (4, 64, 9), (16, 64, 9), (64, 32, 9)]
FULL_LARGE = [(1, 16, 9), (4, 16, 9), (16, 16, 9), (64, 8, 7)]

GPU_ROUNDS = 3


def on_gpu() -> dict[str, float | None]:
    """Measure on a GPU; each figure is printed as soon as it is known, and one that fails leaves the others alone."""
    names = [f"generate_b{rows}_vs_hf" for rows in (1, 4, 16, 64)]
    names += ["generate_uneven_vs_hf", "switch_share", "generate_b1_vs_hf_static"]
    figures: dict[str, float | None] = {f"{name}_1b_gpu": None for name in names}
    if not torch.cuda.is_available():
        print("not measured: torch sees no GPU")
        return figures
    print(f"{torch.cuda.get_device_name()}; {machine()}; torch {torch.__version__}", flush=True)
    with torch.device("cuda"):
        model = llama(vocabulary=32_000, **BILLION).bfloat16()
    measured: dict[str, Callable[[], float]] = {
        **{
            f"generate_b{rows}_vs_hf": partial(even, model, rows, 64, GPU_ROUNDS, caches=(None,))
            for rows in (1, 4, 16, 64)
        },
        "switch_share": partial(switch_share, model, rounds=3),
        "generate_uneven_vs_hf": partial(uneven, model, rounds=GPU_ROUNDS, quick=False),
        "generate_b1_vs_hf_static": partial(even, model, 1, 64, GPU_ROUNDS, caches=("static",)),
    }
    for name, measure in measured.items():
        try:
            figures[f"{name}_1b_gpu"] = measure()
        except Exception as error:  # whatever fails on a machine that nobody has tried
            traceback.print_exc()
            print(f"{name} failed: {error}", flush=True)
        print(f"{name}_1b_gpu {figures[f'{name}_1b_gpu']}", flush=True)
    return figures


def llama(*, vocabulary: int, **shape: int) -> LlamaForCausalLM:
    """Return a Llama of random weights; its head has a bias, by which EOS is made as likely as wanted."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=EOS,
        **shape,
    )
    model = LlamaForCausalLM(config).eval()
    model.lm_head.bias = torch.nn.Parameter(torch.zeros(vocabulary))
    print(f"Llama of {sum(p.numel() for p in model.parameters()) / 1e6:.2f}M parameters")
    return model


def even(
    model: LlamaForCausalLM,
    rows: int,
    tokens: int,
    rounds: int,
    prompt: int = PROMPT,
    caches: tuple[str | None, ...] = (None, "static"),
) -> float:
    """Return the ratio of tokens a second where every row gets as many."""
    model.lm_head.bias.data[EOS] = NEVER
    prompts = torch.randint(2, model.config.vocab_size, (rows, prompt), generator=rng(rows))
    sides = {"tandem": lambda _: ours(model, prompts, 1, tokens)} | {
        f"hf {cache}" if cache else "hf": lambda _, cache=cache: theirs(model, prompts, tokens, cache)
        for cache in caches
    }
    return compared(f"batch {rows}, {prompt} + {tokens} tokens", sides, rounds)


def uneven(model: LlamaForCausalLM, *, rounds: int, quick: bool) -> float:
    """Return the ratio of useful tokens a second where rows end as they will."""
    mean, most, prompts_count = (12, 36, 2) if quick else (48, 160, 8)
    model.lm_head.bias.data[EOS] = torch.tensor((model.config.vocab_size - 1) / (mean - 1)).log()
    prompts = torch.randint(2, model.config.vocab_size, (prompts_count, PROMPT), generator=rng(9))
    repeated = prompts.repeat_interleave(GROUP, dim=0)
    sides = {
        "tandem": lambda turn: ours(model, prompts, GROUP, most, turn),
        "hf": lambda turn: theirs(model, repeated, most, None, turn),
    }
    return compared(f"uneven, {len(repeated)} rows of {mean} tokens on average, {most} at most", sides, rounds)


def compared(what: str, sides: dict[str, Callable[[int], int]], rounds: int) -> float:
    """Run ours and the faster other in turns, print what they took, and return by how much ours is faster."""
    first = {name: timed(side, -1) for name, side in sides.items()}
    best = min((name for name in sides if name != "tandem"), key=lambda name: first[name].cpu_s / first[name].tokens)
    taken: dict[str, list[Taken]] = {"tandem": [], best: []}
    for turn, name in itertools.product(range(rounds), taken):
        taken[name].append(timed(sides[name], turn))
    walls = {name: [run.wall_s / run.tokens for run in runs] for name, runs in taken.items()}
    cpus = {name: [run.cpu_s / run.tokens for run in runs] for name, runs in taken.items()}
    rates = ", ".join(f"{name} {1 / statistics.median(seconds):.0f}" for name, seconds in walls.items())
    by_wall, by_cpu = ratio(walls[best], walls["tandem"]), ratio(cpus[best], cpus["tandem"])
    print(f"{what}: tokens/s {rates}; noise {noise_floor(walls['tandem']):.1f} %")
    print(f"    over {best}: by the clock {by_wall}, by CPU time {by_cpu}", flush=True)
    if torch.cuda.is_initialized():  # a process that waits for a GPU may turn in circles
        return by_wall.mid
    lower: Ratio = min(by_wall, by_cpu, key=lambda found: found.mid)
    return lower.mid


def timed(side: Callable[[int], int], turn: int) -> Taken:
    """Run a side once."""
    _settle()
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    tokens = side(turn)
    return Taken(time.perf_counter() - wall_s, time.process_time() - cpu_s, tokens)


def _settle() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def switch_share(model: LlamaForCausalLM, *, rounds: int) -> float:
    """Return the share of a step that getting ready to decode takes, and print what weights laid out anew would."""
    model.lm_head.bias.data[EOS] = NEVER
    rows, tokens = 16, 64
    prompts = torch.randint(2, model.config.vocab_size, (rows // GROUP, PROMPT), generator=rng(1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    switches, steps = [], []
    for _ in range(rounds):
        began_s = time.perf_counter()
        with evaluating(model):
            decoder_for(model, PROMPT + tokens)
            _settle()
        switches.append(time.perf_counter() - began_s)
        began_s = time.perf_counter()
        rollout = generate(
            model,
            prompts.tolist(),
            Sampling(max_new_tokens=tokens, eos_id=EOS),
            group=GROUP,
            generator=rng(2),
            pad_id=PAD,
        )
        model.train()
        tokens_BT = rollout.tokens_BT.to(model.device)
        model(input_ids=tokens_BT, labels=tokens_BT, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.eval()
        _settle()
        steps.append(time.perf_counter() - began_s)
    moved_s = _laid_out_anew(model)
    switch_s, step_s = statistics.median(switches), statistics.median(steps)
    print(f"switch {1e3 * switch_s:.2f} ms, the first one {1e3 * moved_s:.1f} ms, step {step_s:.2f} s")
    return switch_s / step_s


def _laid_out_anew(model: LlamaForCausalLM) -> float:
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    began_s = time.perf_counter()
    decoder_for(model, PROMPT)
    _settle()
    return time.perf_counter() - began_s


def ours(model: LlamaForCausalLM, prompts: torch.Tensor, group: int, most: int, seed: int = 0) -> int:
    """Generate with the engine; return the number of useful tokens."""
    sampling = Sampling(max_new_tokens=most, eos_id=EOS)
    rollout = generate(model, prompts.tolist(), sampling, group=group, generator=rng(seed), pad_id=PAD)
    return int((rollout.lengths_B - rollout.prompt_lengths_B).sum())


def theirs(model: LlamaForCausalLM, prompts: torch.Tensor, most: int, cache: str | None, seed: int = 0) -> int:
    """Generate with Hugging Face; return the number of useful tokens."""
    torch.manual_seed(seed)
    prompts = prompts.to(model.device)
    with torch.inference_mode():
        tokens_BT = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=most,
            do_sample=True,
            top_k=0,
            cache_implementation=cache,
            pad_token_id=PAD,
            eos_token_id=EOS,
        )
    ended_BT = (tokens_BT[:, prompts.shape[1] :] == EOS).long().cumsum(dim=1)
    return int((ended_BT == 0).sum() + (ended_BT.amax(dim=1) > 0).sum())


def rng(seed: int) -> torch.Generator:
    """Return a generator."""
    return torch.Generator().manual_seed(seed + 1)


if __name__ == "__main__":
    main()
