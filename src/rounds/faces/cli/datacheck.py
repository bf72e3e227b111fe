"""`rounds data check` and `rounds data diff`: what is wrong with a data set, and what changed between two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from rounds.faces.cli import say

Out = Annotated[Path | None, typer.Option("--out", help="Where the page goes.")]


def add_to(group: typer.Typer) -> None:
    """Hang the commands on `rounds data`."""
    group.command()(check)
    group.command()(diff)


def check(
    name: Annotated[str, typer.Argument(help="NAME, NAME@DIGEST, a digest, latest, or a folder.")],
    out: Out = None,
    as_json: say.AsJson = False,
) -> None:
    """Look for leaks, copies, contradictions, odd films, shift between splits and doubtful labels.

    Exit code 4 where films leak between splits: such a data set is not trained on.
    """
    from rounds.faces.cli import opening
    from rounds.loop import checking
    from rounds.report.check import check_page

    with opening.ports() as ports:
        dataset, survey = checking.check(ports, name)
        page = out or ports.home / "reports" / f"check-{dataset.digest[:12]}.html"
        say.page(page, check_page(survey, dataset, checking.pictures(dataset)))
    say.answer(survey.public(), as_json, lambda: _checked(survey.public()))
    if survey.leaks:
        raise typer.Exit(4)


def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="The data set as it was.")],
    after: Annotated[str, typer.Argument(metavar="B", help="The data set as it is now.")],
    out: Annotated[Path | None, typer.Option("--out", help="A .md file; its figure goes beside it.")] = None,
    as_json: say.AsJson = False,
) -> None:
    """Compare two data sets: what came, went, changed its label or split, and drifted.

    As Markdown, fit for a pull request.
    """
    from rounds.faces.cli import opening
    from rounds.loop import checking
    from rounds.report.difference import difference_text, figures

    with opening.ports() as ports:
        found = checking.diff(ports, before, after)
    if out:
        drawn = {f"{out.stem}-{kind}.svg": figure for kind, figure in figures(found).items()}
        for file, figure in drawn.items():
            say.page(out.with_name(file), figure)
        say.page(out, difference_text(found, list(drawn)))
    say.answer(found.public(), as_json, lambda: difference_text(found).splitlines())


def _checked(public: dict[str, Any]) -> Iterator[str]:
    yield f"{public['name']}@{public['digest'][:12]}: {public['images']} films"
    yield from say.table([[row["severity"], row["what"]] for row in public["findings"]], ["severity", "what was found"])
    for row in (row for row in public["findings"] if row["severity"] != "note"):
        yield from (f"{row['severity']}: {' and '.join(pair['files'])}: {pair['how']}" for pair in row["pairs"])
        yield from (f"{row['severity']}: {film['file']}: {row['kind']}" for film in row["films"])
    yield from (f"not checked: {text}" for text in public["skipped"])
