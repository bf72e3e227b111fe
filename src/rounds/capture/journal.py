"""What was answered, on this machine's disk before the answer leaves; from there it goes to the stores, whole and in
order, whenever they can be reached."""

from __future__ import annotations

import fcntl
import os
import secrets
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from rounds.core.errors import Fault, NotWritable, StoreAway
from rounds.core.ports import Blobs, Captures, Ports
from rounds.core.records import Captured, Shadowed

# Below the workspace.
FOLDER = "journal"
SUFFIX, DONE = ".journal", ".done"
ROTATE_BYTES = 16 * 1024 * 1024
# Rows, and bytes, of one transaction: a batch each would cost a commit each.
TOGETHER, TOGETHER_BYTES = 2048, 8 * 1024 * 1024
ZEROS = 1024 * 1024
_PARTS = 1024  # the most that one call of writev takes
_HEAD = struct.Struct("<III")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Films answered together by one version: per film [id, class index, ms, reference, subject, audited, image bytes];
    `probabilities` float64 (n, k), `logits` float32 (n, k), `scores` float32 (n, s)."""

    version: str
    bundle: str
    classes: Sequence[str]
    films: Sequence[Sequence[Any]]
    probabilities: npt.NDArray[np.float64]
    logits: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Looked:
    """What a version that looks on would have said: per film [id, class index, ms]; `probabilities` float64 (n, k),
    `scores` float32 (n, s)."""

    version: str
    bundle: str
    classes: Sequence[str]
    films: Sequence[Sequence[Any]]
    probabilities: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float32]


class Journal:
    """A file of this process's own below `folder`, appended to; the kernel's lock on it tells that the writer lives.

    A batch is one write: after `kill -9` it is whole or, by its checksum, absent. `most_bytes` bounds what may wait in
    the folder in all.
    """

    def __init__(self, folder: Path, most_bytes: int, *, durable: bool = False) -> None:
        self._folder, self._most, self._durable = folder, most_bytes, durable
        self._file: int | None = None
        self._size = 0

    def append(self, batch: Batch, images: Sequence[bytes], at: datetime) -> None:
        """Keep a batch, with the images in the order of its films.

        Raises StoreAway where it cannot be kept whole; nothing of it is, then.
        """
        head = {
            "at": (at - _EPOCH) // timedelta(microseconds=1),
            "version": batch.version,
            "bundle": batch.bundle,
            "classes": batch.classes,
            "shape": [batch.logits.shape[1], batch.scores.shape[1]],
            "films": [[*film, len(image)] for film, image in zip(batch.films, images, strict=True)],
        }
        self._keep(head, (batch.probabilities.tobytes(), batch.logits.tobytes(), batch.scores.tobytes(), *images))

    def append_shadows(self, looked: Looked) -> None:
        """Keep what a version that looks on would have said of films that were answered. Raises as `append`."""
        head = {
            "version": looked.version,
            "bundle": looked.bundle,
            "classes": looked.classes,
            "shape": [looked.probabilities.shape[1], looked.scores.shape[1]],
            "shadows": looked.films,
        }
        self._keep(head, (looked.probabilities.tobytes(), looked.scores.tobytes()))

    def _keep(self, head: Mapping[str, Any], parts: Sequence[bytes]) -> None:
        said = orjson.dumps(head)
        length, checksum = len(said), zlib.crc32(said)
        for part in parts:
            length += len(part)
            checksum = zlib.crc32(part, checksum)
        try:
            self._write([_HEAD.pack(length, checksum, len(said)), said, *parts], _HEAD.size + length)
        except OSError as error:
            what = Fault(
                "the answers cannot be written down",
                str(self._folder),
                got=error.strerror or str(error),
                next="free some space",
            )
            raise StoreAway("the answer could not be kept, so it is not given", [what]) from error

    def close(self) -> None:
        """Give the file up: whoever drains may now remove it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, parts: Sequence[bytes], length: int) -> None:
        if self._file is None or self._size > ROTATE_BYTES:
            self._open()
        assert self._file is not None
        try:
            # Not joined: a copy of a large film costs as much as writing it.
            done = os.writev(self._file, parts[:_PARTS])
            if done < length:
                record = b"".join(parts)
                while done < length:
                    done += os.write(self._file, record[done:])
            if self._durable:
                os.fdatasync(self._file)
        except OSError:
            # Half a batch would hide all that follow it.
            os.ftruncate(self._file, self._size)
            # The file is given up, so that what it takes is free again once it was handed over.
            self.close()
            raise
        self._size += done

    def _open(self) -> None:
        self.close()
        self._folder.mkdir(parents=True, exist_ok=True)
        if (waiting := backlog(self._folder)) > self._most:
            raise OSError(0, f"{waiting:,} bytes wait for a store that is away, {self._most:,} may")
        part = self._folder / f"{datetime.now(UTC):%Y%m%d%H%M%S%f}-{secrets.token_hex(4)}.new"
        self._file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        # Seen only once it is locked: whoever drains removes what nobody holds.
        fcntl.flock(self._file, fcntl.LOCK_EX)
        part.rename(part.with_suffix(SUFFIX))
        self._size = 0


def backlog(folder: Path) -> int:
    """Bytes that wait for the stores."""
    try:
        return sum(max(0, _size(path) - _done(path)) for path in folder.glob(f"*{SUFFIX}"))
    except OSError:
        return 0


def drain(folder: Path, blobs: Blobs, captures: Captures) -> int:
    """Hand everything that was acknowledged before this call to the stores; how many films.

    One process drains at a time, the others wait for it. What was handed over before a crash and not noted is handed
    over again, which changes nothing: rows and images are kept once. Raises WorldFault where a store is away; all that
    was not handed over stays.
    """
    if not any(folder.glob(f"*{SUFFIX}")):
        return 0
    with alone(folder):
        return sum(_drain(path, blobs, captures) for path in sorted(folder.glob(f"*{SUFFIX}")))


def settle(ports: Ports) -> int:
    """Hand everything that was answered on this machine so far to the stores, see `drain`."""
    return drain(ports.home / FOLDER, ports.blobs, ports.captures)


def wipe(folder: Path) -> None:
    """Overwrite what was handed over and still stands in the files of writers that live: what is to be forgotten."""
    if not any(folder.glob(f"*{SUFFIX}")):
        return
    with alone(folder):
        for path in folder.glob(f"*{SUFFIX}"):
            with path.open("r+b") as file:
                for at in range(0, end := _done(path), ZEROS):
                    os.pwrite(file.fileno(), bytes(min(ZEROS, end - at)), at)


def _drain(path: Path, blobs: Blobs, captures: Captures) -> int:
    # Asked before reading: what a writer that still lives adds meanwhile is the next call's.
    abandoned = _abandoned(path)
    films, held, rows, begin = 0, list[_Record](), 0, _done(path)
    with path.open("rb") as file:
        for record in _records(file.fileno(), begin):
            held.append(record)
            rows += len(record.rows)
            if rows >= TOGETHER or record.end - begin >= TOGETHER_BYTES:
                films += _hand_over(path, held, blobs, captures)
                held, rows, begin = [], 0, record.end
    if held:
        films += _hand_over(path, held, blobs, captures, note=not abandoned)
    if abandoned:
        # What follows the last whole batch was never acknowledged.
        path.unlink()
        path.with_suffix(DONE).unlink(missing_ok=True)
    return films


def _hand_over(path: Path, records: Sequence[_Record], blobs: Blobs, captures: Captures, *, note: bool = True) -> int:
    """Images first, then rows in one transaction, then what others would have said of them; then note how far."""
    digests = iter(blobs.put_many([image for record in records for image in record.images]))
    rows = [
        Captured(image=next(digests), size=len(image), **row)
        for record in records
        for row, image in zip(record.rows, record.images, strict=True)
    ]
    if rows:
        captures.record(rows)
    if shadows := [shadow for record in records for shadow in record.shadows]:
        captures.record_shadows(shadows)
    if note:
        _note(path, records[-1].end)
    return len(rows)


def _note(path: Path, end: int) -> None:
    part = path.with_suffix(".part")
    try:
        part.write_text(str(end))
        part.replace(path.with_suffix(DONE))
    except OSError as error:
        fault = Fault("cannot be written", str(path.parent), got=error.strerror or str(error), next="free some space")
        raise NotWritable("the journal's place cannot be noted", [fault]) from error


@dataclass(slots=True, eq=False)
class _Record:
    """One record of a journal: where it ends, and what it holds."""

    end: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    images: list[bytes] = field(default_factory=list)
    shadows: list[Shadowed] = field(default_factory=list)


def _records(file: int, at: int) -> Iterator[_Record]:
    """Each whole record from there on."""
    while len(head := os.pread(file, _HEAD.size, at)) == _HEAD.size:
        length, checksum, said = _HEAD.unpack(head)
        body = os.pread(file, length, at + _HEAD.size)
        if len(body) < length or zlib.crc32(body) != checksum:
            return
        at += _HEAD.size + length
        told = orjson.loads(body[:said])
        yield _looked(at, told, body, said) if "shadows" in told else _answered(at, told, body, said)


def _answered(end: int, head: Mapping[str, Any], body: bytes, place: int) -> _Record:
    record, films, (k, s) = _Record(end), head["films"], head["shape"]
    kinds = ((np.float64, k), (np.float32, k), (np.float32, s))
    (probabilities, logits, scores), place = _tables(body, place, len(films), kinds)
    at = _EPOCH + timedelta(microseconds=head["at"])
    for i, (prediction, label, ms, reference, subject, audited, size) in enumerate(films):
        record.images.append(body[place : place + size])
        place += size
        record.rows.append(
            {
                "prediction": prediction,
                "at": at,
                "bundle": head["bundle"],
                "version": head["version"],
                "label": head["classes"][label],
                "probabilities": tuple(probabilities[i]),
                "logits": tuple(logits[i]),
                "scores": tuple(scores[i]),
                "audited": bool(audited),
                "ms": ms,
                "reference": reference,
                "subject": subject,
            }
        )
    return record


def _looked(end: int, head: Mapping[str, Any], body: bytes, place: int) -> _Record:
    films, (k, s), classes = head["shadows"], head["shape"], head["classes"]
    (probabilities, scores), _ = _tables(body, place, len(films), ((np.float64, k), (np.float32, s)))
    shadows = [
        Shadowed(name, head["version"], head["bundle"], classes[label], tuple(probabilities[i]), tuple(scores[i]), ms)
        for i, (name, label, ms) in enumerate(films)
    ]
    return _Record(end, shadows=shadows)


def _tables(body: bytes, place: int, n: int, kinds: Sequence[tuple[type, int]]) -> tuple[list[list[list[float]]], int]:
    """The numbers of n films that begin there, one table a kind, and where they end."""
    tables = list[list[list[float]]]()
    for kind, columns in kinds:
        table: npt.NDArray[Any] = np.frombuffer(body, kind, n * columns, place).reshape(n, columns)
        tables.append(table.tolist())
        place += table.nbytes
    return tables, place


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Held by the kernel, and let go however the holder dies."""
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _abandoned(path: Path) -> bool:
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def _done(path: Path) -> int:
    try:
        return int(path.with_suffix(DONE).read_text() or 0)
    except FileNotFoundError:
        return 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
