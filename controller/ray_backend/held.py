"""What this backend holds for one life: its groups, its agents, and the attempts that were launched on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ray.util.placement_group import PlacementGroup

from sliceform.controller.observed import Outcome
from sliceform.controller.spec import SliceShape


@dataclass(slots=True)
class Task:
    """The user's process on one host."""

    #: Reference to the envelope; None until submitted.
    ref: Any = None
    outcome: Outcome | None = None
    gone: bool = False


@dataclass(slots=True)
class Work:
    """One attempt on one slice."""

    key: str
    tasks: list[Task]
    #: We have asked its processes to end: a crash is then our doing.
    stopping: bool = False
    #: Hosts that have been made clean for it.
    prepared: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Agent:
    """The agent of one host, as the driver sees it."""

    handle: Any
    #: What it described, once it answered.
    node_id: str | None = None
    address: str = ""
    pid: int = 0
    devices: int = 0
    #: Beyond doubt gone, or not wanted any more.
    over: bool = False


@dataclass(slots=True)
class Held:
    """Everything of one life."""

    life: str
    shape: SliceShape
    head: PlacementGroup | None = None
    hosts: PlacementGroup | None = None
    place: str | None = None
    head_node: str | None = None
    nodes: tuple[str, ...] | None = None
    agents: list[Agent] = field(default_factory=list)
    work: Work | None = None
    releasing: bool = False
    released: bool = False
