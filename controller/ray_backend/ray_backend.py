"""`RayBackend`: carries out the controller's requests on a Ray cluster."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import ray
import structlog

from sliceform.controller.backend import Finding, FleetIdentity, Sink
from sliceform.controller.errors import BackendError
from sliceform.controller.observed import Assembled, EffectFailed, Refused, Released, Reserved
from sliceform.controller.on_host import bootstrap, remote
from sliceform.controller.ray_backend import groups
from sliceform.controller.ray_backend.agents import Agents, brief
from sliceform.controller.ray_backend.connect import connect
from sliceform.controller.ray_backend.explain import explain
from sliceform.controller.ray_backend.held import Held
from sliceform.controller.ray_backend.io_thread import IoThread, QueueFullError
from sliceform.controller.ray_backend.name_lock import NameLock
from sliceform.controller.ray_backend.nodes import NodeReader
from sliceform.controller.ray_backend.pack import Packed, pack
from sliceform.controller.ray_backend.work import Workers
from sliceform.controller.requests import Assemble, Launch, Notify, Release, Request, Reserve, Stop
from sliceform.controller.spec import TpuSlice
from sliceform.states.effects import Effect

log = structlog.get_logger(__name__)

#: How often a group that is being removed is looked at, seconds: at first, and at most.
_LOOK_S, _LOOK_MAX_S = 0.005, 0.5


class RayBackend:
    """One fleet's slices on the Ray cluster that this process is connected to."""

    def __init__(self) -> None:
        """Nothing is touched before `open`."""
        self._held: dict[str, Held] = {}
        self._closed = threading.Event()
        self._opened = False

    def open(self, fleet: FleetIdentity, sink: Sink) -> None:
        """Connect to Ray, take the fleet's name, and begin to read the node table.

        Raises:
            ClusterError: the cluster cannot be reached or used.
            FleetNameTakenError: another controller holds the fleet's name.

        """
        if self._opened:
            raise BackendError("a RayBackend serves one fleet; make a new one")
        connect()
        for module in (bootstrap, remote):
            ray.cloudpickle.register_pickle_by_value(module)
        self._lock = NameLock(fleet.name, fleet.incarnation) if fleet.name is not None else None
        if self._lock is not None:
            self._lock.take()
        self._opened = True
        self._fleet, self._sink = fleet, sink
        self._io = IoThread(f"sliceform-ray-{fleet.label}", fleet.settings.io_queue_limit)
        self._nodes = NodeReader(self._io, fleet.settings.nodes_every_s, sink.post)
        self._agents = Agents(fleet, sink, self._io, self._nodes)
        self._workers = Workers(fleet, sink, self._io)
        self._nodes.start()

    def submit(self, request: Request) -> None:
        """Queue a request; what comes of it is posted to the sink."""
        try:
            self._io.put(lambda: self._carry_out(request))
        except QueueFullError as error:
            self._sink.post(EffectFailed(request.life, request.effect, str(error)))

    def forget(self, life: str) -> None:
        """Drop what is kept about a life."""
        self._io.put(lambda: self._drop(life))

    def poll(self) -> None:
        """Do nothing: everything is reported as it happens."""

    def pack(self, fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Packed:
        """Pickle the work once; see `pack.pack`."""
        return pack(fn, args, kwargs, self._fleet.shape)

    def explain(self, life: str, place: str | None, avoid: frozenset[str]) -> tuple[Finding, ...]:
        """Say why this slice is not ready; reads the node table and all groups."""
        return explain(self._name(life, ""), self._fleet.shape, place, avoid)

    def close(self) -> None:
        """Remove what is left, end the threads, and give the name back; idempotent."""
        if not self._opened or self._closed.is_set():
            return
        self._closed.set()
        if not self._io.stop(self._fleet.settings.close_grace_s):
            log.warning("io_thread_left", fleet=self._fleet.label)
        self._agents.close()
        if not ray.is_initialized():
            return
        left = [group for held in self._held.values() for group in (held.head, held.hosts) if group is not None]
        for group in left if any(not held.released for held in self._held.values()) else ():
            try:
                groups.remove(group)
            except Exception as error:  # noqa: BLE001 - the others must go all the same
                log.warning("group_not_removed", fleet=self._fleet.label, cause=brief(error))
        self._held.clear()
        if self._lock is not None:
            self._lock.release()

    # On the I/O thread.

    def _carry_out(self, request: Request) -> None:
        held = self._held.get(request.life)
        try:
            if isinstance(request, Release):
                self._release(held, request)
            elif isinstance(request, Reserve):
                self._reserve(held, request)
            elif held is None or held.releasing:
                return
            elif isinstance(request, Assemble):
                self._assemble(held, request)
            elif isinstance(request, Launch):
                self._workers.launch(held, request)
            elif isinstance(request, Stop):
                self._workers.stop(held, request)
            elif isinstance(request, Notify):
                self._workers.notify(held, request)
        except ValueError as error:
            self._sink.post(Refused(request.life, str(error)))
        except Exception as error:  # noqa: BLE001 - whatever Ray raises: it is asked for again
            log.warning("effect_failed", life=request.life, effect=request.effect.value, cause=brief(error))
            self._sink.post(EffectFailed(request.life, request.effect, brief(error)))

    def _drop(self, life: str) -> None:
        self._held.pop(life, None)

    def _name(self, life: str, part: str) -> str:
        return f"sliceform/{self._fleet.label}/{self._fleet.incarnation}/{life}/{part}"

    def _reserve(self, held: Held | None, request: Reserve) -> None:
        if held is None:
            held = self._held[request.life] = Held(request.life, request.shape)
        elif held.releasing:
            return
        if isinstance(request.shape, TpuSlice):
            if held.head is None:
                held.head = groups.head_group(request.shape, request.avoid, self._name(held.life, "head"))
                self._when_placed(held, held.head, self._head_placed)
            else:
                self._head_placed(held)
        elif held.hosts is None:
            held.hosts = groups.free_group(request.shape, request.avoid, self._name(held.life, "hosts"))
            self._when_placed(held, held.hosts, self._hosts_placed)
        else:
            self._hosts_placed(held)

    def _when_placed(self, held: Held, group: Any, then: Callable[[Held], None]) -> None:
        groups.when_placed(group, lambda: self._io.put(lambda: self._guarded(then, held)))

    def _guarded(self, job: Callable[[Held], None], held: Held) -> None:
        """Do something that follows from an answer; if it fails, the effect that it belongs to is asked for again."""
        if held.releasing:
            return
        try:
            job(held)
        except Exception as error:  # noqa: BLE001 - whatever Ray raises
            effect = Effect.ASSEMBLE if held.place is not None else Effect.RESERVE
            log.warning("effect_failed", life=held.life, effect=effect.value, cause=brief(error))
            self._sink.post(EffectFailed(held.life, effect, brief(error)))

    def _head_placed(self, held: Held) -> None:
        nodes = groups.nodes_of(groups.row(held.head))
        if nodes is None:
            return
        row = self._nodes.row(nodes[0])
        if row is None or row.place is None:
            raise BackendError(f"node {nodes[0][:8]} has no slice name in the node table")
        held.place, held.head_node = row.place, nodes[0]
        self._sink.post(Reserved(held.life, held.place, nodes))

    def _assemble(self, held: Held, request: Assemble) -> None:
        if held.hosts is None:
            if request.place is None:
                return
            held.hosts = groups.pinned_group(held.shape, request.place, self._name(held.life, "hosts"))
            self._when_placed(held, held.hosts, self._hosts_placed)
        else:
            self._hosts_placed(held)
        if not held.agents:
            self._agents.start(held)
            return
        for rank in range(len(held.agents)):
            self._agents.report(held, rank)

    def _hosts_placed(self, held: Held) -> None:
        nodes = groups.nodes_of(groups.row(held.hosts))
        if nodes is None:
            return
        held.nodes = nodes
        if isinstance(held.shape, TpuSlice):
            self._sink.post(Assembled(held.life, nodes))
        else:
            self._sink.post(Reserved(held.life, None, nodes))

    def _release(self, held: Held | None, request: Release) -> None:
        if held is None:
            held = self._held[request.life] = Held(request.life, self._fleet.shape, releasing=True, released=True)
        if held.released:
            self._sink.post(Released(held.life))
            return
        if held.releasing:
            return
        if not request.lost and request.grace_s > 0 and held.work is not None:
            self._workers.notify(held, Notify(held.life, held.work.key, time.time() + request.grace_s))
            self._workers.stop(held, Stop(held.life, held.work.key, request.grace_s))
            self._await_work(held, request, time.monotonic() + request.grace_s + 1.0)
            return
        self._remove(held, lost=request.lost)

    def _await_work(self, held: Held, request: Release, until: float) -> None:
        """Remove the groups when no process is left, or when the grace is over."""
        work = held.work
        if work is None or all(task.gone for task in work.tasks) or time.monotonic() >= until:
            self._remove(held, lost=request.lost)
        else:
            self._io.put(lambda: self._await_work(held, request, until), 0.05)

    def _remove(self, held: Held, *, lost: bool) -> None:
        """Remove the groups: after a loss both at once, else the head when the hosts are seen removed."""
        held.releasing = True
        for agent in held.agents:
            agent.over = True
            # Removing a group ends what runs in it, but not an actor that still waits for its bundle.
            ray.kill(agent.handle)
        for group in (held.hosts, held.head if lost or held.hosts is None else None):
            if group is not None:
                groups.remove(group)
        self._see_removed(held, _LOOK_S)

    def _see_removed(self, held: Held, look_s: float) -> None:
        try:
            if held.hosts is not None and groups.removed(held.hosts):
                held.hosts = None
                if held.head is not None:
                    groups.remove(held.head)
            if held.hosts is None and held.head is not None and groups.removed(held.head):
                held.head = None
        except Exception as error:  # noqa: BLE001 - whatever Ray raises: it is looked at again
            log.warning("removal_not_seen", life=held.life, cause=brief(error))
        if held.hosts is None and held.head is None:
            self._workers.forget(held)
            held.released = True
            self._sink.post(Released(held.life))
        else:
            self._io.put(lambda: self._see_removed(held, min(_LOOK_MAX_S, look_s * 1.5)), look_s)
