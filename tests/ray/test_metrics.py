"""Metrics as Prometheus would read them: over HTTP, from Ray's agent on the driver's node."""

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray
import requests

from sliceform.controller import CpuSlice, SliceController
from sliceform.controller.model.metrics import METRICS, MetricKind
from sliceform.controller.testing.virtual.cluster import VirtualCluster

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]

READY_S = 60.0
_LINE = re.compile(r"^(?P<name>\w+)\{(?P<tags>.*)\} (?P<value>\S+)$", re.MULTILINE)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def cluster(start_cluster: Callable[..., Any]) -> Iterator[VirtualCluster]:
    """A cluster of only a head, whose agent exports metrics; it hears of them every second."""
    with start_cluster(metrics=True, system_config={"metrics_report_interval_ms": 1000}) as started:
        yield started


def scrape(fleet: str) -> Samples:
    """Read the samples of one fleet, with the tags that are ours."""
    node = ray.nodes()[0]
    answer = requests.get(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics", timeout=30)
    answer.raise_for_status()
    samples: Samples = {}
    for found in _LINE.finditer(answer.text):
        tags = dict(re.findall(r'(\w+)="([^"]*)"', found["tags"]))
        if found["name"].startswith("ray_sliceform_") and tags.get("fleet") == fleet:
            ours = {key: tags[key] for key in ("state", "kind", "trigger", "reason", "outcome") if key in tags}
            samples[found["name"], frozenset(ours.items())] = float(found["value"])
    return samples


def scraped(fleet: str, done: Callable[[Samples], bool], timeout_s: float = 30.0) -> Samples:
    """Read until what is looked for is there."""
    end = time.monotonic() + timeout_s
    while not done(samples := scrape(fleet)):
        assert time.monotonic() < end, samples
        time.sleep(0.2)
    return samples


def sample(name: str, **tags: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return f"ray_sliceform_{name}", frozenset(tags.items())


def scraped_values(fleet: str, expected: Samples) -> None:
    """Read until all these values are there: Ray's agent may export half of what was recorded together."""
    scraped(fleet, lambda seen: expected.items() <= seen.items())


@pytest.mark.usefixtures("no_leaks", "cluster")
def test_what_is_measured_can_be_scraped_and_goes_to_zero_with_the_fleet() -> None:
    """The state of the fleet, a replaced slice and a run, under the names that the docs and the dashboard give."""
    fleet = SliceController(CpuSlice(), 2, name="scraped")
    with fleet:
        fleet.wait_ready(timeout_s=READY_S)
        scraped_values(
            "scraped",
            {
                sample("slices", state="ready"): 2,
                sample("slices", state="pending"): 0,
                sample("hosts", state="ready"): 2,
                sample("desired_slices"): 2,
            },
        )
        fleet.drain("slice-1")
        assert fleet.run(pow, 2, 5).values == [32, 32]
        created = {"kind": "slice", "trigger": "create"}
        scraped_values(
            "scraped",
            {
                sample("runs_total", outcome="succeeded"): 1,
                sample("attempts_total", outcome="succeeded"): 1,
                sample("transitions_total", **created, reason="desired"): 2,
                sample("transitions_total", **created, reason="replacement"): 1,
                sample("time_to_ready_seconds_count"): 3,
                sample("time_to_replace_seconds_count"): 1,
            },
        )
        scraped("scraped", lambda seen: seen.get(sample("tick_duration_seconds_count"), 0) > 10)
    gauges = {
        "ray_sliceform_slices",
        "ray_sliceform_hosts",
        "ray_sliceform_desired_slices",
        "ray_sliceform_ready_slices",
    }
    silent = {"sliceform_changes_missed_total", "sliceform_tick_errors_total"}
    promised = {
        f"ray_{metric.name}{end}"
        for metric in METRICS
        if metric.name not in silent
        for end in (("_bucket", "_sum", "_count") if metric.kind is MetricKind.HISTOGRAM else ("",))
    }
    last = scraped(
        "scraped",
        lambda seen: (
            not any(seen[key] for key in seen if key[0] in gauges) and len({name for name, _ in seen}) >= len(promised)
        ),
    )
    assert {name for name, _ in last} == promised
