"""Labelled films in a few large files: written once under the digest of their content, verified when read.

A data set is a folder named by its digest:

    dataset.json        name, digest, classes, counts and notes, for people and programs
    manifest.parquet    one row a film: image digest, label, subject, split, name, attributes, and where its bytes are
    pack-0000.bin ...   the original bytes of the films, one behind the other
    cache/              pixels by ImagingSpec; may be deleted at any time
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import struct
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rounds.core.errors import BadLabel, BadSource, DamagedData, Fault, NotWritable, UnknownId
from rounds.core.ids import canonical, digest, plain, write_whole
from rounds.core.records import DatasetVersion
from rounds.core.specs import SPLITS

PACK_BYTES = 256 * 1024 * 1024
_ABANDONED_S = 86_400.0
_FORMAT = 1
_PREPARE_AGAIN = "prepare the source again"


@dataclass(frozen=True)
class Film:
    """One labelled image as it came: its bytes, and the path inside its source as `name`."""

    data: bytes
    label: str
    subject: str
    split: str
    name: str
    attributes: Mapping[str, str] = field(default_factory=dict)


class Row(NamedTuple):
    """One line of the manifest; `attributes` is canonical JSON."""

    digest: str
    label: str
    subject: str
    split: str
    name: str
    attributes: str
    pack: int
    offset: int
    length: int


class Kept(NamedTuple):
    """What is known of a film whose bytes a `FilmWriter` holds under their digest."""

    digest: str
    label: str
    subject: str
    split: str
    name: str
    attributes: Mapping[str, str]


def write_films(
    folder: Path,
    name: str,
    classes: Sequence[str],
    films: Iterable[Film],
    *,
    subjects_known: bool,
    notes: Sequence[str] = (),
    pack_bytes: int = PACK_BYTES,
) -> DatasetVersion:
    """Writes films, one at a time, to `folder/<digest>/`; the same films in any order give the same digest.

    Raises: as `FilmWriter.finish`.
    """
    with film_writer(folder, pack_bytes) as writer:
        kept = [
            Kept(writer.keep(film.data), film.label, film.subject, film.split, film.name, film.attributes)
            for film in films
        ]
        return writer.finish(name, classes, kept, subjects_known=subjects_known, notes=notes)


@contextmanager
def film_writer(folder: Path, pack_bytes: int = PACK_BYTES) -> Iterator[FilmWriter]:
    """Opens a writer of a data set under `folder`; unless it is finished, nothing of it stays.

    Parts that a killed process left a day ago are swept away. Raises: NotWritable.
    """
    part = folder / f".{secrets.token_hex(6)}.part"
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        part.mkdir()
    writer = FilmWriter(part, pack_bytes)
    try:
        yield writer
    finally:
        writer.close()
        shutil.rmtree(part, ignore_errors=True)


class FilmWriter:
    """Appends the bytes of films to packs of bounded size, each digest once; `film_writer` opens one."""

    def __init__(self, part: Path, pack_bytes: int) -> None:
        self._part = part
        self._limit = pack_bytes
        self._number = -1
        self._file: BinaryIO | None = None
        self._places: dict[str, tuple[int, int, int]] = {}

    def keep(self, data: bytes) -> str:
        """Writes the bytes behind those before; their digest. Raises: NotWritable."""
        key = digest(data)
        if key not in self._places:
            with _writing(self._part.parent):
                if self._file is None or (self._file.tell() and self._file.tell() + len(data) > self._limit):
                    self._file = self._next()
                self._places[key] = (self._number, self._file.tell(), len(data))
                self._file.write(data)
        return key

    def read(self, key: str) -> bytes:
        """The bytes that are kept under this digest. Raises: NotWritable."""
        number, offset, length = self._places[key]
        with _writing(self._part.parent):
            if self._file is not None:
                self._file.flush()
            with pack_path(self._part, number).open("rb") as file:
                file.seek(offset)
                return file.read(length)

    def finish(
        self, name: str, classes: Sequence[str], kept: Sequence[Kept], *, subjects_known: bool, notes: Sequence[str]
    ) -> DatasetVersion:
        """Sorts what was kept into a manifest and gives the whole its name; a data set that is already whole there
        stays.

        Raises: BadLabel for labels outside `classes`, BadSource for unknown splits or no film, NotWritable.
        """
        _check(classes, kept)
        rank = {label: index for index, label in enumerate(classes)}
        rows = [Row(*film[:5], canonical(film.attributes).decode(), *self._places[film.digest]) for film in kept]
        rows.sort(key=lambda row: (SPLITS.index(row.split), rank[row.label], row.digest, row.name, row))
        folder = self._part.parent
        key = _content_digest(classes, rows)
        dataset = DatasetVersion(
            name, key, folder / key, tuple(classes), _counts(rows), subjects_known, tuple(map(str, notes))
        )
        with _writing(folder):
            self.close()
            _write_manifest(self._part, rows)
            write_whole(self._part / "dataset.json", _dataset_json(dataset, rows))
            _settle(self._part, dataset.path)
        return dataset

    def close(self) -> None:
        """Brings the last pack to the disk."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def _next(self) -> BinaryIO:
        self.close()
        self._number += 1
        return pack_path(self._part, self._number).open("wb")


def open_dataset(path: Path) -> DatasetVersion:
    """Reads the data set in `path` after checking that its manifest gives the digest it carries.

    The bytes of an image are checked when they are read. Raises: UnknownId where nothing is, DamagedData.
    """
    return read(path)[0]


def read(path: Path) -> tuple[DatasetVersion, tuple[Row, ...]]:
    """The data set in `path` and its verified rows, in manifest order. Raises: UnknownId, DamagedData."""
    if not path.is_dir():
        raise UnknownId("no such data set", [Fault("no data set folder is here", str(path), next=_PREPARE_AGAIN)])
    try:
        told = json.loads((path / "dataset.json").read_bytes())
        dataset = DatasetVersion(
            name=told["name"],
            digest=told["digest"],
            path=path,
            classes=tuple(told["classes"]),
            splits=told["splits"],
            subjects_known=told["subjects_known"],
            notes=tuple(told["notes"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path / "dataset.json", "a description of the data set", repr(error)) from error
    rows = _read_manifest(path / "manifest.parquet")
    found = _content_digest(dataset.classes, rows)
    if found != dataset.digest or dict(dataset.splits) != _counts(rows):
        raise _damaged(path / "manifest.parquet", f"rows with the digest {dataset.digest}", found)
    return dataset, rows


def read_bytes(path: Path, row: Row) -> bytes:
    """The original bytes of one film, checked against the manifest. Raises: DamagedData."""
    pack = pack_path(path, row.pack)
    try:
        with pack.open("rb") as file:
            file.seek(row.offset)
            data = file.read(row.length)
    except OSError as error:
        raise _damaged(pack, f"the bytes of {row.name}", error.strerror or str(error)) from error
    if digest(data) != row.digest:
        raise _damaged(pack, f"the bytes of {row.name} with the digest {row.digest}", digest(data))
    return data


def attributes_of(row: Row) -> dict[str, str]:
    """The film's attributes by name."""
    attributes: dict[str, str] = json.loads(row.attributes)
    return attributes


def pack_path(path: Path, number: int) -> Path:
    """The file that holds the numbered pack."""
    return path / f"pack-{number:04d}.bin"


def stored_png(pixels: NDArray[np.uint8]) -> bytes:
    """Writes uint8 (h, w) gray or (h, w, 3) RGB as an uncompressed PNG (ISO/IEC 15948).

    Compressed bytes differ between releases of zlib; these are the same on every machine, so that digests are too.
    """
    high, wide = pixels.shape[:2]
    lines = np.zeros((high, 1 + pixels[0].size), np.uint8)
    lines[:, 1:] = pixels.reshape(high, -1)
    raw = lines.tobytes()
    blocks = [raw[at : at + 65_535] for at in range(0, len(raw), 65_535)]
    stream = [b"\x78\x01"]
    for number, block in enumerate(blocks, 1):
        stream.append(struct.pack("<BHH", number == len(blocks), len(block), len(block) ^ 0xFFFF) + block)
    stream.append(struct.pack(">I", zlib.adler32(raw)))
    header = struct.pack(">IIBBBBB", wide, high, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", b"".join(stream)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def _damaged(path: Path, expected: str, got: str) -> DamagedData:
    fault = Fault("the data set is damaged", str(path), expected, got, _PREPARE_AGAIN)
    return DamagedData(f"damaged data set: {path.parent.name}", [fault])


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        fault = Fault(error.strerror or str(error), str(error.filename or folder), "a folder with room to write")
        raise NotWritable("cannot write the data set", [fault]) from error


def _sweep(folder: Path) -> None:
    for old in folder.glob(".*.part"):
        try:
            newest = max(file.stat().st_mtime for file in [old, *old.iterdir()])
        except FileNotFoundError:
            # Its writer is alive and has just finished.
            continue
        if newest < time.time() - _ABANDONED_S:
            shutil.rmtree(old, ignore_errors=True)


def _check(classes: Sequence[str], kept: Sequence[Kept]) -> None:
    labels = [
        Fault("no such class", film.name, f"one of {', '.join(classes)}", repr(film.label))
        for film in kept
        if film.label not in classes
    ]
    splits = [
        Fault("no such split", film.name, f"one of {', '.join(SPLITS)}", repr(film.split))
        for film in kept
        if film.split not in SPLITS
    ]
    if labels:
        raise BadLabel("labels that name no class", labels + splits)
    if splits:
        raise BadSource("splits that do not exist", splits)
    if not kept:
        raise BadSource("no film to write", [Fault("the data set would be empty", expected="at least one film")])


def _counts(rows: Sequence[Row]) -> dict[str, int]:
    counted = Counter(row.split for row in rows)
    return {split: counted[split] for split in SPLITS if counted[split]}


# What `canonical` makes of a list of texts, in a fifth of the time: a large data set has 100,000 rows.
_line = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False).encode


def _content_digest(classes: Sequence[str], rows: Sequence[Row]) -> str:
    """The digest of what the rows say, not of the Parquet file, whose bytes vary by version."""
    total = hashlib.sha256(canonical({"format": _FORMAT, "classes": list(classes)}))
    for row in rows:
        total.update(b"\n" + _line(row[:6]).encode())
    return total.hexdigest()


def _dataset_json(dataset: DatasetVersion, rows: Sequence[Row]) -> bytes:
    told = {key: plain(getattr(dataset, key)) for key in ("name", "digest", "classes", "splits")}
    told |= {"images": len(rows), "subjects": len({row.subject for row in rows}), "format": _FORMAT}
    told |= {"bytes": sum({row.digest: row.length for row in rows}.values())}
    told |= {"subjects_known": dataset.subjects_known, "notes": list(dataset.notes)}
    return json.dumps(told, indent=2, ensure_ascii=False).encode() + b"\n"


_SCHEMA = pa.schema(
    [(key, pa.string()) for key in Row._fields[:6]]
    + [("pack", pa.int32()), ("offset", pa.int64()), ("length", pa.int64())]
)


def _write_manifest(part: Path, rows: Sequence[Row]) -> None:
    columns = dict(zip(Row._fields, map(list, zip(*rows, strict=True)), strict=True))
    path = part / "manifest.parquet"
    pq.write_table(pa.table(columns, schema=_SCHEMA), path, compression="zstd")
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _read_manifest(path: Path) -> tuple[Row, ...]:
    try:
        table = pq.read_table(path, schema=_SCHEMA)
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(path, "a manifest of films", str(error).splitlines()[0]) from error
    columns = {key: table[key].to_pylist() for key in Row._fields}
    for key in ("label", "split", "attributes"):
        # of 100,000 films most say the same in these: one text for all of them, not one each
        alike: dict[str, str] = {}
        columns[key] = [alike.setdefault(value, value) for value in columns[key]]
    return tuple(Row(*values) for values in zip(*columns.values(), strict=True))


def _settle(part: Path, path: Path) -> None:
    """Gives the finished folder its name, unless the same data set is already whole there."""
    if path.exists():
        if _is_whole(path):
            return
        shutil.rmtree(path.rename(part.with_name(f".{secrets.token_hex(6)}.part")), ignore_errors=True)
    try:
        part.rename(path)
    except OSError:
        # Another process settled the same content between the check and the rename.
        if not path.is_dir():
            raise
    _fsync_folder(path.parent)


def _is_whole(path: Path) -> bool:
    try:
        _, rows = read(path)
        for row in rows:
            read_bytes(path, row)
    except DamagedData:
        return False
    return True


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
