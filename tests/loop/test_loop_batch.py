"""A folder of films answered without a server, and the files its answers go to."""

from __future__ import annotations

import csv
import json
import socket
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.support.bundles import tiny_films
from tests.support.captured import CLASSES, Ward

from rounds.core.errors import BadRequest, CallerFault, NotWritable
from rounds.core.specs import Limits, ServeSpec
from rounds.imaging.fit import encode_png
from rounds.loop import batch, ruling


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    (folder / "deep").mkdir(parents=True)
    for i, film in enumerate(tiny_films(40, seed=3)):
        (folder / ("deep" if i % 2 else ".") / f"film-{i:02d}.png").write_bytes(encode_png(film))
    (folder / "text.png").write_text("no image")
    (folder / ".hidden.png").write_text("not looked at")
    return folder


def test_every_film_of_a_folder_is_answered_and_what_is_none_is_named(ward: Ward, films: Path) -> None:
    steps: list[tuple[int, int]] = []
    done = batch.predict(ward.ports, "champion", [films], progress=lambda at, of: steps.append((at, of)))
    assert steps == [(32, 41), (41, 41)]
    (refused,) = done["refused"]
    assert refused["path"] == str(films / "text.png")
    first = done["predictions"][0]
    assert len(done["predictions"]) == 40
    keys = {"id", "path", "class", "probabilities", "set", "refer", "reason", "ood", "version", "bundle", "ms"}
    assert set(first) == keys
    assert (first["version"], first["bundle"], list(first["probabilities"])) == ("v1", done["bundle"], list(CLASSES))
    assert ward.ports.captures.count() == 0


def test_a_bundle_is_taken_by_its_folder_too(ward: Ward, films: Path) -> None:
    folder = next(ward.ports.bundles.iterdir())
    done = batch.predict(ward.ports, str(folder), [films / "film-00.png"])
    assert [p["path"] for p in done["predictions"]] == [str(films / "film-00.png")]


def test_every_missing_path_is_named_at_once(ward: Ward, films: Path) -> None:
    with pytest.raises(CallerFault, match=r"2 of 3 paths do not exist\n  .*one: no such file.*\n  .*two: no such"):
        batch.predict(ward.ports, "champion", [Path("one"), films, Path("two")])


def test_a_file_that_cannot_be_read_or_is_too_large_is_refused_alone(
    ward: Ward, films: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(films)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.png")
        ruling.change(ward.ports, replace(ruling.Rules(), serve=ServeSpec(limits=Limits(max_bytes=2000))))
        (films / "large.png").write_bytes(bytes(5000))
        paths = [Path("socket.png"), Path("large.png"), Path("film-00.png")]
        done = batch.predict(ward.ports, "champion", paths)
    assert [p["path"] for p in done["predictions"]] == ["film-00.png"]
    assert [row["path"] for row in done["refused"]] == ["socket.png", "large.png"]
    assert done["refused"][0]["reason"].startswith("cannot be read: ")


def test_answers_are_written_as_json_lines_csv_and_parquet(ward: Ward, films: Path, tmp_path: Path) -> None:
    predictions = batch.predict(ward.ports, "champion", [films])["predictions"]
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        batch.write(tmp_path / name, predictions)
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert lines == predictions
    rows = list(csv.DictReader((tmp_path / "a.csv").open()))
    table = pq.read_table(tmp_path / "a.parquet").to_pylist()
    for flat in (rows, table):
        assert [row["class"] for row in flat] == [p["class"] for p in predictions]
        assert [float(row["p_opacity"]) for row in flat] == [p["probabilities"]["opacity"] for p in predictions]
        assert [row["set"].split() for row in flat] == [p["set"] for p in predictions]


def test_no_answers_make_a_file_all_the_same(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        batch.write(tmp_path / name, [])
    assert ((tmp_path / "a.jsonl").read_text(), (tmp_path / "a.csv").read_text()) == ("", "id\n")
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 0


@pytest.mark.parametrize(("name", "got"), [("a.xlsx", ".xlsx"), ("a", "no ending")])
def test_an_unknown_format_is_refused_before_anything_is_predicted(name: str, got: str) -> None:
    message = rf"cannot write {name}\n  {name}: unknown format; expected .jsonl or .csv or .parquet; got {got}"
    with pytest.raises(BadRequest, match=message):
        batch.check_format(Path(name))
    with pytest.raises(BadRequest, match=message):
        batch.write(Path(name), [])


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(NotWritable, match=r"cannot write a.csv\n.*file/a.csv: .*; expected a folder with room"):
        batch.write(tmp_path / "file" / "a.csv", [])
