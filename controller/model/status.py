"""What readers see of the fleet: immutable values, published whole after a tick."""

from __future__ import annotations

from typing import NamedTuple


class HostStatus(NamedTuple):
    """One host."""

    rank: int
    #: Name of its state; None before entry and after exit.
    state: str | None
    #: Ray node id in hex; None until placed.
    node_id: str | None
    #: Address that its agent gave; empty until it answered.
    address: str
    #: Accelerators that it showed.
    devices: int
    #: Process id of its agent; 0 until it answered.
    agent_pid: int
    reason: str
    detail: str


class SliceStatus(NamedTuple):
    """One slice."""

    id: str
    state: str
    #: Epoch seconds of its last transition.
    since_epoch_s: float
    #: TPU slice name; None until placed, and for GPU and CPU slices.
    place: str | None
    reason: str
    detail: str
    #: Key of the attempt that it works on.
    attempt: str | None
    #: The lost slice that it stands in for.
    replaces: str | None
    hosts: tuple[HostStatus, ...]


class AttemptStatus(NamedTuple):
    """One attempt of a run."""

    number: int
    #: Slice ids by slice rank.
    slices: tuple[str, ...]
    started_epoch_s: float
    ended_epoch_s: float | None
    #: `succeeded`, `failed`, `preempted`, `cancelled`, `superseded`; None while it goes on, or is not judged yet.
    outcome: str | None
    detail: str
    #: How each host's process ended, by rank; None where that is not known.
    hosts: tuple[str | None, ...]


class RunStatus(NamedTuple):
    """One run."""

    id: str
    #: `waiting`, `running`, or how it ended.
    state: str
    #: What it waits for, or how it ended, in a sentence.
    detail: str
    #: When it was submitted, epoch seconds.
    submitted_epoch_s: float
    #: The first and the newest 99.
    attempts: tuple[AttemptStatus, ...]
    preemptions: int
    failures: int
    #: How many attempts between these are not shown.
    attempts_forgotten: int = 0


class FleetStatus(NamedTuple):
    """The whole fleet after one tick."""

    label: str
    tick: int
    at_epoch_s: float
    #: Valid sizes and spares that are desired.
    sizes: tuple[int, ...]
    spares: int
    #: The largest valid size that the ready and running slices suffice for; 0 if none.
    size: int
    #: Slices by state name.
    counts: dict[str, int]
    slices: tuple[SliceStatus, ...]
    runs: tuple[RunStatus, ...]
    #: A host that is not heard for so long counts as lost, seconds.
    effective_silence_s: float
    #: Why nothing may be destroyed now, if the cluster cannot be observed; empty if it can.
    blind: str
    #: Effects that have been asked for and not been seen done.
    effects_in_flight: int
    #: Places that are not used now, with the reason.
    avoided: dict[str, str]
    #: What growth waits for; empty when nothing is missing.
    waits_for: str

    @property
    def ready(self) -> int:
        """Slices that are ready or running."""
        return self.counts.get("ready", 0) + self.counts.get("running", 0)

    def __str__(self) -> str:
        """Draw it as a table for people."""
        wanted = "/".join(map(str, self.sizes)) + (f" + {self.spares} spare" if self.spares else "")
        counts = ", ".join(f"{count} {state}" for state, count in self.counts.items()) or "no slices"
        lines = [f"{self.label}: {wanted} wanted, size {self.size} reached; {counts}"]
        if self.blind:
            lines.append(f"cannot observe the cluster: {self.blind}")
        if self.waits_for:
            lines.append(self.waits_for)
        width = max((len(row.id) for row in self.slices), default=5)
        lines += [
            f"  {row.id:<{width}}  {row.state:<9}  {row.place or '-':<16}  "
            f"{_hosts(row)}  {row.reason}{': ' + row.detail if row.detail else ''}"
            for row in self.slices
        ]
        lines += [f"  {run.id}: {run.state}; {run.detail}" for run in self.runs]
        return "\n".join(lines)


def _hosts(row: SliceStatus) -> str:
    ready = sum(host.state in {"ready", "running"} for host in row.hosts)
    return f"{ready}/{len(row.hosts)} hosts"
