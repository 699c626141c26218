"""Tests of kernels measure into a folder of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tandem.kernels.sparse import tuning


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small products do not gain by threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _own_tuning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_SPARSE_TUNING", str(tmp_path / "tuning"))
    tuning.forget()
