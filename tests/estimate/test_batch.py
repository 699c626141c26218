"""Many sets at once give what the model gives set by set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.estimate import estimators
from tandem.estimate.batch import Batch, BatchError
from tandem.estimate.corun import App, Capacity, CoRun
from tandem.estimate.profile import KINDS, Curve, PhaseProfile, Profile

NODE = Capacity(1000_000)
KEYS = ("cg", "fft", "lu", "sort")


@st.composite
def profile_of(draw: st.DrawFn, key: str) -> Profile:
    kinds = KINDS if draw(st.booleans()) else draw(st.lists(st.sampled_from(KINDS), unique=True))
    levels = sorted(draw(st.sets(st.sampled_from([0.2, 0.4, 0.5, 0.8, 1.0]), min_size=1)))

    def curve() -> Curve:
        slowdowns = draw(st.lists(st.floats(0.9, 4.0), min_size=len(levels), max_size=len(levels)))
        return Curve((0.0, *levels), (1.0, *slowdowns), (0.0,) * len(levels) + (0.05,))

    curves = {kind: curve() for kind in kinds}
    # Sums of up to three lie off the bends of curves, where rounding would decide between two slopes.
    pressure = {kind: draw(st.integers(0, 150)) / 100 + 0.0037 for kind in kinds}
    phase = PhaseProfile("", 1.0, 10.0, 0.02, 1.0, curves, pressure, dict.fromkeys(pressure, 0.03))
    waited = draw(st.sampled_from([0.0, 0.4]))
    return Profile(key, (key,), "here", 1, 0.0, 20.0, 1, (phase,), waited=waited)


profiles = st.tuples(*(profile_of(key) for key in KEYS))
coruns = st.lists(
    st.builds(
        CoRun,
        app=st.sampled_from(KEYS),
        beside=st.lists(st.sampled_from(KEYS), max_size=3).map(lambda keys: tuple(sorted(keys))),
        rate=st.sampled_from([4.0, 5.0, 9.5, 10.0]),
        seconds=st.just(10.0),
    ),
    max_size=15,
)


@pytest.mark.parametrize("name", ["bubble", "learned"])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
@settings(max_examples=40)
@given(held=profiles, seen=coruns, data=st.data())
def test_equal_to_the_model_set_by_set(
    name: str, size: int, held: tuple[Profile, ...], seen: list[CoRun], data: st.DataObject
) -> None:
    rows = st.lists(st.sampled_from(KEYS), min_size=size, max_size=size)
    sets = data.draw(st.lists(rows, min_size=1, max_size=5))
    model = estimators.make(name, tuple(seen), held)
    batch = Batch.of(held, seen if name == "learned" else None)
    mid, low, high = batch.predict(batch.indices(sets))
    for s, keys in enumerate(sets):
        one_by_one = model.predict(tuple(App(key) for key in keys), NODE)
        assert mid[s] == pytest.approx([one.mid for one in one_by_one], rel=1e-9)
        assert low[s] == pytest.approx([one.low for one in one_by_one], rel=1e-7)
        assert high[s] == pytest.approx([one.high for one in one_by_one], rel=1e-7)


def test_no_sets_and_wrong_ones() -> None:
    batch = Batch.of([])
    assert batch.predict(np.zeros((0, 3), dtype=np.int64))[0].shape == (0, 3)
    with pytest.raises(BatchError, match="application 'cg'"):
        batch.indices([["cg"]])
    with pytest.raises(BatchError, match="sets of 1 and 2 applications; allowed: sets of one size"):
        batch.indices([["cg"], ["cg", "lu"]])
    with pytest.raises(BatchError, match="an array of float64; allowed: integers"):
        batch.predict(np.zeros((1, 3)))  # type: ignore[arg-type]
    assert batch.indices([]).shape == (0,)
    with pytest.raises(BatchError, match="entries from 0"):
        batch.predict(np.zeros((1, 3), dtype=np.int64))
