"""`rounds card`, `rounds describe`, and the same under `rounds data`: what a reader must know of a model or data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rounds.core.errors import BadRequest, Fault
from rounds.faces.cli import say

BundleRef = Annotated[
    str, typer.Argument(help="A bundle id, a unique prefix, latest, champion, a version, or a folder.")
]
DataRef = Annotated[str, typer.Argument(help="NAME, NAME@DIGEST, a digest, latest, or a folder.")]
Out = Annotated[Path | None, typer.Option("--out", help="A .html or .md file; default: a page among the reports.")]
Licence = Annotated[str | None, typer.Option(help="The terms of its use, such as 'CC BY 4.0'.")]
Contact = Annotated[str | None, typer.Option(help="Whom to ask.")]


def add_to(app: typer.Typer, data: typer.Typer) -> None:
    """Hang the commands on `rounds` and on `rounds data`."""
    app.command(name="card")(card)
    app.command(name="describe")(describe)
    data.command(name="card")(data_card)
    data.command(name="describe")(data_describe)


def card(bundle: BundleRef, out: Out = None, as_json: say.AsJson = False) -> None:
    """Write the model card of a bundle: what it is for, how good it is, for whom it is worse, and what it cost.

    `rounds data card` writes that of a data set.
    """
    from rounds.faces.cli import opening
    from rounds.loop import describing, statements
    from rounds.report.modelcard import model_card

    _check_format(out)
    with opening.ports() as ports:
        facts = describing.model_card(ports, bundle)
        place = out or ports.home / "reports" / f"card-{facts['bundle'][:12]}.html"
    _write(place, model_card(facts, statements.MODEL))
    say.answer(facts, as_json, lambda: _told(facts))


def data_card(name: DataRef, out: Out = None, as_json: say.AsJson = False) -> None:
    """Write the data card of a data set: where it is from, what it holds, what was found, and what it is not fit for.

    The data set is checked anew.
    """
    from rounds.faces.cli import opening
    from rounds.loop import describing, statements
    from rounds.report.datacard import data_card

    _check_format(out)
    with opening.ports() as ports:
        facts = describing.data_card(ports, name)
        place = out or ports.home / "reports" / f"card-{facts['digest'][:12]}.html"
    _write(place, data_card(facts, statements.DATA))
    say.answer(facts, as_json, lambda: _told(facts))


def data_describe(
    name: DataRef,
    source: Annotated[str | None, typer.Option(help="Where the films come from, and whom to cite.")] = None,
    licence: Licence = None,
    purpose: Annotated[str | None, typer.Option(help="What it was made for.")] = None,
    collected: Annotated[str | None, typer.Option(help="When, where and of whom the films were taken.")] = None,
    labelled: Annotated[str | None, typer.Option(help="Who gave the labels, and how.")] = None,
    limits: Annotated[str | None, typer.Option(help="What it is not fit for.")] = None,
    contact: Contact = None,
    as_json: say.AsJson = False,
) -> None:
    """Say what only people know of a data set, for its card; without options, show what was said.

    An empty text takes a statement back; the log keeps both.
    """
    from rounds.faces.cli import opening
    from rounds.loop import statements

    given = {"source": source, "licence": licence, "purpose": purpose, "collected": collected}
    given |= {"labelled": labelled, "limits": limits, "contact": contact}
    with opening.ports() as ports:
        found = statements.say_of_data(ports, name, _said(given))
    say.answer(found, as_json, lambda: _standing(found["said"]))


def describe(
    bundle: BundleRef,
    purpose: Annotated[str | None, typer.Option(help="What it is meant for.")] = None,
    users: Annotated[str | None, typer.Option(help="Who is meant to use it.")] = None,
    out_of_scope: Annotated[str | None, typer.Option(help="What it must not be used for.")] = None,
    ethics: Annotated[str | None, typer.Option(help="Whom it may harm, and what is done about it.")] = None,
    limits: Annotated[str | None, typer.Option(help="What it is known to do badly.")] = None,
    licence: Licence = None,
    contact: Contact = None,
    as_json: say.AsJson = False,
) -> None:
    """Say what only people know of a model, for its card; without options, show what was said.

    An empty text takes a statement back; the log keeps both.
    """
    from rounds.faces.cli import opening
    from rounds.loop import statements

    given = {"purpose": purpose, "users": users, "out_of_scope": out_of_scope, "ethics": ethics}
    given |= {"limits": limits, "licence": licence, "contact": contact}
    with opening.ports() as ports:
        found = statements.say_of_model(ports, bundle, _said(given))
    say.answer(found, as_json, lambda: _standing(found["said"]))


def _said(given: Mapping[str, str | None]) -> dict[str, str]:
    return {key: text for key, text in given.items() if text is not None}


def _check_format(out: Path | None) -> None:
    if out is not None and out.suffix not in (".html", ".md"):
        fault = Fault("not a kind of card", "--out", "a name that ends in .html or .md", out.name)
        raise BadRequest("the card cannot be written so", [fault])


def _write(place: Path, made: Any) -> None:
    from rounds.report.cards import card_page, card_text

    say.page(place, card_text(made) if place.suffix == ".md" else card_page(made))


def _told(facts: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"limit: {text}" for text in facts["limits"])
    open_ = [name for name, said in facts["said"].items() if said is None]
    if open_:
        yield f"not stated: {', '.join(open_)}"


def _standing(said: Mapping[str, Mapping[str, str] | None]) -> Iterator[str]:
    for name, told in said.items():
        yield f"{name:<12} {told['text'] if told else 'not stated'}"
