"""Follow a fleet through the page that it serves: what `fleet.serve()` and `sliceform serve` tell, as a history."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from typing import Any

import click

from sliceform.states import AttemptRecord, Change, History, HostEnd, Story

#: How often the page is asked for what is new, and how long it may keep silent, seconds.
_ASK_S = 0.5
_ANSWER_S = 5.0


class PageError(click.ClickException):
    """The page cannot be followed."""

    exit_code = 2


class NobodyError(PageError):
    """Nobody answers."""


class Page:
    """A fleet that is followed through its page."""

    def __init__(self, url: str) -> None:
        """Ask it for all that it still knows.

        Raises:
            PageError: nobody answers, or not as such a page does.

        """
        self.url = url.rstrip("/")
        self.history = History()
        #: Past the proxy that the environment may name: fleets serve this machine, or one that is near.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._gone = ""
        self._server = self._take(0).get("server")

    def news(self, seq: int) -> Iterator[Story]:
        """Yield what comes after a change, as it comes, until nobody answers any more."""
        yield Story()
        while True:
            time.sleep(_ASK_S)
            try:
                answer = self._take(seq)
            except NobodyError as error:
                self._gone = str(error)
                return
            if answer.get("server") != self._server or self.history.last_seq != answer["seq"]:
                raise PageError(f"{self.url} tells of another fleet than before: watch that one anew")
            yield self.history.since(seq)
            seq = self.history.last_seq

    def wish(self) -> None:
        """Say nothing of what is wanted, which is not on the page."""

    def said(self) -> str:
        """Say in a sentence how it stands with the driver."""
        return self._gone or f"the fleet at {self.url}"

    def _take(self, seq: int) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = self._ask(f"{self.url}/changes?since={seq}")
        try:
            changes, attempts = [*_changes(answer)], [*map(_attempt, answer["attempts"])]
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise PageError(f"{self.url} is no page of this sliceform: its answer has another form") from error
        for attempt in attempts:
            self.history.attempts.record(attempt)
        for change in changes:
            if change.seq > self.history.last_seq:
                self.history.record(change)
        return answer

    def _ask(self, address: str) -> Any:
        try:
            with self._opener.open(address, timeout=_ANSWER_S) as answer:
                said = answer.read()
        except urllib.error.HTTPError as error:
            raise PageError(f"{self.url} cannot be followed: it answers {error.code} {error.reason}") from error
        except (OSError, HTTPException, ValueError) as error:  # the last for what is no address
            raise NobodyError(f"nobody answers at {self.url}: {getattr(error, 'reason', error)}") from error
        try:
            return json.loads(said)
        except ValueError as error:
            raise PageError(f"{self.url} is no page of sliceform: its answer is no JSON") from error


def _changes(answer: Mapping[str, Any]) -> Iterator[Change]:
    """Yield the changes of an answer; see `sliceform.controller.report.data.columns`. It does not tell ticks."""
    texts = answer["texts"]
    names = ("kind", "key", "trigger", "from", "to", "reason", "detail", "cause")
    seq, millis = answer["seq"] - len(answer["at"]), 0
    for later, *numbers in zip(answer["at"], *(answer[name] for name in names), strict=True):
        seq, millis = seq + 1, millis + later
        kind, key, trigger, source, dest, reason, detail, cause = (texts[number] for number in numbers)
        yield Change(
            seq,
            0,
            millis / 1000,
            kind,
            key,
            trigger or None,
            source or None,
            dest or None,
            reason,
            detail,
            cause or None,
        )


def _attempt(row: Mapping[str, Any]) -> AttemptRecord:
    hosts = tuple(HostEnd(host, None, outcome or None, detail) for host, outcome, detail in row["hosts"])
    ended_at = None if row["ended"] is None else row["ended"] / 1000
    return AttemptRecord(
        row["run"],
        row["number"],
        tuple(row["slices"]),
        hosts,
        row["began"] / 1000,
        ended_at,
        row["outcome"],
        row["detail"],
    )
