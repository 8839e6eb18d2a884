"""One state of a small fleet and its cluster: what can happen in it, and what comes of that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sliceform.controller.model.events import AgentUp, EffectFailed, OutcomeKind, Reserved
from sliceform.controller.model.shapes import TpuSlice
from sliceform.controller.reconcile.decide.run import RunRecord
from sliceform.controller.reconcile.loop import Reconciler
from sliceform.states import Change

from . import core
from .cluster import Holding, World
from .snapshot import Key, copy

#: What happens: its name, and to whom.
Action = tuple[Any, ...]

FAULTS = frozenset(
    {
        "die", "agent dies", "group", "cut", "notice", "refuse", "agent fails",
        "raise", "crash", "effect fails", "blind", "lose", "repeat",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Configuration:
    """A fleet, and how much may go wrong with it."""

    name: str
    hosts: int = 1
    places: int = 1
    sizes: tuple[int, ...] = (1,)
    spares: int = 0
    #: How many faults in all, and of which kinds.
    faults: int = 1
    kinds: frozenset[str] = FAULTS
    #: Each is given once, whenever.
    orders: tuple[str, ...] = ()
    #: How many answers come out of order, or late: time passes, or something happens, before they are heard.
    late: int = 2
    #: How many preemptions and failures a run survives.
    budget: tuple[int, int] = (1, 1)

    @property
    def shape(self) -> TpuSlice:
        return TpuSlice({1: "v4-8", 2: "v4-16"}[self.hosts])


class Budget(NamedTuple):
    """What may still happen."""

    faults: int
    late: int
    orders: tuple[str, ...] = ()

    def covers(self, other: Budget) -> bool:
        """Whether all that may happen with the other one may happen with this one, too."""
        enough = self.faults >= other.faults and self.late >= other.late
        return enough and (self.orders == other.orders or not Counter(other.orders) - Counter(self.orders))


@dataclass(slots=True)
class State:
    """The core, the cluster, and what may still go wrong."""

    configuration: Configuration
    core: Reconciler
    world: World
    clock: core.Clock
    budget: Budget
    runs: list[RunRecord] = field(default_factory=list)
    #: By slice: kinds of faults that it met.
    blame: dict[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def begin(cls, configuration: Configuration) -> State:
        """Return the first state, before the first tick."""
        clock = core.Clock()
        world = World(configuration.shape, configuration.places, fence_s=core.SETTINGS["fence_s"])
        world.epoch = clock.epoch()
        made = core.make(configuration.shape, configuration.sizes, configuration.spares, world, clock)
        budget = Budget(configuration.faults, configuration.late, configuration.orders)
        return cls(configuration, made, world, clock, budget)

    def twin(self) -> State:
        """Return a copy in which something else may happen."""
        return copy(self)  # type: ignore[no-any-return]

    def key(self) -> int:
        """Return what is the same for all states that differ in names, absolute time and budget alone."""
        fleet = self.core.ledger.fleet
        return hash(Key(fleet.now, self.clock.epoch(), core.LONG_AGO_S).of(self))

    # What can happen.

    def free(self) -> list[Action]:
        """Return all that happens in turn, first what happens next if nothing goes wrong any more."""
        waiting = self.world.deliverable()
        if len(waiting) > 1:
            return [("deliver all",), ("deliver", waiting[0])]
        if waiting:
            return [("deliver", waiting[0])]
        return [*self.sooner_or_later(), ("time",)]

    def dear(self) -> Iterator[Action]:
        """Give all that takes of the budget: what comes out of turn, faults, and orders."""
        waiting = self.world.deliverable()
        if waiting and self.budget.late:
            for index in waiting[1:]:
                yield ("deliver", index)
            yield ("time",)
            yield from self.sooner_or_later()
        if self.budget.faults:
            yield from (action for action in self._faults(waiting) if action[0] in self.configuration.kinds)
        for order in dict.fromkeys(self.budget.orders):
            if core.takes(self.core, order, self.runs):
                yield ("order", order)

    def sooner_or_later(self) -> Iterator[Action]:
        """Give what happens by itself, some time."""
        world = self.world
        for life, holding in world.lives.items():
            for attempt, rank in holding.running():
                yield ("return", life, attempt, rank)
            for rank in range(holding.hosts):
                if holding.cut_s[rank] is not None:
                    yield ("reconnect", life, rank)
                if holding.noticed[rank] and holding.up[rank] and holding.cut_s[rank] is None:
                    yield ("withdraw", life, rank)
        for index, place in enumerate(world.places):
            dead = [rank for rank, machine in enumerate(place.machines) if not machine.alive]
            unlisted = [rank for rank in dead if not place.machines[rank].listed]
            for rank in unlisted:
                yield ("list", index, rank)
            if dead and not unlisted and place.lasts:
                yield ("come back", index)
        if world.blind:
            yield ("see",)

    def _faults(self, waiting: list[int]) -> Iterator[Action]:
        world = self.world
        for life, holding in world.lives.items():
            yield from self._faults_of_slice(life, holding)
        for index, place in enumerate(world.places):
            if any(holding.place == index for holding in world.lives.values()):
                yield from (("die", index, rank) for rank, machine in enumerate(place.machines) if machine.alive)
        if waiting:
            yield from self._faults_of_mail(waiting[0])
        if not world.blind:
            yield ("blind",)

    def _faults_of_slice(self, slice_id: str, holding: Holding) -> Iterator[Action]:
        for attempt, rank in holding.running():
            yield ("raise", slice_id, attempt, rank)
            yield ("crash", slice_id, attempt, rank)
        for rank in range(holding.hosts):
            if holding.up[rank] and holding.cut_s[rank] is None:
                yield ("agent dies", slice_id, rank)
                yield ("cut", slice_id, rank)
                if not holding.noticed[rank]:
                    yield ("notice", slice_id, rank, None)
                    yield ("notice", slice_id, rank, 1.0)
        if any(holding.up):
            yield ("group", slice_id)

    def _faults_of_mail(self, index: int) -> Iterator[Action]:
        mail = self.world.mail[index]
        yield ("repeat", index)
        if mail.answers is None:
            return
        yield ("lose", index)
        yield ("effect fails", index)
        if isinstance(mail.event, Reserved):
            yield ("refuse", index)
        if isinstance(mail.event, AgentUp):
            yield ("agent fails", index)

    # What comes of it.

    def do(self, action: Action, *, pay: bool = True) -> tuple[Change, ...]:
        """Let it happen, tick, and return what changed; without `pay` it happens to a healed fleet."""
        name, *what = action
        if name in FAULTS:
            self._accuse(name, what)
        if pay:
            self._pay(name, what)
        history = self.core.ledger.history
        before = history.last_seq
        if name == "time":
            self._second()
        elif name == "order":
            core.order(self.core, what[0], self.runs, self.configuration.budget)
        else:
            self._happens(name, what)
        self.core.tick()
        self.runs += [run for run in self.core.ledger.fleet.runs if run not in self.runs]
        return tuple(history.since(before))

    def _pay(self, name: str, what: list[Any]) -> None:
        budget = self.budget
        if name in FAULTS:
            self.budget = budget._replace(faults=budget.faults - 1)
        elif name == "order":
            at = budget.orders.index(what[0])
            self.budget = budget._replace(orders=budget.orders[:at] + budget.orders[at + 1 :])
        elif name != "deliver all":
            waiting = self.world.deliverable()
            if waiting and (name != "deliver" or what[0] != waiting[0]):
                self.budget = budget._replace(late=budget.late - 1)

    def _accuse(self, fault: str, what: list[Any]) -> None:
        """Remember of every slice what was done to it: an attempt may end for that."""
        if fault == "die":
            node = self.world.places[what[0]].machines[what[1]].node
            met = [life for life, holding in self.world.lives.items() if node in holding.nodes]
            # A slice may have been given back since: what ended on it before may have done so for this.
            for attempt in (attempt for run in self.runs for attempt in run.attempts[-1:]):
                hosts = attempt.spec.hosts_per_slice
                met += [attempt.spec.members[rank // hosts] for rank, (at, _) in enumerate(attempt.nodes) if at == node]
        else:
            met = [life for life in what[:1] if life in self.world.lives]
        for life in met:
            self.blame[life] = self.blame.get(life, frozenset()) | {fault}

    def _second(self) -> None:
        self.clock.s += 1.0
        self.world.second()
        for life, holding in self.world.lives.items():
            for rank in range(holding.hosts):
                if holding.up[rank] and holding.cut_s[rank] is None:
                    self.core.beat(life, rank)
        self.core.post(self.world.look())

    def _happens(self, name: str, what: list[Any]) -> None:  # noqa: C901, PLR0912, PLR0915 - a table of what can happen
        world, post = self.world, self.core.post
        match name:
            case "deliver":
                post(world.take(*what))
            case "deliver all":
                for _ in world.deliverable():
                    post(world.take(world.deliverable()[0]))
            case "return":
                world.end(*what, OutcomeKind.RETURNED)
            case "raise":
                world.end(*what, OutcomeKind.RAISED)
            case "crash":
                world.end(*what, OutcomeKind.CRASHED)
            case "reconnect":
                world.reconnect(*what)
            case "withdraw":
                world.withdraw(*what)
            case "list":
                world.list(*what)
                post(world.look())
            case "come back":
                world.come_back(*what)
                post(world.look())
            case "see" | "blind":
                world.blind = name == "blind"
                post(world.look())
            case "die":
                world.die(*what)
            case "agent dies":
                world.agent_dies(*what)
            case "group":
                world.lose_group(*what)
            case "cut":
                world.cut_off(*what)
            case "notice":
                life, rank, in_s = what
                world.notice(life, rank, None if in_s is None else world.epoch + in_s)
            case "refuse":
                post(world.refuse(*what))
            case "agent fails":
                post(world.fail_agent(*what))
            case "lose":
                world.undo(*what)
            case "effect fails":
                mail = world.undo(*what)
                assert mail.answers is not None
                post(EffectFailed(mail.event.slice_id, mail.answers, "failed"))
            case "repeat":
                again = world.mail[what[0]]._replace(answers=None)
                post(world.take(*what))
                world.mail.append(again)
            case _:
                raise ValueError(name)
