"""The port that tells whether anything of ours is alive on a host: the agent and the work both listen on it."""

from __future__ import annotations

import socket


def alive_at(port: int) -> socket.socket:
    """Listen on a port of this host, together with others of this user; 0 = one that is free.

    Nobody is ever answered there: that the kernel accepts connections says that one of those who listen is alive, and a
    refusal that none is. Children that are forked listen on.
    """
    shared = socket.socket()
    shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    shared.bind(("", port))
    shared.listen()
    return shared
