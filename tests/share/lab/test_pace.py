"""A day does less on a slower machine, more on a faster one, and only where the file wants that."""

from dataclasses import replace

import pytest

from tandem.share.lab import pace
from tandem.share.lab.plan import Lab

LAB = Lab(title="day", scale=2.0, pace=True, jobs=())


@pytest.mark.parametrize(
    ("times_slower", "scale"),
    [(0.1, 2.0 * pace.MOST), (0.8, 2.5), (1.0, 2.0), (2.0, 1.0), (4.0, 0.5), (100.0, 2.0 * pace.LEAST)],
)
def test_as_much_work_as_the_machine_is_fast(times_slower: float, scale: float) -> None:
    assert pace.paced(LAB, times_slower * pace.STANDARD_S).scale == pytest.approx(scale)


def test_only_where_the_file_wants_it() -> None:
    lab = replace(LAB, pace=False)
    assert pace.paced(lab, 10 * pace.STANDARD_S) is lab


def test_this_machine_is_measured() -> None:
    assert 0 < pace.reference_s(1) < 60
    assert 2.0 * pace.LEAST <= pace.paced(LAB).scale <= 2.0 * pace.MOST
