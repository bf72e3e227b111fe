"""What the routes of one application share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI

from rounds.core.ports import Ports
from rounds.core.specs import ServeSpec
from rounds.faces.web.body import Intake
from rounds.faces.web.metrics import Metrics
from rounds.loop.live import Live

Observe = Callable[[Ports], dict[str, Any]]


@dataclass(frozen=True)
class Serving:
    """Made when the application starts, gone when it stops; kept as `app.state.serving`."""

    live: Live
    spec: ServeSpec
    metrics: Metrics
    intake: Intake
    observe: Observe


def serving_of(app: FastAPI) -> Serving:
    """What the routes of this application share."""
    shared: Serving = app.state.serving
    return shared
