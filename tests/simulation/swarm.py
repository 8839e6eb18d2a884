"""A swarm: random schedules over big simulated fleets, on all cores, from a seed; what fails is shrunk to a scenario.

`python -m tests.simulation.swarm --seed 7 --seconds 60`. Every schedule is drawn from a seed of its own: orders, faults
of machines and messages, and pauses of the loop, for a fleet of one or several sizes. The invariants hold after every
tick. Then the fleet is closed, or everything is mended, or all but some places, which come back when the fleet has
settled; once all is mended, it comes to rest with all that is wanted. A seed that fails is shrunk and written down as a
scenario, which `--replay FILE` performs again, and which can be put into the folder `scenarios` as it is.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import structlog

from sliceform.controller.testing.expects import Expect
from sliceform.controller.testing.faulty import ANSWERS, Faults
from sliceform.controller.testing.inputs import Input, Stage
from sliceform.controller.testing.scenario import Head, Scenario, Step

from .invariants import SETTINGS, TIMINGS, wrong

POD_TYPE = "v4-8"
#: Once all is mended, a fleet is at rest, with all runs ended, after at most 1,500 ticks of a second. If places stay
#: lost, it has as many slices as the others suffice for by then, and what goes on says what it waits for.
REST = Expect("rest", (), 1_500.0)
SETTLED = Expect("settled", (), 1_500.0)
#: Inputs of one schedule, beside time, which passes after every second of them.
INPUTS = 1_000
#: Fleets differ by fewer slices than this.
SPREAD = 3
#: Schedules between two looks for cycles to drop.
_COLLECT_EVERY = 20
#: Shrinking plays a schedule at most so often.
SHRINK_PLAYS = 400


@dataclass(frozen=True, slots=True)
class Schedule:
    """A fleet, its cluster, what is done to them, and what has to come of it."""

    seed: int
    sizes: tuple[int, ...]
    spares: int
    places: int
    inputs: tuple[Input, ...] = ()
    end: tuple[Input | Expect, ...] = ()

    @property
    def scenario(self) -> Scenario:
        """The same as a scenario."""
        head = Head(f"tpu:{POD_TYPE}", self.sizes, self.spares, self.seed, SETTINGS, self.names, TIMINGS)
        return Scenario(head, tuple(Step(0, each) for each in (*self.inputs, *self.end)), name=f"swarm-{self.seed}")

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
    """Draw a schedule for a fleet of at most so many slices, without spares."""
    rng = random.Random(seed)
    sizes = rng.choice(((slices,), (slices // 2, slices), (slices // 4, slices // 2, slices)))
    spares = rng.randint(0, 2)
    fleet = Schedule(seed, sizes, spares, slices + spares + rng.randint(0, 4))
    inputs = _Inputs(rng, fleet)
    return replace(fleet, inputs=tuple(inputs.some()), end=tuple(inputs.end()))


class _Inputs:
    """Draws what is done to a fleet."""

    def __init__(self, rng: random.Random, fleet: Schedule) -> None:
        self._rng, self._fleet = rng, fleet

    def some(self) -> Iterator[Input]:
        """Draw a schedule, with time in between."""
        verbs, weights = zip(*((verb, weight) for verb, (weight, _) in _DRAWN.items()), strict=True)
        for number, verb in enumerate(self._rng.choices(verbs, weights, k=INPUTS)):
            yield Input(verb, tuple(map(str, _DRAWN[verb][1](self))))
            if number % 2:
                yield Input("tick", (str(self._rng.randint(1, 3)), self.one("0.1", "0.3", "1")))

    def end(self) -> Iterator[Input | Expect]:
        """Draw how it ends: by rest, often after a while with fewer places, or closed in the middle."""
        kind, fleet = self._rng.random(), self._fleet
        if kind < 0.1:
            yield Input("close", (self.one("0", "3"),))
            return
        yield Input("mend")
        # What does not fit any more waits for ever, else.
        yield Input("scale", (",".join(map(str, fleet.sizes)), str(fleet.spares)))
        if kind < 0.6:
            for place in self._rng.sample(fleet.names, self._rng.randint(1, fleet.places - 1)):
                yield Input("remove_slice", (place,))
            yield SETTLED
            yield Input("mend")
        yield REST
        if kind > 0.9:
            yield from (Input("close", ("3",)), Expect("kept", ("0",)))

    def one(self, *choices: str) -> str:
        """Choose one."""
        return self._rng.choice(choices)

    def nth(self) -> int:
        """Draw a run or slice."""
        return self._rng.randint(0, 50)

    def life(self) -> str:
        """Draw the id of a slice that may be there."""
        return f"slice-{self._rng.randint(1, 200)}"

    def place(self) -> tuple[str, ...]:
        """Draw a place."""
        return (self._rng.choice(self._fleet.names),)

    def host(self) -> tuple[str, ...]:
        """Draw a host."""
        return (*self.place(), "0")

    def submit(self) -> Iterator[str]:
        """Draw a run, which seldom asks for more than half of what there is."""
        rng, most = self._rng, self._fleet.sizes[-1]
        most = most if rng.random() < 0.1 else most // 2
        yield ",".join(map(str, sorted({rng.randint(1, most) for _ in range(rng.randint(1, 3))})))
        yield str(rng.randint(0, 3))
        for option, chance, choices in _OPTIONS:
            if rng.random() < chance:
                yield f"{option}={self.one(*choices)}"

    def scale(self) -> tuple[str, str]:
        """Draw sizes and spares, never much less than at first."""
        most = self._fleet.sizes[-1]
        top = self._rng.randint(max(1, most - 4), most)
        return f"{max(1, top // 2)},{top}", str(self._rng.randint(0, 2))

    def faults(self) -> Iterator[str]:
        """Draw how likely each fault is of what is in between."""
        for fault in _FAULTS:
            chance = self.one("0", "0.1", "0.3")
            if chance != "0":
                yield f"{fault}={chance}"


#: Chances, but not how late an answer is that is late.
_FAULTS = tuple(fault.name for fault in fields(Faults) if fault.name != "late_s")
#: Options of runs, how likely each is, and its values.
_OPTIONS = (
    ("priority", 0.3, ("1", "2", "-1")),
    ("max_wait_s", 0.15, ("10", "120")),
    ("timeout_s", 0.15, ("15", "240")),
    ("takes_s", 0.2, ("0.5", "20")),
    ("raises", 0.15, ("1", "2")),
)
_SOURCES = ("gce", "own")
#: How often each input is drawn, and its words.
_DRAWN: dict[str, tuple[int, Callable[[_Inputs], Iterable[object]]]] = {
    "kill_host": (60, _Inputs.host),
    "kill_agent": (30, _Inputs.host),
    "freeze_host": (30, _Inputs.host),
    "freeze_daemon": (30, _Inputs.host),
    "thaw_host": (40, _Inputs.host),
    "break_agent": (25, _Inputs.host),
    "mend_agent": (25, _Inputs.host),
    "move_bundle": (10, _Inputs.host),
    "remove_slice": (20, _Inputs.place),
    "restore_slice": (90, _Inputs.place),
    "hold": (12, _Inputs.place),
    "let_go": (20, _Inputs.place),
    "notice": (45, lambda draw: (*draw.host(), draw.one(*_SOURCES), draw.one("2", "30"))),
    "withdraw_notice": (25, lambda draw: (*draw.host(), draw.one(*_SOURCES))),
    "drain_node": (25, lambda draw: (*draw.host(), draw.one("on", "off"))),
    "quota": (10, lambda draw: (draw.one("8", "off", "off", "off"),)),
    "submit": (45, _Inputs.submit),
    "cancel": (40, lambda draw: (draw.nth(), draw.one("0", "2"))),
    "drain": (130, lambda draw: (draw.nth(), draw.one("0", "3"))),
    "scale": (30, _Inputs.scale),
    "avoid": (10, lambda draw: (*draw.place(), "for_s=60")),
    "allow": (10, _Inputs.place),
    "pause": (40, lambda draw: (draw.one("15", "60", "600"),)),
    "inject": (70, _Inputs.faults),
    "keep_back": (15, lambda draw: (draw.life(), draw.one(*sorted(ANSWERS)))),
    "give": (15, lambda draw: (draw.life(),)),
    "heal": (60, lambda _: ()),
    "fail_observation": (60, lambda draw: (draw.one("on", "off"),)),
}


class _Watch:
    """Sees that the invariants hold after every tick."""

    def __init__(self) -> None:
        self.ticks = self.committed = self.seq = 0

    def __call__(self, stage: Stage) -> None:
        """See that they do."""
        history = stage.fleet.history
        self.ticks += 1
        if history.last_seq == self.seq:
            return
        self.committed += 1
        found = list(wrong(stage.fleet, history.since(self.seq)))
        self.seq = history.last_seq
        assert not found, found


def play(scenario: Scenario) -> Played:
    """Play a scenario from its beginning to its end."""
    watch, failure = _Watch(), ""
    try:
        scenario.perform(watch)
    except Exception as error:  # noqa: BLE001 - whatever a schedule brings about is what is looked for
        failure = f"{type(error).__name__}: {error}"
    return Played(watch.ticks, watch.committed, failure)


def shrink(schedule: Schedule) -> Schedule:
    """Leave out whatever is not needed to fail, in halves, quarters, and so on, the last first, within a bound."""
    if play(replace(schedule, end=()).scenario).failure:
        schedule = replace(schedule, end=())
    inputs, plays = schedule.inputs, 0
    size = len(inputs) // 2
    while size and plays < SHRINK_PLAYS:
        end = len(inputs)
        while end > 0 and plays < SHRINK_PLAYS:
            start = max(0, end - size)
            fewer = inputs[:start] + inputs[end:]
            plays += 1
            if play(replace(schedule, inputs=fewer).scenario).failure:
                inputs = fewer
            end = start
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
    # Nearly nothing that a schedule drops is in a cycle.
    gc.freeze()
    gc.disable()
    begun, seed = time.monotonic(), first
    ticks = committed = schedules = 0
    while (spent := time.monotonic() - begun) < seconds or not schedules:
        schedule = draw(seed, slices + seed % SPREAD)
        played = play(schedule.scenario)
        schedules, ticks, committed = schedules + 1, ticks + played.ticks, committed + played.committed
        if played.failure:
            spent, least = time.monotonic() - begun, shrink(schedule)
            return Swarm(schedules, ticks, committed, spent, ((least, play(least.scenario).failure),))
        seed += step
        if not schedules % _COLLECT_EVERY:
            gc.collect()
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
    most = asked.slices + SPREAD - 1
    print(f"seeds from {asked.seed}: {schedules} schedules, fleets of {asked.slices} to {most} slices")
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
