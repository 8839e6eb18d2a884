"""Attempts: prepare the hosts, agree on a coordinator, submit a task per host, report how each begins and ends.

Everything here runs on the I/O thread. What is asked of an agent is never waited for.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial

import ray
import structlog

from sliceform.controller.model.effects import Launch, Notify, Stop
from sliceform.controller.model.events import (
    EffectFailed,
    HostDied,
    Notified,
    Outcome,
    OutcomeKind,
    ProcessEnded,
    ProcessGone,
    ProcessStarted,
)
from sliceform.controller.ray_backend import outcomes
from sliceform.controller.ray_backend.agents import Agents, kill
from sliceform.controller.ray_backend.failures import blame, words
from sliceform.controller.ray_backend.fence import Fences, Host, Verdict
from sliceform.controller.ray_backend.host_task import submit
from sliceform.controller.ray_backend.lives import Agent, Holding, HostTask, Stage, Work
from sliceform.controller.ray_backend.rendezvous import Meeting
from sliceform.controller.ray_backend.session import Answer, Session
from sliceform.controller.ray_backend.shipped import Shipped
from sliceform.states.effects import Effect
from sliceform.states.reasons import Reason

log = structlog.get_logger(__name__)

#: How long a process that has given its answer may take to leave by itself, for the user's exit handlers, seconds.
_LEAVE_S = 5.0
#: How much longer than its grace a stop may take before the task is cancelled without the agent, seconds.
_STOP_MARGIN_S = 5.0


class Attempts:
    """Carries out `Launch`, `Notify` and `Stop`."""

    def __init__(
        self,
        session: Session,
        holdings: Mapping[str, Holding],
        agents: Agents,
        fences: Fences,
        shipped: Shipped,
    ) -> None:
        """Take what it works with; `holdings` are all lives, by id."""
        self._session = session
        self._holdings = holdings
        self._agents = agents
        self._fences = fences
        self._shipped = shipped
        self._meetings: dict[str, Meeting] = {}

    # Beginning.

    def launch(self, holding: Holding, request: Launch) -> None:
        """Run the attempt on every host of this slice, or say once more what has become of it."""
        key = request.attempt.key
        if not holding.held or not holding.agents:
            why = "the slice has no agents" if holding.held else "the slice is being released"
            self._session.post(EffectFailed(holding.life, Effect.LAUNCH, why))
            return
        work = holding.attempts.get(key)
        if work is None:
            self._prune(holding)
            tasks = tuple(HostTask(rank) for rank in range(request.shape.hosts))
            work = holding.attempts[key] = Work(request, tasks, stopping=key in holding.stopped)
        meeting = self._meeting(work)
        for task in work.tasks:
            if task.envelope is not None or task.ended is not None:
                self._tell_again(task)
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
        if work.request.attempt.members[0] == holding.life:
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
            place = answer.result()
            jax, transfers = place["ports"]
            meeting.settle((f"{place['address']}:{jax}", f"{place['address']}:{transfers}"))
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
            self._end(holding, work, task, outcomes.lost("its host was lost before it started"))
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
            log.warning("host_not_prepared", slice=holding.life, rank=task.rank, attempt=work.key, cause=repr(error))
            detail = f"host {task.rank} could not be prepared: {words(error)}"
            if not self._unfit(holding.agents[task.rank], detail):
                self._session.post(EffectFailed(holding.life, Effect.LAUNCH, detail))

    def _unfit(self, agent: Agent, detail: str) -> bool:
        """Give a host up that fails at this for longer than a host may take to become ready; return whether it does."""
        now = time.monotonic()
        if agent.failing_since is None:
            agent.failing_since = now
        if now - agent.failing_since < self._session.fleet.settings.placed_s:
            return False
        self._agents.lose(agent, Reason.HOST_UNFIT, detail)
        return True

    def _submit(self, holding: Holding, work: Work, task: HostTask) -> None:
        """Submit the task if everything it needs is there."""
        meeting = self._meetings.get(work.key)
        ready = task.prepared and meeting is not None and meeting.addresses is not None
        if not ready or task.envelope is not None or task.ended is not None or not holding.held:
            return
        if work.stopping:
            self._end(holding, work, task, outcomes.stopped())
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
            log.exception("task_not_submitted", slice=holding.life, rank=task.rank, attempt=work.key)
            self._end(holding, work, task, outcomes.refused(f"Ray does not take its task: {words(error)}"))
            return
        self._session.when_done(task.envelope, partial(self._ended, holding, work, task))
        ref = holding.agents[task.rank].actor.wait_started.remote(work.key)
        self._session.when_done(ref, partial(self._started, holding, work, task))

    def _started(self, holding: Holding, work: Work, task: HostTask, answer: Answer) -> None:
        if answer.exception() is None and task.started is None and task.ended is None:
            task.started = ProcessStarted(holding.life, task.rank, work.key)
            self._session.post(task.started)

    # Ending.

    def _ended(self, holding: Holding, work: Work, task: HostTask, answer: Answer) -> None:
        error = answer.exception()
        if error is None:
            if task.started is None:
                # So quick that its answer came before its agent saw it.
                task.started = ProcessStarted(holding.life, task.rank, work.key)
                self._session.post(task.started)
            self._end(holding, work, task, outcomes.from_envelope(answer.result(), task.value))
            return
        # What befell the task befell its value, too.
        self._session.disregard(task.value)
        releasing = holding.stage is not Stage.HELD
        outcome = outcomes.from_error(error, stopping=work.stopping, releasing=releasing)
        if outcomes.may_be_loss(error):
            if outcome.kind is OutcomeKind.CRASHED:
                agent = holding.agents[task.rank]
                self._agents.doubt(agent, partial(self._crashed, holding, work, task, outcome))
            else:
                self._died(holding, work, task, words(error))
            return
        self._end(holding, work, task, outcome)
        if outcome.kind is OutcomeKind.LOST and not releasing:
            verdict = blame(error)
            reason = getattr(verdict, "reason", Reason.NODE_DIED)
            self._agents.lose(holding.agents[task.rank], reason, outcome.detail)

    def _crashed(self, holding: Holding, work: Work, task: HostTask, outcome: Outcome, refused: bool) -> None:  # noqa: FBT001
        """Tell a process that died from one whose host did."""
        if not refused:
            self._died(holding, work, task, outcome.detail)
            return
        self._end(holding, work, task, outcomes.lost(outcome.detail))
        detail = f"its raylet refuses connections: {outcome.detail}"
        self._agents.lose(holding.agents[task.rank], Reason.NODE_DIED, detail)

    def _died(self, holding: Holding, work: Work, task: HostTask, detail: str) -> None:
        """Tell of a process that died; if it had been asked to stop by then, once its host knows which was first."""
        ours = work.stopping or not holding.held
        asked = ours or work.told
        if asked and task.unasked is None and holding.agents[task.rank].serves:
            task.died = detail
            self._clear(holding, work, task, 0.0 if ours else _LEAVE_S)
            return
        self._end(holding, work, task, outcomes.died(detail, unasked=task.unasked or not asked, ours=ours))

    def _end(self, holding: Holding, work: Work, task: HostTask, outcome: Outcome) -> None:
        if task.ended is not None:
            return
        task.ended = ProcessEnded(holding.life, task.rank, work.key, outcome)
        self._session.post(task.ended)
        if outcome.kind is not OutcomeKind.LOST and task.gone is None:
            leave_s = _LEAVE_S if outcome.kind is not OutcomeKind.STOPPED else 0.0
            self._clear(holding, work, task, leave_s)

    def _clear(self, holding: Holding, work: Work, task: HostTask, grace_s: float) -> None:
        """Let the agent see to it that nothing of the attempt is left on the host."""
        agent = holding.agents[task.rank]
        if agent.serves:
            ref = agent.actor.stop.remote(work.key, grace_s)
            self._session.when_done(ref, partial(self._cleared, holding, work, task))

    def _cleared(self, holding: Holding, work: Work, task: HostTask, answer: Answer) -> None:
        error = answer.exception()
        if error is not None:
            if task.died is not None:
                task.unasked = False
                self._died(holding, work, task, task.died)
            if holding.held:
                self._not_cleared(holding.agents[task.rank], work.key, error)
            return
        holding.agents[task.rank].failing_since = None
        task.unasked = answer.result()["unasked"]
        self._gone(work, task, ProcessGone(holding.life, task.rank, work.key))
        if task.died is not None:
            self._died(holding, work, task, task.died)
        elif not task.unasked:
            self._cancel(work, task)  # its process was killed or never came; now its reference must end, too

    def _gone(self, work: Work, task: HostTask, told: ProcessGone | HostDied) -> None:
        if task.gone is None:
            task.gone = told
            self._session.post(told)
            work.let_go()

    def clear(self, holding: Holding, attempt: str | None) -> None:
        """Find out of every host of a life that is given back when nothing of its work is left there.

        `attempt` may never have come this far.
        """
        if attempt is not None and attempt not in holding.attempts:
            for agent in holding.agents:
                self._session.post(ProcessGone(holding.life, agent.rank, attempt))
        for work in holding.attempts.values():
            work.stopping = True
            for task in work.tasks:
                if task.gone is None and task.envelope is None:
                    self._gone(work, task, ProcessGone(holding.life, task.rank, work.key))
                elif task.gone is None and not task.asked:
                    task.asked = True
                    self._ask_past_ray(holding, work, task)

    def tell_gone(self, holding: Holding) -> None:
        """Say once more which hosts are clear of what work."""
        for work in holding.attempts.values():
            for task in work.tasks:
                if task.gone is not None:
                    self._session.post(task.gone)

    def _ask_past_ray(self, holding: Holding, work: Work, task: HostTask) -> None:
        agent = holding.agents[task.rank]
        assert agent.up is not None
        assert agent.ports is not None
        host = Host(
            agent.up.node_id,
            agent.up.address,
            agent.ports["door"],
            agent.ports["alive"],
            self._agents.raylet(agent),
            "/".join((self._session.fleet.incarnation, f"{holding.life}-{task.rank}", work.key.replace("/", "-"))),
        )
        self._fences.ask(host, lambda verdict: self._session.io.put(partial(self._found, holding, work, task, verdict)))

    def _found(self, holding: Holding, work: Work, task: HostTask, verdict: Verdict) -> None:
        if verdict is Verdict.CLEAR:
            self._gone(work, task, ProcessGone(holding.life, task.rank, work.key))
        elif verdict is Verdict.DIED:
            self._gone(work, task, HostDied(holding.life, task.rank))
        agent = holding.agents[task.rank]
        if agent.closed:
            kill(agent)  # it was left alive so that it could answer

    def _cancel(self, work: Work, task: HostTask) -> None:
        if not task.running:
            return
        try:
            ray.cancel(task.envelope, force=True)
        except (ray.exceptions.RayError, ValueError, TypeError) as error:
            log.warning("task_not_cancelled", attempt=work.key, rank=task.rank, cause=repr(error))

    def _cancel_late(self, life: str, key: str, rank: int) -> None:
        holding = self._holdings.get(life)
        work = holding.attempts.get(key) if holding is not None else None
        if work is not None:
            self._cancel(work, work.tasks[rank])

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

    def _notified(self, agent: Agent, request: Notify, unaware: set[int], answer: Answer) -> None:
        error = answer.exception()
        if error is not None and agent.serves:
            log.warning("host_not_notified", slice=agent.life, rank=agent.rank, cause=repr(error))
            detail = f"host {agent.rank} could not be told: {words(error)}"
            self._session.post(EffectFailed(agent.life, Effect.NOTIFY, detail))
            return
        unaware.discard(agent.rank)
        if not unaware:
            assert request.attempt_key is not None
            self._session.post(Notified(agent.life, request.attempt_key, request.deadline_epoch_s))

    def stop(self, holding: Holding, request: Stop) -> None:
        """End the attempt on every host of this slice."""
        work = holding.attempts.get(request.attempt_key)
        if work is not None:
            self.wind_down(holding, work, request.grace_s)
            return
        holding.stopped.add(request.attempt_key)
        for agent in holding.agents:
            if agent.serves:
                ref = agent.actor.stop.remote(request.attempt_key, request.grace_s)
                self._session.when_done(ref, partial(self._nothing_left, agent, request.attempt_key))

    def wind_down(self, holding: Holding, work: Work, grace_s: float) -> None:
        """Ask, wait and force on every host; the tasks of hosts that do not answer are cancelled without them."""
        work.stopping = True
        for task in work.tasks:
            if task.gone is not None:
                self._tell_again(task)
                continue
            if task.envelope is None:
                self._end(holding, work, task, outcomes.stopped())
            self._clear(holding, work, task, grace_s)
            if task.running:
                # By name: what is over by then must not be kept for it.
                late = partial(self._cancel_late, holding.life, work.key, task.rank)
                self._session.io.put(late, grace_s + _STOP_MARGIN_S)

    def _nothing_left(self, agent: Agent, key: str, answer: Answer) -> None:
        error = answer.exception()
        if error is None:
            self._session.post(ProcessGone(agent.life, agent.rank, key))
        elif agent.serves:
            self._not_cleared(agent, key, error)

    def _not_cleared(self, agent: Agent, key: str, error: BaseException) -> None:
        log.warning("host_not_cleared", slice=agent.life, rank=agent.rank, attempt=key, cause=repr(error))
        if not self._unfit(agent, f"host {agent.rank} cannot be freed of {key}: {words(error)}"):
            self._session.post(EffectFailed(agent.life, Effect.STOP, f"host {agent.rank}: {words(error)}"))

    def _tell_again(self, task: HostTask) -> None:
        for event in (task.started, task.ended, task.gone):
            if event is not None:
                self._session.post(event)
