"""`SlicePoolManager`: the old pool's methods, each a few calls to a fleet."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sliceform.controller.api.controller import SliceController
from sliceform.controller.compat.desk import Desk
from sliceform.controller.compat.handles import SliceHandle
from sliceform.controller.compat.infos import SERVING, ActorPoolMember, SliceInfo, slice_info
from sliceform.controller.errors import ConfigurationError, InsufficientSlicesError
from sliceform.controller.model.backend import Backend
from sliceform.controller.model.settings import Settings
from sliceform.controller.model.shapes import SliceShape, TpuSlice
from sliceform.controller.model.sizes import parse_sizes
from sliceform.controller.model.status import FleetStatus, SliceStatus
from sliceform.controller.reconcile.decide.run import assign

Member = ActorPoolMember[SliceHandle, SliceInfo]

#: How long slices may take to come, seconds: the old variable, and the old default of a week.
_ADD_TIMEOUT = ("EFORMER_SCALE_ADD_TIMEOUT_S", 604_800.0)
#: After a change of size, `should_scale_up_multislice` says no for so long, seconds.
_COOL_DOWN_S = 60.0


class SlicePoolManager:
    """A pool of slices, as eFormer's class of this name offers it; a `SliceController` does the work.

    May be used from several threads. What it holds is let go by `drain_actor_pool`, at the latest when the interpreter
    ends; it can be scaled again afterwards.

    Args:
        tpu_type: for example `v4-16`; may be None if `shape` is given.
        shape: what every slice looks like, where a TPU slice with one CPU per host will not do.
        settings: times and limits of the fleet; by default from the environment.
        make_backend: makes the backend of the fleet; by default Ray's.

    Raises:
        ValueError: there is no such TPU type.

    """

    def __init__(
        self,
        tpu_type: str | None,
        *,
        shape: SliceShape | None = None,
        settings: Settings | None = None,
        make_backend: Callable[[], Backend] | None = None,
    ) -> None:
        if shape is None and tpu_type is None:
            raise ConfigurationError("SlicePoolManager needs a TPU type such as 'v4-16', or a shape")
        self._shape = shape or TpuSlice(str(tpu_type))
        self._settings = settings or Settings()
        self._make_backend = make_backend
        self._desk: Desk | None = None
        self._members: list[Member] = []
        self._scaled_at: float | None = None
        self._lock = threading.RLock()

    # How many slices.

    def scale_multislice(self, num_slices: int | Iterable[int]) -> None:
        """Bring the pool to this many slices, or to the largest of several valid sizes that can be had; wait for it.

        A smaller size will do once no slice has been added for `settings.settle_s`. Slices that stay are not touched.

        Raises:
            ValueError: the number or the sizes cannot work; nothing has changed.
            InsufficientSlicesError: not even the smallest size is there after `EFORMER_SCALE_ADD_TIMEOUT_S`; says why.

        """
        sizes = parse_sizes(num_slices)
        with self._lock:
            self._scaled_at = time.monotonic()
            desk = self._desk
            if desk is None:
                desk = self._desk = self._open(sizes)
            else:
                desk.fleet.scale(sizes)
        self._gather(desk, sizes, _Reached(sizes, self._settings.settle_s, scaled=True))
        with self._lock:
            self._scaled_at = time.monotonic()

    def should_scale_up_multislice(self, valid_sizes: Iterable[int]) -> bool:
        """Whether a larger valid size is there, or was never asked for; not within a minute of the last change."""
        with self._lock:
            current, desk, scaled_at = len(self._members), self._desk, self._scaled_at
        larger = min((size for size in valid_sizes if size > current), default=None)
        if larger is None or (scaled_at is not None and time.monotonic() - scaled_at < _COOL_DOWN_S):
            return False
        if desk is None:
            return True
        status = desk.fleet.status()
        return status.sizes[-1] < larger or status.ready >= larger

    def prepare_all_slices(self) -> None:
        """Wait until every slice of the pool takes work; a slice that was lost is replaced, in its place.

        Raises:
            InsufficientSlicesError: not all of them do after `EFORMER_SCALE_ADD_TIMEOUT_S`, or the pool was not scaled.

        """
        with self._lock:
            desk, size = self._desk, len(self._members)
        if desk is None or not size:
            raise InsufficientSlicesError(1, 0, {"pool": "it is empty; call scale_multislice first"})
        self._gather(desk, (size,), _Reached((size,), 0.0, scaled=False))

    def drain_actor_pool(self) -> None:
        """Stop all work and let all slices go; does nothing if there are none."""
        with self._lock:
            desk, self._desk = self._desk, None
            self._members = []
        if desk is not None:
            atexit.unregister(self.drain_actor_pool)
            desk.close()

    # Who is there.

    def get_all_pool_members(self) -> list[Member]:
        """Return the slices of the pool with their infos; a slice keeps its position, its replacement takes it over."""
        with self._lock:
            return list(self._members)

    def get_all_actors_in_pool(self) -> list[SliceHandle]:
        """Return the handles of the slices of the pool."""
        return [member.actor for member in self.get_all_pool_members()]

    # Work.

    def execute_on_each_slice(
        self, remote_fn: Any, env: Mapping[str, Any] | None = None, runtime_env: Mapping[str, Any] | None = None
    ) -> list[list[Any]]:
        """Run a function on all hosts of all slices; return references to the values, by slice and host."""
        self.prepare_all_slices()
        actors = self.get_all_actors_in_pool()
        made = [actor.call_all(remote_fn, env=env, runtime_env=runtime_env) for actor in actors]
        return [self._failed(actor) if refs is None else refs for actor, refs in zip(actors, made, strict=True)]

    def execute_on_each_host_flat(
        self, remote_fn: Any, env: Mapping[str, Any] | None = None, runtime_env: Mapping[str, Any] | None = None
    ) -> list[Any]:
        """Run a function on all hosts of all slices; return references to the values in one list."""
        return [ref for refs in self.execute_on_each_slice(remote_fn, env, runtime_env) for ref in refs]

    def schedule_on_each_host(
        self, remote_fn: Any, env: Mapping[str, Any] | None = None, runtime_env: Mapping[str, Any] | None = None
    ) -> list[Any]:
        """Do as `execute_on_each_host_flat`: neither waits for the values."""
        return self.execute_on_each_host_flat(remote_fn, env, runtime_env)

    def execute_on_each_host(
        self, fn: Any, *args: Any, env: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[list[Any]]:
        """Run `fn(*args, **kwargs)` on all hosts of all slices; wait, and return the values by slice and host."""
        self.prepare_all_slices()
        actors = self.get_all_actors_in_pool()
        made = [actor.call_all(fn, env=env, f_args=args, f_kwargs=kwargs) for actor in actors]
        refs = [self._failed(actor) if made is None else made for actor, made in zip(actors, made, strict=True)]
        return [self._opened().refs.get(row) for row in refs]

    # Inside.

    def _open(self, sizes: tuple[int, ...]) -> Desk:
        backend = None if self._make_backend is None else self._make_backend()
        fleet = SliceController(self._shape, sizes, settings=self._settings, backend=backend).start()
        try:
            desk = Desk(fleet)
        except BaseException:
            fleet.close(grace_s=0.0)
            raise
        atexit.register(self.drain_actor_pool)
        return desk

    def _opened(self) -> Desk:
        with self._lock:
            if self._desk is None:
                raise InsufficientSlicesError(1, 0, {"pool": "it was drained meanwhile"})
            return self._desk

    def _failed(self, actor: SliceHandle) -> list[Any]:
        """Return references that fail for a slice that was lost since it was prepared."""
        desk = self._opened()
        return [desk.failed(actor.slice_id) for _ in range(self._shape.hosts)]

    def _gather(self, desk: Desk, sizes: tuple[int, ...], reached: _Reached) -> None:
        """Wait for a valid size, and take its slices for the pool."""
        desk.wait(reached, float(os.environ.get(_ADD_TIMEOUT[0]) or _ADD_TIMEOUT[1]))
        status = desk.fleet.wait_ready(sizes[0], timeout_s=0.0)  # if they are not, says why each one is missing
        rows = {row.id: row for row in status.slices if row.state in SERVING}
        size = max((size for size in sizes if size <= len(rows)), default=0)
        with self._lock:
            kept = {member.actor.slice_id: member for member in self._members}
            chosen = assign(list(kept), list(rows), size)
            self._members = [kept.get(name) or self._member(desk, rows[name]) for name in chosen]

    def _member(self, desk: Desk, row: SliceStatus) -> Member:
        return ActorPoolMember(SliceHandle(desk.token, row.id), slice_info(row, self._shape))


class _Reached:
    """Whether a valid size is reached: the largest, or a smaller one and nothing was added for a while."""

    def __init__(self, sizes: tuple[int, ...], settle_s: float, *, scaled: bool) -> None:
        """Take the sizes, ascending, and whether the fleet was just told to aim for them."""
        self._sizes = sizes
        self._settle_s = settle_s
        self._scaled = scaled
        self._ready = 0
        self._since = time.monotonic()

    def __call__(self, status: FleetStatus) -> bool:
        """Look at the fleet."""
        if self._scaled and (status.sizes != self._sizes or _shrinks(status)):
            return False
        if status.ready != self._ready:
            self._ready, self._since = status.ready, time.monotonic()
        settled = time.monotonic() - self._since >= self._settle_s
        return status.ready >= (self._sizes[0] if settled else self._sizes[-1])


def _shrinks(status: FleetStatus) -> bool:
    """Whether slices are still to be let go; which ones is not known before."""
    live = sum(status.counts.get(state, 0) for state in ("pending", "placed", "ready", "running"))
    return live > max(status.sizes[-1], status.counts.get("running", 0))
