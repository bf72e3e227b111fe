"""How an answer leaves the command: one JSON object, or text for people; everything else goes to stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from rounds.core.errors import Fault, NotWritable, RoundsError
from rounds.core.ids import plain, write_whole

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, everything else on stderr.")]


def answer(value: Mapping[str, Any], as_json: bool, text: Callable[[], Iterable[str]]) -> None:
    """Print the answer as one JSON object, or the lines that say it to a person."""
    _out([_json(value)] if as_json else text())


def fault(error: RoundsError, as_json: bool) -> None:
    """Print an error: on stderr for people, and as the one JSON object where JSON was asked for."""
    if as_json:
        _out([_json(error.public())])
    note(f"rounds: {error}")


def help_alone(context: typer.Context) -> None:
    """Print the help of a group that was called without a command, and end with exit code 2."""
    if context.invoked_subcommand is None:
        _out([context.get_help()])
        raise typer.Exit(2)


def _json(value: Mapping[str, Any]) -> str:
    """ASCII alone: a terminal of any encoding takes it, and so do names of files that are no text."""
    return json.dumps(plain(value), allow_nan=False)


def _out(lines: Iterable[str]) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    try:
        for line in lines:
            sys.stdout.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # whoever read has gone (`rounds history | head`): what was done is done, and the rest has no reader
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def table(rows: Sequence[Sequence[object]], head: Sequence[str]) -> Iterator[str]:
    """Lines of a table with aligned columns; `none` where there are no rows."""
    if not rows:
        yield "none"
        return
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def note(text: str) -> None:
    """Say something beside the answer, on stderr."""
    sys.stderr.write(text + "\n")


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr where that is a terminal; a function of (done, total) either way."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def page(path: Path, html: str) -> None:
    """Write a page whole and say where it is; NotWritable."""
    try:
        write_whole(path, html.encode())
    except OSError as error:
        refused = Fault(
            error.strerror or str(error), str(path), "a folder with room to write", next="name another file"
        )
        raise NotWritable(f"cannot write {path.name}", [refused]) from error
    note(f"rounds: page at {path}")
