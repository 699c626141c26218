"""How well co-execution is predicted: applications alone, in pairs, triples and quadruples, measured and predicted.

Run: `python benchmarks/estimate_corun.py [--quick] [--json] [--for SECONDS]`. The full run measures what this machine's
table lacks (`estimate_corun_measure`; it goes on where it stopped, half an hour in all), and scores every model on the
main table, benchmarks/results/estimate_corun.json, whose machine has a core for each member; then on this machine's own
(estimate_corun_MACHINE.json), where that is another. Models get the profiles of the table estimate_profiles.json of the
same machine (`estimate_profiles.py` makes it). ``--quick`` measures a few pairs live and scores the kept tables.
``--fit`` prints what constants of the models the main table's pairs would choose (`estimate_fit`). Every set's pinning
is in the table.

Figures: `noise_floor` (percent, alone against alone), `bubble_median`, `bubble_mean` (profiles only, sets that fit
the cores), `learned_mean_3_4`, `additive_mean_3_4`, `worst_pair_mean_3_4` (percent, triples and quadruples, from pairs
seen; with fewer cores than members cores are shared, and every model has the same CPU-share term), `coverage90`,
`profile_s` (seconds an application, the mean), `predict_us`, `sets_per_s`, `shared_us` (`estimate_predict`),
`gavel_heldout_mape` (`estimate_gavel`: percent, GPU pairs not fitted). `again_median`: percent by which the
same pair, measured a second time, differs. `perfect_mean`, `perfect_mean_3_4`: mean error of a model that knew the
truth, by the half-widths of what was measured: no model can be better than that.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import estimate_corun_measure as raw
from benchmarks import estimate_fit, estimate_gavel, estimate_predict, estimate_score, measuring
from benchmarks.estimate_profiles import TABLE as PROFILES
from tandem.core.machine import discover
from tandem.estimate.profiling import store

LIVE_S = 12.0
LIVE_PAIRS = (("cg", "stream"), ("lu", "montecarlo"), ("stencil", "stencil"))


def main() -> None:
    """Measure what is missing, and score."""
    parser = measuring.options((__doc__ or "").splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="measure only")
    parser.add_argument("--for", dest="for_s", type=float, default=1e9, metavar="SECONDS", help="measure no longer")
    parser.add_argument("--patience", type=float, default=1.0, metavar="X", help="longest time for a set, times X")
    parser.add_argument("--fit", action="store_true", help="only print the constants that the table's pairs would have")
    options = parser.parse_args()
    print(f"{measuring.machine()}; commit {measuring.commit()}")
    if options.fit:
        estimate_fit.show(fitted())
        return
    if options.quick:
        live()
    else:
        with raw.bench(raw.applications(), options.patience) as ready:
            table = measuring.own_table(raw.TABLE, discover().fingerprint)
            print(f"{raw.measure(table, ready, time.monotonic() + options.for_s)} sets are left")
    if not options.measure:
        found = figures(quick=options.quick)
        measured = ("predict_us", "sets_per_s", "shared_us", "course_us")
        kept = [name for name in found if name not in measured] if options.quick else []
        measuring.finish(found, as_json=options.json, kept=kept)


def live() -> None:
    """A few pairs, measured now, beside what the table says of them."""
    own = measuring.own_table(raw.TABLE, discover().fingerprint)
    rows = json.loads(own.read_text())["sets"] if own.exists() else []
    table = {tuple(row["set"]): row for row in rows if row["kind"] == "pair"}
    until = time.monotonic() + LIVE_S
    with tempfile.TemporaryDirectory(prefix="tandem-corun-"), raw.bench(raw.applications()) as ready:
        for members in LIVE_PAIRS:
            if time.monotonic() > until:
                break
            row, kept = ready.measure("pair", members), table.get(members, {})
            print(f"live {' + '.join(members):22s} {_of(row)}   in the table {_of(kept)}", flush=True)


def fitted() -> estimate_fit.Fitted:
    """Constants as the kept tables would have them."""
    told = json.loads(raw.TABLE.read_text())
    rows = estimate_score.read(told)
    held_out = estimate_score.drawn(key for row in rows for key in row.members)
    print(f"held out (drawn by seed {estimate_score.HELD_OUT_SEED}): {', '.join(held_out)}")
    profiles = [store.from_json(one) for one in json.loads(PROFILES.read_text())["profiles"]]
    return estimate_fit.fit(rows, profiles, held_out, estimate_score.between(told))


def figures(*, quick: bool) -> dict[str, float | None]:
    """Every figure, from the tables and from two more benchmarks."""
    own = [measuring.own_table(table, discover().fingerprint) for table in (raw.TABLE, PROFILES)]
    if own[0] != raw.TABLE and all(table.exists() for table in own):
        scored(*own)
        print()
    found = scored(raw.TABLE, PROFILES)
    found |= estimate_predict.figures(quick=quick)
    return found | (estimate_gavel.kept() if quick else estimate_gavel.figures(quick=False))


def scored(table: Path, profiles_table: Path) -> dict[str, float | None]:
    """Score every model on one machine's co-runs, with that machine's profiles."""
    told = json.loads(table.read_text())
    profiled = json.loads(profiles_table.read_text())
    profiles = [store.from_json(one) for one in profiled["profiles"]]
    print(f"table: {told['machine_in_words']} ({told['machine']}), commit {told['commit']}, {len(told['sets'])} sets;")
    print(f"profiles: commit {profiled['commit']}, {len(profiles)} of {len(raw.applications())} applications")
    rows = estimate_score.read(told)
    scores = estimate_score.score(rows, profiles, apart=estimate_score.between(told))
    estimate_score.show(scores)
    noise = estimate_score.noise_floor(told)
    print("\n".join(estimate_score.goals(scores, noise)))
    found = estimate_score.figures(scores, noise)
    found["perfect_mean"] = estimate_score.perfect([row for row in rows if row.fits])
    found["perfect_mean_3_4"] = estimate_score.perfect([row for row in rows if len(row.members) > 2])
    print(f"a model that knew the truth: {_percent(found['perfect_mean'])} on sets that fit the cores", end=", ")
    print(f"{_percent(found['perfect_mean_3_4'])} on triples and quadruples, by the measurements' half-widths")
    found["again_median"] = again(told)
    found["profile_s"] = statistics.fmean(one.cost_s for one in profiles) if profiles else None
    return found


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} %"


def again(told: dict[str, list[dict[str, list[float | None]]]]) -> float | None:
    """Percent between the same slowdown measured twice, at different times: the median."""
    first = {tuple(map(str, row["set"])): row["slowdowns"] for row in told["sets"] if row["kind"] == "pair"}
    off = [
        100 * abs(b / a - 1)
        for row in told["sets"]
        if "again" in row["kind"] and tuple(map(str, row["set"])) in first
        for a, b in zip(first[tuple(map(str, row["set"]))], row["slowdowns"], strict=True)
        if a and b
    ]
    return statistics.median(off) if off else None


def _of(row: dict[str, list[float]]) -> str:
    if not row:
        return "-"
    return ", ".join(f"{slow:.2f} +- {half:.2f}" for slow, half in zip(row["slowdowns"], row["halves"], strict=True))


if __name__ == "__main__":
    main()
