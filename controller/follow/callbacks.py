"""Functions of the user's that are told of changes or attempts, each on a thread of its own."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from sliceform.controller.errors import ConfigurationError
from sliceform.controller.follow.follower import Batch

log = structlog.get_logger(__name__)


class Callback:
    """One such function: removes it, and counts what went wrong with it."""

    def __init__(
        self,
        fn: Callable[[Any], Any],
        values: Callable[[Batch], Iterable[Any]],
        label: str,
        removed: Callable[[Callback], None],
    ) -> None:
        """Take what is called; nothing is called yet.

        Args:
            fn: takes one value.
            values: what to call it with, from a batch.
            label: of the fleet, for the log.
            removed: told when it is not wanted any more.

        Raises:
            ConfigurationError: `fn` cannot be called so.

        """
        if not callable(fn) or inspect.iscoroutinefunction(fn):  # type: ignore[redundant-expr]
            raise ConfigurationError(f"a callback must be a plain function of one argument, not {fn!r}")
        self._fn = fn
        self._values = values
        self._told = removed
        self._removed = threading.Event()
        self._log = log.bind(fleet=label, callback=getattr(fn, "__qualname__", repr(fn)))
        #: Calls that raised.
        self.errors = 0
        #: Changes that the history forgot before the function came to them.
        self.missed = 0

    def remove(self) -> None:
        """Call it no more; a call that is under way goes on. May be called anywhere, and again."""
        self._removed.set()
        self._told(self)

    def consume(self, batch: Batch) -> None:
        """Call the function with all that is new, on the thread that follows the history."""
        if batch.missed:
            self.missed += batch.missed
            self._log.warning("callback_missed", missed=batch.missed, missed_so_far=self.missed)
        for value in self._values(batch):
            if self._removed.is_set():
                return
            self._call(value)

    def _call(self, value: Any) -> None:
        try:
            self._fn(value)
        except (Exception, SystemExit):  # noqa: BLE001 - logged, though not every time
            # SystemExit, too: it would end the thread, and the function would never be called again.
            self.errors += 1
            # The first, the second, the fourth and so on: one that always fails does not flood the log.
            if self.errors.bit_count() == 1:
                self._log.exception("callback_failed", errors=self.errors)
