"""Carry runs through their attempts: start them on their slices, see how they go, end them, start them again."""

from __future__ import annotations

import bisect
import random

from sliceform.controller.model.effects import AttemptSpec, Notify, Stop
from sliceform.controller.model.events import HostDied, ProcessEnded, ProcessGone
from sliceform.controller.reconcile.decide.fence import Clear
from sliceform.controller.reconcile.decide.run import Attempt, Ended, RunRecord, Verdict, exempted, within_budget
from sliceform.controller.reconcile.decide.step import EndRun, GrowRun, StartAttempt
from sliceform.controller.reconcile.decide.sync import FOREVER, earliest_notice
from sliceform.controller.reconcile.decide.verdict import Oversight, dead_suspects, next_look, oversee, verdict_s
from sliceform.controller.reconcile.ledger import Ledger
from sliceform.states.reasons import Reason
from sliceform.states.slices import SliceState

#: Deadlines that differ by less are the same, seconds.
_SAME_S = 0.001


class Conductor:
    """Keeps the books of all runs; used by the loop's thread alone."""

    def __init__(self, ledger: Ledger, seed: int) -> None:
        """Start without runs; `seed` is for the jitter of delays."""
        self._ledger = ledger
        self._rng = random.Random(seed)

    def submit(self, run: RunRecord, told: str) -> None:
        """Take a run in: it waits for slices from now on."""
        fleet = self._ledger.fleet
        run.submitted_at = run.waiting_since = fleet.now
        run.sizes = run.options.sizes or fleet.desired.sizes
        bisect.insort(fleet.runs, run, key=lambda other: -other.options.priority)
        self._ledger.note_run(run, Reason.RUN_SUBMITTED, told)

    def end(self, decision: EndRun) -> None:
        """Cancel a run that has waited or gone on for too long."""
        run = next((run for run in self._ledger.fleet.runs if run.id == decision.run_id), None)
        if run is not None:
            self.cancel(run, self._ledger.settings.cancel_grace_s, decision.detail)

    def cancel(self, run: RunRecord, grace_s: float, detail: str = "") -> None:
        """Begin to cancel a run; its processes have `grace_s` seconds from now, asked again only ever less.

        `detail` is why, if nobody asked for it.
        """
        by = self._ledger.fleet.now + grace_s
        if run.ended is not None or (run.cancel_by is not None and run.cancel_by <= by):
            return
        run.cancel_by, run.cancel_detail = by, run.cancel_detail or detail
        if run.active is None:
            self._finish(run, Ended.CANCELLED, detail or "cancelled while it waited")
        elif run.active.stopped:
            self._stop(run, run.active)

    def start(self, start: StartAttempt) -> None:
        """Make the attempt that the `start` steps of its slices belong to."""
        ledger = self._ledger
        fleet = ledger.fleet
        run = next(run for run in fleet.runs if run.id == start.run_id)
        number = run.tries + 1
        last = run.attempts[-1] if run.attempts else None
        spec = AttemptSpec(
            key=f"{run.id}/{number}",
            run_id=run.id,
            number=number,
            members=start.members,
            hosts_per_slice=ledger.shape.hosts,
            work=run.work,
            env=run.options.env,
            runtime_env=run.options.runtime_env,
            previous=None if last is None else f"{last.ended}: {last.detail}",
            jax_shutdown_s=ledger.settings.jax_shutdown_s,
        )
        lives = [fleet.lives[member] for member in start.members]
        nodes = tuple((host.node_id, host.address) for life in lives for host in life.view.hosts)
        attempt = Attempt(spec, fleet.epoch, nodes=nodes)
        run.begin(attempt)
        ledger.attempts[spec.key] = attempt
        ledger.record_attempt(attempt)
        for life in lives:
            life.record.attempt = spec.key
            life.over = life.stop_by = None
            life.view.outcomes.clear()
        run.grown_to = None
        ledger.note_run(run, Reason.ATTEMPT_STARTED, f"attempt {number} on {', '.join(start.members)}", "running")

    def grow(self, decision: GrowRun) -> None:
        """Ask the work of a run to save and stop, so that its next attempt starts on more slices."""
        ledger, fleet = self._ledger, self._ledger.fleet
        run = next(run for run in fleet.runs if run.id == decision.run_id)
        attempt = run.attempts[-1]
        grace_s = ledger.settings.drain_grace_s
        attempt.superseded = f"to grow from {len(attempt.spec.members)} to {decision.size} slices"
        attempt.stop_at = fleet.now + grace_s
        attempt.deadline = fleet.epoch + grace_s
        run.grown_to = decision.size
        ledger.note_run(
            run, Reason.ATTEMPT_SUPERSEDED, f"attempt {attempt.spec.number} {attempt.superseded}", "running"
        )
        self._tell(attempt)

    def ended(self, event: ProcessEnded) -> None:
        """Take in how one host's process ended; answers for attempts that are over are dropped."""
        attempt = self._ledger.attempts.get(event.attempt)
        if attempt is not None and event.slice_id in attempt.spec.members:
            attempt.record(event.slice_id, event.rank, event.outcome)

    def gone(self, event: ProcessGone) -> None:
        """Take in that nothing of an attempt is left on a host, also when the slice itself is long gone."""
        attempt = self._ledger.attempts.get(event.attempt)
        if attempt is not None and event.slice_id in attempt.spec.members:
            attempt.clear.setdefault(attempt.rank_of(event.slice_id, event.rank), Clear.SEEN_GONE)

    def died(self, event: HostDied) -> None:
        """Take in that a host died as a whole: whatever attempt was on it, nothing of it is left there."""
        for run in self._ledger.fleet.runs:
            attempt = run.active
            if attempt is not None and event.slice_id in attempt.spec.members:
                rank = attempt.rank_of(event.slice_id, event.rank)
                if rank not in attempt.clear:
                    self._clear(run, attempt, rank, Clear.HOST_DIED)

    def _clear(self, run: RunRecord, attempt: Attempt, rank: int, how: Clear) -> None:
        """Note how a host that does not say so itself came to be clear of an attempt."""
        attempt.clear[rank] = how
        slice_rank, host_rank = divmod(rank, attempt.spec.hosts_per_slice)
        reason = Reason.HOST_DIED if how is Clear.HOST_DIED else Reason.FENCED_BY_TIME
        detail = f"attempt {attempt.spec.number}: {attempt.spec.members[slice_rank]}/{host_rank} {how}"
        self._ledger.note_run(run, reason, detail, "running")

    def oversee(self) -> tuple[float, bool]:
        """See how every attempt goes on.

        Returns:
            The loop time at which to look again though nothing happens, and whether any attempt ended.

        """
        due, ended = FOREVER, False
        for run in list(self._ledger.fleet.runs):
            if not run.attempts:
                continue  # it only waits, and there may be thousands
            attempt = run.active
            if attempt is not None:
                self._oversee(run, attempt)
                due = min(due, next_look(attempt))
                ended = ended or attempt.ended is not None
            if run.not_before > self._ledger.fleet.now:
                due = min(due, run.not_before)
            self._review(run)
        return due, ended

    def _oversee(self, run: RunRecord, attempt: Attempt) -> None:
        ledger, fleet = self._ledger, self._ledger.fleet
        nodes = {} if fleet.blind else fleet.nodes
        seen = oversee(run, attempt, fleet.lives, nodes, now=fleet.now, epoch=fleet.epoch, settings=ledger.settings)
        deadline = min((time for time in (attempt.deadline, self._deadline(run, attempt, seen)) if time), default=None)
        if attempt.told != seen.departures.keys() or deadline != attempt.deadline:
            attempt.deadline = deadline
            attempt.told = frozenset(seen.departures)
            self._tell(attempt)
        attempt.departures.update(seen.departures)
        attempt.fences = dict(seen.fences)
        for rank, how in seen.fenced.items():
            self._clear(run, attempt, rank, how)
        attempt.cleared.update(seen.cleared)
        attempt.stop_at = seen.stop_at
        attempt.doubted_at = seen.doubted_at
        if seen.verdict is not None:
            self._end(run, attempt, seen.verdict)
        elif attempt.stop_at is not None and not attempt.stopped and fleet.now >= attempt.stop_at:
            attempt.stopped = True
            self._stop(run, attempt)

    def _review(self, run: RunRecord) -> None:
        """Charge a failure as a preemption after all, if the node that it was on has died meanwhile."""
        ledger, fleet = self._ledger, self._ledger.fleet
        for attempt in run.attempts:
            if not attempt.provisional:
                continue
            dead = [] if fleet.blind else dead_suspects(attempt, attempt.departures, fleet.nodes)
            if dead:
                run.failures -= 1
                run.preemptions += 1
                host = attempt.host(divmod(dead[0], attempt.spec.hosts_per_slice))
                attempt.verdict = Verdict(Ended.PREEMPTED, f"the node of rank {dead[0]} died", host)
                ledger.record_attempt(attempt)
                detail = f"attempt {attempt.spec.number} was preempted after all: {attempt.detail}"
                ledger.note_run(run, Reason.ATTEMPT_ENDED, detail, "running" if run.active else "waiting")
            elif attempt.doubted_at is not None and fleet.now - attempt.doubted_at < verdict_s(ledger.settings):
                continue
            attempt.provisional = False

    def _deadline(self, run: RunRecord, attempt: Attempt, seen: Oversight) -> float | None:
        """Return by when the work has to stop, epoch seconds: what the notices say, or sooner if we end it sooner."""
        fleet = self._ledger.fleet
        lives = [fleet.lives[member] for member in seen.departures if member in fleet.lives]
        notices = [notice for life in lives if (notice := earliest_notice(life)) is not None]
        deadlines = [notice.deadline_epoch_s for notice in notices if notice.deadline_epoch_s is not None]
        stop_at = seen.stop_at if seen.stop_at is not None and seen.stop_at != attempt.stop_at else FOREVER
        if run.cancel_by is None and fleet.now < stop_at < FOREVER:
            end = fleet.epoch + (stop_at - fleet.now)
            # The same moment comes back a little different when it goes through loop time.
            if end < min(deadlines, default=FOREVER) - _SAME_S:
                deadlines.append(end)
        return min(deadlines, default=None)

    def _tell(self, attempt: Attempt) -> None:
        """Tell the work on all slices to checkpoint and stop, with the earliest deadline."""
        ledger = self._ledger
        attempt.asked = True
        for member in attempt.spec.members:
            life = ledger.fleet.lives.get(member)
            if life is None or life.record.attempt != attempt.spec.key or life.record.lost:
                continue
            if life.record.state in {SliceState.RUNNING, SliceState.PREEMPTED}:
                ledger.outbox.put(Notify(member, attempt.spec.key, attempt.deadline), ledger.fleet.now)

    def _stop(self, run: RunRecord, attempt: Attempt) -> None:
        """End what is left of its work on all slices by force; what is drained already is hurried by `plan`."""
        ledger, now = self._ledger, self._ledger.fleet.now
        attempt.asked = True
        until = now if run.cancel_by is None else max(now, run.cancel_by)
        for member in attempt.spec.members:
            life = ledger.fleet.lives.get(member)
            if life is None or member in attempt.cleared or life.record.attempt != attempt.spec.key:
                continue
            life.stop_by = until
            if life.record.state in {SliceState.RUNNING, SliceState.PREEMPTED}:
                ledger.outbox.put(Stop(member, attempt.spec.key, until - now), now)

    def _end(self, run: RunRecord, attempt: Attempt, verdict: Verdict) -> None:
        """Close an attempt, charge the budget, and end the run or let it wait for its next attempt."""
        ledger, fleet = self._ledger, self._ledger.fleet
        ended, detail = verdict.ended, verdict.detail
        attempt.verdict, attempt.ended_epoch_s = verdict, fleet.epoch
        ledger.record_attempt(attempt)
        for member in attempt.spec.members:
            life = fleet.lives.get(member)
            if life is not None and life.record.attempt == attempt.spec.key:
                life.over = attempt.spec.key
                life.view.version += 1
        del ledger.attempts[attempt.spec.key]
        rule = exempted(run, attempt) if ended is Ended.FAILED else None
        attempt.provisional = ended is Ended.FAILED and rule is None and attempt.doubted_at is not None
        run.preemptions += ended is Ended.PREEMPTED or rule is True
        run.failures += ended is Ended.FAILED and rule is not True
        ledger.note_run(run, Reason.ATTEMPT_ENDED, f"attempt {attempt.spec.number} {ended}: {detail}", "running")
        if ended in {Ended.SUCCEEDED, Ended.CANCELLED}:
            self._finish(run, ended, (ended is Ended.CANCELLED and run.cancel_detail) or detail)
        elif run.cancel_by is not None:
            self._finish(run, Ended.CANCELLED, run.cancel_detail or detail)
        elif rule is False or not within_budget(run):
            self._finish(run, ended, detail)
        else:
            run.waiting_since = fleet.now
            run.not_before = fleet.now + self._pause(run, attempt, ended)

    def _pause(self, run: RunRecord, attempt: Attempt, ended: Ended) -> float:
        """Return how long the next attempt is to wait, seconds: longer with every attempt in a row that ended soon.

        After the first preemption it does not wait: that says nothing of what comes.
        """
        settings, fleet = self._ledger.settings, self._ledger.fleet
        if ended is Ended.SUPERSEDED:
            return 0.0
        soon = fleet.epoch - attempt.started_epoch_s < settings.backoff_max_s
        run.hasty = run.hasty + 1 if soon else 1
        doublings = run.hasty - 1 if ended is Ended.FAILED else run.hasty - 2
        if doublings < 0:
            return 0.0
        delay_s = min(settings.backoff_max_s, settings.backoff_initial_s * 2.0 ** min(doublings, 30))
        return delay_s * self._rng.uniform(0.5, 1.0)

    def _finish(self, run: RunRecord, ended: Ended, detail: str) -> None:
        run.ended, run.detail = ended, detail
        self._ledger.fleet.runs.remove(run)
        self._ledger.note_run(run, Reason.RUN_FINISHED, f"{ended}: {detail}", str(ended))
        run.on_end(run)
