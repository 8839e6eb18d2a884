"""Watch for notices that this host is to be taken away: the GCE metadata server, and a function of the user's.

Each source has daemon threads of its own, so that nothing it does holds up the agent, and says what it finds to
`Standing`. What cannot be read is unknown: it neither makes a notice nor takes one back.

Two more sources are elsewhere: SIGTERM (`sigterm`), and nodes that Ray drains, which the driver reads itself.
"""

from __future__ import annotations

import http.client
import logging
import math
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from sliceform.controller.on_host.notice_board import Standing

log = logging.getLogger("sliceform.on_host")

#: The names of the sources, as the history shows them.
PREEMPTED = "gce-preempted"
MAINTENANCE = "gce-maintenance"
OWN = "notice-source"
SIGTERM = "sigterm"

#: From `TRUE` to the end of a Spot VM: the time between ACPI G2 soft off and G3 mechanical off,
#: https://cloud.google.com/compute/docs/instances/spot, seconds.
PREEMPTED_S = 30.0

_KEYS = {PREEMPTED: "instance/preempted", MAINTENANCE: "instance/maintenance-event"}
_PRODUCT = Path("/sys/class/dmi/id/product_name")
_FLAVOR = {"Metadata-Flavor": "Google"}
#: So many answers in a row may come sooner than this, seconds: the first value, and a change of it.
_HURRIED = 2
_SOON_S = 1.0
_PAUSE_MAX_S = 60.0
#: No value, and no tag, of the server's is longer, characters.
_LONGEST = 128


def pause_s(times: int) -> float:
    """Return how long to wait after so many failures in a row, seconds."""
    return min(_PAUSE_MAX_S, 2.0 ** min(times - 1, 10)) * random.uniform(0.5, 1.0)


class Patience(NamedTuple):
    """How long a source is waited for, seconds."""

    #: For a connection to the metadata server.
    connect_s: float = 1.0
    #: It is asked to hold a call open for so long.
    hold_s: float = 60.0
    #: Its answer may come so much later.
    margin_s: float = 5.0
    #: By the number of failures in a row.
    pause_s: Callable[[int], float] = pause_s


_PATIENCE = Patience()


class NoticeWatch:
    """The threads that watch for one agent."""

    def __init__(
        self,
        standing: Standing,
        *,
        metadata: bool,
        source: tuple[bytes, tuple[Any, ...]] | None = None,
        every_s: float = 5.0,
        patience: Patience = _PATIENCE,
        product: Path = _PRODUCT,
    ) -> None:
        """Begin to watch.

        Args:
            standing: Where to say what is found.
            metadata: Whether to ask the metadata server.
            source: The user's function, as a parcel; it returns None or False, True, or a deadline in epoch seconds.
            every_s: How often to call it, seconds.
            patience: How long to wait for what does not answer.
            product: Where the machine's firmware says whose it is.

        """
        self._standing = standing
        self._patience = patience
        self._product = product
        self._stopping = threading.Event()
        if metadata:
            self._start("metadata", self._watch_metadata)
        if source is not None:
            self._start("source", lambda: self._ask(source, every_s))

    def stop(self) -> None:
        """Let the threads end once what they wait for has come; does not wait for them."""
        self._stopping.set()

    def _start(self, name: str, run: Callable[[], None]) -> None:
        threading.Thread(target=run, name=f"sliceform-notices-{name}", daemon=True).start()

    # The metadata server.

    def _watch_metadata(self) -> None:
        named = os.environ.get("GCE_METADATA_HOST") or os.environ.get("GCE_METADATA_ROOT")
        server = named or "metadata.google.internal"
        address = os.environ.get("GCE_METADATA_IP", "169.254.169.254")
        ours = named is not None or on_google(self._product) or _is_googles(address, self._patience.connect_s)
        if not ours:
            log.info("no GCE metadata server, so no notices from one")
            return
        self._start("maintenance", lambda: self._watch_key(server, MAINTENANCE))
        self._watch_key(server, PREEMPTED)

    def _watch_key(self, server: str, source: str) -> None:
        """Read a key, then again whenever it changes; a server that fails or hurries is asked ever more seldom."""
        import requests

        trouble = _Trouble(f"{_KEYS[source]} of the metadata server {server}", self._patience)
        hurried, etag = 0, None
        with requests.Session() as session:
            session.trust_env = False  # no proxy stands between a host and its own metadata
            while not self._stopping.is_set():
                began = time.monotonic()
                try:
                    value, etag = _read(
                        session, f"http://{server}/computeMetadata/v1/{_KEYS[source]}", etag, self._patience
                    )
                    self._take(source, value)
                except Exception as error:  # noqa: BLE001 - whatever a server makes the library raise
                    etag = None
                    self._stopping.wait(trouble.again(error))
                    continue
                trouble.over()
                hurried = hurried + 1 if time.monotonic() - began < _SOON_S else 0
                if hurried > _HURRIED:
                    self._stopping.wait(self._patience.pause_s(hurried - _HURRIED))

    def _take(self, source: str, value: str) -> None:
        """Take in what a key says.

        `TERMINATE_ON_HOST_MAINTENANCE` has no deadline: it comes an hour before the end where there are GPUs, a minute
        before on other machines (https://cloud.google.com/compute/docs/gpus/gpu-host-maintenance), and nothing is said
        of TPUs.

        Raises:
            ValueError: the key has no such value.

        """
        if value.startswith("TERMINATE_") and source == MAINTENANCE:
            self._standing.put(source, None)
        elif value == "TRUE" and source == PREEMPTED:
            if source not in self._standing.now():
                self._standing.put(source, time.time() + PREEMPTED_S)
        elif value == ("FALSE" if source == PREEMPTED else "NONE"):
            self._standing.withdraw(source)
        elif value.startswith("MIGRATE_") and source == MAINTENANCE:
            log.info("this host is to be migrated alive: %s", value)
            self._standing.withdraw(source)
        else:
            raise ValueError(f"no such value: {value!r}")

    # The user's function.

    def _ask(self, parcel: tuple[bytes, tuple[Any, ...]], every_s: float) -> None:
        from sliceform.controller.on_host.parcel import unwrap

        try:
            source = unwrap(*parcel)
        except BaseException as error:  # noqa: BLE001 - whatever the user's modules raise when imported
            log.error("notice_source cannot be unpickled on this host, so it gives no notices: %r", error)  # noqa: TRY400
            return
        trouble = _Trouble("notice_source", self._patience)
        while not self._stopping.is_set():
            try:
                self._heed(source())
            except BaseException as error:  # noqa: BLE001 - whatever the user's function raises
                self._stopping.wait(max(every_s, trouble.again(error)))
                continue
            trouble.over()
            self._stopping.wait(every_s)

    def _heed(self, answer: Any) -> None:
        if answer is None or answer is False:
            self._standing.withdraw(OWN)
        elif answer is True:
            self._standing.put(OWN, None)
        elif isinstance(answer, int | float) and math.isfinite(answer) and answer > 0:
            self._standing.put(OWN, float(answer))
        else:
            raise TypeError(f"it returned {answer!r}, which is neither None, True, False nor a time in epoch seconds")


class _Trouble:
    """What goes wrong again and again: how long to wait before the next try, and when to say so."""

    def __init__(self, what: str, patience: Patience) -> None:
        self._what = what
        self._patience = patience
        self._times = 0

    def again(self, error: BaseException) -> float:
        """Count a failure, log the 1st, 2nd, 4th, 8th and so on in a row, and return how long to wait, seconds."""
        self._times += 1
        if self._times & (self._times - 1) == 0:
            log.warning(
                "cannot tell whether this host is under notice (try %d): %s: %r", self._times, self._what, error
            )
        return self._patience.pause_s(self._times)

    def over(self) -> None:
        """Start anew."""
        self._times = 0


def on_google(product: Path) -> bool:
    """Whether the machine says that it is Google's, as Google's libraries find out."""
    try:
        return product.read_text(errors="replace").strip().startswith("Google")
    except OSError:
        return False


def _is_googles(address: str, timeout_s: float) -> bool:
    """Whether a metadata server of Google's answers there, not one of another cloud's; no name has to be looked up."""
    asked = http.client.HTTPConnection(address, timeout=timeout_s)
    try:
        asked.request("GET", "/computeMetadata/v1/", headers=_FLAVOR)
        return asked.getresponse().getheader("Metadata-Flavor") == "Google"
    except (OSError, http.client.HTTPException) as error:
        log.debug("%s does not answer: %r", address, error)
        return False
    finally:
        asked.close()


def _read(session: Any, url: str, etag: str | None, patience: Patience) -> tuple[str, str | None]:
    """Return a key's value and its tag; with the tag known so far, wait until it changes or the call was held for long.

    As in https://cloud.google.com/compute/docs/metadata/querying-metadata.

    Raises:
        requests.RequestException: the server does not answer, or not as HTTP has it.
        ValueError: the answer is not one of a metadata server.

    """
    params = {} if etag is None else {"wait_for_change": "true", "timeout_sec": f"{patience.hold_s:g}"}
    if etag:
        params["last_etag"] = etag
    end = time.monotonic() + (patience.hold_s if params else 0.0) + patience.margin_s
    with session.get(
        url,
        params=params,
        headers=_FLAVOR,
        timeout=(patience.connect_s, end - time.monotonic()),
        allow_redirects=False,
        stream=True,
    ) as answer:
        if answer.headers.get("Metadata-Flavor") != "Google":
            raise ValueError("the answer lacks the header Metadata-Flavor: Google")
        if answer.status_code != 200:  # noqa: PLR2004 - OK
            raise ValueError(f"status {answer.status_code}")
        body = b""
        for chunk in answer.iter_content(1):
            body += chunk
            if len(body) > _LONGEST or time.monotonic() > end:
                raise ValueError("the answer is too long, or takes too long")
        tag = answer.headers.get("ETag", "")
        return body.decode("ascii").strip(), tag if len(tag) <= _LONGEST else ""
