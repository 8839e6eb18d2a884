"""How a benchmark prints its rows, and says whether a bound is broken."""

from __future__ import annotations

from collections.abc import Iterable

#: What was measured, the value, its unit, and the most that it may be; None = no bound.
Row = tuple[str, float, str, float | None]


def show(rows: Iterable[Row]) -> bool:
    """Print them; return whether all bounds hold."""
    holds = True
    for what, value, unit, bound in rows:
        broken = bound is not None and value > bound
        holds = holds and not broken
        verdict = "" if bound is None else f"  (bound {bound:g}{' BROKEN' if broken else ''})"
        print(f"{what:<66}{value:10.2f} {unit:<3}{verdict}")
    return holds
