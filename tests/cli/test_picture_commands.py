"""Commands that draw: where the picture goes, what is refused, and a page that is served until it is stopped."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from sliceform.controller.errors import ConfigurationError
from sliceform.controller.follow.journal import open_journal

_MAIN = "import sys; from sliceform.controller.cli import main; sys.exit(main())"


@pytest.fixture
def journal(closed, monkeypatch, tmp_path):
    """A copy that nobody else has, in the folder where we are: by default the page is written beside it."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "fleet.db"
    path.write_bytes(closed.read_bytes())
    return path


def test_the_page_is_written_beside_the_journal(ask, journal):
    code, out, _ = ask("timeline", journal)
    page = journal.with_suffix(".html")
    with open_journal(journal) as opened:
        changes = len(opened)
    assert code == 0
    assert out == f"wrote {page}: {changes} changes, {page.stat().st_size / 1000:.0f} kB\n"
    assert "<title>fleet.db</title>" in page.read_text(encoding="utf-8")


def test_the_picture_goes_where_it_is_told(ask, journal, tmp_path):
    picture = tmp_path / "fleet.svg"
    code, out, _ = ask("timeline", journal, "-o", picture, "--title", "Tuesday", "--json")
    assert code == 0
    with open_journal(journal) as opened:
        assert json.loads(out) == {"file": str(picture), "changes": len(opened), "bytes": picture.stat().st_size}
    text = picture.read_text(encoding="utf-8")
    assert text.startswith("<svg")
    assert "<title>Tuesday</title>" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "fleet.png"], "fleet.png must end in .html or .svg"),
        (["-o", "no/such/folder/fleet.html"], "cannot write no/such/folder/fleet.html: No such file or directory"),
        (["--titel", "x"], "--title"),
    ],
)
def test_what_cannot_be_written_is_refused(ask, journal, words, said):
    code, out, err = ask("timeline", journal, *words)
    assert (code, out) == (2, "")
    assert said in err
    assert not [path for path in journal.parent.iterdir() if path.suffix in {".html", ".svg", ".png"}]


@pytest.mark.parametrize("command", ["timeline", "serve"])
def test_what_is_no_journal_is_refused(ask, tmp_path, command):
    (tmp_path / "fleet.txt").write_text("a text")
    code, _, err = ask(command, tmp_path / "fleet.txt")
    assert code == 2
    assert "is not a journal" in err
    code, _, err = ask(command, tmp_path / "fleet.tx")
    assert code == 2
    assert "did you mean 'fleet.txt'" in err
    assert [path.name for path in tmp_path.iterdir()] == ["fleet.txt"]


def test_a_port_in_use_is_refused(ask, closed):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, out, err = ask("serve", closed, "--port", port)
    assert (code, out) == (2, "")
    assert f"cannot serve on 127.0.0.1:{port}" in err
    assert "choose another port" in err


def test_a_port_that_cannot_be_is_refused(ask, closed):
    assert ask("serve", closed, "--port", 70_000)[0] == 2


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_a_journal_that_grows_is_served_until_ctrl_c(living, words):
    command = [sys.executable, "-c", _MAIN, "serve", str(living), *words]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline() if not words else "".join(process.stdout.readline() for _ in range(3))
            url = json.loads(line)["url"] if words else line.split(" is at ")[1].split(";")[0]
            with urllib.request.urlopen(f"{url}changes?since=0", timeout=10) as answer:  # noqa: S310 - ours
                news = json.loads(answer.read())
            with open_journal(living) as journal:
                assert news["seq"] == journal.last_seq
        finally:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (0, "")
    assert out == ""


def test_a_journal_that_was_closed_ends_with_its_last_change(monkeypatch, ask, closed):
    """Its slices have not gone on until today."""
    answers = []

    def serve(opened, *, now, **_):
        with opened() as journal:
            answers.append((now(journal), journal.span()[1]))
        raise ConfigurationError("seen enough")

    monkeypatch.setattr("sliceform.controller.report.serve", serve)
    assert ask("serve", closed)[0] == 2
    ((now, last),) = answers
    assert now == last
