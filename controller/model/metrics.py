"""What is measured of a fleet, and where measurements go: values only, nothing of Ray.

Names follow the conventions of Prometheus. Every metric has the tag `fleet`; the other tags have a bounded set of
values: never the id of a slice, a node or a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple, Protocol, runtime_checkable


class MetricKind(StrEnum):
    """How the values of a metric add up."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Metric(NamedTuple):
    """One metric."""

    name: str
    kind: MetricKind
    #: What it says, in a sentence.
    doc: str
    #: Beside `fleet`.
    tags: tuple[str, ...] = ()
    #: Upper bounds of a histogram's buckets.
    buckets: tuple[float, ...] = ()


_WAITS_S = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0)
_TICKS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)

SLICES = Metric("sliceform_slices", MetricKind.GAUGE, "Slices, by state.", ("state",))
HOSTS = Metric("sliceform_hosts", MetricKind.GAUGE, "Hosts of slices, by state.", ("state",))
DESIRED = Metric(
    "sliceform_desired_slices", MetricKind.GAUGE, "Slices aimed for: the largest valid size and the spares."
)
READY = Metric("sliceform_ready_slices", MetricKind.GAUGE, "Slices that are ready or running.")
SIZE = Metric(
    "sliceform_size", MetricKind.GAUGE, "The largest valid size that the ready slices suffice for; 0 if none."
)
EFFECTS = Metric(
    "sliceform_effects_in_flight", MetricKind.GAUGE, "Things asked of the cluster that have not been seen done."
)
TRANSITIONS = Metric(
    "sliceform_transitions_total",
    MetricKind.COUNTER,
    "Transitions of slices and hosts (`kind`), by what moved them and why.",
    ("kind", "trigger", "reason"),
)
NOTES = Metric(
    "sliceform_notes_total",
    MetricKind.COUNTER,
    "Things that happened to a slice, host or run (`kind`) without moving it, by reason.",
    ("kind", "reason"),
)
MISSED = Metric(
    "sliceform_changes_missed_total",
    MetricKind.COUNTER,
    "Changes that the history forgot before they were measured: all counters lack these.",
)
RUNS = Metric("sliceform_runs_total", MetricKind.COUNTER, "Runs that are over, by outcome.", ("outcome",))
ATTEMPTS = Metric(
    "sliceform_attempts_total", MetricKind.COUNTER, "Attempts of runs that are over, by outcome.", ("outcome",)
)
TO_PLACE = Metric(
    "sliceform_time_to_place_seconds", MetricKind.HISTOGRAM, "From a slice's creation until it is placed.", (), _WAITS_S
)
TO_READY = Metric(
    "sliceform_time_to_ready_seconds", MetricKind.HISTOGRAM, "From a slice's creation until it is ready.", (), _WAITS_S
)
TO_REPLACE = Metric(
    "sliceform_time_to_replace_seconds",
    MetricKind.HISTOGRAM,
    "From the moment a slice is preempted, lost, given up or drained by a person until another is ready in its stead.",
    (),
    _WAITS_S,
)
TICK = Metric(
    "sliceform_tick_duration_seconds", MetricKind.HISTOGRAM, "How long one tick of the loop took.", (), _TICKS_S
)
TICK_ERRORS = Metric("sliceform_tick_errors_total", MetricKind.COUNTER, "Ticks of the loop that raised: defects.")

#: All of them, in the order of the docs.
METRICS = (
    *(SLICES, HOSTS, DESIRED, READY, SIZE, EFFECTS),
    *(TRANSITIONS, NOTES, MISSED, RUNS, ATTEMPTS),
    *(TO_PLACE, TO_READY, TO_REPLACE),
    *(TICK, TICK_ERRORS),
)


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
