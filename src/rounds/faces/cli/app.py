"""The `rounds` command: its options, its groups, and one table from errors to exit codes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from rounds.core.errors import CallerFault, Fault, OurFault, RoundsError
from rounds.faces.cli import data, deploy, live, model, say

app = typer.Typer(
    name="rounds",
    help="The whole life of an image classifier, with a stated error rate for every decision.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# typer carries its own copy of click: its ClickException is reached through the name that typer makes public
UsageFault: type[Exception] = typer.BadParameter.__mro__[2]
Home = Annotated[Path | None, typer.Option("--home", help="The workspace folder; ROUNDS_HOME, or ./.rounds.")]


@app.callback()
def options(home: Home = None) -> None:
    """Take the options that stand before the command."""
    if home is not None:
        os.environ["ROUNDS_HOME"] = str(home)


for group in (data, model, deploy, live):
    group.add_to(app)


def run(arguments: list[str] | None = None) -> None:
    """Run the command line and end the process: 0 done, 1 our bug, 2 bad input, 3 the world, 4 refused by a rule."""
    given = sys.argv[1:] if arguments is None else arguments
    # torch's threads else spin at every barrier: with one of two cores busy elsewhere a training took 90 s instead of 7
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = app(given, standalone_mode=False) or 0
    except RoundsError as error:
        say.fault(error, "--json" in given)
        code = error.exit_code
    except UsageFault as error:
        say.fault(_usage(error), "--json" in given)
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        say.note("rounds: stopped by the user; what was acknowledged is kept")
        code = 130
    except Exception as error:  # the face's last word: a bug ends with its traceback and exit code 1
        import traceback

        traceback.print_exc()
        say.fault(OurFault(f"this is a bug of Rounds: {type(error).__name__}: {error}"), "--json" in given)
        code = 1
    sys.exit(code)


def _usage(error: Exception) -> RoundsError:
    context = getattr(error, "ctx", None)
    where = context.command_path if context else "rounds"
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return CallerFault(message, [Fault("the command cannot be read", where, next=f"see {where} --help")])
