"""What pytest has to do to judge a change; loaded with `-p`, and told by the environment what to do.

Without `PLANTED_TESTS` it only notes what it sees. With it, it runs the tests that are listed in that file, in its
order, each within its time.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

_SEEN: dict[str, Any] = {"times": {}, "not_measured": [], "failed": None}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests that are listed, in that order."""
    listed = os.environ.get("PLANTED_TESTS")
    if listed is None:
        _SEEN["not_measured"] = [item.nodeid for item in items if item.get_closest_marker("no_cover")]
        return
    limits: dict[str, float] = json.loads(Path(listed).read_text(encoding="utf-8"))
    order = {name: number for number, name in enumerate(limits)}
    items[:] = sorted((item for item in items if item.nodeid in order), key=lambda item: order[item.nodeid])
    for item in items:
        item.add_marker(pytest.mark.timeout(limits[item.nodeid]), append=False)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note how long a test takes, with all around it, and the first that fails."""
    times = _SEEN["times"]
    times[report.nodeid] = times.get(report.nodeid, 0.0) + report.duration
    if report.failed and _SEEN["failed"] is None:
        _SEEN["failed"] = [report.nodeid, "from pytest-timeout" in str(report.longrepr)]


def pytest_sessionfinish() -> None:
    """Write down what was noted."""
    Path(os.environ["PLANTED_SEEN"]).write_text(json.dumps(_SEEN), encoding="utf-8")
