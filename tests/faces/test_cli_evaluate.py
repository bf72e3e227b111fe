"""`rounds evaluate`: slices, harm on purpose, two bundles compared, and data sets of any source."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from tests.support.bundles import tiny_bundle, tiny_films, tiny_truth
from tests.support.commands import rounds
from tests.support.datasets import tiny_dataset
from tests.support.workspace import opened

from rounds.core.records import Bundle
from rounds.imaging.fit import encode_png
from rounds.loop import intake


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    with opened(home) as ports:
        intake.enter(ports, tiny_dataset(ports.datasets, sites=("north", "south")), why="a test")
    return home


@pytest.fixture(scope="module")
def bundle(home: Path) -> Bundle:
    return tiny_bundle(home / "bundles")


def _bytes(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_attributes_become_slices_and_only_named_ones_where_some_are_named(home: Path, bundle: Bundle) -> None:
    answer = rounds(home, "evaluate", bundle.path, "--data", "tiny", "--json").json
    assert [(row["attribute"], row["value"], row["n"], row["subjects"]) for row in answer["slices"]] == [
        ("site", "north", 100, 50),
        ("site", "south", 100, 50),
    ]
    assert not {"robustness", "comparison"} & set(answer)
    named = rounds(home, "evaluate", bundle.path, "--data", "tiny", "--slice", "site", "--json").json
    assert named["slices"] == answer["slices"]
    refused = rounds(home, "evaluate", bundle.path, "--data", "tiny", "--slice", "sex", "--json")
    assert (refused.code, refused.message) == (2, "1 of the slices cannot be cut")
    assert refused.json["error"]["faults"][0]["expected"] == "site"


def test_a_bundle_is_compared_with_another_and_neither_is_changed(home: Path, bundle: Bundle, tmp_path: Path) -> None:
    other = tiny_bundle(tmp_path / "other", bias=4.0, seed=3)
    before = _bytes(bundle.path) | _bytes(other.path)
    page = tmp_path / "page.html"
    said = rounds(home, "evaluate", bundle.path, "--against", other.path, "--data", "tiny", "--out", page, "--json")
    found = said.json["comparison"]
    assert (found["against"], found["n"], found["subjects"]) == (other.digest, 200, 100)
    assert found["accuracy_difference"]["low"] > 0
    assert sum(found["right"].values()) == 200
    assert _bytes(bundle.path) | _bytes(other.path) == before
    text = page.read_text()
    assert "Against another bundle" in text
    assert "Where it was surest, and wrong" in text
    people = rounds(home, "evaluate", bundle.path, "--against", other.path, "--data", "tiny")
    assert "accuracy difference  +" in people.out
    assert f"less bundle {other.digest[:12]}, paired, over 100 subjects:" in people.out


def test_harm_on_purpose_is_measured_where_it_is_asked_for(home: Path, bundle: Bundle, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    answer = rounds(home, "evaluate", bundle.path, "--data", "tiny", "--robustness", "--out", page, "--json").json
    assert answer["robustness"]["n"] == 200
    assert set(answer["robustness"]["curves"]["gamma"]["points"][0]) == {"severity", "auc", "accuracy"}
    assert "What it withstands" in page.read_text()


def test_a_folder_and_a_table_of_one_split_with_the_same_films_are_measured_the_same(
    home: Path, bundle: Bundle, tmp_path: Path
) -> None:
    films = tiny_films(80, seed=21)
    names = np.array(["normal", "opacity"])[tiny_truth(films)]
    for film, name, number in zip(films, names, range(80), strict=True):
        place = tmp_path / "films" / "test" / name
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.png").write_bytes(encode_png(film))
    (tmp_path / "table.csv").write_text(
        "path,label,split\n"
        + "".join(f"films/test/{name}/{i}.png,{int(name == 'normal')},test\n" for i, name in enumerate(names))
    )
    folder = rounds(home, "data", "prepare", tmp_path / "films", "--name", "folder", "--json")
    assert folder.json["splits"]["test"] == 80, folder
    table = ("data", "prepare", tmp_path / "table.csv", "--name", "table", "--classes", "opacity,normal", "--json")
    assert rounds(home, *table).json["splits"]["test"] == 80
    answers = [rounds(home, "evaluate", bundle.path, "--data", name, "--json").json for name in ("folder", "table")]
    assert answers[0]["classes"] == answers[1]["classes"] == ["normal", "opacity"]
    assert answers[0]["confusion"] == answers[1]["confusion"]
    for name in ("auc", "accuracy", "sensitivity", "ece"):
        assert answers[0]["metrics"][name]["value"] == pytest.approx(answers[1]["metrics"][name]["value"], abs=1e-12)
