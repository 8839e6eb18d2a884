"""What travels to a host as source works there under its real names, with or without sliceform installed."""

from collections.abc import Callable
from typing import Any

import pytest

from sliceform.controller.on_host import bootstrap

pytestmark = pytest.mark.timeout(40)

INSTALL = "bootstrap.install(sources); bootstrap.install(sources)"
CAUGHT = """
def caught(code):
    try:
        exec(code, {})
    except Exception as error:
        return [type(error).__name__, str(error)]
    return None
"""


def test_what_travels_has_neither_what_goes_by_value_nor_anything_heavy() -> None:
    names = {name.rpartition(".")[2] for name in bootstrap.sources()}
    assert {"agent", "attempt_folder", "context", "user_process"} <= names
    assert not names & {"bootstrap", "remote", "__init__"}


def test_the_public_names_can_be_imported_where_sliceform_is_not_installed(script: Callable[..., Any]) -> None:
    answer = script(f"""
{INSTALL}
before = [name for name in sys.modules if name.startswith("sliceform.controller.")]
from sliceform.controller import HostContext, host_context, initialize_jax
import sliceform.controller.on_host.context as context
answer = [before, host_context is context.host_context, host_context.__module__]
""")
    assert answer == [[], True, "sliceform.controller.on_host.context"]


@pytest.mark.parametrize(
    "code",
    [
        "from sliceform.controller import SliceController",
        "import sliceform.states",
        "from sliceform.states import SliceState",
        "import sliceform.controller.model.shapes",
        "import sliceform.controller; sliceform.controller.TpuSlice",
    ],
)
def test_any_other_name_says_what_is_missing(script: Callable[..., Any], code: str) -> None:
    kind, words = script(f"{INSTALL}\n{CAUGHT}\nanswer = caught({code!r})")
    assert kind in {"ModuleNotFoundError", "AttributeError"}
    assert "not installed on this host" in words
    assert "host_context" in words


def test_pickling_what_belongs_to_no_module_is_not_disturbed(script: Callable[..., Any]) -> None:
    """Pickle then asks every loaded module for the name."""
    answer = script(f"""
{INSTALL}
import sliceform.controller, pickle
class Lost:
    def __reduce__(self):
        return "nowhere"
Lost.__module__ = None
try:
    pickle.dumps(Lost())
except pickle.PicklingError:
    answer = "PicklingError"
""")
    assert answer == "PicklingError"


def test_an_installed_sliceform_serves_the_other_names(script: Callable[..., Any]) -> None:
    answer = script(
        f"""
{INSTALL}
from sliceform.controller import RunFailed, host_context
import sliceform.controller.on_host.context as context
answer = [RunFailed.__module__, host_context is context.host_context]
""",
        hidden=False,
    )
    assert answer == ["sliceform.controller.errors", True]


@pytest.mark.parametrize(("change", "kept"), [("", True), ("\n# newer", False)])
def test_what_was_imported_before_stays_only_if_it_says_the_same(
    script: Callable[..., Any], change: str, *, kept: bool
) -> None:
    answer = script(
        f"""
from sliceform.controller import host_context as before
sources["sliceform.controller.on_host.context"] += {change!r}
{INSTALL}
from sliceform.controller import host_context
answer = host_context is before
""",
        hidden=False,
    )
    assert answer is kept


def test_tracebacks_show_the_lines(script: Callable[..., Any]) -> None:
    answer = script(f"""
{INSTALL}
import traceback
from sliceform.controller import host_context
try:
    host_context()
except RuntimeError:
    answer = traceback.format_exc()
""")
    assert "<sliceform context.py>" in answer
    assert "raise RuntimeError(" in answer


def test_the_agent_imports_little(script: Callable[..., Any]) -> None:
    """Its start is paid on every host of every slice."""
    answer = script(f"""
import asyncio, ray
{INSTALL}
before = set(sys.modules)
import sliceform.controller.on_host.agent
answer = sorted(name for name in set(sys.modules) - before)
""")
    package = "sliceform.controller.on_host"
    assert answer == [package, f"{package}.agent", f"{package}.proc"]
