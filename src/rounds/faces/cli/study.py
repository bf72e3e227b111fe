"""`rounds tune`, `cross-validate`: many trainings for one answer."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from rounds.faces.cli import say

Data = Annotated[str, typer.Option("--data", help="NAME, NAME@DIGEST, a digest, a folder, or latest.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Hydra overrides; for tune also sweeps: train.lr=interval(0.001,0.1).")
]


class Launcher(Enum):
    """Where the workers of a study run."""

    local = "local"
    ray = "ray"


def add_to(app: typer.Typer) -> None:
    """Hang the commands on `rounds`."""
    app.command()(tune)
    app.command(name="cross-validate")(cross_validate)


def tune(
    overrides: Overrides = None,
    data: Data = "latest",
    study: Annotated[str, typer.Option(help="The study's name; one that exists goes on.")] = "study",
    trials: Annotated[int, typer.Option(min=2, help="How many trainings in all.")] = 20,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the study.")] = 1,
    storage: Annotated[
        str | None, typer.Option(help="SQLAlchemy URL of the study; default: a file in the workspace.")
    ] = None,
    launcher: Annotated[Launcher, typer.Option(help="ray: the workers are Ray tasks.")] = Launcher.local,
    prune: Annotated[bool, typer.Option(help="End trials early that fall behind the median.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Of the search.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Where the page with pictures goes.")] = None,
    as_json: say.AsJson = False,
) -> None:
    """Search for better settings, judged on stressed validation films.

    A study that was killed goes on where it stood.
    """
    from rounds.conf.space import axes, spec_of
    from rounds.faces.cli import opening
    from rounds.loop import intake

    plain, space = axes(overrides or [])
    base = [*plain, f"data={data}", "train.progress=false"]
    with opening.ports() as ports:
        spec_of(base)
        intake.find(ports, data)
    from rounds.loop import studying
    from rounds.report.study import study_page, train_command
    from rounds.train.tune import StudySpec

    with opening.tracked_ports() as ports:
        place = storage or f"sqlite:///{ports.home / 'studies.db'}"
        spec = StudySpec(study, place, trials, workers, seed, prune, ray=launcher is Launcher.ray)
        found = studying.study(ports, spec, space, base, spec_of, data)
        found["command"] = train_command(found)
        say.page(out or ports.home / "reports" / f"study-{study}.html", study_page(found))
    say.answer(found, as_json, lambda: _tuned(found))


def cross_validate(
    overrides: Overrides = None,
    data: Data = "latest",
    folds: Annotated[int, typer.Option(min=2, max=100, help="Parts, by subject, with every class's share.")] = 5,
    as_json: say.AsJson = False,
) -> None:
    """Train once a fold and measure on the films left out; the sealed test split takes no part."""
    from rounds.conf.resolve import resolve
    from rounds.faces.cli import opening
    from rounds.loop import intake

    spec, _ = resolve([*(overrides or []), f"data={data}"])
    with opening.ports() as ports:
        intake.find(ports, spec.data)
    from rounds.loop import studying

    with opening.tracked_ports() as ports:
        found = studying.cross_validate(ports, spec, folds)
    say.answer(found, as_json, lambda: _validated(found))


def _tuned(found: dict[str, Any]) -> Iterator[str]:
    rows = [
        [
            t["number"],
            t["state"],
            "" if t["value"] is None else f"{t['value']:.4f}",
            f"{t['seconds']:.1f}",
            " ".join(t["overrides"]),
        ]
        for t in found["trials"]
    ]
    yield from say.table(rows, ["trial", "state", "stressed AUC", "s", "settings"])
    if gain := found["difference"]:
        bounds = f"({gain['low']:+.4f} to {gain['high']:+.4f})"
        yield f"best against the settings as they were, seen by other scanners: {gain['value']:+.4f} {bounds}"
    yield found["command"]


def _validated(found: dict[str, Any]) -> Iterator[str]:
    yield f"{found['n']} films, each answered by a network that never saw its subject"
    rows = [
        [name, f"{m['value']:.4f}", f"{m['low']:.4f} to {m['high']:.4f}", f"{s['mean']:.4f}", f"{s['sd']:.4f}"]
        for name, m in found["metrics"].items()
        if (s := found["spread"].get(name))
    ]
    yield from say.table(rows, ["metric", "all films", "95 % interval", "mean of folds", "sd"])
    yield f"predictions in {found['predictions']}"
