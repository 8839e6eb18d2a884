"""Ports of this host, on IPv4 and IPv6 alike: those that are free, and those that tell whether something is alive."""

from __future__ import annotations

import contextlib
import random
import socket

#: So many ports of a range are tried: one that is nearly full is as good as full.
_TRIES = 1_000


def listen(port: int = 0, *, shared: bool = False) -> socket.socket:
    """Listen at all addresses of this host on a port, `shared` with others of this user or not; 0 = one that is free.

    Raises:
        OSError: the port is taken.

    """
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, reuse_port=shared, dualstack_ipv6=True)
    return socket.create_server(("", port), reuse_port=shared)


def alive_at(port: int) -> socket.socket:
    """Listen on a port that tells whether anything of ours is alive here: the agent and the work both do.

    Nobody is ever answered there: that the kernel accepts connections says that one of those who listen is alive, and a
    refusal that none is. Children that are forked listen on.
    """
    return listen(port, shared=True)


def free(among: range, count: int) -> list[int]:
    """Return different ports that are free on this host at this moment.

    Raises:
        OSError: there are not so many.

    """
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        for port in random.sample(among, min(_TRIES, len(among))):
            probe = socket.socket(socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET)
            if probe.family is socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            try:
                # Without SO_REUSEADDR: else one that somebody has and does not listen on yet would count as free.
                probe.bind(("", port))
            except OSError:
                probe.close()
                continue
            stack.enter_context(probe)
            found.append(port)
            if len(found) == count:
                return found
    raise OSError(f"fewer than {count} of the ports {among.start}-{among.stop - 1} are free (coordinator_ports)")


def joined(host: str, port: int) -> str:
    """Write an address and a port, as URLs, gRPC and JAX have them: `10.0.0.1:80`, `[fd00::1]:80`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
