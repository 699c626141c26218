"""What is told at once is known as what is told one by one, with fewer judgements made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from tandem.estimate.corun import CoRun
from tandem.estimate.inferred import Inferred
from tandem.estimate.pairs import SeenPairs

if TYPE_CHECKING:
    from tandem.estimate.observed import Observations

KEYS = ("cg", "fft", "lu", "sort", "stream")

coruns = st.lists(
    st.builds(
        CoRun,
        app=st.sampled_from(KEYS),
        beside=st.lists(st.sampled_from(KEYS), max_size=3).map(lambda keys: tuple(sorted(keys))),
        rate=st.floats(1.0, 10.0),
        seconds=st.just(10.0),
    ),
    max_size=60,
)


@given(coruns, coruns, st.booleans())
def test_all_at_once_is_one_by_one(first: list[CoRun], then: list[CoRun], larger: bool) -> None:
    made: list[int] = []

    def judged(observations: Observations) -> Inferred:
        made.append(observations.company_count)
        return Inferred(observations.pairs())

    one_by_one, at_once = (SeenPairs(judged if larger else None) for _ in range(2))
    for corun in first:
        one_by_one.observe(corun)
    by_turns, made[:] = len(made), []
    at_once.observe_all(first)
    assert len(made) == min(1, by_turns)
    for corun in then:
        one_by_one.observe(corun)
    at_once.observe_all(then)
    assert at_once.revision(KEYS) == one_by_one.revision(KEYS)
    assert at_once.inferred.sensitivity == one_by_one.inferred.sensitivity
    assert at_once.inferred.pressure == one_by_one.inferred.pressure
