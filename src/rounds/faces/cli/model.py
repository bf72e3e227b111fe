"""`rounds train`, `export`, `evaluate`, `predict`: from a data set to a measured bundle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from rounds.core.errors import BadImage, BadOverride, Fault
from rounds.faces.cli import say

Overrides = Annotated[
    list[str] | None, typer.Argument(help="Hydra overrides, such as train.epochs=5 seed=3 model=small.")
]


def add_to(app: typer.Typer) -> None:
    """Hang the commands on `rounds`."""
    for command in (train, export, evaluate, predict):
        app.command()(command)


def train(
    overrides: Overrides = None,
    data: Annotated[str, typer.Option("--data", help="NAME, NAME@DIGEST, a digest, a folder, or latest.")] = "latest",
    out: Annotated[
        Path | None, typer.Option("--out", help="A folder for a copy of the run, as pipelines need.")
    ] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", help="Go on with a run that was cut off: its id or a unique prefix.")
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option("--contact-sheet", help="Train nothing: draw what would be shown, as a PNG.")
    ] = None,
    as_json: say.AsJson = False,
) -> None:
    """Train a network, track it on MLflow or W&B, and pack it into a bundle."""
    from rounds.conf.resolve import resolve, tracking
    from rounds.faces.cli import opening
    from rounds.loop import checking, exchange, intake

    spec, export_spec = resolve([*(overrides or []), f"data={data}"])
    where = tracking(overrides or [])
    if resume:
        _as_it_began(overrides or [], data)
    with opening.ports() as ports:
        # what names nothing, or leaks, is said before torch and MLflow load, which takes seconds
        if not resume:
            checking.refuse_leaks(ports, intake.find(ports, spec.data))
        if sheet:
            from rounds.loop.build import contact_sheet

            contact_sheet(ports, spec, sheet)
            return say.answer({"sheet": str(sheet)}, as_json, lambda: [f"sheet    {sheet}"])
    from rounds.loop import build

    with opening.tracked_ports(where) as ports:
        made = build.resume(ports, resume, export_spec) if resume else build.train(ports, spec, export_spec)
        if out:
            exchange.give_run(ports, made["run"], out)
    return say.answer(made, as_json, lambda: _trained(made))


def export(
    run: Annotated[str, typer.Argument(help="A run id, a unique prefix, latest, or a folder of train --out.")],
    overrides: Overrides = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Where its data set is, if this workspace lacks it.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="A folder for a copy of the bundle.")] = None,
    as_json: say.AsJson = False,
) -> None:
    """Pack a finished run into a bundle again."""
    from rounds.conf.resolve import resolve, tracking
    from rounds.faces.cli import opening
    from rounds.loop import exchange, intake, measuring

    (_, export_spec), where = resolve(overrides or []), tracking(overrides or [])
    with opening.ports() as ports:
        if data:
            intake.find(ports, data)
        run = exchange.find_run(ports, run)
    from rounds.loop import build

    with opening.tracked_ports(where) as ports:
        made = build.export(ports, run, export_spec)
        if out:
            exchange.give_bundle(measuring.open_bundle(ports, made["bundle"]), out)
    say.answer(made, as_json, lambda: [f"{key:<8} {value}" for key, value in made.items()])


def evaluate(
    bundle: Annotated[str, typer.Argument(help="A bundle id, a unique prefix, latest, champion, or a folder.")],
    data: Annotated[str, typer.Option("--data", help="NAME, NAME@DIGEST or a digest.")],
    split: Annotated[str | None, typer.Option(help="train, val, calibration or test; default test, else val.")] = None,
    against: Annotated[str | None, typer.Option(help="Another bundle, to be compared on the same films.")] = None,
    slices: Annotated[
        list[str] | None, typer.Option("--slice", help="An attribute to slice by; default all that have few values.")
    ] = None,
    robustness: Annotated[
        bool, typer.Option("--robustness", help="Measure 300 films under corruptions too; 32 times their computation.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Where the page with figures goes.")] = None,
    as_json: say.AsJson = False,
) -> None:
    """Measure a bundle as it is served, and draw the page."""
    from rounds.faces.cli import opening
    from rounds.loop import measuring
    from rounds.report.evaluation import evaluation_page

    with opening.ports() as ports:
        found, report, mistakes = measuring.evaluate(
            ports, bundle, data, split, against=against, cut=slices or (), harmed=robustness
        )
        page = out or ports.home / "reports" / f"{report.bundle[:12]}-{report.data[:12]}-{report.split}.html"
        say.page(page, evaluation_page(report, found, mistakes))
    say.answer(report.public(), as_json, lambda: _measured(report.public()))


def predict(
    paths: Annotated[list[Path], typer.Argument(help="Image files or folders.")],
    bundle: Annotated[
        str, typer.Option(help="A bundle id, a unique prefix, latest, champion, or a folder.")
    ] = "champion",
    out: Annotated[Path | None, typer.Option(help="A .jsonl, .csv or .parquet file instead of the screen.")] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Processes; default one a core.", show_default=False)
    ] = None,
    launcher: Annotated[str, typer.Option("--launcher", help="local, or ray: a cluster's nodes.")] = "local",
    as_json: say.AsJson = False,
) -> None:
    """Answer a batch of films without a server.

    Files that cannot be decoded are listed with their reasons; exit code 2 where none can. With --out a run that was
    cut off goes on where it was.
    """
    from rounds.faces.cli import opening
    from rounds.loop import batch

    with opening.ports() as ports, say.progress("predicting") as progress:
        answered = batch.predict(
            ports,
            bundle,
            paths,
            out=out,
            workers=workers,
            launcher=launcher,
            progress=progress,
            tell=lambda text: say.note(f"rounds: {text}"),
        )
    n = answered.get("written", len(answered["predictions"]))
    if out and n:
        say.note(f"rounds: {n} predictions in {out}")
    say.answer(answered | ({} if n else _nothing(answered)), as_json, lambda: _predicted(answered, table=out is None))
    if not n:
        raise typer.Exit(2)


def _as_it_began(overrides: list[str], data: str) -> None:
    """A run goes on with the settings it has; only how it is packed and where it is entered may be said again."""
    changed = [text for text in overrides if not text.startswith(("export", "tracking"))]
    changed += [f"--data {data}"] if data != "latest" else []
    if changed:
        then = "leave it out, or begin another run"
        raise BadOverride(
            "a run goes on as it began", [Fault("this cannot change any more", text, next=then) for text in changed]
        )


def _trained(made: dict[str, Any]) -> Iterator[str]:
    yield f"run      {made['run']}"
    yield f"bundle   {made['bundle']}"
    yield f"path     {made['path']}"
    yield f"seed {made['seed']}: {made['seconds']:.1f} s of training, {made['cpu_seconds']:.1f} CPU-s"
    yield f"val AUC {made['val']['auc']:.4f}, accuracy {made['val']['accuracy']:.4f}"


def _measured(public: dict[str, Any]) -> Iterator[str]:
    yield f"bundle {public['bundle'][:12]} on {public['data'][:12]} {public['split']}: {public['n']} films"
    rows = [[name, f"{m['value']:.4f}", f"{m['low']:.4f} to {m['high']:.4f}"] for name, m in public["metrics"].items()]
    yield from say.table(rows, ["metric", "value", "95 % interval"])
    named = [[name, *row] for name, row in zip(public["classes"], public["confusion"], strict=True)]
    yield from say.table(named, ["true \\ said", *public["classes"]])
    for row in public["slices"]:
        if row["flagged"]:
            gap = row["difference"]
            yield (
                f"worse where {row['attribute']} is {row['value']}: accuracy {gap['value']:+.3f} "
                f"({gap['low']:+.3f} to {gap['high']:+.3f}) from the rest, p {row['p_corrected']:.2g} after correction"
            )
    if "comparison" in public:
        yield from _compared(public["comparison"])


def _compared(found: dict[str, Any]) -> Iterator[str]:
    yield f"less bundle {found['against'][:12]}, paired, over {found['subjects']} subjects:"
    for name in ("auc_difference", "accuracy_difference"):
        if found[name]:
            gap = found[name]
            yield f"{name.replace('_', ' '):<20} {gap['value']:+.4f} ({gap['low']:+.4f} to {gap['high']:+.4f})"
    right = found["right"]
    yield f"only this one right {right['this']}, only the other {right['other']}, p {found['p_mcnemar']:.3g}"


def _nothing(answered: dict[str, Any]) -> dict[str, Any]:
    """The error beside an answer without a single prediction."""
    what, refused = "nothing could be predicted", answered["refused"]
    faults = [Fault("refused", row["path"], "an image", row["reason"], "take it out, or convert it") for row in refused]
    none = BadImage(what, faults or [Fault("no file", "PATHS", "images, or folders with images", "none", "name some")])
    say.note(f"rounds: {none}")
    return none.public()


def _predicted(answered: dict[str, Any], *, table: bool) -> Iterator[str]:
    if table:
        rows = [
            [p["path"], p["class"], f"{max(p['probabilities'].values()):.3f}", p["reason"] or ""]
            for p in answered["predictions"]
        ]
        yield from say.table(rows, ["film", "class", "probability", "refer to a person"])
    yield from (f"refused: {row['path']}: {row['reason']}" for row in answered["refused"])
    if (count := answered.get("refused_count", 0)) > len(answered["refused"]):
        yield f"and {count - len(answered['refused'])} more: see the file that ends in .refused.jsonl"
