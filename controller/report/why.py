"""Why something is as it is: an explanation for people that programs can read, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sliceform.controller.model.finding import Finding

if TYPE_CHECKING:
    from sliceform.controller.model.status import FleetStatus, SliceStatus


class Why(NamedTuple):
    """Why one slice, or one run, is as it is."""

    #: The id of the slice or run.
    key: str
    state: str
    #: One sentence on its state and what led there.
    summary: str
    #: What was found, most telling first; empty for a slice that is ready.
    findings: tuple[Finding, ...]

    @property
    def codes(self) -> tuple[str, ...]:
        """The closed codes of the findings, for programs."""
        return tuple(finding.code for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Return everything by name, ready for JSON."""
        return self._asdict() | {"findings": [finding._asdict() for finding in self.findings]}

    def __str__(self) -> str:
        """Say it in lines for people."""
        return "\n".join([self.summary, *(f"  {finding.code}: {finding.text}" for finding in self.findings)])


class FleetWhy(NamedTuple):
    """Why the fleet is not larger than it is, and what its runs wait for."""

    summary: str
    #: One per slice that is not ready; those with the same findings are told once.
    slices: tuple[Why, ...]
    #: One per run of which there is something to tell.
    runs: tuple[Why, ...] = ()

    @property
    def codes(self) -> tuple[str, ...]:
        """The closed codes of all findings, without repeats."""
        return tuple(dict.fromkeys(code for why in (*self.slices, *self.runs) for code in why.codes))

    def as_dict(self) -> dict[str, Any]:
        """Return everything by name, ready for JSON."""
        slices, runs = ([why.as_dict() for why in part] for part in (self.slices, self.runs))
        return {"summary": self.summary, "slices": slices, "runs": runs}

    def __str__(self) -> str:
        """Say it in lines for people."""
        return "\n".join([self.summary, *map(str, self.slices), *map(str, self.runs)])


def summarise(row: SliceStatus, now_epoch_s: float) -> str:
    """Say in a sentence how a slice stands."""
    text = f"{row.id} is {row.state} since {max(0.0, now_epoch_s - row.since_epoch_s):.1f} s ({row.reason})"
    if row.detail:
        text += f": {row.detail}"
    missing = [str(host.rank) for host in row.hosts if host.state not in {"ready", "running"}]
    if row.state == "placed" and missing:
        text += f"; waits for host {', '.join(missing)} of {row.place or 'its nodes'}"
    return text


def summarise_fleet(status: FleetStatus) -> str:
    """Say in a sentence how the fleet stands."""
    wanted = status.sizes[-1] + status.spares
    text = f"{status.ready} of {wanted} slices ready"
    if status.blind:
        return f"{text}; the cluster cannot be observed: {status.blind}"
    return f"{text}; {status.waits_for}" if status.waits_for else text
