"""Reserve: make the group that claims a slice, and report where it was placed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import ray
import structlog
from ray.util.placement_group import PlacementGroup

from sliceform.controller.model.effects import Reserve
from sliceform.controller.model.events import Assembled, Refused, Reserved
from sliceform.controller.model.shapes import TpuSlice
from sliceform.controller.ray_backend import groups, private
from sliceform.controller.ray_backend.lives import Holding
from sliceform.controller.ray_backend.nodes import NodeReader
from sliceform.controller.ray_backend.session import Answer, Session

log = structlog.get_logger(__name__)

#: How soon to look again at a group whose row does not say yet what its readiness said, seconds.
_LOOK_AGAIN_S = 0.1


class Reservations:
    """Everything here runs on the I/O thread."""

    def __init__(self, session: Session, nodes: NodeReader, by_replica: Callable[[], bool]) -> None:
        """Take the session, the node table, and whether slices are asked for by groups of their own: `demand.py`."""
        self._session = session
        self._nodes = nodes
        self._by_replica = by_replica

    def name(self, slice_id: str, part: str) -> str:
        """Return the name of a group of a life; `part` is `head` or `hosts`."""
        fleet = self._session.fleet
        return f"sliceform/{fleet.label}/{fleet.incarnation}/{slice_id}/{part}"

    def reserve(self, holding: Holding, request: Reserve) -> None:
        """Ask for the group, or say once more what has become of it."""
        if not holding.held:
            return
        told = holding.reserved or holding.refused
        if told is not None:
            self._session.post(told)
        elif holding.groups:
            self._look(holding)
            if holding.reserved is None and holding.refused is None and request != holding.asked:
                self._replace(holding, request)
        else:
            self._create(holding, request)

    def claim(self, holding: Holding) -> None:
        """Where slices are asked for by groups of their own: have a head group wait if a head is free, else none."""
        request = holding.asked
        assert request is not None
        self._look(holding)
        if not holding.waits:
            return
        free = self._head_is_free(request)
        if holding.head is not None and (holding.head_is_demand or not free):
            groups.remove(holding.head)
            holding.head = None
        if holding.head is None and free:
            self._create(holding, request)

    def watch_hosts(self, holding: Holding) -> None:
        """Report `Assembled` when the host group is placed."""
        assert holding.hosts is not None
        self._session.when_done(holding.hosts.ready(), partial(self._hosts_ready, holding))

    def look_at_hosts(self, holding: Holding) -> None:
        """Report where the host group is now; nothing while it is not placed."""
        if not holding.held or holding.hosts is None:
            return
        nodes = groups.nodes_of(groups.row_of(holding.hosts))
        if nodes is not None:
            holding.assembled = Assembled(holding.slice_id, nodes)
            self._session.post(holding.assembled)

    def _create(self, holding: Holding, request: Reserve) -> None:
        shape = holding.shape = request.shape
        holding.asked = request
        try:
            if isinstance(shape, TpuSlice):
                holding.head_is_demand = not self._by_replica()
                if not holding.head_is_demand and not self._head_is_free(request):
                    return
                name = self.name(holding.slice_id, "head")
                group = holding.head = groups.head_group(name, shape, request, demand=holding.head_is_demand)
            else:
                group = holding.hosts = groups.free_group(self.name(holding.slice_id, "hosts"), request)
        except (TypeError, ValueError) as error:
            log.warning("reservation_refused", slice=holding.slice_id, cause=repr(error))
            self._refuse(holding, str(error))
            return
        self._session.when_done(group.ready(), partial(self._ready, holding, group))

    def _replace(self, holding: Holding, request: Reserve) -> None:
        """Ask anew with another selector, which Ray cannot change in a group that waits."""
        for group in holding.groups:
            groups.remove(group)
        holding.head = holding.hosts = None
        self._create(holding, request)

    def _head_is_free(self, request: Reserve) -> bool:
        """Whether a worker 0 that the request may have is claimed by nobody, as far as that can be known."""
        shape = request.shape
        assert isinstance(shape, TpuSlice)
        free = private.available_resources()
        return any(
            free is None or node.id not in free or free[node.id].get(shape.head_resource, 0) >= 1
            for node in self._nodes.nodes.values()
            if node.alive and node.worker_id == 0 and shape.head_resource in node.resources
            if node.place not in request.avoid and node.id not in request.avoid_nodes
        )

    def _ready(self, holding: Holding, group: PlacementGroup, answer: Answer) -> None:
        if not holding.held or group not in holding.groups:
            return
        error = answer.exception()
        if error is None:
            self._look(holding)
        elif isinstance(error, ray.exceptions.TaskPlacementGroupRemoved):
            self._refuse(holding, "somebody removed its placement group")
        else:
            log.warning("group_unwatched", slice=holding.slice_id, cause=repr(error))
            self._session.io.put(partial(self._look, holding), _LOOK_AGAIN_S)

    def _look(self, holding: Holding) -> None:
        """Read the group's row, and report the reservation if it is placed; otherwise its readiness is awaited."""
        if not holding.held or holding.reserved is not None:
            return
        group = holding.head or holding.hosts
        if group is None:
            return
        nodes = groups.nodes_of(groups.row_of(group))
        if nodes is None:
            return
        place = None
        if holding.head is not None:
            row = self._nodes.row(nodes[0])
            if row is None:
                self._session.io.put(partial(self._look, holding), _LOOK_AGAIN_S)
                return
            if row.place is None:
                self._refuse(holding, f"node {row.id} offers a TPU head, but has no label with a slice name")
                return
            place = row.place
        holding.reserved = Reserved(holding.slice_id, place, nodes)
        self._session.post(holding.reserved)

    def _hosts_ready(self, holding: Holding, answer: Answer) -> None:
        error = answer.exception()
        if error is None:
            self.look_at_hosts(holding)
        elif holding.held:
            log.warning("group_unwatched", slice=holding.slice_id, cause=repr(error))

    def _refuse(self, holding: Holding, detail: str) -> None:
        holding.refused = Refused(holding.slice_id, detail)
        self._session.post(holding.refused)
