"""What is measured of a fleet, from what is recorded and published: values only, nothing of Ray.

Names follow the conventions of Prometheus. Every metric has the tag `fleet`; the other tags have a bounded set of
values: never the id of a slice, a node or a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import NamedTuple, Protocol, runtime_checkable

import structlog

from sliceform.controller.follow.attempt_steps import Once
from sliceform.controller.follow.follower import Batch
from sliceform.controller.follow.waits import Waits
from sliceform.controller.reconcile.status import FleetStatus, SliceStatus
from sliceform.states.history import Change
from sliceform.states.history.run_stories import end_of_run
from sliceform.states.hosts import HostState
from sliceform.states.slices import SliceState

log = structlog.get_logger(__name__)

#: How often all is measured, seconds: scrapes are rarer.
EVERY_S = 1.0


class Kind(StrEnum):
    """How the values of a metric add up."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Metric(NamedTuple):
    """One metric."""

    name: str
    kind: Kind
    #: What it says, in a sentence.
    doc: str
    #: Beside `fleet`.
    tags: tuple[str, ...] = ()
    #: Upper bounds of a histogram's buckets.
    buckets: tuple[float, ...] = ()


_WAITS_S = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0)
_TICKS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)

SLICES = Metric("sliceform_slices", Kind.GAUGE, "Slices, by state.", ("state",))
HOSTS = Metric("sliceform_hosts", Kind.GAUGE, "Hosts of slices, by state.", ("state",))
DESIRED = Metric("sliceform_desired_slices", Kind.GAUGE, "Slices aimed for: the largest valid size and the spares.")
READY = Metric("sliceform_ready_slices", Kind.GAUGE, "Slices that are ready or running.")
SIZE = Metric("sliceform_size", Kind.GAUGE, "The largest valid size that the ready slices suffice for; 0 if none.")
EFFECTS = Metric("sliceform_effects_in_flight", Kind.GAUGE, "Things asked of the cluster that have not been seen done.")
TRANSITIONS = Metric(
    "sliceform_transitions_total",
    Kind.COUNTER,
    "Transitions of slices and hosts (`kind`), by what moved them and why.",
    ("kind", "trigger", "reason"),
)
NOTES = Metric(
    "sliceform_notes_total",
    Kind.COUNTER,
    "Things that happened to a slice, host or run (`kind`) without moving it, by reason.",
    ("kind", "reason"),
)
MISSED = Metric(
    "sliceform_changes_missed_total",
    Kind.COUNTER,
    "Changes that the history forgot before they were measured: all counters lack these.",
)
RUNS = Metric("sliceform_runs_total", Kind.COUNTER, "Runs that are over, by outcome.", ("outcome",))
ATTEMPTS = Metric("sliceform_attempts_total", Kind.COUNTER, "Attempts of runs that are over, by outcome.", ("outcome",))
TO_PLACE = Metric(
    "sliceform_time_to_place_seconds", Kind.HISTOGRAM, "From a slice's creation until it is placed.", (), _WAITS_S
)
TO_READY = Metric(
    "sliceform_time_to_ready_seconds", Kind.HISTOGRAM, "From a slice's creation until it is ready.", (), _WAITS_S
)
TO_REPLACE = Metric(
    "sliceform_time_to_replace_seconds",
    Kind.HISTOGRAM,
    "From the moment a slice is preempted, lost, given up or drained by a person until another is ready in its stead.",
    (),
    _WAITS_S,
)
TICK = Metric("sliceform_tick_duration_seconds", Kind.HISTOGRAM, "How long one tick of the loop took.", (), _TICKS_S)
TICK_ERRORS = Metric("sliceform_tick_errors_total", Kind.COUNTER, "Ticks of the loop that raised: defects.")

#: All of them, in the order of the docs.
METRICS = (
    *(SLICES, HOSTS, DESIRED, READY, SIZE, EFFECTS),
    *(TRANSITIONS, NOTES, MISSED, RUNS, ATTEMPTS),
    *(TO_PLACE, TO_READY, TO_REPLACE),
    *(TICK, TICK_ERRORS),
)
_TOOK = {"place": TO_PLACE, "ready": TO_READY, "replace": TO_REPLACE}


class Meter(Protocol):
    """Where measurements go."""

    def record(self, metric: Metric, value: float, tags: Mapping[str, str]) -> None:
        """Add to a counter, set a gauge, or observe a value; `tags` are those of the metric, and `fleet`."""
        ...


@runtime_checkable
class Metered(Protocol):
    """A backend whose cluster collects metrics."""

    def meter(self) -> Meter:
        """Return where measurements go; called once, when the backend is open."""
        ...


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
