"""Measurements go to Ray, which shows them where its own metrics are.

Ray's agent on the driver's node exports them for Prometheus if `ray[default]` is installed there, each with `ray_`
before its name; with plain `ray` nobody collects them. Recording costs a few microseconds and needs no connection.
Tried with Ray 2.60.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

from sliceform.controller.model.metrics import METRICS, Metric, MetricKind


class RayMeter:
    """Ray's instruments for all metrics; several fleets of one process may each have theirs."""

    def __init__(self) -> None:
        self._instruments = {metric.name: _instrument(metric) for metric in METRICS}

    def record(self, metric: Metric, value: float, tags: Mapping[str, str]) -> None:
        """Add to a counter, set a gauge, or observe a histogram's value."""
        instrument = self._instruments[metric.name]
        match metric.kind:
            case MetricKind.COUNTER:
                instrument.inc(value, dict(tags))
            case MetricKind.GAUGE:
                instrument.set(value, dict(tags))
            case MetricKind.HISTOGRAM:
                instrument.observe(value, dict(tags))


def _instrument(metric: Metric) -> Any:
    keys = ("fleet", *metric.tags)
    match metric.kind:
        case MetricKind.COUNTER:
            return Counter(metric.name, metric.doc, keys)
        case MetricKind.GAUGE:
            return Gauge(metric.name, metric.doc, keys)
        case MetricKind.HISTOGRAM:
            return Histogram(metric.name, metric.doc, list(metric.buckets), keys)
