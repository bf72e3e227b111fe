"""All rows of a database as one SQLite file, taken while it is written to; such a file put into an empty database."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from rounds.core.errors import Fault, NotWritable
from rounds.stores.rows_engine import Database
from rounds.stores.rows_schema import TABLES, captures, costs, events, heads, packed, unsettled
from rounds.stores.rows_versions import migrate

# Rows that are held at once while they are copied.
TOGETHER = 2_000
# Where in the blobs a small image lies: whoever copies the rows copies each image for itself.
_PLACES = (packed.name, unsettled.name)


def copy_file(source: Path, to: Path) -> None:
    """Copy an SQLite file through its own online backup: one moment of it, whole, whoever writes meanwhile.

    Raises NotWritable.
    """
    try:
        with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as one, closing(sqlite3.connect(to)) as other:
            one.backup(other)
            # a copy that is read once needs no log beside it
            other.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        fault = Fault("the database cannot be copied", str(source), got=str(error), next="free some space, try again")
        raise NotWritable(f"{to} cannot be written", [fault]) from error


def take(database: Database, to: Path) -> None:
    """Write every row, as they all are at one moment, to a new SQLite file; NotWritable, StoreAway."""
    if database.sqlite:
        copy_file(Path(database.where), to)
        with closing(sqlite3.connect(to)) as copied, copied:
            for name in _PLACES:
                copied.execute(f"DELETE FROM {name}")  # noqa: S608 - names of our own
        return
    made = Database(f"sqlite:///{to}", 30.0)
    try:
        migrate(made)
        with database.translated(), database.engine.connect() as one:
            reading = one.execution_options(isolation_level="REPEATABLE READ")
            with made.writing() as other:
                _copy(reading, other)
    finally:
        made.close()
    with closing(sqlite3.connect(to)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")


def put(database: Database, source: Path) -> None:
    """Copy the rows of such a file, of this or an older version, into a database that holds none, in one transaction.

    Raises NotWritable where it holds some; StoreAway.
    """
    read = Database(f"sqlite:///{source}", 30.0)
    try:
        migrate(read)
        migrate(database)
        with database.writing() as other:
            for table in (events, captures):
                if other.execute(sa.select(sa.func.count()).select_from(table)).scalar_one():
                    then = "name an empty database: ROUNDS_ROWS"
                    fault = Fault("rows are kept there", database.where, "no rows", f"some in {table.name}", then)
                    raise NotWritable(f"{database.where} is not empty", [fault])
            with read.reading() as one:
                _copy(one, other)
            if not database.sqlite:
                # what numbers the costs goes on after those that were copied
                last = sa.select(sa.func.coalesce(sa.func.max(costs.c.id), 0) + 1).scalar_subquery()
                other.execute(sa.select(sa.func.setval(sa.func.pg_get_serial_sequence("costs", "id"), last, False)))
    finally:
        read.close()


def _copy(one: Connection, other: Connection) -> None:
    # those that a new database begins with
    other.execute(sa.delete(heads))
    for table in TABLES:
        if table.name in _PLACES:
            continue
        keys = table.c.keys()
        found = one.execution_options(yield_per=TOGETHER).execute(sa.select(table))
        for part in found.partitions(TOGETHER):
            other.execute(sa.insert(table), [dict(zip(keys, row, strict=True)) for row in part])
