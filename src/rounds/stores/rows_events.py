"""The event log in a database: one row an event, appended under the lock of the log's head."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from rounds.core.ids import canonical, from_rfc3339, rfc3339
from rounds.core.ports import Clock
from rounds.core.records import GENESIS, Event
from rounds.stores.rows_chain import chained
from rounds.stores.rows_engine import Database
from rounds.stores.rows_schema import events, heads

_LOCK = sa.select(heads.c.value).where(heads.c.name == "events").with_for_update()
_LAST = sa.select(events.c.seq, events.c.hash).order_by(events.c.seq.desc()).limit(1)
_HEAD = "SELECT max(seq) FROM events"


class RowEvents:
    """The append-only, hash-chained log."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def append(self, kind: str, *, who: str, why: str, evidence: Mapping[str, Any]) -> Event:
        """Add one event, chained to the last, in one transaction.

        Raises:
            ValueError: the evidence holds NaN or infinity.
            WorldFault: it could not be kept; nothing was added.
        """
        text = canonical(evidence).decode()
        with self._database.writing() as connection:
            connection.execute(_LOCK)
            last = connection.execute(_LAST).one_or_none()
            event = chained((last.seq, last.hash) if last else (0, GENESIS), self._clock(), kind, who, why, evidence)
            row = {name: getattr(event, name) for name in ("seq", "id", "kind", "who", "why", "prev", "hash")}
            connection.execute(sa.insert(events), row | {"at": rfc3339(event.at), "evidence": text})
        return event

    def read(self, after: int = 0, kinds: Sequence[str] = ()) -> Sequence[Event]:
        """Events with seq > after, in order, of these kinds or of all; a garbled one still comes, for the audit."""
        query = sa.select(events).order_by(events.c.seq)
        if after > 0:
            query = query.where(events.c.seq > after)
        if kinds:
            query = query.where(events.c.kind.in_(list(kinds)))
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [_event(*row) for row in rows]

    def head(self) -> int:
        """The seq of the last event, 0 for an empty log."""
        with self._database.reading() as connection:
            return int(connection.exec_driver_sql(_HEAD).scalar() or 0)


def _event(seq: int, name: str, at: str, kind: str, who: str, why: str, evidence: str, prev: str, seal: str) -> Event:
    return Event(seq, name, _time(at), kind, who, why, _evidence(evidence), prev, seal)


def _time(text: str) -> datetime:
    # A row that was tampered with must reach the audit, whose hash then differs.
    try:
        return from_rfc3339(text)
    except (TypeError, ValueError):
        return datetime.min.replace(tzinfo=UTC)


def _evidence(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (TypeError, ValueError):
        found = None
    return found if isinstance(found, dict) else {"unreadable": str(text)}
