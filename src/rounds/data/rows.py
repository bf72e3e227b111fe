"""The rows of a CSV or Parquet table as text, and the images that a Parquet column holds."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from rounds.core.errors import Fault
from rounds.data.items import bad_source
from rounds.data.remote import RemoteFile

SUFFIXES = (".csv", ".tsv", ".parquet")

_MOST_FAULTS = 200
_BATCH = 4096
_IMAGES = 64


@dataclass
class RowFaults:
    """What is wrong with the rows of a table: the first 200 in full, the rest counted."""

    found: list[Fault] = field(default_factory=list)
    more: int = 0

    def add(self, number: int, what: str, expected: str, got: str = "", then: str = "") -> None:
        if len(self.found) < _MOST_FAULTS:
            self.found.append(Fault(what, f"row {number}", expected, got, then))
        else:
            self.more += 1

    def check(self, source: str) -> None:
        """Raises BadSource with all of them, if there are any."""
        if self.found:
            rest = [Fault(f"and {self.more:,} more faults of rows")] if self.more else []
            raise bad_source(source, *self.found, *rest)


class Rows(Protocol):
    """An opened table: the names of its columns, and which of them hold images."""

    names: list[str]
    pictures: frozenset[str]

    def texts(self, columns: Sequence[str], faults: RowFaults) -> Iterator[tuple[int, list[str]]]:
        """Each row's number, and its values in these columns as text, "" for none. Of a column of images, the path that
        each says it had."""

    def images(self, column: str) -> Iterator[tuple[int, bytes | None]]:
        """Each row's number and its image's bytes, a few rows in memory at a time."""


@contextmanager
def open_rows(file: Path | RemoteFile) -> Iterator[Rows]:
    """Opens a .csv, .tsv or .parquet. Raises: BadSource for a file that is none or is broken, StoreAway."""
    with file.open("rb") as raw:
        try:
            rows: Rows = _Parquet(raw) if file.suffix.lower() == ".parquet" else _Csv(raw, file.suffix.lower())
            twice = [Fault("two columns have this name", name) for name, n in Counter(rows.names).items() if n > 1]
            if twice:
                raise bad_source(str(file), *twice)
            yield rows
        except UnicodeDecodeError as error:
            fault = Fault("the table is not UTF-8", str(file), "text in UTF-8", f"byte {error.object[error.start]:#x}")
            raise bad_source(str(file), fault) from error
        except (csv.Error, pa.ArrowException, OSError) as error:
            got = str(error).splitlines()[0]
            raise bad_source(str(file), Fault("the table is broken", str(file), "a whole table", got)) from error


class _Csv:
    """Columns apart by comma, semicolon or tab, whichever the header has most of; rows count as lines of the file."""

    pictures: frozenset[str] = frozenset()

    def __init__(self, raw: IO[bytes], suffix: str) -> None:
        self._text = io.TextIOWrapper(raw, "utf-8-sig", newline="")
        head = self._text.readline()
        delimiter = "\t" if suffix == ".tsv" else max(",;\t", key=head.count)
        self.names = [name.strip() for name in next(csv.reader([head], delimiter=delimiter), [])]
        self._rows = csv.reader(self._text, delimiter=delimiter)

    def texts(self, columns: Sequence[str], faults: RowFaults) -> Iterator[tuple[int, list[str]]]:
        places = [self.names.index(column) for column in columns]
        for row in self._rows:
            number = self._rows.line_num + 1
            if len(row) == len(self.names):
                yield number, [row[place].strip() for place in places]
            elif row:
                expected = f"{len(self.names)}, as in the header"
                faults.add(number, "the row has another number of values", expected, str(len(row)))

    def images(self, column: str) -> Iterator[tuple[int, bytes | None]]:
        raise NotImplementedError("a CSV holds no images")


class _Parquet:
    """Rows count from 1; names of Hugging Face's class labels stand in for their numbers."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._file = pq.ParquetFile(raw)
        schema = self._file.schema_arrow
        self.names = list(schema.names)
        self._with_path = {field.name for field in schema if _holds(field.type, "path") and _holds(field.type, "bytes")}
        self.pictures = frozenset(field.name for field in schema if _holds(field.type, "bytes") or _binary(field.type))
        self._classes = _class_labels(schema.metadata)

    def texts(self, columns: Sequence[str], faults: RowFaults) -> Iterator[tuple[int, list[str]]]:  # noqa: ARG002
        plain = [column for column in columns if column not in self.pictures]
        paths = [f"{column}.path" for column in columns if column in self._with_path]
        number = 0
        for batch in self._file.iter_batches(_BATCH, columns=[*plain, *paths]):
            read = {name: self._column(name, batch.column(name).to_pylist()) for name in batch.schema.names}
            for place in range(batch.num_rows):
                number += 1
                yield number, [read[column][place] if column in read else "" for column in columns]

    def _column(self, name: str, values: list[Any]) -> list[str]:
        classes = self._classes.get(name)
        if name in self._with_path:
            values = [value and value["path"] for value in values]
        elif classes:
            values = [
                classes[value] if isinstance(value, int) and 0 <= value < len(classes) else value for value in values
            ]
        return list(map(_text, values))

    def images(self, column: str) -> Iterator[tuple[int, bytes | None]]:
        nested = not _binary(self._file.schema_arrow.field(column).type)
        number = 0
        for batch in self._file.iter_batches(_IMAGES, columns=[f"{column}.bytes" if nested else column]):
            for value in batch.column(0):
                number += 1
                yield number, (value["bytes"] if nested and value.is_valid else value).as_py()


def _holds(kind: pa.DataType, name: str) -> bool:
    return bool(pa.types.is_struct(kind) and kind.get_field_index(name) >= 0)


def _binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _text(value: Any) -> str:
    """A value as a person would write it: whole numbers without a point, dates as in ISO 8601."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value).strip()


def _class_labels(metadata: dict[bytes, bytes] | None) -> dict[str, list[str]]:
    """Names of labels by column, as Hugging Face's `datasets` writes them beside the schema."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {name: list(kind["names"]) for name, kind in features.items() if kind.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
