"""Every route but the hot ones: parse, call, render."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from rounds.core.errors import DamagedBundle, Fault, WorldFault
from rounds.core.ids import plain
from rounds.core.ports import Ports
from rounds.core.records import Event
from rounds.faces.web import operate, orders
from rounds.faces.web.guard import Grant, lacks
from rounds.faces.web.labels import read_rows
from rounds.faces.web.metrics import CONTENT_TYPE
from rounds.faces.web.serving import Observe, serving_of
from rounds.loop import tracing
from rounds.registry.catalogue import Catalogue

router = APIRouter()


@router.post("/v1/labels")
async def labels(request: Request) -> dict[str, Any]:
    """Take true labels for answered films; a bad row is refused by its number and does not stop the others."""
    serving = serving_of(request.app)
    async with serving.intake.body(request.scope, request.receive) as body:
        rows = read_rows(body, request.headers.get("content-type", ""), by=_name(request))
    done = await run_in_threadpool(serving.live.attach, rows)
    return done.public()


@router.get("/v1/predictions/{prediction}")
def prediction(request: Request, prediction: str) -> dict[str, Any]:
    """Give an answer again as it was given, with the time, and the true label where somebody said it."""
    serving = serving_of(request.app)
    serving.settled(prediction)
    return serving.memory.told(prediction)


@router.get("/v1/predictions/{prediction}/explanation.png")
async def explanation(request: Request, prediction: str) -> Response:
    """Draw where the model looked over the film that it answered."""
    serving = serving_of(request.app)
    view = await run_in_threadpool(orders.view, request.scope["query_string"])
    async with serving.drawing:
        await run_in_threadpool(serving.settled, prediction)
        png = await run_in_threadpool(serving.memory.explanation, prediction, view)
    return Response(png, media_type="image/png")


@router.post("/v1/promote")
async def promote(request: Request) -> dict[str, Any]:
    """Ask the gate whether a bundle may become champion, and put it in service where it may."""
    serving, grant = serving_of(request.app), request.scope["grant"]
    async with serving.intake.body(request.scope, request.receive) as body:
        given = orders.order(request.scope, body, ("bundle", "version", "data", "overrule"))
    if given["overrule"] and grant is not None and "admin" not in grant.scopes:
        raise lacks(grant, "admin")
    events = await run_in_threadpool(serving.live.ports.events.read)
    ref = Catalogue.of(events).bundle(orders.candidate(given)).bundle
    asked = {"ref": ref, "data": given["data"], "overrule": given["overrule"], "who": _who(request)}
    return await operate.promote(serving.live.ports.home, asked)


@router.post("/v1/rollback")
async def rollback(request: Request) -> dict[str, Any]:
    """Put the version before, or an older one that once passed the gate, back in service."""
    serving = serving_of(request.app)
    async with serving.intake.body(request.scope, request.receive) as body:
        given = orders.order(request.scope, body or b"{}", ("to", "why"))
    ports, why = serving.live.ports, given["why"] or "asked for over HTTP"
    return await run_in_threadpool(operate.roll_back, ports, given["to"], why, _who(request))


@router.get("/v1/models")
def models(request: Request) -> dict[str, Any]:
    """Name the champion and every version with the times it served."""
    return tracing.models(serving_of(request.app).live.ports)


@router.get("/v1/findings")
def findings(request: Request) -> dict[str, Any]:
    """Tell since when the watch looks, at how many films, and what it found."""
    serving = serving_of(request.app)
    return all_findings(serving.live.ports, serving.observe)


@router.get("/health/live")
def alive(request: Request) -> dict[str, str]:
    """Answer 200 while the log is being followed; a server that does not is to be restarted."""
    if not serving_of(request.app).live.following:
        raise WorldFault("the log is no longer followed", [Fault("its thread has ended", next="restart the server")])
    return {"status": "live"}


@router.get("/health/ready")
def ready(request: Request) -> dict[str, str]:
    """Answer 200 only while a champion is in service."""
    live = serving_of(request.app).live
    if live.seated is None or not live.ready:
        raise live.vacancy()
    return {"status": "ready", "version": live.seated.version, "bundle": live.seated.bundle.digest}


@router.get("/metrics")
def metrics(request: Request) -> Response:
    """Count requests, predictions, swaps and troubles."""
    return Response(serving_of(request.app).telemetry.metrics.text(), media_type=CONTENT_TYPE)


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
    told = [event.evidence for event in events if _alarm(event, kind)]
    return {"watching_since": since, "n": ports.captures.count(), "findings": told}


def _alarm(event: Event, kind: str | None) -> bool:
    return event.kind == "alarm" and kind in (None, event.evidence.get("kind"))


def _name(request: Request) -> str | None:
    """What the request's key is called; None where no keys are in force."""
    grant: Grant | None = request.scope["grant"]
    return grant.name if grant is not None else None


def _who(request: Request) -> str:
    name = _name(request)
    return "operator (http)" if name is None else f"key: {name}"
