"""Integer sort by counting, after IS of the NAS Parallel Benchmarks: streams keys, hits counters at random.

A step changes two of 4 million keys (so that no two steps are alike), counts each key (into 8 MB of
counters) and adds the counts up to ranks. At the end the keys are sorted by the last ranks, and compared
with what numpy's sort makes of them: the same order, the same sum and the same sum of squares.

Run: `python intsort.py --scale 1`. Limits: one thread; 150 MB of memory.
"""

from __future__ import annotations

import numpy as np
from application import Application, launch

KEYS = 4 * 2**20
LARGEST = 2**20
STANDARD_STEPS = 270


def run(app: Application) -> str:
    app.phase("load")
    rng = np.random.default_rng(314159)
    keys = np.zeros(KEYS, dtype=np.int64)
    for _ in range(4):  # a hump in the middle, as in the original: the mean of four uniform draws
        keys += rng.integers(0, LARGEST, KEYS)
    keys //= 4
    ranks = np.zeros(LARGEST, dtype=np.int64)
    counts = ranks

    app.phase("solve")
    total = app.amount(STANDARD_STEPS)
    for step in app.steps(total):
        keys[step % KEYS] = step % LARGEST
        keys[-1 - step % KEYS] = LARGEST - 1 - step % LARGEST
        counts = np.bincount(keys, minlength=LARGEST)
        np.cumsum(counts, out=ranks)
        app.note(below_middle=int(ranks[LARGEST // 2 - 1]))

    app.phase("check")
    ordered = np.zeros(KEYS, dtype=np.int64)
    present = np.flatnonzero(counts)
    ordered[0] = present[0]
    ordered[ranks[present[:-1]]] = np.diff(present)  # where the next larger key begins: by how much it is larger
    np.cumsum(ordered, out=ordered)
    if app.spoiled:
        ordered[KEYS // 3], ordered[-1] = ordered[-1], ordered[KEYS // 3]
    app.require(bool(np.all(ordered[:-1] <= ordered[1:])), "the keys are not in order")
    app.require(int(ordered.sum()) == int(keys.sum()), "not a permutation: the sums of the keys differ")
    app.require(int(ordered @ ordered) == int(keys @ keys), "not a permutation: the sums of squares differ")
    keys.sort()
    app.require(bool(np.array_equal(ordered, keys)), "counting and numpy's sort disagree")
    return f"{total} rankings of {KEYS:,} keys, in order, checksum {int(keys.sum())}"


if __name__ == "__main__":
    raise SystemExit(launch(run, __doc__))
