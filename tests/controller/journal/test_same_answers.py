"""Whatever happened to a fleet, memory and file give the same answers."""

from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis.strategies as st
from hypothesis import given, settings

from sliceform.controller.journal import open_journal
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


def asked(history, times):
    """Everything that can be asked, by the name of the question."""
    keys = sorted({change.key for change in history})
    answers = {
        "all": list(history),
        "len": len(history),
        "last": history.last_seq,
        "window": history.window(),
        "dicts": history.as_dicts(),
        "attempts": history.attempts.of(),
        "runs": history.runs(),
        "notes": list(history.notes()),
        "violations": history.violations(),
        "durations": history.durations(),
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
    for seq in (0, 7, history.last_seq):
        answers["since", seq] = list(history.since(seq))
    return answers


@settings(max_examples=40)
@given(happened=happenings)
def test_memory_and_file_give_the_same_answers(journal_world, happened):
    with TemporaryDirectory() as folder:
        world = journal_world(Path(folder) / "fleet.db")
        world.fleet.wait_ready(2)
        times = live_through(world, happened)
        world.fleet.close()
        with open_journal(world.path) as journal:
            in_file, in_memory = asked(journal, times), asked(world.history, times)
            assert in_file.keys() == in_memory.keys()
            for question, answer in in_memory.items():
                assert in_file[question] == answer, question
            assert journal.violations() == ()
