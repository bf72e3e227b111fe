"""A folder of films answered without a server, and the files its answers go to."""

from __future__ import annotations

import csv
import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.support.bundles import tiny_films
from tests.support.captured import CLASSES, Ward
from tests.support.dicoms import dicom

from rounds.core.errors import BadOverride, BadRequest, CallerFault, NotWritable
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
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        done = batch.predict(ward.ports, "champion", [films], out=tmp_path / name)
    predictions = done["predictions"]
    assert [row["path"] for row in done["refused"]] == [str(films / "text.png")]
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert lines == predictions
    rows = list(csv.DictReader((tmp_path / "a.csv").open()))
    table = pq.read_table(tmp_path / "a.parquet").to_pylist()
    for flat in (rows, table):
        assert [row["class"] for row in flat] == [p["class"] for p in predictions]
        assert [float(row["p_opacity"]) for row in flat] == [p["probabilities"]["opacity"] for p in predictions]
        assert [row["set"].split() for row in flat] == [p["set"] for p in predictions]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[:2] == "a.") == [
        "a.csv",
        "a.jsonl",
        "a.parquet",
    ]


def test_answers_in_a_file_are_those_on_the_screen_but_for_how_long_they_took(
    ward: Ward, films: Path, tmp_path: Path
) -> None:
    shown = batch.predict(ward.ports, "champion", [films])["predictions"]
    written = batch.predict(ward.ports, "champion", [films], out=tmp_path / "a.jsonl")["predictions"]
    assert all(p["ms"] > 0 for p in shown)
    assert [p | {"ms": 0.0} for p in shown] == written


def test_an_answer_has_the_same_id_whenever_it_is_given(ward: Ward, films: Path, monkeypatch) -> None:
    monkeypatch.chdir(films)
    first, again = (batch.predict(ward.ports, "champion", [Path()])["predictions"] for _ in range(2))
    assert [p["id"] for p in first] == [p["id"] for p in again]
    assert len({p["id"] for p in first}) == 40
    moved = batch.predict(ward.ports, "champion", [films])["predictions"]
    assert not {p["id"] for p in first} & {p["id"] for p in moved}, "other paths"
    (films / "film-00.png").write_bytes((films / "film-02.png").read_bytes())
    changed = batch.predict(ward.ports, "champion", [Path("film-00.png"), Path("film-02.png")])["predictions"]
    ids = [p["id"] for p in first if p["path"] in ("film-00.png", "film-02.png")]
    assert changed[0]["id"] not in ids
    assert changed[1]["id"] == ids[1]


def test_dicom_films_are_answered_too(ward: Ward, tmp_path: Path) -> None:
    (tmp_path / "film.dcm").write_bytes(dicom(tiny_films(1)[0, 0]))
    (answer,) = batch.predict(ward.ports, "champion", [tmp_path / "film.dcm"], out=tmp_path / "a.csv")["predictions"]
    assert answer["class"] in CLASSES


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_two_processes_write_the_same_bytes_as_one_and_as_three(
    ward: Ward, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(batch, "WORTH_S", 0.0)
    odd = os.fsdecode(os.fsencode(films) + b"/f\xfflm-\xc3\xa9.png")
    Path(odd).write_bytes((films / "film-00.png").read_bytes())
    for i, film in enumerate(tiny_films(300, seed=4)):
        (films / "deep" / f"more-{i:03d}.png").write_bytes(encode_png(film))
    said, steps = {}, []
    for workers in (1, 2, 3):
        out = tmp_path / f"by-{workers}.{ending}"
        said[workers] = batch.predict(
            ward.ports, "champion", [films], out=out, workers=workers, progress=lambda at, of: steps.append((at, of))
        )
    assert said[1] == said[2] == said[3]
    assert len(said[1]["predictions"]) == 341
    assert len({(tmp_path / f"by-{workers}.{ending}").read_bytes() for workers in said}) == 1
    assert steps[-1] == (342, 342)


def test_of_many_answers_only_their_number_is_said(
    ward: Ward, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "LISTED", 20)
    for i in range(30):
        (films / f"text-{i:02d}.txt").write_text("no image")
    out = tmp_path / "a.jsonl"
    done = batch.predict(ward.ports, "champion", [films], out=out)
    assert (done["predictions"], done["written"], done["refused_count"]) == ([], 40, 31)
    assert len(out.read_text().splitlines()) == 40
    assert len(done["refused"]) == 20
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl.refused.jsonl").read_text().splitlines()]
    assert rows[:20] == done["refused"]
    assert len(rows) == 31
    whole = batch.predict(ward.ports, "champion", [films])
    assert set(whole) == {"bundle", "predictions", "refused"}
    assert (len(whole["predictions"]), len(whole["refused"])) == (40, 31)


def test_films_that_come_or_go_while_it_runs_are_answered_or_not_and_nothing_breaks(
    ward: Ward, films: Path, tmp_path: Path
) -> None:
    def come(done: int, _of: int) -> None:
        if done == 32:
            for i in range(50):
                (films / "deep" / f"new-{i:02d}.png").write_bytes((films / "film-00.png").read_bytes())
            (films / "film-38.png").unlink()

    done = batch.predict(ward.ports, "champion", [films], out=tmp_path / "a.jsonl", workers=1, progress=come)
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == len(done["predictions"])
    assert 39 <= len(done["predictions"]) <= 90


def test_without_an_answer_there_is_no_file(ward: Ward, films: Path, tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        done = batch.predict(ward.ports, "champion", [films / "text.png"], out=tmp_path / name)
        assert (done["predictions"], len(done["refused"])) == ([], 1)
        assert [path for path in tmp_path.iterdir() if path.name.startswith("a.")] == []


def test_the_file_itself_is_no_film_though_it_lies_among_them(ward: Ward, films: Path) -> None:
    once, again = (batch.predict(ward.ports, "champion", [films], out=films / "a.jsonl") for _ in range(2))
    assert once == again
    assert [row["path"] for row in again["refused"]] == [str(films / "text.png")]


@pytest.mark.parametrize(("name", "got"), [("a.xlsx", ".xlsx"), ("a", "no ending")])
def test_an_unknown_format_is_refused_before_anything_is_predicted(
    ward: Ward, films: Path, name: str, got: str
) -> None:
    message = rf"cannot write {name}\n  {name}: unknown format; expected .jsonl or .csv or .parquet; got {got}"
    with pytest.raises(BadRequest, match=message):
        batch.predict(ward.ports, "champion", [films], out=Path(name))


def test_an_unknown_launcher_and_no_worker_are_refused_at_once(ward: Ward, films: Path) -> None:
    message = (
        r"the films cannot be answered so\n  --workers: nobody would work; expected 1 or more; got 0\n"
        r"  --launcher: no such launcher; expected local or ray; got torchrun"
    )
    with pytest.raises(BadOverride, match=message):
        batch.predict(ward.ports, "champion", [films], workers=0, launcher="torchrun")


def test_a_file_that_cannot_be_written_is_named(ward: Ward, films: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(
        NotWritable, match=r"cannot write a.csv.part\n.*file/a.csv.part: .*; expected a folder with room"
    ):
        batch.predict(ward.ports, "champion", [films], out=tmp_path / "file" / "a.csv")
