"""The arithmetic of calibrated dials."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.estimate.bubbles import BubbleError, Calibration, Response, describe
from tandem.estimate.bubbles.calibrating import monotone, noise
from tandem.estimate.bubbles.calibration import MOST_SCATTER
from tandem.estimate.bubbles.isotonic import ascending
from tandem.estimate.profile import DISTURBED, HARDEST

MACHINE = "a-machine"


@st.composite
def responses(draw: st.DrawFn) -> Response:
    inner = draw(st.lists(st.floats(0.01, 0.99), max_size=6, unique=True))
    raw = (0.0, *sorted(inner), 1.0)
    steps = draw(st.lists(st.floats(0.0, 3.0), min_size=len(raw) - 1, max_size=len(raw) - 1))
    slowdowns = (1.0, *(1.0 + float(total) for total in np.cumsum(steps)))
    return Response(raw, slowdowns, draw(st.floats(0.0, 0.2)))


def calibration(response: Response) -> Calibration:
    return Calibration(MACHINE, (0, 1), {"cache": response}, {"net": "no second core"}, 0.0, 20.0)


levels = st.floats(0.0, 1.0)


@given(responses(), levels)
def test_the_reporter_is_slowed_in_proportion_to_the_dial(response: Response, level: float) -> None:
    raw = calibration(response).raw("cache", level)
    assert 0.0 <= raw <= 1.0
    if response.felt:
        assert np.interp(raw, response.raw, response.slowdowns) - 1.0 == pytest.approx(
            level * response.excess, abs=1e-9
        )
    else:
        assert raw == level


@given(responses(), levels, levels)
def test_a_higher_level_is_never_a_lower_raw_one(response: Response, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert response.raw_of(low) <= response.raw_of(high) + 1e-12


@given(responses(), st.floats(0.0, 5.0))
def test_a_slowdown_is_the_level_that_makes_it(response: Response, level: float) -> None:
    kept = calibration(response)
    if response.felt:
        assert kept.level_of("cache", kept.slowdown("cache", level)) == pytest.approx(min(level, HARDEST), abs=1e-9)
        assert kept.level_of("cache", 0.9) == 0.0


def test_what_is_not_felt_stays_raw_and_says_nothing_of_pressure() -> None:
    kept = calibration(Response((0.0, 1.0), (1.0, 1.01), 0.05))
    assert kept.raw("cache", 0.3) == 0.3
    with pytest.raises(BubbleError, match="'cache', which does not feel the strongest bubble; allowed: none"):
        kept.level_of("cache", 1.05)
    assert any("not felt" in line for line in describe(kept))


def test_what_presses_harder_than_four_bubbles_presses_with_at_least_four() -> None:
    kept = calibration(Response((0.0, 1.0), (1.0, 1.04), 0.01))
    assert kept.level_of("cache", 1.04 * 3) == HARDEST == 4.0
    assert kept.level_of("cache", 1.08) == pytest.approx(2.0)


def test_a_calibration_of_a_busy_machine_names_its_kinds_and_what_to_do() -> None:
    quiet = Response((0.0, 1.0), (1.0, 2.0), 0.01, scatter=MOST_SCATTER, waited=DISTURBED)
    assert calibration(quiet).warning == calibration(quiet).doubt == ""
    busy = replace(
        calibration(quiet), responses={"cache": replace(quiet, waited=0.34), "net": replace(quiet, waited=0.2)}
    )
    assert busy.warning.startswith(
        "the bubbles of this machine were calibrated while others had the cores for up to 34% of the time "
        "(cache, net): "
    )
    assert busy.warning.endswith("tandem profile calibrate when the machine is quiet")
    assert busy.doubt == "bubbles (2 kinds) were calibrated on a busy machine: tandem profile show tells more"
    hangs = replace(busy, responses={"cache": quiet, "fs_write": replace(quiet, scatter=1000.0)})
    assert "its reporters alone scattered (fs_write by 100000%)" in hangs.warning
    assert "others" not in hangs.warning
    assert hangs.doubt.startswith("bubbles (fs_write) were calibrated on a busy machine")
    assert " 34.0%" in describe(busy)[2]


def test_reporters_feel_at_least_their_own_noise() -> None:
    assert calibration(Response((0.0, 1.0), (1.0, 1.5), 0.01)).reporter_excess == {"cache": 0.5}
    assert calibration(Response((0.0, 1.0), (1.0, 1.01), 0.05)).reporter_excess == {"cache": 0.05}
    assert calibration(Response((0.0, 1.0), (1.0, 1.01), 0.0)).reporter_excess == {"cache": 0.03}


def test_what_was_not_measured_is_said() -> None:
    kept = calibration(Response((0.0, 1.0), (1.0, 2.0), 0.05))
    for ask in (kept.raw, kept.slowdown, kept.level_of):
        with pytest.raises(BubbleError, match="no second core"):
            ask("net", 0.5)
    assert describe(kept)[-1] == "net          not measured: no second core"
    assert "2.00x" in describe(kept)[2]


@pytest.mark.parametrize(
    ("raw", "slowdowns", "noisy"),
    [
        ((0.0, 1.0), (1.0, 1.2, 1.3), 0.0),
        ((0.0, 0.5), (1.0, 1.2), 0.0),
        ((0.0, 1.0), (1.1, 1.2), 0.0),
        ((0.0, 0.6, 0.5, 1.0), (1.0, 1.1, 1.2, 1.3), 0.0),
        ((0.0, 0.5, 1.0), (1.0, 1.3, 1.2), 0.0),
        ((0.0, 1.0), (1.0, 1.2), -0.1),
        ((0.0,), (1.0,), 0.0),
    ],
)
def test_a_response_of_another_form_is_refused(
    raw: tuple[float, ...], slowdowns: tuple[float, ...], noisy: float
) -> None:
    with pytest.raises(ValueError, match="response"):
        Response(raw, slowdowns, noisy)


@given(st.lists(st.floats(0.3, 20.0), min_size=1, max_size=8))
def test_measured_slowdowns_make_a_response(measured: list[float]) -> None:
    raw = tuple(i / len(measured) for i in range(len(measured) + 1))
    slowdowns = monotone(raw, measured)
    assert Response(raw, slowdowns, 0.0).slowdowns == slowdowns
    assert slowdowns[-1] == pytest.approx(max(1.0, ascending(measured)[-1]))
    if measured == sorted(set(measured)) and measured[0] >= 1.0:
        assert slowdowns == pytest.approx((1.0, *measured))


def test_a_burst_becomes_a_slope() -> None:
    assert monotone((0.0, 0.25, 0.5, 0.75, 1.0), (1.4, 1.2, 1.2, 1.6)) == pytest.approx(
        (1, 1.133333, 1.266667, 1.433333, 1.6)
    )


def test_noise_is_the_interval_of_the_median() -> None:
    """Against medians of drawn samples: nine in ten lie within it."""
    rng = np.random.default_rng(1)
    drawn = rng.normal(1.5, 0.15, size=(4000, 25))
    medians = np.median(drawn, axis=1)
    stated = noise({float(i): row for i, row in enumerate(drawn[:200].tolist())})
    assert np.mean(np.abs(medians / 1.5 - 1.0) < stated) == pytest.approx(0.9, abs=0.03)
    assert noise({1.0: [2.0] * 5}) == 0.0
