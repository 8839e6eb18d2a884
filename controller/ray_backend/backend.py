"""The cluster as Ray shows it: carries out what the controller asks for, and reports what becomes of it.

Calls that wait on Ray's GCS run on one I/O thread, which also owns all that is known of lives; Ray's own callback
thread only queues. Nothing is installed on nodes, and nothing outlives the driver: Ray removes groups and
agents with it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from uuid import uuid4

import structlog
from ray.util.placement_group import PlacementGroup

from sliceform.controller.errors import BackendError, ClusterError
from sliceform.controller.model.backend import Finding, FleetIdentity, Sink
from sliceform.controller.model.effects import Assemble, EffectRequest, Launch, Notify, Release, Reserve, Stop
from sliceform.controller.model.events import EffectFailed, Explained, HostLost, NodesSeen, ObservationFailed
from sliceform.controller.model.shapes import TpuSlice
from sliceform.controller.ray_backend import groups
from sliceform.controller.ray_backend.agents import Agents, kill
from sliceform.controller.ray_backend.attempts import Attempts
from sliceform.controller.ray_backend.connect import connect
from sliceform.controller.ray_backend.demand import Demands, has_to_be_asked_for
from sliceform.controller.ray_backend.endings import Endings
from sliceform.controller.ray_backend.explain import explain, explain_demand, look
from sliceform.controller.ray_backend.failures import words
from sliceform.controller.ray_backend.fence import Fences
from sliceform.controller.ray_backend.group_watch import GroupWatch
from sliceform.controller.ray_backend.io_thread import IoThread
from sliceform.controller.ray_backend.lives import Holding, Stage
from sliceform.controller.ray_backend.metrics import RayMeter
from sliceform.controller.ray_backend.name_lock import NameLock
from sliceform.controller.ray_backend.nodes import NodeReader
from sliceform.controller.ray_backend.notices import pack_source
from sliceform.controller.ray_backend.pack import pack
from sliceform.controller.ray_backend.release import Releases
from sliceform.controller.ray_backend.reservations import Reservations
from sliceform.controller.ray_backend.session import Session
from sliceform.controller.ray_backend.shipped import ship
from sliceform.states.reasons import Reason

log = structlog.get_logger(__name__)

#: The least that closing may take, seconds, whatever grace is given to work.
_CLOSE_LEAST_S = 5.0


class RayBackend:
    """Slices on a Ray cluster; see `sliceform.controller.model.backend.Backend`.

    Args:
        address: of the cluster, as `ray.init` takes it; None = the connection that this process has, else the variable
            `RAY_ADDRESS`, else the cluster on this machine.

    """

    def __init__(self, address: str | None = None) -> None:
        self._address = address
        self._parts: _Parts | None = None
        self._closed = False
        self._lock = threading.Lock()

    def open(self, fleet: FleetIdentity, sink: Sink) -> None:
        """Connect, take the fleet's name if it has one, and begin to observe.

        Raises:
            RayUnreachableError: there is no cluster.
            RayClientError: the process is connected through Ray Client.
            RayWorkerError: the process is an actor or a task.
            RayTokenError: the cluster has a token that this process has not.
            RayVersionError: Ray is too old.
            UnpicklableFunctionError: the fleet's `notice_source` cannot be sent to hosts.
            FleetNameTakenError: another controller holds the name.
            BackendError: it was opened before.

        """
        with self._lock:
            if self._parts is not None or self._closed:
                raise BackendError("a RayBackend serves one fleet, once: make a new one")
            source = pack_source(fleet.notice_source)
            job = connect(self._address)
            lock = None
            if fleet.name is not None:
                lock = NameLock(fleet.name, f"{fleet.incarnation}/{uuid4().hex}")
                lock.take()
            self._parts = _Parts(fleet, sink, job, lock, source)
            self._parts.start()

    def submit(self, request: EffectRequest) -> None:
        """Take a request; what comes of it is reported to the sink. Never waits."""
        parts = self._parts
        if parts is not None and not self._closed:
            parts.submit(request)

    def forget(self, slice_id: str) -> None:
        """Drop what is kept about a life that has been released."""
        parts = self._parts
        if parts is not None:
            parts.session.io.put(partial(parts.forget, slice_id))

    def poll(self) -> None:
        """Do nothing: answers come by themselves."""

    def explain(self, slice_id: str, place: str | None, avoid: Mapping[str, str]) -> tuple[Finding, ...]:
        """Say why this slice is not ready; waits on the cluster."""
        parts = self._parts
        if parts is None or self._closed:
            return ()
        return parts.explain(slice_id, place, avoid)

    def inquire(self, slice_id: str, place: str | None, avoid: Mapping[str, str]) -> None:
        """Have `explain` answered on a thread of its own: it reads all groups, which must hold up nothing else."""
        parts = self._parts
        if parts is not None and not self._closed:
            asked = partial(parts.inquire, slice_id, place, avoid)
            threading.Thread(target=asked, name="sliceform-explain", daemon=True).start()

    def pack(
        self,
        fn: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        runtime_env: Mapping[str, Any] | None = None,
    ) -> Any:
        """Pickle the work, once, on the user's thread.

        Raises:
            UnpicklableFunctionError: naming the part that cannot be pickled.
            ConfigurationError: a Ray remote function has options that the fleet cannot honour.
            BackendError: the backend is not open.

        """
        if self._parts is None:
            raise BackendError("the backend is not open")
        return pack(fn, args, kwargs, self._parts.session.fleet.shape, runtime_env)

    def meter(self) -> RayMeter:
        """Return Ray's instruments for what is measured of the fleet."""
        return RayMeter()

    def close(self) -> None:
        """Remove all groups and agents that are left and let go of the name, within a bound; idempotent."""
        with self._lock:
            parts, closed, self._closed = self._parts, self._closed, True
        if parts is not None and not closed:
            parts.close()


class _Parts:
    """An open backend."""

    def __init__(self, fleet: FleetIdentity, sink: Sink, job: str, lock: NameLock | None, source: Any) -> None:
        self._lock = lock
        self._holdings: dict[str, Holding] = {}
        io = IoThread("sliceform-io", fleet.settings.io_queue_limit)
        self.session = Session(fleet, sink, io, job)
        self._nodes = NodeReader(fleet.settings.nodes_every_s, self.session.check, self._nodes_read)
        shipped = ship()
        self._reservations = Reservations(self.session, self._nodes, self._asks_by_replica)
        #: What has slices come that no reservation brings, if there are such.
        self._demands: Demands | None = None
        if has_to_be_asked_for(fleet.shape):
            nodes, claim = self._nodes, self._reservations.claim
            self._demands = Demands(self.session, fleet.shape, lambda: nodes.nodes, self._holdings, claim)
        self._agents = Agents(self.session, self._nodes, self._reservations, shipped, source)
        self._fences = Fences(shipped.clear_host, fleet.settings.effective_fence_s)
        self._endings = Endings(self.session, self._holdings, self._agents, self._fences)
        self._attempts = Attempts(self.session, self._holdings, self._endings, shipped)
        self._releases = Releases(self.session, self._endings)
        self._groups = GroupWatch(self._claims, self._claim_removed)

    def start(self) -> None:
        self.session.io.start()
        self._agents.start()
        self._fences.start()
        self._groups.start()
        self._nodes.start()
        if self._demands is not None:
            self._demands.start()

    def _asks_by_replica(self) -> bool:
        return self._demands is not None and self._demands.ask_whether_by_replica()

    def submit(self, request: EffectRequest) -> None:
        if not self.session.io.offer(partial(self._carry_out, request)):
            self.session.post(
                EffectFailed(request.slice_id, request.effect, "too many calls to the cluster are waiting")
            )

    def _nodes_read(self, event: NodesSeen | ObservationFailed) -> None:
        """Report what the thread of the node table read; hosts that came may be what a slice waits for."""
        self.session.post(event)
        if self._demands is not None and isinstance(event, NodesSeen) and event.changed:
            self._demands.soon()

    def forget(self, slice_id: str) -> None:
        holding = self._holdings.get(slice_id)
        if holding is not None and holding.stage is Stage.RELEASED:
            self._attempts.forget(holding)
            self._agents.forget(slice_id)
            del self._holdings[slice_id]

    def explain(self, slice_id: str, place: str | None, avoid: Mapping[str, str]) -> tuple[Finding, ...]:
        self.session.check()
        holding = self._holdings.get(slice_id)
        shape = self.session.fleet.shape
        if holding is not None and holding.shape is not None:
            shape = holding.shape
        found = explain(look(self._reservations.name(slice_id, "")), holding, shape, place, avoid)
        standing = None if self._demands is None else self._demands.standing
        if standing is not None and isinstance(shape, TpuSlice) and holding is not None and holding.waits:
            found = (*explain_demand(standing, shape), *found)
        return found

    def inquire(self, slice_id: str, place: str | None, avoid: Mapping[str, str]) -> None:
        """Explain to the sink; what cannot be read now is asked again later."""
        try:
            findings = self.explain(slice_id, place, avoid)
        except Exception as error:  # noqa: BLE001 - whatever Ray raises when it cannot be read
            log.info("explain_failed", slice=slice_id, cause=words(error))
            return
        self.session.post(Explained(slice_id, findings))

    def _claims(self) -> list[PlacementGroup]:
        """Return the claims on slices, in which nothing runs: with a host group its agents end, who tell of it."""
        holdings = list(self._holdings.values())
        return [h.head for h in holdings if h.held and h.head is not None and h.reserved is not None]

    def _claim_removed(self, group: PlacementGroup) -> None:
        """Report a slice whose claim is gone, on the thread of the watch; the loop takes a loss once."""
        for holding in list(self._holdings.values()):
            if holding.held and holding.head is group:
                self.session.post(HostLost(holding.slice_id, None, Reason.GROUP_LOST, "its head group was removed"))

    def _carry_out(self, request: EffectRequest) -> None:
        """Do what is asked for, on the I/O thread; what fails is reported, to be asked for again."""
        try:
            if not isinstance(request, Release):
                self.session.check()
            self._dispatch(request)
        except Exception as error:  # noqa: BLE001 - whatever Ray raises, the loop decides
            log.warning("request_failed", slice=request.slice_id, effect=request.effect.value, cause=repr(error))
            self.session.post(EffectFailed(request.slice_id, request.effect, words(error)))

    def _dispatch(self, request: EffectRequest) -> None:
        holding = self._holdings.get(request.slice_id)
        if holding is None:
            holding = self._holdings[request.slice_id] = Holding(request.slice_id)
        match request:
            case Reserve():
                self._reservations.reserve(holding, request)
            case Assemble():
                self._agents.assemble(holding, request)
            case Launch():
                self._attempts.launch(holding, request)
            case Notify():
                self._attempts.notify(holding, request)
            case Stop():
                self._endings.stop(holding, request)
            case Release():
                self._releases.release(holding, request)

    def close(self) -> None:
        end = time.monotonic() + max(_CLOSE_LEAST_S, self.session.fleet.settings.close_grace_s)
        removed = threading.Event()
        self.session.io.put(partial(self._remove_all, removed.set))
        if not removed.wait(max(0.0, end - time.monotonic())):
            log.warning("not_all_removed", fleet=self.session.fleet.label, left=self._left())
        stops: tuple[Callable[[float], bool], ...] = (
            self._agents.stop,
            self._fences.stop,
            self._groups.stop,
            self._nodes.stop,
            self.session.io.stop,
        )
        for stop in stops:
            if not stop(max(0.1, end - time.monotonic())):
                log.warning("thread_not_ended", fleet=self.session.fleet.label)
        if self._lock is not None and self.session.connected:
            self._lock.release()

    def _left(self) -> list[str]:
        return [life for life, holding in list(self._holdings.items()) if holding.stage is not Stage.RELEASED]

    def _remove_all(self, done: Callable[[], None]) -> None:
        """Remove what is left at once; on the I/O thread."""
        try:
            if self._left():
                self.session.check()
            if self._demands is not None:
                self._demands.close()
            for life in self._left():
                self._remove(self._holdings[life])
        except ClusterError as error:
            log.info("removed_with_connection", fleet=self.session.fleet.label, cause=str(error))
        finally:
            done()

    def _remove(self, holding: Holding) -> None:
        holding.stage = Stage.RELEASING
        try:
            for agent in holding.agents:
                kill(agent)
            for group in holding.groups:
                groups.remove(group)
        except Exception as error:  # noqa: BLE001 - the others are still to be removed
            log.warning("not_removed", slice=holding.slice_id, cause=repr(error))
