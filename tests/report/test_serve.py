"""The server of the page: what it answers, whom, and that nothing of it stays."""

import contextlib
import http.client
import json
import re
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from sliceform.controller.errors import ConfigurationError, FleetClosedError, JournalError
from sliceform.controller.report import Server, serve
from sliceform.states import History

from .conftest import EPOCH, Incident, show
from .test_data import rows, told


@pytest.fixture
def server(history: History) -> Iterator[Server]:
    with show(history) as server:
        yield server


def ask(
    server: Server, path: str = "/", method: str = "GET", host: str | None = None
) -> tuple[int, dict[str, str], str]:
    """Ask on this machine, as a browser would that knows the server by the name `host`."""
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(server.url).port, timeout=10)
    with contextlib.closing(connection):
        connection.request(method, path, headers={"Host": host} if host else {})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()


def silent_visitor(server: Server) -> socket.socket:
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), timeout=10)


def until(true: Callable[[], bool]) -> None:
    """Wait for it, but not for ever."""
    pause = threading.Event()
    for _ in range(1000):
        if true():
            return
        pause.wait(0.01)
    raise AssertionError("it did not come")


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("sliceform-serve")]


def test_the_page_is_at_the_root_and_may_not_be_kept_or_framed(server: Server) -> None:
    status, headers, text = ask(server)
    assert status == 200
    assert text.startswith("<!doctype html>")
    assert "<title>an incident</title>" in text
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "Python" not in headers["Server"]


def embedded(page: str) -> dict[str, Any]:
    """Return the data that stands in a page."""
    (text,) = re.findall(r'<script type="application/json" id="data">(.*)</script>', page)
    data: dict[str, Any] = json.loads(text)
    return data


def test_page_and_news_go_on_until_the_time_that_the_history_is_looked_at(server: Server) -> None:
    assert embedded(ask(server)[2])["now"] == (EPOCH + 60.0) * 1000
    assert json.loads(ask(server, "/changes?since=3")[2])["now"] == (EPOCH + 60.0) * 1000


def test_changes_are_asked_for_from_a_number_on(server: Server, history: History) -> None:
    status, headers, text = ask(server, f"/changes?since={history.last_seq - 3}")
    assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    assert rows(json.loads(text)) == [told(change) for change in list(history)[-3:]]


@pytest.mark.parametrize("since", ["-1", "one", "", "1e3", "%00", "1" * 19, "1" * 5000, "%D9%A1"])
def test_what_is_no_number_of_a_change_is_refused(server: Server, since: str) -> None:
    status, _, text = ask(server, f"/changes?since={since}")
    if since:
        assert (status, text) == (400, "since must be the number of a change\n")
    else:
        assert status == 200


def test_a_journal_is_asked_for_the_largest_number_that_is_let_through(tmp_path: Path) -> None:
    with contextlib.closing(Incident(journal=tmp_path / "fleet.db").fleet) as fleet:
        status, _, text = ask(fleet.serve(), f"/changes?since={'9' * 18}")
    assert (status, json.loads(text)["at"]) == (200, [])


def test_an_address_that_is_none_is_refused(server: Server) -> None:
    with silent_visitor(server) as visitor, visitor.makefile("rb") as answer:
        visitor.sendall(b"GET http://[/ HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert b" 400 " in answer.readline()


@pytest.mark.parametrize("path", ["/favicon.ico", "/../etc/passwd", "/changes/1", "*"])
def test_there_is_nothing_else(server: Server, path: str) -> None:
    assert ask(server, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(server: Server, method: str) -> None:
    assert ask(server, method=method)[0] == 501


def test_head_is_answered_without_the_body(server: Server) -> None:
    status, headers, text = ask(server, method="HEAD")
    assert (status, text) == (200, "")
    assert int(headers["Content-Length"]) > 1000


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("127.0.0.1", 200),
        ("[::1]", 200),
        ("[::1]:80", 200),
        ("evil.example", 421),
        ("evil.example:80", 421),
        ("127.0.0.1.evil.example", 421),
        ("[", 421),
    ],
)
def test_a_name_that_another_made_point_here_is_not_served(server: Server, host: str, status: int) -> None:
    assert ask(server, host=host)[0] == status


def test_only_this_machine_can_reach_it_unless_told_otherwise(history: History) -> None:
    with show(history, "here") as server:
        assert server.url.startswith("http://127.0.0.1:")
    with show(history, "everywhere", host="0.0.0.0") as server:  # noqa: S104 - what is tested
        assert ask(server, host="a-name-of-this-machine:80")[0] == 200


@pytest.mark.parametrize("host", ["::1", "::"])
def test_it_can_be_reached_by_ipv6(history: History, host: str) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with show(history, host=host) as server, urllib.request.urlopen(server.url, timeout=10) as answer:  # noqa: S310 - ours
        assert answer.status == 200
        assert server.url.startswith(f"http://[{host}]:")


def test_a_port_in_use_is_refused_and_its_owner_not_touched(server: Server, history: History) -> None:
    port = urlsplit(server.url).port
    assert port is not None
    with pytest.raises(ConfigurationError, match=rf"cannot serve on 127.0.0.1:{port}: .*in use.*; choose another port"):
        show(history, "late", port=port)
    assert ask(server)[0] == 200


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 70_000), ("127.0.0.1", -1), ("no.such.host.invalid", 0)])
def test_an_address_that_cannot_be_is_refused(history: History, host: str, port: int) -> None:
    with pytest.raises(ConfigurationError, match=f"cannot serve on {host}:{port}"):
        show(history, "nowhere", host=host, port=port)


def test_it_ends_with_its_thread_and_its_port(history: History) -> None:
    server = show(history, "short")
    assert threads() == ["sliceform-serve"]
    port = urlsplit(server.url).port
    server.close()
    server.close()
    assert threads() == []
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))


def test_a_visitor_who_says_nothing_holds_up_nobody_and_not_the_end(history: History) -> None:
    with show(history, "slow") as server, silent_visitor(server) as visitor:
        assert ask(server)[0] == 200
        server.close()
        assert visitor.recv(1) == b""
        assert threads() == []


def test_many_visitors_are_ended_together(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """None waits for the end of the one before: all are hung up on first."""
    ended: list[str] = []
    shutdown, join = socket.socket.shutdown, threading.Thread.join
    with show(history) as server, contextlib.ExitStack() as crowd:
        for _ in range(3):
            crowd.enter_context(silent_visitor(server))
        until(lambda: threads().count("sliceform-serve-visit") == 3)
        monkeypatch.setattr(socket.socket, "shutdown", lambda *words: (ended.append("hung up"), shutdown(*words))[1])
        monkeypatch.setattr(
            threading.Thread,
            "join",
            lambda self, *words: (ended.append("joined") if "visit" in self.name else None, join(self, *words))[1],
        )
        server.close()
    assert ended[:3] == ["hung up"] * 3
    assert ended.count("joined") == 3


def test_a_visitor_for_whom_there_is_no_thread_is_forgotten(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with silent_visitor(server) as visitor:
            assert visitor.recv(1) == b""
    assert server._server._visits == {}
    assert ask(server)[0] == 200


def test_no_more_visitors_are_kept_than_it_has_room_for(history: History) -> None:
    with show(history, "crowd") as server, contextlib.ExitStack() as crowd:
        for _ in range(32):
            crowd.enter_context(silent_visitor(server))
        late = crowd.enter_context(silent_visitor(server))
        assert late.recv(1) == b""


def test_a_history_that_cannot_be_read_is_said_and_the_next_is_answered(history: History) -> None:
    failures = [JournalError("fleet.db is damaged")]

    @contextlib.contextmanager
    def opened() -> Iterator[History]:
        if failures:
            raise failures.pop()
        yield history

    with serve(opened, title="shaky", now=lambda _: EPOCH) as server:
        status, _, text = ask(server)
        assert (status, text) == (503, "fleet.db is damaged\n")
        assert ask(server)[0] == 200


def test_a_fleet_serves_its_own_history_until_it_is_closed() -> None:
    incident = Incident()
    server = incident.fleet.serve()
    before = incident.history.last_seq
    assert "<title>train</title>" in ask(server)[2]
    incident.lose_and_recover()
    incident.clock.advance(60.0)
    found = json.loads(ask(server, f"/changes?since={before}")[2])
    assert found["now"] == round(incident.clock.epoch() * 1000)
    assert rows(found) == [told(change) for change in list(incident.history)[before:]]
    incident.fleet.close()
    assert threads() == []
    with pytest.raises(OSError, match="refused"):
        ask(server)


def test_a_fleet_with_a_journal_serves_what_the_drivers_before_it_wrote(tmp_path: Path) -> None:
    journal = tmp_path / "fleet.db"
    with contextlib.closing(Incident(journal=journal).fleet) as first:
        written = first.history.last_seq
    second = Incident(journal=journal)
    with contextlib.closing(second.fleet):
        page = embedded(ask(second.fleet.serve())[2])
        assert (page["dropped"], page["base"]) == (0, {})
        assert len(page["at"]) >= written
        assert written > 0


def test_a_fleet_that_is_closed_meanwhile_leaves_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever closes waits until the server is known, and closes it."""
    incident = Incident()
    free = []

    def begin(*words: Any, **more: Any) -> Server:
        closer = threading.Thread(target=lambda: free.append(incident.fleet._lock.acquire(blocking=False)))
        closer.start()
        closer.join()
        return serve(*words, **more)

    monkeypatch.setattr("sliceform.controller.report.serve", begin)
    incident.fleet.serve()
    assert free == [False]
    incident.fleet.close()
    assert threads() == []
    with pytest.raises(FleetClosedError):
        incident.fleet.serve()
