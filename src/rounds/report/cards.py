"""Cards of data sets and models: one text, rendered as a self-contained page and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from markupsafe import Markup

from rounds.report.pages import moment, render

NOT_STATED = "Not stated."
_SIGNS = re.compile(r"([\\`*_\[\]<>|~&$])")


@dataclass(frozen=True)
class Text:
    """A paragraph of whole sentences."""

    text: str
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Facts:
    """Names with their values."""

    rows: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Table:
    """A table that is never empty; columns in `figures` hold numbers."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    figures: frozenset[int] = frozenset()
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Points:
    """Sentences one below the other."""

    texts: Sequence[str]
    kind: ClassVar[str] = "points"


@dataclass(frozen=True)
class Figure:
    """A drawing whose numbers stand in a table beside it: Markdown leaves it out."""

    drawing: Markup
    kind: ClassVar[str] = "figure"


Block = Text | Facts | Table | Points | Figure


@dataclass(frozen=True)
class Section:
    """A heading, and what stands below it; a deeper one belongs to the section before."""

    heading: str
    blocks: Sequence[Block]
    level: int = 2


@dataclass(frozen=True)
class Card:
    """A whole card."""

    kicker: str
    title: str
    lead: str
    meta: str
    sections: Sequence[Section]


def card_page(card: Card) -> str:
    """The card as one self-contained page."""
    return render("card.html.j2", card=card)


def card_text(card: Card) -> str:
    """The same card as Markdown, figures left out."""
    lines = [f"# {_plain(card.title)}", "", _plain(card.lead), "", _plain(card.meta), ""]
    for section in card.sections:
        lines += [f"{'#' * section.level} {_plain(section.heading)}", ""]
        for block in section.blocks:
            lines += _lines(block)
    disclaimer = (
        "Rounds is software for research and teaching. Nothing here may decide how a patient is examined or treated."
    )
    return "\n".join([*lines, f"**Not a medical device.** {disclaimer}", ""])


def stated(
    said: Mapping[str, Mapping[str, str] | None], asked: Mapping[str, str], about: str, command: str
) -> list[tuple[str, str]]:
    """Each question with what people answered, and since when; one without an answer says how to give it.

    `about` is the digest that the card describes, so that what was said of another version is told as such.
    """
    rows = []
    for name, question in asked.items():
        told = said.get(name)
        if told is None:
            rows.append((question, f"{NOT_STATED} To state it: {command} --{name.replace('_', '-')} TEXT"))
            continue
        of = "" if told["of"] == about else f" of an earlier version, {told['of'][:12]}"
        rows.append((question, f"{told['text']} (said{of} by {told['by']} on {moment(told['at'])[:10]})"))
    return rows


def listed(names: Iterable[str], last: str = "and") -> str:
    """Names as a sentence wants them: a, b and c."""
    all_ = list(names)
    return f" {last} ".join([", ".join(all_[:-1]), all_[-1]] if len(all_) > 1 else all_)


def _plain(text: Any) -> str:
    """Text that Markdown shows as it is."""
    return _SIGNS.sub(r"\\\1", " ".join(str(text).split()))


def _lines(block: Block) -> list[str]:
    if isinstance(block, Text):
        return [_plain(block.text), ""]
    if isinstance(block, Points):
        return [*(f"- {_plain(text)}" for text in block.texts), ""]
    if isinstance(block, Facts):
        return [*(f"- **{_plain(name)}:** {_plain(value)}" for name, value in block.rows), ""]
    if isinstance(block, Table):
        marks = ["---:" if column in block.figures else "---" for column in range(len(block.head))]
        rows = [[_plain(cell) for cell in row] for row in (block.head, *block.rows)]
        table = [rows[0], marks, *rows[1:]]
        return [f"{_plain(block.caption)}:", "", *(f"| {' | '.join(row)} |" for row in table), ""]
    return []
