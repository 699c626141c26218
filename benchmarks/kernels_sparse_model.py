"""Tokens a second of a whole model, sparse against its best dense type; used by kernels_sparse.py.

A Llama of Hugging Face with 342 million parameters: 24 layers, 1,024 wide, random weights of which the smallest 60 %
are pruned (the head is left dense). With `--quick` it has 8 layers and 136 million, which in their sparse form still
fill more than four caches of 32 MB. One layer is made and copied: no product depends on what the weights are, and every
copy has memory of its own. Tokens come from `generate`, greedily: dense models in bf16, fp32 and, without `--quick`,
fp16, and sparse ones in bf16 and fp32 (their weights are bf16 in both), take turns, but for those that are hopeless at
the first try. The best of either side counts.
"""

from __future__ import annotations

import copy
import itertools
import statistics
from typing import TYPE_CHECKING

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.measuring import ratio
from tandem.kernels.sparse.model import resident_bytes, sparsify

if TYPE_CHECKING:
    from collections.abc import Callable

LAYERS, LAYERS_QUICK = 24, 8
ZEROS = 0.6


def figures(*, quick: bool, clock: Callable[[], float]) -> dict[str, float | None]:
    """Return `e2e_b1_s60` and `e2e_b8_s60`, timed by `clock`."""
    one, layers = pruned_layer(), LAYERS_QUICK if quick else LAYERS
    kinds = {"bf16": torch.bfloat16, "fp32": torch.float32} | ({} if quick else {"fp16": torch.float16})
    dense = {name: deep(one, kind, layers) for name, kind in kinds.items()}
    sparse = {}
    for name in ("bf16", "fp32"):
        small = copy.deepcopy(one).to(kinds[name])
        report = sparsify(small, torch.bfloat16)
        sparse[f"sparse {name}"] = deep(small, None, layers)
    parameters = sum(p.numel() for p in dense["fp32"].parameters())
    bits = statistics.mean(row.bits_per_weight for row in report if row.bits_per_weight)
    size_mb = resident_bytes(sparse["sparse bf16"]) / 1e6
    print(f"Llama of {parameters / 1e6:.0f}M parameters: {size_mb:.0f} MB sparse ({bits:.2f} bits)")
    found: dict[str, float | None] = {}
    for batch in (1, 8):
        tokens, rounds = (1, 5) if quick else (4, 7)
        for model in sparse.values():
            _seconds(model, batch, 1, clock)  # loads the extension and chooses ways
        first = {name: _seconds(model, batch, tokens, clock) for name, model in {**dense, **sparse}.items()}
        near = [name for side in (dense, sparse) for name in side if first[name] < 2 * min(first[n] for n in side)]
        models = {name: model for name, model in {**dense, **sparse}.items() if name in near}
        for model in models.values():
            _seconds(model, batch, tokens, clock)
        times: dict[str, list[float]] = {name: [] for name in models}
        for _, (name, model) in itertools.product(range(rounds), models.items()):
            times[name].append(_seconds(model, batch, tokens, clock))
        rival, ours = (
            min(times.keys() & side, key=lambda name: statistics.median(times[name])) for side in (dense, sparse)
        )
        medians = {**first, **{name: statistics.median(t) for name, t in times.items()}}
        gain = ratio(times[rival], times[ours])
        rates = ", ".join(f"{name} {batch * tokens / seconds:.2f}" for name, seconds in medians.items())
        print(f"batch {batch}: tokens/s {rates}; {ours} over {rival}: {gain}")
        found[f"e2e_b{batch}_s60"] = gain.mid
    return found


def pruned_layer() -> LlamaForCausalLM:
    """Return a model of one layer, pruned."""
    config = LlamaConfig(
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=1,
        num_attention_heads=16,
        num_key_value_heads=16,
        vocab_size=16384,
        tie_word_embeddings=False,
        max_position_embeddings=256,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    for part in model.model.layers.modules():
        if isinstance(part, torch.nn.Linear):
            weight = part.weight.data
            weight.mul_(weight.abs() >= weight.flatten()[: 1 << 18].abs().quantile(ZEROS))
    return model


def deep(model: LlamaForCausalLM, kind: torch.dtype | None, number: int) -> LlamaForCausalLM:
    """Return a model with `number` copies of the one layer, dense ones in type `kind`."""
    made = copy.deepcopy(model) if kind is None else copy.deepcopy(model).to(kind)
    first = made.model.layers[0]
    layers = [copy.deepcopy(first) for _ in range(number)]
    for index, layer in enumerate(layers):
        layer.self_attn.layer_idx = index
    made.model.layers = torch.nn.ModuleList(layers)
    made.config.num_hidden_layers = number
    return made


def _seconds(model: LlamaForCausalLM, batch: int, tokens: int, clock: Callable[[], float]) -> float:
    """Seconds for `tokens` tokens; a prompt of one token makes every step alike."""
    prompt = torch.randint(0, 16384, (batch, 1), generator=torch.Generator().manual_seed(batch))
    began_s = clock()
    _generate(model, prompt, tokens)
    return clock() - began_s


def _generate(model: LlamaForCausalLM, prompt: torch.Tensor, tokens: int) -> None:
    mask = torch.ones_like(prompt)
    with torch.inference_mode():
        model.generate(
            prompt, attention_mask=mask, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0
        )
