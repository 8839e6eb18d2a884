"""Say what runs wait for, or are about to do, in a sentence each."""

from __future__ import annotations

from functools import cached_property

from sliceform.controller.reconcile.decide.life import Life
from sliceform.controller.reconcile.decide.run import Attempt, RunRecord
from sliceform.controller.reconcile.decide.schedule import choose_size, free_slices, larger, schedule, startable
from sliceform.controller.reconcile.ledger import Ledger
from sliceform.states.effects import Effect
from sliceform.states.slices import SliceState


class Prospects:
    """What can be said of the runs as the fleet stands now: made anew after every tick."""

    def __init__(self, ledger: Ledger) -> None:
        """Take whose runs they are."""
        self._ledger = ledger

    @cached_property
    def _lives(self) -> list[Life]:
        return list(self._ledger.fleet.lives.values())

    @cached_property
    def _growing(self) -> tuple[RunRecord, int, float] | None:
        """The run that may grow, which is the same whoever is told of."""
        return larger(self._ledger.fleet)

    @cached_property
    def _free(self) -> int:
        return len(free_slices(self._lives))

    @cached_property
    def _used(self) -> int:
        return sum(life.record.state is SliceState.RUNNING for life in self._lives)

    @cached_property
    def _keeper(self) -> str:
        """The first run that free slices are kept for."""
        return schedule(self._ledger.fleet, self._lives).keeper if self._free else ""

    def blocks(self, run: RunRecord) -> bool:
        """Whether runs that come after it wait behind it."""
        return run.options.pinned is None and run.waiting and run.sizes[0] <= self._ledger.fleet.desired.largest

    def of(self, run: RunRecord, before: int, first: str = "") -> str:
        """Say what a run waits for, or is about to do; empty if it just runs.

        `before` is how many runs wait before it, and `first` the first of them.
        """
        fleet = self._ledger.fleet
        if run.active is not None:
            return self._change_of(run, run.active)
        if run.ended is not None or not run.sizes:
            return ""  # over, or not taken in yet
        if not run.waiting:
            return f"attempt {run.tries} ended as a failure, which may still prove to be the loss of a node"
        if not startable(fleet, run):
            most = fleet.desired.largest
            return (
                f"can no longer start: it takes {run.sizes[0]} slices, the fleet aims for {most}; scale, or cancel it"
            )
        if fleet.now < run.not_before:
            return f"backs off for {run.not_before - fleet.now:.1f} s before attempt {run.tries + 1}"
        if run.options.pinned is not None:
            return f"waits until {' and '.join(run.options.pinned)} can take it"
        if before:
            return f"waits behind {first}" if before == 1 else f"waits behind {first} and {before - 1} more"
        free = self._free
        size, when = choose_size(fleet, run, free, self._used)
        takes = " or ".join(map(str, run.sizes))
        if size and when > fleet.now:
            return f"waits {when - fleet.now:.1f} s more for a larger size than {size} ({takes})"
        if self._keeper not in {"", run.id}:
            return f"waits for {takes} ready slices that are free; {free} are, and kept for {self._keeper}"
        return f"waits for {takes} ready slices that are free; {free} are"

    def _change_of(self, run: RunRecord, attempt: Attempt) -> str:
        """Say what keeps an attempt from beginning, or whether it is to end before its work is done."""
        fleet = self._ledger.fleet
        if attempt.stop_at is not None:
            left_s = max(0.0, attempt.stop_at - fleet.now)
            return f"{attempt.superseded or 'stops'}: its work has {left_s:.1f} s to stop"
        for member in attempt.spec.members:
            item = self._ledger.outbox.get(member, Effect.LAUNCH)
            if item is not None and item.failures:
                return f"has not begun on {member} after {item.failures} failed tries: {item.detail}"
        found = self._growing
        if found is None or found[0] is not run:
            return ""
        left_s = max(0.0, found[2] - fleet.now)
        return f"starts again on {found[1]} slices in {left_s:.1f} s, if they stay free"
