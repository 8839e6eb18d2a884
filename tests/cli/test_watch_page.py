"""`watch` follows a fleet that has no journal through the page that it serves."""

import contextlib
import json
import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sliceform.controller.api.controller import SliceController
from sliceform.controller.cli.page import Page
from sliceform.controller.model.shapes import TpuSlice
from sliceform.controller.testing import FakeClock, SimBackend

EPOCH = 1_700_000_000.0
BOUND_S = 20.0


@pytest.fixture
def fleet(quiet):
    """A fleet of two slices without a journal, and the cluster that it is on."""
    clock = FakeClock(epoch=EPOCH)
    sim = SimBackend(TpuSlice("v4-16"), ["rack-a", "rack-b", "rack-c"], clock=clock, work_s=10.0)
    one = SliceController(TpuSlice("v4-16"), 2, name="bare", backend=sim, clock=clock)
    one.wait_ready(2)
    yield one, sim
    one.close(grace_s=0.0)


def told(history):
    """All but ticks, which the page does not tell, to the millisecond."""
    return [change._replace(tick=0, at=round(change.at, 3)) for change in history.since(0)]


def runs(history):
    return [(run.id, run.state, run.stood_still_s, [row.slices for row in run.attempts]) for run in history.runs()]


def test_a_page_tells_the_history_of_the_fleet_and_what_comes_to_it(fleet):
    one, sim = fleet
    run = one.submit(max, 1, 2)
    with one.serve() as server:
        page = Page(server.url)
        assert told(page.history) == told(one.history)
        seq = page.history.last_seq
        news = page.news(seq)
        assert next(news) == ()
        sim.kill_host("rack-b", 1)
        run.result()
        came = next(news)
        assert [change.seq for change in came] == list(range(seq + 1, one.history.last_seq + 1))
        assert told(page.history) == told(one.history)
        assert runs(page.history) == runs(one.history)
        assert page.history.at(EPOCH + 1000.0) == one.history.at(EPOCH + 1000.0)
        assert next(news) == ()
    assert list(news) == []
    assert page.said().startswith(f"nobody answers at {page.url}: ")


def test_on_a_terminal_the_fleet_is_seen_until_ctrl_c(fleet, on_terminal):
    one, sim = fleet
    with one.serve() as server:
        terminal = on_terminal("watch", server.url)
        terminal.until("2 ready; the fleet at http://127.0.0.1:")
        sim.kill_host("rack-b", 1)
        sim.clock.advance(0.25)
        one.step()
        terminal.until("replaces slice-2")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.ended() == 0
    assert "Traceback" not in terminal.said


def test_in_a_pipe_every_change_is_a_line_until_the_fleet_closes(ask, fleet):
    one, _ = fleet
    server = one.serve()
    # Between the first answer and the next one, as a driver that ends.
    asked = Page.news

    def close_then_ask(page, seq):
        server.close()
        return asked(page, seq)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Page, "news", close_then_ask)
        code, out, err = ask("watch", server.url, "--json")
    assert code == 0
    assert [json.loads(line)["seq"] for line in out.splitlines()] == [
        change.seq for change in one.history.since(0)[-10:]
    ]
    assert err.startswith(f"nobody answers at {server.url.rstrip('/')}: ")


def test_another_fleet_at_the_same_place_is_noticed(ask):
    empty = {
        name: [] for name in ("at", "kind", "key", "from", "to", "trigger", "reason", "detail", "cause", "attempts")
    }
    answers = [empty | {"seq": 5, "texts": [""]}, empty | {"seq": 3, "texts": [""]}]
    with answering(*(json.dumps(answer) for answer in answers)) as url:
        code, out, err = ask("watch", url)
    assert (code, out) == (2, "")
    assert f"{url} tells of another fleet than before" in err


@contextlib.contextmanager
def answering(*bodies, status=200):
    """Answer with these, one after the other; the last one again and again."""
    left = list(bodies)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = (left.pop(0) if len(left) > 1 else left[0]).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join(BOUND_S)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("<html>", 200, "is no page of sliceform: its answer is no JSON"),
        ("", 200, "its answer is no JSON"),
        ("[]", 200, "its answer has another form"),
        ("{}", 200, "its answer has another form"),
        ('{"texts": [""], "seq": 1, "at": [1], "attempts": []}', 200, "its answer has another form"),
        ("no", 404, "cannot be followed: it answers 404 Not Found"),
    ],
)
def test_what_is_no_page_of_a_fleet_is_refused(ask, body, status, said):
    with answering(body, status=status) as url:
        code, out, err = ask("watch", url)
    assert (code, out) == (2, "")
    assert said in err


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:{port}", "http://", "http://[::1", "http://127.0.0.1:port", "http://a b"]
)
def test_where_nobody_answers_is_said(ask, address):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        url = address.format(port=taken.getsockname()[1])
        code, out, err = ask("watch", url)
    assert (code, out) == (2, "")
    assert "nobody answers at http:" in err


def test_who_keeps_silent_is_not_waited_for(ask, monkeypatch):
    monkeypatch.setattr("sliceform.controller.cli.page._ANSWER_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code, _, err = ask("watch", f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert code == 2
    assert "timed out" in err
