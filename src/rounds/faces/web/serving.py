"""What the routes of one application share."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from rounds.core.errors import UnknownId, WorldFault
from rounds.core.ports import Ports
from rounds.core.records import Captured, Prediction
from rounds.core.specs import ServeSpec
from rounds.faces.web.body import Intake
from rounds.faces.web.guard import Guard
from rounds.faces.web.telemetry import Telemetry
from rounds.loop.live import Live

if TYPE_CHECKING:
    from rounds.loop.recalling import Memory

Observe = Callable[[Ports], dict[str, Any]]
DRAWN_AT_ONCE = 2


@dataclass(frozen=True)
class Serving:
    """Made when the application starts, gone when it stops; kept as `app.state.serving`."""

    live: Live
    spec: ServeSpec
    telemetry: Telemetry
    intake: Intake
    observe: Observe
    guard: Guard
    drawing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(DRAWN_AT_ONCE))

    @cached_property
    def memory(self) -> Memory:
        """Recalls answers. Loaded when the first is asked for: decoding and networks are the workers' matter else."""
        from rounds.loop.recalling import Memory

        return Memory(self.live.ports)

    def settled(self, prediction: str) -> Captured:
        """What was kept of an answer, also of one given a moment ago; UnknownId, WorldFault."""
        try:
            return self.memory.row(prediction)
        except UnknownId:
            self.live.settle()
            return self.memory.row(prediction)

    async def kept(self, prediction: str) -> bytes | None:
        """The text of an answer that was given before under this id; None where there is none, or the store is away."""
        try:
            found = await asyncio.to_thread(self._recalled, prediction)
        except (UnknownId, WorldFault):
            return None
        return json.dumps(found.public(), ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()

    def _recalled(self, prediction: str) -> Prediction:
        return self.memory.prediction(self.memory.row(prediction))


def serving_of(app: FastAPI) -> Serving:
    """What the routes of this application share."""
    shared: Serving = app.state.serving
    return shared
