"""`rounds models`, `register`, `promote`, `rollback`, `history`, `trace`, `audit`, `policy`: what may serve, and what
did."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rounds.faces.cli import say

BundleRef = Annotated[str, typer.Argument(help="A bundle id, a unique prefix, latest, a version, or a folder.")]


def add_to(app: typer.Typer) -> None:
    """Hang the commands on `rounds`."""
    for command in (models, register, promote, rollback, history, trace, audit, policy):
        app.command()(command)


def models(as_json: say.AsJson = False) -> None:
    """List the versions, and which one is champion."""
    from rounds.faces.cli import opening
    from rounds.loop import tracing

    with opening.ports() as ports:
        found = tracing.models(ports)
    rows = [[v["version"], v["bundle"][:12], v["since"] or "", v["until"] or ""] for v in found["versions"]]
    head = ["version", "bundle", "since", "until"]
    say.answer(found, as_json, lambda: [f"champion: {found['champion'] or 'none'}", *say.table(rows, head)])


def register(bundle: BundleRef, as_json: say.AsJson = False) -> None:
    """Give a bundle a version number.

    It serves only once it has passed the gate.
    """
    from rounds.faces.cli import opening
    from rounds.loop import gating

    with opening.ports() as ports:
        made = gating.register(ports, bundle)
    say.answer(made, as_json, lambda: [f"{made['version']} is bundle {made['bundle']}"])


def promote(
    bundle: BundleRef,
    data: Annotated[str | None, typer.Option("--data", help="Frozen test set; default: the one in force.")] = None,
    overrule: Annotated[
        str | None, typer.Option(help="Promote in spite of a refusal, for this reason; recorded.")
    ] = None,
    as_json: say.AsJson = False,
) -> None:
    """Ask the gate whether a bundle may become champion.

    One that does not pass is refused, with every reason (exit code 4).
    """
    from rounds.faces.cli import opening
    from rounds.loop import gating

    with opening.ports() as ports:
        done = gating.promote(ports, bundle, data=data, overrule=overrule)
    say.answer(done, as_json, lambda: _gated(done))


def rollback(
    to: Annotated[
        str | None, typer.Option("--to", help="A version that once passed the gate; default: the last.")
    ] = None,
    why: Annotated[str, typer.Option(help="Kept in the log.")] = "asked for on the command line",
    as_json: say.AsJson = False,
) -> None:
    """Put the version before back in service."""
    from rounds.faces.cli import opening
    from rounds.loop import gating

    with opening.ports() as ports:
        done = gating.roll_back(ports, to=to, why=why)
    say.answer(done, as_json, lambda: [f"{done['from']} -> {done['to']} in {done['seconds']:.3f} s"])


def history(as_json: say.AsJson = False) -> None:
    """Print the log: what was decided, by whom, and why."""
    from rounds.faces.cli import opening
    from rounds.loop import tracing

    with opening.ports() as ports:
        found = tracing.history(ports)
    rows = [[e["seq"], e["at"][:19], e["kind"], e["who"], e["why"]] for e in found["events"]]
    say.answer(found, as_json, lambda: say.table(rows, ["seq", "at", "what", "who", "why"]))


def trace(prediction: Annotated[str, typer.Argument(help="A prediction id.")], as_json: say.AsJson = False) -> None:
    """Follow an answer back to its model, data and code."""
    from rounds.faces.cli import opening
    from rounds.loop import tracing

    with opening.ports() as ports:
        found = tracing.trace(ports, prediction)
    say.answer(found, as_json, lambda: [f"{key:<12} {value}" for key, value in found.items()])


def audit(as_json: say.AsJson = False) -> None:
    """Recompute the chain of the log.

    A broken one ends with exit code 4 and names the first broken entry.
    """
    from rounds.faces.cli import opening
    from rounds.loop import tracing

    with opening.ports() as ports:
        found = tracing.audit(ports)
    state = "whole" if found["ok"] else f"broken at {found['first_broken']}"
    say.answer(found, as_json, lambda: [f"{found['entries']} entries, the chain is {state}"])
    if not found["ok"]:
        raise typer.Exit(4)


def policy(
    overrides: Annotated[list[str] | None, typer.Argument(help="Such as gate.margin=0.02 monitor.alpha=0.005.")] = None,
    as_json: say.AsJson = False,
) -> None:
    """Show the rules in force, or change them.

    A change is an event in the log; what was decided before stays as it was decided.
    """
    from rounds.faces.cli import opening
    from rounds.loop import ruling

    with opening.ports() as ports:
        found = ruling.in_force(ports)
        if overrides:
            # Hydra comes with what trains: to show the rules needs the core alone
            from rounds.conf.resolve import policy as composed

            found = ruling.change(ports, ruling.Rules(*composed([*found.overrides(), *overrides])))
    public = found.public()
    say.answer(public, as_json, lambda: [f"{g}.{k:<24} {v}" for g, spec in public.items() for k, v in spec.items()])


def _gated(done: dict[str, Any]) -> list[str]:
    rows = [[c["name"], c["value"], c["limit"], "yes" if c["passed"] else "NO", c["note"]] for c in done["checks"]]
    head = ["check", "value", "limit", "passed", "note"]
    return [f"{done['from'] or 'none'} -> {done['to']}", *say.table(rows, head)]
