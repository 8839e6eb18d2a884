"""Everything that this package raises on purpose, in one tree.

    SliceformError                      (sliceform.states.errors)
    |- InvalidTransition                (sliceform.states.errors)
    |- TableError                       (sliceform.states.errors)
    |- ConfigurationError               also a ValueError: wrong arguments or settings
    |- ClusterError                     also a RuntimeError: the cluster cannot be used
    |  |- RayUnreachableError           no Ray there
    |  |- RayTokenError                 it wants a token that this process has not
    |  |- RayClientError                Ray Client (`ray://`) is not supported
    |  |- RayWorkerError                a fleet cannot live in an actor or a task
    |  `- RayVersionError               too old a Ray
    |- FleetNameTakenError              also a RuntimeError: another controller has this name
    |- FleetClosedError                 also a RuntimeError: the fleet was closed
    |- InsufficientSlicesError          also a RuntimeError: fewer slices ready than asked for, and why
    |- UnknownSliceError                also a KeyError: no such slice
    |- UnpicklableFunctionError         also a TypeError: the work cannot travel
    |- JournalError                     also a RuntimeError: a journal cannot be read or written
    |  |- JournalMissingError           no such file
    |  |- JournalForeignError           not a journal
    |  |- JournalNewerError             written by a newer sliceform
    |  |- JournalDamagedError           damaged
    |  `- JournalInUseError             another fleet writes it
    |- BackendError                     also a RuntimeError: a backend broke its contract
    `- RunError                         a run ended without a result
       |- RunFailed                     the user's function raised, or its process died
       |- RunPreempted                  the preemption budget is used up
       |- ResultLost                    it succeeded, but a host was gone before its value was fetched
       `- RunCancelled                  somebody cancelled it

Every error can be pickled. `TimeoutError` is Python's own: it leaves what was waited for alone.

Pure: imports only the errors of `sliceform.states`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sliceform.states.errors import InvalidTransition, SliceformError, TableError

__all__ = [
    "BackendError",
    "ClusterError",
    "ConfigurationError",
    "FleetClosedError",
    "FleetNameTakenError",
    "InsufficientSlicesError",
    "InvalidTransition",
    "JournalDamagedError",
    "JournalError",
    "JournalForeignError",
    "JournalInUseError",
    "JournalMissingError",
    "JournalNewerError",
    "RayClientError",
    "RayTokenError",
    "RayUnreachableError",
    "RayVersionError",
    "RayWorkerError",
    "ResultLost",
    "RunCancelled",
    "RunError",
    "RunFailed",
    "RunPreempted",
    "SliceformError",
    "TableError",
    "UnknownSliceError",
    "UnpicklableFunctionError",
]


class ConfigurationError(SliceformError, ValueError):
    """Arguments or settings that cannot work; the message says what to do."""


class ClusterError(SliceformError, RuntimeError):
    """The cluster cannot be reached or used."""


class RayUnreachableError(ClusterError):
    """There is no Ray cluster where one was expected."""


class RayTokenError(ClusterError):
    """The cluster uses Ray's token authentication, and this process has not its token."""


class RayClientError(ClusterError):
    """The process is connected through Ray Client, which cannot carry a fleet."""


class RayWorkerError(ClusterError):
    """The process is a Ray worker: nothing would give a fleet back when its actor or task ends."""


class RayVersionError(ClusterError):
    """The installed Ray is too old."""


class BackendError(SliceformError, RuntimeError):
    """A backend broke its contract, or was used after it was closed."""


class FleetClosedError(SliceformError, RuntimeError):
    """The fleet has been closed: make a new controller."""

    def __init__(self, message: str = "this fleet was closed; make a new SliceController") -> None:
        """Take other words, if there are any."""
        super().__init__(message)


class FleetNameTakenError(SliceformError, RuntimeError):
    """Another controller on this cluster holds the fleet's name."""

    def __init__(self, name: str, holder: str = "") -> None:
        """Take the name, and what is known of its holder."""
        self.name = name
        self.holder = holder
        by = f" by {holder}" if holder else ""
        super().__init__(f"the fleet name {name!r} is held{by}: close that controller first, or choose another name")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by what it was made of."""
        return type(self), (self.name, self.holder)


class InsufficientSlicesError(SliceformError, RuntimeError):
    """Fewer slices are ready than were asked for."""

    def __init__(self, requested: int, available: int, reasons: Mapping[str, str]) -> None:
        """Take the numbers, and by slice id why each one that is missing is not ready."""
        self.requested = requested
        self.available = available
        self.reasons = dict(reasons)
        why = "".join(f"\n  {slice_id}: {reason}" for slice_id, reason in self.reasons.items())
        super().__init__(f"{available} of {requested} slices ready{why and ':'}{why}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by what it was made of."""
        return type(self), (self.requested, self.available, self.reasons)


class UnknownSliceError(SliceformError, KeyError):
    """No slice of this fleet has that id."""

    def __init__(self, slice_id: str, known: Iterable[str] = ()) -> None:
        """Take the id, and the ids that would have been known."""
        self.slice_id = slice_id
        self.known = tuple(known)
        super().__init__(slice_id)

    def __str__(self) -> str:
        """Say it in a sentence: a KeyError would show only the repr of its key."""
        known = ", ".join(self.known) or "none"
        return f"no slice {self.slice_id!r} in this fleet; known: {known}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by what it was made of."""
        return type(self), (self.slice_id, self.known)


class JournalError(SliceformError, RuntimeError):
    """A journal cannot be read or written; nothing in it was changed."""


class JournalMissingError(JournalError):
    """There is no file where a journal was expected."""


class JournalForeignError(JournalError):
    """The file is something else than a journal."""


class JournalNewerError(JournalError):
    """The journal was written by a newer sliceform, in a form that this one does not know."""


class JournalDamagedError(JournalError):
    """The file is a journal, but parts of it cannot be read."""


class JournalInUseError(JournalError):
    """Another fleet writes this journal."""


class UnpicklableFunctionError(SliceformError, TypeError):
    """The work cannot be sent to the hosts."""

    def __init__(self, part: str, detail: str) -> None:
        """Take which part cannot be pickled (for example `argument 'data'`), and pickle's own words."""
        self.part = part
        self.detail = detail
        super().__init__(f"{part} cannot be pickled: {detail}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by what it was made of."""
        return type(self), (self.part, self.detail)


class RunError(SliceformError):
    """A run ended without a result."""

    def __init__(self, message: str, *, run_id: str = "", attempts: Sequence[Any] = ()) -> None:
        """Take what happened, the run's id and the records of its attempts."""
        self.run_id = run_id
        self.attempts = tuple(attempts)
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by message and attributes: keyword arguments do not survive the default way."""
        return _rebuild, (type(self), self.args, self.__dict__)


class RunPreempted(RunError):
    """Hosts were taken away more often than `max_preemptions` allows."""


class ResultLost(RunError):
    """The run succeeded, but a host went away before the value that it returned could be fetched.

    Only values of about 100 kB and more can be: smaller ones come with the news that the function returned.
    """


class RunCancelled(RunError):
    """The run was cancelled."""


class RunFailed(RunError):
    """The user's function raised, or its process died, more often than `max_failures` allows.

    Raised `from` the user's own exception where that could be brought back.
    """

    def __init__(
        self,
        message: str,
        *,
        run_id: str = "",
        attempts: Sequence[Any] = (),
        host: str = "",
        remote_traceback: str = "",
        exception: BaseException | None = None,
    ) -> None:
        """Take also the host that failed first, its traceback as text, and the exception if it could be unpickled."""
        self.host = host
        self.remote_traceback = remote_traceback
        self.exception = exception
        text = f"{message}\n\n{remote_traceback.rstrip()}" if remote_traceback else message
        super().__init__(text, run_id=run_id, attempts=attempts)


def _rebuild(kind: type[RunError], args: tuple[Any, ...], attributes: dict[str, Any]) -> RunError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error
