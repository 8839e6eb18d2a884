"""Scenarios: what is done to a simulated fleet, what must hold meanwhile, and the story that was recorded of it.

A file reads

    # What is shown, in a sentence.
    fleet tpu:v4-8 slices=2 spares=1 seed=7
    settings settle_s=5
    cluster places=a,b,c work_s=1000

    submit all 3
    within 30 run run-1 running
    kill_host a 0
    within 30 slices 2 running
    ---
    the history, one change a line

Between head and story stand inputs (`inputs.VERBS`), what is expected (`expects.KINDS`), and `repeat TIMES` with `end`.
"""

from __future__ import annotations

import difflib
import shlex
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, Self
from unittest import mock

from sliceform.controller.api.controller import SliceController
from sliceform.controller.model.settings import Settings
from sliceform.controller.testing import words
from sliceform.controller.testing.expects import Expect
from sliceform.controller.testing.faulty import FaultyBackend
from sliceform.controller.testing.inputs import Input, Stage
from sliceform.controller.testing.sim.backend import SimBackend
from sliceform.controller.testing.sim.timings import SimTimings
from sliceform.states import Change

_STORY = "---"
#: A controller draws its jitter from the first 32 bits of a random name.
_SEED_SHIFT = 96
_REPEAT, _END = "repeat", "end"


class Step(NamedTuple):
    """One line of a scenario that does or expects something."""

    #: The number of the line; 0 if it is of no file.
    line: int
    what: Input | Expect


@dataclass(frozen=True, slots=True)
class Head:
    """The fleet of a scenario, and its cluster."""

    #: As it is written, for example `tpu:v4-8`.
    shape: str
    #: Valid sizes.
    sizes: tuple[int, ...] = (1,)
    spares: int = 0
    #: Decides whatever is left to chance, by the fleet, by its cluster, and by what is between.
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    places: tuple[str, ...] = ()
    #: Fields of `SimTimings`.
    timings: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Give the lines."""
        fleet = f"fleet {self.shape} slices={_list(self.sizes)} spares={self.spares} seed={self.seed}"
        cluster = " ".join(("cluster", f"places={_list(self.places)}", *_pairs(self.timings)))
        return "\n".join((fleet, " ".join(("settings", *_pairs(self.settings))), cluster))

    @classmethod
    def parse(cls, lines: Mapping[str, list[str]]) -> Self:
        """Read the words of its lines, by the first word of each.

        Raises:
            ValueError: a line is missing, or says what cannot be.

        """
        if not {"fleet", "cluster"} <= lines.keys() or not lines["fleet"]:
            raise ValueError("write `fleet SHAPE ...` and `cluster ...` first")
        shape, *rest = lines["fleet"]
        fleet = words.options(rest, {"slices": words.sizes, "spares": int, "seed": int})
        timings = {each.name: float for each in fields(SimTimings)}
        cluster = words.options(lines["cluster"], {"places": words.names, **timings})
        places = tuple(cluster.pop("places", ()))
        settings = words.options(lines.get("settings", []), dict.fromkeys(Settings.model_fields, str))
        SimTimings(**cluster)
        Settings(**settings)
        words.shape(shape)
        sizes = tuple(fleet.get("slices", (1,)))
        return cls(shape, sizes, fleet.get("spares", 0), fleet.get("seed", 0), settings, places, cluster)

    def stage(self, after_tick: Callable[[], None] = lambda: None) -> Stage:
        """Make the fleet and the cluster; whoever does so closes the fleet."""
        shape = words.shape(self.shape)
        sim = SimBackend(shape, self.places, seed=self.seed, **self.timings)
        faulty = FaultyBackend(sim, self.seed)
        with mock.patch.object(uuid, "uuid4", return_value=uuid.UUID(int=self.seed << _SEED_SHIFT)):
            fleet = SliceController(
                shape,
                self.sizes,
                spares=self.spares,
                settings=Settings(**self.settings),
                backend=faulty,
                clock=sim.clock,
            )
        return Stage(fleet, sim, faulty, after_tick=after_tick)


class Performed(NamedTuple):
    """What came of a scenario."""

    #: All that its fleet recorded, and how many changes before that are forgotten.
    changes: Sequence[Change]
    dropped: int
    #: When it began, epoch seconds.
    begun: float

    @property
    def story(self) -> tuple[str, ...]:
        """The same, one change a line."""
        lost = f"({self.dropped} changes before these are forgotten)"
        return (*([lost] if self.dropped else ()), *(_tell(change, self.begun) for change in self.changes))


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario, as it was read from a file or put together."""

    head: Head
    steps: tuple[Step, ...]
    #: What was recorded.
    story: tuple[str, ...] = ()
    name: str = "scenario"

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file; see `parse`."""
        return cls.parse(path.read_text(encoding="utf-8"), path.name)

    @classmethod
    def parse(cls, text: str, name: str = "scenario") -> Self:
        """Read a scenario.

        Raises:
            ValueError: a line is not one of a scenario; begins with the name and the line's number.

        """
        lines = text.splitlines()
        end = lines.index(_STORY) if _STORY in lines else len(lines)
        numbered = ((number, line.strip()) for number, line in enumerate(lines[:end], 1))
        reading = _Reading([(number, line) for number, line in numbered if line and not line.startswith("#")], name)
        return cls(reading.head, tuple(reading.steps), tuple(lines[end + 1 :]), name)

    def __str__(self) -> str:
        """Give the file, without what only a person has written into it."""
        steps = (str(step.what) for step in self.steps)
        return "\n".join((str(self.head), "", *steps, *((_STORY, *self.story) if self.story else ()), ""))

    def perform(self, after_tick: Callable[[Stage], None] = lambda _: None) -> Performed:
        """Do and check all that it says.

        Raises:
            AssertionError: something is not as expected, and begins with the name and the line's number; or the tables
                do not allow what happened.

        """
        stage = self.head.stage(lambda: after_tick(stage))
        begun = stage.clock.epoch()
        try:
            for step in self.steps:
                self._take(step, stage)
            history = stage.fleet.history
            if wrong := history.violations():
                raise AssertionError(f"{self.name}: {'; '.join(wrong)}")
            return Performed(history.since(0), history.dropped, begun)
        finally:
            stage.fleet.close(0.0)

    def check(self) -> None:
        """Perform it, and see that its story is the one that was recorded.

        Raises:
            AssertionError: something is not as expected, or the story is another one, which is shown as a diff.

        """
        story = self.perform().story
        diff = "\n".join(difflib.unified_diff(self.story, story, "recorded", "performed", lineterm="", n=2))
        if diff:
            raise AssertionError(f"{self.name}: its story is not the recorded one\n{diff}")

    def _take(self, step: Step, stage: Stage) -> None:
        try:
            if isinstance(step.what, Expect):
                step.what.check(stage)
            else:
                stage.perform(step.what)
        except AssertionError as error:
            raise AssertionError(f"{self.name}:{step.line}: {error}") from error
        except Exception as error:
            error.add_note(f"{self.name}:{step.line}: {step.what}")
            raise


def record(path: Path) -> None:
    """Perform the scenario in a file, and write its story into that file anew, and nothing else.

    Raises:
        AssertionError: something is not as expected; the file is left alone.

    """
    story = Scenario.read(path).perform().story
    lines = path.read_text(encoding="utf-8").splitlines()
    upper = lines[: lines.index(_STORY)] if _STORY in lines else lines
    path.write_text("\n".join((*upper, _STORY, *story, "")), encoding="utf-8")


class _Reading:
    """The lines of a scenario while they are read."""

    def __init__(self, lines: list[tuple[int, str]], name: str) -> None:
        self._name = name
        head: dict[str, list[str]] = {}
        last = 0
        while lines and lines[0][1].split()[0] in {"fleet", "settings", "cluster"}:
            last, line = lines.pop(0)
            kind, *rest = self._at(last, shlex.split, line)
            head.setdefault(kind, []).extend(rest)
        self.head: Head = self._at(last or 1, Head.parse, head)
        self.steps = list(self._steps(iter(lines), None))

    def _steps(self, lines: Iterator[tuple[int, str]], repeat: int | None) -> Iterator[Step]:
        """Read steps up to the end, or to that of what line `repeat` repeats."""
        for number, line in lines:
            verb, *rest = self._at(number, shlex.split, line)
            if verb == _END and repeat is not None and not rest:
                return
            if verb == _REPEAT:
                (times,) = self._at(number, _times, rest)
                body = list(self._steps(lines, number))
                for _ in range(times):
                    yield from body
            else:
                yield Step(number, self._at(number, _what, line))
        if repeat is not None:
            self._at(repeat, _unended, repeat)

    def _at(self, number: int, read: Callable[[Any], Any], what: Any) -> Any:
        try:
            return read(what)
        except ValueError as error:
            raise ValueError(f"{self._name}:{number}: {error}") from error


def _what(line: str) -> Input | Expect:
    return Expect.parse(line) or Input.parse(line)


def _times(written: list[str]) -> list[int]:
    if len(written) != 1:
        raise ValueError(f"write {_REPEAT} TIMES, the lines to repeat, and {_END}")
    return [int(written[0])]


def _unended(_: int) -> None:
    raise ValueError(f"{_REPEAT} has no {_END}")


def _tell(change: Change, begun: float) -> str:
    """Give a change as one line, with the seconds since the beginning."""
    moved = "" if change.is_note else f"{change.source or '[*]'} -> {change.dest or '[*]'}"
    told = f"{change.at - begun:10.3f}  {change.key:<9} {change.trigger or 'note':<9} {moved:<21} {change.reason}"
    detail = " | ".join(change.detail.splitlines())
    cause = f"  <- {change.cause}" if change.cause else ""
    return f"{told}  {detail}".rstrip() + cause


def _list(values: Iterable[Any]) -> str:
    return ",".join(map(str, values))


def _pairs(values: Mapping[str, Any]) -> Iterator[str]:
    return (f"{name}={value}" for name, value in values.items())
