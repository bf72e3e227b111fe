"""The schema of a workspace's rows, looked at and brought forward."""

from __future__ import annotations

from typing import Any

from rounds.stores.rows_engine import Database
from rounds.stores.rows_versions import migrate, pending
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
