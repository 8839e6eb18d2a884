"""What a test does to a simulated cluster: machines come, go, freeze and are given notice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from sliceform.controller.model.clock import Clock
from sliceform.controller.model.events import Event
from sliceform.controller.model.shapes import SliceShape
from sliceform.controller.testing.sim.cluster import SimCluster, SimNode
from sliceform.controller.testing.sim.engine import SimEngine
from sliceform.controller.testing.sim.lives import SimHolding, audit
from sliceform.controller.testing.sim.timeline import Timeline
from sliceform.controller.testing.sim.timings import SimTimings


class SimControls:
    """The faults and changes of a `SimBackend`; every one takes effect at the clock's present time.

    A host is named by its place (the TPU slice, or the rack of other nodes) and its worker id.
    """

    def __init__(self, shape: SliceShape, clock: Clock, seed: int, timings: SimTimings) -> None:
        """Start with no machine."""
        self.clock = clock
        self.timings = timings
        self._lock = threading.RLock()
        self._told: list[Event] = []
        self._cluster = SimCluster(shape)
        self._timeline = Timeline(clock.monotonic(), timings, seed)
        self._engine = SimEngine(self._cluster, self._timeline, self._told)
        self._observation_fails = False

    def add_slice(self, name: str | None = None, *, shape: SliceShape | None = None) -> str:
        """Let the machines of one more slice join, and return the name of their place."""
        with self._world():
            place = self._cluster.add(name, shape)
            self._engine.placer.joined(place)
            return place.name

    def remove_slice(self, name: str) -> None:
        """Take all machines of a place away at once; nothing fits there until it is restored."""
        with self._world():
            for node in self._cluster.place(name).nodes:
                self._kill(node, "terminated")

    def restore_slice(self, name: str) -> None:
        """Let new machines join for those of a place that are dead; they have new node ids."""
        with self._world():
            place = self._cluster.place(name)
            dead = self._cluster.restore(place)
            self._engine.placer.joined(place)
            keep_s = 2 * self.timings.frozen_death_s
            self._timeline.after(keep_s, partial(self._cluster.forget, dead))

    def add_double(self, place: str, worker_id: int) -> str:
        """Let one more machine join a TPU slice that says it is a worker which is there already; return its node id."""
        with self._world():
            found = self._cluster.place(place)
            node = self._cluster.double(found, worker_id)
            self._engine.placer.joined(found)
            return node.id

    def relabel(self, place: str, worker_id: int, **row: Any) -> None:
        """Let the row of a machine in the node table say something else: fields of `Node`."""
        with self._world():
            node = self._cluster.node(place, worker_id)
            node.said.update(row)
            self._cluster.touch(node)

    def kill_host(self, place: str, worker_id: int) -> None:
        """End a machine at once, with all that runs on it."""
        with self._world():
            self._kill(self._cluster.node(place, worker_id), "killed")

    def kill_agent(self, place: str, worker_id: int) -> None:
        """End the agents on a machine; the machine and the user's process live on."""
        with self._world():
            self._engine.agent_died(self._cluster.node(place, worker_id))

    def freeze_host(self, place: str, worker_id: int, *, daemon_only: bool = False) -> None:
        """Let a machine, or only the cluster's own daemon on it, stand still.

        Its agents fall silent, or say that the daemon is not well; open calls to it do not fail. If it does not go on,
        the node table shows it dead after `frozen_death_s`.
        """
        with self._world():
            node = self._cluster.node(place, worker_id)
            if not node.alive:
                return
            node.daemon_frozen = True
            node.freezes += 1
            node.frozen = node.frozen or not daemon_only
            self._beats_changed(node)
            self._timeline.after(self.timings.frozen_death_s, partial(self._still_frozen, node, node.freezes))

    def thaw_host(self, place: str, worker_id: int) -> None:
        """Let a machine go on; one that is dead in the node table by now ends, as a real one does."""
        with self._world():
            node = self._cluster.node(place, worker_id)
            node.frozen = node.daemon_frozen = False
            self._beats_changed(node)
            deferred, node.deferred = node.deferred, []
            for action in deferred:
                self._timeline.after(0.0, action)
            self._engine.placer.look_again()

    def notice(
        self,
        place: str,
        worker_id: int,
        *,
        deadline_in_s: float | None = None,
        source: str = "gce",
    ) -> None:
        """Announce that a machine will be taken away; taking it is left to `kill_host`."""
        with self._world():
            deadline = None if deadline_in_s is None else self.clock.epoch() + deadline_in_s
            self._engine.noticed(self._cluster.node(place, worker_id), source, deadline)

    def withdraw_notice(self, place: str, worker_id: int, *, source: str = "gce") -> None:
        """Take a notice back."""
        with self._world():
            self._engine.withdrawn(self._cluster.node(place, worker_id), source)

    def drain_node(self, place: str, worker_id: int, *, deadline_in_s: float | None = None, on: bool = True) -> None:
        """Let the node table say that a node is to be drained, or that it is not any more."""
        with self._world():
            node = self._cluster.node(place, worker_id)
            deadline = 0.0 if deadline_in_s is None else self.clock.epoch() + deadline_in_s
            node.drain_epoch_s = deadline if on else None
            self._cluster.touch(node)
            self._engine.placer.look_again()

    def hold(self, place: str, *, by: str = "another-job") -> None:
        """Let another placement group hold the chips of a place that are free, as they become free."""
        with self._world():
            self._cluster.place(place).held_by = by

    def let_go(self, place: str) -> None:
        """End what `hold` began."""
        with self._world():
            self._cluster.place(place).held_by = None
            self._engine.placer.look_again()

    def set_quota(self, most: int | None) -> None:
        """Let new reservations be refused while so many slices hold something; None ends that."""
        with self._world():
            self._engine.quota = most

    def set_devices(self, place: str, worker_id: int, devices: int) -> None:
        """Let agents that start on a machine from now on see another number of accelerators."""
        with self._world():
            self._cluster.node(place, worker_id).devices = devices

    def break_agent(self, place: str, worker_id: int, detail: str | None = "no disk space") -> None:
        """Let agents that start on a machine from now on fail; `detail=None` mends it."""
        with self._world():
            self._cluster.node(place, worker_id).broken = detail

    def move_bundle(self, place: str, worker_id: int, *, to: str = "f" * 56) -> None:
        """Let the cluster say that the bundle on a machine is on another node now."""
        with self._world():
            for life, rank in self._engine.tenants(self._cluster.node(place, worker_id)):
                self._engine.moved(life, rank, to)

    def remove_group(self, place: str, part: str) -> None:
        """Let somebody remove a group of the slice on a place: `head`, or `hosts` with the agents in it."""
        with self._world():
            self._engine.group_removed(self._cluster.place(place), part)

    def fail_observation(self, on: bool = True) -> None:  # noqa: FBT001, FBT002 - reads as a sentence
        """Let every read of the node table fail, until it is switched off."""
        with self._world():
            self._observation_fails = on

    def mend(self) -> None:
        """Undo all of the above: every place has its machines, free, sound and without a notice."""
        self.fail_observation(on=False)
        self.set_quota(None)
        for place in self.places:
            shape = self._cluster.place(place).shape
            ranks = range(shape.hosts)
            self.let_go(place)
            for rank in ranks:
                self.thaw_host(place, rank)
            self.restore_slice(place)
            for rank in ranks:
                self.drain_node(place, rank, on=False)
                self.set_devices(place, rank, shape.devices_per_host.count)
                self.break_agent(place, rank, None)
                for source in ("gce", "own"):
                    self.withdraw_notice(place, rank, source=source)

    def node_id(self, place: str, worker_id: int) -> str:
        """Return the id of the machine that was the last to be this worker of a place."""
        return self._cluster.node(place, worker_id).id

    @property
    def places(self) -> tuple[str, ...]:
        """The names of all places, in the order in which they joined."""
        return tuple(self._cluster.places)

    def intact(self, place: str) -> bool:
        """Whether all machines of a place run."""
        return all(node.placeable for node in self._cluster.place(place).nodes)

    @property
    def kept(self) -> tuple[str, ...]:
        """The lives of which anything is kept, those that hold nothing any more included."""
        with self._world():
            return tuple(sorted(self._engine.lives))

    def audit(self) -> dict[str, SimHolding]:
        """Return what is reserved right now, by life."""
        with self._world():
            return audit(self._engine.lives)

    def reserved(self) -> tuple[str, ...]:
        """Return the names of the places on which something is reserved right now."""
        return tuple(sorted({place for holding in self.audit().values() for place in holding.places}))

    @contextmanager
    def _world(self) -> Iterator[None]:
        """Bring the world up to the present, then let the caller change it."""
        with self._lock:
            self._timeline.run_until(self.clock.monotonic())
            yield
            self._timeline.run_until(self.clock.monotonic())

    def _kill(self, node: SimNode, death: str) -> None:
        if node.alive:
            node.alive = False
            node.death = death
            delay = self.timings.node_death_s
            self._timeline.after(delay, partial(self._list_dead, node))
            self._engine.node_died(node)

    def _list_dead(self, node: SimNode) -> None:
        node.listed = False
        self._cluster.touch(node)

    def _still_frozen(self, node: SimNode, freezes: int) -> None:
        if node.alive and node.daemon_frozen and node.freezes == freezes:
            node.given_up = True
            self._kill(node, "missed too many health checks")

    def _beats_changed(self, node: SimNode) -> None:
        for life, _ in self._engine.tenants(node):
            life.beats = None
