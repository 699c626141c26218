"""Pairs of training jobs on one GPU: half of them seen, the other half predicted; and jobs never seen in any pair.

Run: `python benchmarks/estimate_gavel.py [--quick] [--json] [--gpu v100]`. The data are the throughputs of training
jobs alone and in pairs that Gavel measured (Narayanan et al., OSDI 2020; gavel_throughputs.json, see
`benchmarks.measuring.trace`). A slowdown is the throughput alone over that in the pair; of every unordered pair both
members go to the same half. A throughput of zero stands for a pair that does not fit the GPU's memory: whether it fits
is scored as a yes or no, errors are of pairs that fit. Models:

- mean, median: the same slowdown for every pair.
- in turns: each step of one waits for c steps of the other, 1 + c * (steps/s alone) / (steps/s alone of the other);
  c is fitted.
- learned: `tandem.estimate.models.learned` with neither profiles nor traits. For pairs `additive` and `worst_pair` are
  the same: all three judge one that was not seen by what both did beside others.
- kinship: `tandem.estimate.kinship`, which knows each job's network and batch size.

All figures are means over splits (5, or 2 with --quick). Median, mean and coverage are printed for each model; the
figure gavel_heldout_mape is that of kinship on the half that was not seen.
"""

from __future__ import annotations

import json
import math
import random
import re
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from collections.abc import Mapping

from benchmarks import measuring
from tandem.estimate import estimators
from tandem.estimate.corun import App, Capacity, CoRun
from tandem.estimate.kinship import Kinship, Traits

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

DATA = "gavel_throughputs.json"
SPLITS, QUICK_SPLITS = 5, 2
NEW_JOBS = 0.2
NODE = Capacity(1_000_000)
TABLE = measuring.RESULTS / "estimate_gavel.json"

Pair = tuple[str, str]
Guess = tuple[float, float, float]
"""Middle, lower and upper end."""


@dataclass(frozen=True, slots=True)
class Table:
    """One GPU type.

    Attributes:
        alone: steps per second of each job alone.
        traits: what each job says of itself.
        slowdowns: (job, beside) -> slowdown, of pairs that fit.
        fits: unordered pair -> whether it fits.
    """

    alone: Mapping[str, float]
    traits: Mapping[str, Traits]
    slowdowns: Mapping[Pair, float]
    fits: Mapping[Pair, bool]


def main() -> None:
    """Score every model and print."""
    parser = measuring.options((__doc__ or "").splitlines()[0])
    parser.add_argument("--gpu", default="v100", help="which of the file's GPU types")
    options = parser.parse_args()
    found = figures(quick=options.quick, gpu=options.gpu)
    measuring.finish(found, as_json=options.json, kept=() if measuring.trace(DATA) else list(found))


def figures(*, quick: bool, gpu: str = "v100") -> dict[str, float | None]:
    """Score every model; a full run keeps a small table, which stands in where the data are not at hand."""
    path = measuring.trace(DATA)
    if path is None:
        print("gavel_throughputs.json is not at hand (TANDEM_SHARED_DATA): the kept table is printed")
        return kept()
    table = read(json.loads(path.read_text())[gpu])
    rows = score(table, QUICK_SPLITS if quick else SPLITS)
    show(rows)
    found: dict[str, float | None] = {"gavel_heldout_mape": rows["half of the pairs"]["kinship"]["mape"]}
    if not quick:
        about = {"commit": measuring.commit(), "gpu": gpu, "splits": SPLITS}
        TABLE.write_text(json.dumps({**about, "figures": found, "scores": rows}, indent=1) + "\n")
    return found


def kept() -> dict[str, float | None]:
    """The figures of the last full run."""
    table = json.loads(TABLE.read_text())
    print(f"GPU pairs: kept from commit {table['commit']}")
    return dict(table["figures"])


def read(raw: Mapping[str, Mapping[str, Any]]) -> Table:
    """A GPU type's part of the file: {job: {"null": alone, other job: [own throughput, the other's]}}."""
    alone = {job: float(row["null"]) for job, row in raw.items()}
    pairs = {(a, b): value for a, row in raw.items() for b, value in row.items() if b != "null"}
    fits = {(min(pair), max(pair)): min(value) > 0.0 for pair, value in pairs.items()}
    slowdowns = {(a, b): max(1.0, alone[a] / own) for (a, b), (own, other) in pairs.items() if min(own, other) > 0.0}
    return Table(alone, {job: traits(job) for job in alone}, slowdowns, fits)


def traits(job: str) -> Traits:
    """Network and GPUs as the group, the logarithm of the batch size as the size.

    >>> traits("('LM (batch size 20)', 1)")
    Traits(group='LM on 1', size=4.321928094887363)
    """
    found = re.fullmatch(r"\('([^(]*?)(?: \(batch size (\d+)\))?', (\d+)\)", job)
    if found is None:
        return Traits(job)
    network, batch, gpus = found.groups()
    return Traits(f"{network} on {gpus}", math.log2(int(batch)) if batch else 0.0)


def score(table: Table, splits: int) -> dict[str, dict[str, dict[str, float]]]:
    """Task -> model -> scores, each the mean over splits."""
    tasks: dict[str, list[dict[str, dict[str, float]]]] = {}
    for seed in range(splits):
        rng = random.Random(seed)
        pairs = sorted(table.fits)
        half = set(rng.sample(pairs, len(pairs) // 2))
        tasks.setdefault("half of the pairs", []).append(_slowdowns(table, lambda pair, seen=half: _one(pair) in seen))
        tasks.setdefault("does it fit", []).append(_fitting(table, half, pairs))
        single = [pair for pair in pairs if not _spread_out(table, pair)]
        tasks.setdefault("does it fit, on one GPU", []).append(_fitting(table, half, single))
        jobs = sorted({job for pair in table.slowdowns for job in pair})
        new = set(rng.sample(jobs, max(1, round(NEW_JOBS * len(jobs)))))
        tasks.setdefault("jobs never seen", []).append(
            _slowdowns(table, lambda pair, new=new: not new.intersection(pair))
        )
    return {task: _mean(results) for task, results in tasks.items()}


def show(rows: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """Print the table."""
    for task, models in rows.items():
        print(task)
        for model, scores in models.items():
            print(f"  {model:10s} " + "  ".join(f"{name} {value:7.3f}" for name, value in scores.items()))


# ------------------------------------------------------------------------------------ slowdowns


def _slowdowns(table: Table, seen: Callable[[Pair], bool]) -> dict[str, dict[str, float]]:
    """Scores of every model that saw the pairs for which ``seen`` holds, on the others."""
    known = {pair: slowdown for pair, slowdown in table.slowdowns.items() if seen(pair)}
    asked = {pair: slowdown for pair, slowdown in table.slowdowns.items() if not seen(pair)}
    models: dict[str, Callable[[Table, Mapping[Pair, float], Collection[Pair]], dict[Pair, Guess]]] = {
        "mean": lambda _, told, pairs: dict.fromkeys(pairs, _point(statistics.fmean(told.values()))),
        "median": lambda _, told, pairs: dict.fromkeys(pairs, _point(statistics.median(told.values()))),
        "in turns": _in_turns,
        "learned": _learned,
        "kinship": _kinship,
    }
    scores = {}
    for name, model in models.items():
        guesses = model(table, known, asked)
        errors = [100 * abs(guesses[pair][0] / slowdown - 1) for pair, slowdown in asked.items()]
        inside = [guesses[pair][1] <= slowdown <= guesses[pair][2] for pair, slowdown in asked.items()]
        scores[name] = {"median": statistics.median(errors), "mape": statistics.fmean(errors)}
        if name in ("learned", "kinship"):
            scores[name]["coverage90"] = statistics.fmean(inside)
    return scores


def _in_turns(table: Table, known: Mapping[Pair, float], asked: Collection[Pair]) -> dict[Pair, Guess]:
    """Least squares of relative errors, in closed form."""
    waits = {pair: table.alone[pair[0]] / table.alone[pair[1]] for pair in table.slowdowns}
    above = sum(waits[pair] / s * (s - 1) / s for pair, s in known.items())
    cost = above / sum((waits[pair] / s) ** 2 for pair, s in known.items())
    return {pair: _point(1 + cost * waits[pair]) for pair in asked}


def _learned(table: Table, known: Mapping[Pair, float], asked: Collection[Pair]) -> dict[Pair, Guess]:
    alone = [CoRun(job, (), 1.0, 60.0) for job in table.alone]
    coruns = [CoRun(a, (b,), 1.0 / slowdown, 60.0) for (a, b), slowdown in sorted(known.items())]
    model = estimators.make("learned", (*alone, *coruns))
    answers = {pair: model.predict((App(pair[0]), App(pair[1])), NODE)[0] for pair in asked}
    return {pair: (answer.mid, answer.low, answer.high) for pair, answer in answers.items()}


def _kinship(table: Table, known: Mapping[Pair, float], asked: Collection[Pair]) -> dict[Pair, Guess]:
    kinship = Kinship({pair: math.log(slowdown) for pair, slowdown in known.items()}, table.traits)
    pairs = sorted(asked)
    mids, halves = kinship.predict(pairs)
    return {
        pair: (max(1.0, math.exp(mid)), max(1.0, math.exp(mid - half)), math.exp(mid + half))
        for pair, mid, half in zip(pairs, mids.tolist(), halves.tolist(), strict=True)
    }


def _point(mid: float) -> Guess:
    return mid, mid, mid


# ------------------------------------------------------------------------------------ does it fit


def _fitting(table: Table, half: Collection[Pair], pairs: Collection[Pair]) -> dict[str, dict[str, float]]:
    """Whether pairs that are not in ``half`` fit, by those of ``half``; all of them among ``pairs``."""
    known = {pair: table.fits[pair] for pair in pairs if pair in half}
    asked = [pair for pair in pairs if pair not in half]
    if not known or not asked:
        return {}
    both = {one: 1.0 if fits else -1.0 for pair, fits in known.items() for one in (pair, pair[::-1])}
    mids, _ = Kinship(both, table.traits).predict(asked)
    usual = 2 * sum(known.values()) >= len(known)
    return {
        "usual": _yes_or_no([usual] * len(asked), [table.fits[pair] for pair in asked]),
        "kinship": _yes_or_no([bool(mid > 0) for mid in mids], [table.fits[pair] for pair in asked]),
    }


def _yes_or_no(said: list[bool], true: list[bool]) -> dict[str, float]:
    """Accuracy, and F1 of those that do not fit (the ones to be found)."""
    hits = sum(not s and not t for s, t in zip(said, true, strict=True))
    wrong = sum(s != t for s, t in zip(said, true, strict=True))
    return {"accuracy": 1 - wrong / len(true), "f1_unfit": 2 * hits / (2 * hits + wrong) if hits or wrong else 1.0}


def _spread_out(table: Table, pair: Pair) -> bool:
    """Whether a pair is of jobs on so many GPUs that no pair of that many fits."""
    gpus = [table.traits[job].group.rsplit(" on ", 1)[-1] for job in pair]
    return not any(
        fits and [table.traits[job].group.rsplit(" on ", 1)[-1] for job in other] == gpus
        for other, fits in table.fits.items()
    )


def _one(pair: Pair) -> Pair:
    return min(pair), max(pair)


def _mean(results: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    return {
        model: {name: round(statistics.fmean(one[model][name] for one in results), 4) for name in results[0][model]}
        for model in results[0]
    }


if __name__ == "__main__":
    main()
