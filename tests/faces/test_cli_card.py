"""`rounds card`, `rounds describe`, and the same under `rounds data`, as they are typed."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.captured import dataset_in, packed
from tests.support.commands import rounds
from tests.support.workspace import opened


@pytest.fixture
def digest(home: Path) -> str:
    """A workspace with a data set and a bundle; the bundle's digest."""
    with opened(home) as ports:
        return packed(ports, dataset_in(ports, splits={"train": 60, "test": 60})).digest


def test_a_data_card_is_a_page_or_markdown_by_its_name(home: Path, digest: str, tmp_path: Path) -> None:
    page, text = tmp_path / "card.html", tmp_path / "card.md"
    facts = rounds(home, "data", "card", "tiny", "--out", page, "--json").json
    assert (facts["card"], facts["name"], facts["bundles"][0]["bundle"]) == ("data", "tiny", digest)
    assert page.read_text().startswith("<!doctype html>")
    said = rounds(home, "data", "card", "tiny", "--out", text)
    assert said.out.splitlines()[-1] == ("not stated: source, licence, purpose, collected, labelled, limits, contact")
    assert text.read_text().startswith("# Data set tiny\n")


def test_a_model_card_lies_among_the_reports_and_tells_the_limits(home: Path, digest: str) -> None:
    said = rounds(home, "card", digest[:8])
    assert said.code == 0
    assert (home / "reports" / f"card-{digest[:12]}.html").is_file()
    assert "limit: It was never measured: rounds evaluate measures it" in said.out


def test_what_is_described_stands_in_the_card_and_in_the_log(home: Path, digest: str, tmp_path: Path) -> None:
    licence = ("--licence", "CC BY 4.0", "--source", "Kermany et al. 2018")
    told = rounds(home, "data", "describe", "tiny", *licence, "--json").json
    assert told["said"]["licence"]["text"] == "CC BY 4.0"
    assert rounds(home, "describe", digest, "--out-of-scope", "people").code == 0
    assert "out_of_scope people" in rounds(home, "describe", digest).out
    out = tmp_path / "card.md"
    rounds(home, "card", digest, "--out", out)
    text = out.read_text()
    assert "may decide how a patient is examined or treated. people (said by operator" in text
    assert "- **Licence:** CC BY 4.0\n" in text
    assert [e["kind"] for e in rounds(home, "history", "--json").json["events"]][2:] == ["described", "described"]


def test_a_card_of_another_kind_or_of_nothing_is_refused(home: Path, digest: str, tmp_path: Path) -> None:
    refused = rounds(home, "card", digest, "--out", tmp_path / "card.pdf", "--json")
    assert (refused.code, refused.message) == (2, "the card cannot be written so")
    assert rounds(home, "card", "nothing", "--json").code == 2
    assert rounds(home, "data", "card", "nothing", "--json").json["error"]["kind"] == "UnknownId"
