"""Visit every state of a configuration, and follow each, healed, until the fleet has converged.

States are visited by what has gone wrong until then: the less, the earlier. So a state that was visited before was
visited with at least as much that may still happen, unless that is of another kind, and need not be visited again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from . import checks, core
from .model import Action, Budget, Configuration, State
from .snapshot import Store

#: A healed fleet converges within so many steps; one that goes in circles is found before that.
_STEPS = 400


class FoundError(AssertionError):
    """Something is wrong, with the actions that lead to it."""

    def __init__(self, configuration: Configuration, what: str, path: Path | None, after: tuple[Action, ...]) -> None:
        lines = [f"{configuration.name}: {what}", "  after:", *(f"    {action!r}," for action in _actions(path))]
        if after:
            lines += ["  then, healed:", *(f"    {action!r}," for action in after)]
        super().__init__("\n".join(lines))
        self.what = what


class Path:
    """The actions that led to a state, the last one first."""

    __slots__ = ("action", "before", "length")

    def __init__(self, action: Action, before: Path | None) -> None:
        self.action, self.before = action, before
        self.length: int = 1 if before is None else before.length + 1


@dataclass(slots=True)
class Result:
    """How far a search went."""

    name: str
    states: int = 0
    transitions: int = 0
    #: Steps of fleets that have lost a place for good, beside these.
    healed: int = 0
    seconds: float = 0.0
    depth: int = 0

    def __str__(self) -> str:
        rate = (self.transitions + self.healed) / max(self.seconds, 1e-9)
        return (
            f"{self.name}: {self.states:,} states, {self.transitions:,} transitions, "
            f"{self.healed:,} steps with a place fewer, depth {self.depth}, "
            f"{self.seconds:.0f} s ({rate:,.0f} ticks a second)"
        )


@dataclass(slots=True)
class Search:
    """One search: what was visited, and what is still to be."""

    configuration: Configuration
    result: Result
    store: Store
    #: By key, what may still have happened where a state was visited; none covers another.
    visited: dict[int, list[Budget]] = field(default_factory=dict)
    #: By key: which state follows if nothing goes wrong any more, None if the fleet has converged; and the way there.
    following: dict[int, tuple[int | None, Path | None]] = field(default_factory=dict)
    #: By how much has gone wrong until then: states, packed, of which what takes of the budget is still to be done.
    dear: list[list[tuple[bytes, Path | None]]] = field(default_factory=list)
    #: Fleets with a place fewer, by key, that are known to converge.
    converging: set[int] = field(default_factory=set)

    def run(self, within_s: float) -> None:
        """Visit all."""
        begun = time.process_time()
        first = State.begin(self.configuration)
        first.core.tick()
        self._visit([(first, first.key(), None)], 0)
        level = 0
        while level < len(self.dear):
            pending = self.dear[level]
            while pending:
                packed, path = pending.pop()
                state = self.store.unpack(packed)
                before = checks.states(state)
                for action in list(state.dear()):
                    self._visit(self._go(state.twin(), action, before, path), level + 1)
                if time.process_time() - begun > within_s:
                    raise TimeoutError(f"{self.configuration.name}: cut off after {self.result.states:,} states")
            level += 1
        self._all_converge()
        self.result.seconds = time.process_time() - begun

    def _go(
        self, state: State, action: Action, before: Mapping[str, str], path: Path | None
    ) -> list[tuple[State, int, Path | None]]:
        """Let something happen; return the state unless it need not be visited."""
        self.result.transitions += 1
        here = Path(action, path)
        _step(state, action, before, here, ())
        return [(state, state.key(), here)]

    def _visit(self, stack: list[tuple[State, int, Path | None]], level: int) -> None:
        """Visit states and all that follows in turn."""
        while stack:
            state, key, path = stack.pop()
            known = self.visited.setdefault(key, [])
            if any(budget.covers(state.budget) for budget in known):
                continue
            if not known:
                self.result.states += 1
                self.result.depth = max(self.result.depth, 0 if path is None else path.length)
                self._lose_a_place(state, path)
            known.append(state.budget)
            self._keep(state, path, level)
            before = checks.states(state)
            free = state.free()
            settled = free[0] == ("time",) and not checks.settled(state, self.configuration.places)
            for at, action in enumerate(free):
                following = state if action is free[-1] else state.twin()
                found = self._go(following, action, before, path)
                if at == 0 and key not in self.following:
                    self.following[key] = (None if settled else found[0][1], path)
                stack += found

    def _keep(self, state: State, path: Path | None, level: int) -> None:
        """Keep a state until its turn comes to do what takes of the budget, if there is any."""
        if any(True for _ in state.dear()):
            while len(self.dear) <= level:
                self.dear.append([])
            self.dear[level].append((self.store.pack(state), path))

    def _all_converge(self) -> None:
        """See that every state, healed, leads to one in which the fleet has converged."""
        good: set[int] = set()
        for begin, (_, path) in self.following.items():
            passed: dict[int, None] = {}
            at: int | None = begin
            while at is not None and at not in good:
                if at in passed:
                    raise self._never_rests(path)
                passed[at] = None
                at = self.following[at][0]
            good.update(passed)

    def _never_rests(self, path: Path | None) -> FoundError:
        state = State.begin(self.configuration)
        state.core.tick()
        for action in _actions(path):
            state.do(action)
        return self._stuck(state, path, self.configuration.places, [])

    def _stuck(self, state: State, path: Path | None, places: int, done: list[Action]) -> FoundError:
        for _ in range(30):
            action = state.free()[0]
            state.do(action, pay=False)
            done.append(action)
        missing = checks.settled(state, places) or "it never rests"
        return FoundError(self.configuration, f"does not converge with {places} places: {missing}", path, tuple(done))

    def _lose_a_place(self, state: State, path: Path | None) -> None:
        """See that a healed fleet converges when one of its places is gone for good, whichever it is."""
        for lost in range(self.configuration.places):
            ledger = state.twin()
            ledger.budget = Budget(0, 0)
            place = ledger.world.places[lost]
            place.lasts = False
            done: list[Action] = []
            for rank, machine in enumerate(place.machines):
                if machine.alive:
                    self._heal(ledger, ("die", lost, rank), path, done)
            self._rest(ledger, path, done)

    def _rest(self, ledger: State, path: Path | None, done: list[Action]) -> None:
        places = self.configuration.places - 1
        passed: dict[int, None] = {}
        while (key := ledger.key()) not in self.converging:
            if key in passed or len(passed) > _STEPS:
                raise self._stuck(ledger, path, places, done)
            passed[key] = None
            action = ledger.free()[0]
            if action == ("time",) and not checks.settled(ledger, places):
                break
            self._heal(ledger, action, path, done)
        self.converging.update(passed)

    def _heal(self, ledger: State, action: Action, path: Path | None, done: list[Action]) -> None:
        self.result.healed += 1
        done.append(action)
        _step(ledger, action, checks.states(ledger), path, tuple(done), pay=False)


def explore(configuration: Configuration, *, within_s: float) -> Result:
    """Search all of a configuration.

    Raises:
        FoundError: an invariant does not hold somewhere, or a healed fleet does not converge.
        TimeoutError: the search was not complete in time.

    """
    result = Result(configuration.name)
    with core.steady():
        Search(configuration, result, Store(State.begin(configuration))).run(within_s)
    return result


def _step(
    state: State,
    action: Action,
    before: Mapping[str, str],
    path: Path | None,
    healed: tuple[Action, ...],
    *,
    pay: bool = True,
) -> None:
    """Let something happen, and see that all invariants hold."""
    try:
        found = checks.wrong(state, before, state.do(action, pay=pay))
    except Exception as error:
        raise FoundError(state.configuration, f"{type(error).__name__}: {error}", path, healed) from error
    if found:
        raise FoundError(state.configuration, found, path, healed)


def _actions(path: Path | None) -> tuple[Action, ...]:
    return tuple(reversed(list(_back(path))))


def _back(path: Path | None) -> Iterator[Action]:
    while path is not None:
        yield path.action
        path = path.before
