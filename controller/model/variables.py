"""Check the variables that a user wants in the environment of his function. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sliceform.controller.errors import ConfigurationError


def check_variables(source: str, variables: Any) -> dict[str, str]:
    """Return the variables that were given as `source`; values are never shown, for they may be secrets.

    Raises:
        ConfigurationError: an environment cannot hold one of them, or its value is no text: what text is meant by None
            or a number only the caller can say, and Ray's runtime environments take only text, too.

    """
    if not isinstance(variables, Mapping):
        raise ConfigurationError(f"{source} must be a dictionary of names and texts, not {type(variables).__name__}")
    for name, value in variables.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise ConfigurationError(f"{source}: {name!r} cannot be the name of a variable")
        if not isinstance(value, str):
            kind = "None" if value is None else f"of type {type(value).__name__}"
            raise ConfigurationError(f"{source}: the value of {name} is {kind}: give text, or leave the variable out")
        if "\0" in value:
            raise ConfigurationError(f"{source}: the value of {name} has a null character in it")
    return dict(variables)
