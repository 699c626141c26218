import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.core.errors import ConfigError
from tandem.estimate.corun import App, Capacity
from tandem.share.simulate.truth import Bandwidth, Pairwise, Truth, Undisturbed

NODE = Capacity(8000, 16_000, 1_000)
STREAM, CG, MC = App("stream", 1000, 16_000), App("cg", 1000, 8_000), App("mc", 1000)
PAIRS = {("cg", "stream"): 1.5, ("stream", "cg"): 1.1, ("cg", "cg"): 1.2}
TRUTHS: list[Truth] = [
    Undisturbed(),
    Bandwidth(),
    Bandwidth(0.5, {"cg": 0.2}),
    Pairwise(PAIRS),
    Pairwise(PAIRS, "additive"),
]

members = st.lists(
    st.builds(
        App,
        key=st.sampled_from(["cg", "stream", "mc"]),
        membw_mbs=st.sampled_from([0, 5_000, 8_000, 30_000]),
        nic_mbs=st.sampled_from([0, 700, 2_000]),
    ),
    min_size=1,
    max_size=5,
).map(tuple)


def test_undisturbed_costs_only_the_throttle() -> None:
    assert Undisturbed().rates((STREAM, STREAM), NODE) == (1.0, 1.0)
    assert Undisturbed().rates((STREAM, STREAM), NODE, (1.0, 0.25)) == (1.0, 0.25)


def test_bandwidth_is_shared_in_proportion_to_demand() -> None:
    # 24 GB/s asked of 16: everyone who asks goes at 2/3; who asks for nothing is not slowed.
    assert Bandwidth().rates((STREAM, CG, MC), NODE) == pytest.approx((2 / 3, 2 / 3, 1.0))


def test_only_the_part_that_waits_for_bandwidth_is_stretched() -> None:
    # stream: 0.6 + 0.4 * 1.5 = 1.2; cg: 0.9 + 0.1 * 1.5 = 1.05
    rates = Bandwidth(0.4, {"cg": 0.1}).rates((STREAM, CG), NODE)
    assert rates == pytest.approx((1 / 1.2, 1 / 1.05))


def test_alone_is_alone_even_above_capacity() -> None:
    glutton = App("glutton", 1000, 64_000)
    assert Bandwidth().rates((glutton,), NODE) == (1.0,)
    # together 80 of 16: 5 times as long; alone it already took 4 times as long as it would like.
    assert Bandwidth().rates((glutton, STREAM), NODE) == pytest.approx((4 / 5, 1 / 5))


def test_the_more_contended_resource_decides() -> None:
    app = App("both", 1000, 12_000, 1_000)
    assert Bandwidth().rates((app, app), NODE) == pytest.approx((0.5, 0.5))  # memory 24/16, network 2000/1000


def test_a_throttled_member_presses_less_and_takes_no_more_than_its_part() -> None:
    # stream at half: 8 + 8 = 16 GB/s fit; cg is undisturbed, stream goes at exactly its half.
    assert Bandwidth().rates((STREAM, CG), NODE, (0.5, 1.0)) == pytest.approx((0.5, 1.0))
    # two streams, one at half: 24 of 16; the bandwidth that is really drawn is the node's.
    rates = Bandwidth().rates((STREAM, STREAM), NODE, (0.5, 1.0))
    assert rates == pytest.approx((1 / 3, 2 / 3))
    assert sum(rates) * STREAM.membw_mbs == pytest.approx(NODE.membw_mbs)


def test_unmetered_nodes_slow_nobody() -> None:
    assert Bandwidth().rates((STREAM, STREAM), Capacity(8000)) == (1.0, 1.0)


def test_pairs_are_multiplied_or_added() -> None:
    three = (CG, STREAM, CG)
    assert Pairwise(PAIRS).rates(three, NODE)[0] == pytest.approx(1 / (1.5 * 1.2))
    assert Pairwise(PAIRS, "additive").rates(three, NODE)[0] == pytest.approx(1 / 1.7)
    assert Pairwise(PAIRS).rates((MC, STREAM), NODE) == (1.0, 1.0)


def test_a_throttled_neighbour_costs_its_part_of_the_excess() -> None:
    assert Pairwise(PAIRS).rates((CG, STREAM), NODE, (1.0, 0.5))[0] == pytest.approx(1 / 1.25)


def test_quiet_by_demand_and_capacity() -> None:
    truth = Bandwidth()
    assert truth.quiet((STREAM, MC, MC))
    assert not truth.quiet((CG, CG))
    assert truth.quiet((CG, CG), NODE)
    assert not truth.quiet((STREAM, CG), NODE)
    assert truth.quiet((STREAM, CG), Capacity(8000))
    assert not Pairwise(PAIRS).quiet((CG, CG))
    assert Pairwise(PAIRS).quiet((CG, MC))


@pytest.mark.parametrize("truth", TRUTHS, ids=repr)
@given(apps=members, throttle=st.sampled_from([0.1, 0.5, 1.0]), metered=st.booleans())
def test_rates_are_speeds_and_quiet_never_lies(
    truth: Truth, apps: tuple[App, ...], throttle: float, metered: bool
) -> None:
    node = NODE if metered else Capacity(8000)
    throttles = (throttle,) + (1.0,) * (len(apps) - 1)
    for limits in ((), throttles):
        rates = truth.rates(apps, node, limits)
        assert len(rates) == len(apps)
        assert all(0 < rate <= (limits or (1.0,) * len(apps))[i] for i, rate in enumerate(rates))
    if truth.quiet(apps, node) or truth.quiet(apps):
        assert truth.rates(apps, node) == (1.0,) * len(apps)
        assert truth.rates(apps, node, throttles) == throttles


@pytest.mark.parametrize("truth", TRUTHS, ids=repr)
@given(apps=members, throttle=st.sampled_from([0.1, 0.5]))
def test_throttling_one_never_slows_another(truth: Truth, apps: tuple[App, ...], throttle: float) -> None:
    free = truth.rates(apps, NODE)
    bound = truth.rates(apps, NODE, (throttle,) + (1.0,) * (len(apps) - 1))
    assert all(after >= before - 1e-12 for before, after in zip(free[1:], bound[1:], strict=True))


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"fraction 1\.5 for 'cg'"):
        Bandwidth(1.0, {"cg": 1.5})
    with pytest.raises(ConfigError, match=r"slowdown 0\.9 of 'a' beside 'b'"):
        Pairwise({("a", "b"): 0.9})
