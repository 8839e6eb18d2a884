"""Changes where an effect becomes a request, and where a request is sent."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from .source import Place, Plant, Site, Source

#: What the core calls any of them.
_ANY = "EffectRequest"


def requests(source: Source) -> frozenset[str]:
    """Name the classes of a file that are requests: each says which effect it is for."""
    return frozenset(
        node.name
        for node in source.tree.body
        if isinstance(node, ast.ClassDef)
        and any(isinstance(line, ast.AnnAssign) and source.code(line.target) == "effect" for line in node.body)
    )


def request_classes(source: Source, members: Iterable[str]) -> Iterator[Place]:
    """Give the places of a file that defines requests: which effect each is for, and what its fields are if not said.

    `members` are the names of all effects.
    """
    known = requests(source)
    for site in source.walk():
        node = site.node
        if not isinstance(node, ast.AnnAssign) or node.value is None or site.inside not in known:
            continue
        value = source.code(node.value)
        if source.code(node.target) == "effect":
            others = [f"Effect.{name}" for name in members if f"Effect.{name}" != value]
        else:
            others = {"True": ["False"], "False": ["True"], "1": ["2"]}.get(value, [])
        if others:
            yield tuple(source.plant(site, source.span(node.value), other) for other in others)


def sendings(source: Source, known: frozenset[str]) -> Iterator[Place]:
    """Give the places of a file that makes and sends requests; `known` are their classes."""
    returning: dict[str, str] = {}
    for site in source.walk():
        match site.node:
            case ast.FunctionDef(name=name, returns=ast.expr() as returns):
                inside = f"{site.inside}.{name}" if site.inside else name
                returning[inside] = source.code(returns)
                if returning[inside] == "bool" and not any(_is_request(source, each) for each in site.node.args.args):
                    del returning[inside]
            case ast.Expr(value=ast.Call(func=ast.Attribute(attr="put", value=box))) if "outbox" in source.code(box):
                yield (source.plant(site, source.span(site.node), "pass"),)
            case ast.Expr(value=ast.Call(func=ast.Name(id="submit"))):
                again = f"{source.code(site.node)}; {source.code(site.node)}"
                yield tuple(source.plant(site, source.span(site.node), other) for other in ("pass", again))
            case ast.Return(value=ast.expr() as value):
                yield from _returned(source, site, value, returning.get(site.inside, ""))
            case ast.Call(func=ast.Name(id=name)) if name in known:
                yield from _arguments(source, site, site.node)


def _is_request(source: Source, argument: ast.arg) -> bool:
    return argument.annotation is not None and source.code(argument.annotation) == _ANY


def _returned(source: Source, site: Site, value: ast.expr, returns: str) -> Iterator[Place]:
    """Send nothing; or take a result as observed before it is, or never."""
    others = {f"{_ANY} | None": ("None",), "bool": ("True", "False")}.get(returns, ())
    plants = tuple(source.plant(site, source.span(value), each) for each in others if each != source.code(value))
    if plants:
        yield plants


def _arguments(source: Source, site: Site, call: ast.Call) -> Iterator[Place]:
    """Leave out what an argument says, or say its neighbour instead."""
    values = [*call.args, *(keyword.value for keyword in call.keywords)]
    for value, neighbour in zip(values, values[1:] + values[:1], strict=True):
        here = source.code(value)
        others = dict.fromkeys(("None", source.code(neighbour)))
        others.pop(here, None)
        yield tuple(_argument(source, site, value, others))


def _argument(source: Source, site: Site, value: ast.expr, others: Iterable[str]) -> Iterator[Plant]:
    for other in others:
        yield source.plant(site, source.span(value), other)
