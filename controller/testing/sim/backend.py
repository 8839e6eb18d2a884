"""A cluster in memory, on which a controller runs without Ray.

Made for tests: of this package, and of programs and policies that use it. Time is the given clock's; everything is
decided by the seed, so that what happened once happens again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

from sliceform.controller.errors import FleetNameTakenError
from sliceform.controller.model.backend import Finding, FleetIdentity, Sink
from sliceform.controller.model.clock import Clock
from sliceform.controller.model.effects import (
    Assemble,
    EffectRequest,
    Launch,
    Notify,
    Release,
    Reserve,
    Stop,
)
from sliceform.controller.model.events import Explained, NodesSeen, ObservationFailed
from sliceform.controller.model.functions import check_function
from sliceform.controller.model.shapes import SliceShape, TpuSlice
from sliceform.controller.testing.fake_clock import FakeClock
from sliceform.controller.testing.sim.beats import SimBeats
from sliceform.controller.testing.sim.controls import SimControls
from sliceform.controller.testing.sim.explain import explain
from sliceform.controller.testing.sim.lives import SimHolding
from sliceform.controller.testing.sim.timings import SimTimings
from sliceform.controller.testing.sim.work import SimWork


class SimBackend(SimControls):
    """A simulated cluster with places for slices of one shape, and the `Backend` that reaches it.

    Work runs in this process, on the thread of the loop, to its end at the moment it is due: a function that waits for
    something will wait for ever. Its environment is not changed.

    Args:
        shape: what every slice of the cluster looks like.
        slices: how many there are at first, or their names.
        clock: the time of the world; by default a `FakeClock` of its own.
        seed: decides whatever is left to chance.
        timings: fields of `SimTimings`, for example `place_s=2.0`.

    """

    def __init__(
        self,
        shape: SliceShape,
        slices: int | Iterable[str] = 1,
        *,
        clock: Clock | None = None,
        seed: int = 0,
        **timings: float,
    ) -> None:
        super().__init__(shape, clock or FakeClock(), seed, SimTimings(**timings))
        self._seed = seed
        self._fleet: FleetIdentity | None = None
        self._sink: Sink | None = None
        self._beats = SimBeats(self.timings.beat_s or 1.0, seed)
        self._nodes_every_s = self.timings.nodes_every_s
        self._next_read = 0.0
        self._names_taken: set[str] = set()
        #: What was still reserved when the backend was closed.
        self.left_at_close: dict[str, SimHolding] = {}
        for name in [None] * slices if isinstance(slices, int) else slices:
            self.add_slice(name)

    @classmethod
    def tpu(cls, pod_type: str, slices: int | Iterable[str] = 1, **options: Any) -> Self:
        """Make a cluster of TPU slices of one pod type."""
        return cls(TpuSlice(pod_type), slices, **options)

    def take_name(self, name: str) -> None:
        """Let another controller hold a fleet name."""
        self._names_taken.add(name)

    def open(self, fleet: FleetIdentity, sink: Sink) -> None:
        """Begin to observe for a fleet.

        Raises:
            FleetNameTakenError: `take_name` gave it to another controller.

        """
        if fleet.name is not None and fleet.name in self._names_taken:
            raise FleetNameTakenError(fleet.name, "another controller")
        with self._world():
            self._fleet = fleet
            self._sink = sink
            self._nodes_every_s = self.timings.nodes_every_s or fleet.settings.nodes_every_s
            self._beats = SimBeats(self.timings.beat_s or fleet.settings.beat_s, self._seed)
            self._next_read = self.clock.monotonic()

    def submit(self, request: EffectRequest) -> None:
        """Take a request; what comes of it is told at a later `poll`."""
        if self._fleet is None:
            return
        with self._world():
            life = self._engine.lives.get(request.slice_id)
            match request:
                case Reserve():
                    self._engine.reserve(request)
                case Assemble():
                    self._engine.assemble(request)
                case Launch():
                    self._engine.processes.launch(life, request)
                case Notify():
                    self._engine.processes.notify(life, request)
                case Stop():
                    self._engine.processes.stop(life, request)
                case Release():
                    self._engine.release(request)

    def forget(self, slice_id: str) -> None:
        """Drop what is kept about a life that has been released."""
        with self._world():
            self._engine.forget(slice_id)

    def poll(self) -> None:
        """Let the world go on to the clock's present time, and tell what happened."""
        sink = self._sink
        if sink is None:
            return
        now = self.clock.monotonic()
        with self._lock:
            self._timeline.run_until(now)
            told = self._told.copy()
            self._told.clear()
            for life in self._engine.answering:
                self._beats.begin(life, now)
            self._engine.answering.clear()
            if now >= self._next_read:
                self._next_read = now + self._nodes_every_s
                told.append(self._read())
            for event in told:
                sink.post(event)
            self._beats.deliver(now, sink)

    def explain(self, slice_id: str, place: str | None, avoid: Mapping[str, str]) -> tuple[Finding, ...]:
        """Say why this slice is not ready."""
        with self._world():
            known = self._engine.lives.get(slice_id)
            shape = known.shape if known is not None else self._cluster.shape
            if known is None and self._fleet is not None:
                shape = self._fleet.shape
            return explain(self._cluster, known, shape, place, avoid)

    def inquire(self, slice_id: str, place: str | None, avoid: Mapping[str, str]) -> None:
        """Have the same told at the next `poll`."""
        with self._world():
            self._told.append(Explained(slice_id, self.explain(slice_id, place, avoid)))

    def pack(
        self,
        fn: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        runtime_env: Mapping[str, Any] | None = None,  # noqa: ARG002 - nothing is installed here
    ) -> Any:
        """Keep the work as it is: nothing travels here.

        Raises:
            ConfigurationError: calling the function would not do its work.

        """
        check_function(fn)
        return SimWork(fn, args, dict(kwargs))

    def close(self) -> None:
        """Remove what is left; what that was is kept in `left_at_close`."""
        with self._world():
            if self._fleet is None:
                return
            self.left_at_close = self.audit()
            self._engine.clear()
            self._told.clear()
            self._fleet = self._sink = None

    def _read(self) -> NodesSeen | ObservationFailed:
        if self._observation_fails:
            return ObservationFailed("the simulated node table cannot be read")
        return self._cluster.read()
