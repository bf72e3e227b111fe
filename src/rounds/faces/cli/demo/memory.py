"""How much memory the demo took: its own process and the largest of its children, at their peaks."""

from __future__ import annotations

import resource
import sys


def peak_mb() -> float:
    """The sum of both peaks in MiB; the two need not have been at one moment, so this is an upper bound."""
    unit = 1.0 if sys.platform == "darwin" else 1024.0
    return (
        sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        * unit
        / 2**20
    )
