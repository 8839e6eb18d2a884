"""Say what the next tick would commit, without doing any of it: it is done to a copy.

The copy shares what is only read: settings, nodes, and all that is a user's.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

from sliceform.controller.reconcile.converge import converge
from sliceform.controller.reconcile.decide.life import Life
from sliceform.controller.reconcile.decide.run import Attempt, RunRecord
from sliceform.controller.reconcile.decide.step import Step, WorkStep
from sliceform.controller.reconcile.ledger import Ledger, engines_of
from sliceform.states import Change, History
from sliceform.states.reasons import Reason

T = TypeVar("T")

_REASONS: Mapping[str, Reason] = {reason.value: reason for reason in Reason}
#: Changes of one tick that are told.
_KEPT = 100_000


def preview(ledger: Ledger) -> tuple[Step | WorkStep, ...]:
    """Return what the next tick would commit, as far as it is known now."""
    twin = _copy(ledger)
    twin.fleet.surveyed = True  # the next tick may be the one that sees the node table first
    converge(twin)
    return tuple(_step(ledger, change) for change in twin.history.since(0))


def _step(ledger: Ledger, change: Change) -> Step | WorkStep:
    """Return the step that made a change."""
    reason = _REASONS[change.reason]
    trigger: Any = None
    if change.trigger is not None:
        trigger = ledger.engines[change.kind].table.triggers(change.trigger)
    if change.slice_id is None:
        return WorkStep(change.key, trigger, reason, change.detail, change.cause)
    rank = int(change.key.rpartition("/")[2]) if change.kind == "host" else None
    return Step(change.slice_id, rank, trigger, reason, change.detail, change.cause)


def _copy(ledger: Ledger) -> Ledger:
    twin = copy.copy(ledger)
    twin.history = History(_KEPT)
    twin.engines = engines_of(twin.history)
    twin.tick = ledger.tick + 1
    fleet = twin.fleet = _apart(ledger.fleet)
    fleet.lives = {name: _life(life) for name, life in ledger.fleet.lives.items()}
    attempts: dict[int, Attempt] = {}
    fleet.runs = [_run(run, attempts) for run in ledger.fleet.runs]
    twin.attempts = {key: attempts[id(attempt)] for key, attempt in ledger.attempts.items()}
    fleet.places = _apart(ledger.fleet.places)
    fleet.places.strikes = {node: _apart(strikes) for node, strikes in ledger.fleet.places.strikes.items()}
    fleet.backoff = copy.deepcopy(ledger.fleet.backoff)
    twin.place_map = _apart(ledger.place_map)
    twin.place_map.usable = _apart(ledger.place_map.usable)
    twin.outbox = _apart(ledger.outbox)
    twin.users = {node: set(users) for node, users in ledger.users.items()}
    twin.unseen = dict(ledger.unseen)
    twin.released = list(ledger.released)
    twin.room = (ledger.room[0], ledger.room[1].copy())
    return twin


def _life(life: Life) -> Life:
    twin = _apart(life)
    twin.record = copy.copy(life.record)
    twin.record.hosts = tuple(copy.copy(host) for host in life.record.hosts)
    twin.view = _apart(life.view)
    twin.view.hosts = tuple(copy.copy(host) for host in life.view.hosts)
    return twin


def _run(run: RunRecord, attempts: dict[int, Attempt]) -> RunRecord:
    twin = _apart(run)
    twin.on_end = lambda _: None
    for attempt in (*run.unsettled, *run.attempts[-1:]):
        attempts.setdefault(id(attempt), _apart(attempt))
    twin.attempts = [attempts.get(id(attempt), attempt) for attempt in run.attempts]
    twin.unsettled = [attempts[id(attempt)] for attempt in run.unsettled]
    return twin


def _apart(record: T) -> T:
    """Return a copy of a record whose own collections can be changed without those of the original."""
    twin = copy.copy(record)
    for name, value in _fields(record).items():
        if isinstance(value, dict | list | set):
            setattr(twin, name, copy.copy(value))
    return twin


def _fields(record: Any) -> Mapping[str, Any]:
    names = getattr(type(record), "__slots__", None) or vars(record)
    return {name: getattr(record, name) for name in names}
