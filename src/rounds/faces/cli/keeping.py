"""`rounds retain`, `migrate`, `backup`, `restore`: what is kept, for how long, in which form, and where else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rounds.faces.cli import say


def add_to(app: typer.Typer) -> None:
    """Hang the commands on `rounds`."""
    for command in (retain, migrate, backup, restore):
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


def backup(
    file: Annotated[Path, typer.Argument(help="The file to write; it replaces one of that name.")],
    as_json: say.AsJson = False,
) -> None:
    """Write the whole workspace to one file, while it serves.

    It holds the workspace's key and its films: keep it as safe as them. Only its owner can read it.
    """
    from functools import partial

    from rounds.faces.cli import opening
    from rounds.loop import backing
    from rounds.wiring import moving
    from rounds.wiring.settings import Settings

    with opening.ports() as ports:
        done = backing.backup(ports, file, rows=partial(moving.take_rows, Settings()), database=moving.take_file)
    told = f"{file}: {done['images']} images, {done['files']} files, {done['size']:,} bytes in {done['seconds']:.1f} s"
    lost = [f"{len(done['missing'])} films had lost their image before"] if done["missing"] else []
    say.answer(done, as_json, lambda: [told, *lost, "it holds the workspace's key: keep it safe"])


def restore(
    file: Annotated[Path, typer.Argument(help="A file that `rounds backup` wrote.")],
    home: Annotated[Path | None, typer.Option("--home", help="The folder to make; ROUNDS_HOME, or ./.rounds.")] = None,
    as_json: say.AsJson = False,
) -> None:
    """Make a workspace from a backup, once all of it is verified.

    ROUNDS_ROWS and ROUNDS_BLOBS move rows and images to where they are to be kept from now on.
    """
    from functools import partial

    from rounds.loop import restoring
    from rounds.wiring import moving
    from rounds.wiring.serving import open_folder
    from rounds.wiring.settings import Settings

    settings = Settings()
    place = (home or settings.home).absolute()
    done = restoring.restore(file, place, opened=open_folder, hand_on=partial(moving.hand_on, settings))
    told = (
        f"{done['events']} events, {done['predictions']} predictions, {done['labels']} labels, {done['images']} images"
    )
    say.answer(done, as_json, lambda: [f"{place}: as it was at {done['at']}", f"{told}, all verified"])
