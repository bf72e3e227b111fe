"""DICOM trees to data sets: labels joined, subjects kept together, and nobody's name in any byte of what is kept."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.fileset import FileSet
from pydicom.uid import JPEG2000Lossless, generate_uid
from tests.support.dicoms import dicom, jpeg_2000, written

from rounds.core.errors import BadImage, BadOverride, BadSource, LeakFound
from rounds.core.specs import DataSpec, Limits
from rounds.data.dicom import open_dicom, pseudonym
from rounds.data.items import Item, Source
from rounds.data.prepare import prepare
from rounds.imaging.decode import decode
from rounds.imaging.packed import Films

_KEY = "the workspace's own secret"
_SPEC = DataSpec(name="films", min_per_class=1, val=0.2, calibration=0.2, test=0.2)


def _film(number: int, patient: str, **elements: Any) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 4096, (40, 32)).astype(np.uint16)
    elements = {"PatientID": patient, "BurnedInAnnotation": "NO", "WindowCenter": 2048, "WindowWidth": 4096, **elements}
    return dicom(pixels, BitsStored=12, **elements)


def _tree(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def _told(source: Source) -> list[tuple[str, str | None, str | None]]:
    return [(item.origin, item.split, item.label) for item in source.items]


def test_films_are_found_at_any_depth_with_or_without_suffix(tmp_path: Path) -> None:
    whole = {
        "a/b/c/IM0001": _film(1, "p1"),
        "film.dcm": _film(2, "p2"),
        "no preamble": _film(3, "p3")[132:],
        "DICOMDIR": b"\0" * 128 + b"DICM" + b"directory",
        ".DS_Store": b"x",
        "a/readme.txt": b"how this was exported",
    }
    with open_dicom(_tree(tmp_path, whole), key=_KEY, tag="BodyPartExamined") as source:
        assert sorted(_told(source)) == [
            ("a/b/c/IM0001", None, "CHEST"),
            ("film.dcm", None, "CHEST"),
            ("no preamble", None, "CHEST"),
        ]
        assert [(file, reason.split(";")[0]) for file, reason in source.refused] == [
            ("a/readme.txt", "not a DICOM file")
        ]


def test_a_dicomdir_that_pydicom_writes_is_passed_over(tmp_path: Path) -> None:
    files = FileSet()
    for number in range(3):
        film = dcmread(io.BytesIO(_film(number, f"p{number}", StudyID="1", SeriesNumber=1, InstanceNumber=number)))
        film.StudyInstanceUID, film.SeriesInstanceUID, film.StudyDate, film.StudyTime = "1.2", "1.3", "20200101", "1"
        files.add(film)
    files.write(tmp_path / "export")
    with open_dicom(tmp_path / "export", key=_KEY, tag="Modality") as source:
        assert (source.total, source.refused, source.labels) == (3, [], {"CR"})


def test_the_same_person_has_the_same_pseudonym_under_the_same_key(tmp_path: Path) -> None:
    tree = _tree(tmp_path, {f"{number}.dcm": _film(number, f"p{number % 2}") for number in range(4)})
    found = {}
    for key in ("one", "two"):
        with open_dicom(tree, key=key, tag="Modality") as source:
            found[key] = [item.subject for item in source.items]
    assert found["one"] == [pseudonym("one", f"p{number % 2}") for number in range(4)]
    assert len(set(found["one"] + found["two"])) == 4


def _said(tree: Path, table: Path, **more: Any) -> list[tuple[str, str | None, str]]:
    with open_dicom(tree, key=_KEY, labels=table, **more) as source:
        return [(item.origin, item.split, item.label) for item in source.items]


@pytest.mark.parametrize("join", ["SOPInstanceUID", "AccessionNumber", "PatientID", "path", "name"])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_table_is_joined_by_what_it_names(tmp_path: Path, join: str, form: str) -> None:
    uids = [generate_uid() for _ in range(4)]
    tree = _tree(
        tmp_path / "tree",
        {
            f"in/{number}.dcm": _film(number, f"p{number}", SOPInstanceUID=uids[number], AccessionNumber=f"00{number}")
            for number in range(4)
        },
    )
    values = {
        "SOPInstanceUID": uids,
        "AccessionNumber": [f"00{number}" for number in range(4)],
        "PatientID": [f"p{number}" for number in range(4)],
        "path": [f"in/{number}.dcm" for number in range(4)],
        "name": [str(number) for number in range(4)],
    }[join]
    column = {"name": "dicom_id", "SOPInstanceUID": "sop_instance_uid"}.get(join, join)
    columns = {column: values, "label": list("abab"), "split": ["train", "valid", "test", ""]}
    table = tmp_path / f"labels.{form}"
    if form == "csv":
        rows = zip(*columns.values(), strict=True)
        table.write_text("\n".join([",".join(columns), *map(",".join, rows)]))
    else:
        pq.write_table(pa.table(columns), table)
    assert _said(tree, table) == [
        ("in/0.dcm", "train", "a"),
        ("in/1.dcm", "val", "b"),
        ("in/2.dcm", "test", "a"),
        ("in/3.dcm", None, "b"),
    ]


def test_columns_of_other_names_are_mapped_and_others_become_attributes(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "tree", {f"{number}": _film(number, f"p{number}") for number in range(2)})
    table = tmp_path / "labels.csv"
    table.write_text("who;verdict;site\np0;ill;north\np1;well;south\np9;ill;north\n")
    columns = ["PatientID=who", "label=verdict", "site=site"]
    with open_dicom(tree, key=_KEY, labels=table, columns=columns) as source:
        items = list(source.items)
        assert [(item.label, item.attributes["site"]) for item in items] == [("ill", "north"), ("well", "south")]
        assert source.notes == ["1 of 3 rows of the label table belong to no film"]


def test_every_fault_of_a_table_is_named_with_its_row(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "tree", {"1": _film(1, "p1")})
    table = tmp_path / "labels.csv"
    table.write_text("PatientID,label,split\np1,,\n,ill,\np2,ill,nowhere\np3,ill,\np3,well,\n")
    with pytest.raises(BadSource) as caught, open_dicom(tree, key=_KEY, labels=table):
        pass
    assert [f"{fault.where}: {fault.what}" for fault in caught.value.faults] == [
        "row 2: the row has no label",
        "row 3: the row does not say whose it is",
        "row 4: no such split",
        "row 6: the row contradicts row 5, which has the same PatientID",
    ]
    table.write_text("name,verdict\n")
    with pytest.raises(BadOverride) as refused, open_dicom(tree, key=_KEY, labels=table, columns=["label=verdikt"]):
        pass
    assert [str(fault) for fault in refused.value.faults] == [
        "verdikt: no such column; expected one of name, verdict. Did you mean verdict?"
    ]


def test_a_film_that_no_row_or_element_labels_is_refused_with_the_reason(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "tree", {"1": _film(1, "p1"), "2": _film(2, "p2", BodyPartExamined="")})
    table = tmp_path / "labels.csv"
    table.write_text("PatientID,label\np1,ill\n")
    with open_dicom(tree, key=_KEY, labels=table) as source:
        assert source.refused == [("2", "no row of the label table belongs to it")]
    with open_dicom(tree, key=_KEY, tag="BodyPartExamined") as source:
        assert source.refused == [("2", "has no BodyPartExamined to be its label")]


def test_private_and_nested_elements_can_be_labels(tmp_path: Path) -> None:
    film = dcmread(io.BytesIO(_film(1, "p1")))
    film.private_block(0x0011, "ACME 1.0", create=True).add_new(0x01, "LO", "ill")
    step = Dataset()
    step.ScheduledProcedureStepDescription = "CHEST PA"
    film.RequestAttributesSequence = [step]
    tree = _tree(tmp_path, {"1": written(film)})
    for tag, label in (
        ("(0011,ACME 1.0,01)", "ill"),
        ("(0011,1001)", "ill"),
        ("RequestAttributesSequence.ScheduledProcedureStepDescription", "CHEST PA"),
    ):
        with open_dicom(tree, key=_KEY, tag=tag) as source:
            assert source.labels == {label}
    with pytest.raises(BadOverride, match="Modalty"), open_dicom(tree, key=_KEY, tag="Modalty"):
        pass


def test_class_folders_are_classes_and_folders_of_patients_are_not(tmp_path: Path) -> None:
    classes = {f"{label}/{number}": _film(number, f"p{number}") for number in range(6) for label in ["ab"[number % 2]]}
    with open_dicom(_tree(tmp_path / "classes", classes), key=_KEY) as source:
        assert [item.label for item in source.items] == list("aaabbb")
    patients = {f"case {number // 3}/{number}": _film(number, f"p{number // 3}") for number in range(6)}
    with pytest.raises(BadSource) as caught, open_dicom(_tree(tmp_path / "patients", patients), key=_KEY):
        pass
    assert [f"{fault.where}: {fault.what}" for fault in caught.value.faults] == [
        "case 0: the folder holds films of one patient only",
        "case 1: the folder holds films of one patient only",
    ]
    named = {f"{who}/{number}": _film(number, f"p{number}", PatientName="Roe^Janet") for number, who in enumerate("ab")}
    named |= {"janet roe/7": _film(7, "p7", PatientName="Roe^Janet"), "janet roe/8": _film(8, "p8")}
    with pytest.raises(BadSource, match="a label names a person"):
        open_dicom(_tree(tmp_path / "named", named), key=_KEY).__enter__()


def test_an_element_that_names_somebody_is_no_label(tmp_path: Path) -> None:
    tree = _tree(tmp_path, {"1": _film(1, "patient-1", PatientName="Roe^Janet", PatientBirthDate="19500101")})
    for tag in ("PatientName", "PatientID", "PatientBirthDate", "SOPInstanceUID"):
        with pytest.raises(BadSource, match="a label names a person"), open_dicom(tree, key=_KEY, tag=tag):
            pass


def test_only_harmless_attributes_are_kept_and_ages_by_decade(tmp_path: Path) -> None:
    elements = {
        "one": {"PatientAge": "067Y", "PatientSex": "F", "ManufacturerModelName": "DRX-1", "Manufacturer": "ACME"},
        "two": {"PatientAge": "093Y", "PatientSex": "x", "ViewPosition": "seen by Dr. Who"},
        "three": {"PatientAge": "018M", "ManufacturerModelName": "Room of Janet", "PatientName": "Roe^Janet"},
        "four": {"PatientBirthDate": "19500601", "StudyDate": "20200531"},
    }
    tree = _tree(tmp_path, {name: _film(n, name, **more) for n, (name, more) in enumerate(elements.items())})
    always = {"modality": "CR", "view": "PA", "photometric": "MONOCHROME2"}
    with open_dicom(tree, key=_KEY, tag="Modality") as source:
        found = {item.origin: dict(item.attributes) for item in source.items}
    assert found == {
        "one": {**always, "sex": "F", "model": "DRX-1", "age": "60-69"},
        "two": {"modality": "CR", "photometric": "MONOCHROME2", "age": "90+"},
        "three": {**always, "age": "0-9"},
        "four": {**always, "age": "60-69"},
    }


def test_what_cannot_be_taken_is_listed_by_path_with_its_reason(tmp_path: Path) -> None:
    uid = generate_uid()
    pixels = np.zeros((8, 8), np.uint16)
    damaged = bytearray(dicom(pixels, syntax=JPEG2000Lossless, stream=jpeg_2000(pixels), BurnedInAnnotation="NO"))
    at = damaged.index(b"\xff\x93")
    damaged[at : at + 30] = bytes(30)
    tree = _tree(
        tmp_path,
        {
            "good": _film(1, "p1", SOPInstanceUID=uid),
            "hand": _film(9, "p9", Modality="DX"),
            "the same": _film(1, "p1", SOPInstanceUID=uid),
            "burned": _film(2, "p2", BurnedInAnnotation="YES"),
            "film of several frames": _film(3, "p3", NumberOfFrames=3),
            "report": written(_report()),
            "large": _film(5, "p5") + bytes(40_000),
            "damaged": bytes(damaged),
            "cut": _film(6, "p6")[:150],
        },
    )
    spec = replace(_SPEC, source=f"dicom:{tree}", labels="tag:Modality", limits=Limits(max_bytes=30_000))
    refused = {
        "burned": "declares burned-in annotation, which may name somebody",
        "cut": "a DICOM file without an image is not taken",
        "damaged": "the DICOM ends early",
        "film of several frames": "an image with several frames is not taken",
        "large": "the file is too large",
        "report": "a DICOM file without an image is not taken",
        "the same": "the same SOP instance as good",
    }
    prepared = prepare(spec, folder=tmp_path / "sets", key=_KEY)
    assert {file: reason.split(";")[0] for file, reason in prepared.refused} == refused
    assert prepared.taken == 2
    again = prepare(replace(spec, burned_in=True), folder=tmp_path / "sets", key=_KEY)
    assert (again.taken, "burned" in dict(again.refused)) == (3, False)


def _report() -> Dataset:
    report = Dataset()
    report.SOPClassUID, report.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.11", generate_uid()
    report.Modality = "SR"
    return report


def test_a_film_whose_plain_pixels_are_over_the_byte_limit_is_taken(tmp_path: Path) -> None:
    pixels = np.zeros((400, 400), np.uint16)
    film = dicom(pixels, syntax=JPEG2000Lossless, stream=jpeg_2000(pixels), PatientID="p1")
    tree = _tree(tmp_path / "tree", {"1": film, "2": _film(2, "p2", Modality="DX")})
    assert len(film) < 20_000
    spec = replace(_SPEC, source=f"dicom:{tree}", labels="tag:Modality", limits=Limits(max_bytes=20_000))
    assert prepare(spec, folder=tmp_path / "sets", key=_KEY).taken == 2


def test_without_a_key_nothing_is_opened(tmp_path: Path) -> None:
    with pytest.raises(BadOverride, match="no key for pseudonyms"), open_dicom(tmp_path, key="", tag="Modality"):
        pass


def test_a_patient_in_two_splits_of_the_table_is_a_leak(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "tree", {f"{n}": _film(n, f"p{n // 2}", AccessionNumber=f"a{n}") for n in range(4)})
    table = tmp_path / "labels.csv"
    table.write_text("AccessionNumber,label,split\na0,ill,train\na1,ill,test\na2,well,train\na3,well,train\n")
    spec = replace(_SPEC, source=f"dicom:{tree}", labels=str(table))
    with pytest.raises(LeakFound, match="one subject in two splits"):
        prepare(spec, folder=tmp_path / "sets", key=_KEY)


# What must never be seen again; each planted where an archive, a scanner or a person puts such things.
_PLANTED = {
    "name": "Vondráčková^Zdeňka",
    "id": "PID-7731-XK",
    "birth": "19380417",
    "accession": "ACC55501928",
    "institution": "Krankenhaus Sankt Nimmerlein",
    "physician": "Oberarzt^Wolfram",
    "comment": "lives at Rosengasse 17",
    "private": "SECRETPRIVATE42",
    "nested": "NESTEDWITNESS88",
    "overlay": "OVERLAYLABEL-ZV",
    "folder": "zdenka_vondrackova",
    "file": "XRAY_of_7731",
    "station": "ROOM9STATIONQ",
}


def _planted(number: int) -> Dataset:
    film = dcmread(io.BytesIO(_film(number, f"{_PLANTED['id']}{number // 2}")))
    film.SpecificCharacterSet = "ISO_IR 192"
    film.PatientName, film.PatientBirthDate = _PLANTED["name"], _PLANTED["birth"]
    film.AccessionNumber, film.InstitutionName = _PLANTED["accession"], _PLANTED["institution"]
    film.ReferringPhysicianName, film.PatientComments = _PLANTED["physician"], _PLANTED["comment"]
    film.StationName, film.ManufacturerModelName = _PLANTED["station"], f"model of {_PLANTED['station']}"
    film.ImageComments = film.StudyDescription = film.SeriesDescription = _PLANTED["comment"]
    film.private_block(0x0011, _PLANTED["private"], create=True).add_new(0x01, "LO", _PLANTED["private"])
    inner = Dataset()
    inner.PatientName = inner.RequestedProcedureDescription = _PLANTED["nested"]
    film.RequestAttributesSequence = [inner]
    bits = np.frombuffer(_PLANTED["overlay"].encode().ljust(160, b"-"), np.uint8)
    for place, kind, value in ((0x10, "US", 40), (0x11, "US", 32), (0x40, "CS", "G"), (0x50, "SS", [1, 1])):
        film.add_new(0x60000000 + place, kind, value)
    film.add_new(0x60000022, "LO", _PLANTED["overlay"])
    film.add_new(0x60003000, "OW", bits.tobytes())
    # the same text once more in the four bits above those stored, as old scanners drew into the film
    pixels = np.frombuffer(film.PixelData, np.uint16).copy()
    drawn = np.unpackbits(bits)[: pixels.size].astype(np.uint16)
    film.PixelData = (pixels | (drawn << 12) | (drawn << 15)).tobytes()
    return film


def _contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every byte of a data set as it lies, its Parquet values as text, its films' pixels, and every PNG inflated."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path), path.read_bytes() + str(path.relative_to(folder)).encode()
        if path.suffix == ".parquet":
            file = pq.ParquetFile(path)
            yield (
                f"{path} schema",
                repr(file.schema_arrow).encode() + json.dumps(file.read().to_pylist(), default=str).encode(),
            )
            yield f"{path} raw", json.dumps(file.read().to_pylist(), default=str, ensure_ascii=False).encode()
    films = Films(folder)
    for index in range(len(films)):
        data = films.bytes(index)
        at = data.index(b"IDAT") + 4
        yield f"film {index}", decode(data).tobytes()
        yield f"film {index} inflated", zlib.decompress(data[at : at + int.from_bytes(data[at - 8 : at - 4], "big")])


def _forms(text: str) -> set[bytes]:
    """A text as it may hide: in several encodings, in parts, turned round, in hexadecimal, in JSON."""
    parts = {text, *text.split("^"), *text.split(" ")}
    parts = {part for part in parts if len(part) >= 4}
    found: set[bytes] = set()
    for part in parts:
        for case in {part, part.lower(), part.upper(), part[::-1]}:
            for encoding in ("utf-8", "utf-16-le", "utf-16-be", "iso8859-2"):
                data = case.encode(encoding)
                found |= {data, data.hex().encode(), data.hex().upper().encode()}
            found.add(json.dumps(case)[1:-1].encode())
    return found


def test_nothing_that_names_anybody_survives_in_any_byte_of_the_data_set(tmp_path: Path) -> None:
    export = tmp_path / f"export of {_PLANTED['folder']}"
    files = {}
    for number in range(24):
        film = _planted(number)
        film.BodyPartExamined = "CHEST" if number % 2 else "HAND"
        files[f"{_PLANTED['folder']}/{_PLANTED['file']}_{number}"] = written(film)
    files[f"{_PLANTED['folder']}/{_PLANTED['file']}.txt"] = _PLANTED["comment"].encode()
    spec = replace(_SPEC, source=f"dicom:{_tree(export, files)}", labels="tag:BodyPartExamined")
    prepared = prepare(spec, folder=tmp_path / "sets", key=_KEY)
    assert (prepared.taken, len(prepared.refused)) == (24, 1)
    folder = prepared.dataset.path
    assert {path.parent for path in (tmp_path / "sets").iterdir()} == {folder.parent}
    contents = list(_contents(folder))
    # the search itself finds what is there
    assert any(b"HAND" in data for _, data in contents)
    assert any(_WORDS.tobytes() in data for _, data in [("", _WORDS.tobytes())])
    uids = {
        str(dcmread(io.BytesIO(data), stop_before_pixels=True).SOPInstanceUID)
        for data in files.values()
        if data[128:132] == b"DICM"
    }
    for text in (*_PLANTED.values(), *uids, _KEY, str(export), export.name):
        for form in _forms(text):
            for where, data in contents:
                assert form not in data, f"{text!r} survives in {where} as {form!r}"
    assert prepared.refused[0][0] == f"{_PLANTED['folder']}/{_PLANTED['file']}.txt"


_WORDS = np.arange(4)


def test_the_pixels_of_a_film_with_overlays_are_those_without(tmp_path: Path) -> None:
    plain = decode(_film(3, "p"))
    np.testing.assert_array_equal(decode(written(_planted(3))), plain)


def test_prepared_twice_from_copies_under_other_names_the_digest_is_the_same(tmp_path: Path) -> None:
    uids = [generate_uid() for _ in range(8)]
    films = [_film(n, f"p{n // 2}", SOPInstanceUID=uids[n], BodyPartExamined="AB"[n % 2]) for n in range(8)]
    digests = set()
    for order in (range(8), range(7, -1, -1)):
        tree = _tree(tmp_path / f"tree{order[0]}", {f"{place}.dcm": films[n] for place, n in enumerate(order)})
        spec = replace(_SPEC, source=f"dicom:{tree}", labels="tag:BodyPartExamined")
        digests.add(prepare(spec, folder=tmp_path / "sets", key=_KEY).dataset.digest)
    assert len(digests) == 1


def test_a_source_without_the_key_cannot_be_joined_to_the_people(tmp_path: Path) -> None:
    tree = _tree(tmp_path, {"1": _film(1, "p1")})
    names: list[str] = []
    for key in ("one", "two"):
        with open_dicom(tree, key=key, tag="Modality") as source:
            names += [item.name for item in source.items]
    assert len(set(names)) == 2


def test_two_dicom_trees_as_one_source_keep_their_people_together_and_their_folders_out(tmp_path: Path) -> None:
    for place in range(2):
        tree = {f"{n}": _film(10 * place + n, f"p{n}", BodyPartExamined="AB"[n % 2]) for n in range(6)}
        _tree(tmp_path / f"{_PLANTED['folder']}_{place}", tree)
    sources = [f"dicom:{tmp_path / _PLANTED['folder']}_{place}" for place in range(2)]
    spec = replace(_SPEC, source=sources[0], more=(sources[1],), labels="tag:BodyPartExamined")
    prepared = prepare(spec, folder=tmp_path / "sets", key=_KEY)
    rows = Films(prepared.dataset.path).rows()
    assert (len(rows), len(set(rows.subjects))) == (12, 6)
    assert not any(_PLANTED["folder"].encode() in data for _, data in _contents(prepared.dataset.path))


def test_real_films_become_a_data_set(datasets: Path, tmp_path: Path) -> None:
    spec = replace(_SPEC, source=f"dicom:{datasets / 'dicom'}", labels="tag:PatientSex")
    prepared = prepare(spec, folder=tmp_path, key=_KEY)
    films = Films(prepared.dataset.path)
    shapes = sorted(decode(films.bytes(index)).shape for index in range(len(films)))
    assert (prepared.dataset.classes, shapes) == (("F", "M"), [(1024, 1024), (1955, 1841)])
    for planted in (b"16d7f894", b"CompressedSamples", b"9RG1", b"Philips", b"RG1_J2KI", b"1.3.6.1.4.1"):
        assert not any(planted in data for _, data in _contents(prepared.dataset.path))


def test_a_film_without_packages_to_read_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rounds.data import dicom as tree

    def absent() -> NDArray[Any]:
        raise BadImage("the image is not taken", status=415)

    monkeypatch.setattr(tree, "reader", absent)
    with pytest.raises(BadImage), open_dicom(tmp_path, key=_KEY, tag="Modality"):
        pass


def test_items_are_read_as_plain_png(tmp_path: Path) -> None:
    tree = _tree(tmp_path, {"1": _film(1, "p1")})
    with open_dicom(tree, key=_KEY, tag="Modality") as source:
        item: Item = next(source.items)
        data = item.read()
    assert data.startswith(b"\x89PNG")
    np.testing.assert_array_equal(decode(data), decode((tree / "1").read_bytes()))
