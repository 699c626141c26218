"""Whom a client takes for its daemon."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tandem.core.errors import DaemonError
from tandem.share.daemon.client import Client
from tandem.share.paths import Paths

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="requires root: to become another user")
ALICE, BOB = 12345, 12346


@pytest.fixture
def places(tmp_path: Path) -> Paths:
    """A data folder of ALICE, and a socket elsewhere, both in reach of everybody."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.name.startswith(("pytest-", "popen-", "test_")):  # pytest keeps others out
            folder.chmod(0o755)
    (tmp_path / "data").mkdir()
    os.chown(tmp_path / "data", ALICE, ALICE)
    return Paths(tmp_path / "data", tmp_path / "tandem.sock")


@contextlib.contextmanager
def acting_as(uid: int) -> Iterator[None]:
    """What is done meanwhile is done by this user."""
    before = os.geteuid()
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(before)


@contextlib.contextmanager
def listening(path: Path, uid: int) -> Iterator[socket.socket]:
    """A server of this user, to which everybody may connect."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o666)
        with acting_as(uid):
            server.listen()
        yield server


@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize("who", [ALICE, 0])
def test_a_server_of_another_user_is_told_nothing(places: Paths, who: int, start: bool) -> None:
    with listening(places.socket, BOB) as server:
        with acting_as(who), pytest.raises(DaemonError, match=f"another user listens .uid {BOB}.: nothing was sent"):
            Client.connect(start=start, paths=places)
        accepted, _ = server.accept()
        with accepted:
            assert accepted.recv(1) == b""


@pytest.mark.parametrize(("who", "whose"), [(ALICE, ALICE), (ALICE, 0), (BOB, 0), (0, 0), (0, ALICE)])
def test_a_server_of_ones_own_or_roots_is_believed_and_by_root_the_data_folders_owner(
    places: Paths, who: int, whose: int
) -> None:
    with listening(places.socket, whose) as server, acting_as(who):
        with Client.connect(start=False, paths=places) as client:
            client.send("ping")
        accepted, _ = server.accept()
        with accepted:
            assert accepted.recv(100).startswith(b'{"id":1,"method":"ping"')


def test_the_data_folders_owner_is_not_believed_by_another_user(places: Paths) -> None:
    with listening(places.socket, ALICE), acting_as(BOB), pytest.raises(DaemonError, match=f"uid {ALICE}"):
        Client.connect(start=False, paths=places)


def test_a_socket_that_a_killed_daemon_left_to_a_child_is_nobodys(places: Paths) -> None:
    """Between fork and exec a child holds the socket that its parent listened on."""
    program = (
        "import os, signal, socket, sys, time\n"
        "server = socket.socket(socket.AF_UNIX)\n"
        "server.bind(sys.argv[1])\n"
        "server.listen()\n"
        "child = os.fork()\n"
        "if child:\n"
        "    print(child, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(places.socket)], stdout=subprocess.PIPE, text=True
    ) as daemon:
        assert daemon.stdout is not None
        child = int(daemon.stdout.readline())
        daemon.wait()
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(places.socket))  # the kernel still takes connections
            with pytest.raises(DaemonError, match="no daemon answers"):
                Client.connect(start=False, paths=places)
        finally:
            os.kill(child, signal.SIGKILL)
