"""Those who follow what one fleet records: the log, the metrics, the user's callbacks; begun and ended together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from sliceform.controller.follow.callbacks import Callback
from sliceform.controller.follow.follower import Batch, Follower
from sliceform.controller.follow.log import ChangeLog
from sliceform.controller.follow.metrics import EVERY_S, Measures, Seen
from sliceform.controller.model.metrics import Meter
from sliceform.states import History


class Followers:
    """Owns a `Follower`, and so a thread, for each consumer; may be used by any thread, a callback's among them."""

    def __init__(self, history: History, published: threading.Condition, label: str) -> None:
        """Take whom to follow; the log does so from the beginning."""
        self._history = history
        self._published = published
        self._label = label
        self._lock = threading.Lock()
        self._followers: list[Follower] = []
        self._callbacks: dict[Callback, Follower] = {}
        self._called_back = 0
        self._measures: Measures | None = None
        self._started = False
        self.add(ChangeLog(label), "log")

    def add(self, consume: Callable[[Batch], None], name: str, *, every_s: float | None = None) -> Follower:
        """Have a consumer see all that is recorded from now on, until the end; see `Follower`."""
        follower = Follower(self._history, self._published, consume, name=name, every_s=every_s)
        with self._lock:
            self._followers.append(follower)
            if self._started:
                follower.start()
        return follower

    def measure(self, meter: Meter, look: Callable[[], Seen]) -> None:
        """Measure the fleet from now on."""
        self._measures = Measures(meter, self._label, look)
        self.add(self._measures.consume, "metrics", every_s=EVERY_S)

    def call_back(self, fn: Callable[[Any], Any], values: Callable[[Batch], Iterable[Any]]) -> Callback:
        """Call a function of the user's with all that is recorded from now on, on a thread of its own.

        Raises:
            ConfigurationError: it is not a plain function.

        """
        callback = Callback(fn, values, self._label, self._removed)
        self._called_back += 1
        self._callbacks[callback] = self.add(callback.consume, f"callback-{self._called_back}")
        return callback

    def start(self) -> None:
        """Begin; who is added later begins at once."""
        with self._lock:
            self._started = True
            for follower in self._followers:
                follower.start()

    @property
    def current(self) -> bool:
        """Whether the caller runs on a thread of one of them: in a callback, say."""
        return any(follower.current for follower in list(self._followers))

    def stop(self, timeout_s: float) -> None:
        """Have all finish, side by side, and wait at most so many seconds; a callback that hangs gets no more calls."""
        followers = list(self._followers)
        for follower in followers:
            follower.end()
        end = time.monotonic() + timeout_s
        for follower in followers:
            follower.stop(max(0.0, end - time.monotonic()))
        for callback in list(self._callbacks):
            callback.remove()
        if self._measures is not None:
            self._measures.close()

    def _removed(self, callback: Callback) -> None:
        follower = self._callbacks.pop(callback, None)
        if follower is not None:
            with self._lock:
                self._followers.remove(follower)
            follower.end()
