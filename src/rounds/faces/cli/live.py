"""`rounds serve`, `label`, `watch`, `costs`, `erase`, `demo`: the life of a model in service."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from rounds.faces.cli import say


def add_to(app: typer.Typer) -> None:
    """Hang the commands on `rounds`."""
    for command in (serve, label, watch, costs, erase, demo):
        app.command()(command)


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that answer; default: the rule serve.workers (1).")
    ] = None,
) -> None:
    """Serve the champion over HTTP.

    A new champion is taken up without a restart.
    """
    from rounds.faces.cli import serving

    serving.serve(host, port, workers)


def label(
    file: Annotated[Path, typer.Argument(help="CSV or JSON lines: prediction or reference, label, by, at.")],
    as_json: say.AsJson = False,
) -> None:
    """Attach true labels to answered films."""
    from rounds.capture.capture import read_labels
    from rounds.faces.cli import opening
    from rounds.loop import labelling

    with opening.ports() as ports:
        done = labelling.attach(ports, read_labels(file))
    refused = [f"row {row['row']}: {row['reason']}" for row in done["refused"]]
    say.answer(done, as_json, lambda: [f"{done['accepted']} labels taken, {len(refused)} refused", *refused])


def watch(
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
    every: Annotated[float, typer.Option(min=1, help="Seconds between looks.")] = 60.0,
    as_json: say.AsJson = False,
) -> None:
    """Look at what came in, decide, and act.

    To act is to hold, ask for labels, recalibrate, retrain, promote, refuse or roll back.
    """
    from rounds.faces.cli import mirroring, opening, retraining
    from rounds.loop import conduct, retaining

    follow = mirroring.in_child_process()
    while True:
        with opening.ports() as ports:
            done = conduct.watch_once(ports, retrain=retraining.in_child_process(ports.home))
            retaining.drop_images_hourly(ports)
            follow(ports)
        say.answer(done, as_json, lambda done=done: _watched(done))  # type: ignore[misc]
        if once:
            return
        time.sleep(every)


def costs(as_json: say.AsJson = False) -> None:
    """Add up the seconds that each kind of work took."""
    from rounds.costs.meter import summary
    from rounds.faces.cli import opening

    with opening.ports() as ports:
        found = summary(ports.ledger)
    rows = [[k, v["count"], f"{v['seconds']:.1f}", f"{v['cpu_seconds']:.1f}"] for k, v in found["kinds"].items()]
    say.answer(found, as_json, lambda: say.table(rows, ["kind", "count", "seconds", "CPU-seconds"]))


def erase(
    subject: Annotated[str, typer.Option("--subject", help="Whose films, as the caller named them.")],
    as_json: say.AsJson = False,
) -> None:
    """Forget a subject: rows, labels and images.

    One event says that it was done.
    """
    from rounds.faces.cli import opening
    from rounds.loop import labelling

    with opening.ports() as ports:
        done = labelling.erase(ports, subject)
    say.answer(done, as_json, lambda: [f"{key}: {value}" for key, value in done.items()])


def demo(
    data: Annotated[str | None, typer.Option("--data", help="Any source that `data prepare` takes.")] = None,
    out: Annotated[Path, typer.Option("--out", help="Where figures.json, report.html and workspace/ go.")] = Path(
        "rounds-demo"
    ),
    seed: Annotated[int, typer.Option(help="Which world is drawn.")] = 0,
    as_json: say.AsJson = False,
) -> None:
    """Live through the whole loop in minutes, on films drawn here.

    Train, serve, shift, alarm, cure, gate, refuse, roll back; or the same on your own films.
    """
    from rounds.faces.cli.demo.story import tell

    figures = tell(data, out, seed)
    say.answer(figures, as_json, lambda: [f"report: {out / 'report.html'}", f"figures: {out / 'figures.json'}"])
    if not figures["ok"]:
        raise typer.Exit(1)


def _watched(done: dict[str, Any]) -> list[str]:
    head = [
        f"{done['decision'].value}: {done['why']}",
        f"champion: {done['champion_before']} -> {done['champion_after']}",
    ]
    rows = [
        [f["kind"], f["alarm"], f["n"], f["harm"], ", ".join(m["what"] for m in f["moved"])] for f in done["findings"]
    ]
    return head + list(say.table(rows, ["finding", "alarm", "images", "harm", "moved"]))
