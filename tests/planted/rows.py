"""Changes of rows: of transition tables, and of what one table makes of another."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from .source import Place, Plant, Site, Source, Span

#: Where the parts of a row stand among its arguments; the document of a row is between them.
_DEST, _EFFECTS = 2, 4
#: The same for a coupling.
_THEN, _REASON = 4, 6


def members(sources: Sequence[Source]) -> dict[str, tuple[str, ...]]:
    """Give the members of every class of these files that has members: of enums above all."""
    found = {}
    for node in (node for source in sources for node in source.tree.body):
        if isinstance(node, ast.ClassDef):
            names = [line.targets[0] for line in node.body if isinstance(line, ast.Assign)]
            found[node.name] = tuple(name.id for name in names if isinstance(name, ast.Name))
    return found


def rows(source: Source, enums: Mapping[str, tuple[str, ...]]) -> Iterator[Place]:
    """Give a place for each row of each table of a file, and of the couplings."""
    for site in source.walk():
        match site.node:
            case ast.Call(func=ast.Name(id="TransitionTable")):
                parts = {keyword.arg: keyword.value for keyword in site.node.keywords}
                found, states = parts.get("rows"), parts.get("states")
                if isinstance(found, ast.Tuple) and states is not None:
                    # The files call their states `_S`.
                    others = [*(f"_S.{name}" for name in enums[source.code(states)]), "None"]
                    for row, end in _elements(source, found):
                        yield from _row(source, site, row, end, others)
            case ast.Call(func=ast.Name(id="Couplings"), args=[ast.Tuple() as couplings]):
                for coupling, end in _elements(source, couplings):
                    assert isinstance(coupling, ast.Call)
                    yield tuple(_coupling(source, site, coupling, end, enums))


def _elements(source: Source, listed: ast.Tuple) -> Iterator[tuple[ast.expr, int]]:
    """Give the elements of a tuple, and where the comma after each ends."""
    ends = [source.span(element).start for element in listed.elts] + [source.span(listed).end - 1]
    for element, (_, following) in zip(listed.elts, pairwise(ends), strict=True):
        commas = [span.end for word, span in source.words(source.span(element).end, following) if word == ","]
        yield element, commas[0] if commas else source.span(element).end


def _row(source: Source, site: Site, row: ast.expr, end: int, states: list[str]) -> Iterator[Place]:
    match row:
        case ast.Call(args=args):
            dropped = source.plant(site, Span(source.span(row).start, end), "", row)
            yield (dropped, *_parts(source, site, row, args, states=states, form="{}"))
        case ast.Starred(value=ast.GeneratorExp(elt=ast.Call(args=args), generators=[made])):
            sources = _listed(source, made.iter)
            for here in sources:
                others = "".join(f"{each}, " for each in sources if each != here)
                dropped = source.plant(site, source.span(made.iter), f"({others.rstrip()})", row)
                only = f"({{}} if {source.code(made.target)} is {here} else {{}})"
                yield (dropped, *_parts(source, site, row, args, states=states, form=only))


def _parts(
    source: Source, site: Site, row: ast.expr, args: list[ast.expr], *, states: list[str], form: str
) -> Iterator[Plant]:
    """Change the destination of a row, and leave out its effects; `form` says for which source."""
    dest = source.code(args[_DEST])
    for other in states:
        if other not in {dest, source.code(args[_DEST - 1])}:
            yield source.plant(site, source.span(args[_DEST]), form.format(other, dest), row)
    if len(args) > _EFFECTS:
        effects = args[_EFFECTS]
        assert isinstance(effects, ast.Tuple)
        for left_out in effects.elts:
            kept = "".join(f"{source.code(each)}, " for each in effects.elts if each is not left_out)
            text = form.format(f"({kept.rstrip()})", source.code(effects))
            yield source.plant(site, source.span(effects), text, row)


def _coupling(
    source: Source, site: Site, coupling: ast.Call, end: int, enums: Mapping[str, tuple[str, ...]]
) -> Iterator[Plant]:
    yield source.plant(site, Span(source.span(coupling).start, end), "", coupling)
    then = source.code(coupling.args[_THEN])
    enum, _, trigger = then.partition(".")
    for other in enums[enum]:
        if other != trigger:
            yield source.plant(site, source.span(coupling.args[_THEN]), f"{enum}.{other}", coupling)
    if len(coupling.args) > _REASON:
        yield source.plant(site, source.span(coupling.args[_REASON]), "None", coupling)


def _listed(source: Source, listed: ast.expr) -> list[str]:
    """Give the elements of a tuple, through the names of tuples of the same file."""
    match listed:
        case ast.Tuple(elts=elements):
            return [name for element in elements for name in _listed(source, element)]
        case ast.Starred(value=inner):
            return _listed(source, inner)
        case ast.Name(id=name):
            values = (
                node.value
                for node in source.tree.body
                if isinstance(node, ast.Assign) and source.code(node.targets[0]) == name
            )
            return _listed(source, next(values))
    return [source.code(listed)]
