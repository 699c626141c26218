"""Profiles of all applications of benchmarks/apps, as `tandem profile` makes them, kept in a table with what they cost.

Run: `python benchmarks/estimate_profiles.py [--for SECONDS] [--only NAME] [--most SECONDS]`. The table is
benchmarks/results/estimate_profiles.json, or one that names its machine where that is of another; a later run goes on
where the last one stopped. A profile that others disturbed ("waited": the part of the time alone in which they had its
core) is measured again, and of two the one that waited less stays. Each application runs on one thread on the first
core, bubbles and reporters on the next three, or as many as there are: as many as a set of four has members.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import estimate_corun_measure as raw
from benchmarks import measuring
from tandem.core.errors import TandemError
from tandem.core.machine import discover
from tandem.estimate.bubbles import calibrate
from tandem.estimate.bubbles.calibration import Calibration, Response
from tandem.estimate.profile import DISTURBED
from tandem.estimate.profiling import store
from tandem.estimate.profiling.measure import Terms, measure

if TYPE_CHECKING:
    from tandem.estimate.profile import Profile

TABLE = measuring.RESULTS / "estimate_profiles.json"
MOST_S = 40.0
MOST_CORES = 4


def load(table: Path) -> dict[str, Any]:
    """The table, or an empty one with this machine's calibration.

    Raises:
        SystemExit: The table is of another machine.
    """
    here = discover()
    if table.exists():
        kept: dict[str, Any] = json.loads(table.read_text())
        if kept["machine"] != here.fingerprint:
            message = f"{table} was measured on {kept['machine']}, this is {here.fingerprint}: move it away"
            raise SystemExit(message)
        return kept
    calibration = calibrate(cores=tuple(raw.spread(here.cores)[:MOST_CORES]), folder=None)
    return {
        "machine": here.fingerprint,
        "machine_in_words": measuring.machine(),
        "commit": measuring.commit(),
        "calibration": asdict(calibration),
        "profiles": [],
        "refused": {},
    }


def profile(app: str, calibration: Calibration, most_s: float) -> Profile:
    """Profile one application."""
    argv = [sys.executable, str(raw.APPS / f"{app}.py"), "--scale", raw.ENDLESS, "--threads", "1"]
    with tempfile.TemporaryDirectory(prefix="tandem-profiles-") as scratch:
        terms = Terms(
            key=app,
            cores=calibration.cores[:1],
            beside=calibration.cores[1:],
            most_s=most_s,
            env={"TMPDIR": scratch, "CUDA_VISIBLE_DEVICES": ""},
        )
        return measure(argv, terms, calibration)


def calibration_of(kept: dict[str, Any]) -> Calibration:
    """The calibration that the table was made with."""
    told = kept["calibration"]
    responses = {
        kind: Response(tuple(one["raw"]), tuple(one["slowdowns"]), one["noise"])
        for kind, one in told["responses"].items()
    }
    return Calibration(told["machine"], tuple(told["cores"]), responses, told["lacking"], told["made"], told["cost_s"])


def save(table: Path, kept: dict[str, Any]) -> None:
    """Write the table aside and rename it into place: one profile a line."""
    head = {key: value for key, value in kept.items() if key != "profiles"}
    rows = ",\n".join(f"  {json.dumps(row)}" for row in kept["profiles"])
    aside = table.with_suffix(".partial")
    aside.write_text(json.dumps(head, indent=1)[:-2] + f',\n "profiles": [\n{rows}\n ]\n}}\n')
    aside.replace(table)


def is_disturbed(row: dict[str, Any]) -> bool:
    """Whether others had its core for too long while a profile was made."""
    return bool(row.get("disturbed")) or row.get("waited", 0.0) > DISTURBED


def keep(rows: list[dict[str, Any]], row: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows with one more; of two of one application the one that was disturbed less."""
    known = [one for one in rows if one["key"] == row["key"]]
    best = min([row, *known], key=lambda one: (is_disturbed(one), one.get("waited", 0.0)))
    return [*(one for one in rows if one["key"] != row["key"]), best]


def run(until: float, only: str | None = None, most_s: float = MOST_S) -> int:
    """Profile what the table lacks until the monotonic time ``until``; returns how many applications are left."""
    table = measuring.own_table(TABLE, discover().fingerprint)
    kept = load(table)
    calibration = calibration_of(kept)
    done = {row["key"] for row in kept["profiles"] if not is_disturbed(row)}
    left = [app for app in raw.applications() if app not in done and only in (None, app)]
    while left and time.monotonic() + most_s < until:
        app = left.pop(0)
        try:
            found = profile(app, calibration, most_s)
        except TandemError as error:
            kept["refused"][app] = str(error)
            print(error, flush=True)
        else:
            kept["refused"].pop(app, None)
            row = store.as_json(found) | {"argv": ["python", f"benchmarks/apps/{app}.py", *found.argv[2:]]}
            kept["profiles"] = keep(kept["profiles"], row)
            main = found.phases[0]
            felt = {kind: curve.slowdowns[-1] for kind, curve in main.sensitivity.items()}
            print(f"{app}: {found.cost_s:.0f} s, noise {main.noise:.0%}, {felt}, {dict(main.pressure)}", flush=True)
        save(table, kept)
    return len(left)


def main() -> None:
    """Profile what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--for", dest="for_s", type=float, default=1e9, metavar="SECONDS", help="stop after this long")
    parser.add_argument("--only", metavar="NAME", help="only this application")
    parser.add_argument("--most", type=float, default=MOST_S, metavar="SECONDS", help="end each after so long")
    options = parser.parse_args()
    left = run(time.monotonic() + options.for_s, options.only, options.most)
    print(f"{left} applications are left")


if __name__ == "__main__":
    main()
