"""`rounds keys`: who may call the API."""

from __future__ import annotations

from typing import Annotated

import typer

from rounds.faces.cli import say

group = typer.Typer(help="Who may call the API: add, list, rotate and revoke keys.", invoke_without_command=True)
Name = Annotated[str, typer.Argument(help="What the key is called; it is kept as the author of labels.")]


@group.callback()
def keys(context: typer.Context) -> None:
    """Show the help where no command is named."""
    say.help_alone(context)


@group.command()
def add(
    name: Name,
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help="predict, label, operate or admin (all); may be repeated.")
    ] = None,
    days: Annotated[float | None, typer.Option(help="How long it holds; default: for ever.")] = None,
    as_json: say.AsJson = False,
) -> None:
    """Make a key and show it, this once; only its salted hash is kept."""
    from rounds.faces.cli import opening
    from rounds.loop import keyring

    with opening.ports() as ports:
        text, key = keyring.add(ports, name, scope or [], days)
    say.answer(key.public() | {"key": text}, as_json, lambda: _shown(text, key.name))


@group.command(name="list")
def listed(as_json: say.AsJson = False) -> None:
    """List every key that was ever added, never the keys themselves."""
    from rounds.faces.cli import opening
    from rounds.loop import keyring

    with opening.ports() as ports:
        found, now = keyring.read(ports.home), ports.clock()
    rows = [
        [key.name, key.id, ",".join(key.scopes), "yes" if key.holds(now) else "no", key.public()["expires"] or "never"]
        for key in found
    ]
    shown = [key.public() | {"holds": key.holds(now)} for key in found]
    say.answer({"keys": shown}, as_json, lambda: say.table(rows, ["name", "id", "scopes", "holds", "expires"]))


@group.command()
def rotate(
    name: Name,
    overlap_hours: Annotated[float, typer.Option(min=0, help="How much longer the old key holds.")] = 24.0,
    as_json: say.AsJson = False,
) -> None:
    """Make a new key of the same name and scopes; the old one holds a while longer."""
    from rounds.faces.cli import opening
    from rounds.loop import keyring

    with opening.ports() as ports:
        text, key = keyring.rotate(ports, name, overlap_hours)
    say.answer(key.public() | {"key": text}, as_json, lambda: _shown(text, key.name))


@group.command()
def revoke(name: Name, as_json: say.AsJson = False) -> None:
    """End every key of this name; servers know it within a second or two."""
    from rounds.faces.cli import opening
    from rounds.loop import keyring

    with opening.ports() as ports:
        ended = keyring.revoke(ports, name)
    told = {"revoked": [key.public() for key in ended]}
    say.answer(told, as_json, lambda: [f"{key.name} ({key.id}) is revoked" for key in ended])


def _shown(text: str, name: str) -> list[str]:
    return [text, f"this is the only time that the key of {name} is shown; send it as authorization: Bearer KEY"]


def add_to(app: typer.Typer) -> None:
    """Hang the group on `rounds`."""
    app.add_typer(group, name="keys")
