"""Hear every agent: exactly one call is open to each, answered after a beat or failed when the agent goes.

A thread of its own, so that a slow call to the GCS never looks like silence.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import structlog

from sliceform.controller.model.backend import Sink
from sliceform.controller.ray_backend.lives import AgentHandle
from sliceform.controller.ray_backend.session import Answer

log = structlog.get_logger(__name__)

Heard = tuple[AgentHandle, Answer]


class Beats:
    """Opens calls, reports answers as beats and hands failures on."""

    def __init__(self, sink: Sink, beat_s: float, failed: Callable[[AgentHandle, BaseException], None]) -> None:
        """Take where to report, the beat in seconds, and whom to tell of a call that failed (on this thread)."""
        self._sink = sink
        self._beat_s = beat_s
        self._failed = failed
        self._heard: queue.SimpleQueue[Heard | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sliceform-beats", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def open(self, agent: AgentHandle) -> None:
        """Open the call to an agent that has none; after a failure, open it again."""
        if agent.serves:
            future = agent.actor.beat.remote(self._beat_s).future()
            future.add_done_callback(lambda answer: self._heard.put((agent, answer)))

    def stop(self, timeout_s: float) -> bool:
        """End the thread; return whether it ended in time."""
        self._heard.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (heard := self._heard.get()) is not None:
            agent, answer = heard
            if not agent.serves:
                continue
            try:
                self._take(agent, answer)
            except Exception as error:
                log.exception("beat_failed", slice=agent.slice_id, rank=agent.rank)
                self._failed(agent, error)

    def _take(self, agent: AgentHandle, answer: Answer) -> None:
        error = answer.exception()
        if error is not None:
            self._failed(agent, error)
            return
        agent.unreached = 0
        self._sink.beat(agent.slice_id, agent.rank, raylet_ok=bool(answer.result()))
        self.open(agent)
