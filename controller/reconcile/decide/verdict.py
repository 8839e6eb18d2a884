"""How an attempt of which nothing runs any more has ended: whom that goes back to, and whether it is certain.

Pure. An outcome is decided from what was observed, never from the text of a message.
"""

from __future__ import annotations

from sliceform.controller.model.events import Outcome, OutcomeKind
from sliceform.controller.model.settings import Settings
from sliceform.controller.reconcile.decide.losses import suspects
from sliceform.controller.reconcile.decide.run import Attempt, Departure, Ended, RunRecord, Verdict


def settled(attempt: Attempt, *, now: float, settings: Settings) -> bool:
    """Whether what an attempt is charged to cannot change any more; `now` is loop time."""
    doubted_at = attempt.doubted_at
    return doubted_at is None or now - doubted_at >= verdict_s(settings) or not suspects(attempt)


def verdict_s(settings: Settings) -> float:
    """Return how long after an end without an answer the death of its node may still show, seconds."""
    return min(settings.verdict_s, 2 * settings.nodes_every_s)


def classify(attempt: Attempt, *, cancelled: bool) -> Verdict:
    """Say how an attempt that is over has ended, and which host that goes back to.

    What came first and was not asked for leads. A slice that was lost goes before the ends of processes, also those
    that were seen earlier: a peer's connection breaks long before a loss shows.
    """
    if attempt.succeeded:
        return Verdict(Ended.SUCCEEDED, "every host returned")
    if cancelled:
        return Verdict(Ended.CANCELLED, "cancelled")
    life = _first_loss(attempt)
    culprit = _first_end(attempt)
    if life is None and culprit is None and attempt.superseded:
        return Verdict(Ended.SUPERSEDED, attempt.superseded)
    if life is None and culprit is None:
        life = next(iter(attempt.departures), None)
    if life is not None:
        left = attempt.departures[life]
        return Verdict(_ENDS[left.departure], f"{life}: {left.detail}", left.host)
    if culprit is None:
        host = attempt.host(next(iter(attempt.outcomes), (0, 0)))
        return Verdict(Ended.FAILED, f"its processes were stopped, on {host} first", host)
    outcome, host = attempt.outcomes[culprit], attempt.host(culprit)
    ended = Ended.PREEMPTED if outcome.kind is OutcomeKind.LOST else Ended.FAILED
    return Verdict(ended, f"rank {attempt.rank(culprit)} ({host}): {outcome.detail}", host, outcome)


def _first_loss(attempt: Attempt) -> str | None:
    """Return the slice that was the first to leave without being asked to.

    An agent that dies once something was asked to stop may do so for that; a node or a notice never does.
    """
    asked = bool(attempt.superseded)
    for life, left in attempt.departures.items():
        if left.departure is Departure.PREEMPTED or (left.departure is Departure.FAILED and not asked):
            return life
        asked = True
    return None


def _first_end(attempt: Attempt) -> tuple[int, int] | None:
    """Return the host whose process was the first to end without being asked to, other than well.

    The word that a process died takes longer than what its peers raise for it, by whatever class their collective
    raises: so it goes before them. One that was lost or whose connection to a peer broke says that something ended
    elsewhere: it goes after all others.
    """
    ends = [key for key in attempt.unasked if attempt.outcomes[key].kind in _OWN_ENDS | {OutcomeKind.LOST}]
    return min(ends, key=lambda key: _distance(attempt.outcomes[key]), default=None)


def _distance(outcome: Outcome) -> int:
    """Return how far an end is likely to be from what caused all others."""
    if outcome.kind is OutcomeKind.CRASHED:
        return 0
    return 2 if outcome.kind is OutcomeKind.LOST or "builtins.ConnectionError" in outcome.types else 1


def exempted(run: RunRecord, attempt: Attempt, verdict: Verdict) -> bool | None:
    """Say what the user's own rules make of a failed attempt: True = try again, False = never, None = no rule."""
    ends = [attempt.outcomes[key] for key in attempt.unasked]
    if any(_matches(end, run.options.never_retry_on) for end in ends if end.kind in _OWN_ENDS):
        return False
    # What follows the end that leads may be its consequence.
    leads = verdict.outcome
    return True if leads is not None and _matches(leads, run.options.retry_on) else None


def _matches(outcome: Outcome, rules: frozenset[int | str]) -> bool:
    return outcome.exit_code in rules or not rules.isdisjoint(outcome.types)


#: Ends that the user's own code brought about.
_OWN_ENDS = frozenset({OutcomeKind.RAISED, OutcomeKind.REFUSED, OutcomeKind.CRASHED})
_ENDS = {
    Departure.PREEMPTED: Ended.PREEMPTED,
    Departure.FAILED: Ended.FAILED,
    Departure.TAKEN: Ended.SUPERSEDED,
}
