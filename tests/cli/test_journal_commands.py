"""What can be asked of a journal on the command line, and how wrong questions are answered."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest

from sliceform.controller.cli import screen
from sliceform.controller.follow.journal import open_journal
from sliceform.states import Change

_MAIN = "import sys; from sliceform.controller.cli import main; sys.exit(main())"
WAIT_S = 20.0


def test_one_command_tells_what_was_lost_how_it_was_learnt_what_replaced_it_and_what_stood_still(ask, closed):
    code, out, _ = ask("why", closed)
    assert code == 0
    assert "host slice-2/1 on node 00000004 of rack-b was lost at 2023-11-14 22:13:27.000, learnt by node_died" in out
    assert "slice-3 at rack-c replaced slice-2 and was ready 2.0 s after the loss" in out
    assert "its work stood still for 3.0 s, from 2023-11-14 22:13:27.000 until 2023-11-14 22:13:30.000" in out
    assert "when run-1/2 ran on all hosts" in out


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("run-1", "run-1 succeeded after 2 attempts: every host returned"),
        ("slice-2", "slice-2 is gone since 2023-11-14 22:13:28.000 (groups_removed)"),
        ("slice-2/1", "lost: host slice-2/1 on node 00000004 of rack-b"),
        ("slice-3", "replaces: it stands in for slice-2"),
        ("slice-4", "slice-4 is pending since"),
        ("slice-4", "waiting: it waits for its reservation to be placed"),
    ],
)
def test_why_explains_a_slice_or_a_run(ask, living, key, said):
    code, out, _ = ask("why", living, key)
    assert code == 0
    assert said in out


def test_why_gives_programs_the_same(ask, living):
    _, out, _ = ask("why", living, "--json")
    told = json.loads(out)
    assert [why["key"] for why in told["slices"]] == ["slice-4"]
    (loss,) = told["losses"]
    assert (loss["host"], loss["reason"], loss["replaced_by"]) == ("slice-2/1", "node_died", "slice-3")
    assert loss["replacement_ready_at"] - loss["at"] == 2.0
    _, out, _ = ask("why", living, "run-1", "--json")
    assert json.loads(out)["run"]["stood_still_s"] == 3.0


def test_a_story_is_shown_in_local_time_with_its_date(ask, closed):
    code, out, _ = ask("story", closed, "slice-2")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "2023-11-14 22:13:20.000  slice-2    [*] -> pending  (desired)"
    assert lines[12].endswith(
        "slice-2    running -> preempted  (node_died) host 1: node 00000004: killed  <- slice-2/1"
    )
    _, out, _ = ask("story", closed, "slice-2", "run-1", "--json")
    with open_journal(closed) as journal:
        assert json.loads(out) == [change.as_dict() for change in journal.story("slice-2", "run-1")]


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["--reason", "node_died"], 3),
        (["--state", "preempted", "--kind", "host"], 2),
        (["--slice", "slice-3/0", "--state", "ready"], 2),
        (["--run", "run-1", "--limit", "3"], 3),
        (["--since", "1700000007", "--until", "2023-11-14T22:13:27.5"], 10),
        (["--until", "22:13:20", "--limit", "1"], 1),
    ],
)
def test_history_is_selected(ask, closed, words, count):
    code, out, _ = ask("history", closed, *words)
    assert (code, len(out.splitlines())) == (0, count), out


def test_nothing_found_is_a_no(ask, closed):
    assert ask("history", closed, "--reason", "silent") == (1, "", "no change in the journal matches\n")
    assert ask("history", closed, "--since", "10m") == (1, "", "no change in the journal matches\n")
    code, out, _ = ask("history", closed, "--reason", "silent", "--json")
    assert (code, json.loads(out)) == (1, [])


def test_status_shows_the_fleet_as_it_was(ask, closed):
    _, out, _ = ask("status", closed, "--at", "2023-11-14T22:13:24")
    assert out.startswith("2023-11-14 22:13:24.000  2 wanted; 2 running; the driver of train (process ")
    rows = [line.split() for line in out.splitlines()[2:4]]
    assert [(row[0], row[1], row[6], row[7]) for row in rows] == [
        ("slice-1", "running", "rack-a", "2/2"),
        ("slice-2", "running", "rack-b", "2/2"),
    ]
    assert "run-1  running" in out
    _, out, _ = ask("status", closed, "--json")
    told = json.loads(out)
    assert (told["driver"], told["slices"], told["wish"]["sizes"]) == ("closed", [], [3])


def test_runs_are_shown_with_attempts_hosts_and_pauses(ask, closed):
    code, out, _ = ask("runs", closed)
    assert code == 0
    assert any(line.split()[:2] == ["run-1/1", "preempted"] and "3.0 s" in line for line in out.splitlines())
    _, out, _ = ask("runs", closed, "run-1")
    assert any(line.split()[:4:3] == ["run-1/1", "lost"] and "slice-2/1" in line for line in out.splitlines())
    _, out, _ = ask("runs", closed, "--json")
    assert [attempt["outcome"] for attempt in json.loads(out)[0]["attempts"]] == ["preempted", "succeeded"]


def test_lines_of_slices_are_shown(ask, closed):
    _, out, _ = ask("lineage", closed)
    assert [line.split()[0] for line in out.splitlines()] == ["slice", "slice-1", "slice-2", "slice-3", "slice-4"]
    _, out, _ = ask("lineage", closed, "slice-3", "--json")
    assert [[link["slice_id"] for link in line] for line in json.loads(out)] == [["slice-2", "slice-3"]]


def test_durations_are_shown(ask, closed):
    _, out, _ = ask("durations", closed)
    assert out.splitlines()[-1].startswith("all hosts")
    _, out, _ = ask("durations", closed, "slice-2", "--json")
    assert json.loads(out)["records"]["slice-2"]["draining"] == 1.0


def test_check_replays_and_says_what_does_not_fit(ask, closed, tmp_path):
    code, out, _ = ask("check", closed)
    assert code == 0
    assert "changes replayed: 0 violations; the driver of train" in out
    forged = tmp_path / "forged.db"
    forged.write_bytes(closed.read_bytes())
    import sqlite3

    connection = sqlite3.connect(forged)
    connection.execute("UPDATE changes SET dest = 'running' WHERE key = 'slice-1' AND trigger = 'prepare'")
    connection.commit()
    connection.close()
    code, out, _ = ask("check", forged)
    assert code == 1
    assert "slice-1 leads to running, but should to ready" in out
    code, out, _ = ask("check", forged, "--json")
    assert (code, len(json.loads(out)["violations"]) > 0) == (1, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["story", "{file}", "slice-33"], "the journal knows no 'slice-33'; did you mean 'slice-3'?"),
        (["story", "{file}", "slice-2/7"], "did you mean 'slice-2/1'?"),
        (["why", "{file}", "qqqq"], "the journal knows no 'qqqq'; it has "),
        (["runs", "{file}", "rnu-1"], "did you mean 'run-1'?"),
        (["runs", "{file}", "slice-1"], "slice-1 is a slice: see `sliceform story` or `sliceform lineage`"),
        (["lineage", "{file}", "run-1"], "run-1 is a run: see `sliceform runs` or `sliceform story`"),
        (["lineage", "{file}", "slice-2/1"], "slice-2/1 is a host: see `sliceform story` or `sliceform durations`"),
        (["durations", "{file}", "run-1"], "run-1 is a run: see"),
        (["history", "{file}", "--slice", "run-1"], "run-1 is a run: see"),
        (["history", "{file}", "--run", "slice-1"], "slice-1 is a slice: see"),
        (["stroy", "{file}"], "there is no command 'stroy'; did you mean 'story'?"),
        (["history", "{file}", "--reason", "node_dead"], "did you mean 'node_died'?"),
        (["history", "{file}", "--state", "runing"], "did you mean 'running'?"),
        (["history", "{file}", "--since", "yesterday"], "'yesterday' is no time; write 2026-05-04T10:30:00"),
        (["history", "{file}", "--slice", "slice-1", "--run", "run-1"], "exclude each other"),
        (["status", "{file}", "--at", "1600000000"], "it begins at 2023-11-14 22:13:20.000"),
        (["status", "{file}", "--at", "4000000000"], "that has not come"),
        (["status", "{file}", "--at", "inf"], "'inf' is no time: it is not within the years 1 to 9999"),
        (["status", "{file}", "--at", "nan"], "'nan' is no time"),
        (["status", "{file}", "--at", "1e18"], "'1e18' is no time"),
        (["status", "{file}", "--at", "99999999999999"], "'99999999999999' is no time"),
        (["status", "{file}", "--at", "99999999999999d"], "'99999999999999d' is no time"),
        (["status", "{file}", "--at=-99999999999999"], "'-99999999999999' is no time"),
        (["history", "{file}", "--since", "inf"], "'inf' is no time"),
        (["history", "{file}", "--since", "nan"], "'nan' is no time"),
        (["history", "{file}", "--until", "-inf"], "'-inf' is no time"),
        (["check", "{folder}/fleat.db"], "does not exist: give the path of a journal's file; did you mean 'fleet.db'?"),
        (["check", "{folder}"], "is a folder"),
        (["check", "{text}"], "is not a journal"),
    ],
)
def test_wrong_questions_are_answered_with_what_may_have_been_meant(ask, closed, tmp_path, words, said):
    text = tmp_path / "text.db"
    text.write_text("no journal " * 1000)
    code, out, err = ask(*(word.format(file=closed, folder=closed.parent, text=text) for word in words))
    assert (code, out) == (2, "")
    assert said in " ".join(err.split())


@pytest.mark.parametrize(
    ("journal", "said"),
    [
        ("{folder}/nope/x.db", "nope does not exist"),
        ("{folder}", "is a folder"),
        ("{text}", "is not a journal"),
        ("{living}", "is written by another fleet"),
    ],
)
def test_the_demo_refuses_a_journal_before_it_starts_anything(ask, living, monkeypatch, journal, said):
    monkeypatch.setitem(sys.modules, "sliceform.controller.cli.demo.demo", None)
    code, out, err = ask("demo", "--journal", journal.format(folder=living.parent, living=living, text=__file__))
    assert (code, out) == (2, "")
    assert said in err


@pytest.mark.parametrize(
    "command", ["why", "status", "watch", "history", "story", "runs", "lineage", "durations", "check"]
)
def test_every_command_tells_its_exit_codes_and_speaks_json(ask, command):
    code, out, _ = ask(command, "--help")
    assert code == 0
    assert "exit codes:" in out
    assert "--json" in out


def test_a_time_of_today_and_so_long_ago_are_understood():
    from sliceform.controller.cli.times import Moment, when

    now = time.time()
    assert abs(Moment().convert("10m", None, None) - (now - 600)) < 5
    assert abs(Moment().convert("1.5h ago", None, None) - (now - 5400)) < 5
    local = datetime.now().astimezone()
    assert Moment().convert(f"{local:%H:%M}", None, None) == local.replace(second=0, microsecond=0).timestamp()
    assert Moment().convert("2023-11-14T22:13:20+00:00", None, None) == 1_700_000_000.0
    assert when(now)[2] == ":"
    assert when(0.0).startswith(("1970-01-01 ", "1969-12-31 "))
    assert datetime.fromtimestamp(0, tz=UTC).year == 1970


def command(*words, **options):
    environment = {key: value for key, value in os.environ.items() if key not in {"NO_COLOR", "FORCE_COLOR"}}
    return subprocess.Popen(
        [sys.executable, "-c", _MAIN, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment | {"TZ": "UTC"},
        **options,
    )


def test_there_are_no_colours_in_a_pipe(closed):
    out, err = command("history", closed).communicate(timeout=WAIT_S)
    assert "\x1b" not in out + err
    assert "preempted" in out


def test_colours_on_a_terminal_and_never_with_no_color(ask, closed, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[1;31m" in ask("history", closed, "--state", "preempted")[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[1;31m" not in ask("history", closed, "--state", "preempted")[1]


def test_a_real_terminal_has_colours_unless_they_are_unwanted(closed, on_terminal):
    coloured = on_terminal("history", closed, "--state", "preempted")
    assert coloured.ended() == 0
    assert "\x1b[1;31mpreempted" in coloured.said
    plain = on_terminal("history", closed, "--state", "preempted", NO_COLOR="1")
    assert plain.ended() == 0
    assert "preempted" in plain.said
    assert "31m" not in plain.said


def test_watch_shows_what_comes_and_ends_quietly_on_ctrl_c(living):
    with command("watch", living, "--json") as process:
        lines = [json.loads(process.stdout.readline()) for _ in range(10)]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode, err) == (0, "")
    with open_journal(living) as journal:
        assert lines == [change.as_dict() for change in journal.select(limit=10)]


def test_following_ends_with_the_driver(ask, closed):
    code, out, err = ask("watch", closed)
    assert (code, len(out.splitlines())) == (0, 10)
    assert "the driver of train" in err
    assert "closed at 2023-11-14" in err
    code, out, _ = ask("history", closed, "--follow", "--run", "run-1", "--json")
    assert code == 0
    keys = [json.loads(line)["key"] for line in out.splitlines()]
    assert (len(keys), set(keys)) == (14, {"run-1", "run-1/1", "run-1/2"})


def test_a_reader_that_goes_away_is_no_error_of_ours(closed):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", _MAIN, "history", closed], stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("words", [["history", "{}"], ["status", "{}"], ["watch", "{}", "--json"]])
def test_what_standard_output_does_not_take_is_said(closed, words):
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        command = [sys.executable, "-c", _MAIN, *(word.format(closed) for word in words)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (2, b"Error: cannot use standard output: No space left on device\n")


def test_of_a_driver_that_was_killed_all_is_told_in_the_past(ask, killed):
    """Nothing of it goes on, whatever state it was in."""
    end = "when its driver ended at 2023-11-14 22:13:"
    code, out, _ = ask("why", killed)
    assert code == 0
    assert "2 of 3 slices were ready when the driver ended at 2023-11-14 22:13:" in out
    assert re.search(r"slice-4 was pending, for \d\.\d s, when its driver ended", out)
    assert "it waited for its reservation to be placed" in out
    assert f"run-3 was waiting after 0 attempts {end}" in out
    assert f"run-2 was running after 1 attempt {end}" in ask("why", killed, "run-2")[1]
    status = ask("status", killed)[1]
    assert status.startswith("as it was at 2023-11-14 22:13:")
    assert "ended without closing" in status
    assert "run-2  was running" in status
    runs = ask("runs", killed)[1]
    assert "run-3  was waiting" in runs
    assert "run-2/1  was running" in runs
    for text in (out, status, runs):
        assert " is " not in text.replace("is kept", "")


@pytest.mark.parametrize(
    "words",
    [("status",), ("runs",), ("runs", "run-2"), ("lineage",), ("durations",)],
)
def test_on_a_screen_of_80_columns_nothing_is_cut_and_no_word_broken(killed, on_terminal, words):
    """What does not fit stands below its row."""
    wide, narrow = (shown(on_terminal(*words[:1], killed, *words[1:], columns=columns)) for columns in (400, 80))
    heads = {"detail", "gone", "node", "out", "of", "use", "reason", "slices"}
    told = [{word.removesuffix(":") for word in " ".join(lines).split()} - heads for lines in (wide, narrow)]
    assert told[0] == told[1]
    # The sentence above the fleet is for the terminal to wrap.
    assert all(len(line) <= 80 for line in narrow[words == ("status",) :])


def shown(process):
    """Return the lines of a command on a terminal, without colours."""
    assert process.ended() == 0
    return [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in process.said.replace("\r", "").splitlines()]


def test_a_story_past_midnight_has_its_dates(capsys, monkeypatch):
    """All lines have them, or none: columns stay columns."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    now = time.time()
    changes = [Change(seq, 1, now - 86_400 * (2 - seq), "run", "run-1", None, None, None, "backoff") for seq in (1, 2)]
    screen.show_changes(changes)
    assert [line[10] for line in capsys.readouterr().out.splitlines()] == [" ", " "]
    screen.show_changes(changes[1:])
    assert capsys.readouterr().out[8] == "."
    monkeypatch.undo()
    time.tzset()
