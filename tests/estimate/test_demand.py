import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.estimate.corun import App, Capacity
from tandem.estimate.demand import Load, Stretch

NODE = Capacity(4000, 16_000, 1_000)


def stretch(app: App, others: list[App], capacity: Capacity) -> Stretch:
    return Load((app, *others), capacity).stretch(app)


@pytest.mark.parametrize(
    ("app", "others", "factor", "why"),
    [
        (App("a", 1000, 9_000), [App("b", 1000, 12_000)], 21 / 16, "by memory bandwidth: 21 of 16 GB/s"),
        (App("a", 1000, 4_000), [App("b", 1000, 12_000)], 1.0, ""),
        (App("a", 1000, 0), [App("b", 1000, 99_000)], 1.0, ""),
        (App("a", 1000, 32_000), [App("b", 1000, 16_000)], 1.5, "by memory bandwidth: 48 of 16 GB/s"),
        (App("a", 1000, 9_000, 900), [App("b", 1000, 9_000, 600)], 1.5, "by network bandwidth: 1500 of 1000 MB/s"),
    ],
)
def test_demand_over_capacity_by_hand(app: App, others: list[App], factor: float, why: str) -> None:
    found = stretch(app, others, NODE)
    assert found.factor == pytest.approx(factor)
    assert found.why == why


def test_what_the_node_does_not_meter_slows_nobody() -> None:
    assert stretch(App("a", 1000, 9_000, 900), [App("b", 1000, 99_000, 9_000)], Capacity(4000)).factor == 1.0


@given(st.lists(st.integers(0, 40_000), min_size=1, max_size=5), st.integers(0, 40_000))
def test_another_neighbour_never_helps(demands: list[int], more: int) -> None:
    app, *others = (App(str(i), 100, demand) for i, demand in enumerate(demands))
    fewer = stretch(app, others, NODE).factor
    assert 1.0 <= fewer <= stretch(app, [*others, App("more", 100, more)], NODE).factor
