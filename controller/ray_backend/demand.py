"""Demand: have an autoscaler that starts hosts by whole slices bring the slices that wait, no more and no fewer.

KubeRay's autoscaler takes the nodes to launch, adds those that there are, divides by the hosts of a replica and rounds
down: the head group of a slice, for which other autoscalers bring a slice, brings nothing there, and the autoscaler
believes that something is on its way. So on KubeRay a head group waits only where a head is free, and slices are asked
for by groups of their own, in which nothing runs:

* a *new* slice by as many bundles as it has hosts, each with its chips and the head resource. The autoscaler expects
  that resource of every host of this kind of slice, and of no other; by a condition on the worker id no host that is
  there is counted or taken.
* Beside these, slices that are *coming* by bundles with chips alone, so that the autoscaler counts what is on its way,
  joined or not, for them and not for the new ones.

Both are there only while something is missing. Once the autoscaler has asked for a slice it stays asked for, whoever
starts its hosts, and demand that stayed would bring another one whenever a host is replaced. Where a slice was on its
way and is not any more, KubeRay's operator gets some time to make it anew by itself. Hosts that the autoscaler rounded
off, whoever asked for them, it waits for, for ten minutes and more: a *filler* of as many bundles is for them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple, TypeGuard

import structlog
from ray.util.placement_group import PlacementGroup

from sliceform.controller.model.events import Node
from sliceform.controller.model.shapes import SliceShape, TpuSlice
from sliceform.controller.ray_backend import groups, private
from sliceform.controller.ray_backend.failures import words
from sliceform.controller.ray_backend.hold import Holds
from sliceform.controller.ray_backend.incoming import Incoming
from sliceform.controller.ray_backend.lives import Holding
from sliceform.controller.ray_backend.session import Answer, Session

log = structlog.get_logger(__name__)

#: How often to look, seconds: while something waits, and while nothing does.
_LOOK_S = 1.0
_REST_S = 5.0
#: How often to look whether the autoscaler is KubeRay's, if it was not, seconds.
_LOOK_FOR_IT_S = 10.0
#: How long KubeRay's autoscaler may take to tell something for the first time, until it counts as one of the first
#: version, which brings a slice for its head, seconds.
_FIRST_S = 30.0
#: How long a reservation may wait for a slice that is there before another one is asked for, seconds.
_FREE_S = 1.0
#: How long what was on its way and is gone is left to KubeRay's operator, seconds.
HEAL_S = 30.0
#: Of the nodes that it wants, Ray's autoscaler asks for so many at once, and rounds down what it asks for.
MOST_AT_ONCE = 10


#: In how many steps the autoscaler has done what it can about a group that asks: one may have begun before.
_ANSWERS = 2


class Standing(NamedTuple):
    """How it stands with the demand of a fleet."""

    #: Groups that ask for a slice, and how many of these no worker group can meet.
    new: int
    refused: int
    #: Slices that are on their way or free, and hosts that the autoscaler waits for and nobody makes.
    coming: int
    stray: int
    #: Slices that are left to KubeRay's operator.
    healing: int
    #: Since when the autoscaler has told nothing new, seconds.
    silent_s: float


def has_to_be_asked_for(shape: SliceShape) -> TypeGuard[TpuSlice]:
    """Whether there are autoscalers that bring no such slice for its reservation: one of several TPU hosts."""
    return isinstance(shape, TpuSlice) and shape.hosts > 1


class Demands:
    """Everything here runs on the I/O thread, but for `soon`."""

    def __init__(
        self,
        session: Session,
        shape: TpuSlice,
        nodes: Callable[[], Mapping[str, Node]],
        holdings: Mapping[str, Holding],
        claim: Callable[[Holding], None],
    ) -> None:
        """Take the slices' shape, the node table, the lives, and what looks after the head group of one that waits."""
        self._session = session
        self._nodes = nodes
        self._holdings = holdings
        self._claim = claim
        self._shape = shape
        self._incoming = Incoming(shape)
        self._holds = Holds(self._name)
        #: Since when each reservation waits, and when slices were found gone, monotonic seconds.
        self._since: dict[str, float] = {}
        self._gone: list[float] = []
        #: The groups that ask, by kind, and what those of a kind were made for.
        self._asked: dict[str, list[PlacementGroup]] = {"new": [], "coming": [], "filler": []}
        self._like: dict[str, object] = dict.fromkeys(self._asked)
        self._made = 0
        #: Steps that the autoscaler has made since a slice was asked for.
        self._answers: set[int] = set()
        self._begun = time.monotonic()
        self._looked = -math.inf
        self._autoscaler: private.Autoscaler | None = None
        #: When the autoscaler was first seen to have made its newest step.
        self._stepped = 0.0
        self._ends = self._due = False
        #: How it stands; None while slices need not be asked for. Any thread may read it.
        self.standing: Standing | None = None

    def start(self) -> None:
        """Look now and again."""
        self._session.io.put(self._again)

    def soon(self) -> None:
        """Look as soon as the thread is free, besides the regular looks."""
        if not self._due:
            self._due = True
            self._session.io.put(self.review)

    def ask_whether_by_replica(self) -> bool:
        """Say whether slices have to be asked for here, and head groups only where a head is free; asks the GCS."""
        self._ask_autoscaler()
        told = self._autoscaler
        return told is not None and told.by_replica and bool(told.seen or time.monotonic() - self._begun < _FIRST_S)

    def close(self) -> None:
        """Withdraw everything."""
        self._ends = True
        self._adjust(0, 0)
        self._holds.adjust(())

    def review(self) -> None:
        """Look at once; what cannot be read now is looked at again."""
        self._due = False
        try:
            self._session.check()
            self._review()
        except Exception as error:  # noqa: BLE001 - whatever Ray raises, it is looked again
            log.warning("demand_unknown", fleet=self._session.fleet.label, cause=words(error))

    def _review(self) -> None:
        """Compare what waits with what is on its way, and ask for what is missing."""
        if self._ends or not self.ask_whether_by_replica():
            return
        # In this order: a claim that was placed before the heads were read is seen as ours afterwards.
        nodes, free = self._nodes(), private.available_resources()
        for holding in self._waiting():
            self._claim(holding)
        assert self._autoscaler is not None
        if not self._autoscaler.seen:
            return
        before = self._incoming.coming
        now = time.monotonic()
        self._incoming.look(now, nodes, free, self._holdings.values(), self._autoscaler)
        coming = self._incoming.coming
        self._gone += [now] * self._incoming.gone
        if not self._asked["new"]:
            # Nobody was asked for those that have come up.
            del self._gone[: max(0, coming - before)]
        self._gone = [at for at in self._gone if now - at < HEAL_S]
        waiting = self._waiting()
        self._since = {life.slice_id: self._since.get(life.slice_id, now) for life in waiting}
        ripe = sum(now - since >= _FREE_S for since in self._since.values())
        new = max(0, min(ripe, len(waiting) - coming - len(self._gone), self._room()))
        self._note_answer(self._autoscaler)
        self._adjust(new, coming if new else 0)
        self._holds.adjust(self._incoming.unfinished)
        self.standing = Standing(
            new=new,
            refused=sum(group.id.hex() in self._autoscaler.infeasible for group in self._asked["new"]),
            coming=coming,
            stray=self._incoming.stray,
            healing=len(self._gone),
            silent_s=now - self._stepped,
        )

    def _note_answer(self, told: private.Autoscaler) -> None:
        """See whether the autoscaler has met what is asked for, and nothing has come up for it."""
        asked = self._asked["new"]
        if not asked or any(group.id.hex() in told.infeasible for group in asked):
            self._answers.clear()
            return
        self._answers.add(told.seen)
        if len(self._answers) > _ANSWERS and not self._incoming.coming:
            self._incoming.own()

    def _room(self) -> int:
        """Return how many slices the autoscaler can ask for at once, besides what it has asked for."""
        requested = self._incoming.requested
        return max(not requested, (MOST_AT_ONCE - requested) // self._shape.hosts)

    def _waiting(self) -> list[Holding]:
        return [holding for holding in self._holdings.values() if holding.waits]

    def _again(self) -> None:
        self.review()
        self._session.io.put(self._again, _LOOK_S if self._waiting() else _REST_S)

    def _ask_autoscaler(self) -> None:
        """Read what it told last, not more often than needed; where there was none there may be one later."""
        now = time.monotonic()
        every_s = _LOOK_S / 2 if self._autoscaler is not None and self._autoscaler.by_replica else _LOOK_FOR_IT_S
        if now - self._looked >= every_s:
            self._looked = now
            before, self._autoscaler = self._autoscaler, private.autoscaler()
            if before is None or self._autoscaler is None or before.seen != self._autoscaler.seen:
                self._stepped = now

    def _adjust(self, new: int, coming: int) -> None:
        """See that there are as many groups of each kind; what changes is first withdrawn, then made."""
        kept_from, stray = self._incoming.kept_from, self._incoming.stray
        wanted = {"coming": (coming, kept_from), "new": (new, None), "filler": (min(new, stray, 1), stray)}
        for kind, (count, like) in wanted.items():
            asked = self._asked[kind]
            while asked and (len(asked) > count or self._like[kind] != like):
                groups.remove(asked.pop())
            self._like[kind] = like
        for kind, (count, _) in wanted.items():
            while len(self._asked[kind]) < count:
                self._make(kind)

    def _make(self, kind: str) -> None:
        shape, incoming = self._shape, self._incoming
        self._made += 1
        name = self._name(f"demand/{self._made}")
        if kind == "coming":
            group = groups.coming_slice_group(name, shape, incoming.kept_from)
        else:
            group = groups.new_hosts_group(name, shape, shape.hosts if kind == "new" else incoming.stray)
        self._asked[kind].append(group)
        self._session.when_done(group.ready(), partial(self._over, kind, group))
        log.info("hosts_asked_for", fleet=self._session.fleet.label, kind=kind, group=name)

    def _over(self, kind: str, group: PlacementGroup, answer: Answer) -> None:
        """Let go of hosts that Ray gave to a group that only counts them, and of a group that somebody removed."""
        answer.exception()
        if group in self._asked[kind]:
            self._asked[kind].remove(group)
            groups.remove(group)

    def _name(self, part: str) -> str:
        fleet = self._session.fleet
        return f"sliceform/{fleet.label}/{fleet.incarnation}/{part}"
