"""`rounds data check`, `data diff`, `data prepare --repair` and the refusal of `rounds train`, as they are typed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.data.test_data_near import SUBJECT, plant
from tests.support.commands import rounds
from tests.support.planted import kept, phantom_folders, phantoms

from rounds.loop import intake
from rounds.wiring.serving import open_ports
from rounds.wiring.settings import Settings


def leaky_folder(tmp_path: Path) -> Path:
    """A data set, as a folder, in which one film of train is also in test."""
    films = phantoms(160)
    twin = next(film for film in films if film.split == "train")
    return kept(tmp_path / "leaky", [*films, replace(twin, split="test", name="twin", subject="other")]).path


def test_a_clean_data_set_is_checked_with_exit_0(home: Path, tmp_path: Path) -> None:
    root = phantom_folders(tmp_path / "in", 240, splits=())
    rounds(home, "data", "prepare", root, "--name", "clean", "--subject", SUBJECT)
    page = tmp_path / "page.html"
    said = rounds(home, "data", "check", "clean", "--json", "--out", page)
    assert said.code == 0
    keys = ["name", "digest", "images", "ok", "counts", "findings", "leaks", "shifts", "skipped"]
    assert list(said.json) == keys
    assert (said.json["name"], said.json["images"], said.json["ok"], said.json["leaks"]) == ("clean", 240, True, [])
    text = page.read_text()
    assert "clean, checked" in text
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    table = rounds(home, "data", "check", "clean")
    assert table.out.startswith(f"clean@{said.json['digest'][:12]}: 240 films\nseverity  what was found\n")


def test_a_leak_ends_check_and_train_with_exit_4_and_the_pair(home: Path, tmp_path: Path) -> None:
    folder = leaky_folder(tmp_path)
    page = tmp_path / "page.html"
    said = rounds(home, "data", "check", folder, "--json", "--out", page)
    assert said.code == 4
    (pair,) = said.json["leaks"]
    assert pair[1] == "twin" or pair[0] == "twin"
    assert not said.json["ok"]
    assert page.read_text().count("data:image/png;base64,") >= 2
    text = rounds(home, "data", "check", folder)
    assert f"leak: {' and '.join(pair)}: the same pixels" in text.out
    refused = rounds(home, "train", "--data", folder, "--json")
    assert refused.code == 4
    assert refused.json["error"]["kind"] == "LeakFound"
    assert [sorted(found) for found in refused.json["leaks"]] == [sorted(pair)]


def test_prepare_repairs_when_it_is_told_to_and_says_what_it_did(home: Path, tmp_path: Path) -> None:
    root = phantom_folders(tmp_path / "in", 240)
    planted = plant(root)
    refused = rounds(home, "data", "prepare", root, "--name", "set", "--json")
    assert refused.code == 4
    assert {frozenset(pair) for pair in refused.json["leaks"]} == {frozenset(pair) for pair in planted.items()}
    said = rounds(home, "data", "prepare", root, "--name", "set", "--repair", "--json")
    assert said.code == 0
    assert [row["file"] for row in said.json["repaired"]] == sorted(planted.values())
    assert {row["did"] for row in said.json["repaired"]} == {"dropped"}
    kept_notes = json.loads(next((home / "data").glob("*/dataset.json")).read_text())["notes"]
    assert kept_notes[0] == "repaired: 5 films of train dropped: copies of films in test"
    assert rounds(home, "data", "check", "set", "--json").json["leaks"] == []


def test_two_versions_are_compared_as_markdown_beside_its_figures(home: Path, tmp_path: Path) -> None:
    root = phantom_folders(tmp_path / "in", 160, splits=())
    rounds(home, "data", "prepare", root, "--name", "one", "--subject", SUBJECT)
    gone = sorted(root.rglob("*.png"))[0]
    gone.unlink()
    rounds(home, "data", "prepare", root, "--name", "two", "--subject", SUBJECT)
    out = tmp_path / "diff.md"
    said = rounds(home, "data", "diff", "one", "two", "--out", out, "--json")
    assert said.code == 0
    assert [row["file"] for row in said.json["went"]] == [gone.relative_to(root).as_posix()]
    assert said.json["came"] == []
    assert out.read_text().startswith("## Data set `one@")
    assert "![diff-classes.svg](diff-classes.svg)" in out.read_text()
    assert (tmp_path / "diff-classes.svg").read_text().startswith("<svg")
    printed = rounds(home, "data", "diff", "one", "two").out
    assert printed == out.read_text().replace("![diff-classes.svg](diff-classes.svg)\n", "")


def test_the_refusal_reads_what_prepare_saw_and_decodes_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rounds.data import looks
    from rounds.loop.checking import refuse_leaks

    rounds(home, "data", "prepare", phantom_folders(tmp_path / "in", 160, splits=()), "--name", "clean")
    monkeypatch.setattr(looks, "look_at", None)
    monkeypatch.setattr(looks, "find_copies", None)
    monkeypatch.setenv("ROUNDS_HOME", str(home))
    with open_ports(Settings()) as ports:
        refuse_leaks(ports, intake.find(ports, "clean"))
