"""A small transformer generates text with a key-value cache; on the GPU if there is one.

The weights are random but always the same, so the text is nonsense, though it costs what sense would. A
step completes 4 prompts of 16 characters with 32 sampled ones each; every new character reads all 22 MB of
weights, as it does in large models. The last completions, fed once through the network without a cache,
have to give the same scores, and the same samples where the choice is not within rounding.

Shapes: B prompts, T positions, D width, V characters, H heads, K = D / H.

Run: `python textgen.py --scale 1 --device auto`. Limits: contexts of 48 characters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from application import Application, launch
from torch.nn.functional import layer_norm, scaled_dot_product_attention

if TYPE_CHECKING:
    from collections.abc import Callable

CHARACTERS = "\n abcdefghijklmnopqrstuvwxyz.,;:!?'-"
LAYERS, HEADS, WIDTH = 4, 6, 336
PROMPTS, GIVEN, NEW = 4, 16, 32
LENGTH = GIVEN + NEW
TOLERANCE = 1e-3
STANDARD_STEPS = 28


class Layer:
    """Weights and cache of one transformer layer."""

    def __init__(self, rng: torch.Generator, device: str) -> None:
        def drawn(rows: int, columns: int) -> torch.Tensor:
            return torch.randn(rows, columns, generator=rng).mul_(rows**-0.5).to(device)

        self.into_heads = drawn(WIDTH, 3 * WIDTH)
        self.out_of_heads = drawn(WIDTH, WIDTH)
        self.up, self.down = drawn(WIDTH, 4 * WIDTH), drawn(4 * WIDTH, WIDTH)
        shape = (PROMPTS, HEADS, LENGTH, WIDTH // HEADS)
        self.keys_BHTK = torch.zeros(shape, device=device)
        self.values_BHTK = torch.zeros(shape, device=device)

    def __call__(self, x_BTD: torch.Tensor, first: int | None) -> torch.Tensor:
        """Apply the layer to positions from `first` on, after those in the cache; None uses no cache."""
        heads = layer_norm(x_BTD, (WIDTH,)) @ self.into_heads
        query, key, value = heads.reshape(*x_BTD.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        if first is not None:
            last = first + x_BTD.shape[1]
            self.keys_BHTK[:, :, first:last] = key
            self.values_BHTK[:, :, first:last] = value
            key, value = self.keys_BHTK[:, :, :last], self.values_BHTK[:, :, :last]
        mixed = scaled_dot_product_attention(query, key, value, is_causal=x_BTD.shape[1] > 1)
        x_BTD = x_BTD + mixed.transpose(1, 2).flatten(2) @ self.out_of_heads
        return x_BTD + torch.relu(layer_norm(x_BTD, (WIDTH,)) @ self.up) @ self.down


class Transformer:
    """A decoder over characters with fixed random weights."""

    def __init__(self, device: str) -> None:
        rng = torch.Generator().manual_seed(7)
        self.characters_VD = torch.randn(len(CHARACTERS), WIDTH, generator=rng).to(device)
        self.output_DV = (2 * WIDTH**-0.5 * torch.randn(WIDTH, len(CHARACTERS), generator=rng)).to(device)
        self.positions_TD = (0.1 * torch.randn(LENGTH, WIDTH, generator=rng)).to(device)
        self.layers = [Layer(rng, device) for _ in range(LAYERS)]

    def scores(self, text_BT: torch.Tensor, first: int | None = None) -> torch.Tensor:
        """Return the scores of every next character, [B, T, V]; `first` as in Layer."""
        begin = first or 0
        x_BTD = self.characters_VD[text_BT] + self.positions_TD[begin : begin + text_BT.shape[1]]
        for layer in self.layers:
            x_BTD = layer(x_BTD, first)
        return torch.matmul(layer_norm(x_BTD, (WIDTH,)), self.output_DV)


def complete(
    model: Transformer, text_BT: torch.Tensor, noise_TBV: torch.Tensor, tell: Callable[[float], None]
) -> torch.Tensor:
    """Fill in the text after the prompts, sampling with the given noise, and return the scores used.

    `tell` hears after each position what part of them is done.
    """
    seen = []
    fed_BT, first = text_BT[:, :GIVEN], 0
    for position in range(GIVEN, LENGTH):
        scores_BV = model.scores(fed_BT, first)[:, -1]
        seen.append(scores_BV)
        text_BT[:, position] = (scores_BV + noise_TBV[position - GIVEN]).argmax(-1)
        fed_BT, first = text_BT[:, position : position + 1], position
        tell((position + 1 - GIVEN) / NEW)
    return torch.stack(seen, dim=1)


def draw(step: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a step's prompts, with room after them, and the Gumbel noise that sampling adds to scores."""
    rng = torch.Generator().manual_seed(step)
    text_BT = torch.randint(len(CHARACTERS), (PROMPTS, LENGTH), generator=rng)
    uniform = torch.rand(NEW, PROMPTS, len(CHARACTERS), generator=rng).clamp_(1e-6, 1 - 1e-6)
    return text_BT.to(device), (-(-uniform.log()).log()).to(device)


@torch.inference_mode()
def run(app: Application) -> str:
    app.phase("load")
    torch.set_num_threads(app.threads)
    model = Transformer(app.device)

    app.phase("generate")
    total = app.amount(STANDARD_STEPS)
    for step in app.steps(total):
        text_BT, noise_TBV = draw(step, app.device)
        seen_BTV = complete(model, text_BT, noise_TBV, lambda part, done=step - 1: app.within(done + part))
        app.note(top_score=float(seen_BTV.max()))

    app.phase("check")
    if app.spoiled:
        text_BT[:, GIVEN] = (text_BT[:, GIVEN] + 1) % len(CHARACTERS)
    whole_BTV = model.scores(text_BT)[:, GIVEN - 1 : -1]
    off = float((whole_BTV - seen_BTV).abs().max())
    app.require(off < TOLERANCE, f"the cache changes scores by {off:.1e} (allowed {TOLERANCE})")
    noisy_BTV = whole_BTV + noise_TBV.transpose(0, 1)
    chosen_BT = noisy_BTV.gather(2, text_BT[:, GIVEN:, None])[..., 0]
    short = float((noisy_BTV.max(-1).values - chosen_BT).max())
    app.require(short < TOLERANCE, f"a sampled character is {short:.1e} below the best (allowed {TOLERANCE})")
    sample = "".join(CHARACTERS[number] for number in text_BT[0, GIVEN:].tolist()).replace("\n", " ")
    return f"{total * PROMPTS * NEW:,} characters such as {sample!r}, cached and uncached within {off:.1e}"


if __name__ == "__main__":
    raise SystemExit(launch(run, __doc__, gpu_found=torch.cuda.is_available))
