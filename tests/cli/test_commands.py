"""The command line: help, typing errors, exit codes, and the commands that need no Ray."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from sliceform.controller.cli import app, main
from sliceform.states import SLICE_TABLE, TABLES, SliceState, mermaid


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(words)
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize("words", [["--help"], ["demo", "--help"], ["diagram", "-h"], ["explain", "--help"]])
def test_help_says_what_there_is_and_what_exit_codes_mean(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *words)
    assert code == 0
    codes = out.partition("exit codes:\n")[2].splitlines()
    assert [line.split()[0] for line in codes] == ["0", "1", "1", "2", "130"]


def test_the_page_lists_the_same_exit_codes_as_the_help() -> None:
    page = (Path(__file__).parents[2] / "docs" / "debugging.md").read_text(encoding="utf-8")
    table = page.partition("| exit code | means |\n|---|---|\n")[2].partition("\n\n")[0]
    rows = [row.split("|")[1].partition(",")[0].strip() for row in table.splitlines()]
    assert rows == ["0", "1", "1", "2", "130"]


def test_without_a_command_the_help_is_shown_as_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys)
    assert (code, out) == (2, "")
    assert "demo" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dmeo"], "did you mean 'demo'?"),
        (["demo", "--step", "500"], "--steps"),
        (["demo", "--no-faults"], "--no-fault"),
        (["diagram", "--fromat", "table"], "--format"),
        (["diagram", "hots"], "did you mean 'host'?"),
        (["diagram", "--format", "mermad"], "did you mean 'mermaid'?"),
        (["explain", "runing"], "did you mean 'running'?"),
        (["explain", "xyzzy"], "'xyzzy' is not one of pending, placed"),
        (["explain"], "STATE"),
        (["explain", "ready", "set"], "unexpected extra argument (set)"),
        (["demo", "--steps", "99"], "99 is not in the range 100<=x<=1000000"),
        (["demo", "--steps", "many"], "'many' is not a valid integer range"),
        (["demo", "--slices", "0"], "0 is not in the range 1<=x<=8"),
        (["demo", "--slices=-1"], "-1 is not in the range"),
        (["demo", "--hosts", "3"], "'1', '2', '4'"),
        (["demo", "--seed", "1.5"], "'1.5' is not a valid"),
        (["--verison"], "--version"),
    ],
)
def test_wrong_arguments_are_named_with_what_may_have_been_meant(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert said in err


def test_diagram_draws_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "diagram") == (0, mermaid(SLICE_TABLE), "")
    for kind, table in TABLES.items():
        assert run(capsys, "diagram", kind) == (0, mermaid(table), "")
    _, drawn, _ = run(capsys, "diagram", "slice", "--format", "table")
    assert drawn.startswith("| trigger | kind | from |")
    assert all(f"`{row.trigger}`" in drawn for row in SLICE_TABLE.rows)


@pytest.mark.parametrize("state", [*SliceState, "new", "RUNNING"])
def test_explain_says_what_may_happen_from_every_state(state: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "explain", state)
    assert code == 0
    assert "A slice in" in out
    assert "A host in" in out


def test_explain_can_be_asked_for_one_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "explain", "ready", "--of", "slice")
    assert "to running by start (command; asks for launch): A run takes the slice." in out
    assert "A host in" not in out
    _, out, _ = run(capsys, "explain", "new", "--of", "host")
    assert out.startswith("A host in [*] may go\n  to pending by create")
    assert run(capsys, "explain", "waiting") == run(capsys, "explain", "waiting", "--of", "run")
    code, _, err = run(capsys, "explain", "waiting", "--of", "attempt")
    assert (code, "no attempt is ever waiting" in err) == (2, True)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--version")
    assert code == 0
    assert out.startswith("sliceform")


def test_ctrl_c_gives_the_code_of_shells(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(**_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(app.commands["diagram"], "callback", interrupted)
    code, _, err = run(capsys, "diagram")
    assert code == 130
    assert "interrupted" in err


def test_the_demo_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    code, out, err = run(capsys, "demo")
    assert (code, out) == (1, "")
    assert "the demo needs sklearn" in err
    assert "pip install 'sliceform[demo]'" in err


_MAIN = "import sys; from sliceform.controller.cli import main; sys.exit(main())"


def test_help_loads_nothing_heavy() -> None:
    probe = _MAIN.replace("sys.exit(main())", "main(['--help']); print(sorted(sys.modules))")
    done = subprocess.run([sys.executable, "-c", probe], stdout=subprocess.PIPE, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].strip("[]").replace("'", "").split(", "))
    assert not loaded & {"ray", "jax", "numpy", "pydantic", "structlog", "transitions", "sklearn"}


def _cpu_s(code: str, *words: str) -> float:
    """Return the processor's time that a program of this Python takes, seconds."""

    def used() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return children.ru_utime + children.ru_stime

    begin = used()
    subprocess.run([sys.executable, "-c", code, *words], stdout=subprocess.DEVNULL, check=True)
    return used() - begin


def test_help_is_quick() -> None:
    """About three times what Python needs to do nothing, measured beside it: on a busy machine both take longer."""
    took = [(_cpu_s(_MAIN, "--help"), _cpu_s("pass")) for _ in range(5)]
    ours, nothing = map(min, zip(*took, strict=True))
    assert ours < 6 * nothing


def test_a_reader_that_goes_away_is_no_error_of_ours() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", _MAIN, "diagram"], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert done.returncode == 1
    assert done.stderr == b""


@pytest.mark.parametrize("words", [["diagram"], ["diagram", "--json"], ["explain", "ready"], ["--help"]])
def test_what_standard_output_does_not_take_is_said(words: list[str]) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        done = subprocess.run([sys.executable, "-c", _MAIN, *words], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 2
    assert done.stderr.decode() == "Error: cannot use standard output: No space left on device\n"


def test_a_file_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def denied(**_: object) -> int:
        raise PermissionError(13, "Permission denied", "/secret")

    monkeypatch.setattr(app.commands["diagram"], "callback", denied)
    assert run(capsys, "diagram") == (2, "", "Error: cannot use /secret: Permission denied\n")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["hi"], "plain,history"),
        (["history", "--rea"], "plain,--reason"),
        (["histroy", ""], "plain,history"),
    ],
)
def test_a_shell_is_told_how_a_line_may_go_on(capsys, monkeypatch, words, offered):
    monkeypatch.setenv("_SLICEFORM_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(["sliceform", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    assert main([]) == 0
    assert offered in capsys.readouterr().out.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_given_what_it_needs_for_that(capsys, monkeypatch, shell):
    monkeypatch.setenv("_SLICEFORM_COMPLETE", f"{shell}_source")
    assert main([]) == 0
    assert "_sliceform_completion" in capsys.readouterr().out
