"""How many slices to have: which are missing, which are too many, and when trying for a larger size pauses.

Pure: reads the fleet, changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sliceform.controller.reconcile.decide.fleet import Fleet
from sliceform.controller.reconcile.decide.life import Life
from sliceform.controller.reconcile.decide.policy import Pause, Vacancy
from sliceform.controller.reconcile.decide.schedule import demand
from sliceform.controller.reconcile.decide.step import Step
from sliceform.controller.reconcile.decide.sync import FOREVER
from sliceform.states.reasons import Reason
from sliceform.states.slices import SliceState, SliceTrigger

#: What goes first when there are too many; what runs never does.
_SPARED_LAST = (SliceState.PENDING, SliceState.PLACED, SliceState.READY)


class Capacity(NamedTuple):
    """What one look at the number of slices decided, and what is remembered from then on."""

    #: Slices to let go.
    drains: tuple[Step, ...]
    #: Slices to create.
    creates: tuple[Step, ...]
    pause: Pause
    #: What is still to be replaced.
    vacancies: tuple[Vacancy, ...]
    #: Loop time at which, if nothing else happens, to look again.
    due: float


def capacity(fleet: Fleet, live: Sequence[Life], taken: Sequence[str]) -> Capacity:
    """Compare the slices that stay with those that are wanted; `taken` are slices that an operator takes now."""
    desired, now = fleet.desired, fleet.now
    vacancies = [*fleet.vacancies, *(Vacancy(slice_id, lost=True) for slice_id in taken)]
    reached = sum(life.record.state in {SliceState.READY, SliceState.RUNNING} for life in live)
    pause = _pause(fleet, reached)
    drains, due = _too_many(fleet, live), FOREVER
    if not drains:
        drains, due = _surplus(fleet, live, reached)
        if drains:
            # What waits is given up with them, whatever it stands for; what failed is remembered.
            vacancies = [vacancy._replace(lost=vacancy.slice_id in taken) for vacancy in vacancies]
            pause = pause if pause.until > now else pause.begin(now, fleet.settings.surplus_s)
    left = len(live) - len(drains)
    room = desired.target - left
    wanted = room
    if pause.until > now:
        due = min(due, pause.until)
        size = max(desired.valid_size(reached), desired.smallest)
        wanted = min(room, max(size + desired.spares - left, sum(vacancy.lost for vacancy in vacancies)))
    creates, vacancies = _creates(fleet, wanted, room, vacancies)
    due = min([due, *(vacancy.not_before for vacancy in vacancies if vacancy.not_before > now)])
    return Capacity(tuple(drains), tuple(creates), pause, tuple(vacancies), due)


def _pause(fleet: Fleet, reached: int) -> Pause:
    """Forget the pause once the largest size is reached; a run that waits ends it."""
    if reached >= fleet.desired.largest:
        return Pause()
    return fleet.pause.end() if demand(fleet) else fleet.pause


def _too_many(fleet: Fleet, live: Sequence[Life]) -> list[Step]:
    """Choose what is beyond what is wanted: pending first, then placed, then idle ready, newest first."""
    count = len(live) - fleet.desired.target
    if fleet.blind or count <= 0:
        return []
    return [_drain(life, Reason.SCALE_DOWN) for life in _newest_first(live, *_SPARED_LAST)][:count]


def _surplus(fleet: Fleet, live: Sequence[Life], reached: int) -> tuple[list[Step], float]:
    """Choose idle slices that serve no valid size, and have not for `surplus_s`; with them goes what still comes.

    A slice is idle since its own last use, and none is given back while others keep coming, so soon after a loss, or
    while a run waits for slices.

    Returns:
        The steps, and the loop time at which there may be some.

    """
    desired, now = fleet.desired, fleet.now
    size = desired.valid_size(reached)
    count = reached - size - desired.spares
    if size in {0, desired.largest} or count <= 0 or fleet.blind or demand(fleet):
        return [], FOREVER
    idle = _newest_first(live, SliceState.READY)
    changed_at = max(fleet.added_at, fleet.lost_at)
    times = [max(life.record.since, changed_at) + fleet.settings.surplus_s for life in idle]
    useless = [life for life, time in zip(idle, times, strict=True) if time <= now][:count]
    if not useless:
        return [], min(times, default=FOREVER)
    coming = _newest_first(live, SliceState.PENDING, SliceState.PLACED)
    return [_drain(life, Reason.SURPLUS) for life in (*coming, *useless)], FOREVER


def _newest_first(live: Sequence[Life], *states: SliceState) -> list[Life]:
    return [life for state in states for life in reversed(live) if life.record.state is state]


def _drain(life: Life, reason: Reason) -> Step:
    return Step(life.record.id, None, SliceTrigger.DRAIN, reason)


def _creates(fleet: Fleet, wanted: int, room: int, vacancies: Sequence[Vacancy]) -> tuple[list[Step], list[Vacancy]]:
    """Create up to `wanted` slices, losses first; those that back off keep their room, and nobody else waits for them.

    Returns:
        The steps, and what is still to be replaced: no more than there is `room` for.

    """
    if not fleet.surveyed:
        return [], list(vacancies)
    ready = [vacancy for vacancy in vacancies if vacancy.not_before <= fleet.now]
    number = max(0, min(wanted, len(ready)), wanted - (len(vacancies) - len(ready)))
    replaced = [vacancy.slice_id for vacancy in sorted(ready, key=lambda vacancy: not vacancy.lost)[:number]]
    steps: list[Step] = []
    for offset in range(number):
        old = replaced[offset] if offset < len(replaced) else None
        reason = Reason.REPLACEMENT if old else Reason.DESIRED
        detail = f"replaces {old}" if old else ""
        name = f"slice-{fleet.next_number + offset}"
        steps.append(Step(name, None, SliceTrigger.CREATE, reason, detail, old))
    done = frozenset(replaced)
    left = [vacancy for vacancy in vacancies if vacancy.failures and vacancy.slice_id not in done]
    return steps, left[: max(0, room - number)]
