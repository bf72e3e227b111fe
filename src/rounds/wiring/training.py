"""Settings to open ports with the experiment tracker beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from rounds.core.ports import Ports
from rounds.wiring import serving
from rounds.wiring.settings import Settings


@contextmanager
def open_ports(settings: Settings) -> Iterator[Ports]:
    """What `serving.open_ports` opens, and MLflow."""
    from rounds.stores.runs import MlflowRuns

    with serving.open_ports(settings) as ports:
        yield replace(ports, runs=MlflowRuns(settings.tracking_uri, ports.home / "artifacts"))
