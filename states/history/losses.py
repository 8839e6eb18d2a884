"""What is known of a slice that was taken away: which host, how it was learnt, and what replaced it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sliceform.states.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sliceform.states.history.changes import Change


class LostSlice(NamedTuple):
    """A slice that was preempted. Times in seconds since the epoch."""

    slice_id: str
    #: Where it was, as far as its story says: the name of a TPU slice.
    place: str | None
    #: The host that was lost or given notice, if it was one host; and the Ray node that it was on.
    host: str | None
    node: str | None
    #: When it was taken out of use: lost, or given notice.
    at: float
    #: When it was lost; None if it was given notice and has not been seen lost.
    lost_at: float | None
    #: How it was learnt, as a code of `Reason`, and in free text.
    reason: str
    detail: str
    #: The slice that stands in for it; None if there is none yet.
    replaced_by: str | None
    replacement_place: str | None
    #: When the replacement was ready; None if it is not yet, or never was.
    replacement_ready_at: float | None

    @property
    def noticed(self) -> bool:
        """Whether a notice came first."""
        return self.reason == Reason.PREEMPTION_NOTICE

    def as_dict(self) -> dict[str, Any]:
        """Give the fields by name, ready for JSON."""
        return self._asdict()


def tell_loss(change: Change, story: Sequence[Change], replaced_by: str | None, later: Iterable[Change]) -> LostSlice:
    """Tell of a loss from the slice's `preempt` change and story, and from the story of its replacement."""
    places = {seen.key: place_of(seen) for seen in story if seen.trigger == "place"}
    lost_at = next((seen.at for seen in story if seen.key == change.key and is_loss(seen)), None)
    fresh = [seen for seen in later if seen.key == replaced_by]
    return LostSlice(
        slice_id=change.key,
        place=places.get(change.key),
        host=change.cause,
        node=places.get(change.cause or ""),
        at=change.at,
        lost_at=lost_at,
        reason=change.reason,
        detail=change.detail,
        replaced_by=replaced_by,
        replacement_place=next((place_of(seen) for seen in fresh if seen.trigger == "place"), None),
        replacement_ready_at=next((seen.at for seen in fresh if seen.trigger == "prepare"), None),
    )


def is_loss(change: Change) -> bool:
    """Whether a slice was lost with this change; a notice alone takes nothing away."""
    if change.trigger == "preempt":
        return change.kind == "slice" and change.reason != Reason.PREEMPTION_NOTICE
    return change.reason == Reason.LOST_AFTER_NOTICE


def place_of(change: Change) -> str | None:
    """Give the place or node that a `place` change names; None if it names none."""
    return change.detail.removeprefix("on ").removeprefix("node ") or None
