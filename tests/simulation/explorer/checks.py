"""What must hold in every state, and when a healed fleet has converged: in sentences, empty if all is well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from sliceform.controller.model.events import OutcomeKind
from sliceform.controller.reconcile.decide.run import Ended, RunRecord
from sliceform.states import Change, check_records, replay
from sliceform.states.slices import SliceState
from tests.simulation.invariants import DIRECT, TAKES_AWAY

from . import core
from .model import State

#: Faults after which an attempt may count as failed, and as preempted.
_FAILS = frozenset({"raise", "crash", "agent dies"})
_PREEMPTS = frozenset({"die", "notice", "cut", "group", "agent dies"})


def states(state: State) -> dict[str, str]:
    """Return the state of every record by its id."""
    found = {}
    for life in core.lives(state.core).values():
        for record in (life.record, *life.record.hosts):
            if record.state is not None:
                found[record.id] = str(record.state)
    return found


def wrong(state: State, before: Mapping[str, str], changes: Sequence[Change]) -> str:
    """Return what is wrong after a tick that made these changes, or nothing."""
    ledger = state.core.ledger
    fleet = ledger.fleet
    if changes:
        for misfit in replay(changes, before):
            return misfit
        for change in changes:
            if fleet.blind and change.trigger in TAKES_AWAY and change.reason not in DIRECT:
                return f"taken away while nothing was seen: {change}"
            if change.trigger == "create" and change.kind == "slice":
                live = sum(life.record.live for life in fleet.lives.values())
                if live > fleet.desired.target:
                    return f"{live} live slices, and {fleet.desired.target} are wanted"
        for contradiction in check_records(life.record for life in fleet.lives.values()):
            return contradiction
    return _of_world(state) or _of_runs(state) or _left_behind(state)


def _of_world(state: State) -> str:
    """Nothing runs twice, and nothing is given twice."""
    running: dict[str, set[str]] = {}
    for holding in state.world.lives.values():
        for attempt, _ in holding.running():
            running.setdefault(attempt.partition("/")[0], set()).add(attempt)
    for run, attempts in running.items():
        if len(attempts) > 1:
            return f"{sorted(attempts)} of {run} run at the same time"
    return ""


def _of_runs(state: State) -> str:
    """Attempts, charges and members agree."""
    for run in state.runs:
        if found := _of_run(run, state) or _of_last_attempt(run, state):
            return found
    ledger = state.core.ledger
    active = {run.active.spec.key: run.active for run in state.runs if run.active is not None}
    if active.keys() != ledger.attempts.keys() or any(ledger.attempts[key] is not active[key] for key in active):
        return f"attempts under way are {sorted(active)}, but {sorted(ledger.attempts)} are kept"
    members = Counter(member for attempt in active.values() for member in attempt.spec.members)
    shared = [member for member, count in members.items() if count > 1]
    if shared:
        return f"{shared} work for two attempts"
    for life in ledger.fleet.lives.values():
        if life.record.state is SliceState.RUNNING:
            attempt = life.record.attempt or ""
            if attempt not in active and life.over != attempt:
                return f"{life.record.id} runs {attempt}, which is not under way"
    return ""


def _of_run(run: RunRecord, state: State) -> str:
    ends = [str(attempt.ended) for attempt in run.attempts]
    there = run in state.core.ledger.fleet.runs
    if (run.preemptions, run.failures) != (ends.count("preempted"), ends.count("failed")):
        return f"{run.id} ended {ends}, and is charged {run.preemptions} preemptions and {run.failures} failures"
    if sum(attempt.goes_on for attempt in run.attempts) > 1:
        return f"{run.id} has two attempts under way"
    if run.ended is None and not there and run.attempts:
        return f"{run.id} is lost"
    if run.ended is not None and (there or run.active is not None):
        return f"{run.id} is {run.ended}, and goes on"
    return ""


def _of_last_attempt(run: RunRecord, state: State) -> str:
    """It ended for something that befell its slices."""
    for attempt in run.attempts[-1:]:
        kinds = Counter(outcome.kind for outcome in attempt.outcomes.values())
        if attempt.ended is Ended.SUCCEEDED and kinds != {OutcomeKind.RETURNED: attempt.hosts}:
            return f"{attempt.spec.key} succeeded, but {dict(kinds)}"
        met = frozenset[str]().union(*(state.blame.get(member, ()) for member in attempt.spec.members))
        for ended, causes in ((Ended.FAILED, _FAILS), (Ended.PREEMPTED, _PREEMPTS)):
            if attempt.ended is ended and not met & causes:
                return f"{attempt.spec.key} {ended}: {attempt.why_ended}; but it met {sorted(met)}"
    return ""


def _left_behind(state: State) -> str:
    """Nothing is kept of lives that are gone."""
    ledger = state.core.ledger
    there = ledger.fleet.lives.keys()
    kept = {
        "an effect": {request.slice_id for request in core.in_flight(state.core)},
        "a node": {life for users in ledger.users.values() for life, _ in users},
        "a place": {*ledger.place_map.holders.values(), *ledger.place_map.owners.values()},
    }
    for what, owners in kept.items():
        if owners - there:
            return f"{what} is kept for {sorted(owners - there)}"
    return ""


def settled(state: State, places: int) -> str:
    """Return what is still missing in a fleet that is healed and has so many places; nothing once it has converged."""
    ledger = state.core.ledger
    fleet = ledger.fleet
    if core.closing(state.core):
        if fleet.lives or fleet.runs or state.world.lives:
            return f"not closed: {list(fleet.lives)} {fleet.runs} {list(state.world.lives)}"
        return ""
    found = [life.record.state for life in fleet.lives.values()]
    ready = found.count(SliceState.READY)
    sizes = [size for size in fleet.desired.sizes if size <= places]
    least = min(places, fleet.desired.target) if len(fleet.desired.sizes) == 1 else max(sizes, default=0)
    if places >= fleet.desired.target:
        least = fleet.desired.target
    if ready < least or set(found) - {SliceState.READY, SliceState.PENDING}:
        return f"{least} slices should be ready: {[*map(str, found)]}"
    if places >= fleet.desired.target and len(found) != ready:
        return f"slices wait though there is room: {[*map(str, found)]}"
    waiting = [run for run in fleet.runs if min(run.options.sizes or fleet.desired.sizes) <= places]
    if waiting:
        return f"runs have not ended: {waiting}"
    pending = [life.record.id for life in fleet.lives.values() if life.record.state is SliceState.PENDING]
    strays = [request for request in core.in_flight(state.core) if request.slice_id not in pending]
    if strays:
        return f"still asked for: {strays}"
    steps = state.core.preview()
    return f"the plan is not empty: {[*map(str, steps)]}" if steps else ""
