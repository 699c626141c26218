"""What every benchmark shares: the machine's name, ratios with intervals, and the closing JSON line.

A ratio is taken over interleaved rounds, pair by pair; its 95 % interval is a bootstrap over the pairs
(percentiles of 2,000 resamples of the median), and the noise floor is how much a side's neighbouring rounds differ.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def options(description: str) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a sample that ends within 50 s")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    return parser


def machine() -> str:
    """This machine and its Python, in words."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor()
    )
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, Python {platform.python_version()}"


def commit() -> str:
    """The commit this runs at, with a plus sign where files differ from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty=+"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def finish(figures: Mapping[str, float | None], *, as_json: bool, kept: Sequence[str] = ()) -> None:
    """Print the figures, and with ``as_json`` the closing object; ``kept`` names those from a stored table."""
    for name, value in figures.items():
        mark = "  (kept from a stored table)" if name in kept else ""
        print(f"{name:38s} {'-' if value is None else f'{value:.4g}'}{mark}")
    if as_json:
        closing: dict[str, Any] = {**figures, "_commit": commit(), "_kept": list(kept)}
        print(json.dumps(closing))


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median ratio over rounds and its 95 % interval."""

    mid: float
    low: float
    high: float
    rounds: int

    def __str__(self) -> str:
        return f"{self.mid:.3f} ({self.low:.3f}-{self.high:.3f}, {self.rounds} rounds)"


def ratio(above: Sequence[float], below: Sequence[float], *, seed: int = 0) -> Ratio:
    """Ratio of paired rounds, ``above[i] / below[i]``."""
    pairs = [a / b for a, b in zip(above, below, strict=True)]
    rng = random.Random(seed)
    medians = sorted(statistics.median(rng.choices(pairs, k=len(pairs))) for _ in range(2000))
    return Ratio(statistics.median(pairs), medians[50], medians[1949], len(pairs))


def noise_floor(rounds: Sequence[float]) -> float:
    """Percent by which a side's rounds differ from one another: the median of neighbours' relative differences."""
    differences = [abs(b / a - 1) for a, b in itertools.pairwise(rounds)]
    return 100 * statistics.median(differences) if differences else float("nan")


def trace(name: str) -> Path | None:
    """A real trace by file name, or None where it is not at hand (``TANDEM_SHARED_DATA``, or ../shared/data)."""
    folder = Path(os.environ.get("TANDEM_SHARED_DATA", ROOT.parent / "shared" / "data"))
    found = folder / "traces" / name
    return found if found.exists() else None


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def own_table(main: Path, machine: str) -> Path:
    """The kept table of a machine: ``main`` where it is that machine's, or nobody's yet, else one that names it.

    Args:
        main: the table that the documentation speaks of.
        machine: a fingerprint (`tandem.core.machine`).
    """
    if not main.exists() or json.loads(main.read_text())["machine"] == machine:
        return main
    return main.with_name(f"{main.stem}_{machine}{main.suffix}")
