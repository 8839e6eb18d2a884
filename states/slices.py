"""The states, triggers and transition table of a slice."""

from enum import StrEnum

from sliceform.states.effects import Effect
from sliceform.states.table import Kind, Row, TransitionTable


class SliceState(StrEnum):
    """Where a slice is in its life."""

    #: Its capacity is asked for.
    PENDING = "pending"
    #: Its capacity is reserved and its nodes are known; agents are starting.
    PLACED = "placed"
    #: Every host has answered with the expected node and devices; it is free for work.
    READY = "ready"
    #: A run is using it.
    RUNNING = "running"
    #: A host of it is lost or about to be; a replacement is asked for at once.
    PREEMPTED = "preempted"
    #: Its work is being stopped and its capacity given back.
    DRAINING = "draining"


class SliceTrigger(StrEnum):
    """What moves a slice."""

    #: The planner wants another slice.
    CREATE = "create"
    #: Its reservation was seen placed.
    PLACE = "place"
    #: All of its agents have answered well.
    PREPARE = "prepare"
    #: The planner gives it to a run.
    START = "start"
    #: Its part of the attempt was seen to have ended.
    FINISH = "finish"
    #: A host of it was noticed or lost.
    PREEMPT = "preempt"
    #: It cannot become ready, or has not in time.
    EXPIRE = "expire"
    #: The planner gives it back.
    DRAIN = "drain"
    #: Its groups were seen removed.
    RELEASE = "release"


#: The states in which a slice counts as capacity, present or coming.
LIVE: frozenset[SliceState] = frozenset(
    {SliceState.PENDING, SliceState.PLACED, SliceState.READY, SliceState.RUNNING},
)

_S, _T = SliceState, SliceTrigger


def _row(
    trigger: SliceTrigger,
    source: SliceState | None,
    dest: SliceState | None,
    doc: str,
    effects: tuple[Effect, ...] = (),
) -> Row[SliceState, SliceTrigger]:
    """Make a row of the kind that its trigger has."""
    commands = (_T.CREATE, _T.START, _T.DRAIN)
    kind = Kind.COMMAND if trigger in commands else Kind.FACT
    return Row(trigger, source, dest, kind, effects, doc)


_LOST = (
    "A host was given notice or lost: its node, agent or group is gone, a bundle moved to another"
    " node, or it fell silent."
)

#: Every legal transition of a slice.
SLICE_TABLE: TransitionTable[SliceState, SliceTrigger] = TransitionTable(
    name="slice",
    states=SliceState,
    triggers=SliceTrigger,
    rows=(
        _row(
            _T.CREATE,
            None,
            _S.PENDING,
            "There are fewer live slices than desired.",
            (Effect.RESERVE,),
        ),
        _row(
            _T.PLACE,
            _S.PENDING,
            _S.PLACED,
            "The reservation is placed: the slice's name and head node are known on TPU,"
            " all of its nodes on GPU and CPU.",
            (Effect.ASSEMBLE,),
        ),
        _row(
            _T.PREPARE,
            _S.PLACED,
            _S.READY,
            "Every agent has answered from the expected node with the expected devices.",
        ),
        _row(_T.START, _S.READY, _S.RUNNING, "A run takes the slice.", (Effect.LAUNCH,)),
        _row(
            _T.FINISH,
            _S.RUNNING,
            _S.READY,
            "The attempt has ended and every host process of it is gone.",
        ),
        *(
            _row(_T.PREEMPT, source, _S.PREEMPTED, _LOST, (Effect.NOTIFY,))
            for source in (_S.PLACED, _S.READY, _S.RUNNING)
        ),
        _row(
            _T.EXPIRE,
            _S.PENDING,
            _S.DRAINING,
            "The time budget for being placed is used up, or the reservation was refused.",
            (Effect.RELEASE,),
        ),
        _row(
            _T.EXPIRE,
            _S.PLACED,
            _S.DRAINING,
            "The time budget for becoming ready is used up, an agent cannot start, or one reports wrong devices.",
            (Effect.RELEASE,),
        ),
        *(
            _row(
                _T.DRAIN,
                source,
                _S.DRAINING,
                "It is no longer wanted: scale-down, surplus, an operator, or the fleet closes.",
                (Effect.RELEASE,),
            )
            for source in (_S.PENDING, _S.PLACED, _S.READY)
        ),
        _row(
            _T.DRAIN,
            _S.RUNNING,
            _S.DRAINING,
            "Running work is told to make way by a deadline: scale-down that may stop runs,"
            " an operator, or the fleet closes.",
            (Effect.RELEASE,),
        ),
        _row(
            _T.DRAIN,
            _S.PREEMPTED,
            _S.DRAINING,
            "Its work is gone, its grace is over, or it was lost without any grace.",
            (Effect.RELEASE,),
        ),
        _row(_T.RELEASE, _S.DRAINING, None, "Its groups are observed removed."),
    ),
)
