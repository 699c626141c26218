"""The daemon's end of a connection: how it ends."""

import json
import socket
import threading

from tandem.share.daemon.wire import Connection


def test_what_is_under_way_is_read_before_the_end() -> None:
    theirs, ours = socket.socketpair()
    connection = Connection(ours)
    connection.send(list(range(1_000_000)))
    assert connection.wants_to_write, "more than a socket holds"
    read = bytearray()

    def client() -> None:
        while chunk := theirs.recv(1 << 16):
            read.extend(chunk)

    reader = threading.Thread(target=client)
    reader.start()
    connection.finish()
    reader.join(60)
    theirs.close()
    assert json.loads(read) == list(range(1_000_000))


def test_nobody_is_waited_for_who_has_gone_or_got_all() -> None:
    for gone in (True, False):
        theirs, ours = socket.socketpair()
        connection = Connection(ours)
        connection.send(list(range(1_000_000 if gone else 10)))
        if gone:
            theirs.close()
        connection.finish()
        assert connection.closed
        assert ours.fileno() == -1
        theirs.close()
