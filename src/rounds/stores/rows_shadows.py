"""What versions that only look on would have answered, beside the films that were answered."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from rounds.core.records import Shadowed
from rounds.stores.rows_engine import Database
from rounds.stores.rows_schema import captures, heads, shadows

# Below what SQLite (32,766) and PostgreSQL (65,535) take as parameters of one statement.
MANY = 10_000
# The lock that recording and erasing films hold too: a shadow answer never outlives its film.
_LOCK = sa.select(heads.c.value).where(heads.c.name == "captures").with_for_update()
_LAST = sa.select(heads.c.value).where(heads.c.name == "shadows").with_for_update()
_ADVANCE = sa.update(heads).where(heads.c.name == "shadows").values(value=sa.bindparam("to"))


class RowShadows:
    """Shadow answers, in the order of commits."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record_shadows(self, rows: Sequence[Shadowed]) -> int:
        """Keep shadow answers in one transaction; how many are new.

        One for each prediction and bundle stays, and one whose film is not kept is left out. Raises WorldFault where
        they could not be kept; none was.
        """
        wanted: dict[tuple[str, str], Shadowed] = {}
        for row in rows:
            wanted.setdefault((row.prediction, row.bundle), row)
        names = list({row.prediction for row in rows})
        films = sa.select(captures.c.prediction)
        kept = sa.select(shadows.c.prediction, shadows.c.bundle)
        with self._database.writing() as connection:
            connection.execute(_LOCK)
            last = int(connection.execute(_LAST).scalar_one())
            known = {name for (name,) in chunked(connection, films, captures.c.prediction, names)}
            given = {(name, bundle) for name, bundle in chunked(connection, kept, shadows.c.prediction, names)}
            new = [row for key, row in wanted.items() if key not in given and row.prediction in known]
            if new:
                connection.execute(sa.insert(shadows), [_row(last + i, row) for i, row in enumerate(new, 1)])
                connection.execute(_ADVANCE, {"to": last + len(new)})
        return len(new)

    def shadows(self, bundle: str | None = None, after: int = 0, limit: int = 10_000) -> Sequence[Shadowed]:
        """Shadow answers with a greater seq, in order, of one bundle or of all."""
        query = sa.select(shadows).where(shadows.c.seq > after).order_by(shadows.c.seq).limit(limit)
        with self._database.reading() as connection:
            found = connection.execute(query if bundle is None else query.where(shadows.c.bundle == bundle)).all()
        return [_shadow(*row) for row in found]


def chunked(
    connection: Connection, query: sa.Select[Any], column: sa.Column[Any], values: Sequence[str]
) -> Iterator[Any]:
    """The query's rows with one of these values in a column, asked for in parts that a statement takes."""
    for start in range(0, len(values), MANY):
        yield from connection.execute(query.where(column.in_(values[start : start + MANY])))


@lru_cache(maxsize=64)
def _floats(n: int) -> struct.Struct:
    return struct.Struct(f"<{n}d")


def pack(values: Sequence[float]) -> bytes:
    """Numbers as little-endian doubles."""
    return _floats(len(values)).pack(*values)


def unpack(data: bytes) -> tuple[float, ...]:
    """Numbers from little-endian doubles."""
    return _floats(len(data) // 8).unpack(data)


def _row(seq: int, row: Shadowed) -> dict[str, Any]:
    told = {name: getattr(row, name) for name in ("prediction", "version", "bundle", "label", "ms")}
    return told | {"seq": seq, "probabilities": pack(row.probabilities), "scores": pack(row.scores)}


def _shadow(
    seq: int, prediction: str, version: str, bundle: str, label: str, probabilities: bytes, scores: bytes, ms: float
) -> Shadowed:
    return Shadowed(prediction, version, bundle, label, unpack(probabilities), unpack(scores), ms, seq)
