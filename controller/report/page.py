"""Make the page of a timeline: one file that needs nothing else."""

from __future__ import annotations

import html
import json
from importlib.resources import files
from typing import Any

from sliceform.controller.report.data import timeline_data
from sliceform.states.history.queries import HistoryQueries

#: What may not stand in a script as it is: it could end the script, or begin a comment.
_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def timeline_page(
    source: HistoryQueries, *, title: str = "sliceform timeline", now: float | None = None, server: str = ""
) -> str:
    """Return the page, HTML that opens without a network.

    Args:
        source: the history, in memory or in a file; see `sliceform.controller.follow.journal.open_journal`.
        title: shown above the timeline, and in the window's title.
        now: up to when what has not ended is drawn, epoch seconds; by default the time of the newest change.
        server: the mark of the server that it comes from and asks for what comes; by default it asks nobody.

    """
    data = timeline_data(source, title=title, now=now) | {"server": server}
    parts = {
        "title": html.escape(title),
        "connect": "'self'" if server else "'none'",
        "style": style(),
        "data": script_json(data),
        "script": "\n".join(_read(name) for name in ("paint.js", "model.js", "view.js", "timeline.js")),
    }
    page = _read("timeline.html")
    for name, part in parts.items():
        page = page.replace(f"<!--{name}-->", part, 1)
    return page


def style() -> str:
    """Return the style sheet, which has all colours."""
    return _read("timeline.css")


def script_json(data: Any) -> str:
    """Return JSON that can stand inside a script element, whatever its texts say."""
    return json.dumps(data, separators=(",", ":")).translate(_ESCAPES)


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
