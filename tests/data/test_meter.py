"""Rates and waits under a clock that moves as told."""

from tandem.core.clock import VirtualClock
from tandem.data.meter import Meter


def test_rate_and_wait_are_of_the_time_since_the_last_reading() -> None:
    clock = VirtualClock(100.0)
    meter = Meter(clock)
    assert meter.read() == {"samples_per_s": 0.0, "data_wait_share": 0.0}
    meter.begin()
    meter.wait()
    clock.advance_to(101.0)  # a second of waiting
    meter.had()
    meter.count(30)
    clock.advance_to(104.0)  # three of training
    assert meter.read() == {"samples_per_s": 7.5, "data_wait_share": 0.25}
    meter.wait()
    meter.had()
    meter.count(10)
    clock.advance_to(106.0)
    assert meter.read() == {"samples_per_s": 5.0, "data_wait_share": 0.0}


def test_time_between_iterations_does_not_count() -> None:
    clock = VirtualClock(0.0)
    meter = Meter(clock)
    meter.begin()
    meter.wait()
    meter.had()
    meter.count(8)
    clock.advance_to(2.0)
    meter.end()
    meter.end()
    clock.advance_to(50.0)
    meter.begin()
    clock.advance_to(52.0)
    meter.end()
    assert meter.read() == {"samples_per_s": 2.0, "data_wait_share": 0.0}
