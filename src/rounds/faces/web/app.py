"""The HTTP API as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from rounds.core.ports import Opener
from rounds.core.specs import MonitorSpec, ServeSpec
from rounds.faces.web.batch import PATH as BATCH
from rounds.faces.web.batch import Batch
from rounds.faces.web.body import Intake
from rounds.faces.web.frame import Frame
from rounds.faces.web.guard import Guard, is_loopback
from rounds.faces.web.metrics import Metrics
from rounds.faces.web.openapi import document
from rounds.faces.web.predict import Predict
from rounds.faces.web.routes import alarms, router
from rounds.faces.web.serving import Observe, Serving
from rounds.faces.web.telemetry import Telemetry
from rounds.loop.live import Live
from rounds.loop.workers import start
from rounds.serve.pool import Begin

TITLE = "Rounds"
PREDICT = "/v1/predict"

log = structlog.get_logger("rounds.live")


def create_app(
    open_ports: Opener, serve: ServeSpec, monitor: MonitorSpec, observe: Observe | None = None, begin: Begin = start
) -> FastAPI:
    """The application; it opens its ports and seats the champion when it starts, and gives both back when it stops.

    `observe` answers GET /v1/findings from the open ports; without it the alarms of the log are shown. `begin` starts a
    worker process.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with open_ports() as ports:
            live = Live(ports, serve, monitor, tell=tell, took=metrics.took, begin=begin)
            guard = Guard(ports.home, loopback=is_loopback(serve.host), rate=serve.rate)
            intake = Intake(serve.limits.max_bytes)
            shared = Serving(live, serve, telemetry, intake, observe or alarms, guard)
            app.state.serving = shared
            frame.open(shared)
            metrics.watch(live)
            await live.start()
            try:
                yield
            finally:
                await live.stop()
                telemetry.close()

    def tell(what: str, facts: Mapping[str, Any]) -> None:
        metrics.told(what)
        (log.info if what == "seated" else log.error)(what, **facts)

    metrics = Metrics()
    telemetry = Telemetry(metrics, serve)
    # The framework's own pages for people load their scripts from a stranger's server.
    app = Application(title=TITLE, version="1", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.include_router(router)
    frame = Frame(app.framework, telemetry)
    app.put_into(frame)
    return app


class Application(FastAPI):
    """FastAPI with a frame around it, and with the hot route beside it, described by hand."""

    def put_into(self, frame: Frame) -> None:
        """Let every request pass through the frame."""
        frame.hot = {PREDICT: Predict(self), BATCH: Batch(self)}
        described = (route.path for route in router.routes if isinstance(route, Route))
        frame.routes = frozenset({PREDICT, BATCH, "/openapi.json", *described})
        self._frame = frame

    def build_middleware_stack(self) -> ASGIApp:
        """Leave the routes alone with their exit stack: every failure is the frame's to explain."""
        return AsyncExitStackMiddleware(self.router)

    async def framework(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve what is not hot the usual way."""
        await super().__call__(scope, receive, send)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await self._frame(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """Describe every route."""
        return document(self.title, self.version)
