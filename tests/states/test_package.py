"""The package as a whole: its names, its lightness, its reasons and errors."""

import pickle
import re
import subprocess
import sys

import pytest

import sliceform.states
from sliceform.states import ForgottenError, Reason, SliceformError, TableError


def loaded_by(module):
    """The top-level packages that importing a module brings into a fresh interpreter."""
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["sliceform.states", "sliceform.states.machine"])
def test_importing_it_brings_in_nothing_heavy(module):
    """Neither Ray nor pydantic nor the like, not even with the engine."""
    heavy = {"ray", "pydantic", "pydantic_settings", "jax", "structlog", "requests"}
    assert not heavy & loaded_by(module)


def test_only_the_engine_needs_transitions():
    """Tables, history and diagrams are there without it."""
    assert "transitions" not in loaded_by("sliceform.states")
    assert "transitions" in loaded_by("sliceform.states.machine")


def test_public_names_are_sorted_and_there():
    """`__all__` is the list of what is offered."""
    names = sliceform.states.__all__
    assert len(set(names)) == len(names)
    assert all(hasattr(sliceform.states, name) for name in names)
    constants = [name for name in names if name.isupper()]
    classes = [name for name in names if name[0].isupper() and not name.isupper()]
    functions = [name for name in names if name.islower()]
    assert names == [*sorted(constants), *sorted(classes), *sorted(functions)]


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_is_a_code_with_a_sentence(reason):
    """The code is its name in lower case, and it survives pickling and look-up by code."""
    assert reason.value == reason.name.lower()
    assert re.fullmatch(r"[A-Z].*\.", reason.doc)
    assert Reason(reason.value) is reason
    assert pickle.loads(pickle.dumps(reason)) is reason


@pytest.mark.parametrize("error", [TableError("door", ["one", "two"]), ForgottenError("too long ago")])
def test_errors_belong_to_the_tree_and_survive_pickling(error):
    """With their message."""
    assert isinstance(error, SliceformError)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
