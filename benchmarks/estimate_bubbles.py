"""Bubbles on this machine: what calibrating them costs, how straight the calibrated dial is, how hard each presses.

    python benchmarks/estimate_bubbles.py [--quick] [--json] [--folder DIR] [--gpu INDEX]

Calibrates once and prints the calibration, then turns every calibrated dial to 1/4, 1/2, 3/4 and 1 beside its reporter,
windows beside and alone interleaved, 40 rounds (`--quick`: 12), medians as measured. `dial_KIND` is the largest
deviation of the excess of the slowdown from a straight line through 0 and its value at level 1, as a fraction of that
value; only for kinds that were felt in the calibration and again here, since a fraction of nothing says nothing.
`dial_linearity` is the largest of them, `dial_linearity_median` their median, `kinds_felt` how many they are.
`slowest_KIND` is the reporter's slowdown at level 1 in the calibration, `again_KIND` in the second measurement: where
they differ the machine changed in between. `noise_floor` is the median over kinds, in percent, of the half-width of the
90 % interval of a slowdown in the calibration. Goal: calibration_s < 30.
"""

from __future__ import annotations

import os
import statistics
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import measuring
from tandem.estimate.bubbles import Bubble, Calibration, Reporter, calibrate, describe, with_gpu
from tandem.estimate.bubbles.calibrating import noise, slowdowns
from tandem.estimate.profile import LEAST_EXCESS

LEVELS = (0.25, 0.5, 0.75, 1.0)


def deviation(excess: list[float]) -> float:
    """Largest deviation of the excess at `LEVELS` from a line through 0 and its last value, over that value."""
    return max(abs(one - level * excess[-1]) for level, one in zip(LEVELS, excess, strict=True)) / excess[-1]


def turned(calibration: Calibration, folder: Path | None, rounds: int) -> dict[str, tuple[list[float], float]]:
    """Kind -> (excess of the reporter's slowdown at `LEVELS` of the calibrated dial, its noise), where it was felt."""
    found = {}
    for kind, response in calibration.responses.items():
        if not response.felt:
            continue
        first, others = calibration.cores[:1], calibration.cores[1:]
        with (
            Reporter(kind, cores=first, folder=folder) as reporter,
            Bubble(kind, cores=first if kind == "cpu" else others, folder=folder, calibration=calibration) as bubble,
        ):
            measured = slowdowns(reporter, bubble, LEVELS, rounds=rounds)
        found[kind] = [statistics.median(measured[level]) - 1.0 for level in LEVELS], noise(measured)
    return found


def main() -> None:
    """Measure and print."""
    parser = measuring.options("what bubbles cost and how straight their dials are")
    parser.add_argument("--folder", type=Path, help="where disk bubbles work (default: the temporary folder)")
    parser.add_argument("--gpu", type=int, metavar="INDEX", help="calibrate and print the bubbles of this GPU too")
    given = parser.parse_args()
    print(f"{measuring.machine()}; commit {measuring.commit()}")
    calibration = calibrate(cores=tuple(sorted(os.sched_getaffinity(0))), folder=given.folder, progress=None)
    if given.gpu is not None:
        print(*describe(with_gpu(replace(calibration, responses={}, cost_s=0.0), given.gpu)), sep="\n")
    print(*describe(calibration), sep="\n")
    curves = turned(calibration, given.folder, 12 if given.quick else 40)
    for kind, (excess, noisy) in curves.items():
        steps = "  ".join(f"{level:.2f}:{1 + one:.2f}" for level, one in zip(LEVELS, excess, strict=True))
        print(f"{kind:12s} slowdown by calibrated dial   {steps}   +- {100 * noisy:.1f} %")
    straight = {
        kind: deviation(excess) for kind, (excess, noisy) in curves.items() if excess[-1] > max(LEAST_EXCESS, noisy)
    }
    figures: dict[str, float | None] = {
        "calibration_s": calibration.cost_s,
        "dial_linearity": max(straight.values(), default=None),
        "dial_linearity_median": statistics.median(straight.values()) if straight else None,
        "kinds_felt": len(straight),
        "noise_floor": 100 * statistics.median(one.noise for one in calibration.responses.values()),
        **{f"slowest_{kind}": one.slowdowns[-1] for kind, one in calibration.responses.items()},
        **{f"again_{kind}": 1.0 + excess[-1] for kind, (excess, _) in curves.items()},
        **{f"dial_{kind}": value for kind, value in straight.items()},
    }
    measuring.finish(figures, as_json=given.json)


if __name__ == "__main__":
    main()
