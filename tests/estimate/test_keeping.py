"""What is kept of too many co-runs."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tandem.estimate.corun import CoRun
from tandem.estimate.keeping import latest_of_each
from tandem.estimate.observed import REMEMBERED, Observations

coruns = st.builds(
    CoRun,
    st.sampled_from("ab"),
    st.lists(st.sampled_from("cde"), max_size=3).map(tuple),
    st.floats(1.0, 9.0),
    st.floats(1.0, 9.0),
)


def company(corun: CoRun) -> tuple[str, tuple[str, ...]]:
    return corun.app, tuple(sorted(corun.beside))


@given(st.lists(coruns, max_size=80), st.integers(1, 40))
def test_the_last_of_each_company_and_no_more_of_one_than_of_another(seen: list[CoRun], limit: int) -> None:
    found = latest_of_each(seen, limit)
    assert len(found) <= limit
    rest = iter(seen)
    assert all(any(one is other for other in rest) for one in found), "in their order"
    had, kept = Counter(map(company, seen)), Counter(map(company, found))
    for one in had:
        mine = [corun for corun in seen if company(corun) == one]
        assert [corun for corun in found if company(corun) == one] == mine[len(mine) - kept[one] :], "its latest"
    if len(had) <= limit:
        each = max(kept.values(), default=0)
        assert all(kept[one] == min(had[one], each) for one in had)
        assert found == seen or sum(min(n, each + 1) for n in had.values()) > limit or each == REMEMBERED


def test_of_more_companies_than_may_be_kept_the_last_ones_are() -> None:
    seen = [CoRun("a", (f"b{n}",), 1.0, 3.0) for n in range(9)]
    assert latest_of_each([*seen, seen[0]], 4) == [*seen[6:], seen[0]]


def test_what_an_estimator_would_look_at_is_kept() -> None:
    """Where they fit, one that learns from what is kept says the same as one that saw everything."""
    seen = [CoRun("a", beside, 5.0 + n % 7, 3.0) for n in range(2 * REMEMBERED) for beside in ((), ("b",), ("b", "c"))]
    found = latest_of_each(seen, len(seen) - 1)
    assert len(found) == 3 * REMEMBERED
    everything, some = Observations(), Observations()
    for to, what in ((everything, seen), (some, found)):
        for one in what:
            to.add(one)
    assert [*some.all_company()] == [*everything.all_company()]
