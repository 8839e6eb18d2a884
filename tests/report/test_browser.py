"""The page as a person meets it, in headless Chromium: bars are there, filters and keys work, nothing complains."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route

from sliceform.controller import Settings, SliceController
from sliceform.controller.model.shapes import GpuSlice
from sliceform.controller.report import serve, timeline_page
from sliceform.controller.testing import FakeClock, SimBackend
from sliceform.states import History, SliceState

from .conftest import EPOCH, Incident, show

pytestmark = pytest.mark.timeout(60)

#: How long the page may take for anything, in milliseconds.
PATIENCE_MS = 10_000.0

Opener = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser) -> Iterator[Opener]:
    """Open an address in a window of its own; at the end nothing may have complained or asked for more."""
    said: list[str] = []
    pages: list[Page] = []

    def open_one(address: str | Path, **options: Any) -> Page:
        page = browser.new_page(**{"viewport": {"width": 1200, "height": 700}, "timezone_id": "UTC"} | options)
        pages.append(page)
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("requestfailed", lambda request: said.append(f"failed: {request.url}"))
        page.goto(address.as_uri() if isinstance(address, Path) else address)
        page.wait_for_function("() => window.sliceform !== undefined")
        return page

    yield open_one
    for page in pages:
        page.close()
    assert said == []


@pytest.fixture(scope="module")
def file(history: History, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the incident."""
    path = tmp_path_factory.mktemp("page") / "fleet.html"
    path.write_text(timeline_page(history, title="an incident"), encoding="utf-8")
    return path


def stats(page: Page) -> dict[str, Any]:
    """Return what the page says of itself: rows, number of bars, the time that is seen, what is chosen."""
    found: dict[str, Any] = page.evaluate("() => { draw(); return sliceform.stats(); }")
    return found


def colour_at(page: Page, key: str, at: float) -> tuple[int, ...]:
    """Return the colour on the canvas at a row and a time, epoch seconds."""
    found: list[int] = page.evaluate(
        """([key, time]) => {
            draw();
            const [x, y] = sliceform.place(key, time);
            const edge = y - view.rows.find((one) => one.key === key).height / 2 + 4;
            const point = new OffscreenCanvas(1, 1).getContext("2d");
            const ratio = window.devicePixelRatio;
            point.drawImage(canvas, x * ratio, edge * ratio, 1, 1, 0, 0, 1, 1);
            return [...point.getImageData(0, 0, 1, 1).data].slice(0, 3);
        }""",
        [key, at * 1000],
    )
    return tuple(found)


def style(page: Page, name: str) -> tuple[int, ...]:
    """Return a colour of the style sheet."""
    text: str = page.evaluate("name => colours['--' + name]", name)
    return tuple(bytes.fromhex(text.removeprefix("#")))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_bars_have_the_colour_of_the_state_at_their_time(
    opened: Opener, file: Path, history: History, scheme: str
) -> None:
    page = opened(file, color_scheme=scheme)
    assert page.title() == "an incident"
    shown = stats(page)
    assert shown["rows"] == ["run-1", "slice-1", "slice-2", "slice-3"]
    assert shown["drawn"] > 8
    moments = sorted({change.at for change in history})
    seen = set()
    # In the middle of all stretches that are wide enough for a colour of their own.
    for begin, end in pairwise(moments):
        if end - begin >= 0.5:
            for key, state in history.at((begin + end) / 2).items():
                if "/" not in key:
                    assert colour_at(page, key, (begin + end) / 2) == style(page, state), (key, state, begin)
                    seen.add(state)
    assert {"pending", "ready", "running"} <= seen
    assert style(page, "paper") == ((255, 255, 255) if scheme == "light" else (20, 24, 29))


def test_hosts_are_shown_when_asked_for(opened: Opener, file: Path) -> None:
    page = opened(file)
    page.get_by_label("hosts").check()
    hosts = [key for key in stats(page)["rows"] if "/" in key]
    assert hosts == ["slice-1/0", "slice-1/1", "slice-2/0", "slice-2/1", "slice-3/0", "slice-3/1"]


def test_filters_leave_the_slices_that_are_wanted(opened: Opener, file: Path) -> None:
    page = opened(file)
    page.get_by_label("Slice or run").fill("slice-3, RUN")
    assert stats(page)["rows"] == ["run-1", "slice-3"]
    page.get_by_label("Slice or run").fill("")
    page.get_by_label("Reason").select_option("node_died")
    assert stats(page)["rows"] == ["slice-2"]
    page.get_by_label("Reason").select_option("")
    page.get_by_label("State", exact=False).and_(page.locator("select")).select_option("preempted")
    assert stats(page)["rows"] == ["slice-2"]
    page.get_by_label("Slice or run").fill("slice-1")
    assert stats(page)["rows"] == []
    assert page.get_by_text("No slice or run matches the filters.").is_visible()


def test_a_change_is_told_under_the_pointer(opened: Opener, file: Path, history: History) -> None:
    page = opened(file)
    (loss,) = (change for change in history.story("slice-2") if change.dest == "preempted" and change.kind == "slice")
    x, y = page.evaluate("([key, time]) => sliceform.place(key, time)", ["slice-2", loss.at * 1000])
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + x, box["y"] + y)
    tip = page.get_by_role("tooltip")
    tip.wait_for()
    words = tip.inner_text()
    assert "slice-2" in words
    assert "\u2192 preempted" in words or "preempted \u2192" in words
    assert "2023-11-14 22:13:2" in words
    page.mouse.click(box["x"] + x, box["y"] + y)
    assert stats(page)["chosen"] == "slice-2"
    assert page.locator("#chosen").inner_text() == "slice-2"
    assert "replaced by slice-3" in page.locator("#about").inner_text()
    assert page.locator("#story li").count() == len(history.story("slice-2"))
    assert page.locator("#story li.loss").count() >= 1


def test_all_of_it_works_with_a_keyboard(opened: Opener, file: Path, history: History) -> None:
    page = opened(file)
    whole = stats(page)
    page.locator("#canvas").focus()
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    assert stats(page)["chosen"] == "slice-2"
    page.keyboard.press("Enter")
    assert "slice-2/1" in stats(page)["rows"]
    own = [index for index, change in enumerate(history) if change.key == "slice-2"]
    for expected in own[:4]:
        page.keyboard.press(".")
        assert stats(page)["change"] == expected
    page.keyboard.press(",")
    assert stats(page)["change"] == own[2]
    assert page.locator("#said").inner_text().startswith("slice-2")
    page.keyboard.press("+")
    near = stats(page)
    assert near["to"] - near["from"] == pytest.approx(0.7 * (whole["to"] - whole["from"]))
    page.keyboard.press("ArrowRight")
    assert stats(page)["from"] > near["from"]
    page.keyboard.press("0")
    again = stats(page)
    assert (again["from"], again["to"]) == (whole["from"], whole["to"])
    page.keyboard.press("Escape")
    assert stats(page)["chosen"] is None


def test_the_wheel_zooms_around_the_pointer(opened: Opener, file: Path) -> None:
    page = opened(file)
    before = stats(page)
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 500, box["y"] + 100)
    under = page.evaluate("() => view.time(500)")
    page.mouse.wheel(0, -300)
    page.wait_for_function(
        "width => sliceform.stats().to - sliceform.stats().from < width", arg=before["to"] - before["from"]
    )
    assert page.evaluate("() => view.time(500)") == pytest.approx(under, abs=5)


def test_what_is_seen_can_be_exported(opened: Opener, file: Path) -> None:
    page = opened(file)
    with page.expect_download() as svg:
        page.get_by_role("button", name="SVG").click()
    assert svg.value.suggested_filename == "an-incident.svg"
    text = Path(svg.value.path()).read_text(encoding="utf-8")
    assert text.startswith("<svg")
    assert "slice-3" in text
    with page.expect_download() as png:
        page.get_by_role("button", name="PNG").click()
    assert Path(png.value.path()).read_bytes().startswith(b"\x89PNG")
    # The export opens by itself, and says the same.
    page.goto("about:blank")
    page.set_content(text)
    assert page.locator("svg text", has_text="slice-3").count() >= 1


def test_it_is_printed_dark_on_light_and_without_controls(opened: Opener, file: Path) -> None:
    page = opened(file, color_scheme="dark")
    page.evaluate("() => addEventListener('beforeprint', () => { window.printed = colours['--paper']; })")
    assert page.pdf().startswith(b"%PDF")
    assert page.evaluate("() => window.printed") == "#ffffff"
    assert style(page, "paper") == (20, 24, 29)
    page.emulate_media(media="print")
    assert page.locator("#controls").is_hidden()
    assert page.locator("#title").is_visible()


@pytest.mark.parametrize("width", [360, 800])
def test_it_fits_small_windows(opened: Opener, file: Path, width: int) -> None:
    page = opened(file, viewport={"width": width, "height": 700})
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width


def test_texts_of_exceptions_are_shown_as_texts(opened: Opener, tmp_path: Path) -> None:
    history = History()
    nasty = "</script><script>throw 1</script><img src=x onerror='throw 2'>"
    fields = {"tick": 1, "at": 1.0, "kind": "slice", "trigger": "create", "source": None, "dest": "pending"}
    history.append(**fields, key="slice-1", reason="desired", detail=nasty)
    path = tmp_path / "nasty.html"
    path.write_text(timeline_page(history, title=nasty), encoding="utf-8")
    page = opened(path)
    page.locator("#canvas").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press(".")
    assert nasty in page.get_by_role("tooltip").inner_text()
    assert nasty in page.locator("#story").inner_text()
    assert page.locator("#title").inner_text() == nasty


def test_an_empty_history_says_so(opened: Opener, tmp_path: Path) -> None:
    path = tmp_path / "empty.html"
    path.write_text(timeline_page(History()), encoding="utf-8")
    assert opened(path).get_by_text("Nothing has happened yet").is_visible()


def record(history: History, key: str, at: float, dest: str, source: str | None = None) -> None:
    """Move a slice, or make it."""
    trigger = "prepare" if source else "create"
    fields = {"tick": 1, "at": at, "kind": "slice", "key": key, "reason": "desired", "detail": "", "cause": None}
    history.append(**fields, trigger=trigger, source=source, dest=dest)


def write(history: History, path: Path) -> Path:
    """Write the page of a history."""
    path.write_text(timeline_page(history), encoding="utf-8")
    return path


def test_an_empty_history_can_be_zoomed_and_moved(opened: Opener, tmp_path: Path) -> None:
    page = opened(write(History(), tmp_path / "empty.html"))
    page.locator("#canvas").focus()
    for key in ("+", "-", "-", "Home", "End", "ArrowLeft", "0", "-"):
        page.keyboard.press(key)
        shown = stats(page)
        assert shown["from"] < shown["to"], key


def test_a_loss_and_its_cause_are_on_top_of_what_came_after(opened: Opener, file: Path, history: History) -> None:
    page = opened(file)
    own = [change for change in history.story("slice-2") if change.key == "slice-2"]
    (loss,) = (change for change in own if change.trigger == "preempt")
    (gone,) = (change for change in own if change.dest is None)
    pixel = page.evaluate("() => view.time(1) - view.time(0)") / 1000
    # Its edges may lie within a point of the screen.
    assert colour_at(page, "slice-2", loss.at + pixel) == pytest.approx(style(page, "preempted"), abs=60)
    x, end = page.evaluate(
        """end => {
            const picture = new DOMParser().parseFromString(sliceform.svg(), "image/svg+xml");
            const cause = [...picture.querySelectorAll("text")].find((one) => one.textContent === "node_died");
            return [Number(cause.getAttribute("x")), view.x(end)];
        }""",
        gone.at * 1000,
    )
    assert x > end


def test_what_was_before_the_oldest_change_that_is_kept_is_not_drawn(opened: Opener, tmp_path: Path) -> None:
    history = History(limit=2)
    for number in (1, 2, 3):
        record(history, f"slice-{number}", EPOCH + 10.0 * (number - 1), "pending")
    page = opened(write(history, tmp_path / "short.html"))
    page.get_by_label("Zoom out").click()
    drawn = stats(page)
    assert drawn["from"] < (EPOCH + 9.0) * 1000
    assert colour_at(page, "slice-1", EPOCH + 9.0) != style(page, "pending")
    assert colour_at(page, "slice-1", EPOCH + 11.0) == style(page, "pending")


def test_a_clock_that_was_set_back_hides_nothing(opened: Opener, tmp_path: Path) -> None:
    history = History()
    record(history, "slice-1", EPOCH + 50.0, "pending")
    record(history, "slice-2", EPOCH + 100.0, "pending")
    record(history, "slice-1", EPOCH + 10.0, "ready", "pending")
    record(history, "slice-1", EPOCH + 30.0, "running", "ready")
    page = opened(write(history, tmp_path / "back.html"))
    shown = stats(page)
    assert shown["from"] < (EPOCH + 10.0) * 1000
    assert shown["to"] > (EPOCH + 100.0) * 1000
    assert colour_at(page, "slice-1", EPOCH + 20.0) == style(page, "ready")
    assert colour_at(page, "slice-1", EPOCH + 90.0) == style(page, "running")


@pytest.mark.parametrize(("days", "lines"), [(9.0, 5), (1000.0, 2), (3500.0, 5)])
def test_days_begin_at_midnight_also_when_the_clocks_change(
    opened: Opener, tmp_path: Path, days: float, lines: int
) -> None:
    history = History()
    october_25 = 1_698_184_800.0
    record(history, "slice-1", october_25, "pending")
    record(history, "slice-2", october_25 + days * 86_400, "pending")
    page = opened(write(history, tmp_path / "days.html"), timezone_id="Europe/Berlin")
    hours = page.evaluate(
        """() => {
            const picture = new DOMParser().parseFromString(sliceform.svg(), "image/svg+xml");
            const marks = [...picture.querySelectorAll("text[text-anchor=middle]")];
            return marks.map((one) => Math.round(view.time(Number(one.getAttribute("x"))) / 36e5) * 36e5)
                .map((time) => new Date(time).getHours());
        }"""
    )
    assert lines - 1 <= len(hours) <= 12
    if days < 100:  # else an hour is less than can be seen
        assert set(hours) == {0}


def test_the_box_for_hosts_goes_for_all_slices(opened: Opener, file: Path) -> None:
    page = opened(file)
    page.locator("#canvas").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert sum("/" in key for key in stats(page)["rows"]) == 2
    page.get_by_label("hosts").check()
    assert sum("/" in key for key in stats(page)["rows"]) == 6
    page.get_by_label("hosts").uncheck()
    assert sum("/" in key for key in stats(page)["rows"]) == 0


def test_the_legend_explains_every_mark(opened: Opener, file: Path) -> None:
    said = opened(file).locator("#legend li").all_inner_texts()
    for mark in (
        *SliceState,
        "a loss or notice, and its reason",
        "a note",
        "to what replaced it",
        "attempt: running",
        "superseded",
    ):
        assert any(text.endswith(mark) for text in said), mark


def test_all_rows_are_printed_and_what_is_not_is_said(opened: Opener, tmp_path: Path) -> None:
    history = History()
    for number in range(1200):
        record(history, f"slice-{number}", EPOCH + number, "pending")
    page = opened(write(history, tmp_path / "long.html"), viewport={"width": 500, "height": 400})
    printed = """() => {
        dispatchEvent(new Event("beforeprint"));
        const rows = [...document.querySelectorAll("#sheets text")].map((one) => one.textContent);
        return rows.filter((text) => text.startsWith("slice-"));
    }"""
    rows = page.evaluate(printed)
    left_out = 1200 - len(rows)
    assert rows == [f"slice-{number}" for number in range(len(rows))]
    assert f"{left_out} more rows are left out" in page.locator("#printed").text_content()
    page.emulate_media(media="print")
    for sheet in page.locator("#sheets svg").all():
        box = sheet.bounding_box()
        assert box is not None
        assert box["width"] <= 500
    page.evaluate("() => dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    assert page.locator("#sheets svg").count() == 0
    page.get_by_label("Slice or run").fill("slice-119")
    assert page.evaluate(printed) == ["slice-119", *(f"slice-{number}" for number in range(1190, 1200))]
    assert "filters hide are left out" in (page.locator("#printed").text_content() or "")


def test_rows_are_scrolled_by_the_bar_and_the_wheel(opened: Opener, tmp_path: Path) -> None:
    history = History()
    for number in range(200):
        record(history, f"slice-{number}", EPOCH + number, "pending")
    page = opened(write(history, tmp_path / "long.html"))
    assert len(stats(page)["rows"]) == 200
    page.evaluate("() => { find('bar').scrollTop = 700; }")
    page.wait_for_function("() => view.scroll === 700")
    # The browser tells of the first move of the bar when the page has gone on.
    page.evaluate("() => { view.scroll = 800; draw(); view.scroll = 900; }")
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.evaluate("() => view.scroll") == 900
    page.evaluate("() => draw()")
    assert page.evaluate("() => find('bar').scrollTop") == 900


def test_a_fleet_of_a_thousand_slices_can_be_walked_through(opened: Opener, tmp_path: Path) -> None:
    """Every row can be reached, the one that is wanted is found, and only what is seen is drawn."""
    clock = FakeClock()
    shape = GpuSlice(4, 8)
    sim = SimBackend(shape, 1000, clock=clock, work_s=60.0)
    fleet = SliceController(shape, 1000, backend=sim, clock=clock, settings=Settings(history_limit=100_000))
    fleet.wait_ready(1000)
    fleet.close()
    path = tmp_path / "big.html"
    path.write_text(timeline_page(fleet.history), encoding="utf-8")
    page = opened(path)
    shown = stats(page)
    assert len(shown["rows"]) == 1000
    assert shown["drawn"] < 300
    page.get_by_label("Slice or run").fill("slice-987")
    assert stats(page)["rows"] == ["slice-987"]
    page.get_by_label("Slice or run").fill("")
    page.locator("#canvas").focus()
    page.keyboard.press("ArrowUp")
    assert stats(page)["chosen"] == "slice-1000"
    assert page.evaluate("() => view.scroll") > 0


def test_a_live_page_follows_the_fleet(opened: Opener, running: Incident) -> None:
    with running.fleet.serve() as server:
        page = opened(server.url)
        assert stats(page)["rows"] == ["slice-1", "slice-2"]
        assert page.locator("#live").inner_text() == "live"
        running.lose_and_recover()
        wanted = json.dumps(["run-1", "slice-1", "slice-2", "slice-3"])
        page.wait_for_function(
            "wanted => JSON.stringify(sliceform.stats().rows) === wanted", arg=wanted.replace(" ", "")
        )
        page.wait_for_function("number => sliceform.stats().changes === number", arg=running.history.last_seq)
        assert page.get_by_label("Reason").locator("option", has_text="node_died").count() == 1
        page.close()


def test_news_of_others_leave_the_story_that_is_read(opened: Opener, running: Incident) -> None:
    with running.fleet.serve() as server:
        page = opened(server.url, viewport={"width": 1200, "height": 300})
        page.locator("#canvas").focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press(".")
        last = page.locator("#story li").last.element_handle()
        scrolled = page.evaluate("() => { find('story').scrollTop = 60; return find('story').scrollTop; }")
        running.sim.kill_host("rack-b", 0)
        running.let(2.0)
        page.wait_for_function("number => sliceform.stats().changes === number", arg=running.history.last_seq)
        assert last.evaluate("line => line.isConnected")
        running.sim.kill_host("rack-a", 0)
        running.let(2.0)
        page.wait_for_function("number => sliceform.stats().changes === number", arg=running.history.last_seq)
        assert not last.evaluate("line => line.isConnected")
        assert page.evaluate("() => find('story').scrollTop") == scrolled > 0
        assert page.locator("#story li.chosen").count() == 1
        page.close()


def test_a_live_page_says_when_nobody_answers(browser: Browser, running: Incident) -> None:
    server = running.fleet.serve()
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(server.url)
    page.get_by_text("live", exact=True).wait_for()
    server.close()
    page.get_by_text("no answer, trying again").wait_for()
    page.close()


@contextmanager
def unasked(page: Page) -> Iterator[None]:
    """Hold back what the page asks for, and wait until it has begun anew after it was let through."""
    held: list[Route] = []
    with page.expect_request("**/changes*"):
        page.route("**/changes*", lambda route: held.append(route))  # noqa: PLW0108 - it must be a function
    with page.expect_navigation():
        yield
        page.unroute("**/changes*")
        for route in held:
            route.continue_()


def test_a_live_page_that_has_missed_changes_begins_anew(opened: Opener) -> None:
    incident = Incident(history_limit=40)
    with closing(incident.fleet), incident.fleet.serve() as server:
        page = opened(server.url)
        with unasked(page):
            incident.lose_and_recover()
            assert incident.history.dropped > 0
        page.wait_for_function("number => sliceform.stats().changes === number", arg=len(incident.history))
        assert "forgotten" in page.locator("#summary").inner_text()
        page.close()


def test_a_live_page_sees_that_another_driver_has_its_address(opened: Opener, history: History) -> None:
    first = show(history, "the first")
    page = opened(first.url)
    with unasked(page):
        first.close()
        second = show(history, "the second", port=int(first.url.rpartition(":")[2].strip("/")))
    with second:
        page.locator("#title", has_text="the second").wait_for()
        page.close()


def test_a_live_page_sees_that_its_journal_was_replaced(opened: Opener, history: History) -> None:
    """By one of which it knows the last number, and that goes on from there."""
    other = History()
    for change in history:
        other.record(change._replace(at=change.at + 5.0))
    begin = list(history)[:20]
    served = History()
    for change in begin:
        served.record(change)
    kept = [served]
    with serve(lambda: nullcontext(kept[-1]), title="a journal", now=lambda _: EPOCH) as server:
        page = opened(server.url)
        with unasked(page):
            kept.append(other)
        page.wait_for_function("number => sliceform.stats().changes === number", arg=len(other))
        page.close()


def test_a_live_page_that_never_fits_does_not_begin_anew_for_ever(
    browser: Browser, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_module("sliceform.controller.report.serve")
    monkeypatch.setattr(module, "news", lambda *_, **__: {"seq": 0, "at": []})
    with show(history) as server:
        page = browser.new_page()
        pages: list[str] = []
        page.on("request", lambda request: pages.append(request.url) if request.is_navigation_request() else None)
        page.goto(server.url)
        page.get_by_text("no answer, trying again").wait_for()
        assert pages == [server.url] * 2
        page.close()
