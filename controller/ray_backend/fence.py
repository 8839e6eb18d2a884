"""Find out of a host whether nothing of an attempt is left on it, past Ray: whom Ray has given up may well live on.

Three ways: the agent answers at its door that it has ended the attempt; the kernel of that machine refuses connections
to the raylet, the agent and the attempt's process, so all of them are gone; or the agent alone is gone, and a task on
that node ends what it left. If none leads anywhere, time decides, elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

import structlog
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

log = structlog.get_logger(__name__)

#: How long one connection may take, and how soon it is tried again, seconds.
_CONNECT_S = 1.0
_AGAIN_S = 0.25
#: How long a task that ends what an agent left may take, seconds.
_SWEEP_S = 30.0


class Verdict(Enum):
    """What was found out."""

    CLEAR = "clear"
    DIED = "died"
    UNKNOWN = "unknown"


class Host(NamedTuple):
    """Where something of an attempt may be left."""

    node_id: str
    address: str
    #: Ports of its agent; see `on_host.guard.Guard.ports`.
    door: int
    alive: int
    raylet: tuple[str, int] | None
    #: Controller, host and attempt, as the folder of the attempt on the host is named.
    mark: str


class Fences:
    """Asks many hosts at a time, on one thread of its own."""

    def __init__(self, clear_host: Any, within_s: float) -> None:
        """Take the remote function that ends what an agent left, and how long to ask a host, seconds."""
        self._clear_host = clear_host
        self._within_s = within_s
        self._loop = asyncio.new_event_loop()
        self._asking: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="sliceform-fence", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Drop what is not found out yet, and end the thread; return whether it ended in time."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def ask(self, host: Host, then: Callable[[Verdict], None]) -> None:
        """Call `then`, on this thread, once it is known what became of an attempt on a host, or will not be."""
        self._loop.call_soon_threadsafe(self._begin, host, then)

    def _run(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            for task in self._asking:
                task.cancel()
            if self._asking:
                self._loop.run_until_complete(asyncio.wait(self._asking))
            self._loop.close()

    def _begin(self, host: Host, then: Callable[[Verdict], None]) -> None:
        task = self._loop.create_task(self._find_out(host, then))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _find_out(self, host: Host, then: Callable[[Verdict], None]) -> None:
        verdict = Verdict.UNKNOWN
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._within_s):
                verdict = await self._until_known(host)
        log.info("host_fenced", mark=host.mark, verdict=verdict.value)
        then(verdict)

    async def _until_known(self, host: Host) -> Verdict:
        while True:
            answer = await _ask(host)
            if answer == "clear":
                return Verdict.CLEAR
            if answer == "refused":
                raylet = "unknown" if host.raylet is None else await _knock(*host.raylet)
                # In this order: who begins to listen late looks for the raylet afterwards; see `on_host.process`.
                if raylet == "refused" and await _knock(host.address, host.alive) == "refused":
                    return Verdict.DIED
                if raylet == "open" and await self._sweep(host):
                    return Verdict.CLEAR
            await asyncio.sleep(_AGAIN_S)

    async def _sweep(self, host: Host) -> bool:
        """End what an agent that is gone has left on a node that lives; return whether that was done."""
        try:
            strategy = NodeAffinitySchedulingStrategy(host.node_id, soft=False)
            async with asyncio.timeout(_SWEEP_S):
                ref = self._clear_host.options(scheduling_strategy=strategy).remote(host.mark)
                await asyncio.wrap_future(ref.future())
        except Exception as error:  # noqa: BLE001 - whatever Ray raises, it is tried again
            log.info("host_not_swept", mark=host.mark, cause=repr(error))
            return False
        return True


async def _ask(host: Host) -> str:
    """Ask at the agent's door for the end of an attempt; return `clear`, `refused` or why there is no answer."""
    try:
        async with asyncio.timeout(_CONNECT_S):
            reader, writer = await asyncio.open_connection(host.address, host.door)
    except ConnectionRefusedError:
        return "refused"
    except OSError as error:  # a time-out is one
        return repr(error)
    try:
        writer.write(f"{host.mark}\n".encode())
        # A host that stands still answers when it goes on: the caller bounds this.
        return (await reader.readline()).decode(errors="replace").strip()
    except OSError as error:
        return repr(error)
    finally:
        writer.close()


async def _knock(address: str, port: int) -> str:
    """Return whether a port is `open` or `refused`, or why neither is known."""
    try:
        async with asyncio.timeout(_CONNECT_S):
            _, writer = await asyncio.open_connection(address, port)
    except ConnectionRefusedError:
        return "refused"
    except OSError as error:
        return repr(error)
    writer.close()
    return "open"
