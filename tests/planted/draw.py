"""The population of all changes, and what is drawn of it."""

from __future__ import annotations

import random
from pathlib import Path

from .comparisons import comparisons
from .effects import request_classes, requests, sendings
from .rows import members, rows
from .source import Place, Plant, Source

_REQUESTS = "controller/model/effects.py"


def population(root: Path) -> dict[str, list[Place]]:
    """Give all places of each kind in the tree, in the order of files and lines."""
    states = _read(root, sorted((root / "states").rglob("*.py")))
    core = _read(root, sorted((root / "controller" / "reconcile").rglob("*.py")))
    asked = _read(root, [path for path in [root / _REQUESTS] if path.exists()])
    enums = members(states)
    known = frozenset().union(*(requests(source) for source in asked))
    effects = [place for source in asked for place in request_classes(source, enums["Effect"])]
    return {
        "rows": [place for source in states for place in rows(source, enums)],
        "effects": effects + [place for source in core for place in sendings(source, known)],
        "comparisons": [
            place for source in (*states, *core) if source.path != "states/diagram.py" for place in comparisons(source)
        ],
    }


def draw(places: dict[str, list[Place]], seed: int, count: int) -> list[tuple[str, Plant]]:
    """Draw so many changes, each with its kind; fewer if there are not as many places."""
    rng = random.Random(seed)
    shuffled = {kind: rng.sample(found, len(found)) for kind, found in places.items()}
    drawn: list[tuple[str, Plant]] = []
    while len(drawn) < count and any(shuffled.values()):
        for kind, left in shuffled.items():
            if left and len(drawn) < count:
                drawn.append((kind, rng.choice(left.pop())))
    return drawn


def _read(root: Path, paths: list[Path]) -> list[Source]:
    return [Source(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")) for path in paths]
