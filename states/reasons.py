"""Why a record changed: a closed set of codes, apart from the free text of a change's detail."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Reason(StrEnum):
    """The cause of a change, as a code with a sentence (``Reason.X.doc``)."""

    doc: str

    def __new__(cls, value: str, doc: str) -> Self:
        """Make a member that is the plain code and carries its sentence."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.doc = doc
        return member

    # Coming into being.
    DESIRED = "desired", "The desired number of slices asks for it."
    REPLACEMENT = "replacement", "It takes the place of a slice that was lost."
    PLACED = "placed", "Its reservation is placed and its nodes are known."
    AGENTS_ANSWERED = "agents_answered", "Every agent answered with the expected node and devices."

    # Work.
    RUN_SUBMITTED = "run_submitted", "A run was handed in and waits for slices."
    RUN_STARTED = "run_started", "A run took the slice."
    RUN_ENDED = "run_ended", "The run's attempt ended and left the slice."
    RUN_FINISHED = "run_finished", "The run reached its final outcome."
    RUN_CANCELLED = "run_cancelled", "The run was cancelled by its owner."
    LIMIT_REACHED = "limit_reached", "The run has waited, or gone on, for longer than its options allow."
    ATTEMPT_STARTED = "attempt_started", "An attempt of a run began on its slices."
    ATTEMPT_ENDED = "attempt_ended", "An attempt of a run ended."
    ATTEMPT_SUPERSEDED = (
        "attempt_superseded",
        "An attempt was ended on purpose, to grow, shrink or make way; it charges no budget.",
    )
    PROCESS_ENDED = "process_ended", "A process of the attempt ended other than well, which ends it everywhere."
    PREEMPTED_AFTER_ALL = (
        "preempted_after_all",
        "What ended on the host looked like a failure and proved to be the loss of it.",
    )
    PROCESS_STARTED = "process_started", "The function's process is alive on the host."
    PROCESS_GONE = "process_gone", "The function's process is no longer on the host."
    HOST_DIED = "host_died", "A host of an ended attempt died as a whole; nothing of the attempt is left on it."
    FENCED_BY_TIME = (
        "fenced_by_time",
        "A host of an ended attempt was not heard for so long that its agent has ended what ran there.",
    )
    WORK_ENDED = "work_ended", "The first process of the work ended while the slice was preempted or draining."

    # Loss.
    PREEMPTION_NOTICE = "preemption_notice", "The host was told that it will be taken away."
    NODE_DIED = "node_died", "Ray reports the host's node dead."
    NODE_GONE = "node_gone", "The host's node is no longer in Ray's node table."
    AGENT_DIED = "agent_died", "The host's agent ended without being asked to."
    HOST_UNFIT = "host_unfit", "The host can neither be made ready for work nor freed of it, though its agent answers."
    PROCESS_LOST = "process_lost", "The function's process vanished without giving an outcome."
    GROUP_LOST = "group_lost", "A placement group or bundle of the slice was moved or removed."
    SILENT = "silent", "The host or its raylet has not been heard for too long."
    HOST_LOST_TOGETHER = "host_lost_together", "Another host of the same slice was lost."
    LOST = "lost", "It was lost without any grace."
    LOST_AFTER_NOTICE = "lost_after_notice", "A host that had been given notice is now gone."
    NOTICE_MERGED = "notice_merged", "A further notice arrived; the earlier deadline holds."
    NOTICE_WITHDRAWN = (
        "notice_withdrawn",
        "The notice was taken back; the slice is replaced anyway.",
    )

    # Not becoming ready.
    PLACE_REFUSED = "place_refused", "The reservation was refused."
    PLACE_AVOIDED = "place_avoided", "It was placed where nothing is to be placed now."
    BUDGET_SPENT = "budget_spent", "The time budget for this state is used up."
    AGENT_FAILED = "agent_failed", "An agent cannot be started."
    WRONG_DEVICES = "wrong_devices", "A host reports other devices than its shape promises."
    WRONG_NODE = "wrong_node", "An agent answered from another node than its bundle was placed on."

    # Going.
    SCALE_DOWN = "scale_down", "Fewer slices are desired than there are."
    SURPLUS = "surplus", "It is beyond the largest valid size that can be reached."
    OPERATOR = "operator", "A person asked for it to be drained."
    CLOSED = "closed", "The fleet is closing."
    WORK_GONE = "work_gone", "The work of the preempted slice has stopped."
    GRACE_OVER = "grace_over", "The grace after the notice is over."
    DRIVER_GONE = "driver_gone", "The driver that kept it ended without closing; Ray removed its groups."
    HURRIED = "hurried", "A later command left the work on a draining slice less time."
    GROUPS_REMOVED = "groups_removed", "Its placement groups are observed removed."

    # What a person ordered.
    SCALE_ORDERED = "scale_ordered", "A person asked for other sizes."
    DRAIN_ORDERED = "drain_ordered", "A person asked for the slice to be drained."
    CLOSE_ORDERED = "close_ordered", "A person asked for the fleet to be closed."
    AVOID_ORDERED = "avoid_ordered", "A person asked that nothing be reserved at a place."
    ALLOW_ORDERED = "allow_ordered", "A person asked that a place be used again."

    # What the controller met on its way.
    EFFECT_FAILED = "effect_failed", "Something that was asked for failed."
    QUARANTINED = "quarantined", "The place failed repeatedly and is avoided for a while."
    HELD_UP = "held_up", "What keeps it from being placed, as the cluster told it."
    STUCK = "stuck", "It cannot go on by itself; the detail says what holds it."
