"""Captured films and their labels in a database; the place of a film is its place in the order of commits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from rounds.core.records import Captured, Label
from rounds.stores.rows_schema import captures, heads, labels, shadows
from rounds.stores.rows_shadows import MANY, RowShadows, chunked, pack, unpack

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_HEAD = sa.select(heads.c.value).where(heads.c.name == "captures")
_LOCK = _HEAD.with_for_update()
_ADVANCE = sa.update(heads).where(heads.c.name == "captures").values(value=sa.bindparam("to"))
_PREDICTIONS = sa.select(captures.c.prediction)
_LABELLED = sa.select(labels.c.prediction)
_INSERT = sa.insert(captures)
# The same as the driver's own text: building each row's parameters anew costs SQLAlchemy 5 microseconds.
_INSERT_SQLITE = f"INSERT INTO captures ({', '.join(captures.c.keys())}) VALUES ({', '.join('?' * len(captures.c))})"  # noqa: S608


class RowCaptures(RowShadows):
    """What was asked and answered, and the labels that come later."""

    def record(self, rows: Sequence[Captured]) -> Sequence[int]:
        """Keep answered films in one transaction; the place of each in the total order, rising by one.

        A film whose prediction id is kept already, or stands in `rows` before it, is left out and has the place of the
        one that is kept. Raises WorldFault where they could not be kept; none was.
        """
        if not rows:
            return []
        try:
            with self._database.writing() as connection:
                last = int(connection.execute(_LOCK).scalar_one())
                self._insert(connection, last, rows)
            return range(last + 1, last + len(rows) + 1)
        except IntegrityError:
            return self._record_new(rows)

    def _record_new(self, rows: Sequence[Captured]) -> Sequence[int]:
        """The same where some are kept already: what is handed in twice is not looked for before the first refusal."""
        first: dict[str, Captured] = {}
        for row in rows:
            first.setdefault(row.prediction, row)
        known = sa.select(captures.c.prediction, captures.c.seq)
        with self._database.writing() as connection:
            last = int(connection.execute(_LOCK).scalar_one())
            places = {str(name): int(seq) for name, seq in chunked(connection, known, captures.c.prediction, [*first])}
            new = [row for name, row in first.items() if name not in places]
            self._insert(connection, last, new)
        places |= {row.prediction: last + i for i, row in enumerate(new, 1)}
        return [places[row.prediction] for row in rows]

    def _insert(self, connection: Connection, last: int, rows: Sequence[Captured]) -> None:
        values = [_row(last + i, row) for i, row in enumerate(rows, 1)]
        if not values:
            return
        if self._database.sqlite:
            connection.exec_driver_sql(_INSERT_SQLITE, values)
        else:
            connection.execute(_INSERT, [dict(zip(captures.c.keys(), row, strict=True)) for row in values])
        connection.execute(_ADVANCE, {"to": last + len(rows)})

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
            known = {name for (name,) in chunked(connection, _PREDICTIONS, captures.c.prediction, list(wanted))}
            given = {name for (name,) in chunked(connection, _LABELLED, labels.c.prediction, list(wanted))}
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
        """Drop a subject's rows, labels and shadow answers, in one transaction; images that no other row needs."""
        mine = sa.select(captures.c.prediction).where(captures.c.subject == subject)
        images = sa.select(captures.c.image).where(captures.c.subject == subject).distinct()
        with self._database.writing() as connection:
            connection.execute(_LOCK)
            seen = list(connection.execute(images.order_by(captures.c.image)).scalars())
            connection.execute(sa.delete(labels).where(labels.c.prediction.in_(mine)))
            connection.execute(sa.delete(shadows).where(shadows.c.prediction.in_(mine)))
            connection.execute(sa.delete(captures).where(captures.c.subject == subject))
            needed = {image for (image,) in chunked(connection, sa.select(captures.c.image), captures.c.image, seen)}
        if self._database.sqlite:
            # The rows still stand in the write-ahead log until it is folded in.
            with self._database.reading() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return [image for image in seen if image not in needed]

    def images(self) -> Iterator[tuple[str, datetime, int, bool]]:
        """Each image that was not dropped, the one asked for longest ago first: its digest, when it was last asked for,
        its size in bytes (0 where nobody said), and whether a film that the audit drew still has no label."""
        last = sa.func.max(captures.c.at)
        awaited = sa.func.max(sa.case((labels.c.prediction.is_(None), captures.c.audited), else_=0))
        query = (
            sa.select(captures.c.image, last, sa.func.max(captures.c.size), awaited)
            .select_from(captures.outerjoin(labels, labels.c.prediction == captures.c.prediction))
            .where(captures.c.gone == 0)
            .group_by(captures.c.image)
            .order_by(last, captures.c.image)
        )
        with self._database.reading() as connection:
            for image, at, size, waits in connection.execution_options(yield_per=MANY).execute(query):
                yield image, _EPOCH + timedelta(microseconds=at), int(size), bool(waits)

    def drop_images(self, images: Sequence[str]) -> None:
        """Mark every row of these images, in one transaction: the image is gone."""
        with self._database.writing() as connection:
            connection.execute(_LOCK)
            for start in range(0, len(images), MANY):
                some = captures.c.image.in_(images[start : start + MANY])
                connection.execute(sa.update(captures).where(some).values(gone=1))

    def last(self) -> int:
        """The greatest place that a film was given, 0 for none yet."""
        with self._database.reading() as connection:
            return int(connection.execute(_HEAD).scalar_one())

    def count(self) -> int:
        """How many films are kept."""
        with self._database.reading() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(captures)).scalar_one())

    def _films(self, query: sa.Select[Any]) -> list[Captured]:
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [_film(*row) for row in rows]


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
        pack(row.probabilities),
        pack(row.logits),
        pack(row.scores),
        int(row.audited),
        row.ms,
        row.reference,
        row.subject,
        row.size,
        int(row.gone),
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
    size: int,
    gone: int,
) -> Captured:
    return Captured(
        prediction,
        _EPOCH + timedelta(microseconds=at),
        bundle,
        version,
        image,
        label,
        unpack(probabilities),
        unpack(logits),
        unpack(scores),
        bool(audited),
        ms,
        reference,
        subject,
        seq,
        size,
        bool(gone),
    )


def _label_row(prediction: str, label: Label) -> dict[str, Any]:
    at = None if label.at is None else (label.at - _EPOCH) // _MICROSECOND
    row = {"prediction": prediction, "label": label.label, "reference": label.reference, "given_by": label.by}
    return row | {"at": at}


def _label(prediction: str, label: str, reference: str | None, by: str, at: int | None) -> Label:
    return Label(label, prediction, reference, by, None if at is None else _EPOCH + timedelta(microseconds=at))
