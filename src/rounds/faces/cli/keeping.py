"""`rounds retain`, `migrate`, `backup`, `restore`: what is kept, for how long, in which form, and where else."""

from __future__ import annotations

from typing import Annotated

import typer

from rounds.faces.cli import say


def add_to(app: typer.Typer) -> None:
    """Hang the commands on `rounds`."""
    for command in (retain, migrate):
        app.command()(command)


def retain(as_json: say.AsJson = False) -> None:
    """Drop captured images that capture.days and capture.bytes let go.

    Their rows stay. `rounds policy capture.days=90` sets the rule; `rounds watch` keeps it once an hour.
    """
    from rounds.faces.cli import opening
    from rounds.loop import retaining

    with opening.ports() as ports:
        done = retaining.drop_images(ports)
    told = f"{done['images']} images dropped ({done['bytes']:,} bytes), {done['kept_images']} kept"
    rule = f"the rule: capture.days={done['days']:g} capture.bytes={done['limit_bytes']} (0: no bound)"
    say.answer(done, as_json, lambda: [told, f"{done['awaited']} due ones wait for the audit", rule])


def migrate(
    look: Annotated[bool, typer.Option("--look", help="Say what would be done, and do nothing.")] = False,
    as_json: say.AsJson = False,
) -> None:
    """Bring the database of a workspace that an older Rounds made up to date.

    Every command does it by itself unless ROUNDS_MIGRATE is false. There is no way back but a backup.
    """
    from rounds.wiring.moving import bring_forward
    from rounds.wiring.settings import Settings

    done = bring_forward(Settings(), look=look)
    verb = "to do" if look else "done"
    lines = [f"{verb}: {step}" for step in done["steps"]] or ["nothing to do"]
    say.answer(done, as_json, lambda: [f"schema {done['from'] or 'none'} -> {done['to']}", *lines])
