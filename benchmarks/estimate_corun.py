"""How well co-execution is predicted: applications alone, in pairs, triples and quadruples, measured and predicted.

Run: `python benchmarks/estimate_corun.py --measure [--for SECONDS]`. The measuring half is `estimate_corun_measure.py`;
its table is benchmarks/results/estimate_corun.json, and a later run goes on where the last one stopped.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import estimate_corun_measure as raw
from benchmarks import measuring


def main() -> None:
    """Measure what is missing."""
    parser = measuring.options(__doc__ or "")
    parser.add_argument("--measure", action="store_true", help="measure what the table lacks")
    parser.add_argument("--for", dest="for_s", type=float, default=1e9, metavar="SECONDS", help="stop after this long")
    options = parser.parse_args()
    if options.measure:
        until = time.monotonic() + options.for_s
        with raw.bench(raw.applications()) as ready:
            print(f"{raw.measure(raw.TABLE, ready, until)} sets are left")


if __name__ == "__main__":
    main()
