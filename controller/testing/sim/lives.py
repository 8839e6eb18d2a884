"""What a simulated cluster keeps of each life: its groups, its agents, and what it has told of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

from sliceform.controller.model.effects import Launch
from sliceform.controller.model.events import (
    AgentFailed,
    AgentUp,
    Assembled,
    HostLost,
    ProcessEnded,
    ProcessGone,
    ProcessStarted,
    Reserved,
)
from sliceform.controller.model.shapes import SliceShape
from sliceform.controller.testing.sim.cluster import SimNode, SimPlace
from sliceform.controller.testing.sim.groups import SimGroup


class SimHolding(NamedTuple):
    """What one life holds in a simulated cluster."""

    #: Names of its placement groups that exist, those that wait for room included.
    groups: tuple[str, ...]
    #: TPU slices, or racks of other nodes, on which it holds something.
    places: tuple[str, ...]
    #: Ids of the nodes on which its hosts' bundles are, by rank, as far as they are placed.
    nodes: tuple[str, ...]
    #: How many host processes run.
    processes: int


class Heard(NamedTuple):
    """Ranks of the hosts of one life whose agents beat."""

    well: tuple[int, ...]
    #: The node's own daemon stands still.
    unwell: tuple[int, ...]


class AgentState(Enum):
    """Where an agent is between its start and its end."""

    STARTING = auto()
    UP = auto()
    FAILED = auto()
    DEAD = auto()


@dataclass(slots=True, eq=False)
class SimAgent:
    """The agent of one host."""

    node: SimNode
    state: AgentState = AgentState.STARTING
    answer: AgentUp | AgentFailed | None = None
    loss: HostLost | None = None

    @property
    def answers(self) -> bool:
        """Whether a call to it comes back, sooner or later."""
        return self.state is AgentState.UP and self.node.alive


@dataclass(slots=True, eq=False)
class SimProcess:
    """The process of one attempt on one host."""

    request: Launch
    rank: int
    node: SimNode
    started: ProcessStarted | None = None
    ended: ProcessEnded | None = None
    gone: ProcessGone | None = None
    told_to_stop: bool = False
    deadline_epoch_s: float | None = None

    @property
    def running(self) -> bool:
        """Whether it runs the user's function now."""
        return self.started is not None and self.ended is None


@dataclass(slots=True, eq=False)
class SimLife:
    """One life of one slice, as the cluster knows it."""

    id: str
    shape: SliceShape
    head: SimGroup | None = None
    hosts: SimGroup | None = None
    place: SimPlace | None = None
    reserved: Reserved | None = None
    assembled: Assembled | None = None
    agents: list[SimAgent] = field(default_factory=list)
    processes: dict[tuple[str, int], SimProcess] = field(default_factory=dict)
    #: Attempts that were stopped: what starts later ends at once.
    stopped: set[str] = field(default_factory=set)
    #: Attempts whose work was told to stop, with the deadline.
    notified: dict[str, float | None] = field(default_factory=dict)
    draining: bool = False
    ending: bool = False
    released: bool = False
    #: Whether beats of this life are scheduled, and whom they come from, once that is known.
    beating: bool = False
    beats: Heard | None = None

    @property
    def groups(self) -> tuple[SimGroup, ...]:
        """Its groups that exist."""
        return tuple(g for g in (self.head, self.hosts) if g is not None and not g.removed)

    def running(self) -> Iterator[SimProcess]:
        """Yield its processes that have not ended, started or not."""
        return (process for process in self.processes.values() if process.ended is None)

    def heard_now(self) -> Heard:
        """Return whose agents beat."""
        if self.beats is None:
            heard = [
                (rank, agent.node.daemon_frozen)
                for rank, agent in enumerate(self.agents)
                if agent.answers and not agent.node.frozen
            ]
            well = tuple(rank for rank, unwell in heard if not unwell)
            self.beats = Heard(well, tuple(rank for rank, unwell in heard if unwell))
        return self.beats

    @property
    def placed(self) -> bool:
        """Whether it has a node anywhere."""
        return any(node is not None for group in self.groups for node in group.bundles)

    def holding(self) -> SimHolding:
        """Return what it holds."""
        nodes = [node for group in self.groups for node in group.bundles if node is not None]
        hosts = self.hosts.bundles if self.hosts in self.groups and self.hosts is not None else ()
        return SimHolding(
            groups=tuple(group.name for group in self.groups),
            places=tuple(dict.fromkeys(node.place.name for node in nodes)),
            nodes=tuple(node.id for node in hosts if node is not None),
            processes=sum(process.running for process in self.processes.values()),
        )


def audit(lives: Mapping[str, SimLife]) -> dict[str, SimHolding]:
    """Return what every life holds that holds anything."""
    return {life.id: life.holding() for life in lives.values() if life.groups}
