"""Cards as pages and as Markdown: the same text, nothing empty, and hostile names harmless."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.report.conftest import HOSTILE
from tests.support.captured import dataset_in, packed
from tests.support.workspace import opened

from rounds.loop import describing, gating, measuring, statements
from rounds.report.cards import Card, Facts, Figure, Points, Section, Table, Text, card_page, card_text
from rounds.report.datacard import data_card
from rounds.report.modelcard import model_card


def _card() -> Card:
    sections = [
        Section("Words", [Text(f"Said of {HOSTILE}."), Points(["one_two", "a|b"])]),
        Section("Numbers", [Table("Counts", ["what", "n"], [["a|b", "1,000"]], frozenset({1})), Facts([("k", "v")])]),
    ]
    return Card("data card", "A *title*", "Lead.", "Meta.", sections)


def test_a_card_as_markdown_shows_signs_as_they_are() -> None:
    assert card_text(_card()).splitlines() == [
        "# A \\*title\\*",
        "",
        "Lead.",
        "",
        "Meta.",
        "",
        "## Words",
        "",
        'Said of \\<script\\>alert("x")\\</script\\>.',
        "",
        "- one\\_two",
        "- a\\|b",
        "",
        "## Numbers",
        "",
        "Counts:",
        "",
        "| what | n |",
        "| --- | ---: |",
        "| a\\|b | 1,000 |",
        "",
        "- **k:** v",
        "",
        "**Not a medical device.** Rounds is software for research and teaching. "
        "Nothing here may decide how a patient is examined or treated.",
    ]


def test_a_card_as_a_page_is_whole_and_escapes_names(whole: Callable[[str], Any]) -> None:
    page = card_page(_card())
    whole(page)
    assert HOSTILE not in page
    assert "Said of &lt;script&gt;" in page


def test_both_cards_say_the_same_on_the_page_and_in_markdown(home: Path, whole: Callable[[str], Any]) -> None:
    with opened(home) as ports:
        dataset = dataset_in(ports, sites=("north", "south"))
        bundle = packed(ports, dataset)
        gating.promote(ports, bundle.digest)
        measuring.evaluate(
            ports, "champion", "tiny", "test", against=packed(ports, dataset, seed=3).digest, harmed=True
        )
        statements.say_of_model(ports, "champion", {"purpose": "to teach"})
        model = model_card(describing.model_card(ports, "champion"), statements.MODEL)
        data = data_card(describing.data_card(ports, "tiny"), statements.DATA)
    for card in (model, data):
        page, text = card_page(card), card_text(card)
        whole(page)
        for section in card.sections:
            assert section.blocks, section.heading
            assert f"{'#' * section.level} {section.heading}\n" in text
            tables = [block for block in section.blocks if isinstance(block, Table)]
            assert all(table.rows for table in tables), section.heading
            assert all(len(row) == len(table.head) for table in tables for row in table.rows), section.heading
            assert not [block for block in section.blocks if isinstance(block, Points) and not block.texts]
        assert not re.search(r"\bNone\b(?! yet|: it)|\bnan\b|\{|\}", text), text
    figures = [block for section in model.sections for block in section.blocks if isinstance(block, Figure)]
    assert len(figures) == 3
    said = card_text(model)
    assert "to teach (said by operator on " in said
    assert "Not stated. To state it: rounds describe v1 --out-of-scope TEXT" in said
    assert "### Against other bundles" in said
    assert "| site north | 100 | 50 |" in said
    assert "| site | 900 | north (" in card_text(data)


def test_a_model_that_was_never_measured_has_a_card_too(home: Path, whole: Callable[[str], Any]) -> None:
    with opened(home) as ports:
        bundle = packed(ports, dataset_in(ports, splits={"train": 60}), classes=("a", "b", "c"))
        card = model_card(describing.model_card(ports, bundle.digest), statements.MODEL)
    whole(card_page(card))
    assert card.lead == "It tells a, b and c apart on films of 16 pixels a side. How good it is was never measured."
    assert "None yet: rounds evaluate" in card_text(card)
