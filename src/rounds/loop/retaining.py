"""How long captured images stay, by the rules in force."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from rounds.capture import journal
from rounds.capture.retention import retain
from rounds.core.ids import from_rfc3339, rfc3339
from rounds.core.ports import Ports
from rounds.loop import ruling
from rounds.loop.turns import turn

EVERY = timedelta(hours=1)
_KEY = "retain"


def drop_images(ports: Ports, *, who: str = "operator") -> dict[str, Any]:
    """Drop the images that capture.days and capture.bytes let go: how many, and what is left.

    Raises WorldFault where a store is away; the next run goes on.
    """
    rules = ruling.in_force(ports).capture
    with turn(ports.home, "retain"):
        done = retain(ports, rules, journal=ports.home / journal.FOLDER, who=who)
    return {**done.public(), "days": rules.days, "limit_bytes": rules.bytes}


def drop_images_hourly(ports: Ports, *, who: str = "watch") -> dict[str, Any] | None:
    """The same, where nobody who watches did it within the hour; else None."""
    rules = ruling.in_force(ports).capture
    if not rules.days and not rules.bytes:
        return None
    seen, state = ports.snapshots.load(_KEY) or (0, b"")
    now = ports.clock()
    # a clock that was set back must not put it off
    if state and timedelta(0) <= now - from_rfc3339(state.decode()) < EVERY:
        return None
    if not ports.snapshots.save(_KEY, seen, rfc3339(now).encode()):
        return None
    return drop_images(ports, who=who)
