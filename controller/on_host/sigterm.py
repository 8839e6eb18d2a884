"""Catch SIGTERM on the agent, which says that its host is being shut down, before Ray ends the agent for it.

Ray runs an async actor's methods beside the main thread, and only the main thread may install a handler. But it loads
the actor's class there: `Term` travels inside that class, and installs its handler when it is unpickled. This file
travels by value with it.

Best effort. Ray's own handler follows, and the agent ends as it would have; so this leaves work no time, it only tells
a host that was taken away from an agent that died. It also ends the call for notices that is held open, which Ray would
let finish first. A raylet that ends takes its agents along without this signal.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

#: How long the agent may take to pass the signal on to the driver, or to be asked for notices at all, seconds.
_TELL_S = 0.5


class Term:
    """Calls whoever heeds the signal when it comes; installed where it is unpickled."""

    def __init__(self) -> None:
        """Wait for both."""
        self._came = False
        self._heed: Callable[[], None] | None = None

    def heed(self, call: Callable[[], None]) -> None:
        """Let `call` be called when the signal comes, or now if it has come."""
        self._heed = call
        if self._came:
            call()

    def come(self) -> None:
        """Note that the signal came; leave the agent the time to pass it on."""
        self._came = True
        if self._heed is not None:
            self._heed()
        time.sleep(_TELL_S)

    def __reduce__(self) -> tuple[Any, ...]:
        """Become a new one that is installed."""
        return caught, ()


def caught() -> Term:
    """Install a handler in front of the one that is there, if this is the main thread."""
    term = Term()
    before = signal.getsignal(signal.SIGTERM)

    def handle(number: int, frame: FrameType | None) -> None:
        term.come()
        if callable(before):
            before(number, frame)
        elif before is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    try:
        signal.signal(signal.SIGTERM, handle)
    except ValueError as error:
        logging.getLogger("sliceform.on_host").debug("SIGTERM cannot be caught here: %r", error)
    return term
