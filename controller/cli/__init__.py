"""The command `sliceform`."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

import click

from sliceform.controller.cli.app import app
from sliceform.controller.errors import ConfigurationError, JournalError
from sliceform.states import ForgottenError

__all__ = ["app", "main"]

#: What a shell sets when it asks for completions; see click's documentation, "Shell Completion".
_COMPLETE = "_SLICEFORM_COMPLETE"
#: What the shell reports for a program that Ctrl-C ended.
_INTERRUPTED = 130
#: What a write to standard output may fail with; errors that are about a file name it.
_NOT_WRITTEN = frozenset({errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC})


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the arguments say, by default those of the process; return the exit code."""
    if (instruction := os.environ.get(_COMPLETE)) is not None:
        from click.shell_completion import shell_complete

        return shell_complete(app, {}, "sliceform", _COMPLETE, instruction)
    try:
        with app.make_context("sliceform", list(sys.argv[1:] if argv is None else argv)) as context:
            code = app.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (ConfigurationError, JournalError, ForgottenError) as error:
        click.echo(f"Error: {error}", err=True)
        return 2
    except KeyboardInterrupt:
        click.echo("interrupted; everything that was started is gone", err=True)
        return _INTERRUPTED
    except BrokenPipeError:
        _write_no_more()  # whoever read our output has gone
        return 1
    except OSError as error:
        if error.filename is None and error.errno not in _NOT_WRITTEN:
            raise
        if error.filename is None:
            _write_no_more()
        click.echo(f"Error: cannot use {error.filename or 'standard output'}: {error.strerror}", err=True)
        return 2
    return int(code or 0)


def _write_no_more() -> None:
    """Drop what is left for standard output: the interpreter must not complain about it when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
