"""What the backend holds for one life: its groups, its agents, its attempts. Written on the I/O thread alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from ray.util.placement_group import PlacementGroup

from sliceform.controller.model.effects import Launch, Reserve
from sliceform.controller.model.events import (
    AgentFailed,
    AgentUp,
    Assembled,
    HostDied,
    HostLost,
    ProcessEnded,
    ProcessGone,
    ProcessStarted,
    Refused,
    Reserved,
)
from sliceform.controller.model.shapes import SliceShape


class Stage(Enum):
    """How far a life is."""

    HELD = "held"
    RELEASING = "releasing"
    RELEASED = "released"


@dataclass(slots=True, eq=False)
class AgentHandle:
    """The agent of one host."""

    slice_id: str
    rank: int
    #: Ray's handle of the actor.
    actor: Any
    up: AgentUp | None = None
    #: What was reported of its end; an agent that has one is not called any more.
    end: HostLost | AgentFailed | None = None
    #: We end it, or have ended it: what becomes of calls to it is of no interest.
    closed: bool = False
    #: Where it can be asked past Ray, once it has prepared its host for an attempt; see `on_host.guard.Guard.ports`.
    ports: Mapping[str, int] | None = None
    #: Calls in a row that could not reach it.
    unreached: int = 0
    #: Since when it fails to make its host ready for work, or free of it, monotonic seconds; None if it does not.
    failing_since: float | None = None
    #: The notices that it told of and that stand, by source, with their deadlines.
    notices: dict[str, float | None] = field(default_factory=dict)

    @property
    def serves(self) -> bool:
        """Whether it may be called."""
        return self.end is None and not self.closed


@dataclass(slots=True, eq=False)
class HostTask:
    """One attempt's process on one host."""

    rank: int
    preparing: bool = False
    prepared: bool = False
    #: References to the envelope and to the value, once the task is submitted.
    envelope: Any = None
    value: Any = None
    started: ProcessStarted | None = None
    ended: ProcessEnded | None = None
    #: What told that nothing of it is left on the host.
    gone: ProcessGone | HostDied | None = None
    #: In whose words it died: its host will say what came first, and whether it ended it by its own clock.
    died: str | None = None
    cut: str = ""
    #: Whether it was dead when its host was first asked to stop it; None = its host has not said. False, too,
    #: where it cannot say.
    unasked: bool | None = None
    #: Its host is being asked past Ray.
    asked: bool = False

    @property
    def running(self) -> bool:
        """Whether the task is submitted and has not ended."""
        return self.envelope is not None and self.ended is None


@dataclass(slots=True, eq=False)
class Work:
    """One attempt on one slice."""

    request: Launch
    tasks: tuple[HostTask, ...]
    #: We asked it to stop.
    told: bool = False
    #: We end it: whatever dies now was killed by us, unless its host knows better.
    stopping: bool = False

    @property
    def key(self) -> str:
        """The attempt's key."""
        return self.request.attempt.key

    def let_go(self) -> None:
        """Drop the user's work once nothing can start it any more: objects and actors are kept for its references."""
        if all(task.gone is not None for task in self.tasks):
            self.request = replace(self.request, attempt=replace(self.request.attempt, work=None))


@dataclass(slots=True, eq=False)
class Holding:
    """One life."""

    slice_id: str
    shape: SliceShape | None = None
    stage: Stage = Stage.HELD
    #: Release at once, without grace.
    lost: bool = False
    #: Whether the steps of its release are under way, and until when work may go on meanwhile, monotonic seconds.
    ending: bool = False
    work_until: float = float("inf")
    #: The claim on a TPU slice, and the hosts; a GPU or CPU slice has only hosts.
    head: PlacementGroup | None = None
    hosts: PlacementGroup | None = None
    #: Whether an autoscaler takes the claim for demand while it waits.
    head_is_demand: bool = False
    #: Its reservation as it was asked for last.
    asked: Reserve | None = None
    #: In how many units Ray counts each of its accelerators.
    units: int = 1
    reserved: Reserved | None = None
    refused: Refused | None = None
    assembled: Assembled | None = None
    agents: tuple[AgentHandle, ...] = ()
    attempts: dict[str, Work] = field(default_factory=dict)
    #: Attempts that were stopped before they were launched here.
    stopped: set[str] = field(default_factory=set)

    @property
    def held(self) -> bool:
        """Whether it is not being released."""
        return self.stage is Stage.HELD

    @property
    def waits(self) -> bool:
        """Whether its reservation is asked for, and nothing has become of it."""
        return self.held and self.asked is not None and self.reserved is None and self.refused is None

    @property
    def groups(self) -> tuple[PlacementGroup, ...]:
        """Its groups, in the order of their removal."""
        return tuple(group for group in (self.hosts, self.head) if group is not None)

    def working(self) -> Iterator[tuple[Work, HostTask]]:
        """Return the tasks that are submitted and of which something may still be on a host."""
        for work in self.attempts.values():
            for task in work.tasks:
                if task.envelope is not None and task.gone is None:
                    yield work, task
