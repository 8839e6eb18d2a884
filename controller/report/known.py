"""What a history tells of many slices and runs, with each question asked once.

Asked for each of them, a long history would cost with the square.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from sliceform.states import Change, HistoryQueries, LostSlice, Reason, RunStory

#: Of places that were refused, the newest are told.
_REFUSED = 3


class Known:
    """One look at a history; it does not see what comes later."""

    def __init__(self, history: HistoryQueries) -> None:
        """Ask nothing yet."""
        self._history = history
        self._stories: dict[str, list[Change]] = {}
        self._runs: dict[str, RunStory] = {}

    def prepare(self, slices: Iterable[str]) -> None:
        """Ask for the stories of these slices together."""
        fresh = [name for name in slices if name not in self._stories]
        self._stories.update((name, []) for name in fresh)
        for change in self._history.story(*fresh) if fresh else ():
            self._stories[change.slice_id or ""].append(change)

    def story(self, slice_id: str) -> Sequence[Change]:
        """Tell what happened to a slice and its hosts."""
        self.prepare([slice_id])
        return self._stories[slice_id]

    def runs(self) -> tuple[RunStory, ...]:
        """Tell of all runs; whoever tells of several begins with this."""
        runs = self._history.runs()
        self._runs.update((run.id, run) for run in runs)
        return runs

    def run(self, run: str) -> RunStory | None:
        """Tell of a run; None if nothing of it is kept."""
        if run not in self._runs:
            self._runs.update((told.id, told) for told in self._history.runs(run))
        return self._runs.get(run)

    def loss(self, slice_id: str) -> LostSlice:
        """Tell of a slice that was preempted."""
        return self._losses[slice_id]

    @cached_property
    def states(self) -> Mapping[str, str]:
        """Give the state of every slice that is there."""
        return {key: state for key, state in self._history.at(float("inf")).items() if "/" not in key}

    @cached_property
    def refused(self) -> Sequence[Change]:
        """Give the last slices that were given up because of their place."""
        return self._history.select(reason=Reason.PLACE_AVOIDED, limit=_REFUSED)

    @cached_property
    def preempted_last(self) -> Sequence[Change]:
        """Give the last time that a slice was preempted, if any was."""
        return self._history.select(state="preempted", kind="slice", limit=1)

    @cached_property
    def _losses(self) -> Mapping[str, LostSlice]:
        return {loss.slice_id: loss for loss in self._history.losses()}
