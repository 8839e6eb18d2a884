"""What the demo prints: one plain line for everything that happens, and a report at the end."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, MutableMapping
from typing import Any, TextIO

from sliceform.controller.cli.demo.progress import Report
from sliceform.controller.cli.demo.verdict import ACCURACY_BOUND, Evidence
from sliceform.states import Change, Reason

#: How often a step of the training is shown, seconds.
_STEP_EVERY_S = 1.0
#: What codes stand for.
_MEANING = {reason.value: reason.doc for reason in Reason}
#: How many lines of Ray's are shown after a failure.
_OVERHEARD = 20
#: What happens to a run is told by these; its submission and its end are lines of the demo's own.
_OF_RUNS = frozenset({("run", Reason.ATTEMPT_STARTED), ("attempt", Reason.ATTEMPT_ENDED)})


class Screen:
    """Prints lines that begin with the time since the start and with what they are about."""

    def __init__(self, out: TextIO) -> None:
        """Start the clock."""
        self._out = out
        self._start = time.monotonic()
        self._step_due = 0.0

    def line(self, about: str, text: str) -> None:
        """Print one line, at once."""
        self.text(f"{time.monotonic() - self._start:6.1f} s  {about:<9} {text}")

    def text(self, text: str) -> None:
        """Print something as it is, at once."""
        print(text, file=self._out, flush=True)

    def change(self, change: Change) -> None:
        """Show what happened to a slice or to the run; what happens to hosts is in the story at the end."""
        if change.kind == "slice":
            what = "note" if change.is_note else f"{change.source or '(new)'} -> {change.dest or '(gone)'}"
            self.line(change.key, f"{what:<22} {_why(change)}")
        elif (change.kind, change.reason) in _OF_RUNS:
            self.line(change.key, _short(change.detail))

    def report(self, report: Report, steps: int) -> None:
        """Show how the training goes: where it begins, a step about every second, and the last one."""
        about = "training"
        if report.kind == "begin":
            origin = f"from the checkpoint of step {report.step}" if report.step else "from the beginning"
            processes = "1 process" if report.world == 1 else f"{report.world} processes"
            self.line(
                about,
                f"attempt {report.attempt}  {processes} in one JAX world, {origin}",
            )
            self._step_due = 0.0
        elif report.kind == "step" and (time.monotonic() >= self._step_due or report.step == steps):
            self._step_due = time.monotonic() + _STEP_EVERY_S
            self.line(
                about,
                f"attempt {report.attempt}  step {report.step:>{len(str(steps))}}/{steps}  loss {report.loss:.4f}"
                f"  accuracy {report.accuracy:.3f}",
            )

    def log(self, _logger: Any, level: str, event: MutableMapping[str, Any]) -> str:
        """Show a log line of the library's as a line of ours; ends structlog's chain of processors."""
        said = event.pop("event", "")
        trace = event.pop("exception", "")
        details = " ".join(f"{name}={value}" for name, value in event.items() if value not in {"", None})
        self.line(level, f"{said} {details}{chr(10) if trace else ''}{trace}")
        return ""


def _why(change: Change) -> str:
    """Say why something changed: the code, and its detail or else what the code stands for."""
    told = _short(change.detail or _MEANING.get(change.reason, "").rstrip("."))
    return f"{change.reason}: {told}"


def _short(text: str) -> str:
    """Return the first sentence; the whole is in the story at the end."""
    return text.partition(". ")[0]


class _Discard:
    """A logger that writes nothing: the processor before it has shown the line."""

    def msg(self, message: str) -> None:
        """Drop it."""

    debug = info = warning = error = critical = exception = msg


def show_logs(screen: Screen) -> None:
    """Show the library's warnings and errors among the lines of the demo, and nothing less; an application's choice."""
    import structlog

    structlog.configure(
        processors=[structlog.processors.format_exc_info, screen.log],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=lambda *_: _Discard(),
        cache_logger_on_first_use=False,
    )


def final_report(evidence: Evidence, status: str, story: Iterable[tuple[str, str]]) -> str:
    """Write what the demo ends with."""
    parts = [f"The fleet when the training was over\n\n{_indented(status)}"]
    parts += [f"The story of {title}\n\n{_indented(text)}" for title, text in story]
    if evidence.kill is not None:
        parts.append(f"How long the training stood still\n\n{_indented(_standstill(evidence))}")
    if evidence.results:
        parts.append(
            f"The trained network recognises {evidence.accuracy:.1%} of the held-out images"
            f" (asked for: more than {ACCURACY_BOUND:.0%})."
        )
    return "\n\n".join(parts)


def _standstill(evidence: Evidence) -> str:
    """Write how long each part of the recovery took."""
    kill = evidence.kill
    assert kill is not None
    resumed = evidence.begin(2)
    again = f", from the checkpoint of step {resumed}" if resumed else ""
    if resumed and resumed < kill.step:
        again += f": {kill.step - resumed} steps done again"
    moments = [
        (f"{kill.host} killed after step {kill.step}", kill.at),
        (f"loss of {kill.slice_id} noticed", evidence.noticed_at),
        (f"replacement {evidence.replacement or ''} ready", evidence.replaced_at),
        (
            "second attempt started on all slices",
            evidence.attempts[1].started_epoch_s if evidence.attempts[1:] else None,
        ),
        (f"first step of the second attempt{again}", evidence.first_step_at(2)),
    ]
    return "\n".join(f"{'never' if at is None else f'{at - kill.at:7.3f} s':>9}  {what}" for what, at in moments)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" if line else "" for line in text.splitlines())


def complain(sentences: Iterable[str], overheard: str) -> None:
    """Say on standard error what did not happen, and the end of what Ray said meanwhile."""
    print("The demo did not show what it should:", file=sys.stderr)
    for sentence in sentences:
        print(f"  - {sentence}", file=sys.stderr)
    said = overheard.strip().splitlines()[-_OVERHEARD:]
    if said:
        print("The last that Ray said:", *said, sep="\n  ", file=sys.stderr)
    sys.stderr.flush()
