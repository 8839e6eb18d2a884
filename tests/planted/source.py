"""A source file, places in it, and one change of its text at one of them."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


class Span(NamedTuple):
    """A piece of a text, as offsets."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Plant:
    """One change of one file."""

    #: The file, from the root of the project.
    path: str
    span: Span
    #: What stands there instead.
    text: str
    #: First and last line of the statement, or of the head of it, that is changed.
    lines: tuple[int, int]
    #: The function, class or value that it is in; empty for none.
    inside: str
    #: Whether it runs when the module is imported.
    at_import: bool
    #: What is changed, with what is around it, before and after, each as one line.
    before: str
    after: str
    line: int

    @property
    def code(self) -> tuple[str, str, str, str]:
        """What names it without a line number."""
        return self.path, self.inside, self.before, self.after

    def __str__(self) -> str:
        """Say it in a line."""
        return f"{self.path}:{self.line} ({self.inside})  {self.before}  ->  {self.after or 'nothing'}"

    def plant(self, text: str) -> str:
        """Give the text of the file with the change."""
        return text[: self.span.start] + self.text + text[self.span.end :]


#: The changes that can be made at one place.
Place = tuple[Plant, ...]


class Site(NamedTuple):
    """A node of a file, and where it stands."""

    node: ast.AST
    inside: str
    statement: ast.stmt
    at_import: bool


class Source:
    """A parsed file."""

    def __init__(self, path: str, text: str) -> None:
        """Parse it."""
        self.path = path
        self.text = text
        self.tree = ast.parse(text)
        self._lines = text.splitlines(keepends=True)
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line))

    def span(self, node: ast.AST) -> Span:
        """Say where an expression or statement stands, without parentheses around it."""
        assert isinstance(node, (ast.expr, ast.stmt))
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return Span(self._offset(node.lineno, node.col_offset), self._offset(node.end_lineno, node.end_col_offset))

    def code(self, node: ast.AST) -> str:
        """Give the text of an expression or statement."""
        start, end = self.span(node)
        return self.text[start:end]

    def words(self, start: int, end: int) -> Iterator[tuple[str, Span]]:
        """Give the operators and names between two offsets."""
        for word, span in self._tokens:
            if start <= span.start and span.end <= end:
                yield word, span

    def plant(self, site: Site, span: Span, text: str, shown: ast.expr | None = None) -> Plant:
        """Change a piece of the text. It is told with the lines that it is in, or with the expression `shown`."""
        first, last = self.text.rfind("\n", 0, span.start) + 1, self.text.find("\n", span.end)
        if shown is not None:
            first, last = self.span(shown).start, max(self.span(shown).end, span.end)
        before = self.text[first:last]
        after = self.text[first : span.start] + text + self.text[span.end : last]
        statement = site.statement
        body = getattr(statement, "body", None) or getattr(statement, "cases", None)
        assert statement.end_lineno is not None
        end = max(statement.lineno, _line(body[0]) - 1) if body else statement.end_lineno
        return Plant(
            path=self.path,
            span=span,
            text=text,
            lines=(statement.lineno, end),
            inside=site.inside,
            at_import=site.at_import,
            before=" ".join(before.split()),
            after=" ".join(after.split()),
            line=self.text.count("\n", 0, span.start) + 1,
        )

    def walk(self) -> Iterator[Site]:
        """Give every node in its place; nothing inside an f-string."""
        for statement in self.tree.body:
            yield from _walk(statement, "", statement, at_import=True)

    def _offset(self, line: int, column: int) -> int:
        """Turn a line and a column in bytes into an offset."""
        return self._starts[line - 1] + len(self._lines[line - 1].encode()[:column].decode())

    @cached_property
    def _tokens(self) -> list[tuple[str, Span]]:
        found = []
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type in {tokenize.OP, tokenize.NAME}:
                start, end = (self._starts[line - 1] + column for line, column in (token.start, token.end))
                found.append((token.string, Span(start, end)))
        return found


def _line(node: ast.AST) -> int:
    """Give the line on which a statement, or a case of a match, begins."""
    return node.pattern.lineno if isinstance(node, ast.match_case) else node.lineno  # type: ignore[attr-defined]


def _walk(node: ast.AST, inside: str, statement: ast.stmt, *, at_import: bool) -> Iterator[Site]:
    if isinstance(node, ast.stmt):
        statement = node
    yield Site(node, inside, statement, at_import)
    if isinstance(node, ast.JoinedStr):
        return
    name = _name(node)
    if name:
        inside = f"{inside}.{name}" if inside else name
    for child in ast.iter_child_nodes(node):
        within = isinstance(node, (ast.FunctionDef, ast.Lambda)) and child in _body(node)
        yield from _walk(child, inside, statement, at_import=at_import and not within)


def _body(node: ast.FunctionDef | ast.Lambda) -> list[ast.AST]:
    return [node.body] if isinstance(node, ast.Lambda) else list(node.body)


def _name(node: ast.AST) -> str:
    """Name what a node defines."""
    match node:
        case ast.FunctionDef() | ast.ClassDef():
            return node.name
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
    return ""
