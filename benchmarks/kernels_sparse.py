"""Products with sparse weights against the best dense ones, and a whole model's tokens a second.

    python benchmarks/kernels_sparse.py --quick --json
    python benchmarks/kernels_sparse.py                 # both shapes, more rounds
    python benchmarks/kernels_sparse.py --part model    # one piece of that
    python benchmarks/kernels_sparse.py --part gpu --save   # on a machine with a GPU: less than five minutes

`cpu_bf16_nN_sS` is how many times faster a product of a 4096 x 4096 matrix with S % zeros and N rows of x is than the
best dense product of this machine (F.linear in bf16, fp16 and fp32, oneDNN and MKL with packed weights);
`cpu_int8_n1_s60` the same with int8 values, still over the best dense product of 16 or 32 bits. Intervals stand below
each table. `e2e_bB_s60` is tokens a second of a Llama of random parameters (342 million; 136 with `--quick`) at batch B
over those of the same model in its best dense type. `gpu_n8_s60` is a product with 8 rows of x on a GPU over cuBLAS, a
mean over shapes of OPT and Llama (kernels_sparse_gpu.py); where torch sees no GPU it is null, and the table says "not
measured".

`--shared` takes one thread's CPU time in place of the clock's: where others use the machine too, the clock mostly
tells who else ran. Matrices are read from memory: copies of each fill more than four of the largest caches and are
taken in turn (with 260 MB of cache most of the time goes into making them, and `--quick` takes 70 s). Contenders are
interleaved. Where `--save` is given, the table of each shape goes to
`benchmarks/results/kernels_sparse_MxK_PATH.csv`, PATH being the instructions that products use here (avx512_bf16,
avx512, avx2).
"""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from tandem.kernels.sparse import pictures
from tandem.kernels.sparse.backends import cpu
from tandem.kernels.sparse.contenders import Dense, pruned
from tandem.kernels.sparse.measuring import Comparison, Timed, measure
from tandem.report.table import to_rich

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import kernels_sparse_gpu, kernels_sparse_model
from benchmarks.measuring import RESULTS, Ratio, commit, finish, machine, noise_floor, options, ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SHAPES = {"4096x4096": (4096, 4096), "11008x4096": (11008, 4096)}
ZEROS = (0.5, 0.6, 0.7, 0.8)
COUNTS = (1, 4, 8, 16)
COLUMNS = (
    "machine", "commit", "threads", "rows_of_x", "product", "zeros", "size_bytes", "median_us",
    "over_best_dense", "low", "high", "of_bandwidth", "cycles_per_32",
)  # fmt: skip


def main() -> None:
    """Measure, print tables and figures."""
    parser = options(__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help="write the tables to benchmarks/results")
    parser.add_argument(
        "--shared", action="store_true", help="one thread by its CPU time: for a machine that is shared"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of both sides")
    parser.add_argument("--part", choices=[*SHAPES, "model", "gpu"], help="one shape, the whole model, or a GPU, alone")
    args = parser.parse_args()
    threads = 1 if args.shared else args.threads
    torch.set_num_threads(threads)
    print(f"{machine()}; torch {torch.__version__}, {threads} threads{', CPU time' if args.shared else ''}")
    clock = time.thread_time if args.shared else time.perf_counter
    figures: dict[str, float | None] = {}
    began_s = time.perf_counter()
    parts = [args.part] if args.part else [*(list(SHAPES)[:1] if args.quick else SHAPES), "model", "gpu"]
    for part in [part for part in parts if part in SHAPES]:
        compared = measured(*SHAPES[part], args.quick, clock)
        for comparison in compared:
            show(comparison)
            if part == next(iter(SHAPES)):
                figures.update(figures_of(comparison))
        if args.save:
            save(compared)
        print(f"{part}: {time.perf_counter() - began_s:.0f} s")
    if "model" in parts:
        figures.update(kernels_sparse_model.figures(quick=args.quick, clock=clock))
    if "gpu" in parts:
        figures.update(kernels_sparse_gpu.figures(quick=args.quick, save=args.save))
    finish(figures, as_json=args.json)


def figures_of(comparison: Comparison) -> dict[str, float]:
    """Return the figures of one number of rows of x."""
    found = {}
    for ours in comparison.ours:
        kind, percent = ours.name.split()[0], round(100 * (ours.zeros or 0))
        if kind == "bf16" or percent == 60:
            found[f"cpu_{kind}_n{comparison.count}_s{percent}"] = over_best_dense(comparison, ours).mid
    return found


def over_best_dense(comparison: Comparison, ours: Timed) -> Ratio:
    """Return how many times faster it is, with the interval over the rounds that both were in."""
    best = comparison.best_dense.rounds_s
    rounds = min(len(best), len(ours.rounds_s))
    return ratio(best[:rounds], ours.rounds_s[:rounds])


def show(comparison: Comparison) -> None:
    """Print the table, then ratios with their intervals and the noise floor."""
    Console(width=130, highlight=False).print(to_rich(pictures.table(comparison)))
    best = comparison.best_dense
    print(f"best dense: {best.name}, {1e6 * best.median_s:.0f} us, noise {noise_floor(best.rounds_s):.1f} %")
    for ours in comparison.ours:
        share = comparison.share_of_bandwidth(ours) if comparison.read_bytes_per_s else float("nan")
        print(
            f"  {ours.name:10s} {over_best_dense(comparison, ours)} x, {share:.2f} of the read bandwidth, "
            f"{comparison.cycles_per_32(ours):.1f} cycles for 32 weights"
        )


def save(compared: Sequence[Comparison]) -> None:
    """Write one shape's table as CSV."""
    first = compared[0]
    path = RESULTS / f"kernels_sparse_{first.rows}x{first.cols}_{cpu.best_path()}.csv"
    with path.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow([*COLUMNS])
        for comparison in compared:
            for timed in (*comparison.ours, *comparison.dense):
                over = over_best_dense(comparison, timed)
                rows.writerow(
                    [
                        machine(),
                        commit(),
                        comparison.threads,
                        comparison.count,
                        timed.name,
                        timed.zeros,
                        timed.size_bytes,
                        f"{1e6 * timed.median_s:.1f}",
                        f"{over.mid:.3f}",
                        f"{over.low:.3f}",
                        f"{over.high:.3f}",
                        f"{comparison.share_of_bandwidth(timed):.3f}",
                        f"{comparison.cycles_per_32(timed):.1f}",
                    ]
                )


def measured(rows: int, cols: int, quick: bool, clock: Callable[[], float]) -> list[Comparison]:
    """Return comparisons of one shape for all `COUNTS`; int8 values with one row of x only."""
    dense_MK = torch.randn(rows, cols)
    bf16 = pruned(dense_MK, ZEROS, [torch.bfloat16])
    int8 = pruned(dense_MK, (0.6,) if quick else ZEROS, [torch.int8])
    dense, rounds = Dense(dense_MK), 7 if quick else 15
    return [
        measure(dense, [*bf16, *int8] if count == 1 else bf16, count, rounds=rounds, clock=clock) for count in COUNTS
    ]


if __name__ == "__main__":
    main()
