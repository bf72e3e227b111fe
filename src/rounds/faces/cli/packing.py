"""`rounds optimize`, `import`, `export-bento`: bundles made faster, brought along, and handed on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from rounds.faces.cli import say

BundleRef = Annotated[str, typer.Argument(help="A bundle id, a unique prefix, latest, champion, or a folder.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Hydra overrides, such as export.alpha=0.05.")]


def add_to(app: typer.Typer) -> None:
    """Hang the commands on `rounds`."""
    app.command()(optimize)
    app.command(name="import")(bring)
    app.command()(export_bento)


def optimize(
    bundle: BundleRef,
    overrides: Overrides = None,
    data: Annotated[str | None, typer.Option("--data", help="Default: the data set it was trained on.")] = None,
    keep: Annotated[float, typer.Option(min=0.1, max=0.9, help="Share of the width that pruning leaves.")] = 0.5,
    as_json: say.AsJson = False,
) -> None:
    """Make a bundle smaller and faster: in eight bits, and pruned; a variant is kept only if it is as good."""
    from rounds.conf.resolve import resolve, tracking
    from rounds.faces.cli import opening

    (_, spec), where = resolve(overrides or []), tracking(overrides or [])
    with opening.ports() as ports:
        from rounds.loop import measuring

        measuring.open_bundle(ports, bundle)
    from rounds.loop import packing

    with opening.tracked_ports(where) as ports:
        made = packing.optimise(ports, bundle, spec, data=data, keep=keep)
    say.answer(made, as_json, lambda: _optimised(made))


def bring(
    model: Annotated[
        Path, typer.Argument(help="An .onnx file, a checkpoint, TorchScript, or what torch.export saved.")
    ],
    data: Annotated[str, typer.Option("--data", help="A data set of the model's classes, to calibrate on.")],
    imaging: Annotated[str, typer.Option(help="The input: size=224,channels=3[,fit=pad].")],
    mean: Annotated[str | None, typer.Option(help="Of (pixels / scale - mean) / std, such as .485,.456,.406.")] = None,
    std: Annotated[str | None, typer.Option(help="One number, or one a channel.")] = None,
    scale: Annotated[float | None, typer.Option(help="What pixels are divided by first: 255 by default.")] = None,
    inside: Annotated[bool, typer.Option("--normalised-inside", help="The model itself takes 0 to 255.")] = False,
    classes: Annotated[
        str | None, typer.Option(help="a,b in the order of its outputs; default: as in the data.")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Such as export.alpha=0.05.")] = None,
    as_json: say.AsJson = False,
) -> None:
    """Bring a model along that was trained elsewhere: a bundle that is measured, gated, served and watched as any."""
    from rounds.conf.resolve import resolve
    from rounds.faces.cli import opening

    given = [f"imaging.{part}" for part in imaging.split(",")]
    spec, export_spec = resolve([*given, *(overrides or [])])
    from rounds.loop import packing

    said, names = packing.normalisation(mean, std, scale, inside), tuple(classes.split(",")) if classes else ()
    with opening.ports() as ports:
        made = packing.bring(ports, model, spec.imaging, export_spec, data=data, classes=names, normalisation=said)
    say.answer(made, as_json, lambda: _brought(made))


def export_bento(
    bundle: BundleRef,
    out: Annotated[Path, typer.Option("--out", help="The project's folder: empty, or written so before.")],
    as_json: say.AsJson = False,
) -> None:
    """Write a bundle as a BentoML service that gives the same answers."""
    from rounds.faces.cli import opening
    from rounds.loop import handing

    with opening.ports() as ports:
        made = handing.export_bento(ports, bundle, out)
    say.answer(made, as_json, lambda: [f"{key:<7} {value}" for key, value in made.items()])


def _brought(made: dict[str, Any]) -> Iterator[str]:
    yield f"bundle   {made['bundle']}"
    yield f"path     {made['path']}"
    yield f"classes  {', '.join(made['classes'])}, in the order of its outputs"
    yield f"val AUC {made['val']['auc']:.4f}, accuracy {made['val']['accuracy']:.4f}"
    yield from (f"note: {note}" for note in made["notes"])
    yield from (f"no {name}: {why}" for name, why in made["absent"].items())


def _optimised(made: dict[str, Any]) -> Iterator[str]:
    yield f"bundle {made['bundle'][:12]} and its variants on {made['n']} validation films"
    rows = [
        [one["name"], one["bundle"][:12] if one["bundle"] else "not kept", *_figures(one)] for one in made["variants"]
    ]
    head = ["variant", "bundle", "MB", "ms (1)", "ms (32)", "faster (1)", "faster (32)", "AUC", "labels agree"]
    yield from say.table([["as it is", made["bundle"][:12], *_figures(made["before"])], *rows], head)
    yield from (f"{one['name']}: {one['why']}" for one in made["variants"])


def _figures(one: dict[str, Any]) -> Iterator[str]:
    difference = one.get("auc_difference")
    yield f"{one['bytes'] / 1e6:.2f}" if one.get("bytes") else ""
    for name in ("ms_1", "ms_32"):
        yield f"{one[name]:.2f}" if one.get(name) else ""
    for name in ("speedup_1", "speedup_32"):
        yield f"{one[name]:.2f}" if one.get(name) else ""
    yield f"{difference['value']:+.4f}" if difference else ""
    yield f"{one['agreement']:.4f}" if one.get("agreement") is not None else ""
