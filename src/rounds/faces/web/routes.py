"""Every route but the hot one: parse, call, render."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from rounds.core.errors import DamagedBundle, Fault, WorldFault
from rounds.core.ids import plain
from rounds.core.ports import Ports
from rounds.faces.web.labels import read_rows
from rounds.faces.web.metrics import CONTENT_TYPE
from rounds.faces.web.openapi import ATTACHED, FINDINGS, LABELS, MODELS, answers, problems
from rounds.faces.web.serving import Observe, serving_of
from rounds.loop import tracing

router = APIRouter()
_LABELS_BODY = {"requestBody": {"required": True, "content": {"application/json": {"example": LABELS}}}}


@router.post(
    "/v1/labels",
    tags=["labels"],
    summary="Say what films truly showed",
    responses={
        **answers("How many were kept, and why each other row was not", ATTACHED),
        **problems(400, 413, 422, 503),
    },
    openapi_extra=_LABELS_BODY,
)
async def labels(request: Request) -> dict[str, Any]:
    """Take true labels for answered films; a bad row is refused by its number and does not stop the others."""
    serving = serving_of(request.app)
    async with serving.intake.body(request.scope, request.receive) as body:
        rows = read_rows(body)
    done = await run_in_threadpool(serving.live.attach, rows)
    return done.public()


@router.get(
    "/v1/models", tags=["models"], summary="Who serves, and who served", responses=answers("The versions", MODELS)
)
def models(request: Request) -> dict[str, Any]:
    """Name the champion and every version with the times it served."""
    return tracing.models(serving_of(request.app).live.ports)


@router.get("/v1/findings", tags=["watch"], summary="What the watch found", responses=answers("Findings", FINDINGS))
def findings(request: Request) -> dict[str, Any]:
    """Tell since when the watch looks, at how many films, and what it found."""
    serving = serving_of(request.app)
    return all_findings(serving.live.ports, serving.observe)


@router.get("/health/live", tags=["health"], summary="Whether the process should go on", responses=problems(503))
def alive(request: Request) -> dict[str, str]:
    """Answer 200 while the log is being followed; a server that does not is to be restarted."""
    if not serving_of(request.app).live.following:
        raise WorldFault("the log is no longer followed", [Fault("its thread has ended", next="restart the server")])
    return {"status": "live"}


@router.get("/health/ready", tags=["health"], summary="Whether films are answered", responses=problems(503))
def ready(request: Request) -> dict[str, str]:
    """Answer 200 only while a champion is in service."""
    live = serving_of(request.app).live
    if live.seated is None:
        raise live.vacancy()
    return {"status": "ready", "version": live.seated.version, "bundle": live.seated.bundle.digest}


@router.get("/metrics", tags=["health"], summary="Metrics in the Prometheus text format", response_class=Response)
def metrics(request: Request) -> Response:
    """Count requests, predictions, swaps and troubles."""
    return Response(serving_of(request.app).metrics.text(), media_type=CONTENT_TYPE)


def all_findings(ports: Ports, observe: Observe) -> dict[str, Any]:
    """What the watch finds, and the damage that servers found; the log alone where the watch's bundle is damaged."""
    damage = alarms(ports, kind="integrity")
    try:
        found = observe(ports)
    except DamagedBundle:
        found = damage
    told = {finding["id"] for finding in found["findings"]}
    more = [finding for finding in damage["findings"] if finding["id"] not in told]
    answer: dict[str, Any] = plain({**found, "findings": [*found["findings"], *more]})
    return answer


def alarms(ports: Ports, kind: str | None = None) -> dict[str, Any]:
    """The alarms of the log, of one kind or of all; /v1/findings shows them where `create_app` was given no watch."""
    events = ports.events.read()
    since = next((event.at for event in events if event.kind == "promoted"), None)
    told = [event.evidence for event in events if event.kind == "alarm" and kind in (None, event.evidence.get("kind"))]
    return {"watching_since": since, "n": ports.captures.count(), "findings": told}
