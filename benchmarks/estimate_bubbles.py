"""Bubbles on this machine: what calibrating them costs, how straight the calibrated dial is, how hard each presses.

    python benchmarks/estimate_bubbles.py [--quick] [--json] [--folder DIR]

Calibrates once and prints the calibration, then turns every calibrated dial to 1/4, 1/2, 3/4 and 1 beside its reporter,
windows beside and alone interleaved, 15 rounds (`--quick`: 3). `dial_linearity` is the largest deviation, over the
kinds that are felt, of the excess of the slowdown from a straight line through 0 and its value at level 1, as a
fraction of that value; `dial_linearity_median` is the median over these kinds, and `dial_KIND` each by itself.
`slowest_KIND` is the reporter's slowdown at level 1. `noise_floor` is the median over kinds, in percent, of the half of
what nine in ten pairs of neighbouring windows alone differ by. Goal: calibration_s < 30.
"""

from __future__ import annotations

import os
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import measuring
from tandem.estimate.bubbles import Bubble, Calibration, Reporter, calibrate, describe
from tandem.estimate.bubbles.calibrating import respond

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)


def deviation(slowdowns: tuple[float, ...]) -> float:
    """Largest deviation of the excess from a line through the ends, over the excess at level 1."""
    excess = slowdowns[-1] - 1.0
    lines = zip(LEVELS, slowdowns, strict=True)
    return max(abs(slow - 1.0 - level * excess) for level, slow in lines) / excess if excess > 0 else 1.0


def turned(calibration: Calibration, folder: Path | None, rounds: int) -> dict[str, tuple[float, ...]]:
    """Kind -> the reporter's slowdown at `LEVELS` of the calibrated dial, for kinds that are felt."""
    found = {}
    for kind, response in calibration.responses.items():
        if not response.felt:
            continue
        first, others = calibration.cores[:1], calibration.cores[1:]
        beside = first if kind == "cpu" else others
        with (
            Reporter(kind, cores=first, folder=folder) as reporter,
            Bubble(kind, cores=beside, folder=folder, calibration=calibration) as bubble,
        ):
            found[kind] = respond(reporter, bubble, LEVELS, rounds=rounds).slowdowns
    return found


def main() -> None:
    """Measure and print."""
    parser = measuring.options("what bubbles cost and how straight their dials are")
    parser.add_argument("--folder", type=Path, help="where disk bubbles work (default: the temporary folder)")
    given = parser.parse_args()
    print(f"{measuring.machine()}; commit {measuring.commit()}")
    calibration = calibrate(cores=tuple(sorted(os.sched_getaffinity(0))), folder=given.folder, progress=None)
    print(*describe(calibration), sep="\n")
    curves = turned(calibration, given.folder, 3 if given.quick else 15)
    for kind, slowdowns in curves.items():
        steps = "  ".join(f"{level:.2f}:{slow:.2f}" for level, slow in zip(LEVELS, slowdowns, strict=True))
        print(f"{kind:12s} slowdown by calibrated dial   {steps}")
    straight = {kind: deviation(slowdowns) for kind, slowdowns in curves.items()}
    figures: dict[str, float | None] = {
        "calibration_s": calibration.cost_s,
        "dial_linearity": max(straight.values(), default=None),
        "dial_linearity_median": statistics.median(straight.values()) if straight else None,
        "noise_floor": 100 * statistics.median(one.noise for one in calibration.responses.values()),
        **{f"slowest_{kind}": one.slowdowns[-1] for kind, one in calibration.responses.items()},
        **{f"dial_{kind}": value for kind, value in straight.items()},
    }
    measuring.finish(figures, as_json=given.json)


if __name__ == "__main__":
    main()
