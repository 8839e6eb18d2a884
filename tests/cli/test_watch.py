"""What `watch` keeps on a terminal: a large fleet fits, and what it does not show it does not read."""

import io
import signal

import pytest
from rich.console import Console, Group

from sliceform.controller.api.controller import SliceController
from sliceform.controller.cli.frame import Frame
from sliceform.controller.model.shapes import TpuSlice
from sliceform.controller.testing import FakeClock, SimBackend
from sliceform.states import AttemptRecord, History, HostEnd, Reason

EPOCH = 1_700_000_000.0


class Read(History):
    """A history that counts what was asked of it."""

    def __init__(self):
        super().__init__()
        self.stories = set()

    def story(self, *keys):
        self.stories.update(keys)
        return super().story(*keys)


def move(history, key, trigger, states, reason, **more):
    kind = "host" if "/" in key else "slice"
    row = {"tick": 1, "at": EPOCH, "kind": kind, "key": key, "trigger": trigger}
    row |= dict(zip(("source", "dest"), states, strict=True))
    history.append(**row, reason=reason, **more)


def note(history, run, reason, detail="", state=None):
    row = {"tick": 1, "at": EPOCH, "kind": "run", "key": run, "trigger": None, "source": state, "dest": state}
    history.append(**row, reason=reason, detail=detail)


@pytest.fixture
def fleet():
    """A history of 1,000 slices, of which one is lost, and of 300 runs, of which two go on."""
    history = Read()
    for number in range(1, 1001):
        key = f"slice-{number}"
        for name in (key, f"{key}/0"):
            move(history, name, "create", (None, "pending"), Reason.DESIRED)
            move(history, name, "place", ("pending", "placed"), Reason.PLACED, detail=f"on rack-{number}")
            move(history, name, "prepare", ("placed", "ready"), Reason.AGENTS_ANSWERED)
    for number in range(1, 301):
        run = f"run-{number}"
        note(history, run, Reason.RUN_SUBMITTED)
        history.attempts.record(AttemptRecord(run, 1, ("slice-1",), (HostEnd("slice-1/0", None),), EPOCH))
        if number <= 298:
            note(history, run, Reason.RUN_FINISHED, "succeeded: every host returned", "succeeded")
    move(history, "slice-700", "preempt", ("ready", "preempted"), Reason.NODE_DIED, detail="a detail " * 50)
    return history


def lines(frame, height=24, width=80, now=EPOCH + 5.0):
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, soft_wrap=True, highlight=False)
    # As `Live` does it, and not as a whole, which would not wrap anything.
    parts = Group(*frame.draw(now, None, "the driver runs", height))
    for line in console.render_lines(parts, console.options.update(height=None), pad=False):
        console.print("".join(segment.text for segment in line))
    return out.getvalue().splitlines()


def test_a_large_fleet_fits_with_what_is_not_ready_first_and_the_last_changes(fleet):
    shown = lines(Frame(fleet))
    assert len(shown) <= 23
    assert "999 ready, 1 preempted" in shown[0]
    assert shown[2].startswith("slice-700  preempted")
    assert any(line.startswith("slice-1  ") for line in shown)
    assert [line for line in shown if line.startswith("and ")] == ["and 994 more slices", "and 296 more runs"]
    assert [line.split()[0] for line in shown if "  running  " in line] == ["run-299", "run-300"]
    assert "slice-700  ready -> preempted" in shown[-1]
    assert max(map(len, shown)) <= 80


@pytest.mark.parametrize("height", [8, 12, 24, 50, 1000])
def test_it_fits_at_any_height(fleet, height):
    shown = lines(Frame(fleet), height)
    assert len(shown) <= height - 1
    assert "slice-700  ready -> preempted" in shown[-1]


def test_it_reads_only_what_it_shows(fleet):
    frame = Frame(fleet)
    lines(frame)
    assert len(fleet.stories) < 24
    fleet.stories.clear()
    lines(frame, now=EPOCH + 6.0)
    assert not fleet.stories


def test_what_comes_is_shown(fleet):
    frame = Frame(fleet)
    assert "5.0 s" in lines(frame)[2]
    move(fleet, "slice-700", "give_up", ("preempted", "draining"), Reason.LOST)
    note(fleet, "run-299", Reason.RUN_FINISHED, "failed: it raised", "failed")
    frame.take(fleet.since(frame.seq))
    shown = lines(frame, now=EPOCH + 6.0)
    assert "999 ready, 1 draining" in shown[0]
    assert shown[2].startswith("slice-700  draining")
    assert any(line.split()[:2] == ["run-299", "failed"] for line in shown)
    assert [line.split()[2] for line in shown[-2:]] == ["slice-700", "run-299"]


def test_small_fleets_are_shown_whole_with_a_wish(closed):
    from sliceform.controller.follow.journal import open_journal

    with open_journal(closed) as journal:
        frame = Frame(journal)
        shown = lines(frame)
    assert "no slices; the driver runs" in shown[0]
    assert any(line.split()[:2] == ["run-1", "succeeded"] for line in shown)
    assert not [line for line in shown if line.startswith("and ")]


@pytest.fixture
def large(quiet, tmp_path):
    """The journal of a living fleet of 40 slices, one of which is lost."""
    clock = FakeClock(epoch=EPOCH)
    sim = SimBackend(TpuSlice("v4-8"), [f"rack-{number}" for number in range(40)], clock=clock)
    fleet = SliceController(TpuSlice("v4-8"), 40, name="large", backend=sim, clock=clock, journal=tmp_path / "fleet.db")
    fleet.wait_ready(40)
    sim.kill_host("rack-30", 0)
    clock.advance(0.25)
    fleet.step()
    yield tmp_path / "fleet.db"
    fleet.close(grace_s=0.0)


def test_on_a_terminal_the_heading_what_is_lost_and_the_last_changes_are_seen(large, on_terminal):
    terminal = on_terminal("watch", large)
    terminal.until("more slices")
    terminal.until("(replacement)")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.ended() == 0
    assert "39 ready" in terminal.said
    assert "\x1b[" in terminal.said
    assert "Traceback" not in terminal.said
