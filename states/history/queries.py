"""What can be asked of a history, wherever it is kept: in memory or in a file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from sliceform.states.history.changes import Change, Story
from sliceform.states.history.durations import Durations, measure
from sliceform.states.history.losses import LostSlice, tell_loss
from sliceform.states.history.replay import replay
from sliceform.states.history.run_stories import RunStory, tell_runs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sliceform.states.history.attempt_log import AttemptRecord

#: What ends the use of a slice.
_LOSING = frozenset({"preempt", "expire", "drain"})


class AttemptSource(Protocol):
    """Where a history keeps the attempts of runs."""

    def of(self, run: str | None = None) -> tuple[AttemptRecord, ...]:
        """Give the attempts of this run, or of all, in the order in which they began."""
        ...


class Selection(NamedTuple):
    """Which changes are wanted; None = all."""

    #: A code of `Reason`.
    reason: str | None = None
    #: The state that the record came to, or was in when a note was made.
    state: str | None = None
    #: ``"slice"``, ``"host"``, ``"run"``, ``"attempt"`` or ``"fleet"``.
    kind: str | None = None
    #: The id of a slice, with its hosts, of a run, with its attempts, or of a host or attempt.
    key: str | None = None
    #: Seconds since the epoch: not before the first, and before the second.
    after: float | None = None
    before: float | None = None

    def takes(self, change: Change) -> bool:
        """Whether this change is wanted."""
        return (
            self.reason in {None, change.reason}
            and self.state in {None, change.dest}
            and self.kind in {None, change.kind}
            and self.key in {None, change.key, change.owner}
            and (self.after is None or change.at >= self.after)
            and (self.before is None or change.at < self.before)
        )


class Link(NamedTuple):
    """One slice in a line of slices of which each replaced the one before."""

    slice_id: str
    #: The slice that it stood in for.
    replaces: str | None
    created_at: float
    #: When it was first ready; None if it never was.
    ready_at: float | None
    #: What ended its use; None while it is of use.
    lost: Change | None
    #: When it left; None if it has not.
    gone_at: float | None


class HistoryQueries(ABC):
    """Questions that are answered from the changes that are kept; who can answer faster overrides.

    Times are in seconds since the epoch.
    """

    #: The attempts of runs, beside the changes that tell of them.
    attempts: AttemptSource

    @abstractmethod
    def window(self) -> tuple[dict[str, str], Story]:
        """Give the states before the oldest change that is kept, and all changes that are."""

    @abstractmethod
    def at(self, time: float) -> dict[str, str]:
        """Give the state of every slice and host at that time; raises `ForgottenError` if that is not known."""

    @abstractmethod
    def since(self, seq: int) -> Story:
        """Give the changes that are kept and numbered above `seq`."""

    @property
    @abstractmethod
    def last_seq(self) -> int:
        """The number of the newest change; 0 if there is none."""

    @property
    @abstractmethod
    def dropped(self) -> int:
        """How many changes were forgotten."""

    def story(self, *keys: str) -> Story:
        """Tell what happened to these records; a slice's story has that of its hosts, a run's that of its attempts."""
        wanted = frozenset(keys)
        return Story(change for change in self if change.key in wanted or change.owner in wanted)

    def select(
        self,
        *,
        reason: str | None = None,
        state: str | None = None,
        kind: str | None = None,
        key: str | None = None,
        after: float | None = None,
        before: float | None = None,
        limit: int | None = None,
    ) -> Story:
        """Give the changes for which all of this holds.

        Args:
            reason: a code of `Reason`.
            state: the state that the record came to, or was in when a note was made.
            kind: ``"slice"``, ``"host"``, ``"run"``, ``"attempt"`` or ``"fleet"``.
            key: the id of a slice, with its hosts, of a run, with its attempts, or of a host or attempt.
            after: not before this time.
            before: before this time.
            limit: at most so many, the newest.

        Raises:
            ValueError: a negative limit.

        """
        if limit is not None and limit < 0:
            raise ValueError(f"limit must be 0 or more, not {limit}")
        return self._select(Selection(reason, state, kind, key, after, before), limit)

    def notes(self, *keys: str) -> Story:
        """Give what happened to these records, or to all, without moving them."""
        return Story(change for change in (self.story(*keys) if keys else self) if change.is_note)

    def lineage(self, slice_id: str) -> tuple[Link, ...]:
        """Give the line of slices that this one belongs to, oldest first: whom it replaced, and who replaced it."""
        return next((line for line in self.lines() if any(link.slice_id == slice_id for link in line)), ())

    def lines(self) -> tuple[tuple[Link, ...], ...]:
        """Give every line of slices, in the order in which they began; see `lineage`."""
        stories: dict[str, list[Change]] = {}
        # One look: a second one might know more, or have forgotten some.
        for change in self:
            if change.kind == "slice" and change.trigger == "create":
                stories[change.key] = [change]
            elif change.key in stories:
                stories[change.key].append(change)
        replaced_by = {old: name for name, story in stories.items() if (old := story[0].cause) is not None}
        return tuple(
            tuple(_link(member, stories[member]) for member in _line(name, replaced_by))
            for name, story in stories.items()
            if story[0].cause not in stories
        )

    def losses(self) -> tuple[LostSlice, ...]:
        """Tell of every slice that was preempted, in order: what took it, and what replaced it."""
        return self._losses([row for row in self.select(state="preempted", kind="slice") if not row.is_note])

    def loss(self, change: Change) -> LostSlice:
        """Tell of the slice that this `preempt` change is about."""
        return self._losses([change])[0]

    def runs(self, run: str | None = None) -> tuple[RunStory, ...]:
        """Tell of this run, or of all in the order in which they were submitted, with attempts and pauses."""
        notes, attempts = self.select(kind="run", key=run), self.attempts.of(run)
        if run is None:
            # Of runs that are over, those whose notes were forgotten are, too.
            kept = {note.key for note in notes} | {row.run for row in attempts if row.ended_at is None}
            attempts = tuple(row for row in attempts if row.run in kept)
        return tell_runs(notes, attempts, self.story)

    def durations(self, key: str | None = None, *, until: float | None = None) -> Durations:
        """Measure the time that this record (a slice with its hosts), or all, spent in each state.

        What has not ended counts up to `until`, by default up to the newest change.
        """
        spent = measure(*self.window(), until).records
        wanted = {name: states for name, states in spent.items() if key in {None, name, name.rpartition("/")[0]}}
        return Durations(wanted)

    def violations(self) -> tuple[str, ...]:
        """Replay all that is kept through the tables, and name each change that does not fit."""
        base, changes = self.window()
        return replay(changes, base)

    def as_dicts(self) -> list[dict[str, Any]]:
        """Give every change that is kept as a dictionary, ready for JSON."""
        return [change.as_dict() for change in self]

    def __iter__(self) -> Iterator[Change]:
        """Go through the changes that are kept at this moment, oldest first."""
        return iter(self.window()[1])

    def __len__(self) -> int:
        """Count the changes that are kept."""
        return len(self.window()[1])

    def _losses(self, preempted: Sequence[Change]) -> tuple[LostSlice, ...]:
        """Tell of these slices with one look at the stories of all, and of those that replaced them."""
        replaced_by = self._successors() if preempted else {}
        found = [(change, replaced_by.get(change.key)) for change in preempted]
        stories: dict[str | None, list[Change]] = {}
        for change in self.story(*{name for row, new in found for name in (row.key, new) if name}) if found else ():
            stories.setdefault(change.slice_id, []).append(change)
        return tuple(tell_loss(row, stories.get(row.key, ()), new, stories.get(new, ())) for row, new in found)

    def _successors(self) -> Mapping[str, str]:
        """Give every slice that was replaced, with the one that replaced it."""
        return {old: new for new, old in self._creations().items() if old is not None}

    def _select(self, selection: Selection, limit: int | None) -> Story:
        found = [change for change in self if selection.takes(change)]
        return Story(found if limit is None else found[len(found) - min(limit, len(found)) :])

    def _creations(self) -> Mapping[str, str | None]:
        """Give every slice whose entry is kept, in order, with the one that it replaced."""
        return {change.key: change.cause for change in self if change.trigger == "create" and change.kind == "slice"}


def _line(first: str, replaced_by: Mapping[str, str]) -> list[str]:
    line = [first]
    while (new := replaced_by.get(line[-1])) is not None:
        line.append(new)
    return line


def _link(name: str, story: Sequence[Change]) -> Link:
    own = [change for change in story if not change.is_note]
    ready = (change.at for change in own if change.trigger == "prepare")
    lost = (change for change in own if change.trigger in _LOSING)
    gone = (change.at for change in own if change.dest is None)
    return Link(name, own[0].cause, own[0].at, next(ready, None), next(lost, None), next(gone, None))
