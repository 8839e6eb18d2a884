"""Read the cluster's node table, and say what changed since the last read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ray
import structlog

from sliceform.controller.model.events import Node, NodesSeen, ObservationFailed
from sliceform.controller.ray_backend import private
from sliceform.controller.ray_backend.io_thread import IoThread

log = structlog.get_logger(__name__)

#: Labels that Ray gives to nodes.
SLICE_NAME = "ray.io/tpu-slice-name"
WORKER_ID = "ray.io/tpu-worker-id"
POD_TYPE = "ray.io/tpu-pod-type"
TOPOLOGY = "ray.io/tpu-topology"
ACCELERATOR = "ray.io/accelerator-type"

#: After a read, so many times what it cost this process are left to others.
_SHARE = 3.0
#: But two reads are never more than so many periods apart, so that one that is costly does not make the fleet blind.
_LONGEST = 3.0
#: What ever waits for the thread: the next regular read and one that is wanted soon.
_JOBS = 2


def decode(row: Mapping[str, Any], drain_epoch_s: float | None = None) -> Node:
    """Make a `Node` of one row of `ray.nodes()`."""
    labels = row.get("Labels") or {}
    worker_id = labels.get(WORKER_ID, "")
    alive = bool(row["Alive"])
    return Node(
        id=row["NodeID"],
        alive=alive,
        place=labels.get(SLICE_NAME),
        worker_id=int(worker_id) if worker_id.isdigit() else None,
        pod_type=labels.get(POD_TYPE),
        address=row.get("NodeManagerAddress", ""),
        death="" if alive else row.get("DeathReasonMessage") or "died",
        drain_epoch_s=drain_epoch_s if alive else None,
        topology=labels.get(TOPOLOGY),
        accelerator=labels.get(ACCELERATOR),
        resources=row.get("Resources") or {},
        labels=labels,
    )


def decode_all(rows: Iterable[Mapping[str, Any]], draining: Mapping[str, float]) -> dict[str, Node]:
    """Make nodes of a whole read, by id."""
    return {row["NodeID"]: decode(row, draining.get(row["NodeID"])) for row in rows}


def changes(before: Mapping[str, Node], after: Mapping[str, Node]) -> frozenset[str]:
    """Return the ids whose row is new, different or gone."""
    changed = {node for node, row in after.items() if before.get(node) != row}
    return frozenset(changed | (before.keys() - after.keys()))


def pause_s(every_s: float, cpu_s: float) -> float:
    """Return how long to wait after a read that cost so much processor time, seconds.

    How long it took says nothing: a table that is large costs this process time, but an answer that is late does not.
    """
    return max(every_s, min(_SHARE * cpu_s, _LONGEST * every_s))


class NodeReader:
    """Reads every so often, and at once when something has to be known.

    On a thread of its own: a cluster that answers late, or a table that is large, holds up nothing else.
    """

    def __init__(
        self,
        every_s: float,
        check: Callable[[], None],
        post: Callable[[NodesSeen | ObservationFailed], None],
    ) -> None:
        """Take the period in seconds, what to check before every read, and where to report; `start` begins."""
        self._thread = IoThread("sliceform-nodes", _JOBS)
        self._every_s = every_s
        self._check = check
        self._post = post
        self._read_soon = False
        #: Held while a read is taken in, so that what is told is in order; and when the newest began.
        self._taking = threading.Lock()
        self._begun = 0.0
        self.nodes: Mapping[str, Node] = {}
        #: Where the raylet of every node listens, or listened when the node was last seen alive.
        self._raylets: Mapping[str, tuple[str, int]] = {}

    def start(self) -> None:
        """Read now, and again and again."""
        self._thread.start()
        self._thread.put(self._again)

    def stop(self, timeout_s: float) -> bool:
        """End the thread; return whether it ended in time."""
        return self._thread.stop(timeout_s)

    def soon(self) -> None:
        """Read as soon as the thread is free, besides the regular reads."""
        if not self._read_soon:
            self._read_soon = True
            self._thread.put(self._try_to_read)

    def row(self, node_id: str) -> Node | None:
        """Return a node's row; if the node is not known yet, the table is read first, on the caller's thread."""
        known = self.nodes.get(node_id)
        return known if known is not None else self._read().get(node_id)

    def raylet(self, node_id: str | None) -> tuple[str, int] | None:
        """Return where a node's raylet listens, or listened when the node was last seen alive."""
        return self._raylets.get(node_id or "")

    def _again(self) -> None:
        begin = time.thread_time()
        self._try_to_read()
        self._thread.put(self._again, pause_s(self._every_s, time.thread_time() - begin))

    def _try_to_read(self) -> None:
        self._read_soon = False
        try:
            self._read()
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing is known
            log.warning("nodes_unread", cause=repr(error))
            self._post(ObservationFailed(f"the node table could not be read: {error}"))

    def _read(self) -> Mapping[str, Node]:
        self._check()
        begun = time.monotonic()
        rows = ray.nodes()
        after = decode_all(rows, private.draining_nodes())
        with self._taking:
            if begun >= self._begun:
                self._begun = begun
                self._take(after, rows)
            return self.nodes

    def _take(self, after: Mapping[str, Node], rows: Iterable[Mapping[str, Any]]) -> None:
        changed = changes(self.nodes, after)
        if changed:
            self.nodes = after
            known = {node: where for node, where in self._raylets.items() if node in after}
            alive = {row["NodeID"]: (row["NodeManagerAddress"], row["NodeManagerPort"]) for row in rows if row["Alive"]}
            self._raylets = known | alive
        self._post(NodesSeen(self.nodes, changed))
