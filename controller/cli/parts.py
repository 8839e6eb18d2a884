"""What commands are made of: help that tells the exit codes, answers to typing errors, common options."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

_EXIT_CODES = """\
exit codes:
  0    it worked; also after Ctrl-C where that is the way to end it
  1    the answer is no: nothing was found, or something does not hold; said on standard error
  1    the reader of a pipe went away, as `head` does; nothing is said
  2    wrong arguments, or a file or page that cannot be used, standard output among them
  130  Ctrl-C ended it"""

F = TypeVar("F", bound=Callable[..., Any])


class Command(click.Command):
    """A command whose help tells the exit codes."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Take what `click.Command` takes."""
        super().__init__(*args, **{"context_settings": {"help_option_names": ["-h", "--help"]}} | options)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """Write the exit codes as they stand."""
        formatter.write_paragraph()
        formatter.write(f"{_EXIT_CODES}\n")


class Group(Command, click.Group):
    """The commands together; keeps their order, and says which one may have been meant."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """Give the names in the order in which they were added."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one may have been meant."""
        name = args[0]
        if not ctx.resilient_parsing and not name.startswith("-") and name not in self.commands:
            ctx.fail(f"there is no command {name!r}{nearest(name, self.commands)}")
        return super().resolve_command(ctx, args)


class OneOf(click.Choice):  # type: ignore[type-arg]  # generic only since click 8.2
    """One of some words; a wrong one is answered with the nearest."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Take the word in any case.

        Raises:
            click.BadParameter: it is none of them.

        """
        if str(value).lower() not in self.choices:
            words = ", ".join(map(str, self.choices))
            self.fail(f"{value!r} is not one of {words}{nearest(str(value).lower(), self.choices)}", param, ctx)
        return str(value).lower()


def nearest(word: str, known: Iterable[Any]) -> str:
    """Return a question after the nearest known word; nothing if none is near."""
    near = difflib.get_close_matches(word, [str(one) for one in known], n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def journal_file(function: F) -> F:
    """Add the argument that names the journal."""
    return click.argument("file", type=click.Path(path_type=Path))(function)


def as_json(function: F) -> F:
    """Add the option that asks for JSON."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(function)
