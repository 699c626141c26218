"""The lock of a file: who has patience waits for it, and no longer than asked."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from tandem.core import durable


def test_a_lock_that_is_not_let_go_of_in_time_is_said(tmp_path: Path) -> None:
    with (
        durable.locked(tmp_path / "lock"),
        pytest.raises(TimeoutError, match="another process holds it"),
        durable.locked(tmp_path / "lock", patience_s=0.0),
    ):
        pass


def test_a_lock_that_is_let_go_of_in_time_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    with ExitStack() as held:
        held.enter_context(durable.locked(tmp_path / "lock"))
        monkeypatch.setattr(durable.time, "sleep", lambda seconds: (waited.append(seconds), held.close()))
        with durable.locked(tmp_path / "lock", patience_s=1e6):
            assert len(waited) == 1
