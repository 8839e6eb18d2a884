"""Start the agents of a slice, hear them beat, and find out what it means when one does not answer."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
import structlog
from ray.exceptions import ActorUnavailableError, RayActorError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from sliceform.controller.backend import FleetIdentity, Sink
from sliceform.controller.observed import AgentFailed, AgentUp, HostLost
from sliceform.controller.on_host import bootstrap
from sliceform.controller.on_host.remote import AgentActor
from sliceform.controller.ray_backend.held import Agent, Held
from sliceform.controller.ray_backend.io_thread import IoThread
from sliceform.controller.ray_backend.nodes import NodeReader
from sliceform.states.reasons import Reason

log = structlog.get_logger(__name__)

#: How long a node's raylet may take to accept a connection before its silence says nothing, seconds.
_CONNECT_S = 1.0
#: Pause before a host that could not be reached is tried again, seconds.
_RETRY_S = 0.25
_CONFIRMERS = 8
#: How much of Ray's own message is kept, characters.
_GIST = 160


class Agents:
    """All agents of one fleet. Calls are made on the I/O thread; answers are taken on Ray's."""

    def __init__(self, fleet: FleetIdentity, sink: Sink, io: IoThread, nodes: NodeReader) -> None:
        """Take where to report, where to call, and what is known of nodes."""
        self._fleet = fleet
        self._sink = sink
        self._io = io
        self._nodes = nodes
        self._sources = bootstrap.sources()
        self._actor = ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0)(AgentActor)
        self._confirmers = ThreadPoolExecutor(_CONFIRMERS, thread_name_prefix="sliceform-confirm")

    def start(self, held: Held) -> None:
        """Start an agent in every bundle of the host group, and ask each to describe itself at once."""
        for rank in range(held.shape.hosts):
            strategy = PlacementGroupSchedulingStrategy(held.hosts, placement_group_bundle_index=rank)
            config = {"life": held.life, "rank": rank, "incarnation": self._fleet.incarnation}
            handle = self._actor.options(scheduling_strategy=strategy).remote(self._sources, config)
            held.agents.append(Agent(handle))
        for rank in range(held.shape.hosts):
            self.describe(held, rank)

    def describe(self, held: Held, rank: int) -> None:
        """Ask an agent who it is; its answer is reported, and it is heard from then on."""
        agent = held.agents[rank]
        ask(agent.handle.describe.remote(), lambda answer, error: self._described(held, rank, answer, error))

    def report(self, held: Held, rank: int) -> None:
        """Report again what an agent has described; ask it if it has not."""
        agent = held.agents[rank]
        if agent.node_id is None:
            if not agent.over:
                self.describe(held, rank)
            return
        self._sink.post(AgentUp(held.life, rank, agent.node_id, agent.address, agent.devices, agent.pid))

    def close(self) -> None:
        """Let go of the threads."""
        self._confirmers.shutdown(wait=False, cancel_futures=True)

    def _described(self, held: Held, rank: int, answer: Any, error: BaseException | None) -> None:
        agent = held.agents[rank]
        if agent.over or held.releasing:
            return
        if error is not None:
            if isinstance(error, ActorUnavailableError):
                self._io.put(lambda: self.describe(held, rank), _RETRY_S)
            else:
                agent.over = True
                self._sink.post(AgentFailed(held.life, rank, brief(error)))
            return
        self._io.put(lambda: self._take_description(held, rank, answer))

    def _take_description(self, held: Held, rank: int, answer: Any) -> None:
        agent = held.agents[rank]
        first = agent.node_id is None
        agent.node_id, agent.address, agent.pid = answer["node_id"], answer["address"], answer["pid"]
        agent.devices = self._devices(held, agent.node_id)
        self.report(held, rank)
        if first:
            self._listen(held, rank)

    def _devices(self, held: Held, node_id: str) -> int:
        """Return how many accelerators of the shape's kind the node has, as its raylet registered them."""
        name = held.shape.devices_per_host.name
        if name is None:
            return 0
        self._nodes.row(node_id)
        facts = self._nodes.facts.get(node_id)
        return int(facts.resources.get(name, 0)) if facts is not None else 0

    def _listen(self, held: Held, rank: int) -> None:
        """Keep one call open on the agent: its answer is a beat, its failure the first sign of a loss."""
        agent = held.agents[rank]
        if agent.over or held.releasing:
            return
        beat = agent.handle.beat.remote(self._fleet.settings.beat_s)
        ask(beat, lambda answer, error: self._heard(held, rank, answer, error))

    def _heard(self, held: Held, rank: int, answer: Any, error: BaseException | None) -> None:
        agent = held.agents[rank]
        if agent.over or held.releasing:
            return
        if error is None:
            self._sink.beat(held.life, rank, raylet_ok=bool(answer))
            self._io.put(lambda: self._listen(held, rank))
        elif isinstance(error, ActorUnavailableError):
            self._confirmers.submit(self._confirm, held, rank, brief(error))
        else:
            self._lost(held, rank, error)

    def _lost(self, held: Held, rank: int, error: BaseException) -> None:
        held.agents[rank].over = True
        words = brief(error)
        node_died = isinstance(error, RayActorError) and "node" in words.lower() and "died" in words.lower()
        row = self._nodes.nodes.get(held.agents[rank].node_id or "")
        reason = Reason.NODE_DIED if node_died or (row is not None and not row.alive) else Reason.AGENT_DIED
        self._sink.post(HostLost(held.life, rank, reason, words))

    def _confirm(self, held: Held, rank: int, words: str) -> None:
        """Find out whether a host that cannot be reached is gone: nobody listens any more where its raylet did."""
        agent = held.agents[rank]
        facts = self._nodes.facts.get(agent.node_id or "")
        if facts is not None and refused(facts.raylet):
            agent.over = True
            where = ":".join(map(str, facts.raylet))
            self._sink.post(HostLost(held.life, rank, Reason.NODE_DIED, f"its raylet at {where} is gone; {words}"))
            return
        self._io.put(lambda: self._listen(held, rank), _RETRY_S)


def refused(address: tuple[str, int]) -> bool:
    """Whether a connection is refused; one that is accepted or times out says nothing."""
    try:
        with socket.create_connection(address, timeout=_CONNECT_S):
            return False
    except ConnectionRefusedError:
        return True
    except OSError:
        return False


def brief(error: BaseException) -> str:
    """Return what kind of error it is and the gist of Ray's long message, on one line."""
    text = " ".join(str(error).split())
    gist = text if len(text) <= _GIST else text[:_GIST].rsplit(" ", 1)[0] + " ..."
    return f"{type(error).__name__}: {gist}"


def ask(ref: Any, then: Callable[[Any, BaseException | None], None]) -> None:
    """Call `then(answer, error)` on Ray's thread when a reference resolves; it must not wait, nor call Ray."""

    def done(future: Any) -> None:
        try:
            error = future.exception()
            then(None if error is not None else future.result(), error)
        except Exception:
            # concurrent.futures would swallow it.
            log.exception("answer_not_taken")

    ref.future().add_done_callback(done)
