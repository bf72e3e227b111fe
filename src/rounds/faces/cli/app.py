"""The `rounds` command: its options, its groups, and one table from errors to exit codes."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from rounds.core.errors import CallerFault, Fault, OurFault, RoundsError, WorldFault
from rounds.faces.cli import (
    card,
    data,
    datacheck,
    deploy,
    keeping,
    keys,
    live,
    mirroring,
    model,
    packing,
    say,
    staging,
    study,
)

app = typer.Typer(
    name="rounds",
    help="The whole life of an image classifier, with a stated error rate for every decision.",
    add_completion=False,
    pretty_exceptions_enable=False,
    # with markup typer imports rich, pygments and markdown: help took 0.33 CPU seconds instead of 0.11
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
# typer carries its own copy of click: its ClickException is reached through the name that typer makes public
UsageFault: type[Exception] = typer.BadParameter.__mro__[2]
Home = Annotated[Path | None, typer.Option("--home", help="The workspace folder; ROUNDS_HOME, or ./.rounds.")]
# what the machine refuses, whoever asks: full, read-only, forbidden, out of handles
WORLD = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE}


@app.callback(invoke_without_command=True)
def options(context: typer.Context, home: Home = None) -> None:
    """Take the options that stand before the command."""
    if home is not None:
        os.environ["ROUNDS_HOME"] = str(home)
    say.help_alone(context)


datacheck.add_to(data.group)
card.add_to(app, data.group)
for group in (data, model, study, deploy, staging, live, keeping, keys, mirroring, packing):
    group.add_to(app)


def run(arguments: list[str] | None = None) -> None:
    """Run the command line and end the process: 0 done, 1 our bug, 2 bad input, 3 the world, 4 refused by a rule."""
    given = sys.argv[1:] if arguments is None else arguments
    # torch's threads else spin at every barrier: with one of two cores busy elsewhere a training took 90 s instead of 7
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = app(given, prog_name="rounds", standalone_mode=False) or 0
    except (KeyboardInterrupt, typer.Abort):
        say.note("rounds: stopped by the user; what was acknowledged is kept")
        code = 130
    except Exception as error:  # the face's last word: a bug ends with its traceback and exit code 1
        fault = _explained(error)
        if isinstance(fault, OurFault):
            import traceback

            traceback.print_exc()
        say.fault(fault, "--json" in given)
        code = fault.exit_code
    sys.exit(code)


def _explained(error: Exception) -> RoundsError:
    if isinstance(error, RoundsError):
        return error
    if isinstance(error, UsageFault):
        return _usage(error)
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("rounds"):
        then = "install the part that trains: pip install 'rounds[train]'"
        missing = Fault("not installed", error.name, "a full installation", "the core alone, which serves", then)
        return WorldFault(f"this command needs {error.name.partition('.')[0]}, which is not installed", [missing])
    if isinstance(error, OSError) and error.errno in WORLD:
        where = str(error.filename or "")
        refused = Fault(error.strerror or str(error), where, next="free the place, or name another: --home DIR")
        return WorldFault(f"the machine refuses: {error.strerror}", [refused])
    return OurFault(f"this is a bug of Rounds: {type(error).__name__}: {error}")


def _usage(error: Exception) -> RoundsError:
    context = getattr(error, "ctx", None)
    where = context.command_path if context else "rounds"
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return CallerFault(message, [Fault("the command cannot be read", where, next=f"see {where} --help")])
