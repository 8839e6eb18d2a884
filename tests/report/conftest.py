"""Histories to draw, and a browser to look at what was drawn."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import structlog
from playwright.sync_api import Browser, sync_playwright

from sliceform.controller import Settings, SliceController, TpuSlice
from sliceform.controller.report import Server, serve
from sliceform.controller.testing import FakeClock, SimBackend
from sliceform.states import History

#: The fleet begins then, 2023-11-14 22:13:20 UTC.
EPOCH = 1_700_000_000.0

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_QUIET_BROWSER = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")


class Incident:
    """A simulated fleet of two slices, of which one loses a host while a run is on both."""

    def __init__(self, *, history_limit: int = 100_000, journal: Path | None = None) -> None:
        """Begin with both slices ready."""
        self.clock = FakeClock(epoch=EPOCH)
        shape = TpuSlice("v4-16")
        self.sim = SimBackend(shape, ["rack-a", "rack-b", "rack-c"], clock=self.clock, work_s=10.0)
        settings = Settings(history_limit=history_limit)
        self.fleet = SliceController(
            shape, 2, name="train", backend=self.sim, clock=self.clock, settings=settings, journal=journal
        )
        self.fleet.wait_ready(2)

    def let(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(round(seconds / 0.25)):
            self.clock.advance(0.25)
            self.fleet.step()

    def lose_and_recover(self) -> None:
        """Start a run, lose a host of it, and let it end on the slice that came for the lost one."""
        run = self.fleet.submit(max, 1, 2)
        self.let(3.0)
        self.sim.kill_host("rack-b", 1)
        run.result()
        self.let(2.0)

    @property
    def history(self) -> History:
        """What happened."""
        return self.fleet.history


def show(history: History, title: str = "an incident", host: str = "127.0.0.1", port: int = 0) -> Server:
    """Serve a history as a fleet without a journal does."""
    return serve(partial(nullcontext, history), title=title, now=lambda _: EPOCH + 60.0, host=host, port=port)


@pytest.fixture(scope="package", autouse=True)
def quiet() -> Iterator[None]:
    """A simulated fleet would log every change."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.fixture
def running() -> Iterator[Incident]:
    """A fleet that is still there."""
    incident = Incident()
    yield incident
    incident.fleet.close(grace_s=0.0)


@pytest.fixture(scope="package")
def history(quiet: None) -> History:
    """The history of a fleet that was closed after the incident."""
    incident = Incident()
    incident.lose_and_recover()
    incident.fleet.close()
    return incident.history


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A headless Chromium of this machine; without one the tests that need it are skipped, unless they are demanded."""
    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        found = next(filter(None, map(shutil.which, _BROWSERS)), str(own) if own.exists() else None)
        if found is None:
            reason = f"no Chromium: none of {', '.join(_BROWSERS)} on PATH, and playwright has installed none"
            if os.environ.get("SLICEFORM_REQUIRE_BROWSER"):
                pytest.fail(reason)
            pytest.skip(reason)
        browser = playwright.chromium.launch(executable_path=found, args=list(_QUIET_BROWSER))
        yield browser
        browser.close()
