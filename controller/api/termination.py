"""What SIGTERM means to the fleets of this process: their work has `close_grace_s` to stop, then all is given back.

`kubectl delete pod` and `ray job stop` send it to the driver. What becomes of the program is decided by the handler
that was there before: Ray's ends it with `SystemExit`, the system's default ends it at once. We only see to it that
work is told as soon as the program is to end, and that the end is not cut short. A handler that returns has dealt with
the signal, and the fleets go on.

Limits: Python lets only the main thread install a handler, and calls it only there, between two of its instructions. A
fleet started on another thread is not told, nor is any while the main thread is in foreign code that does not return.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

#: Beyond the grace, how long fleets may take to give everything back before the system ends the program, seconds.
_MARGIN_S = 60.0


@dataclass(frozen=True, eq=False, slots=True)
class Charge:
    """A fleet, as far as the end of the program is concerned."""

    #: Has work told that it has so many seconds, None = `close_grace_s`; takes no lock and returns at once.
    tell: Callable[[float | None], None]
    #: Closes it, or waits for the close that is under way.
    close: Callable[[], None]
    #: Whether it ticks on a thread of its own, so that another thread may close it.
    ticks: Callable[[], bool]
    #: Its `close_grace_s`, seconds.
    grace_s: float


class Termination:
    """Installs one handler while there are fleets, and puts the one before it back afterwards."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self.charges: list[Charge] = []
        #: SIGTERMs that came while there were fleets.
        self.signals = 0
        self._handler: _Handler | None = None

    def watch(self, charge: Charge) -> None:
        """Tell a fleet of SIGTERM from now on."""
        self.charges.append(charge)
        before = signal.getsignal(signal.SIGTERM)
        # Whoever ignores the signal means to; one installed beneath Python (None) could not be put back.
        if threading.current_thread() is not threading.main_thread() or before in (None, signal.SIG_IGN):
            return
        if not isinstance(before, _Handler):
            self._handler = _Handler(self, before)
            signal.signal(signal.SIGTERM, self._handler)

    def unwatch(self, charge: Charge) -> None:
        """Tell it no more; harmless if it was not watched."""
        if charge in self.charges:
            self.charges.remove(charge)
        if self.charges:
            return
        self.signals = 0
        # Off the main thread it stays, and only passes on. So it does where somebody has put his own over it.
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is self._handler:
            assert self._handler is not None
            signal.signal(signal.SIGTERM, self._handler.before)

    def grace_s(self, error: type[BaseException] | None) -> float | None:
        """Say how long work may go on when the program leaves its fleet like this; None = `close_grace_s`.

        Args:
            error: what ends the program or the fleet's body; None = it ends by itself.

        """
        if error is None:
            return None
        in_peace = self.signals == 1 and not issubclass(error, KeyboardInterrupt)
        return None if in_peace else 0.0

    def leads(self, handler: _Handler) -> bool:
        """Whether this is the handler that deals with the signal, not an older one that somebody still calls."""
        return handler is self._handler and bool(self.charges)

    def tell(self) -> bool:
        """The program is to end: have all work told, let nothing cut the end short; return whether that is news."""
        self.signals += 1
        first = self.signals == 1
        for charge in list(self.charges):
            charge.tell(None if self.signals == 1 else 0.0)
        if not callable(signal.getsignal(signal.SIGALRM)):
            # Armed beneath Python, as by absl's handler in Ray: it would abort the process after 3 s.
            signal.alarm(0)
        # Kept from the beginning: the next signal may have come in the midst of this.
        return first

    def wait(self) -> None:
        """Close the fleets that others may close, and wait for that; a second signal only makes it shorter."""
        charges = [charge for charge in self.charges if charge.ticks()]
        # Not here: the main thread may be in the midst of anything, with any lock.
        closing = [threading.Thread(target=charge.close, name="sliceform-end", daemon=True) for charge in charges]
        for thread in closing:
            thread.start()
        end = time.monotonic() + max((charge.grace_s for charge in charges), default=0.0) + _MARGIN_S
        for thread in closing:
            thread.join(max(0.0, end - time.monotonic()))


class _Handler:
    """The handler, with the one that was there before it."""

    def __init__(self, owner: Termination, before: Callable[[int, FrameType | None], Any] | int) -> None:
        self._owner = owner
        self.before = before
        self._pid = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        # A forked child has the handler, too, but none of the fleets.
        ours = os.getpid() == self._pid and self._owner.leads(self)
        if callable(self.before):
            try:
                self.before(number, frame)
            except BaseException:
                if ours:
                    self._owner.tell()
                raise
            return
        if ours:
            if not self._owner.tell():
                return
            self._owner.wait()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


#: That of this process.
TERMINATION = Termination()
