"""Explain a living fleet: what the cluster says of its slices now, and what the history knows."""

from __future__ import annotations

from collections.abc import Mapping

from sliceform.controller.errors import UnknownSliceError
from sliceform.controller.model.backend import Backend
from sliceform.controller.model.finding import Finding
from sliceform.controller.model.status import FleetStatus, SliceStatus
from sliceform.controller.report.explain import explain_run, explain_slice
from sliceform.controller.report.known import Known
from sliceform.controller.report.look import Look
from sliceform.controller.report.why import FleetWhy, Why, summarise, summarise_fleet
from sliceform.states import History
from sliceform.states.reasons import Reason

_WAITING = frozenset({"pending", "placed"})
_READY = frozenset({"ready", "running"})


def why_fleet(history: History, backend: Backend, status: FleetStatus, now: float) -> FleetWhy:
    """Explain every slice that is not ready, and every run that waits or was interrupted; `now` in epoch seconds."""
    known, look = Known(history), Look(now)
    missing = [row for row in status.slices if row.state not in _READY]
    known.prepare(row.id for row in missing)
    asked = _Asked(backend, status.avoided)
    slices = [_why_slice(known, asked, row, look) for row in missing]
    going_on = [run for run in status.runs if run.state in {"waiting", "running"}]
    if len(going_on) > 1:
        known.runs()
    runs = [explain_run(known, run.id, look, run.state, run.detail, with_slices=False) for run in going_on]
    return FleetWhy(summarise_fleet(status), tuple(slices), tuple(run for run in runs if run.findings))


def why_one(history: History, backend: Backend, key: str, *, status: FleetStatus, now: float) -> Why:
    """Explain a slice, also one that is gone, or a run.

    Raises:
        UnknownSliceError: there is nothing of that id.

    """
    rows: Mapping[str, SliceStatus] = {row.id: row for row in status.slices}
    known, look = Known(history), Look(now)
    if key in rows:
        return _why_slice(known, _Asked(backend, status.avoided), rows[key], look)
    runs = {run.id: run for run in status.runs}
    if key in runs:
        return explain_run(known, key, look, runs[key].state, runs[key].detail)
    if known.run(key) is not None:
        return explain_run(known, key, look)
    if any(change.key == key and change.kind == "slice" for change in history.story(key)):
        return explain_slice(known, key, look)
    submitted = [change.key for change in history.select(kind="run", reason=Reason.RUN_SUBMITTED)]
    raise UnknownSliceError(key, [*rows, *dict.fromkeys([*submitted, *runs])])


class _Asked:
    """What the cluster says; what stands in the way of one slice that has no place does for all, and is asked once."""

    def __init__(self, backend: Backend, avoid: Mapping[str, str]) -> None:
        self._backend = backend
        self._avoid = avoid
        self._unplaced: tuple[Finding, ...] | None = None

    def of(self, row: SliceStatus) -> tuple[Finding, ...]:
        if row.state != "pending":
            return self._backend.explain(row.id, row.place, self._avoid)
        if self._unplaced is None:
            self._unplaced = self._backend.explain(row.id, None, self._avoid)
        return self._unplaced


def _why_slice(known: Known, asked: _Asked, row: SliceStatus, look: Look) -> Why:
    if row.state in _WAITING:
        last = [change for change in known.story(row.id) if change.reason != Reason.HELD_UP][-1:]
        failing = [Finding(note.reason, note.detail) for note in last if note.reason == Reason.EFFECT_FAILED]
        found = (*failing, *asked.of(row))
    else:
        found = explain_slice(known, row.id, look, row.state).findings
    return Why(row.id, row.state, summarise(row, look.now), found)
