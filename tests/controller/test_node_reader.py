"""The node table is read again and again, soon after a read that took long, and never blindly."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sliceform.controller.model.events import NodesSeen, ObservationFailed
from sliceform.controller.ray_backend import nodes as module
from sliceform.controller.ray_backend.nodes import NodeReader, pause_s


def row(number: int) -> dict[str, Any]:
    return {"NodeID": f"node-{number}", "Alive": True, "NodeManagerAddress": "10.0.0.1", "NodeManagerPort": 1}


class Cluster:
    """A node table of one row whose reads can be held up, and what was posted of it."""

    def __init__(self) -> None:
        self.rows = [row(1)]
        self.open = threading.Event()
        self.open.set()
        self.begun = threading.Semaphore(0)
        self.told: list[NodesSeen | ObservationFailed] = []

    def nodes(self) -> list[dict[str, Any]]:
        rows = list(self.rows)
        self.begun.release()
        assert self.open.wait(30.0)
        return rows

    def until(self, condition: Callable[[], object], within_s: float) -> float:
        """Wait for something, and return how long that took, seconds."""
        begin = time.monotonic()
        while not condition():
            assert time.monotonic() - begin < within_s
            time.sleep(0.005)
        return time.monotonic() - begin


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    monkeypatch.setattr(module.ray, "nodes", made.nodes)
    monkeypatch.setattr(module.private, "draining_nodes", dict)
    return made


@pytest.fixture
def reader(cluster: Cluster) -> Iterator[NodeReader]:
    made = NodeReader(0.02, lambda: None, cluster.told.append)
    yield made
    cluster.open.set()
    assert made.stop(10.0)


def test_reads_again_soon_after_a_read_that_waited_long(
    cluster: Cluster, reader: NodeReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting for an answer costs nobody anything: it says nothing of how often to ask."""
    costs: list[float] = []
    monkeypatch.setattr(module, "pause_s", lambda every_s, cpu_s: costs.append(cpu_s) or pause_s(every_s, cpu_s))
    cluster.open.clear()
    reader.start()
    assert cluster.begun.acquire(timeout=20.0)
    time.sleep(0.4)
    assert cluster.told == []
    cluster.open.set()
    cluster.until(lambda: len(cluster.told) >= 3, within_s=20.0)
    assert costs[0] < 0.2


@pytest.mark.parametrize(
    ("cpu_s", "expected"),
    [
        pytest.param(0.0, 1.0, id="as often as is set"),
        pytest.param(0.1, 1.0, id="a read that costs little"),
        pytest.param(0.5, 1.5, id="one that costs much takes a quarter of the time"),
        pytest.param(5.0, 3.0, id="one that costs more than can be: often enough for the fleet not to be blind"),
    ],
)
def test_pauses_by_what_a_read_costs(cpu_s: float, expected: float) -> None:
    assert pause_s(1.0, cpu_s) == expected


def test_a_read_that_waits_does_not_hold_up_who_knows_the_node(cluster: Cluster, reader: NodeReader) -> None:
    reader.start()
    cluster.until(lambda: cluster.told, within_s=20.0)
    cluster.open.clear()
    known = reader.row("node-1")
    assert known is not None
    assert known.alive


def test_an_older_look_never_replaces_a_newer_one(cluster: Cluster, reader: NodeReader) -> None:
    cluster.open.clear()
    reader.start()
    assert cluster.begun.acquire(timeout=20.0)
    held, cluster.open = cluster.open, threading.Event()
    cluster.open.set()
    cluster.rows.append(row(2))
    assert reader.row("node-2") is not None
    cluster.until(lambda: cluster.told, within_s=20.0)
    count = len(cluster.told)
    held.set()
    cluster.until(lambda: len(cluster.told) > count, within_s=20.0)
    seen = [event for event in cluster.told if isinstance(event, NodesSeen)]
    assert len(seen) == len(cluster.told)
    assert all(set(event.nodes) == {"node-1", "node-2"} for event in seen)


def test_a_read_that_fails_is_told_and_tried_again(cluster: Cluster, reader: NodeReader) -> None:
    rows, cluster.rows = cluster.rows, [{"NodeID": "no address"}]
    reader.start()
    cluster.until(lambda: cluster.told, within_s=20.0)
    assert isinstance(cluster.told[0], ObservationFailed)
    cluster.rows = rows
    cluster.until(lambda: isinstance(cluster.told[-1], NodesSeen), within_s=20.0)
