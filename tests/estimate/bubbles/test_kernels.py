"""The kernels themselves, called through the extension."""

from pathlib import Path

import pytest

from tandem import _native
from tandem.estimate.profile import KINDS


@pytest.mark.parametrize("reporter", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kernel_works_and_leaves_nothing(kind: str, reporter: bool, tmp_path: Path) -> None:
    assert _native.bubble_work(kind, reporter, 1.0, 0.01, str(tmp_path)) > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("level", [0.0, -1.0, 1.5, float("nan")])
def test_a_level_outside_the_dial_is_refused(level: float) -> None:
    with pytest.raises(ValueError, match="above 0, up to 1"):
        _native.bubble_work("cpu", False, level, 0.01, "/tmp")


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="called 'gpu_sm'"):
        _native.bubble_work("gpu_sm", False, 1.0, 0.01, "/tmp")
