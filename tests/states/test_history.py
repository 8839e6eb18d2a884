"""The history: bound, queries, and what trimming must not change."""

import json
import pickle
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sliceform.states import Change, ForgottenError, History, Story, format_story

#: No example takes long, but the machine may pause.
unhurried = settings(deadline=None)

KEYS = ("slice-1", "slice-1/0", "slice-1/1", "slice-10", "slice-10/0", "run-1")


def kind_of(key):
    """What a key of these tests stands for."""
    return "run" if key.startswith("run") else "host" if "/" in key else "slice"


def add(history, key, dest="ready", *, at=0.0, trigger="move", **more):
    """Append a change of which only some fields matter here."""
    fields = {"tick": 1, "source": None, "reason": "desired"} | more
    return history.append(kind=kind_of(key), key=key, trigger=trigger, dest=dest, at=at, **fields)


#: What happens in a fleet: a record moves, leaves, or has a note, a little later than before, or
#: a little earlier where the clock was set back.
happenings = st.lists(
    st.tuples(
        st.sampled_from(KEYS),
        st.sampled_from(["pending", "ready", "draining", None]),
        st.booleans(),
        st.integers(-2, 3),
    ),
    max_size=40,
)


def tell(history, happened):
    """Write it all down and give the same changes as a plain list."""
    now, told = 0.0, []
    for key, dest, note, wait in happened:
        now += wait
        told.append(add(history, key, dest, at=now, trigger=None if note else "move"))
    return told


def picture(changes, time):
    """What `at` should say, by the book."""
    states = {}
    for change in changes:
        if change.at <= time and not change.is_note and change.kind != "run":
            states[change.key] = change.dest
    return {key: state for key, state in states.items() if state is not None}


@unhurried
@given(happened=happenings, limit=st.integers(1, 20))
def test_a_history_is_bounded_and_keeps_the_newest(happened, limit):
    """Never more than the limit, never a gap, and what is gone is counted."""
    history = History(limit)
    told = tell(history, happened)
    assert len(history) <= limit
    assert list(history) == told[len(told) - len(history) :]
    assert history.dropped + len(history) == len(told) == history.last_seq
    assert len(history) >= min(len(told), limit - max(1, limit // 8) + 1)


@unhurried
@given(happened=happenings, limit=st.integers(1, 20), time=st.integers(0, 60))
def test_trimming_does_not_change_what_at_says(happened, limit, time):
    """A bounded history gives the same picture as an unbounded one, or refuses."""
    history = History(limit)
    told = tell(history, happened)
    forgotten = told[: history.dropped]
    if forgotten and time < max(change.at for change in forgotten):
        with pytest.raises(ForgottenError, match="no longer reaches back"):
            history.at(time)
    else:
        assert history.at(time) == picture(told, time)


@unhurried
@given(happened=happenings, seq=st.integers(-1, 70))
def test_since_gives_what_is_numbered_above(happened, seq):
    """All of it, in order."""
    history = History()
    told = tell(history, happened)
    assert list(history.since(seq)) == [change for change in told if change.seq > seq]


@unhurried
@given(happened=happenings, keys=st.sets(st.sampled_from(KEYS)))
def test_a_story_has_its_records_and_the_hosts_of_its_slices(happened, keys):
    """A slice brings its own hosts, and not those of a slice whose name begins alike."""
    history = History()
    told = tell(history, happened)
    wanted = set(keys)
    if "slice-1" in keys:
        wanted |= {"slice-1/0", "slice-1/1"}
    if "slice-10" in keys:
        wanted |= {"slice-10/0"}
    assert list(history.story(*keys)) == [change for change in told if change.key in wanted]


@unhurried
@given(happened=happenings, limit=st.integers(1, 20))
def test_the_window_is_the_picture_before_and_the_changes_after(happened, limit):
    """Together they give what the whole history gives."""
    history = History(limit)
    told = tell(history, happened)
    base, kept = history.window()
    assert base == picture(told[: history.dropped], float("inf"))
    assert list(kept) == told[history.dropped :]


def test_at_shows_the_fleet_as_it_was():
    """Records come, change, leave, and a time between two changes counts as the first."""
    history = History()
    add(history, "slice-1", "pending", at=10.0)
    add(history, "slice-1", "placed", at=20.0)
    add(history, "slice-1", "placed", at=25.0, trigger=None)
    add(history, "slice-1/0", "pending", at=20.0)
    add(history, "slice-1", None, at=30.0)
    assert history.at(9.9) == {}
    assert history.at(10.0) == {"slice-1": "pending"}
    assert history.at(29.9) == {"slice-1": "placed", "slice-1/0": "pending"}
    assert history.at(30.0) == {"slice-1/0": "pending"}


def test_a_record_untouched_for_long_is_still_there_after_trimming():
    """Its last change was dropped, its state was not."""
    history = History(limit=8)
    add(history, "slice-1", "running", at=1.0)
    for time in range(2, 100):
        add(history, "slice-10", "ready", at=float(time))
    assert history.story("slice-1") == ()
    assert history.at(99.0) == {"slice-1": "running", "slice-10": "ready"}


def test_a_time_before_what_is_kept_is_refused():
    """Rather than answered with a picture that may be wrong."""
    history = History(limit=2)
    for time in (10.0, 20.0, 30.0):
        add(history, "slice-1", at=time)
    with pytest.raises(ForgottenError, match=r"1 changes up to 10\.000 were dropped"):
        history.at(9.0)
    assert history.at(10.0) == {"slice-1": "ready"}


def test_a_clock_set_back_does_not_widen_what_can_be_asked():
    """What was dropped reached up to its latest time, not to that of the change dropped last."""
    history = History(limit=1)
    for time in (20.0, 10.0, 30.0):
        add(history, "slice-1", at=time)
    with pytest.raises(ForgottenError):
        history.at(15.0)


def test_a_recorded_change_keeps_its_number_and_new_ones_go_on_from_it():
    """As when a journal is read back."""
    history = History()
    history.record(Change(41, 1, 0.0, "slice", "slice-1", "create", None, "pending", "desired"))
    assert add(history, "slice-1").seq == 42
    with pytest.raises(ValueError, match="change 42 cannot follow change 42"):
        history.record(history.since(41)[0])
    assert len(history) == 2


@pytest.mark.parametrize("limit", [0, -1])
def test_a_history_that_keeps_nothing_is_refused(limit):
    """There would be no story to tell."""
    with pytest.raises(ValueError, match="at least one change"):
        History(limit)


def test_a_new_history_is_empty():
    """Nothing in it, whatever is asked."""
    history = History()
    assert (len(history), history.last_seq, history.dropped) == (0, 0, 0)
    assert (history.at(0.0), history.story("slice-1"), history.since(0)) == ({}, (), ())


@pytest.mark.parametrize(
    ("change", "line"),
    [
        pytest.param(
            Change(
                *(1, 9, 43_384.567, "slice", "slice-2", "preempt", "ready", "preempted"),
                *("node_died", "host 1: gone", "slice-2/1"),
            ),
            "12:03:04.567  slice-2  ready -> preempted  (node_died) host 1: gone  <- slice-2/1",
            id="transition",
        ),
        pytest.param(
            Change(1, 1, 0.0, "slice", "slice-2", "create", None, "pending", "desired"),
            "00:00:00.000  slice-2  [*] -> pending  (desired)",
            id="entry",
        ),
        pytest.param(
            Change(1, 1, 0.0, "host", "slice-2/0", "release", "draining", None, "groups_removed"),
            "00:00:00.000  slice-2/0  draining -> [*]  (groups_removed)",
            id="exit",
        ),
        pytest.param(
            Change(1, 1, 0.0, "slice", "slice-2", None, "pending", "pending", "backoff", "in 4 s"),
            "00:00:00.000  slice-2  note  (backoff) in 4 s",
            id="note",
        ),
    ],
)
def test_a_change_reads_as_one_line(change, line):
    """Time, record, states, reason, detail, cause."""
    assert str(change) == line


def test_a_story_prints_as_its_lines():
    """It is a tuple that can be printed."""
    history = History()
    add(history, "slice-1", "pending")
    add(history, "slice-1/0", "pending")
    story = history.story("slice-1")
    assert isinstance(story, tuple)
    assert str(story) == format_story(story) == "\n".join(str(change) for change in history)
    assert pickle.loads(pickle.dumps(story)) == story
    assert type(pickle.loads(pickle.dumps(story))) is Story


@pytest.mark.parametrize(("key", "slice_id"), [("slice-1", "slice-1"), ("slice-1/12", "slice-1"), ("run-1", None)])
def test_a_change_knows_its_slice(key, slice_id):
    """A host's is that before its rank; a run has none."""
    assert add(History(), key).slice_id == slice_id


def test_dictionaries_are_ready_for_json():
    """And complete: the change can be made again from one."""
    history = History()
    change = add(history, "slice-1/0", detail="d", cause="slice-1")
    (written,) = json.loads(json.dumps(history.as_dicts()))
    assert Change(**written) == change


def test_readers_see_whole_states_while_the_writer_trims():
    """Two slices always move together; no reader sees a gap in numbers or a lost record."""
    history = History(limit=64)
    done = threading.Event()
    wrong = []

    def read():
        while not done.is_set():
            base, kept = history.window()
            seqs = [change.seq for change in kept]
            if seqs and seqs != list(range(seqs[0], seqs[0] + len(seqs))):
                wrong.append(seqs)
            if seqs and seqs[0] > 1 and "slice-1" not in base:
                wrong.append(base)
            if len(history.story("slice-1", "slice-10")) > 64:
                wrong.append("too long")

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for time in range(20_000):
        add(history, "slice-10" if time % 2 else "slice-1", at=float(time))
    done.set()
    for reader in readers:
        reader.join()
    assert not wrong


def test_a_story_of_several_days_tells_the_date_in_every_line():
    before, after = (Change(seq, 1, 86_400.0 + seq - 1.5, "run", "r", None, None, None, "backoff") for seq in (1, 2))
    assert format_story([before]).startswith("23:59:59.500  r")
    assert [line[:23] for line in format_story([before, after]).splitlines()] == [
        "1970-01-01 23:59:59.500",
        "1970-01-02 00:00:00.500",
    ]
