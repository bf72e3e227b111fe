"""Wall and CPU seconds, booked by whoever caused them."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rounds.core.ports import Clock, Ledger
from rounds.core.records import Cost


@contextmanager
def metered(ledger: Ledger, clock: Clock, kind: str, subject: str) -> Iterator[None]:
    """Book the wall and CPU seconds (this process and its ended children) of the block, also when it fails."""
    at, wall, cpu = clock(), time.perf_counter(), _cpu_seconds()
    try:
        yield
    finally:
        ledger.book(Cost(kind, subject, at, time.perf_counter() - wall, _cpu_seconds() - cpu))


def summary(ledger: Ledger) -> dict[str, Any]:
    """Per kind of work how often it was done and the seconds it took, and the total."""
    kinds: dict[str, dict[str, float]] = {}
    for cost in ledger.read():
        kind = kinds.setdefault(cost.kind, {"count": 0, "seconds": 0.0, "cpu_seconds": 0.0})
        kind["count"] += 1
        kind["seconds"] += cost.seconds
        kind["cpu_seconds"] += cost.cpu_seconds
    total = {key: sum(kind[key] for kind in kinds.values()) for key in ("seconds", "cpu_seconds")}
    return {"kinds": kinds, "total": total}


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
