"""What has been observed: events from a backend.

They are values and may come late, twice or never. Each is folded into the view of its slice (`decide/life.py`), which
is idempotent; one for a life that is gone finds no view and is dropped. Decisions are made from views (levels), never
from the events themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

from sliceform.controller.model.finding import Finding
from sliceform.states.effects import Effect
from sliceform.states.reasons import Reason


class Node(NamedTuple):
    """One row of the cluster's node table."""

    id: str
    alive: bool
    #: TPU slice name and worker id from the node's labels; None elsewhere.
    place: str | None = None
    worker_id: int | None = None
    pod_type: str | None = None
    address: str = ""
    #: Why it died, in the cluster's words.
    death: str = ""
    #: The node is to be drained by this time, epoch seconds; 0.0 = drains, no deadline; None = does not drain.
    drain_epoch_s: float | None = None
    #: From the labels, too: how the chips of its slice are joined, and the kind of its accelerators.
    topology: str | None = None
    accelerator: str | None = None
    #: All that it offers, whoever holds it; empty where the table does not say.
    resources: Mapping[str, float] = MappingProxyType({})
    labels: Mapping[str, str] = MappingProxyType({})


class NodesSeen(NamedTuple):
    """A complete read of the node table."""

    nodes: Mapping[str, Node]
    #: Ids whose row differs from the read before (new, changed, died or vanished).
    changed: frozenset[str]


class ObservationFailed(NamedTuple):
    """The node table could not be read: nothing is known until the next `NodesSeen`."""

    detail: str


class Reserved(NamedTuple):
    """The reservation is placed. TPU: `place` and the head's node; GPU, CPU: all nodes by rank."""

    slice_id: str
    place: str | None
    nodes: tuple[str, ...]


class Refused(NamedTuple):
    """The reservation cannot be made as asked."""

    slice_id: str
    detail: str


class Assembled(NamedTuple):
    """The host group is placed: node ids by host rank. A second one with other nodes means that a bundle moved."""

    slice_id: str
    nodes: tuple[str, ...]


class AgentUp(NamedTuple):
    """An agent answered `describe`."""

    slice_id: str
    rank: int
    node_id: str
    address: str
    #: Accelerators that the host offers to the slice.
    devices: int
    #: Process id of the agent on its host; 0 where there is none.
    pid: int = 0


class AgentFailed(NamedTuple):
    """An agent could not start."""

    slice_id: str
    rank: int
    detail: str


class HostLost(NamedTuple):
    """A host is lost beyond doubt; `rank=None` means the whole slice (its group is gone)."""

    slice_id: str
    rank: int | None
    reason: Reason
    detail: str


class HostNoticed(NamedTuple):
    """A host is to be taken away."""

    slice_id: str
    rank: int
    source: str
    #: None when no deadline is known.
    deadline_epoch_s: float | None


class NoticeWithdrawn(NamedTuple):
    """A source took its notice back."""

    slice_id: str
    rank: int
    source: str


class ProcessStarted(NamedTuple):
    """The user's process is alive on this host."""

    slice_id: str
    rank: int
    attempt: str


class OutcomeKind(StrEnum):
    """How the user's process ended on one host."""

    RETURNED = "returned"
    RAISED = "raised"
    #: It ended without an answer: a signal, out of memory, `os._exit`.
    CRASHED = "crashed"
    #: We stopped it.
    STOPPED = "stopped"
    #: Its host went away under it.
    LOST = "lost"
    #: It could not be started: bad runtime_env, function that does not unpickle.
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one host's process ended, with what it left."""

    kind: OutcomeKind
    detail: str = ""
    #: The remote traceback as text, for `RAISED` and `REFUSED`.
    traceback: str = field(default="", repr=False)
    #: Pickled exception, when it could be pickled.
    error: bytes | None = field(default=None, repr=False)
    #: `<module>.<name>` of the exception's class and of all its base classes.
    types: tuple[str, ...] = ()
    #: What the process would have ended with, if it was `SystemExit`.
    exit_code: int | None = None
    #: By its host's own account it ended before anybody there asked it to, whatever the driver heard of first.
    unasked: bool = False
    #: Fetches and unpickles the returned value; called on the user's thread, may wait and raise.
    load: Callable[[], Any] | None = field(default=None, repr=False)


class ProcessEnded(NamedTuple):
    """The attempt's task on this host has ended."""

    slice_id: str
    rank: int
    attempt: str
    outcome: Outcome


class ProcessGone(NamedTuple):
    """The agent has seen that no process of the attempt is left on this host."""

    slice_id: str
    rank: int
    attempt: str


class HostDied(NamedTuple):
    """The machine's kernel has closed all that this host had open to us: nothing of any attempt is left on it.

    Its agent, the attempt's process and the cluster's own daemon there all refuse connections. That a node is dead in
    the cluster's table proves nothing of the kind.
    """

    slice_id: str
    rank: int


class Notified(NamedTuple):
    """Every host of the slice that still answers has taken in that this attempt is to stop."""

    slice_id: str
    attempt: str
    #: Epoch seconds; None when no deadline is known.
    deadline_epoch_s: float | None


class Released(NamedTuple):
    """The slice's groups are observed removed (or never were)."""

    slice_id: str


class Explained(NamedTuple):
    """What the cluster says keeps a slice from being placed; nothing if it knows of nothing."""

    slice_id: str
    findings: tuple[Finding, ...]


class EffectFailed(NamedTuple):
    """An effect could not be carried out now; it will be asked for again."""

    slice_id: str
    effect: Effect
    detail: str


SliceEvent = (
    Reserved
    | Refused
    | Assembled
    | AgentUp
    | AgentFailed
    | HostLost
    | HostNoticed
    | NoticeWithdrawn
    | ProcessStarted
    | ProcessEnded
    | ProcessGone
    | HostDied
    | Notified
    | Released
    | Explained
    | EffectFailed
)
Event = NodesSeen | ObservationFailed | SliceEvent


#: Losses of hosts whose node may well live: a process of ours ended on it, or cannot work there.
PROCESS_LOSSES = frozenset({Reason.AGENT_DIED, Reason.HOST_UNFIT, Reason.PROCESS_LOST})
