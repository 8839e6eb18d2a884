"""Serve the timeline of a history that goes on, read only, to browsers on this machine."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import parse_qs, urlsplit

import structlog

from sliceform.controller.errors import ConfigurationError, JournalError
from sliceform.controller.report.data import news
from sliceform.controller.report.page import timeline_page
from sliceform.states.history.queries import HistoryQueries

log = structlog.get_logger(__name__)

#: A connection that says nothing for so long is closed, seconds.
_IDLE_S = 30.0
#: So many connections are served at once; more are closed at once.
_CONNECTIONS = 32
#: How long `close` waits for its thread, and then for all visits together, seconds.
_CLOSE_S = 5.0
#: How soon the thread that takes connections sees that it shall end, seconds.
_POLL_S = 0.1
#: Of a change; a journal holds no larger ones.
_NUMBER = re.compile(r"[0-9]{1,18}")
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

H = TypeVar("H", bound=HistoryQueries)


class Server:
    """A page that follows a history; `url` says where. Close it, or use it as a context manager."""

    def __init__(self, server: _Http, host: str) -> None:
        """Begin to serve."""
        self._server = server
        shown = f"[{host}]" if ":" in host else host
        #: Where the page is.
        self.url = f"http://{shown}:{server.server_address[1]}/"
        self._thread = threading.Thread(
            target=server.serve_forever, args=(_POLL_S,), name="sliceform-serve", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Serve no more; harmless the second time."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_CLOSE_S)
        self._server.hang_up()

    def __enter__(self) -> Self:
        """Return it; it serves already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


def serve(
    opened: Callable[[], contextlib.AbstractContextManager[H]],
    *,
    title: str,
    now: Callable[[H], float],
    host: str = "127.0.0.1",
    port: int = 0,
) -> Server:
    """Serve the timeline of a history, and what comes to it.

    Whoever reaches the port reads everything, ids of nodes and texts of exceptions included: there is no password. Only
    GET and HEAD are answered, and nothing can be changed.

    Args:
        opened: opens the history for one answer; each is given on a thread of its own.
        title: shown above the timeline.
        now: tells up to when what has not ended is drawn, epoch seconds.
        host: the address to listen on; by default only this machine can reach it.
        port: 0 takes one that is free.

    Raises:
        ConfigurationError: the address or the port cannot be used; says why.

    """
    try:
        server = _Http((host, port), opened, title, now)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            f"cannot serve on {host}:{port}: {error}; choose another port, or port 0 for one that is free"
        ) from error
    return Server(server, host)


class _Http(ThreadingHTTPServer):
    request_queue_size = _CONNECTIONS

    def __init__(
        self,
        address: tuple[str, int],
        opened: Callable[[], contextlib.AbstractContextManager[H]],
        title: str,
        now: Callable[[H], float],
    ) -> None:
        self.opened: Callable[[], contextlib.AbstractContextManager[Any]] = opened
        self.title = title
        self.now: Callable[[Any], float] = now
        #: By it a page sees that another server has taken the place of the one that it came from.
        self.mark = uuid.uuid4().hex
        self.hosts = _LOOPBACK | {address[0].lower()}
        self.everywhere = address[0] in {"", "0.0.0.0", "::"}  # noqa: S104 - compared, not bound
        self._visits: dict[threading.Thread, socket.socket] = {}
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if len(self._visits) >= _CONNECTIONS:
            self.shutdown_request(request)
            return
        thread = threading.Thread(
            target=self._visit, args=(request, client_address), name="sliceform-serve-visit", daemon=True
        )
        self._visits[thread] = request
        try:
            thread.start()
        except RuntimeError:
            del self._visits[thread]
            raise

    def _visit(self, request: socket.socket, client_address: Any) -> None:
        try:
            self.process_request_thread(request, client_address)
        finally:
            del self._visits[threading.current_thread()]

    def hang_up(self) -> None:
        """End all visits, once no new ones are taken."""
        visits = list(self._visits.items())
        for _, request in visits:
            with contextlib.suppress(OSError):  # it ended by itself
                request.shutdown(socket.SHUT_RDWR)
        end = time.monotonic() + _CLOSE_S
        for thread, _ in visits:
            thread.join(max(0.0, end - time.monotonic()))

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - socketserver's
        log.info("page_not_served", client=client_address, cause=repr(sys.exception()))


class _Handler(BaseHTTPRequestHandler):
    server: _Http
    timeout = _IDLE_S
    server_version = "sliceform"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Answer without the body."""
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        try:
            status, kind, text = self._page()
        except JournalError as error:
            status, kind, text = HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", f"{error}\n"
        content = text.encode(errors="replace")
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": f"{kind}; charset=utf-8"}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _page(self) -> tuple[HTTPStatus, str, str]:
        # A name that somebody else's server points to this machine must not open it to their page.
        if not self.server.everywhere and _host(self.headers.get("Host")) not in self.server.hosts:
            return HTTPStatus.MISDIRECTED_REQUEST, "text/plain", "this host name is not served here\n"
        try:
            address = urlsplit(self.path)
        except ValueError:
            return HTTPStatus.BAD_REQUEST, "text/plain", "this address cannot be read\n"
        if address.path == "/":
            with self.server.opened() as source:
                now, mark = self.server.now(source), self.server.mark
                return HTTPStatus.OK, "text/html", timeline_page(source, title=self.server.title, now=now, server=mark)
        if address.path == "/changes":
            since = parse_qs(address.query).get("since", ["0"])[0]
            if not _NUMBER.fullmatch(since):
                return HTTPStatus.BAD_REQUEST, "text/plain", "since must be the number of a change\n"
            with self.server.opened() as source:
                found = news(source, int(since), now=self.server.now(source)) | {"server": self.server.mark}
            return HTTPStatus.OK, "application/json", json.dumps(found, separators=(",", ":"))
        return HTTPStatus.NOT_FOUND, "text/plain", "there is only the timeline, at /\n"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's
        """Keep quiet: http.server would write to standard error."""


def _host(header: str | None) -> str | None:
    """Return the name in a Host header, without the port; None if it is none."""
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None
