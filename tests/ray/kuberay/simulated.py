"""A fleet without processes, around the real demand, and Ray's real autoscaler and KubeRay provider.

A second of this world takes a few milliseconds of ours: what the autoscaler sees, it sees through the messages that a
GCS would send.
"""

import itertools
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from ray.autoscaler._private.kuberay import autoscaling_config
from ray.autoscaler.v2.instance_manager import config

from sliceform.controller.model.effects import Reserve
from sliceform.controller.model.events import Node
from sliceform.controller.model.shapes import TpuSlice
from sliceform.controller.ray_backend import demand, groups, private
from sliceform.controller.ray_backend.lives import Holding, Stage
from sliceform.controller.ray_backend.reservations import Reservations

from .autoscaler import Steps
from .gcs import SimulatedGcs
from .kubernetes import Kubernetes, Pod


class _Session:
    """As much of a session as reservations and demand use; the world calls what is due."""

    def __init__(self, shape: TpuSlice, label: str) -> None:
        self.fleet = self
        self.shape, self.label, self.incarnation = shape, label, "1"
        self.io = self
        self._watched: list[tuple[Future[Any], Callable[[Future[Any]], None]]] = []

    def put(self, job: Callable[[], None], delay_s: float = 0.0) -> None:
        """Leave it out: the world looks every second."""

    def check(self) -> None: ...

    def post(self, event: Any) -> None: ...

    def when_done(self, ref: Future[Any], then: Callable[[Future[Any]], None]) -> None:
        self._watched.append((ref, then))

    def run(self) -> None:
        due = [(ref, then) for ref, then in self._watched if ref.done()]
        self._watched = [(ref, then) for ref, then in self._watched if not ref.done()]
        for ref, then in due:
            then(ref)


class _Nodes:
    def __init__(self, gcs: SimulatedGcs) -> None:
        self._gcs = gcs

    @property
    def nodes(self) -> dict[str, Node]:
        return self._gcs.nodes()

    def row(self, node_id: str) -> Node | None:
        return self.nodes.get(node_id)


class SimulatedFleet:
    """So many slices, with the real reservations and the real demand."""

    def __init__(self, gcs: SimulatedGcs, shape: TpuSlice, label: str) -> None:
        """Take the GCS, where Ray's calls must already lead, and the fleet's name."""
        self.shape, self.wanted = shape, 0
        self._gcs = gcs
        self._session: Any = _Session(shape, label)
        reader: Any = _Nodes(gcs)
        self._holdings: dict[str, Holding] = {}
        self._reservations = Reservations(self._session, reader, self._asks_by_replica)
        self.demands: demand.Demands | None = None
        if demand.has_to_be_asked_for(shape):
            claim = self._reservations.claim
            self.demands = demand.Demands(self._session, shape, lambda: reader.nodes, self._holdings, claim)
        self._numbers = itertools.count(1)

    def _asks_by_replica(self) -> bool:
        return self.demands is not None and self.demands.ask_whether_by_replica()

    @property
    def ready(self) -> int:
        """How many slices the fleet has."""
        return sum(holding.hosts is not None and bool(self._row(holding)) for holding in self._lives)

    def act(self) -> None:
        """Do what a fleet does: replace what is lost, give back what is too much, ask for what is missing."""
        self.hear()
        alive = {node.id for node in self._gcs.nodes().values() if node.alive}
        for holding in self._lives:
            if holding.reserved is not None and holding.reserved.nodes[0] not in alive:
                self._release(holding)
            elif holding.hosts is not None and holding.assembled is not None:
                if not set(holding.assembled.nodes) <= alive:
                    self._release(holding)
            elif holding.hosts is not None and self._row(holding):
                self._reservations.look_at_hosts(holding)
            elif holding.reserved is not None and holding.hosts is None:
                assert holding.reserved.place is not None
                name = self._reservations.name(holding.slice_id, "hosts")
                holding.hosts = groups.pinned_group(name, self.shape, holding.reserved.place, 1)
        waiting_last = sorted(self._lives, key=lambda holding: holding.reserved is None)
        for holding in waiting_last[self.wanted :]:
            self._release(holding)
        for _ in range(self.wanted - len(self._lives)):
            life = f"slice-{next(self._numbers)}"
            self._holdings[life] = Holding(life)
            request = Reserve(life, self.shape, frozenset(), frozenset(), None)
            self._reservations.reserve(self._holdings[life], request)
        if self.demands is not None:
            self.demands.review()

    def hear(self) -> None:
        """Take what has become of groups."""
        self._session.run()

    def close(self) -> None:
        """Give everything back."""
        if self.demands is not None:
            self.demands.close()
        for holding in self._lives:
            self._release(holding)

    @property
    def _lives(self) -> list[Holding]:
        return [holding for holding in self._holdings.values() if holding.held]

    def _row(self, holding: Holding) -> tuple[str, ...] | None:
        assert holding.hosts is not None
        return groups.nodes_of(groups.row_of(holding.hosts))

    def _release(self, holding: Holding) -> None:
        for group in holding.groups:
            groups.remove(group)
        holding.stage = Stage.RELEASED
        del self._holdings[holding.slice_id]


class SimulatedWorld:
    """Fleets of one shape on a RayCluster, second by second."""

    def __init__(self, kubernetes: Kubernetes, shape: TpuSlice, patch: pytest.MonkeyPatch, fleets: int = 1) -> None:
        """Put this world in place of Ray's calls."""
        self.kubernetes, self.shape, self.gcs = kubernetes, shape, SimulatedGcs()
        kubernetes.on_deleted = self.gcs.kill
        patch.setattr(groups, "placement_group", self.gcs.create)
        patch.setattr(groups, "remove", self.gcs.remove)
        patch.setattr(groups, "row_of", self.gcs.row)
        patch.setattr(private, "autoscaler", self.gcs.autoscaler)
        patch.setattr(private, "available_resources", self.gcs.available)
        patch.setattr(demand, "time", self)
        self.steps = Steps(kubernetes, self.gcs, patch)
        self.steps.step()
        # Done once: it takes most of a step, and of a RayCluster only numbers change.
        for module in (autoscaling_config, config):
            patch.setattr(module, "validate_config", lambda _: None)
        self.fleets = [SimulatedFleet(self.gcs, shape, f"fleet-{number}") for number in range(fleets)]
        self.fleet = self.fleets[0]

    def monotonic(self) -> float:
        """Take the place of the clock."""
        return self.gcs.now

    def second(self, *, autoscaler: bool, operator: bool = True) -> None:
        """Let a second pass."""
        self.gcs.now += 1
        self.gcs.place()
        for fleet in self.fleets:
            fleet.act()
        self.gcs.place()
        for fleet in self.fleets:
            fleet.hear()
        if autoscaler:
            self.steps.step()
            self.steps.settle()
        if operator:
            self.kubernetes.operate()

    def start(self, pod: Pod) -> None:
        """Let a pod run: its host joins."""
        pod.running = True
        group = next(group for group in self.kubernetes.groups if group.name == pod.group)
        resources = {name.rpartition("/")[2].upper(): float(amount) for name, amount in group.limits.items()}
        resources[f"node:{pod.name}"] = 1.0
        labels = {}
        if group.topology:
            labels["ray.io/tpu-slice-name"] = pod.replica
            labels["ray.io/tpu-worker-id"] = str(pod.index)
            labels["ray.io/tpu-pod-type"] = self.shape.pod_type
            if pod.index == 0:
                resources[self.shape.head_resource] = 1.0
        self.gcs.add(pod, resources, labels)

    @property
    def demanded(self) -> list[str]:
        """The names of the groups that ask for slices."""
        return [group.name for group in self.gcs.groups if "/demand/" in group.name]
