"""Commit steps: move the records through their tables, keep the books, and put the effects into the outbox.

What one table makes of another follows from `COUPLINGS`. Nothing here acts on the world: effects are submitted after
the tick's commits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from sliceform.controller.reconcile import books, requests, run_books
from sliceform.controller.reconcile.decide.life import Life
from sliceform.controller.reconcile.decide.run import Attempt, RunRecord
from sliceform.controller.reconcile.decide.step import Step, WorkStep
from sliceform.controller.reconcile.ledger import Ledger
from sliceform.states.couplings import COUPLINGS, Coupling, Whose


class _Moved(NamedTuple):
    """A step that moved a record: a slice or a host of a life, a run, or an attempt."""

    step: Step | WorkStep
    what: Life | RunRecord | Attempt


def commit(ledger: Ledger, steps: Iterable[Step | WorkStep]) -> bool:
    """Make steps happen, then everything that they take along; return whether a run or an attempt moved.

    Raises:
        InvalidTransition: a table has no such row; that step has changed nothing.

    """
    moved = deque(found for step in list(steps) if (found := _make(ledger, step)) is not None)
    worked = False
    while moved:
        first = moved.popleft()
        worked = worked or isinstance(first.step, WorkStep)
        for coupling in COUPLINGS.of(_kind(first.step), str(first.step.trigger)):
            for step in _taken_along(ledger, first, coupling):
                found = _make(ledger, step, first.what)
                assert found is not None
                moved.append(found)
    return worked


def _kind(step: Step | WorkStep) -> str:
    if isinstance(step, Step):
        return "slice" if step.rank is None else "host"
    return "attempt" if "/" in step.key else "run"


def _make(ledger: Ledger, step: Step | WorkStep, beside: Life | RunRecord | Attempt | None = None) -> _Moved | None:
    """Make one step; return None for a note, which takes nothing along.

    `beside` is what took it along: a slice that is released is known no more when its hosts are.
    """
    if isinstance(step, WorkStep):
        work = _make_work(ledger, step)
        return None if step.trigger is None else _Moved(step, work)
    life = beside if isinstance(beside, Life) and step.rank is not None else _life(ledger, step)
    _make_slice(ledger, life, step)
    return None if step.trigger is None else _Moved(step, life)


def _life(ledger: Ledger, step: Step) -> Life:
    if step.slice_id not in ledger.fleet.lives:
        books.begin(ledger, step)
    return ledger.fleet.lives[step.slice_id]


def _make_slice(ledger: Ledger, life: Life, step: Step) -> None:
    if step.trigger is None:
        ledger.note(life.record, step.reason, step.detail, step.cause)
        books.noted(ledger, life, step)
        return
    record: Any = life.record if step.rank is None else life.record.hosts[step.rank]
    row = ledger.move(record, step.trigger, step.reason, step.detail, step.cause)
    if step.rank is not None:
        books.host_moved(ledger, life, record, step)
        return
    books.slice_moved(ledger, life, step)
    for effect in row.effects:
        requests.request(ledger, life, effect)


def _make_work(ledger: Ledger, step: WorkStep) -> RunRecord | Attempt:
    run = ledger.run(step.key.partition("/")[0])
    attempt = next((one for one in (*run.attempts[-1:], *run.unsettled) if one.id == step.key), None)
    what = run if attempt is None else attempt
    if step.trigger is None:
        if step.reason is not None:
            ledger.note(what, step.reason, step.detail, step.cause)
        if attempt is None:
            run_books.run_noted(ledger, run, step)
        else:
            run_books.attempt_noted(ledger, attempt, step)
        return what
    assert step.reason is not None
    row = ledger.move(what, step.trigger, step.reason, step.detail, step.cause)
    if attempt is None:
        run_books.run_moved(ledger, run, step)
        return run
    run_books.attempt_moved(ledger, run, attempt, step)
    if row.effects:
        requests.tell(ledger, attempt)
    return attempt


def _taken_along(ledger: Ledger, moved: _Moved, coupling: Coupling) -> Iterator[Step | WorkStep]:
    """Yield what a coupling asks for, of those records for which it is legal."""
    step, what = moved
    reason = coupling.reason or step.reason
    assert reason is not None
    then: Any = coupling.then
    # A host that was lost takes the others along, not what a new slice stands in for.
    cause = step.cause if step.cause and step.cause.startswith(f"{step.key}/") else step.key
    legal = ledger.engines[coupling.then_table.name].table.row
    if coupling.whose is Whose.HOSTS:
        assert isinstance(what, Life)
        for host in what.record.hosts:
            if legal(host.state, then) is not None:
                yield Step(what.record.id, host.rank, then, reason, step.detail, cause)
    elif coupling.whose is Whose.SLICES:
        assert isinstance(what, Attempt)
        for life in (ledger.fleet.lives.get(member) for member in what.spec.members):
            if life is not None and legal(life.record.state, then) is not None:
                yield Step(life.record.id, None, then, reason, step.detail, cause)
    else:
        other = _work_of(ledger, what)
        if other is not None and legal(other.state, then) is not None:
            yield WorkStep(other.id, then, reason, step.detail, cause)


def _work_of(ledger: Ledger, what: Life | RunRecord | Attempt) -> RunRecord | Attempt | None:
    """Return the attempt of a slice or of a run, or the run of an attempt."""
    if isinstance(what, Life):
        return ledger.attempts.get(what.record.attempt or "")
    return what.attempts[-1] if isinstance(what, RunRecord) else ledger.run(what.spec.run_id)
