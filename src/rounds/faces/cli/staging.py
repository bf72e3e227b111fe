"""`rounds shadow` and `rounds canary`: a version beside the champion."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rounds.faces.cli import say

BundleRef = Annotated[
    str | None, typer.Argument(help="A bundle id, a unique prefix, latest, a version, or a folder; none: how it goes.")
]
Off = Annotated[bool, typer.Option("--off", help="Take the version away that stands beside the champion.")]


def add_to(app: typer.Typer) -> None:
    """Hang the commands on `rounds`."""
    for command in (shadow, canary):
        app.command()(command)


def shadow(bundle: BundleRef = None, off: Off = False, as_json: say.AsJson = False) -> None:
    """Let a version look on at every film that is answered.

    What it would have said is kept and shown to nobody; without a bundle, say how it compares with the champion.
    """
    from rounds.faces.cli import opening
    from rounds.loop import staging

    with opening.ports() as ports:
        if off:
            done = staging.end(ports, why="asked for on the command line")
        else:
            done = staging.shadow(ports, bundle) if bundle else staging.staged(ports)
    say.answer(done, as_json, lambda: _lines(done))


def canary(
    bundle: BundleRef = None,
    share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the films that it answers.")] = 0.05,
    cap: Annotated[int, typer.Option(min=1, help="At most so many films.")] = 500,
    data: Annotated[str | None, typer.Option("--data", help="Frozen test set; default: the one in force.")] = None,
    overrule: Annotated[
        str | None, typer.Option(help="Let it answer in spite of a refusal, for this reason; recorded.")
    ] = None,
    off: Off = False,
    as_json: say.AsJson = False,
) -> None:
    """Let a version that passes the gate answer a share of the films, up to a cap.

    The same reference always meets the same version. Where one answers the other looks on.
    """
    from rounds.faces.cli import opening
    from rounds.loop import staging

    with opening.ports() as ports:
        if off:
            done = staging.end(ports, why="asked for on the command line")
        elif bundle:
            done = staging.canary(ports, bundle, share=share, cap=cap, data=data, overrule=overrule)
        else:
            done = staging.staged(ports)
    say.answer(done, as_json, lambda: _lines(done))


def _lines(done: dict[str, Any]) -> list[str]:
    staged = done["staged"]
    if staged is None:
        return [f"champion: {done['champion'] or 'none'}; nothing stands beside it"]
    told = [f"champion: {done['champion']}; {staged['stage']}: {staged['version']} since {staged['since'][:19]}"]
    if staged["stage"] == "canary":
        told.append(f"answers {staged['share']:.1%} of the films, {staged['cap']} at most; {done['answered']} so far")
    if done["n"]:
        told.append(
            f"{done['n']} films seen by both: {done['agreement']:.2%} in one class,"
            f" probability {done['difference']:+.4f} on average"
        )
    return told
