"""Captured films and their labels in a database; the place of a film is its place in the order of commits."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from rounds.core.errors import Fault, OurFault
from rounds.core.records import Captured, Label
from rounds.stores.rows_engine import Database
from rounds.stores.rows_schema import captures, heads, labels

# Below what SQLite (32,766) and PostgreSQL (65,535) take as parameters of one statement.
MANY = 10_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LOCK = sa.select(heads.c.value).where(heads.c.name == "captures").with_for_update()
_ADVANCE = sa.update(heads).where(heads.c.name == "captures").values(value=sa.bindparam("to"))
_INSERT = sa.insert(captures)
# The same as the driver's own text: building each row's parameters anew costs SQLAlchemy 5 microseconds.
_INSERT_SQLITE = f"INSERT INTO captures ({', '.join(captures.c.keys())}) VALUES ({', '.join('?' * len(captures.c))})"  # noqa: S608


class RowCaptures:
    """What was asked and answered, and the labels that come later."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, rows: Sequence[Captured]) -> Sequence[int]:
        """Keep answered films in one transaction; their places in the total order, rising by one.

        Raises:
            OurFault: a prediction id is kept already.
            WorldFault: they could not be kept; none was.
        """
        if not rows:
            return []
        try:
            with self._database.writing() as connection:
                last = int(connection.execute(_LOCK).scalar_one())
                values = [_row(last + i, row) for i, row in enumerate(rows, 1)]
                if self._database.sqlite:
                    connection.exec_driver_sql(_INSERT_SQLITE, values)
                else:
                    connection.execute(_INSERT, [dict(zip(captures.c.keys(), row, strict=True)) for row in values])
                connection.execute(_ADVANCE, {"to": last + len(rows)})
        except IntegrityError as error:
            raise OurFault(
                "a prediction is kept already", [Fault("an id was used twice", got=str(error.orig))]
            ) from error
        return range(last + 1, last + len(rows) + 1)

    def since(self, seq: int, limit: int = 10_000, bundle: str | None = None) -> Sequence[Captured]:
        """Rows with a greater seq, in order, of one bundle or of all."""
        query = sa.select(captures).where(captures.c.seq > seq).order_by(captures.c.seq).limit(limit)
        return self._films(query if bundle is None else query.where(captures.c.bundle == bundle))

    def find(self, prediction: str) -> Captured | None:
        """The row of a prediction id."""
        found = self._films(sa.select(captures).where(captures.c.prediction == prediction))
        return found[0] if found else None

    def by_reference(self, reference: str) -> Sequence[Captured]:
        """Rows that the caller gave this number, in order."""
        return self._films(sa.select(captures).where(captures.c.reference == reference).order_by(captures.c.seq))

    def attach(self, labels_: Sequence[tuple[str, Label]]) -> None:
        """Keep labels for predictions that are kept, in one transaction; the first label of a prediction stays."""
        wanted: dict[str, Label] = {}
        for prediction, label in labels_:
            wanted.setdefault(prediction, label)
        with self._database.writing() as connection:
            # The lock that erasing holds too: a label never outlives its film.
            connection.execute(_LOCK)
            known = set(_chunked(connection, sa.select(captures.c.prediction), captures.c.prediction, list(wanted)))
            given = set(_chunked(connection, sa.select(labels.c.prediction), labels.c.prediction, list(wanted)))
            new = [_label_row(name, label) for name, label in wanted.items() if name in known and name not in given]
            if new:
                connection.execute(sa.insert(labels), new)

    def labels(self, predictions: Sequence[str] | None = None) -> Mapping[str, Label]:
        """The label of each of these predictions, or of all, by prediction id."""
        query = sa.select(labels)
        with self._database.reading() as connection:
            if predictions is None:
                return {row[0]: _label(*row) for row in connection.execute(query)}
            names = list(dict.fromkeys(predictions))
            parts = (names[start : start + MANY] for start in range(0, len(names), MANY))
            found = (connection.execute(query.where(labels.c.prediction.in_(part))).all() for part in parts)
            return {row[0]: _label(*row) for rows in found for row in rows}

    def erase(self, subject: str) -> Sequence[str]:
        """Drop a subject's rows and labels in one transaction; digests of images that no other row needs."""
        mine = sa.select(captures.c.prediction).where(captures.c.subject == subject)
        images = sa.select(captures.c.image).where(captures.c.subject == subject).distinct()
        with self._database.writing() as connection:
            connection.execute(_LOCK)
            seen = list(connection.execute(images.order_by(captures.c.image)).scalars())
            connection.execute(sa.delete(labels).where(labels.c.prediction.in_(mine)))
            connection.execute(sa.delete(captures).where(captures.c.subject == subject))
            needed = set(_chunked(connection, sa.select(captures.c.image), captures.c.image, seen))
        if self._database.sqlite:
            # The rows still stand in the write-ahead log until it is folded in.
            with self._database.reading() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return [image for image in seen if image not in needed]

    def count(self) -> int:
        """How many films are kept."""
        with self._database.reading() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(captures)).scalar_one())

    def _films(self, query: sa.Select[Any]) -> list[Captured]:
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [_film(*row) for row in rows]


def _chunked(
    connection: Connection, query: sa.Select[Any], column: sa.Column[Any], values: Sequence[str]
) -> Iterator[str]:
    for start in range(0, len(values), MANY):
        yield from connection.execute(query.where(column.in_(values[start : start + MANY]))).scalars()


@lru_cache(maxsize=64)
def _floats(n: int) -> struct.Struct:
    return struct.Struct(f"<{n}d")


def _pack(values: Sequence[float]) -> bytes:
    return _floats(len(values)).pack(*values)


def _unpack(data: bytes) -> tuple[float, ...]:
    return _floats(len(data) // 8).unpack(data)


def _row(seq: int, row: Captured) -> tuple[Any, ...]:
    """In the order of the table's columns."""
    return (
        seq,
        row.prediction,
        (row.at - _EPOCH) // _MICROSECOND,
        row.bundle,
        row.version,
        row.image,
        row.label,
        _pack(row.probabilities),
        _pack(row.logits),
        _pack(row.scores),
        int(row.audited),
        row.ms,
        row.reference,
        row.subject,
    )


def _film(
    seq: int,
    prediction: str,
    at: int,
    bundle: str,
    version: str,
    image: str,
    label: str,
    probabilities: bytes,
    logits: bytes,
    scores: bytes,
    audited: int,
    ms: float,
    reference: str | None,
    subject: str | None,
) -> Captured:
    when = _EPOCH + timedelta(microseconds=at)
    known = (_unpack(probabilities), _unpack(logits), _unpack(scores))
    return Captured(prediction, when, bundle, version, image, label, *known, bool(audited), ms, reference, subject, seq)


def _label_row(prediction: str, label: Label) -> dict[str, Any]:
    at = None if label.at is None else (label.at - _EPOCH) // _MICROSECOND
    row = {"prediction": prediction, "label": label.label, "reference": label.reference, "given_by": label.by}
    return row | {"at": at}


def _label(prediction: str, label: str, reference: str | None, by: str, at: int | None) -> Label:
    return Label(label, prediction, reference, by, None if at is None else _EPOCH + timedelta(microseconds=at))
