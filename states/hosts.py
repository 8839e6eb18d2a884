"""The states, triggers and transition table of a host of a slice."""

from enum import StrEnum

from sliceform.states.table import Kind, Row, TransitionTable


class HostState(StrEnum):
    """Where a host is in its life."""

    #: Its bundle has no node yet.
    PENDING = "pending"
    #: Its bundle is on a known node; its agent is starting.
    PLACED = "placed"
    #: Its agent has answered with the expected node and devices.
    READY = "ready"
    #: The function's process is alive on it.
    RUNNING = "running"
    #: It, or another host of its slice, is lost or about to be.
    PREEMPTED = "preempted"
    #: Its work is being stopped and its bundle given back.
    DRAINING = "draining"


class HostTrigger(StrEnum):
    """What moves a host."""

    #: Its slice is created.
    CREATE = "create"
    #: Its bundle was seen on a node.
    PLACE = "place"
    #: Its agent has answered well.
    PREPARE = "prepare"
    #: The function's process was seen alive.
    START = "start"
    #: The function's process was seen gone.
    FINISH = "finish"
    #: It, or another host of its slice, was noticed or lost.
    PREEMPT = "preempt"
    #: Its slice is given back.
    DRAIN = "drain"
    #: Its slice's groups were seen removed.
    RELEASE = "release"


_S, _T = HostState, HostTrigger


def _row(
    trigger: HostTrigger,
    source: HostState | None,
    dest: HostState | None,
    doc: str,
) -> Row[HostState, HostTrigger]:
    """Make a row of the kind that its trigger has; a host asks for nothing by itself."""
    kind = Kind.COMMAND if trigger in (_T.CREATE, _T.DRAIN) else Kind.FACT
    return Row(trigger, source, dest, kind, (), doc)


#: Every legal transition of a host.
HOST_TABLE: TransitionTable[HostState, HostTrigger] = TransitionTable(
    name="host",
    states=HostState,
    triggers=HostTrigger,
    rows=(
        _row(_T.CREATE, None, _S.PENDING, "Its slice is created."),
        _row(_T.PLACE, _S.PENDING, _S.PLACED, "Its bundle is on a known node."),
        _row(
            _T.PREPARE,
            _S.PLACED,
            _S.READY,
            "Its agent has answered from the expected node with the expected devices.",
        ),
        _row(_T.START, _S.READY, _S.RUNNING, "The function's process is alive on it."),
        _row(_T.FINISH, _S.RUNNING, _S.READY, "The function's process is gone."),
        *(
            _row(
                _T.PREEMPT,
                source,
                _S.PREEMPTED,
                "It was given notice or lost, or another host of its slice was.",
            )
            for source in (_S.PENDING, _S.PLACED, _S.READY, _S.RUNNING)
        ),
        *(
            _row(_T.DRAIN, source, _S.DRAINING, "Its slice is being given back.")
            for source in (_S.PENDING, _S.PLACED, _S.READY, _S.RUNNING, _S.PREEMPTED)
        ),
        _row(_T.RELEASE, _S.DRAINING, None, "The groups of its slice are observed removed."),
    ),
)
