"""The command `sliceform`."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn

_EXIT_CODES = """\
exit codes:
  0  it worked
  1  it did not; what was missing is said
  2  wrong arguments
"""
#: What the shell reports for a program that Ctrl-C ended.
_INTERRUPTED = 130
#: Fewer steps of the demo's training are over before a host can be killed in their midst.
_FEWEST_STEPS = 100
_MOST_SLICES = 8
#: Packages that are looked for before anything is started.
_DEMO_NEEDS = ("jax", "numpy", "ray", "sklearn")
#: How `explain` is asked about a record before its entry.
_BEFORE_ENTRY = "new"


class _Parser(argparse.ArgumentParser):
    """Says what may have been meant when an argument is wrong."""

    def __init__(self, **options: Any) -> None:
        """Take what `ArgumentParser` takes."""
        super().__init__(
            epilog=_EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options
        )

    def error(self, message: str) -> NoReturn:
        """Print the message with the nearest valid words, and end with exit code 2."""
        wrong = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if wrong:
            message += _nearest(wrong[1], re.findall(r"[\w-]+", wrong[2]))
        super().error(message)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as ever, but name an option that does not exist before the word after it is taken for something."""
        words = sys.argv[1:] if args is None else args
        known = set(self._all_options())
        for word in words:
            option = word.partition("=")[0]
            if option.startswith("--") and option != "--" and option not in known:
                self.error(f"there is no option {option}{_nearest(option, known)}")
        return super().parse_known_args(args, namespace)

    def _all_options(self) -> Iterator[str]:
        """Yield the options of this parser and of its commands."""
        for action in self._actions:
            yield from action.option_strings
            if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - it has no public name
                for command in action.choices.values():
                    yield from command._all_options()  # noqa: SLF001 - one of ours


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the arguments say, by default those of the process; return the exit code."""
    try:
        arguments = _parser().parse_args(argv)
        code: int = arguments.do(arguments)
        sys.stdout.flush()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        print("interrupted; everything that was started is gone", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter must not complain about it when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _parser() -> _Parser:
    parser = _Parser(
        prog="sliceform",
        description="Keeps a fleet of accelerator slices alive on Ray and runs functions on all of their hosts.",
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.set_defaults(do=lambda arguments: _version() if arguments.version else _lost(parser))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_demo(commands)
    _add_diagram(commands)
    _add_explain(commands)
    return parser


def _add_demo(commands: argparse._SubParsersAction[_Parser]) -> None:
    demo = commands.add_parser(
        "demo",
        help="train on a fleet that loses a slice and gets it back",
        description="Starts Ray nodes on this machine that look like TPU hosts, and a fleet on them that trains a small"
        " network with JAX on all hosts. In its midst a host is killed; the fleet replaces the slice, and the training"
        " goes on from its checkpoint. Exit code 0 only if all of that happened.",
    )
    demo.add_argument("--slices", type=_slices, default=2, metavar="N", help="slices of the fleet (default: 2)")
    demo.add_argument("--hosts", type=int, choices=(1, 2, 4), default=2, help="hosts of a slice (default: 2)")
    demo.add_argument("--steps", type=_steps, default=400, metavar="N", help="steps of the training (default: 400)")
    demo.add_argument("--no-fault", action="store_true", help="kill no host")
    demo.add_argument(
        "--seed", type=_seed, default=0, metavar="N", help="of the network, the data and the choice of the host"
    )
    demo.set_defaults(do=_demo)


def _add_diagram(commands: argparse._SubParsersAction[_Parser]) -> None:
    diagram = commands.add_parser(
        "diagram",
        help="draw a state machine",
        description="Draws the transition table that slices or hosts run on.",
    )
    diagram.add_argument("table", nargs="?", choices=("slice", "host"), default="slice", help="default: slice")
    diagram.add_argument(
        "--format", choices=("mermaid", "table"), default="mermaid", help="a mermaid diagram or a markdown table"
    )
    diagram.set_defaults(do=_diagram)


def _add_explain(commands: argparse._SubParsersAction[_Parser]) -> None:
    explain = commands.add_parser(
        "explain",
        help="say what may happen to a slice or host in a state",
        description="Says what may happen to a slice or a host in a state, and when.",
    )
    explain.add_argument("state", metavar="STATE", help=f"a state, for example running, or {_BEFORE_ENTRY}")
    explain.add_argument("--of", choices=("slice", "host"), help="only that; by default both")
    explain.set_defaults(do=lambda arguments: _explain(arguments, explain))


def _demo(arguments: argparse.Namespace) -> int:
    from importlib.util import find_spec

    absent = [package for package in _DEMO_NEEDS if find_spec(package) is None]
    if absent:
        print(f"the demo needs {' and '.join(absent)}: pip install 'sliceform[demo]'", file=sys.stderr)
        return 1
    from sliceform.controller.demo.demo import Options, show

    return show(
        Options(
            slices=arguments.slices,
            hosts=arguments.hosts,
            steps=arguments.steps,
            fault=not arguments.no_fault,
            seed=arguments.seed,
        )
    )


def _diagram(arguments: argparse.Namespace) -> int:
    from sliceform.states import HOST_TABLE, SLICE_TABLE, markdown_table, mermaid

    draw = mermaid if arguments.format == "mermaid" else markdown_table
    print(draw(SLICE_TABLE) if arguments.table == "slice" else draw(HOST_TABLE), end="")
    return 0


def _explain(arguments: argparse.Namespace, parser: _Parser) -> int:
    from sliceform.states import HOST_TABLE, SLICE_TABLE, HostState, SliceState, explain

    name = arguments.state.lower()
    known = [*(state.value for state in SliceState), _BEFORE_ENTRY]
    if name not in known:
        parser.error(f"there is no state {arguments.state!r}, only {', '.join(known)}{_nearest(name, known)}")
    texts = []
    if arguments.of != "host":
        texts.append(explain(SLICE_TABLE, None if name == _BEFORE_ENTRY else SliceState(name)))
    if arguments.of != "slice":
        texts.append(explain(HOST_TABLE, None if name == _BEFORE_ENTRY else HostState(name)))
    print("\n".join(texts), end="")
    return 0


def _version() -> int:
    from importlib.metadata import PackageNotFoundError, version

    try:
        print(f"sliceform {version('sliceform')}")
    except PackageNotFoundError:
        print("sliceform, not installed")
    return 0


def _lost(parser: _Parser) -> int:
    """Tell someone who gave no command what there is."""
    parser.print_help(sys.stderr)
    return 2


def _slices(text: str) -> int:
    return _number(text, 1, _MOST_SLICES)


def _steps(text: str) -> int:
    return _number(text, _FEWEST_STEPS, 1_000_000)


def _seed(text: str) -> int:
    return _number(text, 0, 2**32 - 1)


def _number(text: str, least: int, most: int) -> int:
    if not text.isascii() or not text.isdecimal() or not least <= int(text) <= most:
        message = f"must be a whole number from {least} to {most}, not {text!r}"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _nearest(word: str, known: Iterable[str]) -> str:
    """Return a question after the nearest known word; nothing if none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
