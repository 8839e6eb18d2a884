"""A pool that is open: its fleet, the calls made to its slices, and the thread that answers them."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from uuid import uuid4

import structlog

from sliceform.controller.api.controller import SliceController
from sliceform.controller.api.run import Run
from sliceform.controller.api.work import Submitter
from sliceform.controller.compat.calls import Call, join
from sliceform.controller.compat.refs import Promise, Refs
from sliceform.controller.compat.slice_work import SliceWork, gone
from sliceform.controller.model.run_options import RunOptions
from sliceform.controller.model.status import FleetStatus, SliceStatus

log = structlog.get_logger(__name__)

#: How long the thread waits for the fleet to change before it looks again, seconds.
_LOOK_S = 0.1
#: Pause after a look that raised, seconds.
_AFTER_ERROR_S = 0.5
#: How long the thread may take to end, seconds.
_END_S = 10.0

#: Pools that are open in this process, by token: handles that went through `ray.get` find theirs again.
_open: weakref.WeakValueDictionary[str, Desk] = weakref.WeakValueDictionary()


def find(token: str) -> Desk | None:
    """Return the open pool with this token; None if it was drained, or belongs to another process."""
    return _open.get(token)


class Desk:
    """Takes calls and answers them; made when a pool is first scaled, closed when it is drained."""

    def __init__(self, fleet: SliceController) -> None:
        """Begin to serve a fleet that was started."""
        self.fleet = fleet
        self.token = uuid4().hex
        self.refs = Refs(self._dropped)
        self._works: dict[str, SliceWork] = {}
        self._lock = threading.RLock()
        #: Set as long as anybody waits for an answer.
        self._asked = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="sliceform-compat", daemon=True)
        self._thread.start()
        _open[self.token] = self

    def row(self, slice_id: str) -> SliceStatus | None:
        """Return a slice as it stands; None if it is no more."""
        return next((row for row in self.fleet.status().slices if row.id == slice_id), None)

    def failed(self, slice_id: str) -> Any:
        """Return a reference that says why a slice takes no work."""
        promise = self.refs.promise()
        self.refs.fail(promise, gone(slice_id, self.row(slice_id)))
        return promise.ref

    def call(self, slice_id: str, rank: int, call: Call) -> Promise:
        """Take a call to one host.

        Raises:
            ConfigurationError: it cannot run together with the calls to the other hosts of its slice.

        """
        with self._lock:
            promise = self._work(slice_id).call(rank, call, time.monotonic())
            self._asked.set()
        return promise

    def cancel(self, slice_id: str, rank: int) -> Any:
        """End what a host runs; return a reference that is there once its processes are gone."""
        with self._lock:
            work = self._work(slice_id)
            if not work.cancel(rank):
                return self.refs.value(None)
            promise = self.refs.promise()
            work.when_idle(promise)
            self._asked.set()
        return promise.ref

    def drain(self, slice_id: str) -> Any:
        """Let a slice go; return a reference that is there once it is gone."""
        with self._lock:
            if self.row(slice_id) is None:
                return self.refs.value(None)
            self.fleet.drain(slice_id)
            promise = self.refs.promise()
            self._work(slice_id).when_released(promise)
            self._asked.set()
        return promise.ref

    def wait(self, done: Callable[[FleetStatus], bool], timeout_s: float) -> None:
        """Wait until the fleet's status satisfies `done`, or the pool is drained, at most `timeout_s` seconds."""
        drive = self.fleet._opened()  # noqa: SLF001 - the fleet's own way of waiting
        drive.wait(lambda status: done(status) or self._stopping.is_set(), timeout_s)

    def look(self) -> None:
        """Start what is due and answer what is known."""
        rows = {row.id: row for row in self.fleet.status().slices}
        with self._lock:
            works = list(self._works.values())
            for slice_id, work in self._works.items():
                work.look(rows.get(slice_id), time.monotonic())
            broken = {world for work in works for world in work.broken}
            for work in works:
                work.leave(broken)
                work.broken.clear()
            self._works = {slice_id: work for slice_id, work in self._works.items() if work.busy}
            if not self._works:
                self._asked.clear()

    def close(self) -> None:
        """Fail what is not answered yet, let the fleet go, and end the thread."""
        with self._lock:
            for work in self._works.values():
                work.abandon("the pool was drained")
            self._works.clear()
        try:
            self.fleet.close()
        finally:
            self._stopping.set()
            self._asked.set()
            self._thread.join(_END_S)
            if self._thread.is_alive():
                log.warning("compat_thread_left_running", limit_s=_END_S)
            self.refs.close()
            _open.pop(self.token, None)

    def _work(self, slice_id: str) -> SliceWork:
        if slice_id not in self._works:
            self._works[slice_id] = SliceWork(slice_id, self.fleet.shape.hosts, self.refs, self._submit)
        return self._works[slice_id]

    def _submit(self, slice_id: str, calls: Mapping[int, Call]) -> Run:
        function, args = join(calls)
        runtime_env = next(iter(calls.values())).runtime_env
        options = RunOptions(
            sizes=(1,), max_preemptions=0, max_failures=0, runtime_env=runtime_env or None, pinned=(slice_id,)
        )
        return Submitter(self.fleet, options).submit(function, *args)

    def _dropped(self, number: int) -> None:
        with self._lock:
            for work in self._works.values():
                work.dropped(number)

    def _loop(self) -> None:
        while not self._stopping.is_set():
            self._asked.wait()
            seen = self.fleet.status().tick
            self.wait(partial(_ticked, seen), _LOOK_S)
            try:
                self.look()
            except Exception:
                log.exception("compat_look_failed", pool=self.token)
                self._stopping.wait(_AFTER_ERROR_S)


def _ticked(seen: int, status: FleetStatus) -> bool:
    return status.tick != seen
