"""How one event is chained to the last: the hash of an entry covers every other field and the hash before it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from rounds.core.ids import canonical, new_id
from rounds.core.records import Event


def utc_now() -> datetime:
    """The time of the machine, in UTC."""
    return datetime.now(UTC)


def chained(last: tuple[int, str], at: datetime, kind: str, who: str, why: str, evidence: Mapping[str, Any]) -> Event:
    """The event after the one whose seq and hash `last` holds, (0, GENESIS) for the first.

    Its evidence is what reading it back gives: plain JSON types. Raises ValueError where the evidence holds NaN or
    infinity.
    """
    kept = json.loads(canonical(evidence))
    event = Event(last[0] + 1, new_id("e_"), at.astimezone(UTC), kind, who, why, kept, last[1], "")
    return replace(event, hash=event.sealed())
