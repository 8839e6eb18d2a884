"""Read the cluster's node table, and say what changed since the last read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import ray

from sliceform.controller.observed import Node, NodesSeen, ObservationFailed
from sliceform.controller.ray_backend import private
from sliceform.controller.ray_backend.io_thread import IoThread

#: Labels that Ray sets on TPU nodes, see `ray._private.accelerators.tpu`.
SLICE_NAME, WORKER_ID, POD_TYPE = "ray.io/tpu-slice-name", "ray.io/tpu-worker-id", "ray.io/tpu-pod-type"
NODE_ID = "ray.io/node-id"
#: Reading the table may take at most this share of the thread's time.
_SHARE = 0.05


class Facts(NamedTuple):
    """What only this backend needs to know of a node."""

    resources: Mapping[str, float]
    #: Where its raylet listens.
    raylet: tuple[str, int]


def decode(row: Mapping[str, Any], drain_epoch_s: float | None = None) -> Node:
    """Make a `Node` of one row of `ray.nodes()`."""
    labels = row.get("Labels") or {}
    worker_id = labels.get(WORKER_ID)
    alive = row["Alive"]
    return Node(
        row["NodeID"],
        alive,
        labels.get(SLICE_NAME),
        int(worker_id) if worker_id is not None and worker_id.isdigit() else None,
        labels.get(POD_TYPE),
        row.get("NodeManagerAddress", ""),
        "" if alive else row.get("DeathReasonMessage") or "died",
        drain_epoch_s if alive else None,
    )


def decode_all(rows: Iterable[Mapping[str, Any]], draining: Mapping[str, float]) -> dict[str, Node]:
    """Make nodes of a whole read, by id."""
    return {row["NodeID"]: decode(row, draining.get(row["NodeID"])) for row in rows}


def changes(before: Mapping[str, Node], after: Mapping[str, Node]) -> frozenset[str]:
    """Return the ids whose row is new, different or gone."""
    changed = {node for node, row in after.items() if before.get(node) != row}
    return frozenset(changed | (before.keys() - after.keys()))


class NodeReader:
    """Reads on the I/O thread, every so often, and at once when something must be known now."""

    def __init__(self, io: IoThread, every_s: float, post: Callable[[NodesSeen | ObservationFailed], None]) -> None:
        """Take where to run and to report; `start` begins."""
        self._io = io
        self._every_s = every_s
        self._post = post
        self.nodes: Mapping[str, Node] = {}
        self.facts: Mapping[str, Facts] = {}

    def start(self) -> None:
        """Read now and again and again."""
        self._io.put(self._again)

    def _again(self) -> None:
        begin = time.monotonic()
        try:
            self.read()
        except Exception as error:  # noqa: BLE001 - whatever Ray raises, nothing is known
            self._post(ObservationFailed(f"the node table could not be read: {error}"))
        took_s = time.monotonic() - begin
        self._io.put(self._again, max(self._every_s, took_s / _SHARE))

    def read(self) -> Mapping[str, Node]:
        """Read the table now and report it; called on the I/O thread."""
        rows = ray.nodes()
        after = decode_all(rows, private.draining_nodes())
        self.facts = {
            row["NodeID"]: Facts(row.get("Resources") or {}, (row["NodeManagerAddress"], row["NodeManagerPort"]))
            for row in rows
            if row["Alive"]
        }
        changed = changes(self.nodes, after)
        self.nodes = after if changed else self.nodes
        self._post(NodesSeen(self.nodes, changed))
        return self.nodes

    def row(self, node_id: str) -> Node | None:
        """Return a node's row, reading the table again if it is not known yet; called on the I/O thread."""
        known = self.nodes.get(node_id)
        return known if known is not None else self.read().get(node_id)
