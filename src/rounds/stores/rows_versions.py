"""Which schema a database has, and the numbered steps that bring it forward; Alembic takes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from rounds.core.errors import Fault, NotWritable
from rounds.stores.rows_engine import Database

# The newest file in migrations/versions. Whoever opens a database that is there reads one row and imports no Alembic.
HEAD = "0003"
STEPS = Path(__file__).with_name("migrations")
_FIRST = "0001"
# What the first version, which had no Alembic, wrote for its only step.
_FIRST_NAMES = {"m001_initial"}
# Any fixed number: who makes or changes the tables holds this lock, so that two first starts do not collide.
_MIGRATION_LOCK = 7_266_001


@dataclass(frozen=True)
class Moved:
    """The schema a database had ("" for none yet) and has now, and what each step between them does."""

    before: str
    after: str
    steps: tuple[str, ...] = ()


def version(database: Database) -> str:
    """The number of the schema that is there, "" for a database without one."""
    with database.reading() as connection:
        return _version(connection)


def require(database: Database) -> None:
    """Make the tables where there are none.

    Raises NotWritable where the schema is older or newer than this version of Rounds knows it.
    """
    found = version(database)
    _refuse_newer(database, found)
    if not found:
        migrate(database)
    elif found != HEAD:
        fault = Fault("an older Rounds made it", database.where, HEAD, found, "back it up, then run: rounds migrate")
        raise NotWritable(f"{database.where} has an older schema", [fault])


def migrate(database: Database) -> Moved:
    """Take every step that the database has not taken yet, all in one transaction.

    Raises NotWritable for a schema that is newer than this version of Rounds.
    """
    found = version(database)
    _refuse_newer(database, found)
    if found == HEAD:
        return Moved(found, found)
    with database.writing() as connection:
        if not database.sqlite:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        # somebody may have been first while we waited
        found = _version(connection)
        _refuse_newer(database, found)
        return Moved(found, HEAD, _upgrade(connection, found))


def pending(database: Database) -> Moved:
    """What `migrate` would do."""
    found = version(database)
    _refuse_newer(database, found)
    return Moved(found, HEAD, () if found == HEAD else _steps(found))


def _upgrade(connection: Connection, found: str) -> tuple[str, ...]:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(STEPS).replace("%", "%%"))
    config.attributes["connection"] = connection
    if found == _FIRST and not sa.inspect(connection).has_table("alembic_version"):
        command.stamp(config, _FIRST)
    steps = _steps(found)
    command.upgrade(config, "head")
    return steps


def _steps(found: str) -> tuple[str, ...]:
    """The first line of every step after `found`, with its number."""
    from alembic.script import ScriptDirectory

    revisions = list(ScriptDirectory(STEPS).walk_revisions())
    return tuple(f"{one.revision}: {one.doc}" for one in reversed(revisions) if one.revision > found)


def _version(connection: Connection) -> str:
    names = sa.inspect(connection).get_table_names()
    if "alembic_version" in names:
        return str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() or "")
    if "migrations" not in names:
        return ""
    taken = {str(name) for name in connection.exec_driver_sql("SELECT name FROM migrations").scalars()}
    # a step that nobody knows here is newer than any number
    return max(taken - _FIRST_NAMES, default=_FIRST if taken else "")


def _refuse_newer(database: Database, found: str) -> None:
    if found > HEAD:
        then = "upgrade Rounds, or choose another workspace with --home"
        fault = Fault("a newer Rounds has used it", database.where, f"{HEAD} or older", found, then)
        raise NotWritable(f"{database.where} is newer than this version of Rounds", [fault])
