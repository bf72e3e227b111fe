"""The bundle: a folder of three files and their checksums, whole, verified at every read, named by its content.

`model.onnx`, `bundle.json`, `reference.parquet` and `SHA256SUMS` (`<sha256>  <name>` a line, names sorted). The digest
is the SHA-256 of the bytes of SHA256SUMS, so it covers every byte of the other three. No file is a pickle: loading a
bundle runs no code of it.
"""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rounds.core.errors import DamagedBundle, Fault, NotWritable, OurFault, UnknownId, WorldFault
from rounds.core.ids import canonical, digest, restore
from rounds.core.records import Bundle, Calibration, Parents, Scoring
from rounds.core.specs import ImagingSpec

FORMAT = 1
MODEL = "model.onnx"
FACTS = "bundle.json"
REFERENCE = "reference.parquet"
SUMS = "SHA256SUMS"
FILES = (FACTS, MODEL, REFERENCE)

_AGAIN = "export the run again, or copy the bundle again from where it is whole"
_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9._-]+)")


@dataclass(frozen=True, eq=False)
class Reference:
    """What monitoring compares with: one calibration film of each subject, as this bundle's network sees it.

    `label` int64 (n,) is the true class (index into the bundle's classes; the predicted one follows from `logits` by
    `verdict.decide`); `logits` float32 (n, k) before temperature and bias; `embedding` float32 (n, d), d = 0 and no
    column of the table for a network without one; `scores` float32 (n, s) in the order of the bundle's scoring names;
    `subjects` and `images` name the subject and the digest of the film's bytes.
    """

    label: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    embedding: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    subjects: Sequence[str]
    images: Sequence[str]

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class ByDigest:
    """A bundle that compares and hashes by its digest alone: the key under which what was loaded from it is kept."""

    bundle: Bundle

    def __hash__(self) -> int:
        return hash(self.bundle.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByDigest) and self.bundle.digest == other.bundle.digest


def read(path: Path) -> Bundle:
    """The bundle in this folder, after every byte of it was compared with its checksums.

    A folder whose name is a digest must hold that very bundle; one under any other name is taken for what it holds.
    Raises UnknownId where there is no folder, DamagedBundle naming every file that is missing, too many or changed.
    """
    if not path.is_dir():
        got = "a file" if path.exists() else "nothing"
        fault = Fault(
            "no bundle here", str(path), "a folder with " + ", ".join((*FILES, SUMS)), got, "name another bundle"
        )
        raise UnknownId(f"no bundle at {path}", [fault])
    named = path.name if re.fullmatch(r"[0-9a-f]{64}", path.name) else None
    sums, name = _sums(path, named)
    faults = _strangers(path)
    for file in FILES:
        try:
            _verified(path, file, sums)
        except DamagedBundle as damage:
            faults.extend(damage.faults)
    if faults:
        raise _damaged(path, faults)
    return _parse(path, name, _verified(path, FACTS, sums))


def model_bytes(bundle: Bundle) -> bytes:
    """The bytes of `model.onnx`, compared with the bundle's digest as they were read; DamagedBundle else."""
    return _file(bundle, MODEL)


def reference(bundle: Bundle) -> Reference:
    """The bundle's monitoring reference, compared with the bundle's digest as it was read; DamagedBundle else."""
    # The server's own process reads bundles too, and never a reference.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(io.BytesIO(_file(bundle, REFERENCE))).read(use_threads=False)
        bare = np.empty((len(table), 0), np.float32)
        return Reference(
            label=_numbers(table["label"].combine_chunks(), np.dtype(np.int64)),
            logits=_matrix(table["logits"].combine_chunks()),
            embedding=_matrix(table["embedding"].combine_chunks()) if "embedding" in table.column_names else bare,
            scores=_matrix(table["scores"].combine_chunks()),
            subjects=table["subject"].to_pylist(),
            images=table["image"].to_pylist(),
        )
    except (pa.ArrowException, KeyError, ValueError, AttributeError) as error:
        fault = Fault("not a reference table", REFERENCE, "the columns of a reference", str(error), _AGAIN)
        raise _damaged(bundle.path, [fault]) from error


def write(
    folder: Path,
    *,
    model: bytes,
    classes: Sequence[str],
    imaging: ImagingSpec,
    calibration: Calibration,
    scoring: Scoring,
    parents: Parents,
    reference: Reference,
    variant: str = "trained",
) -> Bundle:
    """Write a bundle as `folder`/<digest>, whole or not at all; the same content is written once, and a damaged folder
    of that name is replaced.

    Raises OurFault where the parts contradict each other, NotWritable where the folder cannot be written.
    """
    draft = Bundle("", folder, tuple(classes), imaging, calibration, scoring, parents, variant)
    faults = _contradictions(draft) + _uneven(draft, reference)
    if faults:
        raise OurFault("the parts of the bundle contradict each other", faults)
    return _store(folder, {FACTS: _facts(draft), MODEL: model, REFERENCE: _table(reference)})


def vary(
    bundle: Bundle,
    folder: Path,
    *,
    variant: str,
    calibration: Calibration | None = None,
    scoring: Scoring | None = None,
    model: bytes | None = None,
    reference: Reference | None = None,
) -> Bundle:
    """Write a variant of a bundle: the given parts are new, the others are copied, and its parent is that bundle.

    Raises what `write` and `read` raise.
    """
    varied = replace(
        bundle,
        calibration=calibration or bundle.calibration,
        scoring=scoring or bundle.scoring,
        parents=replace(bundle.parents, bundle=bundle.digest),
        variant=variant,
    )
    faults = _contradictions(varied) + (_uneven(varied, reference) if reference is not None else [])
    if faults:
        raise OurFault("the parts of the bundle contradict each other", faults)
    table = _table(reference) if reference is not None else _file(bundle, REFERENCE)
    return _store(folder, {FACTS: _facts(varied), MODEL: model or model_bytes(bundle), REFERENCE: table})


def _store(folder: Path, files: Mapping[str, bytes]) -> Bundle:
    sums = "".join(f"{digest(files[name])}  {name}\n" for name in FILES).encode()
    target = folder / digest(sums)
    part = folder / f".{target.name[:12]}.{secrets.token_hex(4)}.part"
    try:
        if target.exists() and not _whole(target):
            # What lies there is not what its name says; the same content, whole again, takes its place.
            shutil.rmtree(target.rename(folder / f".{target.name[:12]}.{secrets.token_hex(4)}.part"))
        if not target.exists():
            part.mkdir(parents=True)
            for name, data in {**files, SUMS: sums}.items():
                _write_synced(part / name, data)
            _sync_folder(part)
            _rename_once(part, target)
            _sync_folder(folder)
    except OSError as error:
        fault = Fault(
            "the bundle cannot be written", str(folder), "a folder to write to", str(error), "free it or set --home"
        )
        raise NotWritable(f"cannot write a bundle in {folder}", [fault]) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return read(target)


def _whole(path: Path) -> bool:
    try:
        read(path)
    except (DamagedBundle, UnknownId):
        return False
    return True


def _rename_once(part: Path, target: Path) -> None:
    try:
        part.rename(target)
    except OSError:
        # Two processes that write the same content meet here; the one that comes second keeps what the first wrote.
        if not target.is_dir():
            raise


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _file(bundle: Bundle, name: str) -> bytes:
    sums, _ = _sums(bundle.path, bundle.digest)
    return _verified(bundle.path, name, sums)


def _sums(path: Path, expected: str | None) -> tuple[dict[str, str], str]:
    """The checksum of each file by its name, and the digest of the list itself."""
    data = _bytes(path, SUMS)
    name = digest(data)
    if expected is not None and name != expected:
        raise _damaged(path, [Fault("the checksum list has changed", SUMS, f"sha256 {expected}", name, _AGAIN)])
    lines = [_LINE.fullmatch(line) for line in data.decode("ascii", "replace").splitlines()]
    sums = {match[2]: match[1] for match in lines if match}
    if None in lines or tuple(sums) != FILES:
        faults = [
            Fault("not a list of checksums", SUMS, "a line for each of " + ", ".join(FILES), "other lines", _AGAIN)
        ]
        raise _damaged(path, faults)
    return sums, name


def _verified(path: Path, name: str, sums: Mapping[str, str]) -> bytes:
    data = _bytes(path, name)
    if digest(data) != sums[name]:
        raise _damaged(path, [Fault("the file has changed", name, f"sha256 {sums[name]}", digest(data), _AGAIN)])
    return data


def _bytes(path: Path, name: str) -> bytes:
    file = path / name
    if file.is_symlink() or not file.is_file():
        got = "a link or a folder" if file.is_symlink() or file.exists() else "nothing"
        raise _damaged(path, [Fault("the file is missing", name, "a plain file", got, _AGAIN)])
    try:
        return file.read_bytes()
    except OSError as error:
        fault = Fault("the file cannot be read", name, "a readable file", str(error), "check disk and permissions")
        raise WorldFault(f"cannot read the bundle at {path}", [fault]) from error


def _strangers(path: Path) -> list[Fault]:
    extra = sorted(entry.name for entry in path.iterdir() if entry.name not in (*FILES, SUMS))
    return [
        Fault("a file that no bundle has", name, "only " + ", ".join((*FILES, SUMS)), name, "remove it")
        for name in extra
    ]


def _damaged(path: Path, faults: Sequence[Fault]) -> DamagedBundle:
    names = ", ".join(fault.where for fault in faults)
    return DamagedBundle(f"the bundle at {path} is damaged: {names}", faults)


def _facts(bundle: Bundle) -> bytes:
    keys = ("classes", "imaging", "calibration", "scoring", "parents", "variant")
    return canonical({"format": FORMAT, **{key: getattr(bundle, key) for key in keys}}) + b"\n"


def _parse(path: Path, name: str, data: bytes) -> Bundle:
    try:
        facts = json.loads(data)
        if facts["format"] != FORMAT:
            raise ValueError(f"format {facts['format']}")
        bundle = Bundle(
            digest=name,
            path=path,
            classes=tuple(facts["classes"]),
            imaging=restore(ImagingSpec, facts["imaging"]),
            calibration=restore(Calibration, facts["calibration"]),
            scoring=restore(Scoring, facts["scoring"]),
            parents=restore(Parents, facts["parents"]),
            variant=facts["variant"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        got = f"{type(error).__name__}: {error}"
        fault = Fault(
            "not the facts of a bundle", FACTS, f"format {FORMAT} of this release", got, "export the run again"
        )
        raise _damaged(path, [fault]) from error
    faults = _contradictions(bundle)
    if faults:
        raise _damaged(path, faults)
    return bundle


def _contradictions(bundle: Bundle) -> list[Fault]:
    k, calibration, scoring = len(bundle.classes), bundle.calibration, bundle.scoring
    questions = (
        (k >= 2 and len(set(bundle.classes)) == k, "classes", "two or more different names", bundle.classes),
        (calibration.temperature > 0, "temperature", "more than 0", calibration.temperature),
        (len(calibration.bias) == k, "bias", f"{k} numbers", calibration.bias),
        (len(calibration.conformal) == k, "conformal", f"{k} thresholds", calibration.conformal),
        (
            (calibration.threshold is None) == (k != 2),
            "threshold",
            "one for two classes, else none",
            calibration.threshold,
        ),
        (len(scoring.names) == len(scoring.edges), "edges", f"a row for each of {scoring.names}", len(scoring.edges)),
    )
    return [Fault(f"{what} does not fit", FACTS, wanted, str(got)) for fits, what, wanted, got in questions if not fits]


def _uneven(bundle: Bundle, reference: Reference) -> list[Fault]:
    n, k = len(reference), len(bundle.classes)
    questions = (
        (n > 0, "label", "one film or more", n),
        (reference.logits.shape == (n, k), "logits", (n, k), reference.logits.shape),
        (reference.embedding.shape[:1] == (n,), "embedding", n, reference.embedding.shape),
        (
            reference.scores.shape == (n, len(bundle.scoring.names)),
            "scores",
            bundle.scoring.names,
            reference.scores.shape,
        ),
        (len(reference.subjects) == len(reference.images) == n, "subjects and images", n, len(reference.subjects)),
    )
    return [
        Fault(f"{what} does not fit", REFERENCE, str(want), str(got)) for fits, what, want, got in questions if not fits
    ]


def _table(reference: Reference) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "label": pa.array(reference.label, pa.int64()),
        "logits": _rows(reference.logits),
        **({"embedding": _rows(reference.embedding)} if reference.embedding.shape[1] else {}),
        "scores": _rows(reference.scores),
        "subject": pa.array(list(reference.subjects), pa.string()),
        "image": pa.array(list(reference.images), pa.string()),
    }
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return sink.getvalue()


def _rows(values: npt.NDArray[np.float32]) -> Any:
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(values, np.float32).reshape(-1), pa.float32())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _matrix(rows: Any) -> npt.NDArray[np.float32]:
    return _numbers(rows.flatten(), np.dtype(np.float32)).reshape(-1, rows.type.list_size)


def _numbers(column: Any, kind: np.dtype[Any]) -> npt.NDArray[Any]:
    # Arrow's own to_numpy and read_table import pandas wherever it is installed: 0.3 s in a process that only serves.
    if str(column.type) != {"int64": "int64", "float32": "float"}[kind.name] or column.null_count:
        raise ValueError(f"a column of {column.type} where {kind} is due")
    values: npt.NDArray[Any] = np.frombuffer(column.buffers()[1], kind)
    return values[column.offset : column.offset + len(column)].copy()
