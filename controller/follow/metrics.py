"""Measure a fleet from what is recorded and published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import structlog

from sliceform.controller.follow.attempt_steps import Once
from sliceform.controller.follow.follower import Batch
from sliceform.controller.follow.waits import Waits
from sliceform.controller.model.metrics import (
    ATTEMPTS,
    DESIRED,
    EFFECTS,
    HOSTS,
    MISSED,
    NOTES,
    READY,
    RUNS,
    SIZE,
    SLICES,
    TICK,
    TICK_ERRORS,
    TO_PLACE,
    TO_READY,
    TO_REPLACE,
    TRANSITIONS,
    Meter,
    Metric,
)
from sliceform.controller.model.status import FleetStatus, SliceStatus
from sliceform.states.history import Change
from sliceform.states.history.run_stories import end_of_run
from sliceform.states.hosts import HostState
from sliceform.states.slices import SliceState

log = structlog.get_logger(__name__)

#: How often all is measured, seconds: scrapes are rarer.
EVERY_S = 1.0

_TOOK = {"place": TO_PLACE, "ready": TO_READY, "replace": TO_REPLACE}


class Seen(NamedTuple):
    """What is looked at beside the changes."""

    status: FleetStatus
    #: How long the ticks since the last look took, seconds.
    ticks: tuple[float, ...]
    #: Ticks that raised, since the start.
    tick_errors: int


class Measures:
    """Turns batches into measurements; used by one thread, but for `close`."""

    def __init__(self, meter: Meter, label: str, look: Callable[[], Seen]) -> None:
        """Take where measurements go, the fleet's label, and how to look at it."""
        self._meter = meter
        self._fleet = {"fleet": label}
        self._look = look
        self._waits = Waits()
        #: Attempts that are counted: one that is charged anew stays what it was first, for nothing takes a count back.
        self._ended = Once()
        #: By metric and state: what a gauge shows.
        self._shown: dict[tuple[Metric, str], float] = {}
        self._rows: tuple[SliceStatus, ...] = ()
        self._host_states: Counter[str | None] = Counter()
        self._tick_errors = 0
        self._closed = False
        #: Measurements that could not be recorded.
        self.errors = 0

    def consume(self, batch: Batch) -> None:
        """Measure what is new, and how things stand."""
        if self._closed:
            return
        if batch.missed:
            self._record(MISSED, batch.missed)
            # What began before the gap may have ended in it.
            self._waits = Waits()
        self._count(batch)
        seen = self._look()
        for seconds in seen.ticks:
            self._record(TICK, seconds)
        if seen.tick_errors > self._tick_errors:
            self._record(TICK_ERRORS, seen.tick_errors - self._tick_errors)
            self._tick_errors = seen.tick_errors
        self._show(seen.status)

    def close(self) -> None:
        """Show a fleet without slices: a gauge that is left alone keeps its last value as long as the process lives."""
        self._closed = True
        for (metric, state), value in list(self._shown.items()):
            if value:
                self._set(metric, 0, state)

    def _count(self, batch: Batch) -> None:
        counts: Counter[tuple[Metric, tuple[str, ...]]] = Counter()
        for change in batch.changes:
            counts[_counted(change)] += 1
            if change.ends_run:
                counts[RUNS, (end_of_run(change),)] += 1
            for took in self._waits.of(change):
                self._record(_TOOK[took.what], took.seconds)
        for attempt in batch.attempts:
            if attempt.outcome is not None and self._ended.first(attempt.key):
                counts[ATTEMPTS, (attempt.outcome,)] += 1
        for (metric, values), count in counts.items():
            self._record(metric, count, *values)

    def _show(self, status: FleetStatus) -> None:
        if status.slices is not self._rows:
            self._rows = status.slices
            self._host_states = Counter(host.state for row in status.slices for host in row.hosts)
        for slice_state in SliceState:
            self._set(SLICES, status.counts.get(slice_state, 0), slice_state)
        for host_state in HostState:
            self._set(HOSTS, self._host_states[host_state], host_state)
        self._set(DESIRED, max(status.sizes) + status.spares)
        self._set(READY, status.ready)
        self._set(SIZE, status.size)
        self._set(EFFECTS, status.effects_in_flight)

    def _set(self, metric: Metric, value: float, state: str = "") -> None:
        """Show a value, unless it is shown already."""
        if self._shown.get((metric, state)) != value:
            self._shown[metric, state] = value
            self._record(metric, value, *([state] if state else []))

    def _record(self, metric: Metric, value: float, *values: str) -> None:
        """Record one measurement; one that fails is logged, with a back-off, and the others go on."""
        try:
            self._meter.record(metric, value, {**self._fleet, **dict(zip(metric.tags, values, strict=True))})
        except Exception:
            self.errors += 1
            if self.errors.bit_count() == 1:
                log.exception("metric_not_recorded", metric=metric.name, errors=self.errors, **self._fleet)


def _counted(change: Change) -> tuple[Metric, tuple[str, ...]]:
    if change.trigger is None:
        return NOTES, (change.kind, change.reason)
    return TRANSITIONS, (change.kind, change.trigger, change.reason)
