"""End the attempts of this host when nobody may count on them any more, though the agent's own loop may be stuck.

The driver begins the next attempt once it knows that nothing of the last one is left on a host: from the answer at
this host's door, from ports that its kernel has closed, or because the host was not heard for a time (the fence).
Before that time is over the work here must have ended by itself, which is seen to here, on threads, by this host's own
clock.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from sliceform.controller.on_host import cleanup
from sliceform.controller.on_host.attempt_folder import Channel
from sliceform.controller.on_host.ports import alive_at, listen

log = logging.getLogger("sliceform.on_host")

#: How often it looks, seconds: a host that stood still is noticed so long after it goes on.
_LOOK_S = 0.05
#: How long the GCS may take to accept a connection, and how often that is tried, seconds.
_GCS_S = 1.0
#: How long whoever comes to the door may take to say what for, seconds.
_ASK_S = 5.0
_LONGEST_ASK = 4_096


class Guard:
    """Watches over the attempts in the folder of one agent."""

    def __init__(
        self, folder: Path, fence_s: float, raylet_gone: Callable[[], bool], gcs: tuple[str, int] | None
    ) -> None:
        """Take the agent's folder, the fence in seconds, and how to learn of Ray's end; `start` begins.

        `gcs` is where the cluster's GCS listens; None if nobody knows.
        """
        self._folder = folder
        self.fence_s = fence_s
        self._raylet_gone = raylet_gone
        self._gcs = gcs
        self._tried = self._sign = time.monotonic()
        self._alive = alive_at(0)
        self._door = listen()

    @property
    def ports(self) -> dict[str, int]:
        """`door`: where the driver asks for the end of an attempt; `alive`: closed when agent and work are gone."""
        return {"door": self._door.getsockname()[1], "alive": self._alive.getsockname()[1]}

    def heard(self) -> None:
        """Note that the driver has called."""
        self._sign = time.monotonic()

    def start(self) -> None:
        """Watch until this process ends."""
        for name, run in (("watch", self._watch), ("door", self._answer_all)):
            threading.Thread(target=run, name=f"sliceform-{name}", daemon=True).start()

    def _watch(self) -> None:
        seen = time.monotonic()
        while True:
            time.sleep(_LOOK_S)
            now = time.monotonic()
            why = self._over(now, now - seen)
            if why:
                log.warning("ending all work on this host: %s", why)
                self._end_all(why)
                self._sign = time.monotonic()
                if self._raylet_gone():
                    return  # nothing can begin here any more
            seen = time.monotonic()

    def _over(self, now: float, since_s: float) -> str:
        """Say why work here must end; empty if it may go on. `since_s` seconds have passed since the last look."""
        if since_s > self.fence_s / 2:
            return f"it stood still for {since_s:.1f} s"
        if self._raylet_gone():
            return "its raylet is gone"
        # A driver that calls is sign enough; the GCS is asked in time to have been tried several times.
        if now - self._sign > self.fence_s / 4 and now - self._tried > _GCS_S:
            self._tried = now
            if self._gcs_answers():
                self._sign = time.monotonic()
        silent_s = time.monotonic() - self._sign
        return f"neither the driver nor the GCS was heard for {silent_s:.1f} s" if silent_s > self.fence_s / 2 else ""

    def _gcs_answers(self) -> bool:
        if self._gcs is None:
            return False
        try:
            socket.create_connection(self._gcs, timeout=_GCS_S).close()
        except OSError as error:
            log.info("the GCS does not answer: %r", error)
            return False
        return True

    def _end_all(self, why: str) -> None:
        for folder in cleanup.folders(self._folder):
            channel = Channel.at(folder)
            channel.cut(why)
            self._end(channel)

    def _end(self, channel: Channel) -> bool:
        """End an attempt for good; return whether nothing of it is left."""
        channel.bury()
        try:
            asyncio.run(cleanup.kill(channel))
        except TimeoutError as error:
            log.warning("not all work has ended: %s", error)
            return False
        return True

    def _answer_all(self) -> None:
        while True:
            connection, _ = self._door.accept()
            with connection:
                try:
                    self._answer(connection)
                except (OSError, UnicodeDecodeError) as error:
                    log.info("nobody at the door: %r", error)

    def _answer(self, connection: socket.socket) -> None:
        """Take the mark of an attempt of this agent's, end it, and say `clear`."""
        connection.settimeout(_ASK_S)
        mark = connection.makefile("r", encoding="ascii").readline(_LONGEST_ASK).strip()
        channel = Channel.at(self._folder / mark.rpartition("/")[2])
        if channel.mark != mark:
            log.warning("somebody asked for the end of %r", mark)
        elif self._end(channel):
            connection.sendall(b"clear\n")
