"""True labels that come later, who is to be asked for them, and subjects who are to be forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rounds.capture import capture, journal
from rounds.capture.retention import still
from rounds.core.ports import Ports
from rounds.core.records import Captured, Label
from rounds.loop import measuring


def attach(ports: Ports, labels: Sequence[Label]) -> dict[str, Any]:
    """Keep the good labels and name each refused one with its row and reason."""
    journal.settle(ports)
    classes = measuring.open_bundle(ports, "champion").classes
    return capture.attach(ports, labels, classes, ports.clock()).public()


def audit_queue(ports: Ports, after: int = 0) -> list[Captured]:
    """Films that the audit drew before outcome and alarm and that nobody has labelled yet, in prediction order."""
    journal.settle(ports)
    rows = [row for row in ports.captures.since(after, limit=1_000_000) if row.audited]
    known = ports.captures.labels([row.prediction for row in rows])
    return [row for row in rows if row.prediction not in known]


def erase(ports: Ports, subject: str, who: str = "operator") -> dict[str, Any]:
    """Forget a subject's rows, labels and images; one event says that it was done, with the pseudonym alone."""
    folder = ports.home / journal.FOLDER
    journal.settle(ports)
    with still(folder):
        done = capture.erase(ports, subject, who)
    journal.wipe(folder)
    return done
