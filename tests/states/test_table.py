"""Transition tables: the four that exist, and every fault that makes one unusable."""

from enum import StrEnum

import pytest

from sliceform.states import (
    ATTEMPT_TABLE,
    HOST_TABLE,
    LIVE,
    RUN_TABLE,
    SLICE_TABLE,
    TABLES,
    Effect,
    HostState,
    Kind,
    Row,
    SliceState,
    TableError,
    TransitionTable,
)

COMMANDS = {
    "slice": {"create", "start", "drain"},
    "host": {"create", "drain"},
    "run": {"submit", "start", "retry", "failed", "preempted", "cancelled"},
    "attempt": {"create", "stop"},
}


class Door(StrEnum):
    """States of a small machine."""

    SHUT = "shut"
    OPEN = "open"


class Push(StrEnum):
    """Triggers of a small machine."""

    BUILD = "build"
    PULL = "pull"
    BURN = "burn"


class Other(StrEnum):
    """Members that belong to neither."""

    AJAR = "ajar"
    KICK = "kick"


def row(trigger, source, dest, kind=Kind.FACT, *, effects=(), doc="It happens."):
    """A row, well formed unless told otherwise."""
    return Row(trigger, source, dest, kind, effects, doc)


BUILD = row(Push.BUILD, None, Door.SHUT)
PULL = row(Push.PULL, Door.SHUT, Door.OPEN)
BURN = row(Push.BURN, Door.OPEN, None)
GOOD = (BUILD, PULL, BURN)


def table(*rows):
    """A table of doors."""
    return TransitionTable("door", Door, Push, rows)


def test_a_sound_table_is_accepted():
    """The base that the faults below are injected into has none."""
    assert table(*GOOD).rows == GOOD


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        pytest.param((*GOOD, PULL), "2 rows for trigger pull from shut", id="duplicate pair"),
        pytest.param(
            (BUILD, row(Push.PULL, Door.SHUT, Door.SHUT), row(Push.BURN, Door.SHUT, None)),
            "state open cannot be reached",
            id="unreachable state",
        ),
        pytest.param(
            (BUILD, PULL, row(Push.BURN, Door.SHUT, None)),
            "state open cannot reach the exit",
            id="trap",
        ),
        pytest.param(
            (BUILD, PULL, row(Push.PULL, Door.OPEN, None)),
            "trigger burn is not used",
            id="unused trigger",
        ),
        pytest.param(
            (BUILD, row(Push.PULL, Door.SHUT, Door.OPEN, effects=("launch",)), BURN),
            "unknown effect 'launch'",
            id="unknown effect",
        ),
        pytest.param((*GOOD, row(Push.PULL, Other.AJAR, Door.OPEN)), "is not a Door", id="foreign source"),
        pytest.param((*GOOD, row(Push.PULL, Door.OPEN, Other.AJAR)), "is not a Door", id="foreign dest"),
        pytest.param((*GOOD, row(Other.KICK, Door.OPEN, Door.SHUT)), "is not a Push", id="foreign trigger"),
        pytest.param((*GOOD, row("pull", Door.OPEN, Door.SHUT)), "is not a Push", id="plain text"),
        pytest.param((PULL, BURN), "no row enters the machine", id="no entry"),
        pytest.param(
            (*GOOD, row(Push.PULL, None, Door.OPEN)),
            "more than one trigger enters the machine: build, pull",
            id="two entries",
        ),
        pytest.param(
            (BUILD, PULL, row(Push.BURN, Door.OPEN, Door.SHUT)),
            "no row exits the machine",
            id="no exit",
        ),
        pytest.param((*GOOD, row(Push.PULL, None, None)), "it enters and exits at once", id="nowhere"),
        pytest.param(
            (BUILD, row(Push.PULL, Door.SHUT, Door.OPEN, doc="  "), BURN),
            "it does not say when it happens",
            id="no doc",
        ),
        pytest.param(
            (*GOOD, row(Push.PULL, Door.OPEN, Door.SHUT, Kind.COMMAND)),
            "trigger pull is a fact in one row and a command in another",
            id="two kinds",
        ),
        pytest.param((*GOOD, row(Push.BUILD, Door.OPEN, Door.SHUT, kind="fact")), "not a Kind", id="kind"),
        pytest.param((), "no row enters the machine", id="empty"),
    ],
)
def test_a_structural_fault_is_refused(rows, fault):
    """Each fault is named in the error, which is also a ValueError."""
    with pytest.raises(TableError) as caught:
        table(*rows)
    assert fault in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_all_faults_are_reported_at_once():
    """One round of repair is enough."""
    with pytest.raises(TableError) as caught:
        table(BUILD, row(Push.BURN, Door.SHUT, None, doc=""))
    faults = caught.value.faults
    assert any("does not say when" in fault for fault in faults)
    assert any("open cannot be reached" in fault for fault in faults)
    assert any("pull is not used" in fault for fault in faults)
    assert all(fault in str(caught.value) for fault in faults)


def test_a_table_is_a_frozen_value():
    """Equal rows make equal tables, and nothing can be assigned."""
    assert table(*GOOD) == table(*GOOD)
    assert hash(table(*GOOD)) == hash(table(*GOOD))
    with pytest.raises(AttributeError):
        table(*GOOD).name = "gate"


def test_look_ups_agree_with_the_rows():
    """`row`, `legal` and `entry` say what the rows say."""
    small = table(*GOOD)
    assert small.row(Door.SHUT, Push.PULL) is PULL
    assert small.row(Door.SHUT, Push.BURN) is None
    assert small.legal(Door.OPEN) == (Push.BURN,)
    assert small.legal(None) == (Push.BUILD,)
    assert small.entry is BUILD


@pytest.mark.parametrize("real", TABLES.values(), ids=lambda real: real.name)
def test_commands_are_those_that_carry_a_decision(real):
    """Everything else is a fact."""
    commands = {row.trigger for row in real.rows if row.kind is Kind.COMMAND}
    assert commands == COMMANDS[real.name]


def test_slice_edges_are_the_published_ones():
    """The contract, written out once more by hand."""
    edges = {(row.trigger, row.source, row.dest) for row in SLICE_TABLE.rows}
    assert edges == {
        ("create", None, "pending"),
        ("place", "pending", "placed"),
        ("prepare", "placed", "ready"),
        ("start", "ready", "running"),
        ("finish", "running", "ready"),
        *(("preempt", source, "preempted") for source in ("placed", "ready", "running")),
        *(("expire", source, "draining") for source in ("pending", "placed")),
        *(("drain", source, "draining") for source in ("pending", "placed", "ready", "running", "preempted")),
        ("release", "draining", None),
    }


def test_run_edges_are_the_published_ones():
    """The contract, written out once more by hand."""
    assert {(row.trigger, row.source, row.dest) for row in RUN_TABLE.rows} == {
        ("submit", None, "waiting"),
        ("start", "waiting", "running"),
        ("retry", "running", "waiting"),
        ("succeeded", "running", None),
        ("preempted", "running", None),
        *(("cancelled", source, None) for source in ("waiting", "running")),
        ("failed", "running", None),
    }


def test_attempt_edges_are_the_published_ones():
    """The contract, written out once more by hand."""
    under_way = ("starting", "running", "stopping")
    assert {(row.trigger, row.source, row.dest) for row in ATTEMPT_TABLE.rows} == {
        ("create", None, "starting"),
        ("start", "starting", "running"),
        *(("stop", source, "stopping") for source in ("starting", "running")),
        *(("end", source, "ended") for source in under_way),
        *(("succeeded", source, None) for source in (*under_way, "ended")),
        *((trigger, "ended", None) for trigger in ("failed", "preempted", "cancelled", "superseded")),
    }


def test_host_edges_are_the_published_ones():
    """The contract, written out once more by hand."""
    edges = {(row.trigger, row.source, row.dest) for row in HOST_TABLE.rows}
    live = ("pending", "placed", "ready", "running")
    assert edges == {
        ("create", None, "pending"),
        ("place", "pending", "placed"),
        ("prepare", "placed", "ready"),
        ("start", "ready", "running"),
        ("finish", "running", "ready"),
        *(("preempt", source, "preempted") for source in live),
        *(("drain", source, "draining") for source in (*live, "preempted")),
        ("release", "draining", None),
    }


def test_effects_follow_from_the_trigger():
    """A slice asks for the same whenever the same happens to it; a host asks for nothing."""
    asked = {
        "create": (Effect.RESERVE,),
        "place": (Effect.ASSEMBLE,),
        "start": (Effect.LAUNCH,),
        "preempt": (Effect.NOTIFY,),
        "expire": (Effect.RELEASE,),
        "drain": (Effect.RELEASE,),
    }
    for each in SLICE_TABLE.rows:
        assert each.effects == asked.get(each.trigger, ())
    assert not any(each.effects for each in HOST_TABLE.rows)


def test_slices_and_hosts_share_their_states():
    """Six names for both, and the live ones are those that are neither lost nor leaving."""
    assert [state.value for state in SliceState] == [state.value for state in HostState]
    assert set(SliceState) - LIVE == {SliceState.PREEMPTED, SliceState.DRAINING}
