from tandem.estimate.corun import App, Capacity, CoRun
from tandem.estimate.models import none
from tandem.estimate.prior import UNKNOWN_EXCESS


def test_every_slowdown_is_exactly_one_whatever_was_seen() -> None:
    model = none.make([CoRun("a", (), 10.0, 5.0), CoRun("a", ("b",), 1.0, 5.0)])
    pair = model.predict((App("a", 1000, 90_000), App("b", 1000, 90_000)), Capacity(4000, 1_000))
    assert [answer.mid for answer in pair] == [1.0, 1.0]
    one_core = model.predict((App("a", cores=(0,)), App("b", cores=(0,))), Capacity(4000))
    assert [answer.mid for answer in one_core] == [1.0, 1.0]
    assert not model.knows(App("a", 1000, 90_000))


def test_it_says_that_it_does_not_know() -> None:
    beside, _ = none.make([]).predict((App("a"), App("b")), Capacity(4000))
    assert not beside.known
    assert beside.high == 1.0 + UNKNOWN_EXCESS
    (alone,) = none.make([]).predict((App("a"),), Capacity(4000))
    assert alone.known
    assert alone.high == 1.0
