"""Conditions on node labels, as Ray's label selectors have them: refused early, and understood when explaining.

The syntax is that of `ray/_private/label_utils.py` of Ray 2.60, the meaning that of its scheduler: a condition with `!`
also holds for a node without the label. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_KEY = re.compile(rf"(?:(?=[^/]{{1,253}}/){_WORD}(?:\.{_WORD})*/)?{_WORD}")
_CONDITION = re.compile(rf"(?P<no>!?)(?:(?P<one>{_WORD})|in\((?P<some>{_WORD}(?:, ?{_WORD})*)\))")


def check_selector(selector: Mapping[str, str]) -> None:
    """Refuse a selector that Ray would refuse, and an empty condition, which is a slip more often than meant.

    Raises:
        ValueError: a label's name or a condition is not one; says which.

    """
    for key, condition in selector.items():
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is no name of a label: give up to 63 letters, digits, '-', '_' and '.'")
        if not _CONDITION.fullmatch(condition):
            raise ValueError(f"{condition!r} is no condition on label {key}: give a value, !value, in(a,b) or !in(a,b)")


def is_value(text: str) -> bool:
    """Whether a condition on a label can carry this value."""
    return re.fullmatch(_WORD, text) is not None


def matches(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Whether a node with these labels meets all conditions of a valid selector."""
    return all(_holds(labels.get(key), condition) for key, condition in selector.items())


def _holds(value: str | None, condition: str) -> bool:
    found = _CONDITION.fullmatch(condition)
    assert found is not None
    wanted = [found["one"]] if found["one"] is not None else re.split(r", ?", found["some"])
    return (value in wanted) != bool(found["no"])
