"""What must hold of a fleet after every tick, whatever is done to it, and the times that such fleets live by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sliceform.controller.api.controller import SliceController
from sliceform.states import Change, Reason, check_records

#: Fields of `Settings`: everything comes to its end within a minute or two.
SETTINGS = {
    "placed_s": 60.0,
    "settle_s": 5.0,
    "surplus_s": 20.0,
    "scale_up_after_s": 2.0,
    "avoid_lost_s": 30.0,
    "quarantine_s": 60.0,
    "backoff_max_s": 10.0,
    "drain_grace_s": 5.0,
    "verdict_s": 5.0,
    "history_limit": 1_000_000,
}
#: Fields of `SimTimings`.
TIMINGS = {"work_s": 6.0, "jitter": 0.3, "whim": 0.5}

#: Triggers of a step that takes something away.
TAKES_AWAY = frozenset({"preempt", "expire", "drain"})
#: Causes of such a step which need no look at the whole node table: somebody said so (the host, its agent, its process,
#: the cluster of this one group), a person asked, or it follows from an earlier such step.
DIRECT = frozenset(
    {
        Reason.AGENT_DIED,
        Reason.AGENT_FAILED,
        Reason.CLOSED,
        Reason.GRACE_OVER,
        Reason.GROUP_LOST,
        Reason.HOST_LOST_TOGETHER,
        Reason.LOST,
        Reason.NODE_DIED,
        Reason.OPERATOR,
        Reason.PLACE_AVOIDED,
        Reason.PLACE_REFUSED,
        Reason.PREEMPTION_NOTICE,
        Reason.PROCESS_LOST,
        Reason.WORK_GONE,
        Reason.WRONG_DEVICES,
        Reason.WRONG_NODE,
    }
)


def wrong(fleet: SliceController, changes: Sequence[Change], *, exclusive_nodes: bool = True) -> Iterator[str]:
    """Name what does not hold after a tick that made these changes.

    Not whether the tables allow them, which a replay of the whole history tells. `exclusive_nodes` says that a node
    serves one host only.
    """
    known = fleet._ledger.fleet
    for change in changes:
        if change.trigger in TAKES_AWAY:
            if known.blind and change.reason not in DIRECT:
                yield f"taken away while nothing was seen: {change}"
            if change.source == "running" and change.reason in {Reason.SCALE_DOWN, Reason.SURPLUS}:
                yield f"taken from the run that uses it: {change}"
    if any(change.trigger for change in changes):
        yield from check_records((life.record for life in known.lives.values()), exclusive_nodes=exclusive_nodes)
    told = {change.key.partition("/")[0] for change in changes}
    for run in fleet.status().runs:
        if run.id not in told:
            continue
        if run.state == "succeeded" and set(run.attempts[-1].hosts) != {"returned"}:
            yield f"{run.id} succeeded, but its hosts ended {run.attempts[-1].hosts}"
        ends = [attempt.outcome for attempt in run.attempts]
        charged = (run.preemptions, run.failures)
        if not run.attempts_forgotten and charged != (ends.count("preempted"), ends.count("failed")):
            yield f"{run.id} ended {ends}, and is charged {charged[0]} preemptions and {charged[1]} failures"
