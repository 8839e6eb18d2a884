"""What an exception of Ray's says about a host: its node died, its agent did, or it only cannot be reached.

By the exception's type where that tells. Only between the death of an actor's node and that of its process alone must
Ray's words decide; the node table corrects this soon where they do not tell.
"""

from __future__ import annotations

from typing import NamedTuple

from ray import exceptions

from sliceform.states.reasons import Reason

#: In Ray's words for an actor whose node died, and for one whose placement group was removed.
_NODE_WORDS = ("node has died", "node died", "node was terminated", "node is dead", "node failure")
_GROUP_WORDS = ("placement group", "removed")
#: Characters of a gist.
_LONGEST = 300


class Lost(NamedTuple):
    """A loss, and Ray's words for it."""

    reason: Reason
    detail: str


class Unreached(NamedTuple):
    """A call did not get through; nothing is known."""

    detail: str


def node_gone(detail: str) -> Lost:
    """Return the verdict that the node is dead."""
    return Lost(Reason.NODE_DIED, detail)


def blame(error: BaseException) -> Lost | Unreached:
    """Say what a failed call to an agent means."""
    detail = words(error)
    if isinstance(error, exceptions.ActorUnavailableError):
        return Unreached(detail)
    if isinstance(error, exceptions.NodeDiedError):
        return node_gone(detail)
    if isinstance(error, exceptions.ActorPlacementGroupRemoved | exceptions.TaskPlacementGroupRemoved):
        return Lost(Reason.GROUP_LOST, detail)
    if isinstance(error, exceptions.RayActorError | exceptions.ActorUnschedulableError):
        text = str(error).lower()
        if any(phrase in text for phrase in _NODE_WORDS):
            return node_gone(detail)
        if all(word in text for word in _GROUP_WORDS):
            return Lost(Reason.GROUP_LOST, detail)
        return Lost(Reason.AGENT_DIED, detail)
    return Unreached(detail)


def words(error: BaseException) -> str:
    """Return the gist of an exception of Ray's on one line: its first sentence, and the cause that a traceback ends in.

    What Ray goes on to say is advice, addresses and ids, which the record has or does not need.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    gist = lines[0].partition(". ")[0]
    if any(line.startswith("Traceback") for line in lines):
        gist = f"{gist}: {lines[-1]}"
    return gist if len(gist) <= _LONGEST else f"{gist[: _LONGEST - 3]}..."
