"""Tests of kernels measure into a folder of their own."""

from pathlib import Path

import pytest

from tandem.kernels.sparse import tuning


@pytest.fixture(autouse=True)
def _own_tuning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_SPARSE_TUNING", str(tmp_path / "tuning"))
    tuning.forget()
