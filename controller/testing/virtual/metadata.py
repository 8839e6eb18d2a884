"""The GCE metadata server of every virtual host: a port of its own on loopback for each, all on one thread.

As much of https://cloud.google.com/compute/docs/metadata/querying-metadata as notices need: the header in both
directions, tags, and calls that are held open until a value changes. Standard library only.
"""

import asyncio
import threading
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

PREEMPTED = "instance/preempted"
MAINTENANCE = "instance/maintenance-event"

_QUIET = {PREEMPTED: "FALSE", MAINTENANCE: "NONE"}
_PREFIX = "/computeMetadata/v1/"
_START_S = 10.0
_HOLD_MAX_S = 600.0
_HEADERS_MAX = 100


class MetadataServers:
    """Serves until it is closed; the thread begins with the first host."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="sliceform-virtual-metadata", daemon=True)
        self._hosts: dict[str, _Host] = {}
        self._connections: set[asyncio.Task[None]] = set()

    def add(self, name: str) -> str:
        """Begin to serve a host; return what its `GCE_METADATA_HOST` is to be."""
        if not self._thread.ident:
            self._thread.start()
        port: int = asyncio.run_coroutine_threadsafe(self._serve(name), self._loop).result(_START_S)
        return f"127.0.0.1:{port}"

    def set(self, name: str, key: str, value: str | None) -> None:
        """Change a value; None is what it is when nothing is to happen."""
        value = _QUIET[key] if value is None else value
        self._loop.call_soon_threadsafe(self._hosts[name].set, key, value)

    def close(self) -> None:
        """End the thread and all connections; idempotent."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_START_S)
        if not self._loop.is_running():
            self._loop.close()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.run_until_complete(self._end())

    async def _end(self) -> None:
        for host in self._hosts.values():
            host.server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, name: str) -> int:
        host = _Host()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = asyncio.current_task()
            assert connection is not None
            self._connections.add(connection)
            try:
                while (request := await _read(reader)) is not None:
                    writer.write(await host.answer(request))
                    await writer.drain()
            except (OSError, ValueError, asyncio.CancelledError):
                pass  # the host is gone, speaks no HTTP, or the cluster ends: either way there is nobody to answer
            finally:
                writer.close()
                self._connections.discard(connection)

        host.server = await asyncio.start_server(talk, "127.0.0.1", 0)
        self._hosts[name] = host
        port: int = host.server.sockets[0].getsockname()[1]
        return port


class _Request(NamedTuple):
    key: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]


async def _read(reader: asyncio.StreamReader) -> _Request | None:
    """Return the next request of a connection, or None when it is at its end.

    Raises:
        ValueError: that is no HTTP.
    """
    first = (await reader.readline()).decode("latin-1").split()
    if not first:
        return None
    _method, target, _version = first
    headers: dict[str, str] = {}
    for _ in range(_HEADERS_MAX):
        name, _, value = (await reader.readline()).decode("latin-1").partition(":")
        if not name.strip():
            break
        headers[name.strip().lower()] = value.strip()
    url = urlsplit(target)
    return _Request(url.path.removeprefix(_PREFIX), parse_qs(url.query), headers)


class _Host:
    """The values of one host."""

    server: asyncio.Server

    def __init__(self) -> None:
        self._values = dict(_QUIET)
        self._tags = dict.fromkeys(_QUIET, 1)
        self._changed = asyncio.Condition()

    def set(self, key: str, value: str) -> None:
        if self._values[key] != value:
            self._values[key] = value
            self._tags[key] += 1
            self._wake = asyncio.ensure_future(self._notify())

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def answer(self, request: _Request) -> bytes:
        if request.headers.get("metadata-flavor") != "Google":
            return _response("403 Forbidden", "")
        key, query = request.key, request.query
        if key not in self._values:
            return _response("404 Not Found", "")
        if query.get("wait_for_change") == ["true"]:
            known = query.get("last_etag", [f"{self._tags[key]:x}"])[0]
            hold_s = min(_HOLD_MAX_S, float(query.get("timeout_sec", [_HOLD_MAX_S])[0]))
            await self._other_than(key, known, hold_s)
        return _response("200 OK", self._values[key], f"{self._tags[key]:x}")

    async def _other_than(self, key: str, known: str, within_s: float) -> None:
        async def wait() -> None:
            async with self._changed:
                await self._changed.wait_for(lambda: f"{self._tags[key]:x}" != known)

        try:
            await asyncio.wait_for(wait(), within_s)
        except TimeoutError:
            return


def _response(status: str, body: str, tag: str = "") -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        "Metadata-Flavor: Google",
        "Content-Type: application/text",
        f"Content-Length: {len(body)}",
        *([f"ETag: {tag}"] if tag else []),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("latin-1")
