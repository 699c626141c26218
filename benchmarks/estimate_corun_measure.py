"""The raw measurements of `estimate_corun.py`: applications alone, in pairs, triples and quadruples, for real.

Every application of benchmarks/apps is started once, on one thread and with far more work than it will get done, and
stopped (SIGSTOP) after its load phase. A set is measured by letting one member after the other run alone and all of
them together in between, in windows of a tenth of a second and more: a virtual machine's cores jump in speed for
seconds at a time, with the host's other tenants, so that windows that are compared have to be close. A slowdown is the
rate alone, interpolated between the windows before and after, over the rate together (`tandem.estimate.profiling`).
Start-up is paid once.

Where there are fewer cores than members, member k is pinned to core k mod cores; otherwise each has a core of its own,
on physical cores of their own as long as there are enough.
The sets are fixed by a seed; they are appended to the table as they are measured, and a later run goes on from there.
Once all are there, those whose intervals are too wide are measured again, at most twice; the narrower one stays.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import statistics
import sys
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks import measuring
from tandem.core.machine import discover
from tandem.estimate.profiling.programme import RECORD_EVERY_VARIABLE, Programmes
from tandem.estimate.profiling.ratios import interval, noise_of, paired
from tandem.estimate.profiling.subject import Records, Subject
from tandem.estimate.profiling.windows import Stage, Window, slowdowns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tandem.core.machine import Core

APPS = measuring.ROOT / "benchmarks" / "apps"
TABLE = measuring.RESULTS / "estimate_corun.json"
SEED = 3
TRIPLES, QUADRUPLES, REPEATS = 42, 24, 20
ENDLESS = "1000"
WINDOW_S, SHARED_WINDOW_S = 0.1, 0.3  # the second where members share a core: the kernel's slices even out
SETTLE_S, SHARED_SETTLE_S = 0.025, 0.05
MOST_S = {1: 3.5, 2: 3.8, 3: 6.0, 4: 7.0}
RECORD_EVERY_S = 0.005
STEPS_PER_WINDOW = 2.5
NARROW = 0.01
TOO_WIDE, MOST_DISTURBED, TRIES = 0.08, 0.03, 3

Set = tuple[str, ...]


def applications() -> list[str]:
    """Those that are measured, by name: all but `chat` and `spacetrain`, which came after the tables were begun."""
    return sorted(path.stem for path in APPS.glob("*.py") if path.stem not in ("application", "chat", "spacetrain"))


def plan(apps: Sequence[str]) -> list[tuple[str, Set]]:
    """What is measured, in this order: (kind, members); members are in the order in which they are pinned."""
    rng = random.Random(SEED)
    pairs = [(a, b) for i, a in enumerate(apps) for b in apps[i:]]
    sets: list[tuple[str, Set]] = [("pair", pair) for pair in rng.sample(pairs, len(pairs))]
    for size, count in ((3, TRIPLES), (4, QUADRUPLES)):
        every = list(itertools.combinations(apps, size))
        chosen = rng.sample(every, min(count, len(every)))
        sets += [(f"{size} members", tuple(rng.sample(one, size))) for one in chosen]
    sets += [("alone twice", (app,)) for app in apps]
    distinct = [pair for pair in pairs if pair[0] != pair[1]]
    sets += [("pair again", pair) for pair in rng.sample(distinct, min(REPEATS, len(distinct)))]
    return sets


def pinning(size: int, cores: Sequence[int]) -> list[int]:
    """A core of its own for each member where there are enough, else member k on core k mod cores."""
    return [cores[k % len(cores)] for k in range(size)]


def spread(cores: Sequence[Core]) -> list[int]:
    """Logical processors in the order in which they are used: one of each physical core first."""
    seen: Counter[int] = Counter()
    ranked = []
    for core in sorted(cores):
        ranked.append((seen[core.physical], core.index))
        seen[core.physical] += 1
    return [index for _, index in sorted(ranked)]


class Bench:
    """The applications, loaded and stopped; two of each, for sets that hold one twice.

    Args:
        patience: what the longest time for a set is multiplied with.
    """

    def __init__(
        self, programmes: Programmes, apps: Sequence[str], cores: Sequence[int], patience: float = 1.0
    ) -> None:
        self.cores = cores
        self.patience = patience
        self.subjects: dict[str, Subject] = {}
        for k, name in enumerate([*apps, *(f"{app}'" for app in apps)]):
            argv = [sys.executable, str(APPS / f"{name.rstrip(chr(39))}.py"), "--scale", ENDLESS, "--threads", "1"]
            env = {"TMPDIR": str(programmes.folder), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
            self.subjects[name] = Subject(programmes.add(name, argv, [cores[k % len(cores)]], env), Records())

    def load(self, names: Sequence[str]) -> None:
        """Start those that have not been started, as many at once as there are cores, and stop them once they work."""
        waiting = [name for name in names if self.subjects[name].programme.pid is None]
        for batch in _batches(waiting, len(self.cores)):
            for k, name in enumerate(batch):
                self.subjects[name].programme.place([self.cores[k]])
                self.subjects[name].start()
            for name in batch:
                self.subjects[name].until_it_works()
                self.subjects[name].pause()

    def measure(self, kind: str, members: Set) -> dict[str, Any]:
        """Measure one set."""
        names = _named(members)
        self.load(names)
        pinned = pinning(len(members), self.cores)
        for name, core in zip(names, pinned, strict=True):
            self.subjects[name].programme.place([core])
        crowd = max(pinned.count(core) for core in pinned)
        step_s = max(self.subjects[name].step_s() or 0.0 for name in names)
        window_s = max(WINDOW_S if crowd == 1 else SHARED_WINDOW_S, STEPS_PER_WINDOW * step_s * crowd)
        settle_s = SETTLE_S if crowd == 1 else SHARED_SETTLE_S
        stage = Stage((self.subjects[name] for name in names), window_s=window_s, settle_s=settle_s)
        most_s = MOST_S[len(members)] * self.patience
        if kind == "alone twice":
            return self._alone_twice(stage, names[0], most_s)
        try:
            stage.compare(
                names, narrow=NARROW, most_s=most_s, fewest=5, solo_s=max(WINDOW_S, STEPS_PER_WINDOW * step_s)
            )
        finally:
            stage.switch(frozenset())
        everyone = frozenset(names)
        ratios = [slowdowns(stage.windows, name, everyone) for name in names]
        found = [interval(values) if values else None for values in ratios]
        alone = [[w.rates[name] for w in stage.windows if w.running == {name} and name in w.rates] for name in names]
        return {
            "kind": kind,
            "set": list(members),
            "cores": pinned,
            "slowdowns": [round(one.mid, 4) if one else None for one in found],
            "halves": [round(one.half, 4) if one else None for one in found],
            "windows": min(map(len, ratios)),
            "rates_alone": [float(f"{statistics.median(rates):.5g}") if rates else None for rates in alone],
            "window_s": round(window_s, 2),
            "disturbed": round(disturbance(stage.windows), 3),
        }

    def _alone_twice(self, stage: Stage, name: str, most_s: float) -> dict[str, Any]:
        """The same measurement with nobody else in any window: what is left is noise."""
        begun = time.monotonic()
        while time.monotonic() - begun < most_s:
            stage.take({name})
        stage.switch(frozenset())
        rates = [(w.middle, w.rates[name]) for w in stage.windows if name in w.rates]
        one = interval(paired(rates[0::4], rates[1::2]))  # as far apart as in a pair
        return {
            "app": name,
            "ratio": round(one.mid, 4),
            "half": round(one.half, 4),
            "windows": one.count,
            "window_noise": round(noise_of(rates) or 0.0, 4),
            "rate_alone": float(f"{statistics.median(rate for _, rate in rates):.5g}"),
            "memory_mib": round(self.subjects[name].programme.memory_bytes() / 2**20),
        }


@contextmanager
def bench(apps: Sequence[str], patience: float = 1.0) -> Iterator[Bench]:
    """The applications, not yet started; they end with the block."""
    cores = spread(discover().cores)
    with Programmes({RECORD_EVERY_VARIABLE: str(RECORD_EVERY_S)}) as programmes:
        yield Bench(programmes, apps, cores, patience)


def measure(table: Path, ready: Bench, until: float) -> int:
    """Measure what the table lacks until the monotonic time ``until``; returns how many sets are left."""
    kept = load(table)
    todo = left(kept, plan(list(ready.subjects)[: len(ready.subjects) // 2])) or too_wide(kept)
    if len(todo) > len(ready.cores):
        ready.load(list(ready.subjects))  # side by side: later ones would be loaded one after the other
    while todo and time.monotonic() + ready.patience * MOST_S[len(todo[0][1])] < until:
        kind, members = todo.pop(0)
        row = ready.measure(kind, members)
        if kind == "alone twice":
            kept["noise"].append(row)
        else:
            keep(kept["sets"], row)
        save(table, kept)
        print(json.dumps(row), flush=True)
    return len(todo)


def left(kept: dict[str, Any], planned: Sequence[tuple[str, Set]]) -> list[tuple[str, Set]]:
    """What of the plan is not in the table."""
    done = {(row["kind"], tuple(row["set"])) for row in kept["sets"]}
    done |= {("alone twice", (row["app"],)) for row in kept["noise"]}
    return [one for one in planned if one not in done]


def disturbance(windows: Sequence[Window]) -> float:
    """Part of the windows alone in which somebody else had the member's core."""
    return statistics.mean(w.waits[name] for w in windows if len(w.running) == 1 for name in w.running)


def too_wide(kept: dict[str, Any]) -> list[tuple[str, Set]]:
    """Sets that were measured while the machine was restless, widest first: they are measured again."""
    again = [row for row in kept["sets"] if is_doubtful(row) and row.get("tries", 1) < TRIES]
    again.sort(key=lambda row: (row.get("tries", 1), -width(row)))
    return [(row["kind"], tuple(row["set"])) for row in again]


def is_doubtful(row: dict[str, Any]) -> bool:
    """Whether a row's intervals are wide, or others were seen (or could not be seen) to use the cores."""
    return width(row) > TOO_WIDE or row.get("disturbed", 1.0) > MOST_DISTURBED


def keep(rows: list[dict[str, Any]], row: dict[str, Any]) -> None:
    """Add a row; of two measurements of one set the one with the narrower intervals stays, whatever it says."""
    for i, known in enumerate(rows):
        if (known["kind"], known["set"]) == (row["kind"], row["set"]):
            tries = known.get("tries", 1) + 1
            rows[i] = (row if _order(row) < _order(known) else known) | {"tries": tries}
            return
    rows.append(row)


def _order(row: dict[str, Any]) -> tuple[bool, float]:
    """Undisturbed before disturbed, then the narrower."""
    return row.get("disturbed", 1.0) > MOST_DISTURBED, width(row)


def width(row: dict[str, Any]) -> float:
    """The widest relative half-width in a row; infinite where a member could not be measured."""
    pairs = zip(row["slowdowns"], row["halves"], strict=True)
    return max(math.inf if mid is None or half is None else half / mid for mid, half in pairs)


def load(table: Path) -> dict[str, Any]:
    """The table, or an empty one for this machine.

    Raises:
        SystemExit: The table is of another machine.
    """
    here = discover().fingerprint
    if not table.exists():
        return {
            "machine": here,
            "machine_in_words": measuring.machine(),
            "commit": measuring.commit(),
            "seed": SEED,
            "cores": len(os.sched_getaffinity(0)),
            "cores_in_order": spread(discover().cores),
            "threads_each": 1,
            "noise": [],
            "sets": [],
        }
    kept: dict[str, Any] = json.loads(table.read_text())
    if kept["machine"] != here:
        message = f"{table} was measured on {kept['machine']}, this is {here}: move it away to measure here"
        raise SystemExit(message)
    return kept


def save(table: Path, kept: dict[str, Any]) -> None:
    """Write the table aside and rename it into place: one row a line."""
    head = {key: value for key, value in kept.items() if key not in ("noise", "sets")}
    rows = ",\n".join(
        f' "{key}": [\n' + ",\n".join(f"  {json.dumps(row)}" for row in kept[key]) + "\n ]" for key in ("noise", "sets")
    )
    text = json.dumps(head, indent=1)[:-2] + ",\n" + rows + "\n}\n"
    aside = table.with_suffix(".partial")
    aside.write_text(text)
    aside.replace(table)


def _named(members: Set) -> list[str]:
    """Names of the processes: an application that is twice in the set has a twin."""
    return [name if name not in members[:k] else f"{name}'" for k, name in enumerate(members)]


def _batches(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for first in range(0, len(names), size):
        yield names[first : first + size]
