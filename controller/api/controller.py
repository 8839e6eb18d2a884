"""`SliceController`: what users embed in their driver process."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sliceform.controller.api.opened import not_negative
from sliceform.controller.api.telling import Telling
from sliceform.controller.errors import (
    ConfigurationError,
    InsufficientSlicesError,
    UnknownSliceError,
)
from sliceform.controller.follow.journal.tally import Wish
from sliceform.controller.model.backend import Backend
from sliceform.controller.model.clock import Clock, SystemClock
from sliceform.controller.model.orders import Allow, Avoid, Drain, Scale
from sliceform.controller.model.settings import Settings
from sliceform.controller.model.shapes import SliceShape
from sliceform.controller.model.sizes import Desired, parse_sizes
from sliceform.controller.model.status import FleetStatus, SliceStatus

if TYPE_CHECKING:
    pass

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class SliceController(Telling):
    """Keeps a fleet of slices alive and runs functions on all of their hosts.

    Use it as a context manager: leaving the body waits for the runs that were submitted, an exception cancels them, and
    either way everything that was reserved is let go.
    """

    def __init__(
        self,
        shape: SliceShape,
        slices: int | Iterable[int] = 1,
        *,
        spares: int = 0,
        name: str | None = None,
        settings: Settings | None = None,
        journal: str | os.PathLike[str] | None = None,
        record: str | os.PathLike[str] | None = None,
        notice_source: Callable[[], bool | float | None] | None = None,
        backend: Backend | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Say what is wanted; nothing is asked of the cluster before `start` (or the first `step`).

        Args:
            shape: what every slice looks like.
            slices: how many, or several valid sizes such as `[2, 4, 8]`: the largest is aimed for, the largest reached
                is used.
            spares: slices to keep ready beyond the size.
            name: guards against a second controller with the same name on one cluster; without it there is no guard.
            settings: times and limits; by default from the environment.
            journal: file that the history is written to, for `sliceform history` and `open_journal`; one that exists
                is continued. By default there is none.
            record: file that all is appended to that the fleet goes by and decides, for `sliceform replay`: with it a
                fault can be reported. Nothing of work, arguments, results and values of environments is in it. By
                default there is none.
            notice_source: called on every host every `settings.notice_every_s` seconds, on a thread, as one more source
                of preemption notices: None or False is no notice, True one without a deadline, a number its deadline in
                epoch seconds. What it raises is logged there and changes nothing. It is pickled by `start`, which
                raises `UnpicklableFunctionError` if that cannot be done; simulated hosts do not call it.
            backend: where slices come from; by default the process's Ray connection, else `ray.init(address="auto")`.
            clock: the time; by default the machine's.

        Raises:
            ValueError: one of them cannot work.

        """
        if not isinstance(shape, SliceShape):
            raise ConfigurationError(f"shape must be a TpuSlice, GpuSlice or CpuSlice, not {shape!r}")
        if name is not None and not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"name {name!r} must be 1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit"
            )
        if notice_source is not None and not callable(notice_source):
            raise ConfigurationError(f"notice_source must be a function without arguments, not {notice_source!r}")
        super().__init__(
            shape=shape,
            desired=Desired(parse_sizes(slices), spares),
            settings=settings or Settings(),
            name=name,
            journal=_resolved(journal),
            record=_resolved(record),
            notice_source=notice_source,
            backend=backend,
            clock=clock or SystemClock(),
        )

    def __repr__(self) -> str:
        """Say what is wanted, and what there is after the last tick; asks nobody."""
        wanted = "/".join(map(str, self._desired.sizes))
        if self._closed or self._drive is None:
            there = "closed" if self._closed else "not started"
        else:
            counts = self._drive.loop.status.counts.items()
            there = ", ".join(f"{count} {state}" for state, count in counts) or "no slices"
        return f"<SliceController {self._identity.label}: {wanted} x {self.shape}; {there}>"

    # What is wanted.

    def scale(self, slices: int | Iterable[int], spares: int | None = None) -> None:
        """Change how many slices are wanted; what need not change is not touched, and what runs goes on.

        Raises:
            ValueError: the number or the sizes cannot work; nothing has changed.
            FleetClosedError: it was closed.

        """
        sizes = parse_sizes(slices)
        with self._lock:
            self._check_open()
            kept = self._desired.spares if spares is None else spares
            self._desired = Desired(sizes, kept)
            self._wish = Wish(self._clock.epoch(), sizes, kept)
            self._opened().order(Scale(sizes, kept))

    def drain(self, slice_id: str, deadline_s: float | None = None) -> None:
        """Take a slice out of use and let it go; it is replaced. Work on it has `deadline_s` seconds to stop.

        Asked again, it has only ever less.

        Raises:
            UnknownSliceError: there is no such slice.
            FleetClosedError: it was closed.

        """
        grace = self.settings.drain_grace_s if deadline_s is None else not_negative("deadline_s", deadline_s)
        with self._lock:
            self._check_open()
            self._row(slice_id)
            self._opened().order(Drain(slice_id, grace))

    def avoid(self, place: str, for_s: float | None = None, reason: str = "") -> None:
        """Reserve nothing at a place from now on; slices that are there already stay.

        Args:
            place: the name of a TPU slice, or the id of a node elsewhere, as `places` has it; it need not be there yet.
            for_s: for how long, seconds; None = until `allow`.
            reason: why, for `why`, `places` and the history.

        Raises:
            ValueError: it is no name of a place, or no time.
            FleetClosedError: it was closed.

        """
        span = None if for_s is None else not_negative("for_s", for_s)
        self._order(Avoid(_place(place), span, reason))

    def allow(self, place: str) -> None:
        """Reserve at a place again, whatever has been kept against it: an order, a loss, or failures.

        Raises:
            ValueError: it is no name of a place.
            FleetClosedError: it was closed.

        """
        self._order(Allow(_place(place)))

    # What there is.

    def wait_ready(self, n: int | None = None, timeout_s: float | None = None) -> FleetStatus:
        """Wait until `n` slices are ready, by default the smallest valid size.

        Raises:
            InsufficientSlicesError: fewer are ready after `timeout_s` seconds; says why for every one that is missing.
            FleetClosedError: it was closed, or is while it is waited for.
            ValueError: more are asked for than the fleet aims for.

        """
        self._check_open()
        wanted = self._desired.smallest if n is None else n
        if type(wanted) is not int or not 1 <= wanted <= self._desired.target:
            raise ConfigurationError(
                f"wait_ready({n!r}): the fleet aims for {self._desired.target} slices; ask for 1 to that many, or scale"
            )
        enough = self._opened().wait(lambda status: self._closed or status.ready >= wanted, timeout_s)
        self._check_open()
        if not enough:
            why = self.why()
            reasons = {row.key: str(row) for row in why.slices if row.state in {"pending", "placed"}}
            raise InsufficientSlicesError(wanted, self.status().ready, reasons)
        return self.status()

    def step(self) -> float:
        """Do one tick on the caller's thread; for those who drive the loop themselves.

        Returns:
            After how many seconds to call it again at the latest.

        Raises:
            ConfigurationError: the fleet was started, and ticks by itself.
            FleetClosedError: it was closed.

        """
        self._check_open()
        if self._ticks():
            raise ConfigurationError("step() drives a fleet that was not started; this one ticks by itself")
        return self._loop.tick()

    def _row(self, slice_id: str) -> SliceStatus:
        rows = {row.id: row for row in self.status().slices}
        if slice_id not in rows:
            raise UnknownSliceError(slice_id, rows)
        return rows[slice_id]


def _place(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"a place is the name of a TPU slice or the id of a node, not {name!r}; see places()")
    return name


def _resolved(file: str | os.PathLike[str] | None) -> Path | None:
    """Return which file is meant, whoever changes the working directory later."""
    return None if file is None else Path(os.path.realpath(file))
