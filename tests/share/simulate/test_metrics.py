import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.share.model import Gpu, Interval, Job, JobClass, Need, Node, Part, Quote, State
from tandem.share.simulate.metrics import Kept, Outcome, kept, measure

NODES = (Node("a", 4000, 1024, (Gpu(0), Gpu(1))),)


def outcome(
    job_id: int,
    submitted: float,
    started: float | None,
    ended: float,
    *,
    uid: int = 0,
    work_s: float | None = None,
    need: Need | None = None,
    state: State = State.DONE,
    klass: JobClass = JobClass.PRIMARY,
    slowdown: float = 1.0,
    bound: float | None = None,
) -> Outcome:
    job = Job(job_id, (Part(need or Need()),), uid=uid, klass=klass)
    ran_s = 0.0 if started is None else ended - started
    held = () if started is None else ((started, ended, job.cpu_milli, job.gpu_total_milli),)
    return Outcome(job, submitted, started, ended, state, ran_s if work_s is None else work_s, held, slowdown, bound)


def test_two_jobs_by_hand() -> None:
    first = outcome(1, 0.0, 0.0, 100.0, need=Need(2000, gpus=1))
    second = outcome(2, 0.0, 100.0, 200.0, work_s=80.0, need=Need(4000, gpu_milli=500), klass=JobClass.HARVEST)
    figures = measure([first, second], NODES)
    assert (figures.jobs, figures.done, figures.started, figures.makespan_s) == (2, 2, 2, 200.0)
    assert (figures.completion_s.mean, figures.completion_s.p50) == (150.0, 150.0)
    assert figures.completion_s.p99 == pytest.approx(199.0)
    assert figures.completion_by_class[JobClass.PRIMARY].mean == 100.0
    assert figures.completion_by_class[JobClass.HARVEST].mean == 200.0
    assert (figures.wait_s.mean, figures.wait_s.p50) == (50.0, 50.0)
    assert figures.bounded_slowdown.mean == pytest.approx((1.0 + 200 / 80) / 2)
    # cores: (2 * 100 + 4 * 100) of 4 * 200 core seconds; the second one's neighbours cost 20 s of its 100
    assert figures.cpu.allocated == pytest.approx(600 / 800)
    assert figures.cpu.useful == pytest.approx((2 * 100 + 4 * 80) / 800)
    assert figures.gpu.allocated == pytest.approx((100 + 0.5 * 100) / 400)
    assert figures.gpu.useful == pytest.approx((100 + 0.5 * 80) / 400)


def test_bounded_slowdown_does_not_count_the_wait_of_a_blink() -> None:
    # 1 s of work after 4 s: 5 / 10 is below 1; 1 s after 29 s: 30 / 10.
    figures = measure([outcome(1, 0.0, 4.0, 5.0), outcome(2, 0.0, 29.0, 30.0)], NODES)
    assert figures.bounded_slowdown.mean == 2.0


def test_cancelled_and_never_started_jobs_do_not_count_as_soon_done() -> None:
    jobs = [
        outcome(1, 0.0, 10.0, 50.0),
        outcome(2, 0.0, 10.0, 11.0, state=State.CANCELLED),
        outcome(3, 0.0, None, 5.0, state=State.CANCELLED),
        outcome(4, 0.0, 10.0, 60.0, state=State.TIMEOUT),
    ]
    figures = measure(jobs, NODES)
    assert (figures.jobs, figures.done, figures.started) == (4, 1, 2)
    assert figures.completion_s.mean == 55.0
    assert figures.cpu.allocated == pytest.approx((40 + 1 + 50) / (4 * 60))
    assert figures.cpu.useful == pytest.approx(40 / (4 * 60))


@pytest.mark.parametrize(
    ("slowdowns", "index"),
    [([2.0, 2.0, 2.0], 1.0), ([1.0, 3.0], 16 / 20), ([1.0, 1.0, 10.0], 144 / (3 * 102))],
)
def test_jain_index_over_users(slowdowns: list[float], index: float) -> None:
    # 100 s of work each; two equal jobs a user, so that a user's mean is the slowdown.
    jobs = [
        outcome(2 * uid + k, 0.0, 0.0, 100.0 * slow, uid=uid, work_s=100.0)
        for uid, slow in enumerate(slowdowns)
        for k in (0, 1)
    ]
    assert measure(jobs, NODES).fairness == pytest.approx(index)


def test_broken_bounds_beyond_the_tolerance() -> None:
    jobs = [
        outcome(1, 0.0, 0.0, 9.0, slowdown=1.10, bound=1.10),
        outcome(2, 0.0, 0.0, 9.0, slowdown=1.12, bound=1.10),
        outcome(3, 0.0, 0.0, 9.0, slowdown=1.30, bound=1.10),
        outcome(4, 0.0, 0.0, 9.0, slowdown=9.00, bound=None),
        outcome(5, 0.0, None, 9.0, bound=1.10, state=State.CANCELLED),
    ]
    assert (measure(jobs, NODES).bounded, measure(jobs, NODES).broken) == (3, 2)
    assert measure(jobs, NODES, tolerance=0.04).broken == 1


def quote(job: int, at: float, moment: str, low: float, mid: float, high: float) -> Quote:
    return Quote(job, at, moment, Interval(at, at, at), Interval(low, mid, high))


def test_quotes_by_moment() -> None:
    jobs = [outcome(1, 0.0, 50.0, 100.0), outcome(2, 0.0, 0.0, 300.0), outcome(3, 0.0, 0.0, 9.0, state=State.FAILED)]
    quotes = [
        quote(1, 0.0, "submit", 80.0, 100.0, 100.0),  # kept at its very edge; width 20 / 100
        quote(2, 0.0, "submit", 100.0, 200.0, 280.0),  # too late; width 180 / 200
        quote(3, 0.0, "submit", 0.0, 5.0, 9.0),  # failed: says nothing
        quote(1, 50.0, "start", 90.0, 100.0, 110.0),  # width 20 / 50
        quote(7, 0.0, "start", 0.0, 1.0, 2.0),  # another day's job
    ]
    assert kept(jobs, quotes) == {
        "submit": Kept(2, 0.5, pytest.approx((0.2 + 0.9) / 2)),
        "start": Kept(1, 1.0, pytest.approx(0.4)),
    }


def test_an_empty_day_has_no_figures_but_no_error() -> None:
    figures = measure([], NODES)
    assert (figures.jobs, figures.makespan_s, figures.broken, figures.quotes) == (0, 0.0, 0, {})
    assert all(math.isnan(value) for value in (figures.completion_s.mean, figures.cpu.allocated, figures.fairness))
    nothing = measure([outcome(1, 0.0, None, 5.0, state=State.CANCELLED)], NODES, [quote(1, 0.0, "submit", 1, 2, 3)])
    assert nothing.quotes["submit"].quotes == 0
    assert math.isnan(nothing.quotes["submit"].coverage)


times = st.tuples(st.floats(0, 1e4), st.floats(0, 1e4), st.floats(1, 1e4), st.floats(1, 1e4), st.integers(0, 3))


@given(st.lists(times, min_size=1, max_size=30))
def test_against_plain_python(rows: list[tuple[float, float, float, float, int]]) -> None:
    jobs = [outcome(i, s, s + w, s + w + r, work_s=work, uid=u) for i, (s, w, r, work, u) in enumerate(rows)]
    figures = measure(jobs, NODES)
    slow = [max(1.0, (o.ended - o.submitted) / max(o.work_s, 10.0)) for o in jobs]
    by_user = [
        statistics.fmean(x for x, o in zip(slow, jobs, strict=True) if o.job.uid == u)
        for u in range(4)
        if any(o.job.uid == u for o in jobs)
    ]
    assert figures.completion_s.mean == pytest.approx(statistics.fmean(o.ended - o.submitted for o in jobs))
    assert figures.wait_s.p50 == pytest.approx(
        statistics.median(o.started - o.submitted for o in jobs if o.started is not None)
    )
    assert figures.bounded_slowdown.mean == pytest.approx(statistics.fmean(slow))
    assert figures.bounded_slowdown.p95 == pytest.approx(np.percentile(slow, 95))
    assert figures.fairness == pytest.approx(sum(by_user) ** 2 / (len(by_user) * sum(x * x for x in by_user)))
    assert 1 / len(by_user) - 1e-9 <= figures.fairness <= 1 + 1e-9
