"""Errors of the state machines, and the root of the one tree of errors.

::

    SliceformError
    ├── TableError          (also a ValueError)  a transition table that contradicts itself
    ├── InvalidTransition                        a trigger that is not legal in this state
    └── ForgottenError      (also a LookupError) a time before the oldest change still kept

``sliceform.controller.errors`` adds its branches to the same root.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sliceform.states.history.changes import Change

#: How many of the last story lines an error message repeats; the attribute holds them all.
_SHOWN = 20


class SliceformError(Exception):
    """The root of every error that sliceform raises on purpose."""


class TableError(SliceformError, ValueError):
    """A transition table was refused; ``faults`` holds every fault that was found."""

    def __init__(self, name: str, faults: Sequence[str]) -> None:
        """Name the table and list all of its faults, so that one round of repair is enough."""
        super().__init__(name, tuple(faults))
        self.name = name
        self.faults = tuple(faults)

    def __str__(self) -> str:
        """Give one line for each fault."""
        return "\n".join(
            [f"the {self.name!r} table is not usable:", *(f"  - {fault}" for fault in self.faults)],
        )


class InvalidTransition(SliceformError):
    """A trigger was fired that the table does not have in this state; nothing was changed."""

    def __init__(
        self,
        key: str,
        state: str | None,
        trigger: str,
        legal: Sequence[str] = (),
        story: Sequence[Change] = (),
    ) -> None:
        """Keep what was tried, what would have been legal, and how the record came here."""
        super().__init__(key, state, trigger)
        #: The id of the record.
        self.key = key
        #: The state it was in, and still is; None before entry and after exit.
        self.state = state
        #: The trigger that was refused.
        self.trigger = trigger
        #: The triggers that are legal in this state.
        self.legal = tuple(legal)
        #: Every change of this record that the history still has, oldest first.
        self.story = tuple(story)

    def __str__(self) -> str:
        """Name the record, its state, the trigger, the legal ones, and tell the story."""
        where = "outside the machine" if self.state is None else f"in state {str(self.state)!r}"
        legal = ", ".join(map(str, self.legal)) or "none"
        what = f"trigger {str(self.trigger)!r} is not legal there (legal: {legal})"
        lines = [f"{self.key!r} is {where}: {what}"]
        if len(self.story) > _SHOWN:
            lines.append(f"  ... {len(self.story) - _SHOWN} earlier changes")
        lines.extend(f"  {change}" for change in self.story[-_SHOWN:])
        return "\n".join(lines)

    def __reduce__(self) -> tuple[type[InvalidTransition], tuple[object, ...]]:
        """Pickle with everything that the message needs."""
        return type(self), (self.key, self.state, self.trigger, self.legal, self.story)


class ForgottenError(SliceformError, LookupError):
    """The history was asked about a time before the oldest change that it still keeps."""
