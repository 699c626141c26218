"""One question, one answer: how long applications take together, by the profiles that are kept on this machine.

What `tandem.estimate.estimators.make` and `tandem.estimate.prediction.predict` need is found and remembered here until
a profile comes or goes. A scheduler, which asks thousands of times and knows more, holds an estimator of its own.
"""

from __future__ import annotations

import os
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from tandem.core.data_folder import data_folder
from tandem.core.machine import discover
from tandem.estimate import estimators, prediction
from tandem.estimate.corun import App, Capacity
from tandem.estimate.prediction import Work, WorkError
from tandem.estimate.profiling import store

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tandem.estimate.corun import CoRun, Estimator
    from tandem.estimate.prediction import Prediction

ALONE_S = 60.0
_REMEMBERED = 8

_here = cache(discover)


@cache
def _cores() -> list[int]:
    return [core.index for core in _here().cores]


def predict(
    apps: Iterable[str | Work],
    *,
    alone_s: float = ALONE_S,
    cores: Sequence[int] | None = None,
    model: str = "learned",
    coruns: Iterable[CoRun] = (),
    data: Path | None = None,
) -> Prediction:
    """When each of some applications ends that share cores of this machine.

    Args:
        apps: names of applications, profiled (`tandem profile`) or not; or `Work`, which says more.
        alone_s: what one that is only named takes alone, in seconds.
        cores: those they share; all of this machine unless given. Where there are fewer than applications, the k-th
            that is only named is pinned to core k modulo their number.
        model: the estimator's name.
        coruns: what was observed, for a model that learns from it.
        data: the folder that profiles lie in; that of `tandem profile` unless given.

    Returns:
        For each, in order: its slowdown, how long it takes, 90 % intervals and why in words. One of which nothing is
        known has a wide interval, and the words say so.

    Raises:
        UnknownPluginError: There is no such model.
        WorkError: Work is not above 0, or a start below; or there are no cores.
        ProfileError: The profile of one of them cannot be read.
    """
    asked = [apps] if isinstance(apps, str) else list(apps)
    usable = _cores() if cores is None else list(cores)
    if not usable:
        raise WorkError(given="no cores", allowed="one or more", todo="leave cores out, or name those that they share")
    folder = data_folder(os.environ, os.geteuid()) if data is None else data
    works = [
        one if isinstance(one, Work) else Work(App(one, cores=pinned), alone_s)
        for one, pinned in zip(asked, pins(len(asked), usable), strict=True)
    ]
    changed_ns = _changed_ns(folder)
    loaded = _loaded(folder, changed_ns)
    for work in works:
        if work.app.key not in loaded.profiles and (error := loaded.why_not(work.app.key)) is not None:
            raise error
    estimator = _estimator(model, folder, changed_ns, tuple(coruns))
    return prediction.predict(works, estimator, Capacity(1000 * len(usable)))


def pins(count: int, cores: Sequence[int]) -> list[tuple[int, ...]]:
    """Which core each of so many applications is pinned to: () for one of its own, where there are enough.

    >>> pins(2, [4, 5]), pins(3, [4, 5])
    ([(), ()], [(4,), (5,), (4,)])
    """
    return [(cores[k % len(cores)],) if count > len(cores) else () for k in range(count)]


@lru_cache(maxsize=_REMEMBERED)
def _loaded(folder: Path, changed_ns: int) -> store.Loaded:
    del changed_ns  # profiles of another moment are another answer
    return store.load(folder, _here().fingerprint)


@lru_cache(maxsize=_REMEMBERED)
def _estimator(model: str, folder: Path, changed_ns: int, coruns: tuple[CoRun, ...]) -> Estimator:
    return estimators.make(model, coruns, tuple(_loaded(folder, changed_ns).usable.values()))


def _changed_ns(folder: Path) -> int:
    """When a profile came or went: files are renamed into their folder."""
    try:
        return os.stat(f"{folder}/profiles/{_here().fingerprint}").st_mtime_ns  # noqa: PTH116 - paths cost as much again
    except OSError:
        return 0
