"""The engine: the whole product of states and triggers, and agreement of machine and table."""

import itertools
import pickle
from dataclasses import dataclass, fields

import pytest

from sliceform.states import (
    HOST_TABLE,
    SLICE_TABLE,
    TABLES,
    History,
    HostRecord,
    HostState,
    InvalidTransition,
    Reason,
    SliceRecord,
    SliceState,
    SliceTrigger,
)
from sliceform.states.machine import Engine

#: The triggers of rows that the machine cannot express: entry and exit.
OUTSIDE = {
    "slice": {"create", "release"},
    "host": {"create", "release"},
    "run": {"submit", "succeeded", "failed", "preempted", "cancelled"},
    "attempt": {"create", "succeeded", "failed", "preempted", "cancelled", "superseded"},
}
STAMP = {"now": 7.0, "at": 1_000.0, "tick": 3, "reason": Reason.OPERATOR}


@dataclass(slots=True, eq=False)
class Work:
    """What a run or an attempt has of what the engine needs."""

    id: str
    state: object
    since: float = 1.0
    at: float = 0.0
    reason: object = None
    detail: str = ""


def record_of(name, state):
    """A record in some state, as if it had come there lawfully."""
    if name == "slice":
        return SliceRecord("slice-1", (), state=state, since=1.0)
    if name in {"run", "attempt"}:
        return Work("run-1", state)
    return HostRecord("slice-1/0", "slice-1", 0, state=state, since=1.0)


def contents(record):
    """Everything that a record holds."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


def product():
    """Every state of every table, and outside, with every trigger."""
    for name, table in TABLES.items():
        for state, trigger in itertools.product((None, *table.states), table.triggers):
            yield pytest.param(name, state, trigger, id=f"{name}-{state or 'outside'}-{trigger}")


@pytest.mark.parametrize(("name", "state", "trigger"), list(product()))
def test_every_pair_does_what_the_table_says(name, state, trigger):
    """A legal pair goes where its row says; any other raises, and changes nothing."""
    table, history = TABLES[name], History()
    engine = Engine(table, history)
    record = record_of(name, state)
    engine.note(record, at=999.0, tick=2, reason=Reason.STUCK)
    row = table.row(state, trigger)
    if row is None:
        before, told = contents(record), tuple(history)
        with pytest.raises(InvalidTransition) as caught:
            engine.fire(record, trigger, **STAMP)
        assert contents(record) == before
        assert tuple(history) == told == caught.value.story
        assert (caught.value.key, caught.value.state) == (record.id, state)
        assert caught.value.trigger == trigger
        assert caught.value.legal == table.legal(state)
        return
    assert engine.fire(record, trigger, detail="why", cause="slice-0", **STAMP) is row
    assert record.state is row.dest
    assert (record.since, record.reason, record.detail) == (7.0, Reason.OPERATOR, "why")
    assert len(history) == 2
    change = history.since(1)[0]
    assert change[1:] == (
        *(3, 1_000.0, name, record.id, trigger, state, row.dest),
        *("operator", "why", "slice-0"),
    )


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_machine_and_table_agree(table):
    """The machine has every row of the table but entry and exit, and nothing else."""
    machine = Engine(table, History()).machine
    drawn = {
        (name, transition.source, transition.dest)
        for name, event in machine.events.items()
        for transitions in event.transitions.values()
        for transition in transitions
    }
    outside = {row for row in table.rows if row.source is None or row.dest is None}
    assert {row.trigger for row in outside} == OUTSIDE[table.name]
    assert drawn == {(row.trigger, row.source.name, row.dest.name) for row in table.rows if row not in outside}
    assert set(machine.states) == {state.name for state in table.states}
    assert machine.models == []


def test_states_in_the_history_are_plain_text():
    """A journal can store them without knowing the enums."""
    history = History()
    record = record_of("slice", None)
    Engine(SLICE_TABLE, history).fire(record, SliceTrigger.CREATE, **STAMP)
    (change,) = history
    texts = (change.kind, change.key, change.trigger, change.dest, change.reason)
    assert {type(text) for text in texts} == {str}


def test_a_slice_counts_its_transitions():
    """The version moves with every transition, and not with a note."""
    engine = Engine(SLICE_TABLE, History())
    record = record_of("slice", None)
    for count, trigger in enumerate(("create", "place", "prepare", "drain", "release"), start=1):
        engine.fire(record, SliceTrigger(trigger), **STAMP)
        engine.note(record, at=0.0, tick=1, reason=Reason.STUCK)
        assert record.version == count
    assert record.state is None


def test_a_note_tells_and_moves_nothing():
    """It has no trigger, names the state it happened in, and leaves the record as it is."""
    history = History()
    record = record_of("slice", SliceState.PREEMPTED)
    before = contents(record)
    change = Engine(SLICE_TABLE, history).note(
        record, at=5.0, tick=4, reason=Reason.NOTICE_MERGED, detail="second", cause="slice-1/1"
    )
    assert contents(record) == before
    assert tuple(history) == (change,)
    assert change.is_note
    assert (change.source, change.dest) == ("preempted", "preempted")


def test_one_machine_drives_many_records():
    """Records share nothing: moving one leaves the others."""
    engine = Engine(HOST_TABLE, History())
    hosts = [HostRecord(f"slice-1/{rank}", "slice-1", rank) for rank in range(3)]
    for host in hosts:
        engine.fire(host, HOST_TABLE.entry.trigger, **STAMP)
    engine.fire(hosts[1], HOST_TABLE.triggers.PLACE, **STAMP)
    assert [host.state for host in hosts] == [
        *(HostState.PENDING, HostState.PLACED, HostState.PENDING),
    ]


def refused():
    """An error with a story."""
    engine = Engine(SLICE_TABLE, History())
    record = record_of("slice", None)
    engine.fire(record, SliceTrigger.CREATE, detail="first one", **STAMP)
    with pytest.raises(InvalidTransition) as caught:
        engine.fire(record, SliceTrigger.FINISH, **STAMP)
    return caught.value


def test_the_error_tells_what_was_tried_and_how_it_came_to_this():
    """Record, state, trigger, what would be legal, and the story lines."""
    text = str(refused())
    for part in ("'slice-1'", "'pending'", "'finish'", "legal: place, expire, drain"):
        assert part in text
    assert "00:16:40.000  slice-1  [*] -> pending  (operator) first one" in text


def test_the_error_outside_the_machine_says_so():
    """Before entry and after exit there is no state to name."""
    with pytest.raises(InvalidTransition, match=r"outside the machine.*legal: create"):
        Engine(SLICE_TABLE, History()).fire(record_of("slice", None), SliceTrigger.DRAIN, **STAMP)


def test_a_long_story_is_cut_in_the_message_only():
    """The message shows the end; the attribute has it all."""
    engine = Engine(SLICE_TABLE, History())
    record = record_of("slice", SliceState.READY)
    for _ in range(20):
        engine.fire(record, SliceTrigger.START, **STAMP)
        engine.fire(record, SliceTrigger.FINISH, **STAMP)
    with pytest.raises(InvalidTransition) as caught:
        engine.fire(record, SliceTrigger.RELEASE, **STAMP)
    assert len(caught.value.story) == 40
    assert "... 20 earlier changes" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 22


def test_the_error_survives_pickling():
    """It reaches another process with everything in it."""
    error = refused()
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error)
    assert (copy.key, copy.state, copy.trigger) == ("slice-1", "pending", "finish")
    assert (copy.legal, copy.story) == (error.legal, error.story)


def test_records_are_equal_only_to_themselves():
    """Two lives with the same contents are two lives."""
    assert record_of("slice", None) != record_of("slice", None)
    assert record_of("host", None) != record_of("host", None)


@pytest.mark.parametrize("state", [None, *SliceState])
def test_live_says_whether_a_slice_is_capacity(state):
    """Lost, leaving, and outside are not."""
    assert record_of("slice", state).live is (state in ("pending", "placed", "ready", "running"))
