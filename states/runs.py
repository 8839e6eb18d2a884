"""The states, triggers and transition table of a run."""

from enum import StrEnum

from sliceform.states.table import Kind, Row, TransitionTable


class RunState(StrEnum):
    """Where a run is in its life."""

    #: It waits for the slices of its next attempt.
    WAITING = "waiting"
    #: It has slices, or its attempt is over and what follows is not decided yet.
    RUNNING = "running"


class RunTrigger(StrEnum):
    """What moves a run. How it leaves is the trigger that it leaves by."""

    #: Somebody handed it in.
    SUBMIT = "submit"
    #: The planner gives it slices.
    START = "start"
    #: The planner lets it wait for another attempt.
    RETRY = "retry"
    #: Every host of an attempt returned.
    SUCCEEDED = "succeeded"
    #: It may not be tried again after a failure.
    FAILED = "failed"
    #: It may not be tried again after a preemption.
    PREEMPTED = "preempted"
    #: Somebody asked for its end, or a limit of its time is reached.
    CANCELLED = "cancelled"


_S, _T = RunState, RunTrigger


def _row(
    trigger: RunTrigger,
    source: RunState | None,
    dest: RunState | None,
    doc: str,
) -> Row[RunState, RunTrigger]:
    """Make a row of the kind that its trigger has; a run asks for nothing by itself."""
    kind = Kind.FACT if trigger is _T.SUCCEEDED else Kind.COMMAND
    return Row(trigger, source, dest, kind, (), doc)


#: Every legal transition of a run.
RUN_TABLE: TransitionTable[RunState, RunTrigger] = TransitionTable(
    name="run",
    states=RunState,
    triggers=RunTrigger,
    rows=(
        _row(_T.SUBMIT, None, _S.WAITING, "It was handed in."),
        _row(_T.START, _S.WAITING, _S.RUNNING, "Enough slices are free for it: its next attempt begins."),
        _row(
            _T.RETRY,
            _S.RUNNING,
            _S.WAITING,
            "Nothing of its attempt runs, and its budgets allow another, whichever the last one is charged to.",
        ),
        _row(_T.SUCCEEDED, _S.RUNNING, None, "Every host of its attempt returned."),
        _row(
            _T.FAILED,
            _S.RUNNING,
            None,
            "Its attempt failed, and its budget for failures is used up or the user's rules forbid another.",
        ),
        _row(_T.PREEMPTED, _S.RUNNING, None, "Its attempt was preempted, and its budget for that is used up."),
        _row(
            _T.CANCELLED,
            _S.RUNNING,
            None,
            "Somebody asked for its end or a limit of its time is reached, and nothing of its attempt runs any more.",
        ),
        _row(
            _T.CANCELLED,
            _S.WAITING,
            None,
            "Somebody asked for its end, or a limit of its time was reached, while it waited.",
        ),
    ),
)
