"""`rounds data`: sources become versioned data sets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from rounds.faces.cli import say

group = typer.Typer(help="Prepare and describe versioned data sets.")


def add_to(app: typer.Typer) -> None:
    """Hang the group on the command."""
    app.add_typer(group, name="data")


@group.callback(invoke_without_command=True)
def alone(context: typer.Context) -> None:
    """Prepare and describe versioned data sets."""
    say.help_alone(context)


@group.command()
def prepare(
    source: Annotated[
        str, typer.Argument(help="Folder, archive, .npz file, or phantom:[n=4000,seed=0,gamma=1.0,...].")
    ],
    name: Annotated[str, typer.Option("--name", help="What the data set is called.")],
    subject: Annotated[str | None, typer.Option(help="Regular expression over the path: whose film it is.")] = None,
    val: Annotated[
        float, typer.Option(min=0, max=0.5, help="Share cut for selection where the source has none.")
    ] = 0.1,
    calibration: Annotated[float, typer.Option(min=0, max=0.5, help="Share cut for calibration.")] = 0.15,
    test: Annotated[float, typer.Option(min=0, max=0.5, help="Share cut for the sealed test set.")] = 0.15,
    seed: Annotated[int, typer.Option(help="Which of the possible splits.")] = 0,
    as_json: say.AsJson = False,
) -> None:
    """Take a source in: decode, check, split by subject, version."""
    from rounds.core.specs import DataSpec
    from rounds.faces.cli import opening
    from rounds.loop import intake

    spec = DataSpec(source, name, subject, val, calibration, test, seed=seed)
    with opening.ports() as ports, say.progress("preparing") as progress:
        prepared = intake.prepare(ports, spec, progress=progress)
    say.answer(prepared.public(), as_json, lambda: _prepared(prepared.public()))


@group.command()
def stats(
    name: Annotated[str, typer.Argument(help="NAME, NAME@DIGEST or a digest.")], as_json: say.AsJson = False
) -> None:
    """Describe a data set.

    Films per split and class, subjects, sizes, and the measures that the watch uses.
    """
    from rounds.faces.cli import opening
    from rounds.loop import intake

    with opening.ports() as ports:
        found = intake.statistics(ports, name)
    say.answer(found, as_json, lambda: _lines(found))


def _prepared(public: dict[str, Any]) -> Iterator[str]:
    yield f"{public['name']}@{public['digest'][:12]}: {public['taken']} films taken, {len(public['refused'])} refused"
    yield from say.table([[split, n] for split, n in public["splits"].items()], ["split", "films"])
    yield f"classes: {', '.join(public['classes'])}"
    yield from (f"note: {note}" for note in public["notes"])
    yield from (f"refused: {row['file']}: {row['reason']}" for row in public["refused"])


def _lines(value: Any, at: str = "") -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{at:<40} {value:.4g}" if isinstance(value, float) else f"{at:<40} {value}"
        return
    for key, item in value.items():
        yield from _lines(item, f"{at}.{key}" if at else str(key))
