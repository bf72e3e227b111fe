"""A bundle is whole, verified byte by byte, and named by its content."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.bundles import tiny_bundle, tiny_films, tiny_model

from rounds.core.errors import DamagedBundle, NotWritable, OurFault, UnknownId, WorldFault
from rounds.core.records import Bundle, Calibration
from rounds.runtime import bundle as bundles
from rounds.runtime.bundle import FILES, read, reference, vary, write
from rounds.runtime.predictor import Predictor


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def copied(made: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.path, tmp_path / made.digest))


def _parts(made: Bundle) -> dict[str, object]:
    return {
        "model": (made.path / "model.onnx").read_bytes(),
        "classes": made.classes,
        "imaging": made.imaging,
        "calibration": made.calibration,
        "scoring": made.scoring,
        "parents": made.parents,
        "reference": reference(made),
    }


def test_a_bundle_reads_back_as_it_was_written(made: Bundle) -> None:
    assert read(made.path) == made
    assert sorted(entry.name for entry in made.path.iterdir()) == ["SHA256SUMS", *sorted(FILES)]


def test_the_name_is_the_digest_of_the_checksums_and_sha256sum_agrees(made: Bundle) -> None:
    assert made.path.name == made.digest == hashlib.sha256((made.path / "SHA256SUMS").read_bytes()).hexdigest()
    checked = subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"], cwd=made.path, capture_output=True, text=True, check=True
    )
    assert checked.stdout.splitlines() == [f"{name}: OK" for name in FILES]


def test_the_same_content_is_written_once(made: Bundle) -> None:
    before = made.path.stat().st_mtime_ns
    again = write(made.path.parent, **_parts(made))  # type: ignore[arg-type]
    assert (again, again.path.stat().st_mtime_ns) == (made, before)


def test_a_bundle_under_any_other_folder_name_is_what_it_holds(made: Bundle, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(made.path, tmp_path / "my bundle"))
    assert read(moved) == replace(made, path=moved)


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_is_refused_by_name(copied: Path, name: str) -> None:
    data = bytearray((copied / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copied / name).write_bytes(data)
    with pytest.raises(DamagedBundle, match=rf"is damaged: {name}\n  {name}: the file has changed; expected sha256"):
        read(copied)


def test_one_flipped_bit_in_the_checksums_is_refused_by_name(copied: Path) -> None:
    data = bytearray((copied / "SHA256SUMS").read_bytes())
    data[3] ^= 1
    (copied / "SHA256SUMS").write_bytes(data)
    with pytest.raises(DamagedBundle, match="is damaged: SHA256SUMS\n  SHA256SUMS: the checksum list has changed"):
        read(copied)


def test_files_that_are_missing_or_too_many_are_all_named_at_once(copied: Path) -> None:
    (copied / "model.onnx").unlink()
    (copied / "reference.parquet").write_bytes(b"")
    (copied / "evil.pkl").write_bytes(b"cos\nsystem\n")
    with pytest.raises(DamagedBundle) as caught:
        read(copied)
    assert [(fault.where, fault.what) for fault in caught.value.faults] == [
        ("evil.pkl", "a file that no bundle has"),
        ("model.onnx", "the file is missing"),
        ("reference.parquet", "the file has changed"),
    ]


def test_a_link_is_no_file_of_a_bundle(copied: Path, tmp_path: Path) -> None:
    shutil.move(copied / "model.onnx", tmp_path / "elsewhere.onnx")
    (copied / "model.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(DamagedBundle, match=r"model.onnx: the file is missing; expected a plain file; got a link or"):
        read(copied)


def test_a_list_that_names_other_files_is_refused(copied: Path, tmp_path: Path) -> None:
    moved = copied.rename(tmp_path / "renamed")
    (moved / "SHA256SUMS").write_text(f"{'0' * 64}  ../../etc/passwd\n")
    with pytest.raises(DamagedBundle, match=r"not a list of checksums; expected a line for each of bundle.json"):
        read(moved)


def test_a_folder_without_checksums_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DamagedBundle, match="SHA256SUMS: the file is missing; expected a plain file; got nothing"):
        read(tmp_path / "empty")
    with pytest.raises(UnknownId, match=r"no bundle at .*nowhere\n.*got nothing\. Name another bundle"):
        read(tmp_path / "nowhere")


def test_a_folder_that_cannot_be_read_is_the_worlds_fault(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(WorldFault, match=r"SHA256SUMS: the file cannot be read; expected .*; got .*denied"):
        read(copied)


def _sealed(folder: Path, **files: bytes) -> Path:
    """The folder with other files, under checksums that fit them."""
    for name, data in files.items():
        (folder / name.replace("_", ".")).write_bytes(data)
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in FILES]
    (folder / "SHA256SUMS").write_text("".join(lines))
    return folder.rename(folder.with_name("sealed"))


def test_facts_of_another_format_are_refused(copied: Path) -> None:
    with pytest.raises(
        DamagedBundle, match=r"bundle.json: not the facts of a bundle; expected format 1 .*ValueError: format 9"
    ):
        read(_sealed(copied, bundle_json=b'{"format": 9}'))


def test_facts_that_contradict_each_other_are_refused(copied: Path) -> None:
    facts = (copied / "bundle.json").read_bytes().replace(b'"temperature":1.0', b'"temperature":-1.0')
    with pytest.raises(DamagedBundle, match=r"bundle.json: temperature does not fit; expected more than 0; got -1.0"):
        read(_sealed(copied, bundle_json=facts))


def test_a_reference_that_is_no_table_is_refused(copied: Path) -> None:
    whole = read(_sealed(copied, reference_parquet=b"PAR1 no"))
    with pytest.raises(DamagedBundle, match=r"reference.parquet: not a reference table"):
        reference(whole)


def test_a_reference_with_a_column_of_another_type_is_refused(copied: Path) -> None:
    table = pq.ParquetFile(copied / "reference.parquet").read()
    narrow = table.set_column(0, "label", table["label"].cast(pa.int32()))
    sink = io.BytesIO()
    pq.write_table(narrow, sink)
    whole = read(_sealed(copied, reference_parquet=sink.getvalue()))
    with pytest.raises(DamagedBundle, match="got a column of int32 where int64 is due"):
        reference(whole)


def test_a_network_that_no_runtime_takes_is_refused(copied: Path) -> None:
    whole = read(_sealed(copied, model_onnx=b"not a graph"))
    with pytest.raises(DamagedBundle, match=r"model.onnx: no network that runs here; expected an ONNX graph"):
        Predictor(whole)


def test_what_changes_after_reading_is_still_found(copied: Path) -> None:
    whole = read(copied)
    (copied / "model.onnx").write_bytes(tiny_model(bias=9.0))
    with pytest.raises(DamagedBundle, match=r"model.onnx: the file has changed"):
        Predictor(whole)


def test_the_reference_reads_back_exactly(made: Bundle) -> None:
    films = reference(made)
    again = reference(vary(made, made.path.parent, variant="copy", reference=films))
    for name in ("label", "logits", "embedding", "scores"):
        one, two = getattr(films, name), getattr(again, name)
        assert one.dtype == two.dtype
        assert np.array_equal(one, two)
    assert (films.subjects, films.images) == (again.subjects, again.images)
    assert len(films) == 300


def test_a_variant_has_the_bundle_as_its_parent_and_keeps_the_rest(made: Bundle) -> None:
    fresh = replace(made.calibration, temperature=2.0)
    varied = vary(made, made.path.parent, variant="recalibrated", calibration=fresh)
    assert varied.parents.bundle == made.digest
    assert (varied.variant, varied.calibration) == ("recalibrated", fresh)
    assert varied.digest != made.digest
    for name in ("model.onnx", "reference.parquet"):
        assert (varied.path / name).read_bytes() == (made.path / name).read_bytes()


def test_parts_that_contradict_each_other_are_our_fault_all_named(made: Bundle, tmp_path: Path) -> None:
    parts = _parts(made) | {"calibration": Calibration(0.0, (0.0,), None, (1.0,) * 3, 0.1)}
    parts["reference"] = replace(reference(made), subjects=["one"])
    with pytest.raises(OurFault, match="the parts of the bundle contradict each other") as caught:
        write(tmp_path, **parts)  # type: ignore[arg-type]
    assert [fault.what.split(" does")[0] for fault in caught.value.faults] == [
        "temperature", "bias", "conformal", "threshold", "subjects and images",
    ]  # fmt: skip
    with pytest.raises(OurFault, match="temperature does not fit"):
        vary(made, tmp_path, variant="x", calibration=replace(made.calibration, temperature=0.0))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_bundle_is_replaced_by_the_same_content_written_again(made: Bundle, copied: Path) -> None:
    (copied / "model.onnx").write_bytes(b"")
    assert write(copied.parent, **_parts(made)).digest == made.digest  # type: ignore[arg-type]
    assert read(copied).digest == made.digest
    assert [entry.name for entry in copied.parent.iterdir()] == [made.digest]


def test_nothing_half_written_is_ever_seen(made: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(NotWritable, match=r"the bundle cannot be written; .* got .*No space left on device"):
        write(tmp_path / "full", **_parts(made))  # type: ignore[arg-type]
    assert list((tmp_path / "full").iterdir()) == []


def test_whoever_writes_the_same_content_second_keeps_what_the_first_wrote(
    made: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.rename

    def raced(part: Path, target: Path) -> Path:
        shutil.copytree(part, target)
        return real(part, target)

    monkeypatch.setattr(Path, "rename", raced)
    assert write(tmp_path, **_parts(made)).digest == made.digest  # type: ignore[arg-type]
    assert [entry.name for entry in tmp_path.iterdir()] == [made.digest]


def test_a_folder_that_is_a_file_cannot_be_written(made: Bundle, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(NotWritable, match=r"cannot write a bundle in .*taken"):
        write(tmp_path / "taken", **_parts(made))  # type: ignore[arg-type]


def test_a_race_that_leaves_nothing_is_told(made: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(part: Path, target: Path) -> Path:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(NotWritable, match="Read-only file system"):
        write(tmp_path, **_parts(made))  # type: ignore[arg-type]


def test_loading_and_answering_imports_no_torch_no_tables_and_no_statistics(made: Bundle, tmp_path: Path) -> None:
    np.save(tmp_path / "films.npy", tiny_films(3))
    program = f"""
import sys
from pathlib import Path
import numpy as np
from rounds.runtime.bundle import read
from rounds.runtime.predictor import Predictor
from rounds.runtime.scores import scores
from rounds.runtime.verdict import Judge
bundle = read(Path({str(made.path)!r}))
films = np.load({str(tmp_path / "films.npy")!r})
said = Predictor(bundle).answer(films)
assert len(Judge(bundle).verdicts(said, scores(bundle, films, said)).label) == 3
heavy = ("torch", "onnx", "pandas", "matplotlib", "plotly", "scipy.stats", "lightning", "mlflow", "sklearn", "hydra")
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_record_hashes_by_digest_alone(made: Bundle) -> None:
    other = replace(made, path=made.path / "elsewhere")
    assert bundles.ByDigest(made) == bundles.ByDigest(other)
    assert len({bundles.ByDigest(made), bundles.ByDigest(other)}) == 1
