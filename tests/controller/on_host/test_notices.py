"""Notices of this host's end, from the metadata server, the user's function and SIGTERM, and all that can be wrong."""

import asyncio
import contextlib
import http.server
import logging
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sliceform.controller.on_host import notices
from sliceform.controller.on_host.agent import Agent
from sliceform.controller.on_host.notice_board import Standing
from sliceform.controller.on_host.parcel import wrap
from sliceform.controller.on_host.sigterm import Term
from sliceform.controller.testing.virtual.metadata import MAINTENANCE, PREEMPTED, MetadataServers

pytestmark = pytest.mark.timeout(90)


def until(done: Callable[[], Any], within_s: float = 30.0) -> None:
    end = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def _threads_end() -> Iterator[None]:
    """A call that is held open ends with its server."""
    yield
    until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("sliceform-")])


@pytest.fixture
def standing() -> Standing:
    return Standing()


@pytest.fixture
def server() -> Iterator[MetadataServers]:
    server = MetadataServers()
    yield server
    server.close()


@pytest.fixture
def watch(standing: Standing, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., notices.NoticeWatch]]:
    """Begin to watch; with `host`, the metadata server there."""
    started: list[notices.NoticeWatch] = []

    def begin(host: str | None = None, **options: Any) -> notices.NoticeWatch:
        for name in ("GCE_METADATA_ROOT", "GCE_METADATA_HOST"):
            monkeypatch.delenv(name, raising=False)
        if host is not None:
            monkeypatch.setenv("GCE_METADATA_HOST", host)
        started.append(notices.NoticeWatch(standing, metadata=host is not None, product=Path("/none"), **options))
        return started[-1]

    yield begin
    for each in started:
        each.stop()


class TestStanding:
    def test_is_awaited_until_it_differs(self, standing: Standing) -> None:
        async def scene() -> None:
            waiting = asyncio.create_task(standing.other_than({}, 10))
            await asyncio.sleep(0.02)
            assert not waiting.done()
            await asyncio.to_thread(standing.put, "gce", 5.0)
            assert await asyncio.wait_for(waiting, 5) == {"gce": 5.0}
            assert await standing.other_than({}, 10) == {"gce": 5.0}
            waiting = asyncio.create_task(standing.other_than({"gce": 5.0}, 10))
            await asyncio.sleep(0)
            standing.put("gce", 5.0)
            await asyncio.sleep(0.02)
            assert not waiting.done()
            await asyncio.to_thread(standing.withdraw, "gce")
            assert await asyncio.wait_for(waiting, 5) == {}

        asyncio.run(scene())

    def test_answers_after_a_bound_though_nothing_changed(self, standing: Standing) -> None:
        assert asyncio.run(standing.other_than({}, 0.02)) == {}
        assert asyncio.run(standing.other_than({"lost": None}, 10)) == {}

    def test_wakes_all_who_wait_and_forgets_those_that_gave_up(self, standing: Standing) -> None:
        async def scene() -> None:
            lost = asyncio.create_task(standing.other_than({}, 10))
            heard = [asyncio.create_task(standing.other_than({}, 10)) for _ in range(2)]
            await asyncio.sleep(0.01)
            lost.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await lost
            standing.put("own", None)
            assert [await asyncio.wait_for(each, 5) for each in heard] == [{"own": None}] * 2

        asyncio.run(scene())
        assert not standing._waiting
        standing.withdraw("own")


def test_the_agent_begins_to_watch_with_the_first_call_and_heals_a_lost_answer(own_tmp: Path) -> None:
    watch = {"metadata": False, "source": wrap(lambda: True), "every_s": 0.01}
    agent = Agent("slice-1", 0, "i1", watch=watch)
    assert agent._standing is None

    async def scene() -> None:
        assert await asyncio.wait_for(agent.notices({}), 10) == {"notice-source": None}
        assert await asyncio.wait_for(agent.notices({}), 10) == {"notice-source": None}

    asyncio.run(scene())
    agent._watching.stop()


class TestMetadataServer:
    def test_preempted_stands_with_its_deadline_until_it_is_withdrawn(
        self, standing: Standing, server: MetadataServers, watch: Callable[..., Any]
    ) -> None:
        watch(server.add("a"))
        begun = time.time()
        server.set("a", PREEMPTED, "TRUE")
        until(standing.now)
        (deadline,) = standing.now().values()
        assert list(standing.now()) == [notices.PREEMPTED]
        assert begun + 30 <= deadline <= time.time() + 30
        server.set("a", PREEMPTED, None)
        until(lambda: not standing.now())

    def test_the_deadline_does_not_move_when_the_server_says_it_again(
        self, standing: Standing, server: MetadataServers, watch: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reads: list[str] = []
        take = notices.NoticeWatch._take
        monkeypatch.setattr(
            notices.NoticeWatch, "_take", lambda self, source, value: (reads.append(value), take(self, source, value))
        )
        watch(server.add("a"), patience=notices.Patience(hold_s=0.02, pause_s=lambda _: 0.01))
        server.set("a", PREEMPTED, "TRUE")
        until(lambda: reads.count("TRUE") > 1)
        first = standing.now()
        seen = reads.count("TRUE")
        until(lambda: reads.count("TRUE") > seen + 3)
        assert standing.now() == first != {}

    def test_termination_counts_and_migration_is_only_logged(
        self,
        standing: Standing,
        server: MetadataServers,
        watch: Callable[..., Any],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.INFO, "sliceform.on_host")
        watch(server.add("a"), patience=notices.Patience(pause_s=lambda _: 0.01))
        server.set("a", MAINTENANCE, "TERMINATE_ON_HOST_MAINTENANCE")
        until(lambda: standing.now() == {notices.MAINTENANCE: None})
        server.set("a", MAINTENANCE, "MIGRATE_ON_HOST_MAINTENANCE")
        until(lambda: not standing.now())
        until(lambda: "migrated alive" in caplog.text)

    def test_each_host_has_its_own(
        self, server: MetadataServers, watch: Callable[..., Any], standing: Standing
    ) -> None:
        first, second = server.add("a"), server.add("b")
        assert first != second
        watch(second)
        server.set("a", PREEMPTED, "TRUE")
        server.set("b", MAINTENANCE, "TERMINATE_ON_HOST_MAINTENANCE")
        until(standing.now)
        assert list(standing.now()) == [notices.MAINTENANCE]

    def test_a_quiet_server_is_asked_once_for_as_long_as_it_holds_the_call(
        self, server: MetadataServers, watch: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reads: list[str | None] = []
        read = notices._read

        def counted(session: Any, url: str, etag: str | None, patience: notices.Patience) -> Any:
            reads.append(etag)
            return read(session, url, etag, patience)

        monkeypatch.setattr(notices, "_read", counted)
        watch(server.add("a"))
        until(lambda: len(reads) == 4)
        time.sleep(0.3)
        assert sorted(reads, key=str) == ["1", "1", None, None]


class TestWhereThereIsNoServer:
    @pytest.fixture(autouse=True)
    def _elsewhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing says that this should be a machine of Google's."""
        monkeypatch.delenv("GCE_METADATA_HOST", raising=False)
        monkeypatch.delenv("GCE_METADATA_ROOT", raising=False)

    @pytest.mark.parametrize("other", ["nobody", "hangs up", "lacks the flavor", "no http", "hangs"])
    def test_it_is_off_after_one_short_look(
        self,
        *,
        standing: Standing,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        bad_server: Callable[..., Any],
        other: str,
    ) -> None:
        """As where another cloud has its own server at the same address."""
        caplog.set_level(logging.DEBUG, "sliceform.on_host")
        server = bad_server(BAD.get(other, BAD["hangs up"])[0])
        address = "127.0.0.1:9" if other == "nobody" else f"127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("GCE_METADATA_IP", address)
        patience = notices.Patience(connect_s=0.2)
        watching = notices.NoticeWatch(standing, metadata=False, patience=patience, product=Path("/none"))
        watching._watch_metadata()
        assert len(server.asked) <= 1
        assert caplog.text.count("no GCE metadata server") == 1
        assert {row.levelname for row in caplog.records} <= {"INFO", "DEBUG"}

    def test_a_server_of_googles_is_watched(
        self, standing: Standing, server: MetadataServers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GCE_METADATA_IP", server.add("a"))
        watched: list[tuple[str, str]] = []
        monkeypatch.setattr(notices.NoticeWatch, "_watch_key", lambda _, host, source: watched.append((host, source)))
        notices.NoticeWatch(standing, metadata=True, product=Path("/none"))
        until(lambda: len(watched) == 2)
        assert set(watched) == {("metadata.google.internal", source) for source in notices._KEYS}

    def test_it_is_not_looked_for_when_turned_off(self, standing: Standing) -> None:
        before = threading.active_count()
        notices.NoticeWatch(standing, metadata=False)
        assert threading.active_count() == before

    @pytest.mark.parametrize(("product", "google"), [("Google Compute Engine\n", True), ("KVM\n", False)])
    def test_a_machine_of_googles_is_known_by_its_name(self, tmp_path: Path, product: str, *, google: bool) -> None:
        (tmp_path / "product").write_text(product)
        assert notices.on_google(tmp_path / "product") is google


BAD = {
    "lacks the flavor": (lambda talk: talk.say(200, b"TRUE", flavor=False), "lacks the header"),
    "not found": (lambda talk: talk.say(404, b"TRUE"), "status 404"),
    "broken": (lambda talk: talk.say(500, b"TRUE"), "status 500"),
    "moved": (lambda talk: talk.say(301, b"", location="http://127.0.0.1:9/"), "status 301"),
    "html": (lambda talk: talk.say(200, b"<html>TRUE</html>"), "no such value"),
    "other value": (lambda talk: talk.say(200, b"MAYBE"), "no such value"),
    "empty": (lambda talk: talk.say(200, b""), "no such value"),
    "not text": (lambda talk: talk.say(200, b"\xff\xfe\x00"), "UnicodeDecodeError"),
    "huge": (lambda talk: talk.say(200, b"TRUE" * 1_000_000), "too long"),
    "promises more": (lambda talk: talk.say(200, b"TRUE", length=99), "Error"),
    "no http": (lambda talk: talk.wfile.write(b"\x00\x01rubbish\r\n\r\n"), "Error"),
    "hangs up": (lambda talk: None, "Error"),
    "hangs": (lambda talk: talk.server.ending.wait(20), "Timeout"),
    "drips": (lambda talk: talk.drip(), "too long"),
}


class _Talk(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append(time.monotonic())
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.server.behave(self)

    def say(
        self, status: int, body: bytes, *, flavor: bool = True, location: str = "", length: int | None = None
    ) -> None:
        self.send_response(status)
        if flavor:
            self.send_header("Metadata-Flavor", "Google")
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def drip(self) -> None:
        self.say(200, b"", length=1_000)
        while not self.server.ending.wait(0.02):
            self.wfile.write(b"T")
            self.wfile.flush()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def bad_server() -> Iterator[Callable[[Callable[[_Talk], Any]], Any]]:
    started: list[http.server.ThreadingHTTPServer] = []

    def begin(behave: Callable[[_Talk], Any]) -> Any:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Talk)
        server.daemon_threads = True
        server.behave, server.asked, server.ending = behave, [], threading.Event()
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        started.append(server)
        return server

    yield begin
    for server in started:
        server.ending.set()
        server.shutdown()
        server.server_close()


class Hasty(list[int]):
    """The pauses that were made; nothing waits long."""

    def pause_s(self, times: int) -> float:
        self.append(times)
        return 0.01

    @property
    def patience(self) -> notices.Patience:
        return notices.Patience(hold_s=0.1, margin_s=0.2, pause_s=self.pause_s)


@pytest.fixture
def hasty() -> Hasty:
    return Hasty()


@pytest.mark.parametrize(("behave", "says"), BAD.values(), ids=BAD.keys())
def test_a_bad_server_is_said_waited_for_and_changes_nothing(
    *,
    standing: Standing,
    watch: Callable[..., Any],
    bad_server: Callable[..., Any],
    hasty: Hasty,
    caplog: pytest.LogCaptureFixture,
    behave: Callable[[_Talk], Any],
    says: str,
) -> None:
    standing.put(notices.PREEMPTED, 7.0)
    server = bad_server(behave)
    watch(f"127.0.0.1:{server.server_address[1]}", patience=hasty.patience)
    until(lambda: len(server.asked) >= 5)
    assert standing.now() == {notices.PREEMPTED: 7.0}
    assert says in caplog.text
    # After every failure there was a pause, each longer than the one before.
    assert len(hasty) >= len(server.asked) - 2
    assert {1, 2} <= set(hasty)


def test_a_server_that_does_not_hold_calls_is_asked_ever_more_seldom(
    standing: Standing, watch: Callable[..., Any], bad_server: Callable[..., Any], hasty: Hasty
) -> None:
    flags = iter(range(10_000))
    server = bad_server(lambda talk: talk.say(200, (b"TRUE", b"FALSE")[next(flags) % 2]))
    watch(f"127.0.0.1:{server.server_address[1]}", patience=hasty.patience)
    until(lambda: len(server.asked) >= 12)
    assert max(hasty) >= 3


def test_a_server_that_recovers_is_heard(
    standing: Standing, watch: Callable[..., Any], bad_server: Callable[..., Any], hasty: Hasty
) -> None:
    server = bad_server(lambda talk: talk.say(503, b""))
    watch(f"127.0.0.1:{server.server_address[1]}", patience=hasty.patience)
    until(lambda: len(server.asked) >= 3)
    assert not standing.now()
    server.behave = lambda talk: talk.say(200, b"TRUE" if "preempted" in talk.path else b"NONE")
    until(lambda: list(standing.now()) == [notices.PREEMPTED])


def test_pauses_grow_have_jitter_and_are_bounded() -> None:
    random.seed(1)
    assert {round(notices.pause_s(3), 3) for _ in range(20)} != {3.0}
    assert all(2.0 <= notices.pause_s(3) <= 4.0 for _ in range(100))
    assert all(notices.pause_s(times) <= 60 for times in (1, 10, 100, 10**6))


class TestNoticeSource:
    def test_says_what_it_says(self, standing: Standing, watch: Callable[..., Any], tmp_path: Path) -> None:
        said = tmp_path / "said"
        said.write_text("None")
        watch(source=wrap(lambda: eval(said.read_text() or "None")), every_s=0.01)  # noqa: S307
        for words, expected in (("True", {notices.OWN: None}), ("9e9", {notices.OWN: 9e9}), ("False", {})):
            draft = said.with_suffix(".new")
            draft.write_text(words)
            draft.replace(said)
            until(lambda expected=expected: standing.now() == expected)

    @pytest.mark.parametrize("words", ["1 / 0", "'soon'", "float('nan')", "0", "-1.0", "[]", "exit(3)"])
    def test_what_it_gets_wrong_is_logged_ever_more_seldom_and_changes_nothing(
        self, standing: Standing, watch: Callable[..., Any], words: str, caplog: pytest.LogCaptureFixture, hasty: Hasty
    ) -> None:
        standing.put(notices.OWN, 7.0)
        watch(source=wrap(lambda: eval(words)), every_s=0.001, patience=hasty.patience)  # noqa: S307
        until(lambda: len(hasty) >= 9)
        assert standing.now() == {notices.OWN: 7.0}
        tries = [row.args[0] for row in caplog.records if "notice_source" in row.getMessage()]
        assert tries[:4] == [1, 2, 4, 8]

    def test_that_cannot_be_unpickled_is_said_once(
        self, standing: Standing, watch: Callable[..., Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        watch(source=(b"rubbish", ()), every_s=0.001)
        until(lambda: "cannot be unpickled on this host" in caplog.text)
        assert not standing.now()

    def test_ends_when_the_watch_does(self, standing: Standing, watch: Callable[..., Any], tmp_path: Path) -> None:
        watching = watch(source=wrap(lambda: True), every_s=0.01)
        until(standing.now)
        watching.stop()
        until(lambda: "sliceform-notices-source" not in {thread.name for thread in threading.enumerate()})


#: A process whose main thread unpickles the hook, as Ray's does with the agent's class.
TERM = """
import pickle, signal, sys, threading, time
from sliceform.controller.on_host.sigterm import Term

def before(number, frame):
    print("then ray", flush=True)
    sys.exit(0)

if "ray" in sys.argv:
    signal.signal(signal.SIGTERM, before)
term = pickle.loads(pickle.dumps(Term()))

def heed():
    term.heed(lambda: print("heard", flush=True))

def heed_later():
    while not term._came:
        time.sleep(0.001)
    heed()

if "heed" in sys.argv:
    heed()
if "later" in sys.argv:
    threading.Thread(target=heed_later, daemon=True).start()
print("up", flush=True)
while True:
    time.sleep(0.01)
"""


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["ray", "heed"], ["heard", "then ray"], 0),
        (["ray", "later"], ["heard", "then ray"], 0),
        (["ray"], ["then ray"], 0),
        (["heed"], ["heard"], -signal.SIGTERM),
        ([], [], -signal.SIGTERM),
    ],
)
def test_sigterm_is_heard_before_rays_own_handler(words: list[str], said: list[str], code: int) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen([sys.executable, "-c", TERM, *words], env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "up\n"
        process.terminate()
        assert process.stdout.read().split("\n")[:-1] == said
        assert process.wait(10) == code


def test_sigterm_that_came_first_is_heeded_later() -> None:
    term, heard = Term(), []
    term.come()
    term.heed(lambda: heard.append(1))
    assert heard == [1]


def test_sigterm_cannot_be_caught_beside_the_main_thread_and_that_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "sliceform.on_host")
    packed = pickle.dumps(Term())
    made: list[Any] = []
    thread = threading.Thread(target=lambda: made.append(pickle.loads(packed)))
    thread.start()
    thread.join()
    assert isinstance(made[0], Term)
    assert "cannot be caught" in caplog.text
