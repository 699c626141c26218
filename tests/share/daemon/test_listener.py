"""The daemon's socket: whether its path still leads to it."""

import socket
from pathlib import Path

import pytest

from tandem.share import paths
from tandem.share.daemon.listener import Listener
from tandem.share.paths import Paths


@pytest.fixture
def places(tmp_path: Path) -> Paths:
    """A data folder, and a socket elsewhere."""
    return Paths(tmp_path / "data", tmp_path / "run" / "tandem.sock")


def answers(path: Path, listener: Listener) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(path))
        listener.socket.accept()[0].close()
    return True


@pytest.mark.parametrize("in_its_place", ["nothing", "no folder", "a file", "a dead one's socket"])
def test_a_path_that_leads_to_nobody_is_lost_and_bound_again(places: Paths, in_its_place: str) -> None:
    first = Listener(places)
    assert not first.is_lost()
    places.socket.unlink()
    if in_its_place == "no folder":
        places.socket.parent.rmdir()
    if in_its_place == "a file":
        places.socket.touch()
    if in_its_place == "a dead one's socket":
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(places.socket))
    assert first.is_lost()
    again = Listener(places)
    first.close()
    assert not again.is_lost()
    assert answers(places.socket, again)
    again.close()
    assert not places.socket.exists()


def test_a_path_at_which_another_listens_is_left_to_it(places: Paths, tmp_path: Path) -> None:
    mine = Listener(places)
    other = Listener(paths.Paths(tmp_path / "other", places.socket))
    assert not mine.is_lost()
    mine.close()
    assert answers(places.socket, other)
    other.close()
