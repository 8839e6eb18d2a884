"""SIGTERM to a driver: its work has the grace of a close to stop, whatever ends the program then."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sliceform.controller.api.controller import SliceController
from sliceform.controller.follow.journal import open_journal
from sliceform.controller.model.clock import SystemClock
from sliceform.controller.model.shapes import TpuSlice
from sliceform.controller.testing import SimBackend

#: How long the simulated work takes to stop when it is asked to, seconds.
STOP_S = 1.0
#: Where a driver may take its time, seconds: far less than the grace where that is to be cut short.
SOON_S = 60.0

_DRIVER = """
import asyncio, atexit, faulthandler, logging, os, signal, sys, threading, time
import structlog
from sliceform.controller.api.controller import SliceController
from sliceform.controller.model.clock import SystemClock
from sliceform.controller.model.settings import Settings
from sliceform.controller.model.shapes import TpuSlice
from sliceform.controller.testing import SimBackend

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
signal.signal(signal.SIGINT, signal.default_int_handler)
faulthandler.dump_traceback_later(40)  # says where it hangs, should it ever
SHAPE = TpuSlice("v4-8")

def make(journal, stop_s, **settings):
    clock = SystemClock()
    quick = dict(place_s=0.01, assemble_s=0.0, agent_s=0.01, launch_s=0.0, remove_s=0.01)
    sim = SimBackend(SHAPE, 1, clock=clock, work_s=3600.0, stop_s=stop_s, **quick)
    return SliceController(SHAPE, 1, backend=sim, clock=clock, journal=journal, settings=Settings(**settings))

def up(fleet):
    fleet.wait_ready()
    run = fleet.submit(int)
    fleet._opened().wait(lambda status: status.slices[0].hosts[0].state == "running", 30.0)
    return run

def say(*words):
    print(*words, flush=True)

def leave(number, frame):  # as Ray's handler does
    sys.exit(number)

def as_ray():
    signal.signal(signal.SIGTERM, leave)

"""


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "fleet.db"


@pytest.fixture
def start_driver(journal: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start a program of its own with this body, and wait until it says that it is up; it ends with the test."""
    with contextlib.ExitStack() as stack:

        def start(body: str) -> subprocess.Popen[str]:
            script = f"{_DRIVER}journal, stop_s = {str(journal)!r}, {STOP_S}\n{textwrap.dedent(body)}"
            env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            driver = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=env)
            stack.callback(driver.wait)
            stack.callback(driver.kill)
            assert driver.stdout is not None
            assert driver.stdout.readline() == "up\n"
            return driver

        yield start


def stopped_in_peace(journal: Path) -> bool:
    """Whether the work took the time that it needs to stop, and all was given back and written down."""
    with open_journal(journal) as past:
        assert (past.writing(), past.at(time.time())) == ("closed", {})
        (told,) = [change for change in past.select(kind="slice") if change.trigger == "drain"]
        assert not past.select(reason="hurried")
        (gone,) = [change for change in past.select(kind="host") if change.trigger == "release"]
        return gone.at - told.at >= STOP_S


_WITH = """
with make(journal, stop_s) as fleet:
    run = up(fleet)
    say("up")
    run.result()
"""
_BARE = """
fleet = make(journal, stop_s).start()
run = up(fleet)
say("up")
run.result()
"""
_ASYNCIO = """
async def main():
    with make(journal, stop_s) as fleet:
        run = up(fleet)
        say("up")
        await asyncio.to_thread(run.result)
asyncio.run(main())
"""
_LEAVING = """
with make(journal, stop_s) as fleet:
    up(fleet)
    say("up")
"""
_CLOSING = """
fleet = make(journal, stop_s).start()
up(fleet)
fleet.on_change(lambda change: change.trigger == "drain" and change.kind == "slice" and say("up"))
fleet.close()
"""
_BY_HAND = """
fleet = make(journal, stop_s)
up(fleet)
say("up")
while True:
    time.sleep(min(0.05, fleet.step()))
"""
_HURRIED = """
def abort(number, frame):
    signal.alarm(1)  # as absl does beneath Ray's handler
    sys.exit(number)
signal.signal(signal.SIGTERM, abort)
stop_s = 1.5
with make(journal, stop_s) as fleet:
    run = up(fleet)
    say("up")
    run.result()
"""


@pytest.mark.parametrize(
    ("body", "before", "code"),
    [
        pytest.param(_WITH, "as_ray()", signal.SIGTERM, id="with"),
        pytest.param(_BARE, "as_ray()", signal.SIGTERM, id="without with"),
        pytest.param(_ASYNCIO, "as_ray()", signal.SIGTERM, id="asyncio"),
        pytest.param(_LEAVING, "as_ray()", signal.SIGTERM, id="leaving the body"),
        pytest.param(_CLOSING, "as_ray()", signal.SIGTERM, id="in the midst of a close"),
        pytest.param(_BY_HAND, "as_ray()", signal.SIGTERM, id="driven by hand"),
        pytest.param(_HURRIED, "", signal.SIGTERM, id="with an alarm that would abort it"),
        pytest.param(_WITH, "", -signal.SIGTERM, id="by the system"),
    ],
)
def test_work_has_its_grace(start_driver, journal, body, before, code):
    driver = start_driver(f"{before}\n{body}")
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(SOON_S) == code
    assert stopped_in_peace(journal)


def test_work_is_told_before_the_program_comes_to_close_its_fleet(start_driver, journal):
    driver = start_driver(
        """
        as_ray()
        fleet = make(journal, stop_s).start()
        atexit.register(lambda: say("told" if told.wait(30) else "left alone"))  # runs before the fleet's own
        told = threading.Event()
        run = up(fleet)
        fleet.on_change(lambda change: change.trigger == "drain" and told.set())
        say("up")
        run.result()
        """
    )
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(SOON_S) == signal.SIGTERM
    assert driver.stdout.read() == "told\n"
    assert stopped_in_peace(journal)


@pytest.mark.parametrize("before", ["as_ray()", ""], ids=["as on Ray", "by the system"])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_sooner(start_driver, before, second):
    driver = start_driver(
        f"""
        {before}
        with make(None, 600.0, close_grace_s=600.0) as fleet:
            run = up(fleet)
            fleet.on_change(lambda change: change.trigger == "drain" and change.kind == "slice" and say("told"))
            say("up")
            run.result()
        """
    )
    driver.send_signal(signal.SIGTERM)
    assert driver.stdout.readline() == "told\n"
    driver.send_signal(second)
    assert driver.wait(SOON_S) != 0


def test_a_second_signal_in_the_midst_of_the_first_ends_the_program_as_well(start_driver):
    driver = start_driver(
        """
        from sliceform.controller.api.termination import TERMINATION, Charge
        def again(grace_s):
            if grace_s is None:
                signal.raise_signal(signal.SIGTERM)
        TERMINATION.watch(Charge(tell=again, close=lambda: None, ticks=lambda: False, grace_s=0.0))
        with make(None, 600.0, close_grace_s=600.0) as fleet:
            run = up(fleet)
            say("up")
            run.wait()
            say("goes on")
        """
    )
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(SOON_S) == -signal.SIGTERM
    assert driver.stdout.read() == ""


def test_a_long_grace_is_not_cut_short(start_driver, journal):
    driver = start_driver(
        """
        from sliceform.controller.api import termination
        termination._MARGIN_S = stop_s / 2
        with make(journal, stop_s, close_grace_s=30.0) as fleet:
            run = up(fleet)
            say("up")
            run.result()
        """
    )
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(SOON_S) == -signal.SIGTERM
    assert stopped_in_peace(journal)


def test_all_fleets_of_a_program_share_one_grace(start_driver):
    driver = start_driver(
        """
        as_ray()
        with make(None, stop_s) as one, make(None, stop_s) as other:
            run = up(one), up(other)
            say("up")
            run[0].result()
        """
    )
    begun = time.monotonic()
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(SOON_S) == signal.SIGTERM
    assert time.monotonic() - begun >= STOP_S


def test_a_handler_that_deals_with_the_signal_keeps_its_fleet(start_driver):
    driver = start_driver(
        """
        asked = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: asked.set())
        with make(None, stop_s) as fleet:
            run = up(fleet)
            say("up")
            assert asked.wait(20)
            say(fleet.plan(), run.status().state)
            run.cancel()
        """
    )
    driver.send_signal(signal.SIGTERM)
    assert driver.stdout.readline() == "() running\n"
    assert driver.wait(SOON_S) == 0


def test_a_forked_child_ends_at_once(start_driver):
    driver = start_driver(
        """
        with make(None, stop_s) as fleet:
            run = up(fleet)
            ours, theirs = os.pipe()
            child = os.fork()
            if not child:
                os.write(theirs, b"x")
                time.sleep(60)
                os._exit(0)
            os.read(ours, 1)
            os.kill(child, signal.SIGTERM)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
            say("up")
            say(run.status().state)
            run.cancel()
        """
    )
    assert driver.stdout.readline() == "running\n"
    assert driver.wait(SOON_S) == 0


class TestTheHandler:
    @pytest.fixture(autouse=True)
    def before(self) -> Iterator[Callable[..., None]]:
        def handler(*_: object) -> None:
            raise AssertionError("nobody sends the signal here")

        default = signal.signal(signal.SIGTERM, handler)
        yield handler
        signal.signal(signal.SIGTERM, default)

    @staticmethod
    def start() -> SliceController:
        return SliceController(TpuSlice("v4-8"), backend=SimBackend(TpuSlice("v4-8"), clock=SystemClock())).start()

    def test_is_put_back_with_the_last_fleet(self, before) -> None:
        one, other = self.start(), self.start()
        ours = signal.getsignal(signal.SIGTERM)
        assert ours is not before
        one.close(0.0)
        assert signal.getsignal(signal.SIGTERM) is ours
        other.close(0.0)
        assert signal.getsignal(signal.SIGTERM) is before

    def test_of_somebody_else_stays(self) -> None:
        fleet = self.start()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        fleet.close(0.0)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    def test_is_not_for_those_who_ignore_the_signal(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        fleet = self.start()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        fleet.close(0.0)

    def test_is_installed_by_the_main_thread_alone(self, before) -> None:
        fleets: list[SliceController] = []
        thread = threading.Thread(target=lambda: fleets.append(self.start()))
        thread.start()
        thread.join()
        assert signal.getsignal(signal.SIGTERM) is before
        fleets[0].close(0.0)

    def test_that_was_left_by_another_thread_only_passes_on(self, before) -> None:
        fleet = self.start()
        ours = signal.getsignal(signal.SIGTERM)
        thread = threading.Thread(target=fleet.close, args=(0.0,))
        thread.start()
        thread.join()
        assert signal.getsignal(signal.SIGTERM) is ours
        with pytest.raises(AssertionError, match="nobody sends"):
            signal.raise_signal(signal.SIGTERM)
        self.start().close(0.0)
        assert signal.getsignal(signal.SIGTERM) is before
