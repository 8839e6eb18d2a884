"""What is done to a simulated fleet, as values that are written and read as lines of text.

One vocabulary for all: drawn by strategies, drawn from a seed by a swarm, and written by people in scenarios. A line is
a verb and its words, for example `kill_host rack-a 0`, `scale 2,4 1`, `tick 5 1.0`.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from sliceform.controller.errors import ConfigurationError
from sliceform.controller.testing.fake_clock import FakeClock
from sliceform.controller.testing.faulty import Faults, FaultyBackend
from sliceform.controller.testing.sim.backend import SimBackend


@dataclass(frozen=True, slots=True)
class Input:
    """One thing that is done to a fleet or its cluster."""

    #: A key of `VERBS`.
    verb: str
    #: Its words, as they are written.
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no stage can perform."""
        verb = VERBS.get(self.verb)
        if verb is None:
            raise ValueError(f"there is no input {self.verb!r}: use one of {', '.join(sorted(VERBS))}")
        if self.verb != "inject" and len(self.words) != len(verb.words):
            raise ValueError(f"write {self.verb} {' '.join(verb.words)}".rstrip() + f", not {self}")
        verb.read(self.words)

    def __str__(self) -> str:
        """Give the line."""
        return shlex.join((self.verb, *self.words))

    @classmethod
    def parse(cls, line: str) -> Input:
        """Read a line.

        Raises:
            ValueError: there is no such input; says how it is written.

        """
        verb, *args = shlex.split(line)
        return cls(verb, tuple(args))

    @classmethod
    def inject(cls, faults: Faults) -> Input:
        """Give the input that makes these faults likely."""
        values = {field.name: getattr(faults, field.name) for field in fields(faults)}
        return cls("inject", tuple(f"{name}={value:g}" for name, value in values.items() if value))


class Stage:
    """A fleet that nobody started, its simulated cluster, what is between them, and the runs submitted to it.

    Args:
        fleet: a `SliceController`, made with `faulty` as its backend and the clock of `sim`.
        sim: the cluster.
        faulty: what is between.
        work: what runs do; called as `work()` on every host.
        after_tick: called after every tick.

    """

    def __init__(
        self,
        fleet: Any,
        sim: SimBackend,
        faulty: FaultyBackend,
        *,
        work: Callable[[], Any] = int,
        after_tick: Callable[[], None] = lambda: None,
    ) -> None:
        if not isinstance(sim.clock, FakeClock):
            raise TypeError("a stage moves the time itself: give the simulated cluster a FakeClock")
        self.fleet, self.sim, self.faulty = fleet, sim, faulty
        self.clock: FakeClock = sim.clock
        self.runs: list[Any] = []
        self.work = work
        self._after_tick = after_tick

    def perform(self, what: Input) -> None:
        """Do it; what names a run or slice that is not there does nothing."""
        verb = VERBS[what.verb]
        verb.do(self, *verb.read(what.words))

    def tick(self, times: int, span_s: float) -> None:
        """Let so many seconds pass before each of so many ticks."""
        for _ in range(times):
            self.clock.advance(span_s)
            self.fleet.step()
            self._after_tick()

    def drain(self, nth: int, grace_s: float) -> None:
        """Drain the nth slice there is, counted round."""
        rows = self.fleet.status().slices
        if rows:
            self.fleet.drain(rows[nth % len(rows)].id, grace_s)

    def submit(self, sizes: list[int] | None, budget: int) -> None:
        """Submit a run that may be preempted, and fail, so many times; one for more slices than wanted is left out."""
        try:
            options = self.fleet.options(slices=sizes, max_preemptions=budget, max_failures=budget)
        except ConfigurationError:
            return
        self.runs.append(options.submit(self.work))

    def cancel(self, nth: int, grace_s: float) -> None:
        """Cancel the nth run that was submitted, counted round."""
        if self.runs:
            self.runs[nth % len(self.runs)].cancel(grace_s)

    def mend(self) -> None:
        """Undo every fault of the cluster, and inject nothing more; what is late already still comes."""
        self.faulty.heal()
        self.sim.mend()


def _sizes(text: str) -> list[int]:
    return [int(size) for size in text.split(",")]


def _sizes_or_all(text: str) -> list[int] | None:
    return None if text == "all" else _sizes(text)


def _seconds(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{text!r} is no time: write seconds, 0 or more")
    return value


def _switch(text: str) -> bool:
    if text not in {"on", "off"}:
        raise ValueError(f"write on or off, not {text!r}")
    return text == "on"


def _chance(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    Faults(**{name: float(value)})
    return name, float(value)


@dataclass(frozen=True, slots=True)
class Verb:
    """How an input is written, and what a stage does."""

    do: Callable[..., Any]
    #: What is written for each word, and how it is read.
    words: dict[str, Callable[[str], Any]]

    def read(self, args: tuple[str, ...]) -> list[Any]:
        """Read the words; `inject` has any number of them."""
        if list(self.words) == ["FAULT=CHANCE"]:
            return [_chance(text) for text in args]
        return [read(text) for read, text in zip(self.words.values(), args, strict=True)]


_PLACE: dict[str, Callable[[str], Any]] = {"PLACE": str}
_HOST: dict[str, Callable[[str], Any]] = {"PLACE": str, "WORKER_ID": int}

#: All inputs, by the word that a line begins with.
VERBS: dict[str, Verb] = {
    "tick": Verb(Stage.tick, {"TIMES": int, "SECONDS": _seconds}),
    "pause": Verb(lambda stage, seconds: stage.tick(1, seconds), {"SECONDS": _seconds}),
    "scale": Verb(lambda stage, sizes, spares: stage.fleet.scale(sizes, spares), {"SIZES": _sizes, "SPARES": int}),
    "drain": Verb(Stage.drain, {"NTH": int, "GRACE_S": _seconds}),
    "submit": Verb(Stage.submit, {"SIZES|all": _sizes_or_all, "BUDGET": int}),
    "cancel": Verb(Stage.cancel, {"NTH": int, "GRACE_S": _seconds}),
    "add_slice": Verb(lambda stage, place: stage.sim.add_slice(place), _PLACE),
    "remove_slice": Verb(lambda stage, place: stage.sim.remove_slice(place), _PLACE),
    "restore_slice": Verb(lambda stage, place: stage.sim.restore_slice(place), _PLACE),
    "hold": Verb(lambda stage, place: stage.sim.hold(place), _PLACE),
    "let_go": Verb(lambda stage, place: stage.sim.let_go(place), _PLACE),
    "kill_host": Verb(lambda stage, *host: stage.sim.kill_host(*host), _HOST),
    "kill_agent": Verb(lambda stage, *host: stage.sim.kill_agent(*host), _HOST),
    "freeze_host": Verb(lambda stage, *host: stage.sim.freeze_host(*host), _HOST),
    "freeze_daemon": Verb(lambda stage, *host: stage.sim.freeze_host(*host, daemon_only=True), _HOST),
    "thaw_host": Verb(lambda stage, *host: stage.sim.thaw_host(*host), _HOST),
    "break_agent": Verb(lambda stage, *host: stage.sim.break_agent(*host), _HOST),
    "mend_agent": Verb(lambda stage, *host: stage.sim.break_agent(*host, None), _HOST),
    "move_bundle": Verb(lambda stage, *host: stage.sim.move_bundle(*host), _HOST),
    "notice": Verb(
        lambda stage, place, rank, source, within_s: stage.sim.notice(
            place, rank, deadline_in_s=within_s, source=source
        ),
        {**_HOST, "SOURCE": str, "WITHIN_S": _seconds},
    ),
    "withdraw_notice": Verb(
        lambda stage, place, rank, source: stage.sim.withdraw_notice(place, rank, source=source),
        {**_HOST, "SOURCE": str},
    ),
    "drain_node": Verb(
        lambda stage, place, rank, on: stage.sim.drain_node(place, rank, deadline_in_s=10.0, on=on),
        {**_HOST, "on|off": _switch},
    ),
    "fail_observation": Verb(lambda stage, on: stage.sim.fail_observation(on), {"on|off": _switch}),
    "inject": Verb(lambda stage, *chances: stage.faulty.inject(**dict(chances)), {"FAULT=CHANCE": _chance}),
    "heal": Verb(lambda stage: stage.faulty.heal(), {}),
}
