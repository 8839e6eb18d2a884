"""Keep the published status current: rows of slices that changed are made anew, the others are kept."""

from __future__ import annotations

import itertools
from collections import Counter

from sliceform.controller.model.status import FleetStatus, RunStatus, SliceStatus
from sliceform.controller.reconcile.decide.run import RunRecord
from sliceform.controller.reconcile.ledger import Ledger
from sliceform.controller.reconcile.prospects import Prospects
from sliceform.controller.reconcile.rows import RunRows, run_status, slice_status
from sliceform.states.slices import LIVE, SliceState

#: Runs that are over and still shown.
_ENDED_RUNS_SHOWN = 100
#: In the order in which they are counted.
_STATES = tuple(state.value for state in SliceState)


class StatusBoard:
    """Written by the loop's thread after every tick, read by all."""

    def __init__(self, ledger: Ledger, label: str) -> None:
        """Start with an empty fleet."""
        self._ledger = ledger
        self._label = label
        #: By slice id, in the order of the lives: the version that a row shows, and the row.
        self._rows: dict[str, tuple[int, SliceStatus]] = {}
        self._ended: dict[str, RunStatus] = {}
        self._work = RunRows()
        self._shown: tuple[object, ...] = ()
        #: Told after every publication.
        self.published = ledger.published
        self.status = self._status(())

    def publish(self) -> None:
        """Make what the last tick left visible, and wake those who wait for it."""
        fleet = self._ledger.fleet
        rows = self._rows
        changed = [life for name, life in fleet.lives.items() if name not in rows or rows[name][0] != life.version]
        for life in changed:
            rows[life.record.id] = (life.version, slice_status(life))
        if len(rows) != len(fleet.lives):
            self._rows = rows = {name: rows[name] for name in fleet.lives}
        ledger = self._ledger
        shown = (
            ledger.history.last_seq,
            len(fleet.runs),
            fleet.desired.generation,
            fleet.blind,
            len(ledger.outbox),
            fleet.places.names(),
        )
        if changed or shown != self._shown or fleet.runs:
            self._shown = shown
            self.status = self._status(tuple([row for _, row in rows.values()]))
        else:
            waits_for = self._growth(self.status.ready)
            self.status = self.status._replace(tick=ledger.tick, at_epoch_s=fleet.epoch, waits_for=waits_for)
        with self.published:
            self.published.notify_all()

    def run_ended(self, run: RunRecord) -> None:
        """Keep showing a run that is over, up to a bound."""
        self._ended[run.id] = run_status(run, "")
        while len(self._ended) > _ENDED_RUNS_SHOWN:
            del self._ended[next(iter(self._ended))]

    def _status(self, rows: tuple[SliceStatus, ...]) -> FleetStatus:
        ledger, fleet = self._ledger, self._ledger.fleet
        counts = Counter([row.state for row in rows])
        ready = counts["ready"] + counts["running"]
        runs = self._work.rows(fleet.runs, Prospects(ledger), ledger.history.last_seq, fleet.now)
        return FleetStatus(
            label=self._label,
            tick=ledger.tick,
            at_epoch_s=fleet.epoch,
            sizes=fleet.desired.sizes,
            spares=fleet.desired.spares,
            size=fleet.desired.valid_size(ready),
            counts={state: counts[state] for state in _STATES if counts[state]},
            slices=rows,
            runs=(*self._ended.values(), *runs),
            effective_silence_s=ledger.settings.effective_silence_s,
            blind=fleet.blind,
            effects_in_flight=len(ledger.outbox),
            avoided=fleet.places.reasons(),
            waits_for=self._growth(ready),
        )

    def status_of(self, run: RunRecord) -> RunStatus:
        """Return a run as it is now; for the loop's thread."""
        prospects = Prospects(self._ledger)
        before = itertools.takewhile(lambda other: other is not run, self._ledger.fleet.runs)
        blocking = [other.id for other in before if prospects.blocks(other)]
        return run_status(run, prospects.of(run, len(blocking), *blocking[:1]))

    def _growth(self, ready: int) -> str:
        fleet = self._ledger.fleet
        if fleet.now < fleet.pause.until and ready < fleet.desired.target:
            left = fleet.pause.until - fleet.now
            return f"growth to {fleet.desired.largest} pauses for {left:.0f} s: the last try found no capacity"
        failed = [vacancy for vacancy in fleet.vacancies if vacancy.not_before > fleet.now]
        if failed:
            first = min(failed, key=lambda vacancy: vacancy.not_before)
            more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
            left = first.not_before - fleet.now
            return f"backs off for {left:.1f} s after {first.failures} failures in a row{more}: {first.detail}"
        live = any(life.record.state in LIVE for life in fleet.lives.values())
        if ready < fleet.desired.target and live:
            return f"waits for {fleet.desired.target - ready} of {fleet.desired.target} slices"
        return ""
