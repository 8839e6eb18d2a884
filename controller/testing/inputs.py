"""What is done to a simulated fleet, as values that are written and read as lines of text.

One vocabulary for all: drawn by strategies, drawn from a seed by a swarm, and written by people in scenarios. A line is
a verb, its words and its options, for example `kill_host rack-a 0`, `scale 2,4 1`, `submit all 3 priority=2`.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from sliceform.controller.api.work import Submitter
from sliceform.controller.errors import ConfigurationError
from sliceform.controller.model.run_options import RunOptions
from sliceform.controller.on_host.context import host_context
from sliceform.controller.testing import words
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
        try:
            verb.read(self.words)
        except (TypeError, ValueError) as error:
            form = " ".join((self.verb, *verb.words, *(f"[{name}=...]" for name in verb.options)))
            raise ValueError(f"write {form}, not {self}: {error}") from error

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


@dataclass(frozen=True, slots=True)
class Program:
    """What a run does on every host of a simulated cluster."""

    #: How long it takes, seconds; None = as long as all work there, `work_s`.
    takes_s: float | None = None
    #: It raises in so many attempts before it returns.
    raises: int = 0

    def __call__(self) -> int:
        """Return the number of the attempt, or raise."""
        attempt = host_context().attempt
        if attempt <= self.raises:
            raise RuntimeError(f"attempt {attempt} was to raise")
        return attempt


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
        """Do it; what counts to a run or slice does nothing while there is none."""
        verb = VERBS[what.verb]
        args, options = verb.read(what.words)
        verb.do(self, *args, **options)

    def tick(self, times: int, span_s: float) -> None:
        """Let so many seconds pass before each of so many ticks."""
        for _ in range(times):
            self.clock.advance(span_s)
            self.fleet.step()
            self._after_tick()

    def drain(self, which: int | str, grace_s: float) -> None:
        """Drain a slice by its id, or the nth there is, counted round."""
        rows = self.fleet.status().slices
        if isinstance(which, str):
            self.fleet.drain(which, grace_s)
        elif rows:
            self.fleet.drain(rows[which % len(rows)].id, grace_s)

    def submit(
        self,
        sizes: list[int] | None,
        budget: int,
        *,
        pinned: list[str] | None = None,
        takes_s: float | None = None,
        raises: int = 0,
        **limits: Any,
    ) -> None:
        """Submit a run that may be preempted, and fail, so many times; one for more slices than wanted is left out.

        Args:
            sizes: its valid sizes; None = the fleet's.
            budget: restarts allowed after preemption, and as many after failure.
            pinned: ids of the very slices that it is for; then it has no other size.
            takes_s: see `Program`, as for `raises`; without the two it does `work`.
            raises: see `Program`.
            limits: `priority`, `max_wait_s` and `timeout_s`, as those of `SliceController.options`.

        """
        budgets: dict[str, Any] = {"max_preemptions": budget, "max_failures": budget}
        if pinned is not None:
            options = RunOptions((len(pinned),), pinned=tuple(pinned), **budgets, **limits)
            submitter = Submitter(self.fleet, options)
        else:
            try:
                submitter = self.fleet.options(slices=sizes, **budgets, **limits)
            except ConfigurationError:
                return
        told = takes_s is not None or raises
        self.runs.append(submitter.submit(Program(takes_s, raises) if told else self.work))

    def run(self, run_id: str) -> Any:
        """Return the run of this id.

        Raises:
            ValueError: none that was submitted here has it.

        """
        for run in self.runs:
            if run.id == run_id:
                return run
        raise ValueError(f"there is no run {run_id!r}: {len(self.runs)} were submitted")

    def cancel(self, which: int | str, grace_s: float) -> None:
        """Cancel a run by its id, or the nth that was submitted, counted round."""
        if isinstance(which, str):
            self.run(which).cancel(grace_s)
        elif self.runs:
            self.runs[which % len(self.runs)].cancel(grace_s)

    def mend(self) -> None:
        """Undo every fault of the cluster, and inject nothing more; what is late already still comes."""
        self.faulty.heal()
        self.sim.mend()


@dataclass(frozen=True, slots=True)
class Verb:
    """How an input is written, and what a stage does."""

    do: Callable[..., Any]
    #: What is written for each word, and how it is read.
    words: Mapping[str, Callable[[str], Any]]
    #: What may follow as `name=value`, and how the value is read.
    options: Mapping[str, Callable[[str], Any]] = field(default_factory=dict)

    def read(self, args: tuple[str, ...]) -> tuple[list[Any], dict[str, Any]]:
        """Read the words, and the options.

        Raises:
            ValueError: they are not these words and options.

        """
        plain, rest = args[: len(self.words)], args[len(self.words) :]
        read = [read(text) for read, text in zip(self.words.values(), plain, strict=True)]
        return read, words.options(rest, self.options)


_PLACE: dict[str, Callable[[str], Any]] = {"PLACE": str}
_HOST: dict[str, Callable[[str], Any]] = {"PLACE": str, "WORKER_ID": int}

#: All inputs, by the word that a line begins with.
VERBS: dict[str, Verb] = {
    "tick": Verb(Stage.tick, {"TIMES": int, "SECONDS": words.seconds}),
    "pause": Verb(lambda stage, seconds: stage.tick(1, seconds), {"SECONDS": words.seconds}),
    "scale": Verb(lambda stage, sizes, spares: stage.fleet.scale(sizes, spares), {"SIZES": words.sizes, "SPARES": int}),
    "drain": Verb(Stage.drain, {"SLICE|NTH": words.which, "GRACE_S": words.seconds}),
    "submit": Verb(
        Stage.submit,
        {"SIZES|all": words.sizes_or_all, "BUDGET": int},
        {
            "priority": int,
            "max_wait_s": words.seconds,
            "timeout_s": words.seconds,
            "pinned": words.names,
            "takes_s": words.seconds,
            "raises": int,
        },
    ),
    "cancel": Verb(Stage.cancel, {"RUN|NTH": words.which, "GRACE_S": words.seconds}),
    "avoid": Verb(
        lambda stage, place, **how: stage.fleet.avoid(place, **how), _PLACE, {"for_s": words.seconds, "reason": str}
    ),
    "allow": Verb(lambda stage, place: stage.fleet.allow(place), _PLACE),
    "wait_ready": Verb(
        lambda stage, count, timeout_s: stage.fleet.wait_ready(count, timeout_s),
        {"COUNT": int, "TIMEOUT_S": words.seconds},
    ),
    "close": Verb(lambda stage, grace_s: stage.fleet.close(grace_s), {"GRACE_S": words.seconds}),
    "add_slice": Verb(lambda stage, place, **how: stage.sim.add_slice(place, **how), _PLACE, {"shape": words.shape}),
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
        {**_HOST, "SOURCE": str, "WITHIN_S": words.seconds},
    ),
    "withdraw_notice": Verb(
        lambda stage, place, rank, source: stage.sim.withdraw_notice(place, rank, source=source),
        {**_HOST, "SOURCE": str},
    ),
    "drain_node": Verb(
        lambda stage, place, rank, on: stage.sim.drain_node(place, rank, deadline_in_s=10.0, on=on),
        {**_HOST, "on|off": words.switch},
    ),
    "fail_observation": Verb(lambda stage, on: stage.sim.fail_observation(on), {"on|off": words.switch}),
    "quota": Verb(lambda stage, most: stage.sim.set_quota(most), {"COUNT|off": words.count_or_off}),
    "inject": Verb(
        lambda stage, **chances: stage.faulty.inject(**chances),
        {},
        {fault.name: partial(words.chance, fault.name) for fault in fields(Faults)},
    ),
    "keep_back": Verb(
        lambda stage, slice_id, answer: stage.faulty.keep_back(slice_id, answer), {"SLICE": str, "ANSWER": words.answer}
    ),
    "give": Verb(lambda stage, slice_id: stage.faulty.give(slice_id), {"SLICE": str}),
    "heal": Verb(lambda stage: stage.faulty.heal(), {}),
    "mend": Verb(Stage.mend, {}),
}
