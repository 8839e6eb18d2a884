"""A swarm: random schedules over big simulated fleets, on all cores, from a seed; what fails is shrunk to a scenario.

`python tests/simulation/swarm.py --seed 7 --seconds 60`. Every schedule is drawn from a seed of its own: orders, faults
of machines and messages, jumps of the clock, and places that are lost for long. In every tick the invariants hold; once
all is mended, the fleet comes to rest with all that is wanted. A seed that fails is shrunk and written down as a
scenario, which `--replay FILE` performs again, and which can be put into the folder `scenarios` as it is.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import structlog

from sliceform.controller.testing.expects import Expect
from sliceform.controller.testing.inputs import Input, Stage
from sliceform.controller.testing.scenario import Head, Scenario, Step
from sliceform.states import check_records, replay

POD_TYPE = "v4-8"
SETTINGS = {
    "placed_s": 60,
    "settle_s": 5,
    "surplus_s": 20,
    "scale_up_after_s": 2,
    "avoid_lost_s": 30,
    "quarantine_s": 60,
    "backoff_max_s": 10,
    "drain_grace_s": 5,
    "verdict_s": 5,
    "history_limit": 1_000_000,
}
TIMINGS = {"work_s": 6, "jitter": 0.3, "whim": 0.5}
#: Once all is mended, a fleet is at rest, with all runs ended, after at most 1,500 ticks of a second.
TO_REST = (Input("mend"), Expect("rest", (), 1_500.0))
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

    @property
    def scenario(self) -> Scenario:
        """The same, to its rest, as a scenario."""
        head = Head(
            f"tpu:{POD_TYPE}", (self.slices,), seed=self.seed, settings=SETTINGS, places=self.names, timings=TIMINGS
        )
        return Scenario(head, tuple(Step(0, each) for each in (*self.inputs, *TO_REST)), name=f"swarm-{self.seed}")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the places."""
        return tuple(f"{POD_TYPE}-{number + 1}" for number in range(self.places))


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
    fleet = Schedule(seed, slices, slices + rng.randint(1, 4), ())
    return replace(fleet, inputs=tuple(_inputs(rng, fleet.names, slices)))


def _inputs(rng: random.Random, names: tuple[str, ...], slices: int) -> Iterator[Input]:
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


class _Watch:
    """Sees that the invariants hold after every tick."""

    def __init__(self) -> None:
        self.ticks = self.committed = self.seq = 0
        self.states: dict[str, str] = {}

    def __call__(self, stage: Stage) -> None:
        """See that they do."""
        history = stage.fleet.history
        self.ticks += 1
        if history.last_seq == self.seq:
            return
        self.committed += 1
        changes = history.since(self.seq)
        self.seq = history.last_seq
        wrong = replay(changes, self.states)
        for change in changes:
            if change.trigger and change.kind in {"slice", "host"}:
                if change.dest is None:
                    self.states.pop(change.key, None)
                else:
                    self.states[change.key] = change.dest
        wrong += check_records(life.record for life in stage.fleet._ledger.fleet.lives.values())
        assert not wrong, wrong


def play(scenario: Scenario) -> Played:
    """Play a scenario from its beginning to its end."""
    watch, failure = _Watch(), ""
    try:
        scenario.perform(watch)
    except Exception as error:  # noqa: BLE001 - whatever a schedule brings about is what is looked for
        failure = f"{type(error).__name__}: {error}"
    return Played(watch.ticks, watch.committed, failure)


def shrink(schedule: Schedule) -> Schedule:
    """Leave out whatever is not needed to fail, in halves, quarters, and so on, within a bound."""
    inputs, plays = schedule.inputs, 0
    size = len(inputs) // 2
    while size and plays < SHRINK_PLAYS:
        start = 0
        while start < len(inputs) and plays < SHRINK_PLAYS:
            fewer = inputs[:start] + inputs[start + size :]
            plays += 1
            if play(replace(schedule, inputs=fewer).scenario).failure:
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
        played = play(schedule.scenario)
        schedules, ticks, committed = schedules + 1, ticks + played.ticks, committed + played.committed
        if played.failure:
            spent, least = time.monotonic() - begun, shrink(schedule)
            return Swarm(schedules, ticks, committed, spent, ((least, play(least.scenario).failure),))
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
        failure = play(Scenario.read(asked.replay)).failure
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
        shown = " ".join(failure.split())
        file.write_text(f"# A swarm found: {shown}\n{schedule.scenario}", encoding="utf-8")
        print(f"failed: {failure}\nplay it again with --replay {file}")
    print(f"{len(failures)} failures")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
