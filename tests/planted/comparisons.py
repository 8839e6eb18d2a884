"""Changes of comparisons, of what joins them, of bounds, and of numbers."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise

from .source import Place, Plant, Site, Source, Span

_COMPARED: dict[type[ast.cmpop], tuple[str, tuple[str, ...]]] = {
    ast.Lt: ("<", ("<=", ">=")),
    ast.LtE: ("<=", ("<", ">")),
    ast.Gt: (">", (">=", "<=")),
    ast.GtE: (">=", (">", "<")),
    ast.Eq: ("==", ("!=",)),
    ast.NotEq: ("!=", ("==",)),
    ast.Is: ("is", ("is not",)),
    ast.IsNot: ("is not", ("is",)),
    ast.In: ("in", ("not in",)),
    ast.NotIn: ("not in", ("in",)),
}
_JOINED = {"and": "or", "or": "and"}
_BOUNDS = {"min": "max", "max": "min"}


def comparisons(source: Source) -> Iterator[Place]:
    """Give all places of this kind in a file."""
    for site in source.walk():
        match site.node:
            case ast.Compare(left=left, ops=ops, comparators=right):
                for before, op, after in zip((left, *right), ops, right, strict=False):
                    words, others = _COMPARED[type(op)]
                    span = _between(source, before, after, words)
                    yield tuple(source.plant(site, span, other) for other in others)
            case ast.BoolOp(op=op, values=values):
                word = "and" if isinstance(op, ast.And) else "or"
                for before, after in pairwise(values):
                    yield (source.plant(site, _between(source, before, after, word), _JOINED[word]),)
            case ast.UnaryOp(op=ast.Not()):
                start = source.span(site.node).start
                yield (source.plant(site, Span(start, start + len("not")), ""),)
            case ast.Call(func=ast.Name(id=("min" | "max") as name) as function):
                yield (source.plant(site, source.span(function), _BOUNDS[name]),)
            case ast.Constant(value=value) if type(value) in {int, float}:
                yield tuple(_numbers(source, site, value))


def _between(source: Source, before: ast.expr, after: ast.expr, words: str) -> Span:
    """Find an operator between its operands, beside parentheses and comments."""
    found = [
        span for word, span in source.words(source.span(before).end, source.span(after).start) if word in words.split()
    ]
    return Span(found[0].start, found[-1].end)


def _numbers(source: Source, site: Site, value: float) -> Iterator[Plant]:
    for other in (value + 1, value - 1):
        yield source.plant(site, source.span(site.node), repr(other) if other >= 0 else f"({other!r})")
