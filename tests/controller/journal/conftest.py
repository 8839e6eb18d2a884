"""Fleets on simulated clusters that keep a journal, and what tests of journals do with them."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sliceform.controller.api.controller import SliceController
from sliceform.controller.follow.follower import Batch
from sliceform.controller.follow.journal import open_journal
from sliceform.controller.follow.journal.tally import Wish
from sliceform.controller.follow.journal.writer import JournalWriter
from sliceform.controller.model.settings import Settings
from sliceform.controller.model.shapes import TpuSlice
from sliceform.controller.testing import FakeClock, SimBackend
from sliceform.states import AttemptRecord, Change, History, HostEnd, Story

SHAPE = TpuSlice("v4-16")
BOUND_S = 20.0


class JournalFleet:
    """A fleet with a journal, driven step by step; `abandon` leaves the file as a kill does."""

    def __init__(self, path: Path, wanted: Any = 2, places: int = 3, *, epoch: float = 1_700_000_000.0, **more: Any):
        self.path = path
        self.clock = FakeClock(epoch=epoch)
        self.sim = SimBackend(SHAPE, places, clock=self.clock, work_s=5.0, seed=more.pop("seed", 0))
        settings = Settings(**more)
        self.fleet = SliceController(SHAPE, wanted, settings=settings, backend=self.sim, clock=self.clock, journal=path)

    @property
    def history(self) -> History:
        return self.fleet.history

    def go(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.25)):
            self.clock.advance(0.25)
            self.fleet.step()

    def lose(self, slice_id: str) -> None:
        """Kill a host of a slice and let it be replaced."""
        place = next(row.place for row in self.fleet.status().slices if row.id == slice_id)
        self.sim.kill_host(place, 0)
        self.go(4.0)
        self.sim.restore_slice(place)
        self.go(1.0)
        self.fleet.wait_ready(2)

    def written(self) -> None:
        """Wait until all that was recorded is in the file."""
        with open_journal(self.path) as journal:
            self.wait_until(lambda: journal.last_seq == self.history.last_seq)

    def wait_until(self, holds: Callable[[], bool]) -> None:
        waiting = threading.Event()
        for _ in range(round(BOUND_S / 0.005)):
            if holds():
                return
            waiting.wait(0.005)
        raise AssertionError("it did not come about in time")

    def abandon(self) -> None:
        for follower in self.fleet._followers._followers:
            assert follower.stop(BOUND_S)
        self.fleet._journal._connection.close()
        self.fleet._journal._lock.release()
        self.fleet._journal._connection = None
        self.fleet.close(grace_s=0.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fleet.db"


@pytest.fixture
def journal_fleet(path: Path) -> Iterator[Callable[..., JournalFleet]]:
    made: list[JournalFleet] = []

    def make(*args: Any, **kwargs: Any) -> JournalFleet:
        made.append(JournalFleet(kwargs.pop("path", path), *args, **kwargs))
        return made[-1]

    yield make
    for world in made:
        world.fleet.close(grace_s=0.0)


@pytest.fixture(scope="session")
def journal_world() -> Callable[..., JournalFleet]:
    """Make a fleet that its test closes."""
    return JournalFleet


class Pen:
    """Writes a journal without a fleet: what is recorded goes into memory and, with `flush`, into the file."""

    def __init__(self, path: Path, limit: int = 1_000_000, memory: int = 1_000_000):
        self.path = path
        self.history = History(memory)
        self.writer = JournalWriter(path, self.history, limit=limit, wish=lambda: Wish(0.0, (1,), 0))
        self.history.resume(*self._opened())
        self._seq, self._revision = self.history.last_seq, self.history.attempts.since(0)[0]

    def _opened(self) -> tuple[int, float, tuple[AttemptRecord, ...]]:
        resumed = self.writer.open("pen", "0", "shape", 0.0)
        return resumed.last_seq, resumed.latest_at, resumed.attempts

    def add(self, key: str, dest: str | None, at: float, **more: Any) -> Change:
        kind = "run" if key.startswith("run") else "host" if "/" in key else "slice"
        fields = {"tick": 1, "trigger": "move", "source": None, "reason": "desired"} | more
        return self.history.append(kind=kind, key=key, dest=dest, at=at, **fields)

    def life(self, number: int, at: float, *, gone: bool = True) -> None:
        """A slice that comes, is lost, and goes: four changes, one second apart."""
        name = f"slice-{number}"
        self.add(name, "pending", at, trigger="create")
        if gone:
            self.add(name, "placed", at + 1, trigger="place", source="pending")
            self.add(name, "draining", at + 2, trigger="drain", source="placed")
            self.add(name, None, at + 3, trigger="release", source="draining")

    def run(self, number: int, at: float, hosts: int = 2) -> None:
        """A run of one attempt: two changes, and its hosts."""
        name = f"run-{number}"
        self.add(name, None, at, trigger=None, reason="run_submitted")
        ends = tuple(HostEnd(f"slice-1/{rank}", "node") for rank in range(hosts))
        self.history.attempts.record(AttemptRecord(name, 1, ("slice-1",), ends, at, at + 1, "succeeded"))
        self.add(name, "succeeded", at + 1, trigger=None, reason="run_finished")

    def batch(self) -> Batch:
        changes = self.history.since(self._seq)
        self._revision, attempts = self.history.attempts.since(self._revision)
        missed = changes[0].seq - self._seq - 1 if changes else 0
        self._seq = self.history.last_seq
        return Batch(Story(changes), attempts, missed)

    def flush(self) -> "Pen":
        self.writer.write(self.batch())
        return self

    def close(self) -> None:
        self.writer.close(1e9)


@pytest.fixture
def pen(path: Path) -> Iterator[Callable[..., Pen]]:
    made: list[Pen] = []

    def make(**options: Any) -> Pen:
        made.append(Pen(options.pop("path", path), **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="session")
def pen_at() -> Callable[[Path, int], Pen]:
    """Make a pen that its test closes."""
    return Pen
