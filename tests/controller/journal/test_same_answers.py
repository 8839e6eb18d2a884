"""Whatever happened to a fleet, memory and file give the same answers."""

from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis.strategies as st
from hypothesis import given, settings

from sliceform.controller.follow.journal import open_journal
from sliceform.states import Reason

#: What can happen, and how long after it the fleet goes on, seconds.
happenings = st.lists(
    st.tuples(
        st.sampled_from(["lose", "run", "drain", "scale", "nothing", "clock set back"]),
        st.integers(0, 3),
        st.integers(1, 4),
    ),
    max_size=8,
)


def live_through(world, happened):
    """Let all of it happen; give the times at which something did."""
    times = [world.clock.epoch()]
    for what, pick, seconds in happened:
        rows = world.fleet.status().slices
        row = rows[pick % len(rows)] if rows else None
        if what == "lose" and row is not None and row.place is not None:
            world.sim.kill_host(row.place, 0)
        elif what == "run":
            world.fleet.options(slices=1).submit(max, 1, 2)
        elif what == "drain" and row is not None:
            world.fleet.drain(row.id, 0.0)
        elif what == "scale":
            world.fleet.scale(pick or 1)
        elif what == "clock set back":
            world.clock._epoch -= 3.0
        world.go(float(seconds))
        times.append(world.clock.epoch())
    return times


def kept(history):
    """What is kept, by the name of the question."""
    answers = {"all": list(history), "len": len(history), "window": history.window()}
    for seq in (0, 7, history.last_seq):
        answers["since", seq] = list(history.since(seq))
    return answers


def asked(history, times, keys):
    """Everything else that can be asked, by the name of the question."""
    answers = {
        "last": history.last_seq,
        "dicts": history.as_dicts(),
        "attempts": history.attempts.of(),
        "runs": history.runs(),
        "notes": list(history.notes()),
        "violations": history.violations(),
        "durations": history.durations(),
        "lines": history.lines(),
        "losses": history.losses(),
    }
    for key in keys:
        answers["story", key] = list(history.story(key))
        answers["lineage", key] = history.lineage(key)
        answers["attempts", key] = history.attempts.of(key)
        answers["durations", key] = history.durations(key, until=times[-1] + 10)
        answers["run", key] = history.runs(key)
        answers["key", key] = list(history.select(key=key, limit=3))
        answers["notes", key] = list(history.notes(key, keys[0]))
    for time in times:
        for near in (time - 0.3, time, time + 0.3):
            answers["at", near] = history.at(near)
        answers["between", time] = list(history.select(after=times[0], before=time, kind="slice"))
    for state in ("running", "draining", "preempted"):
        answers["state", state] = list(history.select(state=state, kind="host"))
    for reason in (Reason.NODE_DIED, Reason.RUN_STARTED, Reason.OPERATOR):
        answers["reason", reason] = list(history.select(reason=reason, limit=2))
    return answers


def forget(history, changes, attempts):
    """Let memory forget so many of what it keeps, except the last of each."""
    history._chunk = min(changes, len(history) - 1)
    history._trim()
    log = history.attempts
    log._limit = max(1, len(log._kept) - attempts)
    log._kept = dict(list(log._kept.items())[-log._limit :])


def same(expected, answers):
    assert answers.keys() == expected.keys()
    for question, answer in expected.items():
        assert answers[question] == answer, question


@settings(max_examples=40)
@given(happened=happenings)
def test_memory_and_file_give_the_same_answers(journal_world, happened):
    with TemporaryDirectory() as folder:
        world = journal_world(Path(folder) / "fleet.db")
        world.fleet.wait_ready(2)
        times = live_through(world, happened)
        world.fleet.close()
        keys = sorted({change.key for change in world.history})
        with open_journal(world.path) as journal:
            same(kept(world.history), kept(journal))
            same(asked(world.history, times, keys), asked(journal, times, keys))
            assert journal.violations() == ()


@settings(max_examples=30)
@given(happened=happenings, changes=st.integers(1, 200), attempts=st.integers(0, 5))
def test_a_history_that_forgot_answers_from_the_file(journal_world, happened, changes, attempts):
    with TemporaryDirectory() as folder:
        world = journal_world(Path(folder) / "fleet.db")
        world.fleet.wait_ready(2)
        times = live_through(world, happened)
        world.fleet.close()
        keys = sorted({change.key for change in world.history})
        everything = asked(world.history, times, keys)
        forget(world.history, changes, attempts)
        same(everything, asked(world.history, times, keys))


@settings(max_examples=20)
@given(happened=happenings)
def test_the_next_driver_answers_from_the_file(journal_world, happened):
    with TemporaryDirectory() as folder:
        first = journal_world(Path(folder) / "fleet.db")
        first.fleet.wait_ready(2)
        times = live_through(first, happened)
        first.fleet.close()
        second = journal_world(first.path, epoch=first.clock.epoch() + 10.0)
        second.go(1.0)
        times += live_through(second, happened)
        second.fleet.close()
        with open_journal(second.path) as journal:
            keys = sorted({change.key for change in journal})
            same(asked(journal, times, keys), asked(second.history, times, keys))
