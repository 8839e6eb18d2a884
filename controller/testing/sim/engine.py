"""How a simulated cluster carries out what is asked of it: reservations, agents, and their end."""

from __future__ import annotations

from functools import partial

from sliceform.controller.model.effects import Assemble, Release, Reserve
from sliceform.controller.model.events import (
    AgentFailed,
    AgentUp,
    Assembled,
    Event,
    HostLost,
    HostNoticed,
    NoticeWithdrawn,
    Refused,
    Released,
    Reserved,
)
from sliceform.controller.testing.sim.cluster import SimCluster, SimNode, SimPlace
from sliceform.controller.testing.sim.groups import Placer, SimGroup
from sliceform.controller.testing.sim.lives import AgentState, Heard, SimAgent, SimLife
from sliceform.controller.testing.sim.processes import Processes
from sliceform.controller.testing.sim.timeline import Timeline
from sliceform.states.reasons import Reason


class SimEngine:
    """Groups and agents of all lives; what becomes of them is collected in `told`."""

    def __init__(self, cluster: SimCluster, timeline: Timeline, told: list[Event]) -> None:
        """Start with no life."""
        self.placer = Placer(cluster, timeline)
        self.lives: dict[str, SimLife] = {}
        self.processes = Processes(timeline, told)
        #: Lives whose agents have begun to answer, for whoever schedules their beats.
        self.answering: list[SimLife] = []
        #: How many slices may hold something; None = any number.
        self.quota: int | None = None
        self._timeline = timeline
        self._told = told

    def reserve(self, request: Reserve) -> None:
        """Claim a place, or say once more which one is claimed."""
        life = self.lives.get(request.slice_id)
        if life is None and self._quota_is_used_up:
            self._told.append(Refused(request.slice_id, "quota exceeded"))
        elif life is None:
            life = self.lives[request.slice_id] = SimLife(request.slice_id, request.shape)
            placed = partial(self._reserved, life)
            tpu = request.shape.kind == "tpu"
            group = SimGroup(f"{life.id}/{'head' if tpu else 'hosts'}", request.shape, placed)
            life.head, life.hosts = (group, None) if tpu else (None, group)
            _exclude(group, request)
            self.placer.create(group, 1 if tpu else request.shape.hosts)
        elif life.reserved is not None:
            self._told.append(life.reserved)
        elif not life.draining:
            for group in life.groups:
                _exclude(group, request)
            self.placer.look_again()

    def assemble(self, request: Assemble) -> None:
        """Start the agents, once the host group is placed; or say once more what has become of them."""
        life = self.lives.get(request.slice_id)
        if life is None or life.draining or life.reserved is None:
            return
        if life.hosts is None:
            placed = partial(self._hosts_placed, life)
            name = f"{life.id}/hosts"
            life.hosts = SimGroup(name, life.shape, placed, pinned=life.place)
            self.placer.create(life.hosts, life.shape.hosts)
        elif life.assembled is not None:
            self._told.append(life.assembled)
            for agent in life.agents:
                self._told.extend(event for event in (agent.answer, agent.loss) if event is not None)
        elif life.shape.kind != "tpu":
            self._hosts_placed(life)

    def release(self, request: Release) -> None:
        """End a life: its work within the grace, then its agents and its groups."""
        life = self.lives.get(request.slice_id)
        if life is None or life.released:
            self._told.append(Released(request.slice_id))
            return
        life.draining = True
        wait = 0.0 if request.lost else self.processes.wind_down(life, request.grace_s)
        self._timeline.after(wait, partial(self._end, life, request))

    def forget(self, life_id: str) -> None:
        """Drop a life that has been released."""
        life = self.lives.get(life_id)
        if life is not None and life.released:
            del self.lives[life_id]

    def clear(self) -> None:
        """Remove every group at once, as the cluster does when the driver has gone."""
        for life in self.lives.values():
            life.draining = life.ending = life.released = True
            self.processes.kill(life)
            for group in life.groups:
                self.placer.remove(group)

    def node_died(self, node: SimNode) -> None:
        """Take a machine that has just stopped to run into account."""
        node.deferred.clear()
        for life, rank in self.tenants(node):
            life.beats = None
            detail = f"node {node.id[:8]}: {node.death}"
            self._lose(life, rank, Reason.NODE_DIED, detail)
            self.processes.node_died(life, rank, detail)
        self.placer.lost(node)

    def agent_died(self, node: SimNode) -> None:
        """Let the agents on a machine that lives end without being asked to."""
        for life, rank in self.tenants(node):
            agent = life.agents[rank]
            if agent.state is not AgentState.UP:
                continue
            life.beats = None
            self._lose(life, rank, Reason.AGENT_DIED, "the agent's process ended")
            agent.state = AgentState.DEAD

    def noticed(self, node: SimNode, source: str, deadline_epoch_s: float | None) -> None:
        """Let the agents on a machine tell of a notice."""
        node.notices[source] = deadline_epoch_s
        for life, rank in self._answering_on(node):
            self._told.append(HostNoticed(life.id, rank, source, deadline_epoch_s))

    def withdrawn(self, node: SimNode, source: str) -> None:
        """Let the agents on a machine tell that a notice was taken back."""
        if source in node.notices:
            del node.notices[source]
            for life, rank in self._answering_on(node):
                self._told.append(NoticeWithdrawn(life.id, rank, source))

    def group_removed(self, place: SimPlace, part: str) -> None:
        """Take a group away that somebody else removed; whoever looks at it, or whose agents end with it, tells."""
        for life in self.lives.values():
            group = life.head if part == "head" else life.hosts
            if group is None or group.removed or place not in {node.place for node in group.bundles if node}:
                continue
            self.placer.remove(group)
            if part == "hosts":
                for agent in life.agents:
                    agent.state = AgentState.DEAD
                life.beats = None
            lost = HostLost(life.id, None, Reason.GROUP_LOST, f"its {part} group was removed")
            self._timeline.after(self._timeline.timings.detect_s, partial(self._told.append, lost))

    def moved(self, life: SimLife, rank: int, node_id: str) -> None:
        """Tell that a bundle is on another node now."""
        if life.assembled is not None:
            nodes = list(life.assembled.nodes)
            nodes[rank] = node_id
            life.assembled = Assembled(life.id, tuple(nodes))
            self._told.append(life.assembled)

    def tenants(self, node: SimNode) -> list[tuple[SimLife, int]]:
        """Return the lives that have an agent on a machine, with its rank."""
        lives = {group.name.rpartition("/")[0] for group in self.placer.holders(node)}
        return [
            (life, rank)
            for life in (self.lives[name] for name in sorted(lives) if name in self.lives)
            for rank, agent in enumerate(life.agents)
            if agent.node is node
        ]

    @property
    def _quota_is_used_up(self) -> bool:
        return self.quota is not None and sum(life.placed for life in self.lives.values()) >= self.quota

    def _answering_on(self, node: SimNode) -> list[tuple[SimLife, int]]:
        return [(life, rank) for life, rank in self.tenants(node) if life.agents[rank].answers]

    def _reserved(self, life: SimLife) -> None:
        """Tell where a reservation was placed; later moves of a head concern nobody until it is removed."""
        if life.reserved is None:
            self._timeline.after(self._timeline.timings.place_s, partial(self._tell_reserved, life))
        elif life.shape.kind != "tpu":
            self._hosts_moved(life)

    def _tell_reserved(self, life: SimLife) -> None:
        group = life.head or life.hosts
        if life.draining or life.reserved is not None or group is None:
            return
        nodes = [node for node in group.bundles if node is not None]
        if len(nodes) < len(group.bundles):
            return  # a node died meanwhile: the cluster looks for another place
        if life.head is not None:
            life.place = nodes[0].place
        name = None if life.place is None else life.place.name
        life.reserved = Reserved(life.id, name, tuple(node.id for node in nodes))
        self._told.append(life.reserved)

    def _hosts_placed(self, life: SimLife) -> None:
        if life.assembled is None:
            delay = self._timeline.timings.assemble_s
            self._timeline.after(delay, partial(self._start_agents, life))
        else:
            self._hosts_moved(life)

    def _hosts_moved(self, life: SimLife) -> None:
        if life.assembled is not None and life.hosts is not None and life.hosts.placed:
            nodes = tuple(node.id for node in life.hosts.bundles if node is not None)
            life.assembled = Assembled(life.id, nodes)
            self._told.append(life.assembled)

    def _start_agents(self, life: SimLife) -> None:
        if life.draining or life.assembled is not None or life.hosts is None:
            return
        nodes = [node for node in life.hosts.bundles if node is not None]
        if len(nodes) < life.shape.hosts:
            return
        life.assembled = Assembled(life.id, tuple(node.id for node in nodes))
        self._told.append(life.assembled)
        life.agents = [SimAgent(node) for node in nodes]
        for rank, agent in enumerate(life.agents):
            delay = self._timeline.timings.agent_s
            self._timeline.after(delay, partial(self._start_agent, life, rank, agent))

    def _start_agent(self, life: SimLife, rank: int, agent: SimAgent) -> None:
        node = agent.node
        if not node.alive or life.ending or agent.state is not AgentState.STARTING:
            return
        if node.frozen:
            node.deferred.append(partial(self._start_agent, life, rank, agent))
            return
        if node.broken is not None:
            agent.state = AgentState.FAILED
            agent.answer = AgentFailed(life.id, rank, node.broken)
            self._told.append(agent.answer)
            return
        agent.state = AgentState.UP
        life.beats = None
        agent.answer = AgentUp(life.id, rank, node.id, node.address, node.devices)
        self._told.append(agent.answer)
        for source, deadline in node.notices.items():
            self._told.append(HostNoticed(life.id, rank, source, deadline))
        if not life.beating:
            life.beating = True
            self.answering.append(life)

    def _lose(self, life: SimLife, rank: int, reason: Reason, detail: str) -> None:
        agent = life.agents[rank]
        if agent.state is not AgentState.UP or agent.loss is not None or life.ending:
            return
        agent.loss = HostLost(life.id, rank, reason, detail)
        self._timeline.after(self._timeline.timings.detect_s, partial(self._told.append, agent.loss))

    def _end(self, life: SimLife, request: Release) -> None:
        """End what is left of a life and remove its groups: the head after the hosts, or both at once."""
        self.processes.clear(life, request.attempt_key)
        if life.ending:
            return
        life.ending = True
        life.beats = Heard((), ())
        for agent in life.agents:
            agent.state = AgentState.DEAD
        delay = self._timeline.timings.remove_s
        hosts, head = life.hosts, life.head
        if request.lost or hosts is None or head is None:
            self._timeline.after(delay, partial(self._removed, life, life.groups))
        else:
            self._timeline.after(delay, partial(self._hosts_removed, life, hosts, head))

    def _hosts_removed(self, life: SimLife, hosts: SimGroup, head: SimGroup) -> None:
        self._remove((hosts,))
        delay = self._timeline.timings.remove_s
        self._timeline.after(delay, partial(self._removed, life, (head,)))

    def _remove(self, groups: tuple[SimGroup, ...]) -> None:
        for group in groups:
            if not group.removed:
                self.placer.remove(group)

    def _removed(self, life: SimLife, groups: tuple[SimGroup, ...]) -> None:
        self._remove(groups)
        if not life.groups:
            life.released = True
            self._told.append(Released(life.id))


def _exclude(group: SimGroup, request: Reserve) -> None:
    group.avoid, group.avoid_nodes = request.avoid, request.avoid_nodes
    group.accelerator = request.accelerator
