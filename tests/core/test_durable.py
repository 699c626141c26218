"""The lock of a file: who has patience waits for it, and no longer than asked. Folders are durable with all in them."""

import os
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


def test_all_in_a_folder_is_made_durable_before_the_folder_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("one", "a/two", "a/b/three"):
        (tmp_path / name).touch()
    synced: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    durable.sync_below(tmp_path)
    below = [str(path) for path in tmp_path.rglob("*")]
    assert sorted(synced) == sorted([str(tmp_path), *below])
    assert all(synced.index(path) < synced.index(os.path.dirname(path)) for path in below)  # noqa: PTH120
