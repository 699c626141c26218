"""How fast co-execution is predicted: one set by the model, many sets at once by array arithmetic.

Run: `python benchmarks/estimate_predict.py [--quick] [--json]`. Forty applications with random profiles (of all kinds,
with five levels), 200 pairs seen, sets of three, one core. No answer is remembered: `predict_us` is the time for a set
that was never asked for, of a model that has run for a while; `sets_per_s` the rate of middles and intervals over
200,000 sets. Sentences are made when they are read: what reading all of them adds is printed. Both for `learned`, the
slower of the two models with profiles; figures of `bubble` are printed beside them. `course_us` is a whole answer of
`tandem.estimate.predict` to three names whose profiles are kept in a folder: who ends when, which takes the slowdowns
of the three, of the two that are left and of the last one, each at the middle and at both ends of its interval.

Sets that share cores are asked for as well: two to four members, all on one core or in turns on two, of applications of
one phase or of three that keep unlike numbers of cores busy. Each kind is printed, in processor time; `shared_us` is
the figure of the slowest. What pairs on one core get was worked out before, what larger companies get hardly ever.
"""

from __future__ import annotations

import gc
import itertools
import random
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks import measuring
from tandem.core.machine import discover
from tandem.estimate import estimators, predict
from tandem.estimate.batch import Batch
from tandem.estimate.corun import App, Capacity, CoRun
from tandem.estimate.profile import KINDS, Curve, PhaseProfile, Profile
from tandem.estimate.profiling import store

if TYPE_CHECKING:
    from collections.abc import Sequence

APPS, PAIRS, MEMBERS = 40, 200, 3
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
NODE = Capacity(64_000)


def main() -> None:
    """Measure and print."""
    options = measuring.options((__doc__ or "").splitlines()[0]).parse_args()
    measuring.finish(figures(quick=options.quick), as_json=options.json)


def figures(*, quick: bool) -> dict[str, float | None]:
    """Time both ways in turn, and check that they agree."""
    rounds, sets = (3, 50_000) if quick else (11, 200_000)
    rng = random.Random(0)
    profiles = tuple(_profile(f"app{n:02d}", rng) for n in range(APPS))
    coruns = _seen([profile.key for profile in profiles], rng)
    print(f"{measuring.machine()}; sets of {MEMBERS}, {rounds} rounds of 500 sets one by one and {sets} at once")
    found: dict[str, float | None] = {}
    for name in ("bubble", "learned"):
        one_by_one, with_words, at_once = _time(name, profiles, coruns, rounds, sets)
        found["predict_us"], found["sets_per_s"] = one_by_one, at_once
        print(f"{name:8s} {one_by_one:6.1f} us a set, with words {with_words:6.1f}; {at_once:10.0f} sets/s")
    found["shared_us"] = _shared_us(rng, rounds)
    found["course_us"] = _course_us(profiles, rounds)
    print(f"learned  {found['course_us']:6.1f} us a whole course of {MEMBERS} names")
    return found


def _shared_us(rng: random.Random, rounds: int) -> float:
    """Microseconds a set of the slowest kind of sets that share cores, the least of the rounds each."""
    slowest = 0.0
    for phases, members, cores in itertools.product((1, 3), (2, 3, 4), (1, 2)):
        profiles = tuple(_in_phases(_profile(f"app{n:02d}", rng), phases, rng) for n in range(APPS))
        model = estimators.make("learned", _seen([profile.key for profile in profiles], rng), profiles)
        keys = [profile.key for profile in profiles]
        for pair in itertools.permutations(keys, 2):
            model.predict(_pinned(pair, 1), NODE)
        for _ in range(500):
            model.predict(_pinned(rng.sample(keys, members), members), NODE)
        times_us = []
        for turn in range(rounds):
            asked = [_pinned(rng.sample(keys, members), cores, first=turn + 1) for _ in range(500)]
            gc.disable()
            begun = time.process_time()
            for one in asked:
                model.predict(one, NODE)
            times_us.append(1e6 * (time.process_time() - begun) / len(asked))
            gc.enable()
        print(f"learned  {min(times_us):6.1f} us a set of {members} on {cores} core(s), {phases} phase(s) each")
        slowest = max(slowest, min(times_us))
    return slowest


def _pinned(keys: Sequence[str], cores: int, first: int = 0) -> tuple[App, ...]:
    return tuple(App(key, cores=(first + k % cores,)) for k, key in enumerate(keys))


def _in_phases(profile: Profile, count: int, rng: random.Random) -> Profile:
    """The same, in phases that keep unlike numbers of cores busy; as it is where there is one."""
    (phase,) = profile.phases
    if count == 1:
        return profile
    parts = [replace(phase, phase=str(k), share=1 / count, cpu_use=rng.uniform(0.2, 1.0)) for k in range(count)]
    return replace(profile, phases=tuple(parts))


def _course_us(profiles: tuple[Profile, ...], rounds: int) -> float:
    """Microseconds that `tandem.estimate.predict` takes, the least of the rounds, once what it reads was read."""
    rng = random.Random(0)
    times_us = []
    with tempfile.TemporaryDirectory() as folder:
        here = discover().fingerprint
        for profile in profiles:
            store.save(Path(folder), replace(profile, machine=here))
        for _ in range(rounds):
            asked = [rng.sample([profile.key for profile in profiles], MEMBERS) for _ in range(500)]
            predict(asked[0], data=Path(folder))
            begun = time.perf_counter()
            for names in asked:
                predict(names, data=Path(folder))
            times_us.append(1e6 * (time.perf_counter() - begun) / len(asked))
    return min(times_us)


def _time(
    name: str, profiles: tuple[Profile, ...], coruns: tuple[CoRun, ...], rounds: int, sets: int
) -> tuple[float, float, float]:
    """Microseconds a set without and with words, the least of the rounds as `timeit` does; median sets per second."""
    batch = Batch.of(profiles, coruns if name == "learned" else None)
    rng = np.random.default_rng(0)
    times_us, worded_us, rates = [], [], []
    for _ in range(rounds):
        few = rng.permuted(np.tile(np.arange(APPS), (500, 1)), axis=1)[:, :MEMBERS]
        asked = [tuple(App(batch.keys[n]) for n in one) for one in few]
        model = estimators.make(name, coruns, profiles)
        for one in rng.integers(0, APPS, size=(1000, MEMBERS)):  # every pair has been met, these sets have not
            model.predict(tuple(App(batch.keys[n], 999) for n in one), NODE)
        gc.disable()
        begun = time.perf_counter()
        answers = [model.predict(one, NODE) for one in asked]
        times_us.append(1e6 * (time.perf_counter() - begun) / len(asked))
        for answer in answers:
            for slowdown in answer:
                str(slowdown.words)
        worded_us.append(1e6 * (time.perf_counter() - begun) / len(asked))
        gc.enable()
        many = rng.integers(0, APPS, size=(sets, MEMBERS))
        many[: len(few)] = few
        begun = time.perf_counter()
        mids = batch.predict(many)[0]
        rates.append(sets / (time.perf_counter() - begun))
        same = np.array([[one.mid for one in answer] for answer in answers])
        np.testing.assert_allclose(mids[: len(few)], same, rtol=1e-9)
    return min(times_us), min(worded_us), statistics.median(rates)


def _profile(key: str, rng: random.Random) -> Profile:
    curves = {}
    for kind in KINDS:
        steepness = rng.random() * 0.8
        slowdowns = tuple(1.0 + steepness * level * (0.5 + rng.random()) for level in LEVELS)
        curves[kind] = Curve(LEVELS, slowdowns, (0.01,) * len(LEVELS))
    pressure = {kind: rng.random() for kind in KINDS}
    phase = PhaseProfile("", 1.0, 10.0, 0.02, 1.0, curves, pressure, dict.fromkeys(pressure, 0.03))
    return Profile(key, (key,), "made up", 1, 0.0, 20.0, 1, (phase,))


def _seen(keys: list[str], rng: random.Random) -> tuple[CoRun, ...]:
    pairs = rng.sample([(a, b) for a in keys for b in keys if a != b], PAIRS)
    alone = [CoRun(key, (), 10.0, 30.0) for key in keys]
    return (*alone, *(CoRun(a, (b,), 10.0 / (1.0 + rng.random()), 30.0) for a, b in pairs))


if __name__ == "__main__":
    main()
