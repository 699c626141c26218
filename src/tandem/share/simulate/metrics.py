"""Figures of one day, real or simulated: how soon jobs ended, how full the machines were, which promises held.

Definitions, for a job submitted at s, first started at f, ended at e, that takes w seconds alone:

* completion e - s and wait f - s, over jobs that started and came to an end of their own (DONE, FAILED, TIMEOUT, LOST;
  cancelled jobs are left out). Percentiles interpolate linearly.
* bounded slowdown max(1, (e - s) / max(w, tau)), tau = 10 s (Feitelson and Rudolph, JSSPP 1998), with the time *alone*
  below the line, so that being slowed by neighbours counts as well as waiting.
* utilisation, allocated: what jobs held times how long they held it; useful: what DONE jobs would have held alone (so
  slowdown, lost attempts and failures are the difference). Both over capacity times makespan.
* fairness: Jain's index (sum x)^2 / (n sum x^2) of the users' mean bounded slowdowns (Jain, Chiu and Hawe, DEC TR-301,
  1984): 1 is all alike, 1/n is one user bearing everything.
* a bound is broken where the slowdown *by neighbours* is above it by more than the tolerance (measured noise).
* a quote is kept where the true end lies in its interval; its relative width is that interval over the predicted time
  from the quote to the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tandem.share.model import Job, JobClass, Node, Quote, State

TAU_S = 10.0
"""Jobs shorter than this count as this long in bounded slowdowns, and predictions in relative widths."""

_COUNTED = frozenset({State.DONE, State.FAILED, State.TIMEOUT, State.LOST})
_ROUNDING_S = 1e-6
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one job.

    Attributes:
        started: its first start, or None where it never ran.
        work_s: true run time alone, in seconds.
        intervals: (start, end, cpu_milli, gpu_milli) for each stretch in which it held these, over all its nodes.
        slowdown: run time beside its neighbours over alone; its own throttling and suspension are not in it.
        bound: largest accepted ``slowdown``, or None.
    """

    job: Job
    submitted: float
    started: float | None
    ended: float
    state: State
    work_s: float
    intervals: tuple[tuple[float, float, int, int], ...] = ()
    slowdown: float = 1.0
    bound: float | None = None


@dataclass(frozen=True, slots=True)
class Spread:
    """Of one quantity over the jobs: NaN where there are none."""

    mean: float
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Use:
    """Utilisation of one resource, as fractions of capacity times makespan; NaN where there is none of it."""

    allocated: float
    useful: float


@dataclass(frozen=True, slots=True)
class Kept:
    """Of the quotes of one moment: how many were checked, which fraction was kept, median relative width."""

    quotes: int
    coverage: float
    width: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """Figures of one day; definitions in the module. Times in seconds.

    Attributes:
        jobs, done, started: all outcomes, those that ended as DONE, and those that completion and wait are over.
        completion_by_class: completion of primary and of harvest jobs alone.
        bounded, broken: jobs that have a bound, and those whose bound was broken.
        quotes: by moment ("submit", "start").
    """

    jobs: int
    done: int
    started: int
    makespan_s: float
    completion_s: Spread
    completion_by_class: dict[JobClass, Spread]
    wait_s: Spread
    bounded_slowdown: Spread
    cpu: Use
    gpu: Use
    fairness: float
    bounded: int
    broken: int
    quotes: dict[str, Kept] = field(default_factory=dict)


def measure(
    outcomes: Sequence[Outcome], nodes: Sequence[Node], quotes: Sequence[Quote] = (), tolerance: float = 0.0
) -> Metrics:
    """Compute the figures.

    Args:
        outcomes: the jobs, in any order.
        nodes: whose capacity is the whole of utilisation.
        quotes: promises for these jobs; those for other jobs, or for jobs that did not end as DONE, are left out.
        tolerance: how far above a bound a slowdown is still within it (0.04 is 4 points of slowdown).
    """
    counted = [o for o in outcomes if o.started is not None and o.state in _COUNTED]
    submitted = _floats([o.submitted for o in counted])
    completion = _floats([o.ended for o in counted]) - submitted
    wait = _floats([o.started or 0.0 for o in counted]) - submitted
    work = _floats([o.work_s for o in counted])
    slowdown = np.maximum(1.0, completion / np.maximum(work, TAU_S))
    makespan_s = _makespan(outcomes)
    primary = np.array([o.job.klass is JobClass.PRIMARY for o in counted], dtype=bool)
    bounded = [o for o in outcomes if o.bound is not None and o.started is not None]
    cpu, gpu = _uses(outcomes, nodes, makespan_s)
    return Metrics(
        jobs=len(outcomes),
        done=sum(o.state is State.DONE for o in outcomes),
        started=len(counted),
        makespan_s=makespan_s,
        completion_s=_spread(completion),
        completion_by_class={
            JobClass.PRIMARY: _spread(completion[primary]),
            JobClass.HARVEST: _spread(completion[~primary]),
        },
        wait_s=_spread(wait),
        bounded_slowdown=_spread(slowdown),
        cpu=cpu,
        gpu=gpu,
        fairness=_fairness(np.array([o.job.uid for o in counted], dtype=np.int64), slowdown),
        bounded=len(bounded),
        broken=sum(o.slowdown > (o.bound or 0.0) + tolerance + 1e-9 for o in bounded),
        quotes=kept(outcomes, quotes),
    )


def kept(outcomes: Sequence[Outcome], quotes: Sequence[Quote]) -> dict[str, Kept]:
    """Which of the promises held, by moment; only jobs that ended as DONE show it."""
    ended = {o.job.id: o.ended for o in outcomes if o.state is State.DONE}
    result = {}
    for moment in sorted({quote.moment for quote in quotes}):
        ours = [q for q in quotes if q.moment == moment and q.job in ended]
        at, end = _floats([q.at for q in ours]), _floats([ended[q.job] for q in ours])
        low, mid, high = (_floats([getattr(q.finish, name) for q in ours]) for name in ("low", "mid", "high"))
        held = (low - _ROUNDING_S <= end) & (end <= high + _ROUNDING_S)
        width = (high - low) / np.maximum(mid - at, TAU_S)
        coverage = float(held.mean()) if ours else np.nan
        result[moment] = Kept(len(ours), coverage, float(np.median(width)) if ours else np.nan)
    return result


def _makespan(outcomes: Sequence[Outcome]) -> float:
    """Return seconds from the first submission to the end of the last job that ran."""
    last = max((o.ended for o in outcomes if o.started is not None), default=None)
    return 0.0 if last is None else last - min(o.submitted for o in outcomes)


def _uses(outcomes: Sequence[Outcome], nodes: Sequence[Node], makespan_s: float) -> tuple[Use, Use]:
    held = np.array([row for o in outcomes for row in o.intervals], dtype=np.float64).reshape(-1, 4)
    lengths = held[:, 1] - held[:, 0]
    done = [o for o in outcomes if o.state is State.DONE]
    work = _floats([o.work_s for o in done])
    cpu_useful = float(work @ _floats([o.job.cpu_milli for o in done]))
    gpu_useful = float(work @ _floats([o.job.gpu_total_milli for o in done]))
    cpu_total = makespan_s * sum(node.cpu_milli for node in nodes)
    gpu_total = makespan_s * 1000 * sum(len(node.gpus) for node in nodes)
    return (
        Use(_part(float(lengths @ held[:, 2]), cpu_total), _part(cpu_useful, cpu_total)),
        Use(_part(float(lengths @ held[:, 3]), gpu_total), _part(gpu_useful, gpu_total)),
    )


def _fairness(uids: npt.NDArray[np.int64], slowdown: _Floats) -> float:
    if not uids.size:
        return float("nan")
    _, user = np.unique(uids, return_inverse=True)
    means = np.bincount(user, weights=slowdown) / np.bincount(user)
    return float(means.sum() ** 2 / (means.size * (means**2).sum()))


def _spread(values: _Floats) -> Spread:
    if not values.size:
        return Spread(np.nan, np.nan, np.nan, np.nan)
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    return Spread(float(values.mean()), float(p50), float(p95), float(p99))


def _part(amount: float, total: float) -> float:
    return amount / total if total > 0 else float("nan")


def _floats(values: Sequence[float]) -> _Floats:
    return np.array(values, dtype=np.float64)
