"""How a command opens its ports; nothing heavy is imported before a command needs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rounds.core.ports import Ports
from rounds.faces.cli import say


@contextmanager
def ports() -> Iterator[Ports]:
    """Open rows and blobs: all that serving, watching and deciding need."""
    from rounds.wiring.serving import open_ports
    from rounds.wiring.settings import Settings

    with open_ports(Settings()) as opened:
        yield opened


@contextmanager
def tracked_ports() -> Iterator[Ports]:
    """Open the same with MLflow beside it, and say which earlier runs were cut off."""
    from rounds.loop.build import interrupted
    from rounds.wiring.settings import Settings
    from rounds.wiring.training import open_ports

    with open_ports(Settings()) as opened:
        for text in interrupted(opened):
            say.note(f"rounds: {text}")
        yield opened
