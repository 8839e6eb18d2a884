"""What a scenario expects of a fleet, as lines of text: states, counts, reasons and results.

A line is `expect`, a kind and its words, for example `expect slices 2 ready`; with `within 30` instead of `expect` time
passes until it holds, at most so many seconds.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sliceform.controller.errors import SliceformError
from sliceform.controller.testing import words
from sliceform.controller.testing.inputs import Input, Stage

#: Time passes in ticks of so many seconds until what is expected holds.
_TICK_S = 1.0
#: Before a text that something is to contain, or not to.
_SIGNS = ("~", "!~")
#: Times are equal that differ by less, seconds.
_SAME_S = 1e-3


@dataclass(frozen=True, slots=True)
class Expect:
    """Something that must hold at some point of a scenario."""

    #: A key of `KINDS`.
    kind: str
    #: Its words, as they are written.
    words: tuple[str, ...]
    #: How long it may take until it holds, seconds.
    within_s: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be looked at."""
        kind = KINDS.get(self.kind)
        if kind is None:
            raise ValueError(f"there is nothing to expect of {self.kind!r}: use one of {', '.join(KINDS)}")
        try:
            kind.read(self.words)
        except ValueError as error:
            raise ValueError(f"write {self.kind} {kind.form}, not {self.text}: {error}") from error

    def __str__(self) -> str:
        """Give the line."""
        return f"within {self.within_s:g} {self.text}" if self.within_s else f"expect {self.text}"

    @property
    def text(self) -> str:
        """What is expected, as it is written."""
        return " ".join((self.kind, *(word if word in _SIGNS else shlex.quote(word) for word in self.words)))

    @classmethod
    def parse(cls, line: str) -> Expect | None:
        """Read a line; None if it expects nothing.

        Raises:
            ValueError: it expects what cannot be looked at; says how it is written.

        """
        verb, *rest = shlex.split(line)
        if verb not in {"expect", "within"}:
            return None
        within_s = words.seconds(rest.pop(0)) if verb == "within" and rest else 0.0
        if not rest:
            raise ValueError(f"{line!r} does not say what is expected: use one of {', '.join(KINDS)}")
        return cls(rest[0], tuple(rest[1:]), within_s)

    def check(self, stage: Stage) -> None:
        """See that it holds, after a while if it may take one.

        Raises:
            AssertionError: it does not; says what there is instead.

        """
        kind = KINDS[self.kind]
        args = kind.read(self.words)
        end = stage.clock.monotonic() + self.within_s
        while (there := kind.look(stage, *args)) and stage.clock.monotonic() < end:
            stage.tick(1, _TICK_S)
        if there:
            late = f" within {self.within_s:g} s" if self.within_s else ""
            raise AssertionError(f"expected {self.text}{late}, but {there}")


@dataclass(frozen=True, slots=True)
class Expectable:
    """One kind of thing that can be expected."""

    #: Says what there is instead; empty if it is as expected.
    look: Callable[..., str]
    #: How its words are written, and how they are read.
    form: str
    read: Callable[[tuple[str, ...]], list[Any]]


def _run(stage: Stage, run_id: str, state: str) -> str:
    status = stage.run(run_id).status()
    return "" if status.state == state else f"it is {status.state}: {status.detail}"


def _attempts(stage: Stage, run_id: str, *wanted: str) -> str:
    there = [f"{len(each.slices)}:{each.outcome or 'going-on'}" for each in stage.run(run_id).attempts]
    as_wanted = len(there) == len(wanted) and all(map(_matches, there, wanted))
    return "" if as_wanted else f"its attempts are {' '.join(there) or 'none'}"


def _matches(there: str, wanted: str) -> bool:
    return there == wanted or there.partition(":")[0] == wanted


def _charged(stage: Stage, run_id: str, preemptions: int, failures: int) -> str:
    status = stage.run(run_id).status()
    there = (status.preemptions, status.failures)
    return "" if there == (preemptions, failures) else f"{there[0]} preemptions and {there[1]} failures are charged"


def _result(stage: Stage, run_id: str, contains: Callable[[str], bool]) -> str:
    run = stage.run(run_id)
    if not run.done():
        return f"it is not over: {run.status().detail}"
    try:
        there = f"values {run.result().values}"
    except SliceformError as error:
        there = f"{type(error).__name__}: {error}"
    return "" if contains(there) else f"it is {there!r}"


def _slice(stage: Stage, slice_id: str, state: str) -> str:
    there = next((row.state for row in stage.fleet.status().slices if row.id == slice_id), "gone")
    return "" if there == state else f"it is {there}"


def _slices(stage: Stage, count: range, state: str) -> str:
    counts = stage.fleet.status().counts
    there = ", ".join(f"{number} {name}" for name, number in counts.items())
    return "" if counts.get(state, 0) in count else f"there are {there or 'none'}"


def _changes(stage: Stage, count: range, trigger: str) -> str:
    there = sum(change.kind == "slice" and change.trigger == trigger for change in stage.fleet.history.since(0))
    return "" if there in count else f"there were {there}"


def _since(stage: Stage, slice_id: str, seconds: float) -> str:
    since = next((row.since_epoch_s for row in stage.fleet.status().slices if row.id == slice_id), None)
    if since is None:
        return "it is gone"
    there = since - stage.clock.epoch() + stage.clock.monotonic()
    return "" if abs(there - seconds) < _SAME_S else f"it is since {there:.3f} s"


def _avoided(stage: Stage, count: range) -> str:
    there = stage.fleet.status().avoided
    return "" if len(there) in count else f"there are {len(there)}: {there}"


def _kept(stage: Stage, count: range) -> str:
    there = stage.sim.kept
    return "" if len(there) in count else f"the cluster keeps {len(there)} lives: {', '.join(there)}"


def _detail(stage: Stage, run_id: str, length: range) -> str:
    there = stage.run(run_id).status().detail
    return "" if len(there) in length else f"it has {len(there)} characters: {there}"


def _listed(stage: Stage, run_id: str, count: range) -> str:
    there = len(stage.run(run_id).status().attempts)
    return "" if there in count else f"{there} attempts are"


def _why(stage: Stage, key: str, contains: Callable[[str], bool]) -> str:
    there = str(stage.fleet.why() if key == "fleet" else stage.fleet.why(key))
    return "" if contains(there) else f"it is told:\n{there}"


def _rest(stage: Stage) -> str:
    status = stage.fleet.status()
    wanted = status.sizes[-1] + status.spares
    going_on = [run.id for run in status.runs if run.state in {"waiting", "running"}]
    if going_on or status.counts != {"ready": wanted} or status.effects_in_flight:
        there = f"{status.counts} of {wanted}, with {status.effects_in_flight} effects in flight; {status.waits_for}"
        return f"{', '.join(going_on) or 'no run'} goes on, and there are {there}"
    plan = stage.fleet.plan()
    return f"the next tick would do {', '.join(map(str, plan))}" if plan else ""


def _settled(stage: Stage) -> str:
    """See that the fleet makes the best of the places that run, and that no run waits which these suffice for."""
    status, sim = stage.fleet.status(), stage.sim
    places = sum(map(sim.intact, sim.places))
    size = max((size for size in status.sizes if size <= places), default=0)
    if status.ready < size:
        return f"{places} places suffice for {size} slices, and there are {status.counts}; {status.waits_for}"
    going_on = [run for run in status.runs if run.state in {"waiting", "running"}]
    # Slices may be kept for the first that waits: those behind it have to.
    for run in going_on:
        if run.state == "running" or "waits for" not in run.detail or stage.run(run.id).record.sizes[0] <= places:
            return f"{run.id} goes on: {run.detail}"
        break
    return ""


def _refused(stage: Stage, error: str, what: Input) -> str:
    try:
        stage.perform(what)
    except SliceformError as refused:
        return "" if type(refused).__name__ == error else f"it was refused with {refused!r}"
    return "it was done"


def _count(text: str) -> range:
    """Read `3`, `3..5`, `..5` or `3..`, all of them including both ends."""
    first, dots, last = text.partition("..")
    if not dots:
        return range(int(text), int(text) + 1)
    return range(int(first or 0), int(last) + 1 if last else 10**9)


def _contains(sign: str, text: str) -> Callable[[str], bool]:
    if sign not in _SIGNS:
        raise ValueError("write ~ before what it is to contain, or !~")
    return lambda there: (text in there) is (sign == "~")


def _each(*readers: Callable[[str], Any]) -> Callable[[tuple[str, ...]], list[Any]]:
    return lambda given: [read(text) for read, text in zip(readers, given, strict=True)]


def _key_and_text(given: tuple[str, ...]) -> list[Any]:
    key, sign, text = given
    return [key, _contains(sign, text)]


def _run_and_attempts(given: Iterable[str]) -> list[Any]:
    run_id, *attempts = given
    for each in attempts:
        int(each.partition(":")[0])
    return [run_id, *attempts]


def _error_and_input(given: Iterable[str]) -> list[Any]:
    error, verb, *rest = given
    return [error, Input(verb, tuple(rest))]


#: All that can be expected, by the word after `expect`.
KINDS: dict[str, Expectable] = {
    "run": Expectable(_run, "RUN STATE", _each(str, str)),
    "attempts": Expectable(_attempts, "RUN SIZE[:OUTCOME]...", _run_and_attempts),
    "listed": Expectable(_listed, "RUN COUNT", _each(str, _count)),
    "charged": Expectable(_charged, "RUN PREEMPTIONS FAILURES", _each(str, int, int)),
    "detail": Expectable(_detail, "RUN COUNT", _each(str, _count)),
    "result": Expectable(_result, "RUN ~|!~ TEXT", _key_and_text),
    "slice": Expectable(_slice, "SLICE STATE|gone", _each(str, str)),
    "slices": Expectable(_slices, "COUNT STATE", _each(_count, str)),
    "changes": Expectable(_changes, "COUNT TRIGGER", _each(_count, str)),
    "since": Expectable(_since, "SLICE SECONDS", _each(str, words.seconds)),
    "avoided": Expectable(_avoided, "COUNT", _each(_count)),
    "kept": Expectable(_kept, "COUNT", _each(_count)),
    "why": Expectable(_why, "SLICE|RUN|fleet ~|!~ TEXT", _key_and_text),
    "rest": Expectable(_rest, "", _each()),
    "settled": Expectable(_settled, "", _each()),
    "refused": Expectable(_refused, "ERROR INPUT...", _error_and_input),
}
