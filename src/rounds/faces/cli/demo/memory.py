"""How much memory the demo took: its own process and its server, at their peaks."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def peak_mb(server: int) -> float:
    """The sum of both peaks in MiB; the two need not have been at one moment, so this is an upper bound.

    The server's peak is its own high-water mark, since getrusage would count what its parent had when it forked; where
    there is no /proc the server is left out.
    """
    unit = 1.0 if sys.platform == "darwin" else 1024.0
    ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    status = Path(f"/proc/{server}/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return ours + sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
