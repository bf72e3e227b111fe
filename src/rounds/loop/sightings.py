"""What the watch found when it last looked, for whoever shows it without looking: the server's metrics."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from rounds.core.ids import from_rfc3339, rfc3339
from rounds.core.ports import Ports
from rounds.core.records import Finding


@dataclass(frozen=True)
class Sighting:
    """One look of the watch: after `n` films of the bundle; `evidence` by kind is a share of what raises the alarm."""

    at: datetime
    n: int
    evidence: dict[str, float]


def note(ports: Ports, bundle: str, findings: Sequence[Finding], n: int) -> None:
    """Replace what was noted before; of two looks at once either may stay."""
    # a limit of 0 decides nothing: an estimate that is shown beside
    evidence = {one.kind: max(0.0, one.log_e / one.limit) for one in findings if one.limit > 0}
    said = {"at": rfc3339(ports.clock()), "n": n, "evidence": evidence}
    seen, _ = ports.snapshots.load(_key(bundle)) or (0, b"")
    ports.snapshots.save(_key(bundle), seen, json.dumps(said).encode())


def last(ports: Ports, bundle: str) -> Sighting | None:
    """The last look at a bundle, None before the first; WorldFault where the store is away."""
    found = ports.snapshots.load(_key(bundle))
    if found is None:
        return None
    said = json.loads(found[1])
    return Sighting(from_rfc3339(said["at"]), said["n"], said["evidence"])


def _key(bundle: str) -> str:
    return f"sighting/{bundle}"
