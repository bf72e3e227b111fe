"""The file that answers to many films go to, and the folder beside it that keeps what is answered until all is.

A chunk is what one process answers at a time: some films in a row. Chunks are kept below `F.part/`, each in a file of
its own with its checksum and the key of what it answered; F itself appears whole, at the end.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from rounds.core.errors import BadRequest, Fault, NotWritable, WorldFault
from rounds.core.ids import digest, write_whole
from rounds.loop.turns import turn

FORMATS = (".jsonl", ".csv", ".parquet")
STATE = "state.json"

_COLUMNS = ("id", "path", "class", "refer", "reason", "ood", "set", "version", "bundle", "ms")
_ROWS = 4096  # rows of a group in Parquet: what is held in memory at once

Tell = Callable[[str], None]
Settings = Mapping[str, Any]


class Chunk(NamedTuple):
    """What was answered at a time: the key of the films, how many were answered, who was refused and why, and a JSON
    line for each answer."""

    key: str
    answered: int
    refused: Sequence[Mapping[str, str]]
    lines: bytes


def packed(chunk: Chunk) -> bytes:
    """The chunk as it crosses between processes and lies in its file."""
    head = {"key": chunk.key, "answered": chunk.answered, "refused": chunk.refused}
    body = json.dumps(head).encode() + b"\n" + chunk.lines
    return digest(body).encode() + b"\n" + body


def unpacked(data: bytes) -> Chunk:
    """The chunk again; ValueError where the bytes are not those that were packed."""
    name, _, body = data.partition(b"\n")
    if digest(body).encode() != name:
        raise ValueError("the chunk has changed")
    head, _, lines = body.partition(b"\n")
    found = json.loads(head)
    return Chunk(found["key"], found["answered"], found["refused"], lines)


class Keep(Protocol):
    """Where chunks wait until all are there."""

    def put(self, number: int, data: bytes) -> None:
        """Keep a packed chunk."""

    def get(self, number: int) -> Chunk:
        """A chunk that was kept."""


class Memory:
    """Chunks that end with this process."""

    def __init__(self) -> None:
        self._held: dict[int, bytes] = {}

    def put(self, number: int, data: bytes) -> None:
        self._held[number] = data

    def get(self, number: int) -> Chunk:
        return unpacked(self._held[number])


class Folder:
    """Chunks that outlive this process. NotWritable where the disk refuses."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def key(self, number: int) -> str | None:
        """The key of the films that this chunk answers; None where there is no such chunk, or no whole one."""
        try:
            return unpacked(self._file(number).read_bytes()).key
        except (OSError, ValueError, KeyError):
            return None

    def put(self, number: int, data: bytes) -> None:
        file = self._file(number)
        half = file.with_suffix(".half")
        # Not synced: what a power failure spoils fails its checksum, and is answered again.
        with writing(file):
            half.write_bytes(data)
            half.replace(file)

    def get(self, number: int) -> Chunk:
        try:
            return unpacked(self._file(number).read_bytes())
        except (OSError, ValueError, KeyError) as error:
            fault = Fault(str(error), str(self._file(number)), "a chunk that was kept", next="run the command again")
            raise WorldFault("answers that were kept are gone", [fault]) from error

    def drop(self) -> None:
        """Forget all chunks."""
        for file in self._path.glob("*.chunk"):
            file.unlink()

    def _file(self, number: int) -> Path:
        return self._path / f"{number:08d}.chunk"


@contextmanager
def kept_beside(out: Path, settings: Settings, tell: Tell) -> Iterator[Folder]:
    """The chunks of `out`, held for this process alone; of a run with other settings nothing is left, which is told.

    Raises:
        NotWritable: there is no writing there, somebody else is at it, or the folder is not ours.
    """
    place = part(out)
    with writing(place):
        place.mkdir(parents=True, exist_ok=True)
    if not (place / STATE).is_file() and any(place.glob("[!.]*")):
        other = Fault("a folder of somebody else", str(place), "nothing, or a run that was cut off", "other files")
        raise NotWritable(f"cannot write {out.name}", [other])
    with turn(place, "answering", wait=False) as mine:
        if not mine:
            busy = Fault("another run is writing it", str(place), next="wait for it, or name another file")
            raise NotWritable(f"cannot write {out.name}", [busy])
        folder = Folder(place)
        if (changed := _changed(place / STATE, settings)) is not None:
            with writing(place):
                folder.drop()
                write_whole(place / STATE, json.dumps(settings).encode())
        if changed:
            tell(f"{place} was begun with another {' and '.join(changed)}: starting anew")
        yield folder


def part(out: Path) -> Path:
    """The folder beside `out`."""
    return out.with_name(out.name + ".part")


def drop(out: Path) -> None:
    """Remove the folder beside `out`."""
    shutil.rmtree(part(out), ignore_errors=True)


def check_format(path: Path) -> None:
    """Refuse, with BadRequest, a file that could not be written, before anything is predicted for it."""
    if path.suffix not in FORMATS:
        fault = Fault("unknown format", str(path), " or ".join(FORMATS), path.suffix or "no ending", "name the file so")
        raise BadRequest(f"cannot write {path.name}", [fault])


def write(path: Path, chunks: Iterable[Chunk], classes: Sequence[str]) -> None:
    """Write the answers whole as JSON lines, CSV or Parquet, by the ending of the name, in constant memory; without a
    single answer no file. Raises NotWritable."""
    half = part(path) / "whole.half"
    with writing(path):
        half.parent.mkdir(parents=True, exist_ok=True)
        with half.open("wb") as file:
            rows = _WRITERS[path.suffix](file, chunks, classes)
            file.flush()
            os.fsync(file.fileno())
        if rows:
            half.replace(path)


def write_refused(path: Path, chunks: Iterable[Chunk]) -> None:
    """Write who was refused and why, as JSON lines, to `path`.refused.jsonl, for there are more than one says."""
    with writing(path), path.with_name(path.name + ".refused.jsonl").open("w") as file:
        for chunk in chunks:
            file.writelines(json.dumps(row) + "\n" for row in chunk.refused)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say what the disk refuses, and where: NotWritable."""
    try:
        yield
    except OSError as error:
        fault = Fault(error.strerror or str(error), str(path), "a folder with room to write", next="name another file")
        raise NotWritable(f"cannot write {path.name}", [fault]) from error


def _changed(state: Path, settings: Settings) -> list[str] | None:
    """Which settings differ from those that a run began with; None where it is the same run, none for a first run."""
    try:
        before = json.loads(state.read_bytes())
        names = [name for name in settings if before.get(name) != settings[name]]
    except FileNotFoundError:
        return []
    except (ValueError, AttributeError):
        return ["release"]
    return names or None


def _flat(chunk: Chunk) -> list[dict[str, Any]]:
    rows = []
    for line in chunk.lines.splitlines():
        row: dict[str, Any] = json.loads(line)
        row |= {f"p_{name}": value for name, value in row.pop("probabilities").items()}
        row["set"] = " ".join(row["set"])
        rows.append(row)
    return rows


def _jsonl(file: io.BufferedWriter, chunks: Iterable[Chunk], _classes: Sequence[str]) -> int:
    rows = 0
    for chunk in chunks:
        file.write(chunk.lines)
        rows += chunk.answered
    return rows


def _csv(file: io.BufferedWriter, chunks: Iterable[Chunk], classes: Sequence[str]) -> int:
    columns, count = [*_COLUMNS, *(f"p_{name}" for name in classes)], 0
    text = io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="", write_through=True)
    writer = csv.writer(text)
    writer.writerow(columns)
    for chunk in chunks:
        writer.writerows([row[column] for column in columns] for row in _flat(chunk))
        count += chunk.answered
    text.detach()
    return count


def _parquet(file: io.BufferedWriter, chunks: Iterable[Chunk], classes: Sequence[str]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns, count, held = [*_COLUMNS, *(f"p_{name}" for name in classes)], 0, list[dict[str, Any]]()
    kinds = dict.fromkeys(("ood", "ms", *columns[len(_COLUMNS) :]), pa.float64()) | {"refer": pa.bool_()}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in columns])
    with pq.ParquetWriter(file, schema) as writer:
        for chunk in chunks:
            held += [row | {"path": _text(row["path"])} for row in _flat(chunk)]
            count += chunk.answered
            if len(held) >= _ROWS:
                writer.write_table(pa.Table.from_pylist(held, schema))
                held.clear()
        if held:
            writer.write_table(pa.Table.from_pylist(held, schema))
    return count


_WRITERS = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}


def _text(path: str) -> str:
    """The path; bytes that are no text, which Parquet refuses, are written as \\udcff."""
    return path.encode(errors="backslashreplace").decode()
