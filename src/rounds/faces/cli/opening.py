"""How a command opens its ports, and says which trainings were cut off; nothing heavy is imported before a command
needs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rounds.core.ports import Ports
from rounds.core.specs import TrackingSpec
from rounds.faces.cli import say


@contextmanager
def ports() -> Iterator[Ports]:
    """Open rows and blobs: all that serving, watching and deciding need."""
    from rounds.train.resume import interrupted
    from rounds.wiring.serving import open_ports
    from rounds.wiring.settings import Settings

    with open_ports(Settings()) as opened:
        for run in interrupted(opened.checkpoints):
            say.note(f"rounds: {run}")
        yield opened


@contextmanager
def tracked_ports(tracking: TrackingSpec | None = None) -> Iterator[Ports]:
    """Open the same with the tracker beside it, MLflow where none is named.

    First the runs that were cut off are closed there; at the end its registry is told of the versions.
    """
    from rounds.loop.mirror import interrupted, mirror
    from rounds.wiring.settings import Settings
    from rounds.wiring.training import open_ports

    with open_ports(Settings(), tracking or TrackingSpec(), tell=lambda text: say.note(f"rounds: {text}")) as opened:
        for run in interrupted(opened):
            say.note(f"rounds: {run}")
        yield opened
        mirror(opened)
