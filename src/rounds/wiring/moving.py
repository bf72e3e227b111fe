"""The rows of a workspace as a whole: their schema brought forward, all of them taken out, or put in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rounds.core.errors import BadOverride, Fault
from rounds.core.ports import Blobs
from rounds.stores import rows_copy
from rounds.stores.rows_engine import Database
from rounds.stores.rows_versions import migrate, pending
from rounds.wiring.serving import open_blobs
from rounds.wiring.settings import Settings


def bring_forward(settings: Settings, *, look: bool = False) -> dict[str, Any]:
    """Take the steps that the schema lacks, or (`look`) only say which: {"from", "to", "steps", "done"}.

    Raises NotWritable where a newer Rounds has used it, StoreAway where the database does not answer.
    """
    database = Database(settings.rows_url, busy_s=30.0)
    try:
        moved = pending(database) if look else migrate(database)
    finally:
        database.close()
    return {"from": moved.before or None, "to": moved.after, "steps": list(moved.steps), "done": not look}


def take_rows(settings: Settings, to: Path) -> None:
    """Write all rows, as they are at one moment, to a new SQLite file; NotWritable, StoreAway."""
    database = Database(settings.rows_url, busy_s=30.0)
    try:
        rows_copy.take(database, to)
    finally:
        database.close()


def put_rows(settings: Settings, source: Path) -> None:
    """Put the rows of such a file into the database that is set, which must be empty; NotWritable, StoreAway."""
    database = Database(settings.rows_url, busy_s=30.0)
    try:
        rows_copy.put(database, source)
    finally:
        database.close()


def hand_on(settings: Settings, home: Path, blobs: Blobs) -> list[str]:
    """Give the rows and blobs of a workspace's folder to the stores that are set beside it; what need not stay there.

    Raises BadOverride where ROUNDS_SECRET is another key than the workspace's; NotWritable where rows are kept there
    already; StoreAway.
    """
    if settings.secret and settings.secret != (home / "secret").read_text(encoding="ascii").strip():
        then = "unset it, or set the key that was in force: another gives every subject another pseudonym"
        raise BadOverride("another key is set", [Fault("not the workspace's key", "ROUNDS_SECRET", next=then)])
    moved = []
    if settings.blobs:
        target = open_blobs(settings)
        for digest in blobs:
            target.put(blobs.get(digest))
        moved.append("blobs")
    if settings.rows:
        put_rows(settings, home / "rounds.db")
        moved.append("rounds.db")
    return moved


def take_file(source: Path, to: Path) -> None:
    """Copy an SQLite file that others may be writing to; NotWritable."""
    rows_copy.copy_file(source, to)
