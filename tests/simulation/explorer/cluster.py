"""A small cluster that answers at once or whenever the search says: late, in another order, twice, or never.

It is a backend. What it does is done when it is asked; what it has to say waits in its mail until the search delivers
it. It says nothing again that was heard, but everything that was lost, when it is asked again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, assert_never

from sliceform.controller.model.effects import Assemble, EffectRequest, Launch, Notify, Release, Reserve, Stop
from sliceform.controller.model.events import (
    AgentFailed,
    AgentUp,
    Assembled,
    HostDied,
    HostLost,
    HostNoticed,
    Node,
    NodesSeen,
    NoticeWithdrawn,
    Notified,
    ObservationFailed,
    Outcome,
    OutcomeKind,
    ProcessEnded,
    ProcessGone,
    ProcessStarted,
    Refused,
    Released,
    Reserved,
    SliceEvent,
)
from sliceform.controller.model.shapes import TpuSlice
from sliceform.states.effects import Effect
from sliceform.states.reasons import Reason

#: The source of the notices that hosts are given here.
SOURCE = "gce"


class Mail(NamedTuple):
    """Something that the cluster has to say."""

    event: SliceEvent
    #: What it answers; None if it comes by itself, and then it is said once.
    answers: Effect | None
    #: The host that says it, and cannot while it is cut off; None if it is somebody else.
    host: int | None


@dataclass(slots=True)
class Machine:
    """One host of a place; a dead one is replaced by another."""

    node: str
    alive: bool = True
    #: Whether the node table shows it as it is.
    listed: bool = True


@dataclass(slots=True)
class Place:
    """A TPU slice of the cluster; a lost one comes back with new machines."""

    name: str
    machines: list[Machine]
    #: Whether it comes back when it was lost.
    lasts: bool = True


@dataclass(slots=True)
class Process:
    """The process of one attempt on one host."""

    #: How it ended; None while it runs.
    outcome: OutcomeKind | None = None
    #: Its host ended it by its own clock, and knows that all of it is gone.
    cut: bool = False


@dataclass(slots=True)
class Holding:
    """All that the cluster has of one life."""

    hosts: int
    asked: Reserve | None = None
    #: Index of its place, and the machines that it was given; None until it has one.
    place: int | None = None
    nodes: tuple[str, ...] = ()
    assembled: bool = False
    refused: bool = False
    released: bool = False
    forgotten: bool = False
    #: When work that may go on is ended for its release; None if it is not to be released.
    release_by: float | None = None
    attempt_released: str | None = None
    #: By host: an agent answers; for how many seconds it has been cut off from the driver, None if it is not; and
    #: whether it has given notice.
    up: list[bool] = field(default_factory=list)
    cut_s: list[int | None] = field(default_factory=list)
    noticed: list[bool] = field(default_factory=list)
    #: By attempt and host; None where none was started.
    processes: dict[str, list[Process | None]] = field(default_factory=dict)
    #: Attempts that are to be stopped, though they may not have begun.
    stopped: set[str] = field(default_factory=set)
    #: What was heard of it.
    heard: set[tuple[str, SliceEvent]] = field(default_factory=set)

    def running(self) -> Iterator[tuple[str, int]]:
        """Give every attempt and host where a process runs."""
        for attempt, processes in self.processes.items():
            for rank, process in enumerate(processes):
                if process is not None and process.outcome is None:
                    yield attempt, rank


class World:
    """Places, what the controller has there, and the mail that is under way."""

    def __init__(self, shape: TpuSlice, places: int, *, fence_s: float) -> None:
        self.shape = shape
        self.fence_s = fence_s
        self.made = 0
        self.places = [
            Place(f"place-{index}", [self._machine() for _ in range(shape.hosts)]) for index in range(places)
        ]
        self.lives: dict[str, Holding] = {}
        self.mail: list[Mail] = []
        #: The node table as it was read last, and dead nodes that it still shows.
        self.table: dict[str, Node] = {}
        self.dead: dict[str, Node] = {}
        #: The node table cannot be read.
        self.blind = False
        self.epoch = 0.0

    def _machine(self) -> Machine:
        self.made += 1
        return Machine(f"node-{self.made}")

    # Backend.

    def poll(self) -> None:
        """Say nothing by itself: mail is delivered by the search."""

    def inquire(self, slice_id: str, place: str | None, avoid: Mapping[str, str]) -> None:
        """Never answer: what keeps a slice pending is words."""

    def forget(self, slice_id: str) -> None:
        """Let go of a life; where it still runs something, that goes on until it ends."""
        holding = self.lives[slice_id]
        assert holding.released, f"{slice_id} is forgotten, but was not seen released"
        assert not holding.forgotten, f"{slice_id} is forgotten twice"
        holding.forgotten = True
        self._tidy(slice_id)

    def submit(self, request: EffectRequest) -> None:
        """Do what is asked at once; what is to be said of it is mail."""
        holding = self.lives.get(request.slice_id)
        if holding is None:
            assert isinstance(request, Reserve), f"{request} asks something of a life that is over"
            hosts = self.shape.hosts
            holding = self.lives[request.slice_id] = Holding(hosts, up=[False] * hosts, cut_s=[None] * hosts)
            holding.noticed = [False] * hosts
        assert not holding.forgotten, f"{request} asks something of a life that was forgotten"
        if isinstance(request, Reserve):
            self._reserve(holding, request)
        elif isinstance(request, Assemble):
            self._assemble(request.slice_id, holding)
        elif isinstance(request, Launch):
            self._launch(request.slice_id, holding, request.attempt.key)
        elif isinstance(request, Stop):
            self._stop(request.slice_id, holding, request.attempt_key)
        elif isinstance(request, Notify):
            if any(self._reachable(holding, rank) for rank in range(holding.hosts)):
                event = Notified(request.slice_id, request.attempt_key or "", request.deadline_epoch_s)
                self._say(holding, event, Effect.NOTIFY)
        elif isinstance(request, Release):
            self._release(holding, request)
        else:
            assert_never(request)

    def _reserve(self, holding: Holding, request: Reserve) -> None:
        if holding.release_by is not None or holding.released:
            return
        holding.asked = request
        if holding.place is not None:
            self._say_reserved(request.slice_id, holding)
        self._give_places()

    def _give_places(self) -> None:
        """Give the places that are free to those that wait, first come first served."""
        for life, holding in self.lives.items():
            waits = holding.asked is not None and holding.place is None and not holding.refused
            if waits and not holding.released and holding.release_by is None:
                index = next((index for index in range(len(self.places)) if self._fits(index, holding)), None)
                if index is not None:
                    holding.place = index
                    holding.nodes = tuple(machine.node for machine in self.places[index].machines)
                    self._say_reserved(life, holding)

    def _fits(self, index: int, holding: Holding) -> bool:
        place, asked = self.places[index], holding.asked
        if asked is None or any(other.place == index for other in self.lives.values()):
            return False
        head = place.machines[0]
        return head.alive and place.name not in asked.avoid and head.node not in asked.avoid_nodes

    def _say_reserved(self, slice_id: str, holding: Holding) -> None:
        assert holding.place is not None
        self._say(holding, Reserved(slice_id, self.places[holding.place].name, (holding.nodes[0],)), Effect.RESERVE)

    def _assemble(self, slice_id: str, holding: Holding) -> None:
        if holding.place is None or holding.released:
            return
        if not holding.assembled:
            if not all(self.machine(node) for node in holding.nodes):
                return
            holding.assembled = True
            holding.up = [True] * holding.hosts
        self._say(holding, Assembled(slice_id, holding.nodes), Effect.ASSEMBLE)
        for rank, node in enumerate(holding.nodes):
            if holding.up[rank]:
                event = AgentUp(slice_id, rank, node, "", self.shape.devices_per_host.count)
                self._say(holding, event, Effect.ASSEMBLE, rank)

    def _launch(self, slice_id: str, holding: Holding, attempt: str) -> None:
        processes = holding.processes.setdefault(attempt, [None] * holding.hosts)
        for rank in range(holding.hosts):
            if not self._reachable(holding, rank):
                continue
            others = [other for other, at in holding.running() if at == rank and other != attempt]
            assert not others, f"{attempt} is launched on {slice_id}/{rank} where {others} still runs"
            if processes[rank] is None:
                processes[rank] = Process(OutcomeKind.STOPPED if attempt in holding.stopped else None)
            self._say_process(slice_id, holding, attempt, rank, Effect.LAUNCH)

    def _stop(self, slice_id: str, holding: Holding, attempt: str) -> None:
        holding.stopped.add(attempt)
        for rank in range(holding.hosts):
            if self._reachable(holding, rank):
                self._end(slice_id, holding, attempt, rank, OutcomeKind.STOPPED, Effect.STOP)

    def _release(self, holding: Holding, request: Release) -> None:
        life = request.slice_id
        holding.attempt_released = request.attempt_key
        if holding.released:
            self._say(holding, Released(life), Effect.RELEASE)
            return
        by = self.epoch + request.grace_s
        holding.release_by = by if holding.release_by is None else min(by, holding.release_by)
        self._release_when_due(life, holding)

    def _release_when_due(self, slice_id: str, holding: Holding) -> None:
        """Give a place back once nothing runs there, or may not any longer."""
        by = holding.release_by
        if by is None or holding.released or (by > self.epoch and any(holding.running())):
            return
        attempt = holding.attempt_released
        for rank in range(holding.hosts):
            if attempt is not None and self._reachable(holding, rank):
                self._end(slice_id, holding, attempt, rank, OutcomeKind.STOPPED, Effect.RELEASE)
        for left, rank in list(holding.running()):
            # Its agent is dead: the group takes the work along, and nobody can say that all of it is gone.
            if holding.cut_s[rank] is None:
                self._end(slice_id, holding, left, rank, OutcomeKind.LOST, None)
        holding.up = [False] * holding.hosts
        holding.released, holding.place = True, None
        self._say(holding, Released(slice_id), Effect.RELEASE)
        self._give_places()

    def _end(  # noqa: PLR0917 - all of them say which process
        self,
        slice_id: str,
        holding: Holding,
        attempt: str,
        rank: int,
        kind: OutcomeKind,
        why: Effect | None,
        *,
        cut: bool = False,
    ) -> None:
        """End the process of an attempt on a host, or see to it that none begins, and say so."""
        processes = holding.processes.setdefault(attempt, [None] * holding.hosts)
        process = processes[rank]
        if process is None or process.outcome is None:
            processes[rank] = Process(kind, cut)
        self._say_process(slice_id, holding, attempt, rank, why)

    def _say_process(self, slice_id: str, holding: Holding, attempt: str, rank: int, why: Effect | None) -> None:
        process = holding.processes[attempt][rank]
        assert process is not None
        if process.outcome is None:
            self._say(holding, ProcessStarted(slice_id, rank, attempt), why, rank)
            return
        self._say(holding, ProcessEnded(slice_id, rank, attempt, Outcome(process.outcome)), None, rank)
        if process.outcome is not OutcomeKind.LOST or process.cut:
            self._say(holding, ProcessGone(slice_id, rank, attempt), why, rank)

    # Mail.

    def _say(self, holding: Holding, event: SliceEvent, answers: Effect | None, host: int | None = None) -> None:
        """Say something, unless it was heard or is under way."""
        if _said(event) not in holding.heard and all(_said(mail.event) != _said(event) for mail in self.mail):
            self.mail.append(Mail(event, answers, host))

    def deliverable(self) -> list[int]:
        """Return the indexes of the mail that can be delivered, oldest first."""
        return [index for index, mail in enumerate(self.mail) if not self._withheld(mail)]

    def _withheld(self, mail: Mail) -> bool:
        holding = self.lives.get(mail.event.slice_id)
        return mail.host is not None and holding is not None and holding.cut_s[mail.host] is not None

    def take(self, index: int) -> SliceEvent:
        """Deliver one of the mail."""
        mail = self.mail.pop(index)
        holding = self.lives.get(mail.event.slice_id)
        if holding is not None:
            holding.heard.add(_said(mail.event))
        return mail.event

    def look(self) -> NodesSeen | ObservationFailed:
        """Read the node table."""
        if self.blind:
            return ObservationFailed("cut off")
        rows = {node: row for node, row in self.dead.items() if self._used(node)}
        self.dead = dict(rows)
        for place in self.places:
            for rank, machine in enumerate(place.machines):
                alive = machine.alive or not machine.listed
                rows[machine.node] = Node(machine.node, alive, place.name, rank, self.shape.pod_type)
        changed = frozenset(node for node in {*rows, *self.table} if rows.get(node) != self.table.get(node))
        self.table = rows
        return NodesSeen(rows, changed)

    # What happens by itself, sooner or later.

    def second(self) -> None:
        """Let a second pass: hosts that are cut off end their work by their own clock, and grace runs out."""
        self.epoch += 1.0
        for life, holding in list(self.lives.items()):
            for rank, cut_s in enumerate(holding.cut_s):
                if cut_s is not None and cut_s < self.fence_s / 2:
                    holding.cut_s[rank] = cut_s + 1
                    if cut_s + 1 >= self.fence_s / 2:
                        for attempt in [attempt for attempt, at in holding.running() if at == rank]:
                            self._end(life, holding, attempt, rank, OutcomeKind.LOST, None, cut=True)
            self._release_when_due(life, holding)
            self._tidy(life)

    def end(self, slice_id: str, attempt: str, rank: int, kind: OutcomeKind) -> None:
        """End a process that runs."""
        holding = self.lives[slice_id]
        self._end(slice_id, holding, attempt, rank, kind, None)
        self._release_when_due(slice_id, holding)
        self._tidy(slice_id)

    def reconnect(self, slice_id: str, rank: int) -> None:
        """Let a host be heard again, with all that it had to say."""
        holding = self.lives[slice_id]
        holding.cut_s[rank] = None
        if holding.released:
            for attempt in [attempt for attempt, at in holding.running() if at == rank]:
                self._end(slice_id, holding, attempt, rank, OutcomeKind.STOPPED, None)
        self._tidy(slice_id)

    def withdraw(self, slice_id: str, rank: int) -> None:
        """Take a notice back."""
        self.lives[slice_id].noticed[rank] = False
        self.mail.append(Mail(NoticeWithdrawn(slice_id, rank, SOURCE), None, rank))

    def list(self, place: int, rank: int) -> None:
        """Let the node table show that a machine is dead."""
        self.places[place].machines[rank].listed = True

    def come_back(self, index: int) -> None:
        """Let new machines stand where the dead ones were, if the table shows them dead."""
        place = self.places[index]
        for rank, machine in enumerate(place.machines):
            if not machine.alive:
                self.dead[machine.node] = Node(machine.node, alive=False, place=place.name, worker_id=rank)
                place.machines[rank] = self._machine()
        self._give_places()

    # Faults.

    def die(self, index: int, rank: int) -> None:
        """Let a machine die with all that runs on it."""
        machine = self.places[index].machines[rank]
        machine.alive = machine.listed = False
        for life, holding in list(self.lives.items()):
            if machine.node not in holding.nodes:
                continue
            at = holding.nodes.index(machine.node)
            heard = holding.up[at] and holding.cut_s[at] is None
            holding.cut_s[at] = None
            for attempt in [attempt for attempt, host in holding.running() if host == at]:
                holding.processes[attempt][at] = Process(OutcomeKind.LOST)
                if heard:
                    self._say_process(life, holding, attempt, at, None)
            if heard:
                self.mail.append(Mail(HostLost(life, at, Reason.NODE_DIED, "died"), None, None))
                self.mail.append(Mail(HostDied(life, at), None, None))
            holding.up[at] = False
            self._tidy(life)

    def agent_dies(self, slice_id: str, rank: int) -> None:
        """Let an agent die on a machine that lives; the work goes on until it is ended."""
        self.lives[slice_id].up[rank] = False
        self.mail.append(Mail(HostLost(slice_id, rank, Reason.AGENT_DIED, "died"), None, None))

    def lose_group(self, slice_id: str) -> None:
        """Let somebody remove a slice's groups."""
        holding = self.lives[slice_id]
        for attempt, rank in list(holding.running()):
            holding.processes[attempt][rank] = Process(OutcomeKind.LOST)
            self._say_process(slice_id, holding, attempt, rank, None)
        holding.up = [False] * holding.hosts
        self.mail.append(Mail(HostLost(slice_id, None, Reason.GROUP_LOST, "removed"), None, None))

    def cut_off(self, slice_id: str, rank: int) -> None:
        """Cut a host off from the driver."""
        self.lives[slice_id].cut_s[rank] = 0

    def notice(self, slice_id: str, rank: int, deadline_epoch_s: float | None) -> None:
        """Announce that a host will be taken away."""
        self.lives[slice_id].noticed[rank] = True
        self.mail.append(Mail(HostNoticed(slice_id, rank, SOURCE, deadline_epoch_s), None, rank))

    def refuse(self, index: int) -> SliceEvent:
        """Refuse a reservation instead of granting it."""
        mail = self.mail.pop(index)
        holding = self.lives.get(mail.event.slice_id, Holding(0))
        holding.refused, holding.place, holding.nodes = True, None, ()
        self._give_places()
        return Refused(mail.event.slice_id, "refused")

    def fail_agent(self, index: int) -> SliceEvent:
        """Let an agent fail to start instead of answering."""
        mail = self.mail.pop(index)
        assert isinstance(mail.event, AgentUp)
        holding = self.lives.get(mail.event.slice_id)
        if holding is not None:
            holding.up[mail.event.rank] = False
        return AgentFailed(mail.event.slice_id, mail.event.rank, "failed")

    def undo(self, index: int) -> Mail:
        """Take back an answer: nothing was started, or it is not known."""
        mail = self.mail.pop(index)
        event = mail.event
        if isinstance(event, ProcessStarted) and event.slice_id in self.lives:
            processes = self.lives[event.slice_id].processes[event.attempt]
            process = processes[event.rank]
            if process is not None and process.outcome is None:  # what has ended was started for certain
                processes[event.rank] = None
        return mail

    # What there is.

    def machine(self, node: str) -> bool:
        """Whether a machine is there and lives."""
        return any(machine.node == node and machine.alive for place in self.places for machine in place.machines)

    def _reachable(self, holding: Holding, rank: int) -> bool:
        return holding.up[rank] and holding.cut_s[rank] is None

    def _used(self, node: str) -> bool:
        return any(node in holding.nodes for holding in self.lives.values())

    def _tidy(self, slice_id: str) -> None:
        """Let go of a life that was forgotten and on which nothing runs."""
        holding = self.lives.get(slice_id)
        if holding is not None and holding.forgotten and not any(holding.running()):
            del self.lives[slice_id]


def _said(event: SliceEvent) -> tuple[str, SliceEvent]:
    """Return an event with its name: as tuples, the start of a process and its end are equal."""
    return type(event).__name__, event
