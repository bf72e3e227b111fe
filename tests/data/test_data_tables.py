"""Tables as sources: which columns are read, what each faulty row is told, where paths may lead."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rounds.core.errors import BadOverride, BadSource
from rounds.core.records import Prepared
from rounds.core.specs import DataSpec
from rounds.data.items import Item
from rounds.data.prepare import prepare
from rounds.data.sources import open_source
from rounds.imaging.packed import Films, stored_png

LABELS = ("normal", "sick")


def png(*seed: int) -> bytes:
    return stored_png(np.random.default_rng(seed).integers(0, 256, (12, 12), dtype=np.uint8))


def films(folder: Path, n: int) -> list[str]:
    """n different images in folder/img, and their paths inside the folder."""
    (folder / "img").mkdir(parents=True, exist_ok=True)
    for number in range(n):
        (folder / f"img/{number}.png").write_bytes(png(number))
    return [f"img/{number}.png" for number in range(n)]


def table(path: Path, rows: list[dict[str, Any]], delimiter: str = ",", encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="", encoding=encoding) as file:
            writer = csv.DictWriter(file, rows[0].keys(), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    return path


def read(path: Path | str, **options: Any) -> list[Item]:
    with open_source(str(path), DataSpec(**options)) as source:
        return list(source.items)


def made(path: Path, tmp_path: Path, **options: Any) -> Prepared:
    return prepare(DataSpec(str(path), "set", min_per_class=1, **options), folder=tmp_path / "out")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_a_table_gives_films_with_subjects_splits_and_slices(tmp_path: Path, suffix: str) -> None:
    rows = [
        {
            "filename": path,
            "Finding": LABELS[number % 2],
            "patient_id": f"{number // 2:03d}",
            "set": ("Training", "valid", "test")[number // 2 % 3],
            "age": 30 + number,
            "view": "PA",
            "report": "long",
        }
        for number, path in enumerate(films(tmp_path, 24))
    ]
    path = table(tmp_path / f"films{suffix}", rows, "\t" if suffix == ".tsv" else ",")
    done = made(path, tmp_path, columns=("age=age", "view=view"), calibration=0.0)
    assert done.dataset.splits == {"train": 8, "val": 8, "test": 8}
    assert done.dataset.subjects_known
    assert done.dataset.notes[0] == "columns left out: report (--attributes makes slices of them)"
    film = next(film for film in Films(done.dataset.path) if film.name == "img/5.png")
    assert (film.label, film.subject, film.split, film.data) == ("sick", "002", "test", png(5))
    assert film.attributes == {"age": "35", "view": "PA"}


def test_csv_and_parquet_of_the_same_rows_make_the_same_data_set(tmp_path: Path) -> None:
    rows = [
        {"path": path, "label": LABELS[number % 2], "subject": f"{number:03d}", "kv": f"{number}"}
        for number, path in enumerate(films(tmp_path, 16))
    ]
    numbers = [{**row, "kv": int(row["kv"])} for row in rows]
    digests = {
        made(table(tmp_path / name, given), tmp_path, columns=("kv=kv",)).dataset.digest
        for name, given in (("a.csv", rows), ("b.parquet", numbers), ("c.parquet", numbers[::-1]))
    }
    assert len(digests) == 1


def test_columns_are_named_where_they_bear_other_names(tmp_path: Path) -> None:
    rows = [
        {"where": path, "what": "ab"[n % 2], "who": "007", "label": "unused", "fold": n}
        for n, path in enumerate(films(tmp_path, 4))
    ]
    path = table(tmp_path / "films.csv", rows)
    columns = ("path=where", "label=what", "subject=who", "split=", "ward=fold")
    found = read(path, columns=columns)
    assert [(item.name, item.label, item.subject, item.split, item.attributes) for item in found] == [
        (f"img/{n}.png", "ab"[n % 2], "007", None, {"ward": str(n)}) for n in range(4)
    ]


def test_semicolons_a_byte_order_mark_and_backslashes_are_read(tmp_path: Path) -> None:
    films(tmp_path, 2)
    path = tmp_path / "films.csv"
    path.write_text("path;label\r\nimg\\0.png; sick \r\n\r\n.\\img\\1.png;normal\r\n", encoding="utf-8-sig")
    assert [(item.name, item.label) for item in read(path)] == [("img/0.png", "sick"), ("img/1.png", "normal")]


def test_every_faulty_row_is_named_at_once(tmp_path: Path) -> None:
    films(tmp_path, 6)
    (tmp_path / "films.csv").write_text(
        "path,label,split\n"
        "img/0.png,normal,train\n"
        "img/gone.png,normal,train\n"
        "img/1.png,,train\n"
        "img/2.png,sick,holdout\n"
        "img/0.png,sick,train\n"
        "../secret.png,sick,train\n"
        "/etc/hostname,sick,train\n"
        "img/3.png,sick\n"
        ",sick,train\n"
        "img,sick,train\n"
    )
    with pytest.raises(BadSource) as raised:
        made(tmp_path / "films.csv", tmp_path)
    assert raised.value.exit_code == 2
    assert str(raised.value).splitlines() == [
        f"cannot make a data set of {tmp_path / 'films.csv'}",
        f"  row 3: no such file; expected an image below {tmp_path}; got img/gone.png",
        "  row 4: no label; expected the class in column label",
        "  row 5: unknown split; expected one of train, val, calibration, test; got 'holdout'. If column split is "
        "something else: --column split=",
        "  row 6: the path has a second label; expected one a path; got sick here and normal in row 2, for img/0.png",
        "  row 7: the path leads out of the folder; expected a path inside it; got ../secret.png. Name a folder that "
        f"holds it: --root DIR (now {tmp_path})",
        "  row 8: the path leads out of the folder; expected a path inside it; got /etc/hostname. Name a folder that "
        f"holds it: --root DIR (now {tmp_path})",
        "  row 9: the row has another number of values; expected 3, as in the header; got 2",
        "  row 10: no path; expected the path of an image in column path",
        f"  row 11: no such file; expected an image below {tmp_path}; got img",
    ]
    assert not (tmp_path / "out").exists()


def test_a_path_in_two_splits_or_of_two_subjects_is_a_fault(tmp_path: Path) -> None:
    films(tmp_path, 2)
    (tmp_path / "films.csv").write_text(
        "path,label,split,subject\nimg/0.png,a,train,x\nimg/0.png,a,test,x\nimg/1.png,b,train,x\nimg/1.png,b,train,y\n"
    )
    with pytest.raises(BadSource) as raised:
        read(tmp_path / "films.csv")
    assert [(fault.where, fault.what) for fault in raised.value.faults] == [
        ("row 3", "the path has a second split"),
        ("row 5", "the path has a second subject or attribute"),
    ]


def test_a_row_that_says_the_same_again_is_taken_once(tmp_path: Path) -> None:
    films(tmp_path, 2)
    (tmp_path / "films.csv").write_text("path,label,box\nimg/0.png,a,1\nimg/1.png,b,\n./img/0.png,a,2\n")
    with open_source(str(tmp_path / "films.csv")) as source:
        assert [item.name for item in source.items] == ["img/0.png", "img/1.png"]
        assert source.notes == [
            "columns left out: box (--attributes makes slices of them)",
            "1 rows say what an earlier row said of the same path: taken once",
        ]


def test_very_many_faults_are_counted(tmp_path: Path) -> None:
    path = table(tmp_path / "films.csv", [{"path": f"{n}.png", "label": "a"} for n in range(1000)])
    with pytest.raises(BadSource) as raised:
        read(path)
    assert len(raised.value.faults) == 201
    assert str(raised.value).splitlines()[-1] == "  and 800 more faults of rows"


def test_paths_are_relative_to_the_root_that_is_given(tmp_path: Path) -> None:
    films(tmp_path / "far", 2)
    whole = str(tmp_path / "far/img/1.png")
    path = table(tmp_path / "near/films.csv", [{"path": "img/0.png", "label": "a"}, {"path": whole, "label": "b"}])
    found = read(path, root=str(tmp_path / "far"))
    assert {item.name: item.read() for item in found} == {"img/0.png": png(0), "img/1.png": png(1)}
    with pytest.raises(BadSource, match="no such folder; expected the folder that its paths are relative to"):
        read(path, root=str(tmp_path / "nowhere"))


def test_columns_that_are_not_there_are_told_with_those_that_are(tmp_path: Path) -> None:
    path = table(tmp_path / "films.csv", [{"path": "a.png", "diagnosis": "a"}])
    with pytest.raises(BadSource) as raised:
        read(path)
    assert str(raised.value).splitlines()[1:] == [
        "  the header: no column for the label; expected label or class or target or finding; got path, diagnosis. "
        "Name it: --column label=NAME"
    ]
    with pytest.raises(BadOverride) as wrong:
        read(path, columns=("label=diagnosys", "view"))
    assert str(wrong.value).splitlines()[1:] == [
        "  diagnosys: not a column of the table; expected one of path, diagnosis. Did you mean diagnosis?",
        "  view: not a column by its role; expected role=column",
    ]


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("a.csv", b"", "no column for the path"),
        ("a.csv", b"path,label\n\xff\xfe,a\n", "the table is not UTF-8; expected text in UTF-8; got byte 0xff"),
        ("a.csv", b"path,label\na\0b,a\n", "row 2: no such file"),
        ("a.csv", b"path,label,label\na,b,c\n", "label: two columns have this name"),
        ("a.csv", b'path,label\n"' + b"a" * 200_000 + b'",b\n', "the table is broken"),
        ("a.parquet", b"PAR1 and more", "the table is broken"),
        ("a.parquet", b"", "the table is broken"),
    ],
    ids=["empty", "not-text", "nul", "twice", "huge-field", "cut-parquet", "empty-parquet"],
)
def test_a_broken_table_is_refused(tmp_path: Path, name: str, data: bytes, what: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadSource, match=what):
        read(tmp_path / name)


def test_a_file_of_a_table_that_is_no_image_is_refused_and_listed(tmp_path: Path) -> None:
    rows = [{"path": path, "label": LABELS[n % 2]} for n, path in enumerate(films(tmp_path, 16))]
    (tmp_path / "img/3.png").write_text("not an image")
    done = made(table(tmp_path / "films.csv", rows), tmp_path)
    assert done.taken == 15
    assert [file for file, _ in done.refused] == ["img/3.png"]


def huggingface(path: Path, rows: list[dict[str, Any]], names: list[str]) -> Path:
    """A table as `datasets` writes it: images in place, classes by number, their names in the metadata."""
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    found = pa.Table.from_pylist(rows)
    told = json.dumps({"info": {"features": features}})
    pq.write_table(found.replace_schema_metadata({"huggingface": told}), path, row_group_size=5)
    return path


@pytest.mark.parametrize("shape", ["bytes and path", "bytes alone"])
def test_images_inside_a_parquet_column_are_read(tmp_path: Path, shape: str) -> None:
    def image(number: int) -> Any:
        return {"bytes": png(number), "path": f"{number}.png"} if shape == "bytes and path" else png(number)

    rows = [{"image": image(number), "label": number % 2, "split": "train"} for number in range(20)]
    found = huggingface(tmp_path / "films.parquet", rows, ["normal", "sick"])
    done = made(found, tmp_path)
    by_name = {film.name: (film.label, film.data) for film in Films(done.dataset.path)}
    name = (lambda n: f"{n}.png") if shape == "bytes and path" else (lambda n: f"image[{n + 1}]")
    assert by_name == {name(number): (LABELS[number % 2], png(number)) for number in range(20)}


def test_a_row_without_image_bytes_is_refused_and_listed(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": png(n), "path": f"{n}.png"}, "label": n % 2} for n in range(12)]
    rows += [{"image": {"bytes": None, "path": "12.png"}, "label": 0}, {"image": None, "label": 1}]
    done = made(huggingface(tmp_path / "films.parquet", rows, ["a", "b"]), tmp_path)
    assert done.refused == (("12.png", "the row holds no image"), ("image[14]", "the row holds no image"))


def test_a_dicom_file_of_a_table_never_gets_into_a_data_set(tmp_path: Path) -> None:
    rows = [{"path": path, "label": LABELS[n % 2]} for n, path in enumerate(films(tmp_path, 16))]
    (tmp_path / "img/3.png").write_bytes(bytes(128) + b"DICM" + b"Doe^Jane")
    done = made(table(tmp_path / "films.csv", rows), tmp_path)
    assert done.refused[0][0] == "img/3.png"
    assert done.refused[0][1].startswith("a DICOM file, which says whose film it is. Give the folder that holds it as")
    assert all(b"Doe^Jane" not in pack.read_bytes() for pack in done.dataset.path.glob("pack-*"))


def test_options_of_tables_need_a_table(tmp_path: Path) -> None:
    with pytest.raises(BadOverride) as raised:
        prepare(DataSpec("phantom:n=8", "set", columns=("age=age",), root="x", shared_subjects=True), folder=tmp_path)
    assert [(fault.where, fault.what) for fault in raised.value.faults] == [
        ("root", "only a table has paths"),
        ("columns", "only a table has columns"),
        ("shared_subjects", "one source shares its subjects with none"),
    ]
