"""The states, triggers and transition table of an attempt of a run."""

from enum import StrEnum

from sliceform.states.effects import Effect
from sliceform.states.table import Kind, Row, TransitionTable


class AttemptState(StrEnum):
    """Where an attempt is in its life."""

    #: It has its slices; its process has not been seen on every host.
    STARTING = "starting"
    #: Its process was seen alive on every host.
    RUNNING = "running"
    #: It is to end: its work was told to save and stop, by force when its time is over.
    STOPPING = "stopping"
    #: Nothing of it runs, and what it is charged to may still change for a short time.
    ENDED = "ended"


class AttemptTrigger(StrEnum):
    """What moves an attempt. How it leaves is the trigger that it leaves by."""

    #: Its run was given slices.
    CREATE = "create"
    #: Its process was seen alive on every host.
    START = "start"
    #: It is to end before its work is done.
    STOP = "stop"
    #: Nothing of it was seen left on any host.
    END = "end"
    #: Every host returned.
    SUCCEEDED = "succeeded"
    #: Its end is charged as a failure.
    FAILED = "failed"
    #: Its end is charged as a preemption.
    PREEMPTED = "preempted"
    #: Its run was cancelled.
    CANCELLED = "cancelled"
    #: We ended it on purpose; no budget is charged.
    SUPERSEDED = "superseded"


_S, _T = AttemptState, AttemptTrigger
_UNDER_WAY = (_S.STARTING, _S.RUNNING, _S.STOPPING)


def _row(
    trigger: AttemptTrigger,
    source: AttemptState | None,
    dest: AttemptState | None,
    doc: str,
    effects: tuple[Effect, ...] = (),
) -> Row[AttemptState, AttemptTrigger]:
    """Make a row of the kind that its trigger has."""
    kind = Kind.COMMAND if trigger in (_T.CREATE, _T.STOP) else Kind.FACT
    return Row(trigger, source, dest, kind, effects, doc)


#: Every legal transition of an attempt.
ATTEMPT_TABLE: TransitionTable[AttemptState, AttemptTrigger] = TransitionTable(
    name="attempt",
    states=AttemptState,
    triggers=AttemptTrigger,
    rows=(
        _row(_T.CREATE, None, _S.STARTING, "Its run was given slices."),
        _row(_T.START, _S.STARTING, _S.RUNNING, "Its process is alive on every host, or has ended there."),
        *(
            _row(
                _T.STOP,
                source,
                _S.STOPPING,
                "A slice left it, a process of it ended other than well, its run is cancelled, or it makes way for one"
                " on more slices.",
                (Effect.NOTIFY,),
            )
            for source in (_S.STARTING, _S.RUNNING)
        ),
        *(
            _row(_T.END, source, _S.ENDED, "Every host is clear of it, and every host of a slice that stayed answered.")
            for source in _UNDER_WAY
        ),
        *(
            _row(_T.SUCCEEDED, source, None, "Every host returned, whatever else was going on.")
            for source in (*_UNDER_WAY, _S.ENDED)
        ),
        _row(_T.FAILED, _S.ENDED, None, "A process or an agent ended by itself on a node that proved to live."),
        _row(_T.PREEMPTED, _S.ENDED, None, "What came first was a notice, a drain by the cluster, or a loss."),
        _row(_T.CANCELLED, _S.ENDED, None, "Its run was cancelled."),
        _row(_T.SUPERSEDED, _S.ENDED, None, "We ended it: to grow, or because a slice of it was drained on purpose."),
    ),
)
