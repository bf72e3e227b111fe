"""Rows in SQLite or PostgreSQL, through SQLAlchemy: the event log, captures, snapshots and the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from rounds.core.ports import Clock
from rounds.core.records import Cost
from rounds.stores.rows_captures import RowCaptures
from rounds.stores.rows_chain import utc_now
from rounds.stores.rows_engine import Database
from rounds.stores.rows_events import RowEvents
from rounds.stores.rows_schema import costs, snapshots
from rounds.stores.rows_versions import migrate, require

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class RowSnapshots:
    """Small states, replaced only by whoever saw the last one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self, key: str) -> tuple[int, bytes] | None:
        """The state's number, from 1 on, and its bytes."""
        query = sa.select(snapshots.c.number, snapshots.c.data).where(snapshots.c.key == key)
        with self._database.reading() as connection:
            found = connection.execute(query).one_or_none()
        return None if found is None else (int(found[0]), bytes(found[1]))

    def save(self, key: str, seen: int, data: bytes) -> bool:
        """Replace the state numbered `seen` (0 for none yet); False where somebody else was first."""
        if seen == 0:
            try:
                with self._database.writing() as connection:
                    connection.execute(sa.insert(snapshots), {"key": key, "number": 1, "data": data})
            except IntegrityError:
                return False
            return True
        mine = sa.update(snapshots).where(snapshots.c.key == key, snapshots.c.number == seen)
        with self._database.writing() as connection:
            return connection.execute(mine.values(number=seen + 1, data=data)).rowcount == 1


class RowLedger:
    """Costs in the order in which they were booked."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def book(self, cost: Cost) -> None:
        """Keep one cost."""
        row = {"kind": cost.kind, "subject": cost.subject, "at": (cost.at - _EPOCH) // timedelta(microseconds=1)}
        row |= {"seconds": cost.seconds, "cpu_seconds": cost.cpu_seconds, "bytes": cost.bytes}
        with self._database.writing() as connection:
            connection.execute(sa.insert(costs), row)

    def read(self) -> Sequence[Cost]:
        """Every cost."""
        columns = (costs.c.kind, costs.c.subject, costs.c.at, costs.c.seconds, costs.c.cpu_seconds, costs.c.bytes)
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(*columns).order_by(costs.c.id)).all()
        return [Cost(row[0], row[1], _EPOCH + timedelta(microseconds=row[2]), *row[3:]) for row in rows]


class Rows:
    """Everything that one database keeps."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.database = database
        self.events = RowEvents(database, clock)
        self.captures = RowCaptures(database)
        self.snapshots = RowSnapshots(database)
        self.ledger = RowLedger(database)

    def close(self) -> None:
        """Close every connection."""
        self.database.close()


def open_rows(url: str, *, clock: Clock = utc_now, busy_s: float = 30.0, forward: bool = True) -> Rows:
    """Open the rows behind sqlite:///FILE or postgresql://USER@HOST/NAME, made where there are none.

    `busy_s` is how long a writer waits for another process, in seconds; `forward` brings an older schema up to date.

    Raises:
        BadOverride: the address cannot be read, or its driver is not installed.
        NotWritable: the file cannot be written, a newer Rounds has used it, or an older one and not `forward`.
        StoreAway: the database does not answer, or stays locked.
    """
    database = Database(url, busy_s)
    try:
        (migrate if forward else require)(database)
    except BaseException:
        database.close()
        raise
    return Rows(database, clock)
