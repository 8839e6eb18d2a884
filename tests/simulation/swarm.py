"""A swarm: random schedules over big simulated fleets, on all cores, from a seed; what fails is shrunk to a scenario.

`python tests/simulation/swarm.py --seed 7 --seconds 60`. Every schedule is drawn from a seed of its own: orders, faults
of machines and messages, jumps of the clock, and places that are lost for long. In every tick the invariants hold; once
all is mended, the fleet comes to rest with all that is wanted. A seed that fails is shrunk and written down as lines of
`sliceform.controller.testing.inputs`, which `--replay FILE` performs again.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import structlog

from sliceform.controller.api.controller import SliceController
from sliceform.controller.model.settings import Settings
from sliceform.controller.model.shapes import TpuSlice
from sliceform.controller.testing import FaultyBackend, SimBackend
from sliceform.controller.testing.inputs import Input, Stage
from sliceform.states import check_records, replay

SHAPE = TpuSlice("v4-8")
SETTINGS = Settings(
    placed_s=60.0,
    settle_s=5.0,
    surplus_s=20.0,
    scale_up_after_s=2.0,
    avoid_lost_s=30.0,
    quarantine_s=60.0,
    backoff_max_s=10.0,
    drain_grace_s=5.0,
    verdict_s=5.0,
    history_limit=1_000_000,
)
#: Once all is mended, a fleet is at rest after at most so many ticks of a second.
TICKS_TO_REST = 1_500
#: Inputs of one schedule, beside time, which passes after every second of them.
INPUTS = 1_000
#: Shrinking plays a schedule at most so often.
SHRINK_PLAYS = 400


@dataclass(frozen=True, slots=True)
class Schedule:
    """A fleet, its cluster, and what is done to them."""

    seed: int
    slices: int
    places: int
    inputs: tuple[Input, ...]

    def __str__(self) -> str:
        """Give the scenario file."""
        head = f"fleet seed={self.seed} slices={self.slices} places={self.places}"
        return "\n".join((head, *map(str, self.inputs), ""))

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Read a scenario file."""
        head, *lines = text.splitlines()
        values = dict(word.split("=") for word in head.split()[1:])
        inputs = tuple(Input.parse(line) for line in lines if line.strip())
        return cls(int(values["seed"]), int(values["slices"]), int(values["places"]), inputs)


class Played(NamedTuple):
    """What playing a schedule came to."""

    ticks: int
    #: Ticks that wrote something into the history.
    committed: int
    #: What was violated; empty if nothing was.
    failure: str


def draw(seed: int, slices: int) -> Schedule:
    """Draw a schedule."""
    rng = random.Random(seed)
    places = slices + rng.randint(1, 4)
    names = [f"{SHAPE.pod_type}-{number + 1}" for number in range(places)]
    return Schedule(seed, slices, places, tuple(_inputs(rng, names, slices)))


def _inputs(rng: random.Random, names: list[str], slices: int) -> Iterator[Input]:
    gone: set[str] = set()
    for number in range(INPUTS):
        name = rng.choice(names)
        kind = rng.random()
        if kind < 0.45:
            yield _machine(rng, name, gone)
        elif kind < 0.75:
            yield _order(rng, slices)
        elif kind < 0.80:
            yield Input("pause", (rng.choice(("15", "60", "600")),))
        elif kind < 0.88:
            chances = {fault: rng.choice((0.0, 0.1, 0.3)) for fault in _FAULTS}
            yield Input("inject", tuple(f"{fault}={chance}" for fault, chance in chances.items() if chance))
        elif kind < 0.94:
            yield Input("heal")
        else:
            yield Input("fail_observation", (rng.choice(("on", "off")),))
        if number % 2:
            yield Input("tick", (str(rng.randint(1, 2)), rng.choice(("0.3", "0.5", "1"))))


_FAULTS = (
    *("refuse", "refuse_but_do", "refuse_place", "drop_request", "repeat_request"),
    *("lose", "delay", "repeat", "fail_observation", "lose_beat"),
)
_ON_HOST = ("kill_host", "kill_host", "kill_agent", "freeze_host", "freeze_daemon", "thaw_host", "break_agent")


def _machine(rng: random.Random, name: str, gone: set[str]) -> Input:
    """Draw what happens to a place; at most three are removed whole."""
    choice = rng.random()
    if choice < 0.5:
        return Input(rng.choice(_ON_HOST), (name, "0"))
    if choice < 0.7:
        return Input("restore_slice", (name,))
    if choice < 0.75 and len(gone) < 3:
        gone.add(name)
        return Input("remove_slice", (name,))
    if choice < 0.85:
        return Input("notice", (name, "0", rng.choice(("gce", "own")), rng.choice(("2", "30"))))
    if choice < 0.9:
        return Input("withdraw_notice", (name, "0", rng.choice(("gce", "own"))))
    if choice < 0.95:
        return Input("drain_node", (name, "0", rng.choice(("on", "off"))))
    return Input(rng.choice(("hold", "let_go")), (name,))


def _order(rng: random.Random, slices: int) -> Input:
    choice = rng.random()
    if choice < 0.3:
        sizes = sorted({rng.randint(1, max(1, slices // 2)) for _ in range(rng.randint(1, 2))})
        return Input("submit", (",".join(map(str, sizes)), str(rng.randint(0, 3))))
    if choice < 0.45:
        return Input("cancel", (str(rng.randint(0, 50)), rng.choice(("0", "2"))))
    if choice < 0.9:
        return Input("drain", (str(rng.randint(0, 50)), rng.choice(("0", "3"))))
    top = rng.randint(max(1, slices - 4), slices)
    return Input("scale", (f"{max(1, top // 2)},{top}", str(rng.randint(0, 1))))


class _Play:
    """One schedule that is being played."""

    def __init__(self, schedule: Schedule) -> None:
        self.sim = SimBackend(SHAPE, schedule.places, seed=schedule.seed, work_s=6.0, jitter=0.3, whim=0.5)
        faulty = FaultyBackend(self.sim, schedule.seed)
        self.fleet = SliceController(SHAPE, schedule.slices, settings=SETTINGS, backend=faulty, clock=self.sim.clock)
        self.stage = Stage(self.fleet, self.sim, faulty, after_tick=self.check)
        self.ticks = self.committed = self.seq = 0
        self.states: dict[str, str] = {}

    def check(self) -> None:
        """See that the invariants hold after a tick."""
        self.ticks += 1
        if self.fleet.history.last_seq == self.seq:
            return
        self.committed += 1
        changes = self.fleet.history.since(self.seq)
        self.seq = self.fleet.history.last_seq
        wrong = replay(changes, self.states)
        for change in changes:
            if change.trigger and change.kind in {"slice", "host"}:
                if change.dest is None:
                    self.states.pop(change.key, None)
                else:
                    self.states[change.key] = change.dest
        wrong += check_records(life.record for life in self.fleet._ledger.fleet.lives.values())
        assert not wrong, wrong

    def come_to_rest(self) -> None:
        """Mend everything, and see that all runs end and nothing is left to do."""
        self.stage.mend()
        for _ in range(TICKS_TO_REST):
            self.stage.tick(1, 1.0)
            if self.at_rest():
                break
        assert self.at_rest(), f"not at rest after {TICKS_TO_REST} s:\n{self.fleet.status()}\n{self.fleet.why()}"
        assert self.fleet.plan() == ()

    def at_rest(self) -> bool:
        """Whether all that is wanted is there, and nothing is under way."""
        status = self.fleet.status()
        wanted = status.sizes[-1] + status.spares
        over = all(run.state not in {"waiting", "running"} for run in status.runs)
        return over and status.counts == {"ready": wanted} and not status.effects_in_flight


def play(schedule: Schedule) -> Played:
    """Play a schedule from its beginning to its rest."""
    uuid.uuid4 = lambda: uuid.UUID(int=schedule.seed)  # a controller draws its jitter from its own random name
    playing = _Play(schedule)
    try:
        for each in schedule.inputs:
            playing.stage.perform(each)
        playing.come_to_rest()
        failure = ""
    except Exception as error:  # noqa: BLE001 - whatever a schedule brings about is what is looked for
        failure = f"{type(error).__name__}: {error}"
    finally:
        playing.fleet.close(grace_s=0.0)
    return Played(playing.ticks, playing.committed, failure)


def shrink(schedule: Schedule) -> Schedule:
    """Leave out whatever is not needed to fail, in halves, quarters, and so on, within a bound."""
    inputs, plays = schedule.inputs, 0
    size = len(inputs) // 2
    while size and plays < SHRINK_PLAYS:
        start = 0
        while start < len(inputs) and plays < SHRINK_PLAYS:
            fewer = inputs[:start] + inputs[start + size :]
            plays += 1
            if play(replace(schedule, inputs=fewer)).failure:
                inputs = fewer
            else:
                start += size
        size //= 2
    return replace(schedule, inputs=inputs)


class Swarm(NamedTuple):
    """What one core came to."""

    schedules: int
    ticks: int
    committed: int
    #: How long that took, without shrinking.
    seconds: float
    #: What failed, shrunk, with what was violated.
    failures: tuple[tuple[Schedule, str], ...]


def swarm(first: int, step: int, slices: int, seconds: float) -> Swarm:
    """Play one schedule after another for so many seconds, and shrink the first that fails."""
    quiet()
    begun, seed = time.monotonic(), first
    ticks = committed = schedules = 0
    while (spent := time.monotonic() - begun) < seconds or not schedules:
        schedule = draw(seed, slices + seed % 9)
        played = play(schedule)
        schedules, ticks, committed = schedules + 1, ticks + played.ticks, committed + played.committed
        if played.failure:
            spent, least = time.monotonic() - begun, shrink(schedule)
            return Swarm(schedules, ticks, committed, spent, ((least, play(least).failure),))
        seed += step
    return Swarm(schedules, ticks, committed, spent, ())


def quiet() -> None:
    """Let thousands of simulated ticks write no line for each change."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def main(argv: list[str] | None = None) -> int:
    """Run the swarm, and tell how it went; 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="the first seed; those after it follow")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to go on")
    parser.add_argument("--slices", type=int, default=16, help="the size of the smallest fleet")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="how many processes play")
    parser.add_argument("--keep", type=Path, default=Path(), help="the folder for scenarios of what failed")
    parser.add_argument("--replay", type=Path, help="play one scenario instead")
    asked = parser.parse_args(argv)
    if asked.replay is not None:
        quiet()
        failure = play(Schedule.parse(asked.replay.read_text(encoding="utf-8"))).failure
        print(failure or "nothing is violated")
        return int(bool(failure))
    with ProcessPoolExecutor(asked.cores) as pool:
        firsts = [asked.seed + core for core in range(asked.cores)]
        tasks = [pool.submit(swarm, first, asked.cores, asked.slices, asked.seconds) for first in firsts]
        done = [task.result() for task in tasks]
    rate = 60 * sum(each.ticks / each.seconds for each in done)
    ticks, schedules = sum(each.ticks for each in done), sum(each.schedules for each in done)
    failures = [failure for each in done for failure in each.failures]
    print(f"seeds from {asked.seed}: {schedules} schedules, fleets of {asked.slices} to {asked.slices + 8} slices")
    print(f"{ticks} ticks, {rate:.0f} a minute, {sum(each.committed for each in done) / ticks:.0%} committed")
    for schedule, failure in failures:
        file = asked.keep / f"swarm-{schedule.seed}.txt"
        file.write_text(str(schedule), encoding="utf-8")
        print(f"failed: {failure}\nplay it again with --replay {file}")
    print(f"{len(failures)} failures")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
