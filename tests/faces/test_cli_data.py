"""`rounds data prepare` as it is typed: sources of every kind, what it answers, and what it says of faults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.support.cloud import s3_server
from tests.support.commands import rounds
from tests.support.workspace import opened

from rounds.imaging.packed import Films, stored_png
from rounds.loop import intake


def png(*seed: int) -> bytes:
    return stored_png(np.random.default_rng(seed).integers(0, 256, (12, 12), dtype=np.uint8))


def folder(root: Path, key: int = 0, n: int = 10) -> Path:
    for place, label in enumerate(("normal", "sick")):
        (root / label).mkdir(parents=True)
        for number in range(n):
            (root / label / f"{number}.png").write_bytes(png(key, place, number))
    return root


def table(root: Path) -> Path:
    """A table that names its columns in its own way, over 20 films of 10 people."""
    lines = [f"tree/{label}/{n}.png;{label};{n:03d};{20 + n}" for label in ("normal", "sick") for n in range(10)]
    (root / "films.csv").write_text("\n".join(["where;what;who;age", *lines]))
    folder(root / "tree")
    return root / "films.csv"


def test_a_table_with_named_columns_becomes_a_data_set_with_slices(home: Path, tmp_path: Path) -> None:
    columns = ("--column", "path=where", "--column", "label=what", "--column", "subject=who")
    said = rounds(home, "data", "prepare", table(tmp_path), "--name", "t", *columns, "--attributes", "age", "--json")
    answer = said.json
    assert (answer["taken"], answer["subjects_known"], answer["reasons"]) == (20, True, {})
    assert {split: sum(counts.values()) for split, counts in answer["by_class"].items()} == answer["splits"]
    with opened(home) as ports:
        film = next(film for film in Films(intake.find(ports, "t").path) if film.name == "tree/sick/7.png")
    assert (film.subject, film.attributes) == ("007", {"age": "27"})


def test_a_table_with_three_faults_names_all_three_with_their_rows(home: Path, tmp_path: Path) -> None:
    folder(tmp_path / "tree")
    (tmp_path / "films.csv").write_text(
        "path,label,split\ntree/sick/1.png,sick,train\ntree/sick/99.png,sick,train\n"
        "tree/sick/2.png,,train\ntree/sick/3.png,sick,holdout\n"
    )
    said = rounds(home, "data", "prepare", tmp_path / "films.csv", "--name", "t", "--json")
    assert said.code == 2
    error = said.json["error"]
    assert (error["kind"], error["message"]) == ("BadSource", f"cannot make a data set of {tmp_path / 'films.csv'}")
    assert [(fault["where"], fault["what"]) for fault in error["faults"]] == [
        ("row 3", "no such file"),
        ("row 4", "no label"),
        ("row 5", "unknown split"),
    ]
    assert all(f"row {row}" in said.err for row in (3, 4, 5))


def test_prepare_ends_with_tables_of_what_was_taken_and_what_was_refused(home: Path, tmp_path: Path) -> None:
    root = folder(tmp_path / "in")
    for number in (1, 2):
        (root / f"sick/text{number}.png").write_text("not an image")
    (root / "stray.png").write_bytes(png(9))
    said = rounds(home, "data", "prepare", root, "--name", "x")
    lines = said.out.splitlines()
    assert said.code == 0
    assert lines[0].endswith(": 20 films taken, 3 refused")
    counts = [" ".join(line.split()) for line in lines[1:9]]
    assert counts == [
        "taken normal sick films",
        *("train 5 5 10", "val 1 1 2", "calibration 2 2 4", "test 2 2 4"),
        "refused files",
        *("not an image we take 2", "lies outside the class folders 1"),
    ]
    assert [line.split(":")[1].strip() for line in lines if line.startswith("refused: ")] == [
        "sick/text1.png",
        "sick/text2.png",
        "stray.png",
    ]


def test_several_sources_become_one_data_set(home: Path, tmp_path: Path) -> None:
    one, other = folder(tmp_path / "a"), folder(tmp_path / "b", 1)
    first = rounds(home, "data", "prepare", one, other, "--name", "both", "--json").json
    again = rounds(home, "data", "prepare", other, one, "--name", "both", "--json").json
    assert (first["taken"], first["digest"]) == (40, again["digest"])
    renamed = rounds(home, "data", "prepare", one, "--name", "x", "--classes", "sick=ill,normal=well", "--json").json
    assert renamed["classes"] == ["ill", "well"]


def test_a_leak_names_both_files_by_path_also_without_json(home: Path, tmp_path: Path) -> None:
    folder(tmp_path / "in/train")
    folder(tmp_path / "in/test", 1)
    (tmp_path / "in/test/sick/copy.png").write_bytes(png(0, 1, 3))
    said = rounds(home, "data", "prepare", tmp_path / "in", "--name", "x")
    assert (said.code, said.out) == (4, "")
    assert "test/sick/copy.png and train/sick/3.png: the same image in two splits" in said.err
    told = rounds(home, "data", "prepare", tmp_path / "in", "--name", "x", "--json").json
    assert told["leaks"] == [["test/sick/copy.png", "train/sick/3.png"]]


def test_an_official_set_with_another_checksum_is_refused_and_named(home: Path, tmp_path: Path) -> None:
    (tmp_path / "pneumoniamnist.npz").write_bytes(b"something else")
    said = rounds(home, "data", "prepare", "medmnist:pneumoniamnist", "--name", "x", "--mirror", tmp_path, "--json")
    fault = said.json["error"]["faults"][0]
    assert (said.code, fault["what"], fault["where"]) == (
        3,
        "not the official file",
        str(tmp_path / "pneumoniamnist.npz"),
    )
    assert fault["expected"] == "md5 28209eda62fecd6e6a2d98b1501bb15f"


def test_the_mirror_is_also_a_setting(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUNDS_MEDMNIST_MIRROR", str(tmp_path))
    said = rounds(home, "data", "prepare", "medmnist:bloodmnist_64", "--name", "x", "--json")
    assert (said.code, said.json["error"]["kind"]) == (3, "StoreAway")
    assert said.message == f"cannot get {tmp_path / 'bloodmnist_64.npz'}"


def test_a_bucket_is_a_source_and_one_that_is_not_there_the_worlds_fault(home: Path, tmp_path: Path) -> None:
    root = folder(tmp_path / "in")
    with s3_server() as store:
        store.put(store.make_bucket("films"), {str(p.relative_to(root)): p for p in root.rglob("*.png")})
        with store.reached():
            far = rounds(home, "data", "prepare", "s3://films", "--name", "far", "--json")
            gone = rounds(home, "data", "prepare", "s3://gone/films", "--name", "x", "--json")
    assert far.json["digest"] == rounds(home, "data", "prepare", root, "--name", "near", "--json").json["digest"]
    assert (gone.code, gone.json["error"]["kind"]) == (3, "StoreAway")


def test_the_real_dicom_films_are_prepared_with_a_table_of_labels(home: Path, tmp_path: Path, datasets: Path) -> None:
    names = sorted(path.name for path in (datasets / "dicom").iterdir())
    (tmp_path / "labels.csv").write_text(f"file,label\n{names[0]},normal\n{names[1]},opacity\n")
    said = rounds(home, "data", "prepare", datasets / "dicom", "--name", "d", "--labels", tmp_path / "labels.csv")
    assert said.code == 0, said.err
    assert "2 films taken, 0 refused" in said.out
    with opened(home) as ports:
        kept = Films(intake.find(ports, "d").path)
        assert [film.split for film in kept] == ["test", "test"]
        assert all(name[:8] not in film.name for film in kept for name in names)
        assert all(ports.secret.encode() not in path.read_bytes() for path in kept.dataset.path.rglob("*.*"))
