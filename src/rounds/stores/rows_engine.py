"""A database with one writer at a time: SQLite in WAL mode, or PostgreSQL; its errors become the house's own."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine import URL, Connection, Engine

from rounds.core.errors import BadOverride, Fault, NotWritable, StoreAway, WorldFault

DIALECTS = ("sqlite", "postgresql")
_FREE = "make the folder writable and free some space, or choose another workspace with --home"
# By SQLite's own name of the failure, without what follows the second underscore.
_SQLITE = {
    "SQLITE_READONLY": (NotWritable, "the database is read-only", _FREE),
    "SQLITE_CANTOPEN": (NotWritable, "the database file cannot be opened", _FREE),
    "SQLITE_PERM": (NotWritable, "the database file may not be opened", _FREE),
    "SQLITE_FULL": (NotWritable, "the disk is full", "free some space and try again"),
    "SQLITE_IOERR": (NotWritable, "the disk does not take the data", "check the disk and its free space"),
    "SQLITE_BUSY": (StoreAway, "the database is locked by another process", "wait for it, or end it, and try again"),
    "SQLITE_LOCKED": (StoreAway, "the database is locked by another process", "wait for it, or end it, and try again"),
    "SQLITE_NOTADB": (StoreAway, "the file is no SQLite database", "restore it from a copy"),
    "SQLITE_CORRUPT": (StoreAway, "the database file is damaged", "restore it from a copy"),
}
# Seconds: until a server that does not take a connection is away, and until one that took it and fell silent is.
_SERVER = {"connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5, "tcp_user_timeout": 15_000}
_AWAY = "check that the database server runs and that its address and password are right"


class Database:
    """Connections for readers, and a turn for each writer; safe between threads and between processes."""

    def __init__(self, url: str, busy_s: float) -> None:
        parsed = _parse(url)
        self.sqlite = parsed.get_backend_name() == "sqlite"
        self.where = str(parsed.database) if self.sqlite else parsed.render_as_string(hide_password=True)
        self.engine = _engine(parsed, busy_s, self.sqlite, self.where)
        # SQLite lets a waiting writer sleep and poll; threads of one process hand over at once.
        self._turn = threading.Lock()
        if self.sqlite:
            with self.translated():
                _use_wal(self.engine, busy_s)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection on which each statement sees the last commit."""
        with self.translated(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction: committed at the end, rolled back on any error; on SQLite it holds the only writer's
        lock."""
        with self.translated():
            if not self.sqlite:
                with self.engine.begin() as connection:
                    yield connection
                return
            with self._turn, self.engine.begin() as connection:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn what a database driver raises into NotWritable or StoreAway; broken constraints pass as they are."""
        try:
            yield
        except exc.IntegrityError:
            raise
        except (exc.OperationalError, exc.DatabaseError, exc.InterfaceError, exc.TimeoutError) as error:
            raise _world(error, self.where) from error

    def close(self) -> None:
        """Close every connection; the last one to leave an SQLite file folds its log into it."""
        self.engine.dispose()


def _parse(url: str) -> URL:
    try:
        parsed = sa.make_url(url)
    except exc.ArgumentError as error:
        fault = Fault("not a database address", "ROUNDS_ROWS", "sqlite:///FILE or postgresql://USER@HOST/NAME")
        raise BadOverride("the address of the rows cannot be read", [fault]) from error
    if parsed.get_backend_name() not in DIALECTS:
        fault = Fault("unknown database", "ROUNDS_ROWS", " or ".join(DIALECTS), parsed.get_backend_name())
        raise BadOverride("rows cannot be kept there", [fault])
    if parsed.get_backend_name() == "sqlite":
        if parsed.database in (None, "", ":memory:"):
            fault = Fault("SQLite without a file forgets", "ROUNDS_ROWS", "sqlite:///FILE", url)
            raise BadOverride("rows cannot be kept there", [fault])
        # SQLite's own URIs (file:...?mode=ro) name their file themselves.
        uri = str(parsed.database).startswith("file:")
        return parsed if uri else parsed.set(database=str(Path(str(parsed.database)).absolute()))
    return parsed.set(drivername="postgresql+psycopg")


def _engine(url: URL, busy_s: float, sqlite: bool, where: str) -> Engine:
    if not sqlite:
        try:
            # a connection that a restart of the server cut is noticed before it is used, and made anew
            usual = {"pool_size": 8, "pool_use_lifo": True, "pool_pre_ping": True}
            # what the address itself says goes first
            return sa.create_engine(url, connect_args={k: v for k, v in _SERVER.items() if k not in url.query}, **usual)
        except ImportError as error:
            fault = Fault("no PostgreSQL driver", where, "psycopg 3", "none", "install it: pip install 'rounds[cloud]'")
            raise BadOverride("PostgreSQL cannot be reached from here", [fault]) from error
    try:
        if not where.startswith("file:"):
            Path(where).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fault = Fault("the folder cannot be made", where, "a writable folder", error.strerror or str(error), _FREE)
        raise NotWritable(f"{Path(where).parent} cannot be written", [fault]) from error
    arguments = {"timeout": busy_s, "check_same_thread": False}
    engine = sa.create_engine(url, pool_size=16, max_overflow=64, pool_use_lifo=True, connect_args=arguments)
    event.listen(engine, "connect", _prepare)
    return engine


def _prepare(connection: sqlite3.Connection, _record: Any) -> None:
    # The driver begins no transactions of its own: a reader holds none, a writer begins with IMMEDIATE.
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous=NORMAL")
    # What is erased is overwritten, not only unlinked.
    connection.execute("PRAGMA secure_delete=ON")


def _use_wal(engine: Engine, busy_s: float) -> None:
    """Switch the file to WAL, which it remembers; SQLite does not wait by itself for this lock."""
    until = time.monotonic() + busy_s
    while True:
        try:
            with engine.connect() as connection:
                if connection.exec_driver_sql("PRAGMA journal_mode").scalar() != "wal":
                    connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            return
        except exc.OperationalError as error:
            if _name(error) != "SQLITE_BUSY" or time.monotonic() > until:
                raise
            time.sleep(0.01)


def _name(error: Exception) -> str:
    name = getattr(getattr(error, "orig", None), "sqlite_errorname", "")
    return "_".join(name.split("_")[:2])


def _world(error: Exception, where: str) -> WorldFault:
    got = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
    kind, what, then = _SQLITE.get(_name(error), (StoreAway, "the database does not answer", _AWAY))
    message = f"{where} cannot be written" if kind is NotWritable else f"{where} does not answer"
    return kind(message, [Fault(what, where, got=got, next=then)])
