"""What all tests share: those that start Ray run one after the other, the others beside them; Ctrl-C is heard."""

import signal

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let stories of scenarios be recorded anew: see `tests/simulation/test_scenarios.py`."""
    parser.addoption("--record-scenarios", action="store_true", help="write the stories of scenarios anew")


def pytest_configure() -> None:
    """Let this process and all that it starts hear Ctrl-C: whoever is started in the background inherits deafness."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# First, for pytest-xdist reads the marks in the same hook.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep Ray's tests on one worker of pytest-xdist: two clusters at once have no core each."""
    for item in items:
        if item.get_closest_marker("ray") is not None:
            item.add_marker(pytest.mark.xdist_group("ray"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse to go on where that is asked for and not done: pytest-xdist looks for the group's name in the test's."""
    if getattr(session.config.option, "loadgroup", False):
        grouped = (item.nodeid for item in session.items if item.get_closest_marker("xdist_group") is not None)
        apart = [name for name in grouped if "@" not in name]
        if apart:
            raise pytest.UsageError(f"pytest-xdist does not keep {apart[0]} and others together")
