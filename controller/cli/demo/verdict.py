"""Whether all of it happened: what is known at the end of the demo, and what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sliceform.controller.cli.demo.progress import Report
from sliceform.controller.model.status import AttemptStatus, SliceStatus
from sliceform.states import Change

#: The part of the held-out images that has to be recognised.
ACCURACY_BOUND = 0.9
#: Attempts of a run that lost one slice.
_TWICE = 2


@dataclass(frozen=True)
class Kill:
    """The fault that was made."""

    #: Epoch seconds, just before the processes of the host were killed.
    at: float
    #: The slice that the host belonged to: its id and its place.
    slice_id: str
    place: str
    host: str
    rank: int
    #: The last step that was reported before.
    step: int


@dataclass(frozen=True)
class Evidence:
    """What is known when the run is over."""

    #: Whether a host was to be killed.
    fault: bool
    steps: int
    kill: Kill | None
    #: When the lost slice was seen preempted, its replacement ready, epoch seconds.
    noticed_at: float | None
    replacement: str | None
    #: Where the replacement stands, and where the slices of the first attempt stood.
    replacement_place: str | None
    first_places: frozenset[str]
    replaced_at: float | None
    attempts: tuple[AttemptStatus, ...]
    reports: tuple[Report, ...]
    #: What every host returned, by rank; empty if the run ended otherwise.
    results: tuple[Mapping[str, Any], ...]
    #: How the run ended, if not well.
    error: str
    #: Slices that were left when the fleet had been closed.
    left: tuple[str, ...] = ()

    def begin(self, attempt: int) -> int | None:
        """Return the step at which an attempt began; None if it never did."""
        return next((row.step for row in self.reports if row.kind == "begin" and row.attempt == attempt), None)

    def first_step_at(self, attempt: int) -> float | None:
        """Return when the first step of an attempt was done, epoch seconds; None if none was."""
        return next((row.at for row in self.reports if row.kind == "step" and row.attempt == attempt), None)

    @property
    def accuracy(self) -> float:
        """The part of the held-out images that the trained network recognises; 0 without one."""
        return min((float(result["accuracy"]) for result in self.results), default=0.0)


def gather(
    *,
    fault: bool,
    steps: int,
    kill: Kill | None,
    history: Iterable[Change],
    slices: Sequence[SliceStatus],
    attempts: tuple[AttemptStatus, ...],
    reports: Iterable[Report],
    results: Iterable[Mapping[str, Any]],
    error: str,
    first_places: frozenset[str],
) -> Evidence:
    """Collect what is known at the end of the run, while the fleet is still there."""
    lost = kill.slice_id if kill else None
    row = next((row for row in slices if lost and row.replaces == lost), None)
    times = {(change.key, change.trigger): change.at for change in history}
    return Evidence(
        fault=fault,
        steps=steps,
        kill=kill,
        noticed_at=times.get((lost, "preempt")) if lost else None,
        replacement=row.id if row else None,
        replacement_place=row.place if row else None,
        first_places=first_places,
        replaced_at=times.get((row.id, "prepare")) if row else None,
        attempts=attempts,
        reports=tuple(reports),
        results=tuple(results),
        error=error,
    )


def missing(evidence: Evidence) -> list[str]:
    """Say what did not happen, a sentence each; nothing if all of it did."""
    faults = _loss(evidence) if evidence.fault else []
    return [*faults, *_training(evidence), *_end(evidence)]


def _loss(evidence: Evidence) -> list[str]:
    """Say what is missing of the loss, the replacement and the second attempt."""
    kill = evidence.kill
    if kill is None:
        return ["No host was killed: the training never came to the point where one is."]
    said = []
    if evidence.noticed_at is None:
        said.append(f"The loss of {kill.slice_id} was not noticed.")
    if evidence.replacement is None:
        said.append(f"{kill.slice_id} was not replaced.")
    else:
        if evidence.replaced_at is None:
            said.append(f"The replacement {evidence.replacement} never became ready.")
        if evidence.replacement_place is None or evidence.replacement_place in evidence.first_places:
            place = evidence.replacement_place or "no place"
            said.append(f"The replacement {evidence.replacement} stands at {place}, not at one that had been free.")
    if len(evidence.attempts) < _TWICE:
        said.append("There was no second attempt.")
        return said
    if evidence.replacement not in evidence.attempts[1].slices:
        said.append("The second attempt did not use the replacement.")
    begin = evidence.begin(_TWICE)
    if begin is None:
        said.append("The second attempt did not begin to train.")
    elif begin == 0:
        said.append("The second attempt began at step 0, not from a checkpoint.")
    return said


def _training(evidence: Evidence) -> list[str]:
    """Say what is missing of the training itself."""
    said = []
    wanted = _TWICE if evidence.fault else 1
    if len(evidence.attempts) > wanted:
        said.append(f"The training took {len(evidence.attempts)} attempts, not {wanted}.")
    if not evidence.results:
        done = max((row.step for row in evidence.reports), default=0)
        why = f": {evidence.error}" if evidence.error else ""
        said.append(f"The training did not finish; {done} of {evidence.steps} steps were done{why}")
        return said
    if any(result["steps"] != evidence.steps for result in evidence.results):
        said.append(f"Not every host did all {evidence.steps} steps.")
    if len({result["fingerprint"] for result in evidence.results}) > 1:
        said.append("The hosts ended with different networks.")
    if evidence.accuracy <= ACCURACY_BOUND:
        bound = f"more than {ACCURACY_BOUND:.0%}"
        said.append(f"The network recognises {evidence.accuracy:.1%} of the held-out images, not {bound}.")
    return said


def _end(evidence: Evidence) -> list[str]:
    """Say what was left behind."""
    return [f"Closing the fleet left {', '.join(evidence.left)} behind."] if evidence.left else []


def summary(evidence: Evidence, gaps: Sequence[str]) -> dict[str, Any]:
    """Return what happened, ready for JSON; durations in seconds since the kill, None for what never came."""
    kill = evidence.kill

    def after(at: float | None) -> float | None:
        return None if kill is None or at is None else round(at - kill.at, 3)

    return {
        "all_of_it_happened": not gaps,
        "missing": list(gaps),
        "killed": None if kill is None else {"host": kill.host, "slice": kill.slice_id, "after_step": kill.step},
        "noticed_after_s": after(evidence.noticed_at),
        "replacement": evidence.replacement,
        "replaced_after_s": after(evidence.replaced_at),
        "trained_again_after_s": after(evidence.first_step_at(_TWICE)),
        "from_step": evidence.begin(_TWICE) if kill else None,
        "attempts": [
            {"number": attempt.number, "slices": attempt.slices, "outcome": attempt.outcome}
            for attempt in evidence.attempts
        ],
        "accuracy": evidence.accuracy if evidence.results else None,
    }
