"""What callers get beside a close and after it: an answer, or a refusal at once, and never a wait without an end."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sliceform.controller.api.controller import SliceController
from sliceform.controller.errors import FleetClosedError, RunCancelled
from sliceform.controller.follow.journal import open_journal
from sliceform.controller.model.clock import SystemClock
from sliceform.controller.model.settings import Settings
from sliceform.controller.model.shapes import TpuSlice
from sliceform.controller.reconcile.observe import Observer
from sliceform.controller.testing import SimBackend

SHAPE = TpuSlice("v4-16")
#: What is to be there at once may take so long on a busy machine, seconds: less than the loop has to answer.
SOON_S = 20.0
#: Far less than the time that is not to be waited for, seconds.
LONG_S = 60.0

#: Slices come up at once, work never ends by itself, and heeds a request to stop only at its deadline.
QUICK = {"place_s": 0.01, "assemble_s": 0.0, "agent_s": 0.01, "launch_s": 0.0, "remove_s": 0.01, "work_s": 3600.0}


@pytest.fixture
def started() -> Iterator[Callable[..., SliceController]]:
    """Start fleets on a simulated cluster and the real clock."""
    fleets = []

    def start(slices: int = 1, *, stop_s: float = 0.0, sim: Any = None, **options: Any) -> SliceController:
        backend = sim or SimBackend(SHAPE, slices, clock=SystemClock(), stop_s=stop_s, **QUICK)
        settings = Settings(resync_s=0.02, nodes_every_s=0.02, beat_s=0.05)
        fleets.append(SliceController(SHAPE, slices, settings=settings, backend=backend, **options).start())
        return fleets[-1]

    yield start
    for fleet in fleets:
        fleet.close(0.0)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Threads for those who call beside the test."""
    with ThreadPoolExecutor(8) as pool:
        yield pool


def took(call: Callable[[], Any]) -> float:
    begun = time.monotonic()
    call()
    return time.monotonic() - begun


def test_who_waits_for_slices_that_never_come_is_refused_when_it_closes(started, threads):
    fleet = started(sim=SimBackend(SHAPE, 0, clock=SystemClock()))
    waiting = threads.submit(fleet.wait_ready)
    fleet.close()
    with pytest.raises(FleetClosedError):
        waiting.result(SOON_S)


def test_a_run_that_was_being_packed_is_refused_when_it_closes(started, threads):
    packing, closed = threading.Event(), threading.Event()

    class Slow(SimBackend):
        def pack(self, *args: Any, **kwargs: Any) -> Any:
            packing.set()
            assert closed.wait(SOON_S)
            return super().pack(*args, **kwargs)

    fleet = started(sim=Slow(SHAPE, 1, clock=SystemClock(), **QUICK))
    submitted = threads.submit(fleet.submit, int)
    assert packing.wait(SOON_S)
    fleet.close()
    closed.set()
    with pytest.raises(FleetClosedError):
        submitted.result(SOON_S)


def test_questions_that_the_loop_no_longer_takes_are_refused(started, threads, monkeypatch):
    """As by a loop that has ended: its last tick was over before it came to them."""
    fleet = started()
    fleet.wait_ready(timeout_s=SOON_S)
    run = fleet.submit(int)
    asked = threading.Semaphore(0)
    inbox = fleet._loop.inbox
    monkeypatch.setattr(inbox, "ask", lambda _: asked.release())
    plan, status = threads.submit(fleet.plan), threads.submit(run.status)
    assert asked.acquire(timeout=SOON_S)
    assert asked.acquire(timeout=SOON_S)
    monkeypatch.undo()
    fleet.close(0.0)
    with pytest.raises(FleetClosedError):
        plan.result(SOON_S)
    assert status.result(SOON_S).id == run.id
    assert took(run.status) < SOON_S


def test_after_a_close_all_is_answered_or_refused_at_once(started):
    fleet = started()
    run = fleet.submit(int)
    fleet.close(0.0)
    answers = (fleet.status, fleet.why, lambda: fleet.why(run.id), run.status, run.cancel, run.wait, fleet.close)
    refusals = (
        fleet.start,
        fleet.step,
        fleet.plan,
        fleet.wait_ready,
        fleet.serve,
        lambda: fleet.scale(2),
        lambda: fleet.drain("slice-1"),
        lambda: fleet.submit(int),
        lambda: fleet.on_change(print),
        lambda: fleet.on_attempt(print),
    )
    begun = time.monotonic()
    for answer in answers:
        answer()
    for refused in refusals:
        with pytest.raises(FleetClosedError, match="make a new"):
            refused()
    with pytest.raises(RunCancelled):
        run.result(0.0)
    assert time.monotonic() - begun < SOON_S


def test_a_fleet_that_was_closed_before_it_began_asks_nothing_of_the_cluster(started):
    sim = SimBackend(SHAPE, 1, clock=SystemClock())
    fleet = SliceController(SHAPE, backend=sim)
    fleet.close()
    for use in (fleet.status, fleet.why, fleet.plan, lambda: fleet.submit(int)):
        with pytest.raises(FleetClosedError):
            use()


def running(fleet: SliceController) -> None:
    """Submit work, and return when all of its processes are there."""
    fleet.submit(int)
    fleet._drive.wait(lambda status: all(host.state == "running" for host in status.slices[0].hosts), SOON_S)


def test_a_second_close_returns_when_the_first_has_given_all_back(started, threads, tmp_path: Path):
    fleet = started(stop_s=0.5, journal=tmp_path / "fleet.db")
    fleet.wait_ready(timeout_s=SOON_S)
    running(fleet)
    first = threads.submit(fleet.close)
    fleet._drive.wait(lambda _: fleet._closed, SOON_S)
    fleet.close()
    with open_journal(tmp_path / "fleet.db") as journal:
        assert (journal.writing(), journal.at(time.time())) == ("closed", {})
    first.result(SOON_S)


def test_a_shorter_close_shortens_the_one_that_is_under_way(started, threads):
    fleet = started(stop_s=3600.0)
    fleet.wait_ready(timeout_s=SOON_S)
    running(fleet)
    first = threads.submit(fleet.close, 600.0)
    fleet._drive.wait(lambda status: "draining" in status.counts, SOON_S)
    assert took(lambda: fleet.close(0.1)) < LONG_S
    first.result(SOON_S)
    assert fleet.status().slices == ()


def test_a_longer_close_gives_no_more_time(started, threads):
    fleet = started(stop_s=3600.0)
    fleet.wait_ready(timeout_s=SOON_S)
    running(fleet)
    first = threads.submit(fleet.close, 0.2)
    fleet._drive.wait(lambda _: fleet._closed, SOON_S)
    assert took(lambda: fleet.close(600.0)) < LONG_S
    first.result(SOON_S)


def test_a_callback_may_close_and_the_body_waits_for_that(started, tmp_path: Path):
    fleet = started(stop_s=0.5, journal=tmp_path / "fleet.db")
    closing = threading.Event()

    def give_up(change: Any) -> None:
        if change.reason == "process_started":
            closing.set()
            fleet.close()

    fleet.on_change(give_up)
    with fleet:
        fleet.wait_ready(timeout_s=SOON_S)
        fleet.submit(int)
        assert closing.wait(SOON_S)
    with open_journal(tmp_path / "fleet.db") as journal:
        assert (journal.writing(), journal.at(time.time())) == ("closed", {})


def test_a_callback_that_closes_once_more_is_not_waited_for(started):
    fleet = started()
    fleet.wait_ready(timeout_s=SOON_S)
    running(fleet)
    over = []

    def close_again(change: Any) -> None:
        if change.trigger == "release":
            fleet.close()
            over.append(fleet._over.is_set())

    fleet.on_change(close_again)
    fleet.close()
    assert set(over) == {False}, "the callback waited until all was over"


def test_orders_outlive_a_tick_that_fails_before_them(started, threads, monkeypatch):
    fleet = started()
    fleet.wait_ready(timeout_s=SOON_S)
    failures = iter([RuntimeError("a bug of ours")])
    take = Observer._take

    def fail_once(observer: Observer, event: Any) -> None:
        for failure in failures:
            fleet.avoid("rack-z")
            raise failure
        take(observer, event)

    monkeypatch.setattr(Observer, "_take", fail_once)
    plan = threads.submit(fleet.plan)
    fleet._drive.wait(lambda status: "rack-z" in status.avoided, SOON_S)
    assert plan.result(SOON_S) == ()
    assert took(lambda: fleet.close(0.0)) < SOON_S


@pytest.mark.parametrize("part", ["backend", "followers"])
def test_whatever_fails_at_the_end_the_rest_is_ended(started, tmp_path: Path, monkeypatch, part: str):
    fleet = started(journal=tmp_path / "fleet.db")
    run = fleet.submit(int)

    def fail(*_: Any) -> None:
        raise OSError("gone")

    ends = {"backend": (fleet._loop.backend, "close"), "followers": (fleet._followers, "stop")}
    monkeypatch.setattr(*ends[part], fail)
    with pytest.raises(OSError, match="gone"):
        fleet.close(0.0)
    monkeypatch.undo()
    fleet._followers.stop(SOON_S)
    assert run.done()
    with open_journal(tmp_path / "fleet.db") as journal:
        assert journal.writing() == "closed"
    fleet.close()


def test_a_fleet_driven_by_hand_ends_too():
    sim = SimBackend.tpu("v4-16", slices=1)
    fleet = SliceController(SHAPE, backend=sim, clock=sim.clock)
    fleet.wait_ready()
    run = fleet.submit(int)
    fleet.close()
    with pytest.raises(FleetClosedError):
        fleet.plan()
    assert run.status().state == "cancelled"
    assert not fleet._drive.wait(lambda _: False, None)
