"""What README and docs show is true: blocks run as they stand, print what they say, and links and commands exist.

A Python block runs unless `<!-- not run: reason -->` stands before it; the blocks of a page run in order, in one
namespace. A text block with `<!-- output -->` before it is what was printed since the last such block. A block with
`<!-- file: path -->` before it is a copy of that file, and one with `<!-- prints: path -->` is what that file prints,
which `test_deploy.py` sees. A shell block is not run here; with a reason it is at least one that a shell can read.
"""

import ast
import importlib
import logging
import os
import re
import shlex
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import click
import pytest
import structlog

from sliceform.controller import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
_MARK = re.compile(r"<!-- (?P<mark>not run|output|file|prints)(?:: (?P<about>[^\n]*?))? -->\n")
_BLOCK = re.compile(
    rf"(?P<marks>(?:{re.sub('[?]P<[a-z]+>', '?:', _MARK.pattern)})*)"
    r"^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
#: What opens a shell line that is looked at; others (`pip`, `cd`) are not ours.
_OURS = ("sliceform", "make", "python")

pages = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])


class Block(NamedTuple):
    line: int
    #: What stands before it, with what is said about it.
    marks: Mapping[str, str]
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            text.count("\n", 0, found.start("language")) + 1,
            {mark["mark"]: mark["about"] or "" for mark in _MARK.finditer(found["marks"])},
            found["language"],
            found["text"],
        )
        for found in _BLOCK.finditer(text)
    ]


def compiled(page: Path, block: Block) -> ast.Module:
    """Parse a block so that errors name the line of the page."""
    tree = ast.parse(block.text, str(page))
    return ast.increment_lineno(tree, block.line)


@pytest.fixture
def as_an_application(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A quiet log, the same names every time, and nothing left of what a page changes."""
    before, level = structlog.get_config(), logging.getLogger("sliceform").level
    variables = dict(os.environ)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=1))
    monkeypatch.chdir(tmp_path)
    yield
    structlog.configure(**before)
    logging.getLogger("sliceform").setLevel(level)
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
    os.environ.update(variables)


@pages
@pytest.mark.usefixtures("as_an_application")
def test_the_blocks_run_and_print_what_the_page_says(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    namespace = {"__name__": "page"}
    for block in blocks(page):
        if block.language == "python" and "not run" not in block.marks:
            exec(compile(compiled(page, block), str(page), "exec"), namespace)  # noqa: S102 - our own pages
        elif "output" in block.marks:
            printed = capsys.readouterr().out
            assert printed.strip() == block.text.strip(), f"{page.name}, line {block.line}"


@pages
def test_blocks_that_are_not_run_can_be_read_and_import_what_there_is(page: Path) -> None:
    for block in blocks(page):
        if "not run" not in block.marks:
            continue
        assert block.marks["not run"], f"{page.name}, line {block.line}: says no reason"
        if block.language == "sh":
            subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
            continue
        for node in ast.walk(compiled(page, block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sliceform"):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, name.name) for name in node.names)


@pages
def test_copies_of_files_are_current(page: Path) -> None:
    for block in blocks(page):
        path = block.marks.get("file")
        if path is not None:
            assert block.text == (page.parent / path).read_text(encoding="utf-8"), f"{page.name}: copy {path} anew"


@pages
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for found in _LINK.finditer(text):
        path, _, anchor = found["target"].partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {found['target']}"
        assert target.is_relative_to(ROOT)
        if anchor:
            assert anchor in anchors(target), f"{page.name} links to {found['target']}"


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as forges make them."""
    headings = re.findall(r"^#+ +(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_commands_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    shell = [block.text.replace("\\\n", " ") for block in blocks(page) if block.language == "sh"]
    lines = [line for text in shell for line in text.splitlines()]
    spans = re.findall(r"`((?:sliceform|make) [^`]+)`", text)
    for line in [*lines, *spans]:
        words = shlex.split(line, comments=True)
        if words and words[0] in _OURS:
            assert exists(words), f"{page.name}: there is no {line!r}"


def exists(words: list[str]) -> bool:
    """Whether a command line is one that works as far as can be seen without running it."""
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        return all(re.search(rf"^{re.escape(word)}:", makefile, re.MULTILINE) for word in words[1:])
    if words[0] == "python":
        script = ROOT / words[1]
        return script.exists() and all(
            f'"{word}"' in script.read_text(encoding="utf-8") for word in words[2:] if word.startswith("--")
        )
    context = click.Context(cli.app, info_name=words[0])
    try:
        name, command, rest = cli.app.resolve_command(context, words[1:])
        assert command is not None
        command.make_context(name, rest, parent=context)
    except click.exceptions.Exit:
        return True
    except click.ClickException:
        return False
    return True


def test_every_page_can_be_reached_from_the_readme() -> None:
    links = {found["target"] for found in _LINK.finditer((ROOT / "README.md").read_text(encoding="utf-8"))}
    shows_another = "```{include}"
    own = [
        page for page in PAGES if page.parent.name == "docs" and not page.read_text("utf-8").startswith(shows_another)
    ]
    assert {f"docs/{page.name}" for page in own} <= links


def test_every_example_is_shown_somewhere() -> None:
    shown = [(page.parent / block.marks.get("file", "")).name for page in PAGES for block in blocks(page)]
    assert {path.name for path in (ROOT / "docs" / "examples").glob("*.py")} <= set(shown)
