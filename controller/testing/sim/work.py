"""Work that a simulated cluster is given: kept as it is, and run in this process when it is due."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sliceform.controller.model.events import Outcome, OutcomeKind

#: Frames of a traceback that are this module's own.
_OWN_FRAMES = 1


@dataclass(frozen=True, slots=True)
class SimWork:
    """A function with its arguments, not pickled."""

    fn: Any
    args: tuple[Any, ...] = field(default=(), repr=False)
    kwargs: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def takes_s(self) -> float | None:
        """How long it takes, if the function has an attribute that says so; seconds."""
        takes_s: float | None = getattr(self.fn, "takes_s", None)
        return takes_s

    def run(self) -> Outcome:
        """Call the function to its end and say how it ended."""
        try:
            value = self.fn(*self.args, **self.kwargs)
        except SystemExit as exited:
            if exited.code is not None and exited.code != 0:
                return _raised(exited)
            value = None
        except Exception as error:  # noqa: BLE001 - whatever the user's function raises
            return _raised(error)
        return Outcome(OutcomeKind.RETURNED, load=lambda: value)


def run_work(work: Any) -> Outcome:
    """Run what `SimBackend.pack` made; anything else is taken for work that returns None."""
    if isinstance(work, SimWork):
        return work.run()
    return Outcome(OutcomeKind.RETURNED, load=lambda: None)


def _raised(error: BaseException) -> Outcome:
    inner = error.__traceback__
    for _ in range(_OWN_FRAMES):
        inner = inner.tb_next if inner is not None and inner.tb_next is not None else inner
    text = "".join(traceback.format_exception(type(error), error, inner))
    detail = "".join(traceback.format_exception_only(error)).strip()
    try:
        packed = pickle.dumps(error)
        pickle.loads(packed)
    except Exception:  # noqa: BLE001 - pickle raises whatever the exception's own methods raise
        packed = None
    types = tuple(f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__)
    code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else None
    return Outcome(OutcomeKind.RAISED, detail, text, packed, types, code)
