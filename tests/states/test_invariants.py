"""Replay and record checks: they accept what is lawful and find what is not."""

from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sliceform.controller.testing.strategies import histories
from sliceform.states import (
    SLICE_TABLE,
    Change,
    History,
    HostRecord,
    HostState,
    Reason,
    SliceRecord,
    SliceState,
    check_records,
    replay,
)
from sliceform.states.machine import Engine

#: No example takes long, but the machine may pause.
unhurried = settings(deadline=None)


@unhurried
@given(histories())
def test_lawful_walks_are_accepted(history):
    """Whatever the engine wrote can be replayed."""
    assert replay(history) == ()


@unhurried
@given(histories(limit=7))
def test_a_trimmed_walk_is_accepted_with_its_base(history):
    """The window has what replay needs to go on from."""
    base, kept = history.window()
    assert replay(kept, base) == ()


def moves(changes):
    """Where the changes are that move a record."""
    return [index for index, change in enumerate(changes) if not change.is_note]


#: Faults, each of which takes one change and gives what stands in its place.
FAULTS = {
    "illegal trigger": lambda change: [change._replace(trigger="explode")],
    "wrong source": lambda change: [change._replace(source="ready" if change.source != "ready" else "pending")],
    "wrong dest": lambda change: [change._replace(dest="running" if change.dest != "running" else "placed")],
    "other record": lambda change: (
        [change._replace(key="slice-99")] if change.source is not None else [change._replace(source="ready")]
    ),
    "told twice": lambda change: [change, change],
    "unknown kind": lambda change: [change._replace(kind="fleet")],
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@unhurried
@given(history=histories(min_size=1), data=st.data())
def test_an_injected_fault_is_found(fault, history, data):
    """Wherever it is put into a lawful history."""
    changes = list(history)
    index = data.draw(st.sampled_from(moves(changes)))
    changes[index : index + 1] = fault(changes[index])
    assert replay(changes)


@unhurried
@given(history=histories(min_size=1), data=st.data())
def test_a_missing_change_is_found_if_the_life_goes_on(history, data):
    """The next change of the record does not start from where it was."""
    changes = list(history)
    index = data.draw(st.sampled_from(moves(changes)))
    gone = changes.pop(index)
    later = [changes[i] for i in moves(changes) if changes[i].key == gone.key and i >= index]
    assert bool(replay(changes)) == bool(later)


def lived(*triggers, key="slice-1"):
    """A history of one slice."""
    history = History()
    engine, record = Engine(SLICE_TABLE, history), SliceRecord(key, ())
    for trigger in triggers:
        engine.fire(
            record,
            SLICE_TABLE.triggers(trigger),
            now=0.0,
            at=0.0,
            tick=1,
            reason=Reason.DESIRED,
        )
    return history


def test_a_key_used_again_after_its_exit_is_found():
    """A life is never revived, though the engine alone cannot know."""
    history = lived("create", "drain", "release", "create")
    assert replay(history) == ("change 4 of slice-1 follows the end of its life",)


def test_changes_out_of_order_are_found():
    """Numbers ascend."""
    first, second = lived("create", "place")
    assert "change 1 of slice-1 comes after change 2" in replay([second, first])


def test_a_trimmed_history_without_its_base_is_found():
    """A beginning that is missing is not taken for a lawful one."""
    assert replay(lived("create", "place", "prepare").since(1)) == (
        "change 2 of slice-1 starts from pending, but it was in [*]",
    )


def test_a_wrong_destination_says_where_it_should_lead():
    """The sentence is enough to find the place."""
    (change,) = lived("create")
    assert replay([change._replace(dest="ready")]) == ("change 1 of slice-1 leads to ready, but should to pending",)


def test_notes_are_accepted_anywhere():
    """Before, within and after a life, whatever they hold."""
    (change, *rest) = lived("create", "drain", "release")
    note = change._replace(trigger=None, source="ready", dest="draining", seq=9)
    run = change._replace(trigger=None, kind="run", key="run-1", source="waiting", dest="ended", seq=10)
    assert replay([change, *rest, note, run]) == ()
    assert replay([note]) == ()


NUMBERS = count(1)


def told(*what, tick=1, cause=None):
    """One change of any record, numbered in the order in which they are made."""
    return Change(next(NUMBERS), tick, 0.0, *what, "desired", "", cause)


def test_runs_are_followed_from_the_first_change_that_is_kept():
    """A window has no states of them before its first change."""
    assert replay([told("run", "run-1", "retry", "running", "waiting")]) == ()
    moves = [told("run", "run-1", "submit", None, "waiting"), told("run", "run-1", "retry", "running", "waiting")]
    assert "starts from running, but it was in waiting" in replay(moves)[0]


def a_run_on_a_slice():
    """A slice of one host that works for an attempt."""
    return [
        told("slice", "slice-1", "create", None, "pending"),
        told("host", "slice-1/0", "create", None, "pending"),
        told("slice", "slice-1", "place", "pending", "placed"),
        told("slice", "slice-1", "prepare", "placed", "ready"),
        told("run", "run-1", "submit", None, "waiting"),
        told("run", "run-1", "start", "waiting", "running"),
        told("attempt", "run-1/1", "create", None, "starting"),
        told("slice", "slice-1", "start", "ready", "running", cause="run-1/1"),
    ]


LOST = ("slice", "slice-1", "preempt", "running", "preempted")
HOST_LOST = ("host", "slice-1/0", "preempt", "pending", "preempted")
STOPPED = ("attempt", "run-1/1", "stop", "starting", "stopping")


@pytest.mark.parametrize(
    ("then", "missing"),
    [
        pytest.param([LOST, HOST_LOST, STOPPED], [], id="all that follows"),
        pytest.param([HOST_LOST, STOPPED, LOST], [], id="in any order"),
        pytest.param([LOST, STOPPED], ["slice-1/0 in pending, but slice preempt -> its hosts"], id="a host stays"),
        pytest.param([LOST, HOST_LOST], ["run-1/1 in starting, but slice preempt -> its attempt"], id="the work stays"),
        pytest.param(
            [("attempt", "run-1/1", "succeeded", "starting", None)],
            ["run-1 in running, but attempt succeeded -> its run"],
            id="the run stays",
        ),
    ],
)
def test_what_a_change_should_have_taken_along_is_named(then, missing):
    """By the couplings, once its tick is over; a tick that a driver did not live to finish is not judged."""
    changes = [*a_run_on_a_slice(), *(told(*change, tick=2) for change in then)]
    assert replay(changes) == ()
    assert replay([*changes, told("run", "run-2", "submit", None, "waiting", tick=0)]) == ()
    found = replay([*changes, told("run", "run-2", "submit", None, "waiting", tick=3)])
    assert len(found) == len(missing)
    assert all(sentence in violation for sentence, violation in zip(missing, found, strict=True))


def fleet_slice(number, state, *hosts, place=None, nodes=()):
    """A slice with hosts in these states."""
    key = f"slice-{number}"
    return SliceRecord(
        key,
        tuple(
            HostRecord(f"{key}/{rank}", key, rank, host, node_id=node)
            for rank, (host, node) in enumerate(zip(hosts, [*nodes, *[None] * (len(hosts) - len(nodes))], strict=True))
        ),
        state=state,
        place=place,
    )


S, H = SliceState, HostState


@pytest.mark.parametrize(
    "records",
    [
        pytest.param([], id="nothing"),
        pytest.param([fleet_slice(1, S.READY, H.READY, H.RUNNING)], id="ready"),
        pytest.param([fleet_slice(1, S.PLACED, H.READY, H.PENDING)], id="coming"),
        pytest.param([fleet_slice(1, S.PREEMPTED, H.PREEMPTED, H.PREEMPTED)], id="lost"),
        pytest.param(
            [
                fleet_slice(1, S.PREEMPTED, H.PREEMPTED, place="a", nodes=["n"]),
                fleet_slice(2, S.READY, H.READY, place="a", nodes=["n"]),
            ],
            id="the lost one's place taken again",
        ),
        pytest.param(
            [fleet_slice(1, S.PENDING, H.PENDING), fleet_slice(2, S.PENDING, H.PENDING)],
            id="no place yet",
        ),
    ],
)
def test_sound_records_are_accepted(records):
    """None of these is a contradiction."""
    assert check_records(records) == ()


def crooked(**changed):
    """A slice with one host of which some fields are wrong."""
    record = fleet_slice(1, S.READY, H.READY)
    for name, value in changed.items():
        setattr(record.hosts[0], name, value)
    return record


@pytest.mark.parametrize(
    ("records", "violation"),
    [
        pytest.param(
            [
                fleet_slice(1, S.READY, H.READY, place="a"),
                fleet_slice(2, S.PLACED, H.PLACED, place="a"),
            ],
            "place 'a' is shared by slice-1, slice-2",
            id="place",
        ),
        pytest.param(
            [
                fleet_slice(1, S.READY, H.READY, nodes=["n"]),
                fleet_slice(2, S.READY, H.READY, nodes=["n"]),
            ],
            "node 'n' is shared by slice-1/0, slice-2/0",
            id="node of two slices",
        ),
        pytest.param(
            [fleet_slice(1, S.READY, H.READY, H.READY, nodes=["n", "n"])],
            "node 'n' is shared by slice-1/0, slice-1/1",
            id="node of one slice",
        ),
        pytest.param(
            [fleet_slice(1, S.RUNNING, H.RUNNING, H.PLACED)],
            "slice slice-1 is running, but host slice-1/1 is placed",
            id="running too early",
        ),
        pytest.param(
            [fleet_slice(1, S.READY, None)],
            "slice slice-1 is ready, but host slice-1/0 is [*]",
            id="ready without a host",
        ),
        pytest.param(
            [fleet_slice(1, S.PLACED, H.PLACED, H.PREEMPTED)],
            "slice slice-1 is placed, but host slice-1/1 is preempted",
            id="not lost together",
        ),
        pytest.param(
            [fleet_slice(1, S.PREEMPTED, H.PREEMPTED, H.RUNNING)],
            "slice slice-1 is preempted, but host slice-1/1 is running",
            id="still running",
        ),
        pytest.param(
            [fleet_slice(1, S.PENDING), fleet_slice(1, S.DRAINING)],
            "slice id 'slice-1' is used 2 times",
            id="slice id",
        ),
        pytest.param([crooked(id="x")], "host x of slice-1 should be called slice-1/0", id="id"),
        pytest.param([crooked(rank=1)], "host slice-1/0 has rank 1 at position 0 of slice-1", id="rank"),
        pytest.param(
            [crooked(slice_id="slice-2")],
            "host slice-1/0 of slice-1 says that it is of slice-2",
            id="slice of a host",
        ),
    ],
)
def test_a_contradiction_is_named(records, violation):
    """The sentence names who and what."""
    assert violation in check_records(records)


def test_hosts_may_share_a_node_where_that_is_allowed():
    """CPU slices are packed."""
    records = [fleet_slice(1, S.READY, H.READY, H.READY, nodes=["n", "n"])]
    assert check_records(records, exclusive_nodes=False) == ()
