"""What a transition may ask the outside world to do."""

from enum import StrEnum


class Effect(StrEnum):
    """A request to act, put into an outbox when its transition is committed.

    Effects are idempotent: asking twice for the same effect of the same life does no more than
    asking once. Their outcome is observed later, and never raised through the machine.
    """

    #: Claim the capacity: the head group of a TPU slice, the host group of a GPU or CPU slice.
    RESERVE = "reserve"
    #: Create the host group pinned to the claimed slice, and an agent in each of its bundles.
    ASSEMBLE = "assemble"
    #: Start the function of the run on every host.
    LAUNCH = "launch"
    #: Tell the work, if anything still answers, to write its checkpoint and stop.
    NOTIFY = "notify"
    #: End the processes of an attempt, by force if need be; asked for by a run, not by a row of a table.
    STOP = "stop"
    #: Stop the work by the deadline, stop the agents and remove the groups.
    RELEASE = "release"
