"""`tandem kernels prune`: a dense language model into a sparse one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tandem.cli.finite import finite
from tandem.cli.terminal import json_option, print_json, progress, say, show_table

if TYPE_CHECKING:
    from tandem.kernels.prune.outcome import Outcome


@click.command()
@click.option("--method", default="wanda", show_default=True, metavar="NAME", help="magnitude, wanda or sparsegpt.")
@click.option("--sparsity", type=float, metavar="SHARE", help="Share of zeros, above 0 and below 1.")
@click.option("--nm", metavar="N:M", help="Instead: at most N nonzeros in each M neighbours, as in 2:4.")
@click.option("--owl", "by_outliers", is_flag=True, help="Let blocks with more outliers keep more (OWL).")
@click.option("--calibration", type=click.Path(path_type=Path), metavar="FILE", help="Text that layers are fed.")
@click.option("--eval", "evaluation", type=click.Path(path_type=Path), metavar="FILE", help="Text for the perplexity.")
@click.option(
    "--samples", type=click.IntRange(1), default=128, show_default=True, metavar="N", help="Windows of calibration."
)
@click.option("--length", type=int, metavar="N", help="Tokens of a window. [the model's, 2048 at most]")
@click.option("--finetune", type=click.IntRange(1), metavar="STEPS", help="Train under the mask on that text.")
@click.option(
    "--lr",
    "learning_rate",
    type=click.FloatRange(0, min_open=True),
    callback=finite,
    default=1e-4,
    show_default=True,
    metavar="RATE",
    help="Rate of the training.",
)
@click.option("--device", default="cpu", show_default=True, metavar="NAME", help="Where: cpu, cuda or cuda:1.")
@click.option("--distil", is_flag=True, help="Let the dense model teach in the training.")
@json_option
@click.argument("model", type=click.Path(path_type=Path), metavar="MODEL_DIR")
@click.argument("out", type=click.Path(path_type=Path))
def prune(
    sparsity: float | None,
    nm: str | None,
    finetune: int | None,
    as_json: bool,
    **asked: Any,  # noqa: ANN401 - the rest of a Plan
) -> None:
    """Set weights of a language model to zero and write it to OUT.

    MODEL_DIR is a causal language model as save_pretrained leaves it. Linear layers in its blocks are pruned;
    embeddings and head stay dense. OUT is a folder of the same kind, with a report.

    \b
    tandem kernels prune llama/ llama-60/ --sparsity 0.6 --calibration some.txt --eval other.txt
    tandem kernels prune llama/ llama-24/ --method sparsegpt --nm 2:4 --calibration some.txt
    """
    if (sparsity is None) == (nm is None):
        message = "give either --sparsity or --nm"
        raise click.UsageError(message)
    if asked["distil"] and not finetune:
        message = "--distil teaches in a training: give --finetune STEPS"
        raise click.UsageError(message)
    from tandem.kernels.prune import method

    method.load(asked["method"])  # an unknown one, or torch missing, is said before all else
    from tandem.kernels.prune.outcome import Plan
    from tandem.kernels.prune.pattern import Pattern
    from tandem.kernels.prune.running import run

    pattern = Pattern.n_of_m(nm) if nm is not None else Pattern.share(sparsity or 0.0)
    with progress("", quiet=as_json) as tell:
        outcome = run(Plan(pattern=pattern, tuning_steps=finetune or 0, **asked), tell)
    if as_json:
        print_json(_described(outcome))
    else:
        _show(outcome)


def _show(outcome: Outcome) -> None:
    from tandem.kernels.prune.page import layers_table, sentences

    show_table(layers_table(outcome))
    say()
    for sentence in sentences(outcome):
        say(sentence)
    say(f"model: {outcome.plan.out}")
    say(f"report: {outcome.plan.out / 'report.html'}")


def _described(outcome: Outcome) -> dict[str, object]:
    plan = outcome.plan
    measured = {"dense": outcome.before, "pruned": outcome.after, "trained": outcome.tuned}
    return {
        "out": str(plan.out),
        "report": str(plan.out / "report.html"),
        **outcome.note(),
        "tokens_are_bytes": outcome.tokens_are_bytes,
        "calibration_tokens": outcome.calibration_tokens,
        "window_tokens": outcome.length,
        "perplexity": {name: found.value for name, found in measured.items() if found},
        "eval_tokens": outcome.before.tokens if outcome.before else 0,
        "training_loss": outcome.tuning_loss,
        "layers": [asdict(one) for one in outcome.lost],
    }
