"""The log of what the history records: one event per change, and its weight."""

from types import SimpleNamespace

import pytest
import structlog

from sliceform.controller.follow.follower import Batch
from sliceform.controller.follow.log import ChangeLog, level_of
from sliceform.states import AttemptRecord, Change, HostEnd
from sliceform.states.reasons import Reason


def change(**fields):
    told = {"seq": 1, "tick": 7, "at": 5.0, "kind": "slice", "key": "slice-1", "trigger": "place"}
    told |= {"source": "pending", "dest": "placed", "reason": "placed"}
    return Change(**(told | fields))


def note(reason, **fields):
    return change(**({"trigger": None, "source": "ready", "dest": "ready", "reason": str(reason)} | fields))


def attempt(**fields):
    return AttemptRecord(
        **({"run": "run-1", "number": 2, "slices": ("slice-1",), "hosts": (), "started_at": 5.0} | fields)
    )


@pytest.fixture
def lines():
    """What is logged, whatever the level."""
    caught = []
    structlog.configure(
        processors=[
            lambda _, level, fields: (
                caught.append({**fields, "level": level}) or (_ for _ in ()).throw(structlog.DropEvent)
            )
        ],
        wrapper_class=structlog.BoundLogger,
    )
    return caught


def test_a_change_is_one_event_with_all_its_fields(lines):
    ChangeLog("train")(Batch((change(detail="v4-16-1", cause="slice-0"),), (), 0))
    assert lines == [
        {
            "event": "slice_changed", "level": "info", "fleet": "train", "seq": 1, "tick": 7, "at": 5.0,
            "key": "slice-1", "trigger": "place", "source": "pending", "dest": "placed", "reason": "placed",
            "detail": "v4-16-1", "cause": "slice-0",
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("told", "event", "level"),
    [
        (change(), "slice_changed", "info"),
        (change(trigger="preempt", reason="node_died"), "slice_changed", "warning"),
        (change(trigger="expire", reason="agent_failed"), "slice_changed", "warning"),
        (change(kind="host", key="slice-1/0", trigger="preempt"), "host_changed", "debug"),
        (note(Reason.EFFECT_FAILED), "slice_noted", "info"),
        (note(Reason.STUCK), "slice_noted", "warning"),
        (note(Reason.QUARANTINED), "slice_noted", "warning"),
        (note(Reason.LOST_AFTER_NOTICE), "slice_noted", "warning"),
        (note(Reason.STUCK, kind="host", key="slice-1/0"), "host_noted", "debug"),
        (note(Reason.RUN_SUBMITTED, kind="run", key="run-1"), "run_noted", "info"),
        (note(Reason.FENCED_BY_TIME, kind="attempt", key="run-1/1"), "attempt_noted", "info"),
        (note(Reason.RUN_FINISHED, kind="run", key="run-1", dest="succeeded"), "run_noted", "info"),
        (note(Reason.RUN_FINISHED, kind="run", key="run-1", dest="failed"), "run_noted", "warning"),
    ],
)
def test_events_weigh_what_they_mean(lines, told, event, level):
    ChangeLog("train")(Batch((told,), (), 0))
    assert [(line["event"], line["level"]) for line in lines] == [(event, level)]
    assert level_of(told) == level


@pytest.mark.parametrize(
    ("outcome", "level"),
    [("succeeded", "info"), ("superseded", "info"), ("preempted", "warning"), ("failed", "warning")],
)
def test_an_attempt_is_logged_when_it_begins_and_when_it_ends(lines, outcome, level):
    write = ChangeLog("train")
    write(Batch((), (attempt(),), 0))
    write(Batch((), (attempt(ended_at=8.5, outcome=outcome, detail="why"),), 0))
    begun, ended = lines
    assert (begun["event"], begun["level"], begun["attempt"], begun["slices"]) == (
        "attempt_started",
        "info",
        "run-1/2",
        ("slice-1",),
    )
    assert (ended["event"], ended["level"], ended["outcome"], ended["detail"]) == (
        "attempt_ended",
        level,
        outcome,
        "why",
    )
    assert ended["took_s"] == 3.5


def test_an_attempt_that_was_over_at_once_began_all_the_same(lines):
    ChangeLog("train")(
        Batch((), (attempt(ended_at=5.1, outcome="failed", hosts=(HostEnd("slice-1/0", "n", "raised", "!"),)),), 0)
    )
    assert [line["event"] for line in lines] == ["attempt_started", "attempt_ended"]
    assert "outcome" not in lines[0]


def test_what_the_history_forgot_is_said(lines):
    ChangeLog("train")(Batch((change(seq=9),), (), 8))
    assert (lines[0]["event"], lines[0]["level"], lines[0]["missed"]) == ("changes_missed", "warning", 8)


def test_a_whole_life_is_logged_without_a_word_from_the_loop(lines, sim_fleet):
    """Every change is one line, in order, by the time that the fleet is closed."""
    world = sim_fleet(1)
    world.ready()
    run = world.fleet.submit(pow, 2, 5)
    world.over(run)
    world.fleet.close()
    told = [line for line in lines if line["event"].endswith(("_changed", "_noted"))]
    assert [line["seq"] for line in told] == list(range(1, world.fleet.history.last_seq + 1))
    assert [line["event"] for line in lines if line["event"] in {"attempt_started", "attempt_ended"}] == [
        "attempt_started",
        "attempt_ended",
    ]
    assert {line["fleet"] for line in told} == {world.fleet.status().label}
    assert SimpleNamespace(**told[0]).key == "slice-1"


def test_a_cluster_that_cannot_be_observed_is_told_once_each_time(lines, sim_fleet):
    world = sim_fleet(1, 1).ready()
    for _ in range(2):
        world.sim.fail_observation()
        world.go(6.0)
        world.sim.fail_observation(on=False)
        world.go(6.0)
    failed = [line for line in lines if line["event"] == "observation_failed"]
    assert [(line["level"], line["detail"]) for line in failed] == [
        ("warning", "the simulated node table cannot be read")
    ] * 2
