"""Attempts begin: prepare the hosts, agree on a coordinator, submit a task per host, pass on what they are told.

Everything here runs on the I/O thread. What is asked of an agent is never waited for.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import structlog

from sliceform.controller.model.effects import Launch, Notify
from sliceform.controller.model.events import (
    EffectFailed,
    Notified,
    ProcessStarted,
)
from sliceform.controller.ray_backend import outcomes
from sliceform.controller.ray_backend.endings import Endings
from sliceform.controller.ray_backend.failures import words
from sliceform.controller.ray_backend.host_task import submit
from sliceform.controller.ray_backend.lives import AgentHandle, Holding, HostTask, Work
from sliceform.controller.ray_backend.rendezvous import Meeting
from sliceform.controller.ray_backend.session import Answer, Session
from sliceform.controller.ray_backend.shipped import Shipped
from sliceform.states.effects import Effect

log = structlog.get_logger(__name__)


class Attempts:
    """Carries out `Launch` and `Notify`."""

    def __init__(self, session: Session, holdings: Mapping[str, Holding], endings: Endings, shipped: Shipped) -> None:
        """Take what it works with; `holdings` are all lives, by id."""
        self._session = session
        self._holdings = holdings
        self._endings = endings
        self._shipped = shipped
        self._meetings: dict[str, Meeting] = {}

    def launch(self, holding: Holding, request: Launch) -> None:
        """Run the attempt on every host of this slice, or say once more what has become of it."""
        key = request.attempt.key
        if not holding.held or not holding.agents:
            why = "the slice has no agents" if holding.held else "the slice is being released"
            self._session.post(EffectFailed(holding.slice_id, Effect.LAUNCH, why))
            return
        work = holding.attempts.get(key)
        if work is None:
            self._prune(holding)
            tasks = tuple(HostTask(rank) for rank in range(request.shape.hosts))
            work = holding.attempts[key] = Work(request, tasks, stopping=key in holding.stopped)
        meeting = self._meeting(work)
        for task in work.tasks:
            if task.envelope is not None or task.ended is not None:
                self._endings.tell_again(task)
            elif not task.preparing and not task.prepared:
                self._prepare(holding, work, task)
                meeting.when_known(partial(self._submit, holding, work, task))

    def forget(self, holding: Holding) -> None:
        """Drop what is kept of a life's attempts."""
        for work in holding.attempts.values():
            self._forget(holding, work)

    def _prune(self, holding: Holding) -> None:
        """Drop the attempts of which nothing is left: a slice may serve many."""
        over = [work for work in holding.attempts.values() if all(task.gone is not None for task in work.tasks)]
        for work in over:
            del holding.attempts[work.key]
            self._forget(holding, work)

    def _forget(self, holding: Holding, work: Work) -> None:
        if work.request.attempt.members[0] == holding.slice_id:
            self._meetings.pop(work.key, None)

    def _meeting(self, work: Work) -> Meeting:
        """Return where the hosts of an attempt meet, and ask its first host for it if nobody has."""
        key, spec = work.key, work.request.attempt
        meeting = self._meetings.setdefault(key, Meeting())
        leader = self._holdings.get(spec.members[0])
        if not meeting.asked and leader is not None and leader.agents:
            meeting.asked = True
            ref = leader.agents[0].actor.prepare.remote(key, True)  # noqa: FBT003 - travels by position
            self._session.when_done(ref, partial(self._met, meeting, work))
        return meeting

    def _met(self, meeting: Meeting, work: Work, answer: Answer) -> None:
        error = answer.exception()
        if error is None:
            jax, transfers = answer.result()["meet"]
            meeting.settle((jax, transfers))
            return
        meeting.asked = False
        leader = work.request.attempt.members[0]
        log.warning("coordinator_not_prepared", attempt=work.key, slice=leader, cause=repr(error))
        for life in work.request.attempt.members:
            holding = self._holdings.get(life)
            waiting = holding.attempts.get(work.key) if holding is not None else None
            if waiting is not None and any(task.envelope is None and task.ended is None for task in waiting.tasks):
                detail = f"the first host of {leader} could not be prepared: {words(error)}"
                self._session.post(EffectFailed(life, Effect.LAUNCH, detail))

    def _prepare(self, holding: Holding, work: Work, task: HostTask) -> None:
        agent = holding.agents[task.rank]
        if agent.end is not None:
            self._endings.end(holding, work, task, outcomes.lost("its host was lost before it started"))
            return
        task.preparing = True
        ref = agent.actor.prepare.remote(work.key, False)  # noqa: FBT003 - travels by position
        self._session.when_done(ref, partial(self._prepared, holding, work, task))

    def _prepared(self, holding: Holding, work: Work, task: HostTask, answer: Answer) -> None:
        task.preparing = False
        error = answer.exception()
        if error is None:
            task.prepared = True
            agent = holding.agents[task.rank]
            agent.failing_since = None
            answered = answer.result()
            agent.ports = {name: answered[name] for name in ("door", "alive")}
            self._submit(holding, work, task)
        elif holding.held and task.ended is None:
            log.warning(
                "host_not_prepared", slice=holding.slice_id, rank=task.rank, attempt=work.key, cause=repr(error)
            )
            detail = f"host {task.rank} could not be prepared: {words(error)}"
            if not self._endings.unfit(holding.agents[task.rank], detail):
                self._session.post(EffectFailed(holding.slice_id, Effect.LAUNCH, detail))

    def _submit(self, holding: Holding, work: Work, task: HostTask) -> None:
        """Submit the task if everything it needs is there."""
        meeting = self._meetings.get(work.key)
        ready = task.prepared and meeting is not None and meeting.addresses is not None
        if not ready or task.envelope is not None or task.ended is not None or not holding.held:
            return
        if work.stopping:
            self._endings.end(holding, work, task, outcomes.stopped())
            return
        assert meeting is not None
        assert meeting.addresses is not None
        fleet = self._session.fleet
        try:
            task.envelope, task.value = submit(
                self._shipped.run_host,
                fleet,
                holding,
                work,
                task=task,
                addresses=meeting.addresses,
                data=meeting.share(work.request.attempt.work.payload.data),
            )
        except Exception as error:
            log.exception("task_not_submitted", slice=holding.slice_id, rank=task.rank, attempt=work.key)
            self._endings.end(holding, work, task, outcomes.refused(f"Ray does not take its task: {words(error)}"))
            return
        self._session.when_done(task.envelope, partial(self._endings.ended, holding, work, task))
        ref = holding.agents[task.rank].actor.wait_started.remote(work.key)
        self._session.when_done(ref, partial(self._started, holding, work, task))

    def _started(self, holding: Holding, work: Work, task: HostTask, answer: Answer) -> None:
        if answer.exception() is None and task.started is None and task.ended is None:
            task.started = ProcessStarted(holding.slice_id, task.rank, work.key)
            self._session.post(task.started)

    # Being told.

    def notify(self, holding: Holding, request: Notify) -> None:
        """Pass on that the work is to stop, and tell when every host that answers knows."""
        if request.attempt_key is None or not holding.held:
            return
        work = holding.attempts.get(request.attempt_key)
        if work is not None:
            work.told = True
        unaware = {agent.rank for agent in holding.agents if agent.serves}
        for agent in holding.agents:
            if agent.rank in unaware:
                ref = agent.actor.notify.remote(request.attempt_key, request.deadline_epoch_s)
                self._session.when_done(ref, partial(self._notified, agent, request, unaware))

    def _notified(self, agent: AgentHandle, request: Notify, unaware: set[int], answer: Answer) -> None:
        error = answer.exception()
        if error is not None and agent.serves:
            log.warning("host_not_notified", slice=agent.slice_id, rank=agent.rank, cause=repr(error))
            detail = f"host {agent.rank} could not be told: {words(error)}"
            self._session.post(EffectFailed(agent.slice_id, Effect.NOTIFY, detail))
            return
        unaware.discard(agent.rank)
        if not unaware:
            assert request.attempt_key is not None
            self._session.post(Notified(agent.slice_id, request.attempt_key, request.deadline_epoch_s))
