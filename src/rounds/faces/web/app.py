"""The HTTP API as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import Route

from rounds.core.ports import Opener
from rounds.core.specs import MonitorSpec, ServeSpec
from rounds.faces.web.body import Intake
from rounds.faces.web.frame import Frame
from rounds.faces.web.metrics import Metrics
from rounds.faces.web.openapi import predict_operation
from rounds.faces.web.predict import Predict
from rounds.faces.web.routes import alarms, router
from rounds.faces.web.serving import Observe, Serving
from rounds.loop.live import Live

TITLE = "Rounds"
PREDICT = "/v1/predict"

log = structlog.get_logger("rounds.live")


def create_app(open_ports: Opener, serve: ServeSpec, monitor: MonitorSpec, observe: Observe | None = None) -> FastAPI:
    """The application; it opens its ports and seats the champion when it starts, and gives both back when it stops.

    `observe` answers GET /v1/findings from the open ports; without it the alarms of the log are shown.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with open_ports() as ports:
            live = Live(ports, serve, monitor, tell=tell)
            app.state.serving = Serving(live, serve, metrics, Intake(serve.limits.max_bytes), observe or alarms)
            metrics.watch(live)
            await live.start()
            try:
                yield
            finally:
                await live.stop()

    def tell(what: str, facts: Mapping[str, Any]) -> None:
        metrics.told(what)
        (log.info if what == "seated" else log.error)(what, **facts)

    metrics = Metrics()
    app = FastAPI(title=TITLE, summary="An image classifier in service", version="1", lifespan=lifespan)
    app.router.routes.insert(0, Route(PREDICT, Predict(), methods=["POST"], include_in_schema=False))
    app.include_router(router)
    app.add_exception_handler(HTTPException, _leave_to_frame)
    paths = frozenset(route.path for route in app.routes if isinstance(route, Route))
    app.add_middleware(Frame, metrics=metrics, routes=paths)
    described = app.openapi

    def openapi() -> dict[str, Any]:
        schema = described()
        schema["paths"].setdefault(PREDICT, {"post": predict_operation()})
        return schema

    app.openapi = openapi
    return app


async def _leave_to_frame(_request: Request, error: Exception) -> Response:
    """Every failure, the framework's own too, is explained in one place."""
    raise error
