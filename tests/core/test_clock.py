import math
import time

import pytest

from tandem.core.clock import Clock, SystemClock, VirtualClock


def test_system_clock_starts_at_the_wall_time() -> None:
    before = time.time()
    now = SystemClock().now()
    assert before - 0.1 <= now <= time.time() + 0.1


def test_system_clock_ignores_a_jump_of_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    before = clock.now()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert 0 <= clock.now() - before < 60


def test_system_clock_never_goes_back() -> None:
    clock = SystemClock()
    times = [clock.now() for _ in range(1000)]
    assert times == sorted(times)
    assert clock.monotonic() > 0


def test_virtual_clock_moves_only_when_told() -> None:
    clock = VirtualClock(5.0)
    clock.advance_to(5.0)
    clock.advance_to(7.5)
    as_clock: Clock = clock
    assert as_clock.now() == as_clock.monotonic() == 7.5


@pytest.mark.parametrize("to", [4.9, -math.inf, math.nan])
def test_virtual_clock_refuses_the_past(to: float) -> None:
    clock = VirtualClock(5.0)
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance_to(to)
    assert clock.now() == 5.0
