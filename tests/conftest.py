"""What all tests share: those that start Ray run one after the other, the others beside them."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep Ray's tests on one worker of pytest-xdist: two clusters at once have no core each."""
    for item in items:
        if item.get_closest_marker("ray") is not None:
            item.add_marker(pytest.mark.xdist_group("ray"))
