"""A small network trained on scikit-learn's handwritten digits with PyTorch; on the GPU if there is one.

A step is one batch of 256 through an 8x8-pixel perceptron with two hidden layers of 512. Batches are a
function of the step, so a run resumed from a checkpoint goes on exactly. On 450 digits never trained on,
the accuracy has to be at least 0.93, and the network worked out in numpy from its weights has to give the
same scores.

Run: `python digits.py --scale 1 --device auto`. SIGUSR1 saves a checkpoint. Limits: at least 60 steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from application import Application, launch
from sklearn.datasets import load_digits

if TYPE_CHECKING:
    from application import Arrays
    from numpy.typing import NDArray

HIDDEN = 512
BATCH = 256
HELD_OUT = 450
ACCURACY = 0.93
LEARNING_RATE, MOMENTUM = 0.1, 0.9
STANDARD_STEPS = 320


def load(device: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return training pixels and labels, then those held out, in a fixed random order."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    pixels = torch.tensor(digits.data[order] / 16, dtype=torch.float32, device=device)
    labels = torch.tensor(digits.target[order], device=device)
    return pixels[HELD_OUT:], labels[HELD_OUT:], pixels[:HELD_OUT], labels[:HELD_OUT]


def network(device: str) -> torch.nn.Sequential:
    """Return the untrained network, always the same."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(64, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, HIDDEN), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(HIDDEN, 10)).to(device)


def scores_in_numpy(model: torch.nn.Sequential, pixels: torch.Tensor) -> NDArray[np.float64]:
    """Return the scores of the ten digits, computed from the weights without torch, in double precision."""
    weights = [parameter.detach().cpu().double().numpy() for parameter in model.parameters()]
    hidden = pixels.cpu().double().numpy()
    for weight, bias in zip(weights[0:4:2], weights[1:4:2], strict=True):
        hidden = np.maximum(hidden @ weight.T + bias, 0)
    return np.asarray(hidden @ weights[4].T + weights[5])


def run(app: Application) -> str:
    app.phase("load")
    torch.set_num_threads(app.threads)
    pixels, labels, unseen_pixels, unseen_labels = load(app.device)
    model = network(app.device)
    weights = list(model.parameters())
    momenta = [torch.zeros_like(weight) for weight in weights]
    total = app.amount(STANDARD_STEPS, least=60)
    start = restore(app, total, weights, momenta)

    app.phase("train")
    for step in app.steps(total, start=start, state=lambda: arrays_of(weights, momenta)):
        batch = torch.from_numpy(np.random.default_rng(step).integers(0, len(labels), BATCH)).to(app.device)
        loss = torch.nn.functional.cross_entropy(model(pixels[batch]), labels[batch])
        descend(weights, momenta, torch.autograd.grad(loss, weights))
        app.note(loss=loss.item())

    app.phase("check")
    with torch.no_grad():
        fit = torch.nn.functional.cross_entropy(model(pixels), labels).item()
        scores = model(unseen_pixels)
        if app.spoiled:
            scores = scores.roll(1, dims=1)
    accuracy = float((scores.argmax(1) == unseen_labels).double().mean())
    app.require(accuracy >= ACCURACY, f"the accuracy on unseen digits is {accuracy:.3f}, below {ACCURACY}")
    off = float(np.max(np.abs(scores.cpu().numpy() - scores_in_numpy(model, unseen_pixels))))
    app.require(off < 1e-2, f"torch's scores are off numpy's by {off:.1e} (allowed 1e-2)")
    return f"{total} batches of {BATCH}, accuracy {accuracy:.4f} on unseen digits, loss {fit:.9e}"


@torch.no_grad()
def descend(
    weights: list[torch.nn.Parameter], momenta: list[torch.Tensor], gradients: tuple[torch.Tensor, ...]
) -> None:
    """Take one step of gradient descent with momentum, in place.

    By hand, because torch.optim.SGD loads torch's compiler, which takes a quarter of a standard run.
    """
    for weight, momentum, gradient in zip(weights, momenta, gradients, strict=True):
        momentum.mul_(MOMENTUM).add_(gradient)
        weight.sub_(momentum, alpha=LEARNING_RATE)


def arrays_of(weights: list[torch.nn.Parameter], momenta: list[torch.Tensor]) -> Arrays:
    """Return weights and momenta as arrays for a checkpoint."""
    arrays = {f"weight{number}": weight.detach().cpu().numpy() for number, weight in enumerate(weights)}
    return arrays | {f"momentum{number}": momentum.cpu().numpy() for number, momentum in enumerate(momenta)}


@torch.no_grad()
def restore(app: Application, total: int, weights: list[torch.nn.Parameter], momenta: list[torch.Tensor]) -> int:
    """Load the checkpoint, if there is one, and return the steps it holds."""
    saved = app.resume(total)
    if saved is None:
        return 0
    start, arrays = saved
    for number, (weight, momentum) in enumerate(zip(weights, momenta, strict=True)):
        weight.copy_(torch.from_numpy(arrays[f"weight{number}"]))
        momentum.copy_(torch.from_numpy(arrays[f"momentum{number}"]))
    return start


if __name__ == "__main__":
    raise SystemExit(launch(run, __doc__, gpu_found=torch.cuda.is_available))
