"""Who is at the other end of a Unix socket, as the kernel says it."""

import socket
import struct
from dataclasses import dataclass

_UCRED = struct.Struct("iII")


@dataclass(frozen=True, kw_only=True)
class Peer:
    """The process that connected, at the moment it did; `pid` is for messages only, it may be somebody else's now."""

    pid: int
    uid: int
    gid: int


def peer_of(connection: socket.socket) -> Peer:
    """Return the credentials of the other end of a connected Unix socket."""
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Peer(pid=pid, uid=uid, gid=gid)
