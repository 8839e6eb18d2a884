"""What a user asks of a fleet, as values: they go through the inbox, and the loop takes them. Pure.

An order says all that it needs. It stands in the history as a note: what of it may be shown is `told`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sliceform.controller.model.run_options import RunOptions


@dataclass(frozen=True, slots=True)
class Scale:
    """Want so many slices from now on; what runs goes on."""

    #: Valid sizes, ascending.
    sizes: tuple[int, ...]
    spares: int

    @property
    def told(self) -> str:
        """What is wanted."""
        spares = f" and {self.spares} spare" if self.spares else ""
        return f"to {' or '.join(map(str, self.sizes))} slices{spares}"


@dataclass(frozen=True, slots=True)
class Drain:
    """Let a slice go, and replace it."""

    slice_id: str
    #: How long work on it may go on, seconds; asked again, it has only ever less.
    grace_s: float

    @property
    def told(self) -> str:
        """How long its work has."""
        return f"its work has {self.grace_s:g} s to stop"


@dataclass(frozen=True, slots=True)
class Submit:
    """Run a function on every host of some slices."""

    #: `run-<number>`.
    run_id: str
    #: The function's name, and what changes with its code; see `model.functions`.
    function: str
    digest: str
    #: What `Backend.pack` made of the function and its arguments.
    work: Any = field(repr=False)
    options: RunOptions
    submitted_epoch_s: float

    @property
    def told(self) -> str:
        """Which function, and how it is to be treated; of environments the names alone."""
        return f"{self.function} {self.digest}; {self.options.told}"


@dataclass(frozen=True, slots=True)
class Cancel:
    """End a run."""

    run_id: str
    #: How long its processes have to end by themselves, seconds; asked again, only ever less.
    grace_s: float

    @property
    def told(self) -> str:
        """How long it has."""
        return f"it has {self.grace_s:g} s to stop"


@dataclass(frozen=True, slots=True)
class Close:
    """Cancel all runs, and give everything back."""

    #: How long work may go on, seconds; asked again, only ever less.
    grace_s: float

    @property
    def told(self) -> str:
        """How long work has."""
        return f"what runs has {self.grace_s:g} s to stop"


@dataclass(frozen=True, slots=True)
class Avoid:
    """Reserve nothing at a place; what is there already stays."""

    #: Slice name on TPU, node id elsewhere.
    place: str
    #: For how long, seconds; None = until it is allowed again.
    for_s: float | None = None
    reason: str = ""

    @property
    def told(self) -> str:
        """Which place, for how long, and why."""
        span = "until it is allowed" if self.for_s is None else f"for {self.for_s:g} s"
        return f"{self.place} {span}" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True, slots=True)
class Allow:
    """Reserve at a place again, whatever has been kept against it."""

    place: str

    @property
    def told(self) -> str:
        """Which place."""
        return self.place


Order = Scale | Drain | Submit | Cancel | Close | Avoid | Allow
