"""The two rules on pairs, worked by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.estimate.corun import App, Capacity, CoRun, Estimator
from tandem.estimate.models import additive, worst_pair

NODE = Capacity(4000)
A, B, C = App("a"), App("b"), App("c")


def told(**beside: float) -> list[CoRun]:
    return [CoRun("a", (), 10.0, 10.0), *(CoRun("a", (key,), 10.0 / slow, 10.0) for key, slow in beside.items())]


def test_excesses_add_up_or_the_worst_decides() -> None:
    seen = told(b=1.2, c=1.5)
    both = (A, B, C)
    added, worst = additive.make(seen).predict(both, NODE)[0], worst_pair.make(seen).predict(both, NODE)[0]
    assert added.mid == pytest.approx(1.7)
    assert worst.mid == pytest.approx(1.5)
    assert added.known
    assert added.why == "1.70x by the sum of pairs: b 1.20x, c 1.50x"
    assert worst.why == "1.50x by the worst pair: b 1.20x, c 1.50x"


def test_the_very_same_set_beats_the_rule() -> None:
    seen = [*told(b=1.2, c=1.5), CoRun("a", ("b", "c"), 5.0, 10.0)]
    assert additive.make(seen).predict((C, A, B), NODE)[1].mid == pytest.approx(2.0)


def test_taking_turns_on_a_core_is_no_contention() -> None:
    seen = told(b=1.2, c=1.5)
    shared = (App("a", cores=(0,)), App("b", cores=(0,)), App("c", cores=(1,)))
    answer = additive.make(seen).predict(shared, NODE)[0]
    assert answer.mid == pytest.approx(2.0 * 1.5)
    assert answer.why.startswith("2.00x by sharing a core; 1.50x by the sum of pairs: c")


def test_nothing_known_is_said_and_wide() -> None:
    answer = additive.make([]).predict((A, B), NODE)[0]
    assert answer.why == "its slowdown beside b is not known: assumed 1.0x"
    assert answer.high == pytest.approx(1.6)
    assert not answer.known


@given(st.dictionaries(st.sampled_from("bcdef"), st.floats(1.0, 4.0), min_size=1))
def test_the_worst_is_never_worse_than_the_sum_and_pairs_are_what_was_seen(slowdowns: dict[str, float]) -> None:
    seen = told(**slowdowns)
    models: list[Estimator] = [additive.make(seen), worst_pair.make(seen)]
    members = (A, *map(App, slowdowns))
    added, worst = (model.predict(members, Capacity(9000))[0].mid for model in models)
    assert max(slowdowns.values()) - 1e-9 <= worst <= added + 1e-9
    for key, slowdown in slowdowns.items():
        for model in models:
            assert model.predict((A, App(key)), NODE)[0].mid == pytest.approx(slowdown)
