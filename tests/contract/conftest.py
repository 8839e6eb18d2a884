"""The worlds that the contract suite runs in: the simulated cluster, and real Ray on virtual hosts."""

import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from sliceform.controller.model.backend import Backend, FleetIdentity
from sliceform.controller.model.effects import (
    Assemble,
    AttemptSpec,
    EffectRequest,
    Launch,
    Release,
    Reserve,
)
from sliceform.controller.model.events import AgentUp, Assembled, Event, NodesSeen, Released, Reserved
from sliceform.controller.model.settings import Settings
from sliceform.controller.model.shapes import SliceShape, TpuSlice
from sliceform.controller.testing import FakeClock, SimBackend

SHAPE = TpuSlice("v4-16")
#: What a cluster has at first: two slices of two hosts.
SLICES = 2


class Harness(ABC):
    """A backend with a sink that keeps everything, and a hand on the cluster behind it."""

    #: How long one thing may take to happen, seconds of the world's time.
    patience_s = 30.0

    backend: Backend

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.beats: set[tuple[str, int]] = set()
        self.lives: set[str] = set()
        self.open(SHAPE)

    def open(self, shape: SliceShape) -> None:
        """Open a backend for a fleet of this shape; one that was open is closed."""
        if hasattr(self, "backend"):
            self.backend.close()
        self.shape = shape
        self.backend = self.connect()
        settings = Settings(nodes_every_s=0.3, beat_s=0.5)
        self.backend.open(FleetIdentity(None, "contract", uuid4().hex[:8], shape, settings), self)

    @abstractmethod
    def connect(self) -> Backend: ...

    # The sink.

    def post(self, event: Event) -> None:
        self.events.append(event)

    def beat(self, slice_id: str, rank: int, *, raylet_ok: bool = True) -> None:
        if raylet_ok:
            self.beats.add((slice_id, rank))

    # The cluster.

    @property
    @abstractmethod
    def places(self) -> list[str]:
        """Names of the slices that are whole."""

    @abstractmethod
    def add_slice(self, *, missing: tuple[int, ...] = ()) -> str: ...

    @abstractmethod
    def add_double(self, place: str, worker_id: int) -> str:
        """Let one more host join that says it is a worker which is there already; return its node id."""

    @abstractmethod
    def kill_host(self, place: str, worker_id: int) -> None: ...

    @abstractmethod
    def remove_group(self, slice_id: str, part: str) -> None:
        """Let somebody else remove a group of a life: `head` or `hosts`."""

    @abstractmethod
    def freeze_host(self, place: str, worker_id: int) -> None: ...

    @abstractmethod
    def thaw_host(self, place: str, worker_id: int) -> None: ...

    @abstractmethod
    def hold(self, place: str, name: str) -> contextlib.AbstractContextManager[None]:
        """Let another placement group of that name hold the chips of a slice."""

    @abstractmethod
    def node_id(self, place: str, worker_id: int) -> str: ...

    @abstractmethod
    def busy(self, seconds: float) -> Callable[[], Any]:
        """Return a function that takes so long, where functions take any time at all."""

    @abstractmethod
    def pass_time(self) -> None:
        """Let a little time go by."""

    @abstractmethod
    def now(self) -> float: ...

    @abstractmethod
    def kept(self) -> set[str]:
        """Slices and attempts of which the backend keeps anything."""

    # What tests say.

    def submit(self, request: EffectRequest) -> None:
        self.lives.add(request.slice_id)
        self.backend.submit(request)

    def told(self, *kinds: type, slice_id: str | None = None) -> list[Any]:
        return [
            event
            for event in list(self.events)
            if isinstance(event, kinds) and (slice_id is None or getattr(event, "slice_id", None) == slice_id)
        ]

    def until(self, condition: Callable[[], Any], patience_s: float | None = None) -> Any:
        """Wait until something is true, and return it."""
        end = self.now() + (patience_s or self.patience_s)
        while True:
            self.backend.poll()
            if found := condition():
                return found
            if self.now() >= end:
                told = [e for e in self.events if not isinstance(e, NodesSeen)]
                pytest.fail(f"not in time; told: {told[-12:]}")
            self.pass_time()

    def wait_for(self, *kinds: type, slice_id: str, count: int = 1) -> list[Any]:
        """Wait until so many events of these kinds have been told of a life, and return them."""

        def enough() -> list[Any]:
            found = self.told(*kinds, slice_id=slice_id)
            return found if len(found) >= count else []

        found: list[Any] = self.until(enough)
        return found

    def quiet(self, seconds: float, condition: Callable[[], Any]) -> None:
        """Let time go by and see that something does not come true."""
        end = self.now() + seconds
        while self.now() < end:
            self.backend.poll()
            assert not condition()
            self.pass_time()

    def reserve(self, slice_id: str, *, avoid: frozenset[str] = frozenset()) -> Reserved:
        self.submit(Reserve(slice_id, self.shape, avoid))
        found: Reserved = self.wait_for(Reserved, slice_id=slice_id)[0]
        return found

    def bring_up(self, slice_id: str, *, avoid: frozenset[str] = frozenset()) -> Assembled:
        reserved = self.reserve(slice_id, avoid=avoid)
        self.submit(Assemble(slice_id, self.shape, reserved.place))
        self.wait_for(AgentUp, slice_id=slice_id, count=self.shape.hosts)
        found: Assembled = self.wait_for(Assembled, slice_id=slice_id)[0]
        return found

    def launch(self, *lives: str, fn: Callable[..., Any], key: str = "run-1/1") -> None:
        work = self.backend.pack(fn, (), {})
        spec = AttemptSpec(key, "run-1", 1, lives, self.shape.hosts, work)
        for slice_rank, life in enumerate(lives):
            self.submit(Launch(life, self.shape, spec, slice_rank))

    def release(self, *lives: str, lost: bool = False) -> None:
        for life in lives:
            self.submit(Release(life, 0.0, lost))
        for life in lives:
            self.wait_for(Released, slice_id=life)
            self.backend.forget(life)
            self.lives.discard(life)

    def nodes(self) -> NodesSeen:
        found: NodesSeen = self.until(lambda: self.told(NodesSeen))[-1]
        return found

    def close(self) -> None:
        self.release(*self.lives, lost=True)
        self.until(lambda: not self.kept())
        self.backend.close()
        self.backend.close()


class SimHarness(Harness):
    """The simulated cluster."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.sim = SimBackend(SHAPE, SLICES, clock=self.clock, work_s=1.0)
        super().__init__()

    def connect(self) -> Backend:
        return self.sim

    @property
    def places(self) -> list[str]:
        return [place for place in self.sim.places if self.sim.intact(place)]

    def add_slice(self, *, missing: tuple[int, ...] = ()) -> str:
        place = self.sim.add_slice()
        for worker_id in missing:
            self.sim.kill_host(place, worker_id)
        return place

    def add_double(self, place: str, worker_id: int) -> str:
        return self.sim.add_double(place, worker_id)

    def kill_host(self, place: str, worker_id: int) -> None:
        self.sim.kill_host(place, worker_id)

    def remove_group(self, slice_id: str, part: str) -> None:
        self.sim.remove_group(self.told(Reserved, slice_id=slice_id)[0].place, part)

    def freeze_host(self, place: str, worker_id: int) -> None:
        self.sim.freeze_host(place, worker_id)

    def thaw_host(self, place: str, worker_id: int) -> None:
        self.sim.thaw_host(place, worker_id)

    @contextlib.contextmanager
    def hold(self, place: str, name: str) -> Iterator[None]:
        self.sim.hold(place, by=name)
        yield
        self.sim.let_go(place)

    def node_id(self, place: str, worker_id: int) -> str:
        return self.sim.node_id(place, worker_id)

    def busy(self, seconds: float) -> Callable[[], Any]:
        return lambda: "done"

    def pass_time(self) -> None:
        self.clock.advance(0.05)

    def now(self) -> float:
        return self.clock.monotonic()

    def kept(self) -> set[str]:
        return set(self.sim.kept)

    def close(self) -> None:
        super().close()
        assert self.sim.left_at_close == {}


class RayHarness(Harness):
    """Ray, on a virtual cluster that the tests share."""

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self.added: list[Any] = []
        super().__init__()

    def connect(self) -> Backend:
        from sliceform.controller.ray_backend import RayBackend

        return RayBackend()

    @property
    def places(self) -> list[str]:
        return [s.name for s in self.cluster.slices if self._whole(s)]

    def add_slice(self, *, missing: tuple[int, ...] = ()) -> str:
        added = self.cluster.add_slice("v4-16", missing=missing)
        self.added.append(added)
        name: str = added.name
        return name

    def add_double(self, place: str, worker_id: int) -> str:
        (known,) = [s for s in self.cluster.slices if s.name == place]
        found: str = self.cluster.add_host(known, worker_id).node_id
        return found

    def kill_host(self, place: str, worker_id: int) -> None:
        self.cluster.kill_host(self._host(place, worker_id))

    def remove_group(self, slice_id: str, part: str) -> None:
        import ray
        from ray.util.placement_group import get_placement_group, remove_placement_group

        rows = ray.util.placement_group_table().values()
        (name,) = [
            row["name"] for row in rows if row["name"].endswith(f"/{slice_id}/{part}") and row["state"] == "CREATED"
        ]
        remove_placement_group(get_placement_group(name))

    def freeze_host(self, place: str, worker_id: int) -> None:
        self.cluster.freeze_host(self._host(place, worker_id))

    def thaw_host(self, place: str, worker_id: int) -> None:
        self.cluster.thaw_host(self._host(place, worker_id))

    @contextlib.contextmanager
    def hold(self, place: str, name: str) -> Iterator[None]:
        import ray
        from ray.util.placement_group import placement_group, remove_placement_group

        labels = {"ray.io/tpu-slice-name": place}
        group = placement_group(
            [{"TPU": 4}] * 2,
            strategy="STRICT_SPREAD",
            name=name,
            bundle_label_selector=[labels] * 2,
        )
        ray.get(group.ready(), timeout=30)
        yield
        remove_placement_group(group)

    def node_id(self, place: str, worker_id: int) -> str:
        found: str = self._host(place, worker_id).node_id
        return found

    def busy(self, seconds: float) -> Callable[[], Any]:
        def sleep() -> str:
            import time

            time.sleep(seconds)
            return "done"

        return sleep

    def pass_time(self) -> None:
        time.sleep(0.02)

    def now(self) -> float:
        return time.monotonic()

    def kept(self) -> set[str]:
        parts = self.backend._parts
        return {*parts._holdings, *parts._agents._holdings, *parts._attempts._meetings}

    def close(self) -> None:
        super().close()
        for name in [added.name for added in self.added]:
            self.cluster.remove_slice(next(s for s in self.cluster.slices if s.name == name))

    def _host(self, place: str, worker_id: int) -> Any:
        (found,) = [s for s in self.cluster.slices if s.name == place]
        return next(host for host in found.hosts if host.worker_id == worker_id)

    @staticmethod
    def _whole(slice_: Any) -> bool:
        return len(slice_.hosts) == SHAPE.hosts and all(host.alive for host in slice_.hosts)


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[Any]:
    """Virtual hosts that this process is connected to; started only if a test asks for them."""
    import ray

    from sliceform.controller.testing import VirtualCluster

    with VirtualCluster() as cluster:
        cluster.add_slices(["v4-16"] * SLICES)
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        try:
            yield cluster
        finally:
            ray.shutdown()


@pytest.fixture(params=["sim", pytest.param("ray", marks=pytest.mark.ray)])
def harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    """A backend that is open, and that has to be left with nothing reserved."""
    if request.param == "sim":
        made: Harness = SimHarness()
    else:
        made = RayHarness(request.getfixturevalue("ray_cluster"))
    yield made
    made.close()
