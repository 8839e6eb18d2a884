"""What `host_context()` gives to a function that runs in a simulated cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sliceform.controller.on_host import context
from sliceform.controller.testing.sim.lives import SimProcess

#: Where rank 0 would listen; nobody does.
_COORDINATOR = "127.0.0.1:9"


class _Told(context.StopSignal):
    """Whether a simulated process has been told to stop."""

    def __init__(self, process: SimProcess) -> None:
        self._process = process

    def read(self) -> tuple[bool, float | None]:
        return self._process.told_to_stop, self._process.deadline_epoch_s


@contextmanager
def running_as(process: SimProcess) -> Iterator[None]:
    """Let the code inside be the host process that it simulates."""
    attempt, slice_rank = process.request.attempt, process.request.slice_rank
    before = context._current  # noqa: SLF001 - hosts never leave a context: their process ends
    context.enter(
        context.HostContext(
            rank=slice_rank * attempt.hosts_per_slice + process.rank,
            world_size=len(attempt.members) * attempt.hosts_per_slice,
            slice_rank=slice_rank,
            num_slices=len(attempt.members),
            host_rank=process.rank,
            hosts_per_slice=attempt.hosts_per_slice,
            slice_id=attempt.members[slice_rank],
            run_id=attempt.run_id,
            attempt=attempt.number,
            previous=attempt.previous,
            coordinator_address=_COORDINATOR,
            _signal=_Told(process),
        )
    )
    try:
        yield
    finally:
        context._current = before  # noqa: SLF001 - see above
