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
    """A step that moved a record (a slice or a host of a life, a run, an attempt) and takes others along."""

    step: Step | WorkStep
    what: Life | RunRecord | Attempt
    couplings: tuple[Coupling, ...]


def commit(ledger: Ledger, steps: Iterable[Step | WorkStep]) -> bool:
    """Make steps happen, then everything that they take along; return whether a run or an attempt moved.

    Raises:
        InvalidTransition: a table has no such row; that step has changed nothing.

    """
    worked = False
    moved: deque[_Moved] = deque()
    todo: Iterable[Step | WorkStep] = list(steps)
    beside: Life | RunRecord | Attempt | None = None
    while True:
        for step in todo:
            worked = worked or (isinstance(step, WorkStep) and step.trigger is not None)
            found = _make(ledger, step, beside)
            if found is not None:
                moved.append(found)
        if not moved:
            return worked
        first = moved.popleft()
        todo, beside = _taken_along(ledger, first), first.what


def _make(ledger: Ledger, step: Step | WorkStep, beside: Life | RunRecord | Attempt | None) -> _Moved | None:
    """Make one step; return it if it takes others along, which a note does not.

    `beside` is what took it along: a slice that is released is known no more when its hosts are.
    """
    what: Life | RunRecord | Attempt
    if isinstance(step, WorkStep):
        kind = "attempt" if "/" in step.key else "run"
        what = _make_work(ledger, step)
    else:
        kind = "slice" if step.rank is None else "host"
        what = beside if isinstance(beside, Life) and step.rank is not None else _life(ledger, step)
        _make_slice(ledger, what, step)
    couplings = COUPLINGS.of(kind, step.trigger) if step.trigger is not None else ()
    return _Moved(step, what, couplings) if couplings else None


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


def _taken_along(ledger: Ledger, moved: _Moved) -> Iterator[Step | WorkStep]:
    """Yield what the couplings of a transition ask for, of those records for which it is legal."""
    step = moved.step
    # A host that was lost takes the others along, not what a new slice stands in for.
    cause = step.cause if step.cause and step.cause.startswith(f"{step.key}/") else step.key
    for coupling in moved.couplings:
        reason = coupling.reason or step.reason
        assert reason is not None
        then: Any = coupling.then
        legal = coupling.then_table.row
        if coupling.whose is Whose.HOSTS:
            assert isinstance(moved.what, Life)
            slice_id = moved.what.record.id
            for host in moved.what.record.hosts:
                if legal(host.state, then) is not None:
                    yield Step(slice_id, host.rank, then, reason, step.detail, cause)
        elif coupling.whose is Whose.SLICES:
            assert isinstance(moved.what, Attempt)
            for life in (ledger.fleet.lives.get(member) for member in moved.what.spec.members):
                if life is not None and legal(life.record.state, then) is not None:
                    yield Step(life.record.id, None, then, reason, step.detail, cause)
        else:
            other = _work_of(ledger, moved.what)
            if other is not None and legal(other.state, then) is not None:
                yield WorkStep(other.id, then, reason, step.detail, cause)


def _work_of(ledger: Ledger, what: Life | RunRecord | Attempt) -> RunRecord | Attempt | None:
    """Return the attempt of a slice or of a run, or the run of an attempt."""
    if isinstance(what, Life):
        return ledger.attempts.get(what.record.attempt or "")
    return what.attempts[-1] if isinstance(what, RunRecord) else ledger.run(what.spec.run_id)
