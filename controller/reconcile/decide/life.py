"""One life of one slice as the loop holds it: its record, all that is known of it, and when it was heard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from sliceform.controller.model.effects import Reserve
from sliceform.controller.model.events import Outcome
from sliceform.controller.model.finding import Finding
from sliceform.controller.reconcile.decide.policy import Vacancy
from sliceform.states.reasons import Reason
from sliceform.states.records import HostRecord, SliceRecord
from sliceform.states.slices import SliceState


class Loss(NamedTuple):
    """Why a host counts as lost."""

    reason: Reason
    detail: str


class Notice(NamedTuple):
    """A merged preemption notice: the earliest deadline of all sources that still stand."""

    source: str
    deadline_epoch_s: float | None


@dataclass(slots=True)
class HostView:
    """All that is known of one host of one life."""

    node_id: str | None = None
    #: What the agent said: node id, devices; None until it has answered.
    agent_node: str | None = None
    devices: int = 0
    address: str = ""
    agent_pid: int = 0
    failed: str | None = None
    lost: Loss | None = None
    notices: dict[str, float | None] | None = None
    #: Attempt whose process is known alive; attempt whose processes are known gone.
    alive: str | None = None
    gone: str | None = None

    @property
    def notice(self) -> Notice | None:
        """The notices of all sources as one: union of sources, earliest deadline."""
        if not self.notices:
            return None
        known = [deadline for deadline in self.notices.values() if deadline]
        return Notice("+".join(sorted(self.notices)), min(known) if known else None)


@dataclass(slots=True)
class SliceView:
    """All that is known of one life; written by the loop's thread alone."""

    slice_id: str
    hosts: tuple[HostView, ...]
    reserved: bool = False
    place: str | None = None
    head_node: str | None = None
    refused: str | None = None
    released: bool = False
    #: What keeps it from being placed; None if nobody was asked.
    held_up: tuple[Finding, ...] | None = None
    lost: Loss | None = None
    #: The attempt whose work has been told to stop, and by when, epoch seconds.
    told: tuple[str, float | None] | None = None
    #: Outcome per (attempt, rank) of the attempt that the slice runs.
    outcomes: dict[tuple[str, int], Outcome] = field(default_factory=dict)
    #: Raised by every fold that changed something.
    version: int = 0

    @property
    def nodes(self) -> tuple[str | None, ...]:
        """Frozen node ids by host rank."""
        return tuple(host.node_id for host in self.hosts)


@dataclass(slots=True, eq=False)
class Life:
    """A record with its view; written by the loop's thread, `heard` also by the backend's beats."""

    record: SliceRecord
    view: SliceView
    #: Loop time at which each host's agent, and the daemon of its node, were heard last.
    heard: list[float]
    raylet_heard: list[float]
    #: The reservation as it was asked for last, and when; loop time.
    asked: Reserve | None = None
    asked_at: float = 0.0
    #: Loop time by which the work on it is to be gone: an operator drains it; None when nobody asked.
    drain_by: float | None = None
    #: The same because its attempt is being ended; None while that goes on.
    stop_by: float | None = None
    #: The loop time that its release was asked for with; None before.
    release_by: float | None = None
    #: What it stands in for, until it is ready.
    vacancy: Vacancy | None = None
    #: Key of the attempt on this slice that has been found over.
    over: str | None = None
    #: What has been noted in the history already, so that a level is noted once.
    noted_notice: Notice | None = None
    noted_loss: bool = False
    noted_held_up: tuple[Finding, ...] | None = None
    noted_stuck: bool = False
    #: Of the attempt that it works on: that a process ended.
    noted_end: bool = False
    #: Its version at the last sync, and the loop time at which to look again though it did not change.
    synced: int = -1
    due: float = 0.0

    @classmethod
    def begin(cls, slice_id: str, hosts: int, *, generation: int, replaces: str | None) -> Life:
        """Return a new life before its entry."""
        records = tuple(HostRecord(f"{slice_id}/{rank}", slice_id, rank) for rank in range(hosts))
        record = SliceRecord(slice_id, records, generation=generation, replaces=replaces)
        view = SliceView(slice_id, tuple(HostView() for _ in range(hosts)))
        return cls(record, view, [0.0] * hosts, [0.0] * hosts)

    @property
    def version(self) -> int:
        """Grows with every change of the record or of the view."""
        return self.record.version + self.view.version

    @property
    def waits_for_reservation(self) -> bool:
        """Whether its reservation has not been seen placed or refused."""
        view = self.view
        return self.record.state is SliceState.PENDING and not view.reserved and view.refused is None


@dataclass(frozen=True, slots=True)
class Limits:
    """What `sync` needs to know beside the life itself."""

    pending_s: float
    placed_s: float
    silence_s: float
    stuck_s: float
    #: Accelerators that every host must show.
    devices: int
    #: Places that must not be taken now: the time of those that are lost or keep failing will come.
    avoid: frozenset[str] = field(default_factory=frozenset)
    #: Places on which no slice can be made as they are, with the reason: whoever is about to be made there goes back.
    barred: Mapping[str, str] = field(default_factory=dict)
    #: Whose place is which: one life a place.
    owners: Mapping[str, str] = field(default_factory=dict)
    #: Kinds of accelerators by node id, where the cluster has several: a slice has one.
    kinds: Mapping[str, str] = field(default_factory=dict)
    #: Too many fell silent at once: silence counts for nothing until the node table agrees.
    silence_held: bool = False
