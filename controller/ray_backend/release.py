"""Release: end the work, the agents and the groups of a life, and report when the groups are seen removed.

A release is a sequence of steps that yields how long to wait until the next one, so that many can go on at a time on
the I/O thread and none holds up the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import structlog
from ray.util.placement_group import PlacementGroup

from sliceform.controller.model.effects import Release
from sliceform.controller.model.events import EffectFailed, Released
from sliceform.controller.ray_backend import groups
from sliceform.controller.ray_backend.agents import kill
from sliceform.controller.ray_backend.endings import Endings
from sliceform.controller.ray_backend.failures import words
from sliceform.controller.ray_backend.lives import AgentHandle, Holding, Stage
from sliceform.controller.ray_backend.session import Answer, Session
from sliceform.states.effects import Effect

log = structlog.get_logger(__name__)

#: How soon to look again whether something has gone, seconds: at first, and at most.
_LOOK_S = 0.005
_LOOK_MAX_S = 0.25
#: How much longer than their grace processes may take, seconds.
_WORK_MARGIN_S = 2.0
#: How long the groups of a life are kept for its hosts to say that they are clear of its work, seconds.
_CLEAR_S = 1.0
#: How long an agent may take to end by itself, which lets it tidy up, seconds.
_AGENT_LEAVES_S = 1.0

Steps = Iterator[float]


class Releases:
    """Everything here runs on the I/O thread."""

    def __init__(self, session: Session, endings: Endings) -> None:
        """Take what it works with."""
        self._session = session
        self._endings = endings

    def release(self, holding: Holding, request: Release) -> None:
        """Begin, hurry up, or say once more that it is done."""
        if holding.stage is Stage.RELEASED:
            self._session.post(Released(holding.slice_id))
            return
        holding.stage = Stage.RELEASING
        holding.lost = holding.lost or request.lost
        until = time.monotonic() + request.grace_s
        hurried = until < holding.work_until
        holding.work_until = min(until, holding.work_until)
        if not holding.ending:
            holding.ending = True
            self._advance(holding, self._steps(holding, request.attempt_key))
            return
        self._endings.tell_gone(holding)
        if hurried and not holding.lost:
            self._wind_down(holding)

    def _advance(self, holding: Holding, steps: Steps) -> None:
        """Go on until the next wait; a release that fails is begun anew when it is asked for again."""
        try:
            self._session.check()
            delay_s = next(steps, None)
        except Exception as error:  # noqa: BLE001 - whatever Ray raises, it is tried again
            holding.ending = False
            if not self._session.connected:
                # Ray removes everything of a connection that was closed.
                log.info("released_with_connection", slice=holding.slice_id, cause=str(error))
                self._done(holding)
                return
            log.warning("release_failed", slice=holding.slice_id, cause=repr(error))
            self._session.post(EffectFailed(holding.slice_id, Effect.RELEASE, words(error)))
            return
        if delay_s is None:
            self._done(holding)
        else:
            self._session.io.put(partial(self._advance, holding, steps), delay_s)

    def _steps(self, holding: Holding, attempt: str | None) -> Steps:
        if not holding.lost:
            yield from self._end_work(holding)
        # With the groups Ray ends the agents, who alone see to it that nothing of the work is left.
        self._endings.clear(holding, attempt)
        end = time.monotonic() + _CLEAR_S
        yield from _until(lambda: not any(holding.working()) or time.monotonic() >= end)
        if not holding.lost:
            yield from self._end_agents(holding)
        if holding.lost:
            # At once and together: what is left of a lost slice must not take the place of its replacement.
            for group in holding.groups:
                groups.remove(group)
        busy = {task.rank for _, task in holding.working()}
        for agent in holding.agents:
            agent.closed = True
            if agent.rank not in busy:
                kill(agent)
        for group in holding.groups:
            groups.remove(group)
            yield from _until(partial(_is_gone, group))

    def _wind_down(self, holding: Holding) -> None:
        grace_s = max(0.0, holding.work_until - time.monotonic())
        for work in holding.attempts.values():
            if any(task.gone is None for task in work.tasks):
                self._endings.wind_down(holding, work, grace_s)

    def _end_work(self, holding: Holding) -> Steps:
        self._wind_down(holding)
        # Asked each time: a later request may leave it less.
        yield from _until(
            lambda: holding.lost or not _works(holding) or time.monotonic() >= holding.work_until + _WORK_MARGIN_S
        )
        if _works(holding) and not holding.lost:
            left = sorted({f"{work.key} on host {task.rank}" for work, task in holding.working()})
            log.warning("work_not_seen_gone", slice=holding.slice_id, left=left)

    def _end_agents(self, holding: Holding) -> Steps:
        """Ask agents to end by themselves, which lets them remove what they have on disk."""
        leaving: set[int] = set()
        for agent in holding.agents:
            if agent.serves:
                agent.closed = True
                leaving.add(agent.rank)
                self._session.when_done(agent.actor.__ray_terminate__.remote(), partial(_left, leaving, agent))
        end = time.monotonic() + _AGENT_LEAVES_S
        yield from _until(lambda: holding.lost or not leaving or time.monotonic() >= end)

    def _done(self, holding: Holding) -> None:
        holding.stage = Stage.RELEASED
        holding.ending = False
        holding.head = holding.hosts = None
        self._session.post(Released(holding.slice_id))


def _works(holding: Holding) -> bool:
    """Whether something is left of the work on a host whose agent can still end it."""
    return any(holding.agents[task.rank].serves for _, task in holding.working())


def _left(leaving: set[int], agent: AgentHandle, _: Answer) -> None:
    leaving.discard(agent.rank)


def _is_gone(group: PlacementGroup) -> bool:
    return groups.is_removed(groups.row_of(group))


def _until(done: Callable[[], bool]) -> Steps:
    """Wait until something is so, looking less and less often."""
    look_s = _LOOK_S
    while not done():
        yield look_s
        look_s = min(_LOOK_MAX_S, 1.5 * look_s)
