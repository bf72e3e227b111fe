"""Seconds that are booked by whoever caused them, also when the work fails."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest

from rounds.core.records import Cost
from rounds.costs.meter import metered, summary
from rounds.stores.memory import MemoryLedger

AT = datetime(2026, 3, 4, tzinfo=UTC)


def burn(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_wall_and_cpu_seconds_are_booked() -> None:
    ledger = MemoryLedger()
    with metered(ledger, lambda: AT, "train", "d1"):
        burn(0.05)
        time.sleep(0.1)
    (cost,) = ledger.read()
    assert (cost.kind, cost.subject, cost.at) == ("train", "d1", AT)
    assert cost.seconds >= 0.15
    assert 0.05 <= cost.cpu_seconds < cost.seconds


def test_cpu_seconds_of_child_processes_count() -> None:
    ledger = MemoryLedger()
    program = "import time\nwhile time.process_time() < 0.2: pass"
    with metered(ledger, lambda: AT, "retrain", "d1"):
        subprocess.run([sys.executable, "-c", program], check=True)
    assert ledger.read()[0].cpu_seconds >= 0.2


def test_work_that_fails_is_booked_and_its_error_passes() -> None:
    ledger = MemoryLedger()
    with pytest.raises(RuntimeError, match="the work"), metered(ledger, lambda: AT, "export", "r1"):
        raise RuntimeError("the work")
    assert [cost.kind for cost in ledger.read()] == ["export"]


def test_the_summary_adds_up_by_kind() -> None:
    ledger = MemoryLedger()
    for kind, seconds in (("train", 1.0), ("export", 0.5), ("train", 2.0)):
        ledger.book(Cost(kind, "s", AT, seconds, seconds * 2))
    assert summary(ledger) == {
        "kinds": {
            "train": {"count": 2, "seconds": 3.0, "cpu_seconds": 6.0},
            "export": {"count": 1, "seconds": 0.5, "cpu_seconds": 1.0},
        },
        "total": {"seconds": 3.5, "cpu_seconds": 7.0},
    }
    assert summary(MemoryLedger()) == {"kinds": {}, "total": {"seconds": 0, "cpu_seconds": 0}}
