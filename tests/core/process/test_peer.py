"""The kernel names the other end of a socket."""

import os
import socket

from tandem.core.process.peer import Peer, peer_of


def test_the_other_end_is_named() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_of(ours) == Peer(pid=os.getpid(), uid=os.getuid(), gid=os.getgid())
