"""Agents: start one per bundle, let each describe its host, hear it, and report its loss.

Everything here runs on the I/O thread but what is said to run elsewhere.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import ray
import structlog
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from sliceform.controller.model.backend import FleetIdentity
from sliceform.controller.model.effects import Assemble
from sliceform.controller.model.events import AgentFailed, AgentUp, EffectFailed, HostLost
from sliceform.controller.on_host.notices import SIGTERM
from sliceform.controller.ray_backend import groups
from sliceform.controller.ray_backend.beats import Beats
from sliceform.controller.ray_backend.failures import Lost, Unreached, blame, node_gone
from sliceform.controller.ray_backend.group_watch import seen_removed
from sliceform.controller.ray_backend.lives import AgentHandle, Holding
from sliceform.controller.ray_backend.nodes import NodeReader
from sliceform.controller.ray_backend.notices import Notices
from sliceform.controller.ray_backend.probe import Suspicion
from sliceform.controller.ray_backend.reservations import Reservations
from sliceform.controller.ray_backend.session import Answer, Session
from sliceform.controller.ray_backend.shipped import Shipped
from sliceform.states.reasons import Reason

log = structlog.get_logger(__name__)

#: How soon an agent that could not be reached is called again, seconds: at first, and at most.
_AGAIN_S = 0.1
_AGAIN_MAX_S = 1.0
_GROUP_REMOVED = "its host group was removed"


class Agents:
    """Starts agents, and answers for what becomes of them."""

    def __init__(
        self,
        session: Session,
        nodes: NodeReader,
        reservations: Reservations,
        shipped: Shipped,
        notice_source: bytes | None,
    ) -> None:
        """Take what it works with, and the user's function that hosts ask for notices, pickled; `start` begins."""
        self._session = session
        self._nodes = nodes
        self._reservations = reservations
        self._shipped = shipped
        self._config = _config(session.fleet, notice_source)
        self._notices = Notices(session, self._notices_failed, self._confirm)
        self._beats = Beats(session.sink, session.fleet.settings.beat_s, self._beat_failed)
        self._suspicion = Suspicion()
        self._holdings: dict[str, Holding] = {}

    def start(self) -> None:
        """Begin to hear."""
        self._beats.start()

    def stop(self, timeout_s: float) -> bool:
        """Stop hearing; return whether the thread ended in time."""
        self._suspicion.stop()
        return self._beats.stop(timeout_s)

    def assemble(self, holding: Holding, request: Assemble) -> None:
        """Make the host group and the agents, or say once more what has become of them."""
        if not holding.held:
            return
        if holding.reserved is None:
            detail = "its reservation is not placed yet"
            self._session.post(EffectFailed(holding.slice_id, request.effect, detail))
            return
        if holding.agents:
            self._reservations.look_at_hosts(holding)
            for agent in holding.agents:
                if agent.end is not None:
                    self._session.post(agent.end)
                else:
                    self._describe(agent)
            return
        self._holdings[holding.slice_id] = holding
        holding.units = request.units
        if holding.hosts is None:
            place = request.place or holding.reserved.place
            assert place is not None
            name = self._reservations.name(holding.slice_id, "hosts")
            holding.hosts = groups.pinned_group(name, request.shape, place, request.units)
        # Agents queue on the group: their processes start as soon as it is placed, with nothing asked in between.
        holding.agents = tuple(self._start(holding, rank) for rank in range(request.shape.hosts))
        for agent in holding.agents:
            self._describe(agent)
        if holding.head is not None:
            self._reservations.watch_hosts(holding)
        else:
            self._reservations.look_at_hosts(holding)

    def forget(self, slice_id: str) -> None:
        """Drop a life that has been released."""
        self._holdings.pop(slice_id, None)

    def lose(self, agent: AgentHandle, reason: Reason, detail: str) -> None:
        """Report a host as lost, once; its whole slice if it is the group that is gone."""
        if not agent.serves:
            return
        rank = None if reason is Reason.GROUP_LOST else agent.rank
        agent.end = HostLost(agent.slice_id, rank, reason, detail)
        self._session.post(agent.end)
        # The node's death says more than the agent's: the sooner it is known, the better.
        self._nodes.soon()

    def raylet(self, agent: AgentHandle) -> tuple[str, int] | None:
        """Return where the raylet of an agent's node listens or listened; None if that was never known."""
        return self._nodes.raylet(self._node_of(agent))

    def doubt(self, agent: AgentHandle, then: Any) -> None:
        """Find out whether an agent's raylet is gone beyond doubt; `then(verdict)` runs on the I/O thread."""
        self._suspicion.ask(self.raylet(agent), lambda verdict: self._session.io.put(partial(then, verdict)))

    def _start(self, holding: Holding, rank: int) -> AgentHandle:
        strategy = PlacementGroupSchedulingStrategy(
            placement_group=holding.hosts, placement_group_bundle_index=rank, placement_group_capture_child_tasks=False
        )
        config = {"slice_id": holding.slice_id, "rank": rank, **self._config}
        return AgentHandle(
            holding.slice_id, rank, self._shipped.agent.options(scheduling_strategy=strategy).remote(config)
        )

    def _describe(self, agent: AgentHandle) -> None:
        self._session.when_done(agent.actor.describe.remote(), partial(self._described, agent))

    def _described(self, agent: AgentHandle, answer: Answer) -> None:
        if not agent.serves:
            return
        error = answer.exception()
        if error is not None:
            if agent.up is None:
                self._take_failure(agent, error, self._describe)
            return
        host = answer.result()
        first = agent.up is None
        agent.unreached = 0
        agent.up = AgentUp(
            agent.slice_id,
            agent.rank,
            host["node_id"],
            host["address"],
            self._devices(agent, host["node_id"]),
            int(host["pid"]),
        )
        self._session.post(agent.up)
        if first:
            self._beats.open(agent)
            self._notices.open(agent)
        else:
            self._notices.tell_again(agent)

    def _devices(self, agent: AgentHandle, node_id: str) -> int:
        """Return how many accelerators of the shape's kind a node has in all."""
        name = self._session.fleet.shape.devices_per_host.name
        row, holding = self._nodes.row(node_id), self._holdings.get(agent.slice_id)
        if name is None or row is None or holding is None:
            return 0
        return int(row.resources.get(name, 0)) // holding.units

    def _notices_failed(self, agent: AgentHandle, error: BaseException) -> None:
        self._take_failure(agent, error, self._notices.open)

    def _confirm(self, agent: AgentHandle, source: str) -> bool:
        """Whether a notice is one: agents whose group somebody removed get the signal of a host that is shut down."""
        if source != SIGTERM or not self._group_removed(agent):
            return True
        self.lose(agent, Reason.GROUP_LOST, _GROUP_REMOVED)
        return False

    def _group_removed(self, agent: AgentHandle) -> bool:
        holding = self._holdings.get(agent.slice_id)
        return holding is not None and holding.hosts is not None and seen_removed(holding.hosts)

    def _beat_failed(self, agent: AgentHandle, error: BaseException) -> None:
        """Take a beat that failed to the I/O thread; called on the thread of the beats."""
        self._session.io.put(partial(self._take_failure, agent, error, self._beats.open))

    def _take_failure(self, agent: AgentHandle, error: BaseException, again: Any) -> None:
        """Decide what a failed call says of an agent: lost, failed to start, or to be called again."""
        if not agent.serves:
            return
        verdict = blame(error)
        if isinstance(verdict, Lost) and verdict.reason is Reason.AGENT_DIED and self._group_removed(agent):
            verdict = Lost(Reason.GROUP_LOST, _GROUP_REMOVED)
        if isinstance(verdict, Unreached):
            self.doubt(agent, partial(self._doubted, agent, error, again))
        elif agent.up is None and verdict.reason is Reason.AGENT_DIED:
            log.warning("agent_failed", slice=agent.slice_id, rank=agent.rank, cause=verdict.detail)
            agent.end = AgentFailed(agent.slice_id, agent.rank, verdict.detail)
            self._session.post(agent.end)
        else:
            log.info("agent_lost", slice=agent.slice_id, rank=agent.rank, reason=verdict.reason, cause=verdict.detail)
            self.lose(agent, verdict.reason, verdict.detail)

    def _doubted(self, agent: AgentHandle, error: BaseException, again: Any, refused: bool) -> None:  # noqa: FBT001
        if not agent.serves:
            return
        if refused:
            verdict = node_gone(f"its raylet refuses connections ({type(error).__name__})")
            log.info("agent_lost", slice=agent.slice_id, rank=agent.rank, reason=verdict.reason, cause=str(error))
            self.lose(agent, verdict.reason, verdict.detail)
            return
        delay_s = min(_AGAIN_MAX_S, _AGAIN_S * 2 ** min(agent.unreached, 10))
        agent.unreached += 1
        log.info("agent_unreached", slice=agent.slice_id, rank=agent.rank, times=agent.unreached, cause=str(error))
        self._session.io.put(partial(again, agent), delay_s)

    def _node_of(self, agent: AgentHandle) -> str | None:
        """Return the node that an agent is on, as far as it is known."""
        if agent.up is not None:
            return agent.up.node_id
        holding = self._holdings.get(agent.slice_id)
        if holding is None or holding.assembled is None:
            return None
        return holding.assembled.nodes[agent.rank]


def kill(agent: AgentHandle) -> None:
    """End an agent by force."""
    agent.closed = True
    try:
        ray.kill(agent.actor)
    except (ray.exceptions.RayError, ValueError) as error:
        log.warning("agent_not_killed", slice=agent.slice_id, rank=agent.rank, cause=repr(error))


def _config(fleet: FleetIdentity, source: bytes | None) -> dict[str, Any]:
    """Return what the agents of all hosts are given."""
    settings = fleet.settings
    return {
        "incarnation": fleet.incarnation,
        "fence_s": settings.effective_fence_s,
        "ports": settings.port_range,
        "watch": {
            "metadata": settings.metadata_notices,
            "source": source,
            "every_s": settings.notice_every_s,
        },
        "clean": {
            "tpu": fleet.shape.devices_per_host.name == "TPU",
            "holders": settings.clean_devices,
            "kill_others": settings.kill_device_holders,
        },
    }
