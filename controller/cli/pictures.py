"""Commands that draw: `timeline` writes a page or a picture, `serve` shows a page that goes on."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import click

from sliceform.controller.cli import screen
from sliceform.controller.cli.parts import Command, as_json, journal_file


@click.command(cls=Command)
@journal_file
@click.option("-o", "--output", type=click.Path(path_type=Path), help="An .html or .svg file; by default FILE.html.")
@click.option("--title", help="Shown above it; by default the name of FILE.")
@as_json
def timeline(file: Path, output: Path | None, title: str | None, *, as_json: bool) -> int:
    """Draw slices, hosts and runs over time: a page to look into, or a plain picture.

    The page needs no network and no other file. The picture is an SVG of the whole history.
    """
    from sliceform.controller.cli.read import opened
    from sliceform.controller.report import timeline_page, timeline_svg

    target = output or file.with_suffix(".html")
    if target.suffix not in {".html", ".svg"}:
        raise click.BadParameter(f"{target} must end in .html or .svg", param_hint="--output")
    with opened(file) as journal:
        draw = timeline_page if target.suffix == ".html" else timeline_svg
        text = draw(journal, title=title or file.name)
        changes = len(journal)
    try:
        target.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        cause = error.strerror or repr(error)
        raise click.BadParameter(f"cannot write {target}: {cause}", param_hint="--output") from error
    size = target.stat().st_size
    if as_json:
        screen.show_json({"file": str(target), "changes": changes, "bytes": size})
    else:
        screen.show(f"wrote {target}: {changes} changes, {size / 1000:.0f} kB")
    return 0


@click.command(cls=Command)
@journal_file
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="By default one that is free.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--title", help="Shown above it; by default the name of FILE.")
@as_json
def serve(file: Path, port: int, host: str, title: str | None, *, as_json: bool) -> int:
    """Show the timeline of FILE in a browser, and what comes to it, until Ctrl-C.

    Only this machine can reach it, unless --host says otherwise. There is no password: whoever reaches it reads
    everything, ids of nodes and texts of exceptions included.
    """
    from sliceform.controller.cli.read import looked_at, opened
    from sliceform.controller.report import serve as begin

    with opened(file):
        pass  # what cannot be read is said here, and not to the first browser
    name = title or file.name
    with begin(lambda: opened(file), title=name, now=looked_at, host=host, port=port) as server:
        if as_json:
            screen.show_json({"url": server.url})
        else:
            screen.show(f"the timeline of {file} is at {server.url}; Ctrl-C ends it")
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
    return 0
