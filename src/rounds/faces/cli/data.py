"""`rounds data`: sources become versioned data sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
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
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Folder, archive, .npz, .csv or .parquet, also at s3://, gs:// or https://; dicom:FOLDER, "
            "medmnist:NAME[_64|_128|_224] or phantom:[n=4000,seed=0,...]. Several become one.",
        ),
    ],
    name: Annotated[str, typer.Option("--name", help="What the data set is called.")],
    subject: Annotated[str | None, typer.Option(help="Regular expression over the path: whose film it is.")] = None,
    val: Annotated[
        float, typer.Option(min=0, max=0.5, help="Share cut for selection where the source has none.")
    ] = 0.1,
    calibration: Annotated[float, typer.Option(min=0, max=0.5, help="Share cut for calibration.")] = 0.15,
    test: Annotated[float, typer.Option(min=0, max=0.5, help="Share cut for the sealed test set.")] = 0.15,
    seed: Annotated[int, typer.Option(help="Which of the possible splits.")] = 0,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE=NAME", help="A table's column: path, label, subject, split, or any attribute."),
    ] = None,
    attributes: Annotated[
        str, typer.Option(metavar="NAME,...", help="Columns of a table that become slices, under their own names.")
    ] = "",
    root: Annotated[
        str | None, typer.Option(help="What a table's paths are relative to; by default its folder.")
    ] = None,
    classes: Annotated[
        str, typer.Option(metavar="NAME,...|OLD=NEW,...", help="Names for the labels 0, 1, ..., or new names.")
    ] = "",
    labels: Annotated[str | None, typer.Option(metavar="TABLE", help="The labels of DICOM films.")] = None,
    label_tag: Annotated[str | None, typer.Option(metavar="KEYWORD", help="Or the tag that says them.")] = None,
    shared_subjects: Annotated[
        bool, typer.Option("--shared-subjects", help="One subject's name means one person in all the sources.")
    ] = False,
    burned_in: Annotated[
        bool, typer.Option("--burned-in", help="Take DICOM films that declare text in their pixels.")
    ] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Move or drop films that leak, and say which.")] = False,
    mirror: Annotated[
        str | None, typer.Option(help="Folder or address for MedMNIST's files; ROUNDS_MEDMNIST_MIRROR.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="A folder for a copy of the data set.")] = None,
    as_json: say.AsJson = False,
) -> None:
    """Take sources in: decode, check, split by subject, version."""
    from rounds.core.specs import DataSpec
    from rounds.faces.cli import opening
    from rounds.loop import exchange, intake
    from rounds.wiring.settings import Settings

    spec = DataSpec(sources[0], name, subject, val, calibration, test, seed=seed, more=tuple(sources[1:]), root=root)
    columns = (*(column or ()), *(f"{name}={name}" for name in _listed(attributes)))
    labels = labels or (f"tag:{label_tag}" if label_tag else None)
    spec = replace(spec, columns=columns, classes=_listed(classes), labels=labels, repair=repair)
    spec = replace(spec, shared_subjects=shared_subjects, burned_in=burned_in)
    with opening.ports() as ports, say.progress("preparing") as progress:
        mirror = mirror or Settings().medmnist_mirror
        prepared = intake.prepare(ports, spec, mirror=mirror, progress=progress)
        if out:
            exchange.give_dataset(prepared.dataset, out)
    public = prepared.public() | {"reasons": intake.reasons(prepared.refused)}
    say.answer(public, as_json, lambda: _prepared(public))


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


def _listed(names: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, names.split(","))))


def _prepared(public: dict[str, Any]) -> Iterator[str]:
    yield f"{public['name']}@{public['digest'][:12]}: {public['taken']} films taken, {len(public['refused'])} refused"
    classes = public["classes"]
    rows = [
        [split, *(counts[label] for label in classes), sum(counts.values())]
        for split, counts in public["by_class"].items()
    ]
    yield from say.table(rows, ["taken", *classes, "films"])
    if public["refused"]:
        yield from say.table(list(public["reasons"].items()), ["refused", "files"])
    yield from (f"note: {note}" for note in public["notes"])
    yield from (f"repaired: {row['file']}: {row['did']}: {row['why']}" for row in public["repaired"])
    yield from (f"refused: {row['file']}: {row['reason']}" for row in public["refused"])


def _lines(value: Any, at: str = "") -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{at:<40} {value:.4g}" if isinstance(value, float) else f"{at:<40} {value}"
        return
    for key, item in value.items():
        yield from _lines(item, f"{at}.{key}" if at else str(key))
