"""A backend that lies about nothing but loses, repeats, delays and refuses, from a seed.

Wraps any other backend. It never invents a fact: what it lets through was told by the backend inside, at most late, out
of order or twice; what it adds are failures to act or to observe, which are true where they come from.
"""

from __future__ import annotations

import heapq
import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import count
from typing import Any, NamedTuple, get_args

from sliceform.controller.errors import BackendError
from sliceform.controller.model.backend import Backend, Finding, FleetIdentity, Sink
from sliceform.controller.model.clock import Clock
from sliceform.controller.model.effects import EffectRequest, Reserve
from sliceform.controller.model.events import (
    EffectFailed,
    Event,
    HostNoticed,
    NodesSeen,
    NoticeWithdrawn,
    ObservationFailed,
    ProcessEnded,
    Refused,
    SliceEvent,
)


@dataclass(frozen=True, slots=True)
class Faults:
    """How likely each fault is, from 0.0 to 1.0, and how long what is late takes."""

    #: A request is answered with `EffectFailed` and not carried out; or carried out all the same.
    refuse: float = 0.0
    refuse_but_do: float = 0.0
    #: A reservation is `Refused` for good.
    refuse_place: float = 0.0
    #: A request disappears; is carried out twice.
    drop_request: float = 0.0
    repeat_request: float = 0.0
    #: An event disappears (but see `FaultyBackend`); comes late; comes now and once more later.
    lose: float = 0.0
    delay: float = 0.0
    repeat: float = 0.0
    #: The longest delay, seconds. What is late is overtaken by other events of its life.
    late_s: float = 5.0
    #: A read of the node table fails.
    fail_observation: float = 0.0
    #: A beat is not heard.
    lose_beat: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is not a probability."""
        for field in fields(self):
            value = getattr(self, field.name)
            if value < 0 or (field.name != "late_s" and value > 1):
                raise ValueError(f"{field.name} must be between 0 and 1, not {value}")


class Injected(NamedTuple):
    """One fault that was injected."""

    #: Time of the clock, seconds.
    at: float
    #: A field of `Faults`.
    fault: str
    #: The request or event that it hit.
    hit: EffectRequest | Event | None


#: Told once and by nobody else: a backend has to get these through, however late.
_NEVER_LOST = (ProcessEnded, HostNoticed, NoticeWithdrawn)


#: What can be kept back: the names of all events about a slice.
ANSWERS = frozenset(kind.__name__ for kind in get_args(SliceEvent))


class FaultyBackend:
    """Injects faults between a controller and the backend inside.

    Every answer that a backend gives again when asked again may be lost. The others (how a process ended, a notice and
    its end) may only be late or repeated.

    Args:
        inner: the backend that does the work.
        seed: decides which faults are injected.
        clock: the time by which events are late; by default that of `inner`.
        probabilities: fields of `Faults`, for example `lose=0.1`.

    """

    def __init__(self, inner: Backend, seed: int = 0, *, clock: Clock | None = None, **probabilities: float) -> None:
        found = clock or getattr(inner, "clock", None)
        if found is None:
            raise ValueError("give the clock by which events are to be late")
        self.inner = inner
        self.clock: Clock = found
        self.faults = Faults(**probabilities)
        #: All faults injected so far.
        self.log: list[Injected] = []
        self._rng = random.Random(seed)
        self._sink: Sink | None = None
        self._lock = threading.Lock()
        self._late: list[tuple[float, int, Event]] = []
        self._count = count()
        self._missed: frozenset[str] = frozenset()
        self._forgotten: set[str] = set()
        #: What is kept back, by slice: the names of events, and those that came since.
        self._back: dict[str, tuple[set[str], list[Event]]] = {}

    def inject(self, **probabilities: float) -> None:
        """Replace all probabilities; those not given are 0."""
        self.faults = Faults(**probabilities)

    def heal(self) -> None:
        """Inject nothing more, and give what was kept back; what is late already still comes."""
        self.faults = Faults()
        for slice_id in list(self._back):
            self.give(slice_id)

    def keep_back(self, slice_id: str, answer: str) -> None:
        """Keep an answer about a slice back until `give`, whenever it comes: one of `ANSWERS`, such as `Released`."""
        if answer not in ANSWERS:
            raise ValueError(f"there is no answer {answer!r}: keep back one of {', '.join(sorted(ANSWERS))}")
        with self._lock:
            self._back.setdefault(slice_id, (set(), []))[0].add(answer)

    def give(self, slice_id: str) -> None:
        """Let everything come that was kept back about a slice, in its order, and keep nothing more back."""
        with self._lock:
            _, events = self._back.pop(slice_id, (set(), []))
        for event in events:
            self._pass_on(event)

    @property
    def pending(self) -> int:
        """How many events are late and still to come."""
        return len(self._late)

    def open(self, fleet: FleetIdentity, sink: Sink) -> None:
        """Open the backend inside."""
        self._sink = sink
        self.inner.open(fleet, self)

    def submit(self, request: EffectRequest) -> None:
        """Pass a request on, or not, or twice.

        Raises:
            BackendError: it is about a life that was to be forgotten.

        """
        if request.slice_id in self._forgotten:
            raise BackendError(f"{request.slice_id} was forgotten, and is asked for {request.effect.value} after that")
        if isinstance(request, Reserve) and self._hit("refuse_place", request):
            self._pass_on(Refused(request.slice_id, "refused by an injected fault"))
        elif self._hit("refuse", request):
            self._pass_on(EffectFailed(request.slice_id, request.effect, "failed by an injected fault"))
        elif not self._hit("drop_request", request):
            if self._hit("refuse_but_do", request):
                detail = "said to have failed by an injected fault"
                self._pass_on(EffectFailed(request.slice_id, request.effect, detail))
            self.inner.submit(request)
            if self._hit("repeat_request", request):
                self.inner.submit(request)

    def forget(self, slice_id: str) -> None:
        """Pass it on.

        Raises:
            BackendError: it was forgotten before.

        """
        if slice_id in self._forgotten:
            raise BackendError(f"{slice_id} was forgotten before")
        self._forgotten.add(slice_id)
        self.inner.forget(slice_id)

    def poll(self) -> None:
        """Deliver what the backend inside has to tell, and what was late until now."""
        self.inner.poll()
        now = self.clock.monotonic()
        while True:
            with self._lock:
                if not self._late or self._late[0][0] > now:
                    return
                event = heapq.heappop(self._late)[2]
            self._pass_on(event)

    def explain(self, slice_id: str, place: str | None, avoid: Mapping[str, str]) -> tuple[Finding, ...]:
        """Pass it on."""
        return self.inner.explain(slice_id, place, avoid)

    def inquire(self, slice_id: str, place: str | None, avoid: Mapping[str, str]) -> None:
        """Pass it on."""
        self.inner.inquire(slice_id, place, avoid)

    def pack(
        self,
        fn: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        runtime_env: Mapping[str, Any] | None = None,
    ) -> Any:
        """Pass it on."""
        return self.inner.pack(fn, args, kwargs, runtime_env)

    def close(self) -> None:
        """Close the backend inside."""
        self.inner.close()
        with self._lock:
            self._late.clear()
        self._sink = None

    def post(self, event: Event) -> None:
        """Take an event from the backend inside, as its sink."""
        if isinstance(event, NodesSeen):
            self._nodes_seen(event)
        elif isinstance(event, ObservationFailed):
            self._pass_on(event)
        elif self._kept_back(event) or (not isinstance(event, _NEVER_LOST) and self._hit("lose", event)):
            return
        elif self._hit("delay", event):
            self._later(event)
        else:
            self._pass_on(event)
            if self._hit("repeat", event):
                self._later(event)

    def beat(self, slice_id: str, rank: int, *, raylet_ok: bool = True) -> None:
        """Take a beat from the backend inside, as its sink."""
        sink = self._sink
        if sink is not None and not (self.faults.lose_beat and self._hit("lose_beat", None)):
            sink.beat(slice_id, rank, raylet_ok=raylet_ok)

    def _nodes_seen(self, event: NodesSeen) -> None:
        """Node tables are read in order: one fails, or comes at once with all that was missed before."""
        changed = self._missed | event.changed
        if self._hit("fail_observation", event):
            self._missed = changed
            self._pass_on(ObservationFailed("failed by an injected fault"))
        else:
            self._missed = frozenset()
            self._pass_on(NodesSeen(event.nodes, changed))

    def _kept_back(self, event: SliceEvent) -> bool:
        if not self._back:
            return False
        with self._lock:
            answers, events = self._back.get(event.slice_id, (set(), []))
            if type(event).__name__ not in answers:
                return False
            events.append(event)
            return True

    def _hit(self, fault: str, what: EffectRequest | Event | None) -> bool:
        chance = getattr(self.faults, fault)
        if chance <= 0:
            return False
        with self._lock:
            if self._rng.random() >= chance:
                return False
            self.log.append(Injected(self.clock.monotonic(), fault, what))
            return True

    def _later(self, event: Event) -> None:
        with self._lock:
            due = self.clock.monotonic() + self._rng.uniform(0.0, self.faults.late_s)
            heapq.heappush(self._late, (due, next(self._count), event))

    def _pass_on(self, event: Event) -> None:
        sink = self._sink
        if sink is not None:
            sink.post(event)
