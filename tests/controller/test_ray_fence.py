"""What the driver finds out of a host past Ray; on sockets of this process, without Ray."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from sliceform.controller.ray_backend.fence import Fences, Host, Verdict

MARK = "i1/slice-1-0/run-1-1"


class Sweep:
    """The task that ends what an agent left; fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.marks: list[str] = []
        self._failures = failures

    def options(self, **_: Any) -> "Sweep":
        return self

    def remote(self, mark: str) -> Any:
        self.marks.append(mark)
        future: Future[None] = Future()
        if len(self.marks) > self._failures:
            future.set_result(None)
        else:
            future.set_exception(RuntimeError("no worker"))
        return SimpleNamespace(future=lambda: future)


@pytest.fixture
def open_port() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def closed() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def verdict(door: int, alive: int, raylet: int, *, sweep: Sweep | None = None, within_s: float = 10.0) -> Verdict:
    fences = Fences(sweep or Sweep(), within_s)
    fences.start()
    found: Future[Verdict] = Future()
    host = Host("0" * 56, "127.0.0.1", door, alive, ("127.0.0.1", raylet), MARK)
    fences.ask(host, found.set_result)
    try:
        return found.result(20)
    finally:
        assert fences.stop(5.0)


def port(server: socket.socket) -> int:
    return int(server.getsockname()[1])


def test_an_agent_that_says_clear_is_believed_whatever_its_raylet_does(open_port: socket.socket) -> None:
    asked: list[bytes] = []

    def answer() -> None:
        connection, _ = open_port.accept()
        with connection:
            asked.append(connection.recv(1_000))
            connection.sendall(b"clear\n")

    agent = threading.Thread(target=answer)
    agent.start()
    assert verdict(port(open_port), closed(), closed()) is Verdict.CLEAR
    agent.join(5)
    assert asked == [f"{MARK}\n".encode()]


def test_a_host_where_all_refuse_has_died() -> None:
    assert verdict(closed(), closed(), closed()) is Verdict.DIED


def test_a_host_where_the_work_is_alive_has_not(open_port: socket.socket) -> None:
    assert verdict(closed(), port(open_port), closed(), within_s=0.7) is Verdict.UNKNOWN


def test_a_host_that_stands_still_is_waited_for(open_port: socket.socket) -> None:
    """Its kernel takes the connection, and nobody answers."""
    assert verdict(port(open_port), closed(), closed(), within_s=0.7) is Verdict.UNKNOWN


def test_what_an_agent_left_on_a_node_that_lives_is_ended_there(open_port: socket.socket) -> None:
    sweep = Sweep(failures=1)
    assert verdict(closed(), port(open_port), port(open_port), sweep=sweep) is Verdict.CLEAR
    assert sweep.marks == [MARK] * 2
