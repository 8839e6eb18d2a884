"""Ports of a host: free ones, and those that tell whether something is alive, over IPv4 and IPv6."""

import socket

import pytest

from sliceform.controller.on_host.ports import alive_at, free, joined, listen


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_port_is_open_as_long_as_one_who_listens_there_is_alive(address: str) -> None:
    if address == "::1" and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    first = alive_at(0)
    port = first.getsockname()[1]
    second = alive_at(port)
    first.close()
    socket.create_connection((address, port), 5.0).close()
    second.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, port), 5.0)


def test_without_ipv6_it_listens_over_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    with listen() as server:
        assert server.family is socket.AF_INET
        socket.create_connection(server.getsockname(), 5.0).close()


def test_free_ports_are_different_and_can_be_bound() -> None:
    ports = free(range(20_000, 32_000), 50)
    assert len(set(ports)) == 50
    assert all(20_000 <= port < 32_000 for port in ports)


@pytest.mark.parametrize("listening", [False, True])
def test_a_port_beyond_the_range_is_never_taken(*, listening: bool) -> None:
    """Whoever has it, over whichever protocol, listening already or not yet."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("", 0))
        if listening:
            taken.listen()
        own = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"fewer than 1 of the ports {own}-{own} are free \(coordinator_ports\)"):
            free(range(own, own + 1), 1)


@pytest.mark.parametrize(
    ("host", "address"), [("10.0.0.1", "10.0.0.1:80"), ("node-1", "node-1:80"), ("fd00::1", "[fd00::1]:80")]
)
def test_an_address_of_ipv6_is_told_from_its_port(host: str, address: str) -> None:
    assert joined(host, 80) == address
