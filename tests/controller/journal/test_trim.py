"""However a journal is trimmed, wherever pictures fall and clocks are set back: what it says is right, or refused."""

from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from sliceform.controller.follow.journal import open_journal, tally, writer
from sliceform.states import ForgottenError, History

#: The legal life of a slice, from entry to exit.
LIFE = (
    ("create", None, "pending"),
    ("place", "pending", "placed"),
    ("prepare", "placed", "ready"),
    ("drain", "ready", "draining"),
    ("release", "draining", None),
)
#: One of five slices makes its next step, so many seconds later; or the file is written; or memory forgets.
happenings = st.lists(
    st.tuples(
        st.sampled_from(["step", "step", "step", "step", "write", "forget"]), st.integers(0, 4), st.integers(-3, 4)
    ),
    min_size=10,
    max_size=150,
)


def live_through(pen, everything, happened):
    """Let all of it happen to the journal, and write it also into a history that forgets nothing."""
    now, number, steps, names = 100.0, 0, [0] * 5, [""] * 5
    for what, slot, seconds in happened:
        now += seconds
        if what == "write":
            pen.flush()
        elif what == "forget":
            if len(pen.history) > 1:
                pen.history._chunk = len(pen.history) - 1
                pen.history._trim()
        else:
            if steps[slot] == 0:
                number += 1
                names[slot] = f"slice-{number}"
            trigger, source, dest = LIFE[steps[slot]]
            everything.record(pen.add(names[slot], dest, now, trigger=trigger, source=source))
            steps[slot] = (steps[slot] + 1) % len(LIFE)
    pen.flush()
    pen.flush()
    return [name for name, step in zip(names, steps, strict=True) if step]


@settings(max_examples=100)
@given(happened=happenings, limit=st.integers(1, 60))
def test_what_is_kept_is_right_and_the_rest_is_refused(pen_at, happened, limit):
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tally, "_PICTURE_EVERY", 4)
        patch.setattr(writer, "_TRIM", 10)
        everything = History()
        pen = pen_at(Path(folder) / "fleet.db", limit)
        living = live_through(pen, everything, happened)
        with open_journal(pen.path) as journal:
            base_at = journal._fact("base_at") or None
            for time in range(60, 400, 3):
                if base_at is not None and time < base_at:
                    with pytest.raises(ForgottenError):
                        journal.at(time)
                else:
                    assert journal.at(time) == everything.at(time), time
            assert journal.violations() == ()
            assert journal.dropped + len(journal) == everything.last_seq == journal.last_seq
            if not any(what == "forget" for what, _, _ in happened):
                for name in living:
                    assert list(journal.story(name)) == list(everything.story(name))
        pen.close()
        again = tally.Tally.load(open_journal(pen.path)._connection)
        assert again.states == everything.at(float("inf"))
        assert again.next_slice == pen.writer._tally.next_slice
