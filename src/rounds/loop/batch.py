"""A folder of films answered without a server."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rounds.core.errors import BadImage, BadRequest, CallerFault, Fault, NotWritable
from rounds.core.ids import new_id, write_whole
from rounds.core.ports import Ports
from rounds.core.records import Bundle, Prediction
from rounds.core.specs import Limits
from rounds.imaging.fit import to_pixels
from rounds.loop import measuring, ruling
from rounds.registry.catalogue import Catalogue
from rounds.runtime.predictor import Predictor
from rounds.runtime.scores import scores
from rounds.runtime.verdict import verdicts

BATCH = 32
FORMATS = (".jsonl", ".csv", ".parquet")


def predict(
    ports: Ports, ref: str, paths: Sequence[Path], *, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Answer image files, and all files below folders; what cannot be decoded is listed with its reason."""
    bundle = measuring.open_bundle(ports, ref)
    version = next((v.version for v in Catalogue.of(ports.events.read()).versions if v.bundle == bundle.digest), "")
    files, limits = list(_files(paths)), ruling.in_force(ports).serve.limits
    predictor, answered, refused = Predictor(bundle), [], []
    for start in range(0, len(files), BATCH):
        part = files[start : start + BATCH]
        done, bad = _answer(bundle, predictor, version, part, limits)
        answered += done
        refused += bad
        if progress:
            progress(start + len(part), len(files))
    return {"bundle": bundle.digest, "predictions": [p.public() for p in answered], "refused": refused}


def check_format(path: Path) -> None:
    """Refuse, with BadRequest, a file that `write` could not write, before anything is predicted for it."""
    if path.suffix not in FORMATS:
        fault = Fault("unknown format", str(path), " or ".join(FORMATS), path.suffix or "no ending", "name the file so")
        raise BadRequest(f"cannot write {path.name}", [fault])


def write(path: Path, predictions: Sequence[Mapping[str, Any]]) -> None:
    """Write predictions whole as JSON lines, CSV or Parquet, by the ending of the name; BadRequest for another one,
    NotWritable."""
    check_format(path)
    if path.suffix == ".jsonl":
        data = "".join(json.dumps(p) + "\n" for p in predictions).encode()
    else:
        data = (_csv if path.suffix == ".csv" else _parquet)([_flat(p) for p in predictions])
    try:
        write_whole(path, data)
    except OSError as error:
        fault = Fault(error.strerror or str(error), str(path), "a folder with room to write", next="name another file")
        raise NotWritable(f"cannot write {path.name}", [fault]) from error


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    missing = [path for path in paths if not path.exists()]
    if missing:
        faults = [
            Fault("no such file", str(path), "an image or a folder", "nothing", "check the path") for path in missing
        ]
        raise CallerFault(f"{len(missing)} of {len(paths)} paths do not exist", faults)
    for path in paths:
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
        else:
            yield path


def _answer(
    bundle: Bundle, predictor: Predictor, version: str, files: Sequence[Path], limits: Limits
) -> tuple[list[Prediction], list[dict[str, str]]]:
    begun, taken, pixels, refused = time.perf_counter(), [], [], []
    for file in files:
        try:
            pixels.append(to_pixels(_read(file, limits), bundle.imaging, limits))
            taken.append(file)
        except BadImage as error:
            refused.append({"path": str(file), "reason": "; ".join([error.message, *map(str, error.faults)])})
        except OSError as error:
            refused.append({"path": str(file), "reason": f"cannot be read: {error.strerror or error}"})
    if not taken:
        return [], refused
    films = np.stack(pixels)
    outputs = predictor.answer(films)
    found = verdicts(bundle, outputs, scores(bundle, films, outputs))
    ms = (time.perf_counter() - begun) * 1000 / len(taken)
    answered = [
        Prediction(
            id=new_id("p_"),
            label=bundle.classes[found.label[i]],
            probabilities=dict(zip(bundle.classes, found.probabilities[i].tolist(), strict=True)),
            set=tuple(name for name, member in zip(bundle.classes, found.members[i], strict=True) if member),
            refer=bool(found.refer[i]),
            reason=found.reason[i],
            ood=float(found.ood[i]),
            version=version,
            bundle=bundle.digest,
            ms=ms,
            path=str(file),
        )
        for i, file in enumerate(taken)
    ]
    return answered, refused


def _read(file: Path, limits: Limits) -> bytes:
    """The file's bytes; of one that is too large so many that it is refused as such."""
    with file.open("rb") as opened:
        return opened.read(limits.max_bytes + 1)


def _flat(prediction: Mapping[str, Any]) -> dict[str, Any]:
    flat = {key: value for key, value in prediction.items() if key not in ("probabilities", "set")}
    flat["set"] = " ".join(prediction["set"])
    return flat | {f"p_{name}": value for name, value in prediction["probabilities"].items()}


def _csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else ["id"])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode(errors="surrogateescape")


def _parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]) if rows else pa.table({"id": [""]})[:0], sink)
    return sink.getvalue()
