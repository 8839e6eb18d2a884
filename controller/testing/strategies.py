"""Strategies of hypothesis: walks through transition tables, histories, and inputs for a simulated fleet.

Needs hypothesis: `pip install 'sliceform[testing]'`. What is drawn shrinks, as everything of hypothesis does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

try:
    from hypothesis import strategies as st
except ModuleNotFoundError as error:
    if error.name != "hypothesis":
        raise
    raise ModuleNotFoundError(
        "the strategies need hypothesis: pip install 'sliceform[testing]'", name="hypothesis"
    ) from error

from sliceform.controller.testing.faulty import Faults
from sliceform.controller.testing.inputs import Input
from sliceform.states.history import History
from sliceform.states.hosts import HOST_TABLE
from sliceform.states.machine import Engine
from sliceform.states.reasons import Reason
from sliceform.states.records import HostRecord, SliceRecord
from sliceform.states.slices import SLICE_TABLE
from sliceform.states.table import S, T, TransitionTable

#: A record that nothing has happened to, and the engine that moves it.
_Born = tuple[Engine[Any, Any], Any]


class IllegalWalk(NamedTuple):
    """Triggers of which all but the last are legal."""

    #: The legal ones, from outside the machine.
    before: tuple[Any, ...]
    #: The one that is not.
    trigger: Any


def state_after(table: TransitionTable[S, T], walk: Iterable[T]) -> S | None:
    """Return the state that a walk from outside the machine ends in; None if it ends outside.

    Raises:
        ValueError: the table does not allow it.

    """
    state: S | None = None
    for trigger in walk:
        row = table.row(state, trigger)
        if row is None:
            raise ValueError(f"{trigger} is not legal from {state or '[*]'} in the table of {table.name}s")
        state = row.dest
    return state


@st.composite
def legal_walks(
    draw: st.DrawFn, table: TransitionTable[S, T], *, min_size: int = 1, max_size: int = 30
) -> tuple[T, ...]:
    """Triggers of one life, from its entry on, each legal after those before it; it may end before its exit.

    A walk that comes to the exit ends there, also before `min_size`.
    """
    size = draw(st.integers(min_size, max_size))
    walk: list[T] = []
    state: S | None = None
    while len(walk) < size:
        trigger = draw(st.sampled_from(table.legal(state)))
        walk.append(trigger)
        row = table.row(state, trigger)
        assert row is not None
        state = row.dest
        if state is None:
            break
    return tuple(walk)


@st.composite
def illegal_walks(draw: st.DrawFn, table: TransitionTable[S, T], *, max_size: int = 30) -> IllegalWalk:
    """A legal walk, possibly empty, and one trigger that is not legal after it."""
    before = draw(legal_walks(table, min_size=0, max_size=max_size))
    legal = table.legal(state_after(table, before))
    return IllegalWalk(before, draw(st.sampled_from([trigger for trigger in table.triggers if trigger not in legal])))


@st.composite
def histories(draw: st.DrawFn, *, limit: int = 100_000, min_size: int = 0, max_size: int = 30) -> History:
    """What is recorded of a few slices and hosts that move lawfully, in any order, with notes between.

    Each is alone: hosts do not belong to the slices. `min_size` and `max_size` count transitions; `limit` is the
    history's own.
    """
    history = History(limit)
    slices, hosts = Engine(SLICE_TABLE, history), Engine(HOST_TABLE, history)
    alive: list[_Born] = []
    for number in range(draw(st.integers(min_size, max_size))):
        if not alive or draw(st.booleans()):
            name = f"slice-{number}"
            slice_born: _Born = (slices, SliceRecord(name, ()))
            host_born: _Born = (hosts, HostRecord(f"{name}/0", name, 0))
            alive.append(slice_born if draw(st.booleans()) else host_born)
            engine, record = alive[-1]
        else:
            engine, record = draw(st.sampled_from(alive))
        trigger = draw(st.sampled_from(engine.table.legal(record.state)))
        at = float(number)
        engine.fire(record, trigger, now=at, at=at, tick=number, reason=Reason.DESIRED)
        if draw(st.booleans()):
            engine.note(record, at=at, tick=number, reason=Reason.DESIRED)
        if record.state is None:
            alive.remove((engine, record))
    return history


def faults(chances: Sequence[float] = (0.0, 0.1, 0.4)) -> st.SearchStrategy[Faults]:
    """How likely each fault between a fleet and its cluster is, for `FaultyBackend`."""
    likely = st.sampled_from(chances)
    return st.builds(
        Faults,
        refuse=likely,
        refuse_but_do=likely,
        refuse_place=likely,
        drop_request=likely,
        repeat_request=likely,
        lose=likely,
        delay=likely,
        repeat=likely,
        fail_observation=likely,
        lose_beat=likely,
    )


def orders(largest: int = 4) -> st.SearchStrategy[Input]:
    """What people ask of a fleet of at most so many slices: scale, drain, submit, cancel."""
    sizes = st.lists(st.integers(1, largest), min_size=1, max_size=3).map(lambda some: ",".join(_ascending(some)))
    nth = st.integers(0, 100)
    return st.one_of(
        _inputs("scale", sizes, st.integers(0, 2)),
        _inputs("drain", nth, st.sampled_from([0.0, 3.0])),
        _inputs("submit", st.one_of(st.just("all"), sizes), st.integers(0, 3)),
        _inputs("cancel", nth, st.sampled_from([0.0, 2.0])),
    )


def cluster_faults(places: Sequence[str], hosts: int) -> st.SearchStrategy[Input]:
    """What happens to the machines of places with so many hosts each, and what mends it."""
    place = st.sampled_from(places)
    rank = st.integers(0, hosts - 1)
    source = st.sampled_from(["gce", "own"])
    on_host = [
        *("kill_host", "kill_agent", "freeze_host", "freeze_daemon", "thaw_host"),
        *("break_agent", "mend_agent", "move_bundle"),
    ]
    return st.one_of(
        *(_inputs(verb, place, rank) for verb in on_host),
        *(_inputs(verb, place) for verb in ("remove_slice", "restore_slice", "hold", "let_go")),
        _inputs("notice", place, rank, source, st.sampled_from([2.0, 30.0])),
        _inputs("withdraw_notice", place, rank, source),
        _inputs("drain_node", place, rank, st.sampled_from(["on", "off"])),
        _inputs("fail_observation", st.sampled_from(["on", "off"])),
    )


def schedules(
    places: Sequence[str], hosts: int, *, largest: int = 4, max_size: int = 50
) -> st.SearchStrategy[tuple[Input, ...]]:
    """Orders, faults of the cluster and of what is between, and time, in any order.

    Args:
        places: the names of the simulated cluster's places.
        hosts: how many hosts each has.
        largest: the most slices that are asked for.
        max_size: the most inputs.

    """
    time = st.one_of(
        _inputs("tick", st.integers(1, 8), st.sampled_from([0.1, 0.5, 1.0, 2.0])),
        _inputs("pause", st.sampled_from([15.0, 60.0, 600.0])),
    )
    between = st.one_of(faults().map(Input.inject), st.just(Input("heal")))
    some = st.one_of(time, orders(largest), cluster_faults(places, hosts), between)
    return st.lists(some, max_size=max_size).map(tuple)


def _inputs(verb: str, *args: st.SearchStrategy[Any]) -> st.SearchStrategy[Input]:
    return st.tuples(*args).map(lambda drawn: Input(verb, tuple(map(str, drawn))))


def _ascending(sizes: Iterable[int]) -> list[str]:
    return [str(size) for size in sorted(set(sizes))]
