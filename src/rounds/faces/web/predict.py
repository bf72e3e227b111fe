"""POST /v1/predict as plain ASGI: the one route where a microsecond counts."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from urllib.parse import parse_qsl

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from rounds.core.errors import BadImage, BadRequest, Fault, RoundsError
from rounds.core.records import PredictRequest
from rounds.faces.web.body import FRAMING_BYTES, Part, header, parts
from rounds.faces.web.serving import Serving, serving_of

QUERY = ("reference", "subject")
LONGEST = 256
# Whatever prints on one line: no control characters.
TEXT = re.compile(rf"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{LONGEST}}}")
MULTIPART = b"multipart/form-data"
RAW = b"application/octet-stream"
SINGLE = (RAW, b"application/dicom")


class Predict:
    """Takes one raw image or a multipart form of one or many, and answers with one prediction or a list."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; every RoundsError is the caller's to explain."""
        if scope["method"] != "POST":
            raise HTTPException(405, headers={"Allow": "POST"})
        serving = serving_of(self._app)
        query = asked(scope["query_string"])
        if serving.live.seated is None:
            raise serving.live.vacancy()
        content_type = _content_type(scope)
        if not content_type.startswith(MULTIPART):
            async with serving.intake.body(scope, receive) as body:
                text = await _one(serving, body, scope, query)
        else:
            async with serving.intake.body(scope, receive, FRAMING_BYTES) as body:
                films = await parts(content_type.decode("latin-1"), body, serving.spec.max_queue)
                text = await _many(serving, films, scope, query)
        await send_text(send, text)


async def _one(serving: Serving, data: bytes, scope: Scope, query: Mapping[str, str], index: int = 0) -> bytes:
    subject, once = serving.live.pseudonym(query.get("subject")), scope.get("once")
    name = once.id(index) if once else None
    if name is not None and (kept := await serving.kept(name)) is not None:
        return kept
    reply = await serving.live.answer(PredictRequest(data, scope["request_id"], query.get("reference"), subject, name))
    serving.telemetry.metrics.predicted(reply)
    scope["reply"] = reply
    return reply.text


async def _many(serving: Serving, films: Sequence[Part], scope: Scope, query: Mapping[str, str]) -> bytes:
    asked_for = (_one(serving, film.data, scope, query, index) for index, film in enumerate(films))
    done = await asyncio.gather(*asked_for, return_exceptions=True)
    _refuse_failed(films, done)
    answers = [text for text in done if isinstance(text, bytes)]
    return answers[0] if len(answers) == 1 else b'{"predictions":[%b]}' % b",".join(answers)


def asked(query_string: bytes, names: Sequence[str] = QUERY) -> Mapping[str, str]:
    """The caller's `reference` and `subject`; BadRequest (422) for any other name and for what is empty or too long.

    A misspelt reference that was let through would be a label that never finds its film.
    """
    if not query_string:
        return {}
    found = parse_qsl(query_string.decode("latin-1"), keep_blank_values=True)
    faults = [_unknown(name, names) for name, _ in found if name not in names]
    wanted = f"1 to {LONGEST} printable characters"
    for name, value in found:
        if name in names and not TEXT.fullmatch(value):
            faults.append(Fault("the value cannot be used", f"query {name}", wanted, f"{len(value)} characters"))
    if len(found) > len(dict(found)):
        faults.append(Fault("a name stands twice", "query", "each name once", ", ".join(name for name, _ in found)))
    if faults:
        raise BadRequest("the query cannot be understood", faults, status=422)
    return dict(found)


async def send_text(send: Send, body: bytes) -> None:
    """Send a JSON text."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _content_type(scope: Scope) -> bytes:
    """The media type, for multipart with its parameters; BadRequest (415) for what is no image and no form."""
    given = header(scope, b"content-type") or RAW
    media = given.split(b";", 1)[0].strip().lower()
    if media == MULTIPART:
        return MULTIPART + given.strip()[len(MULTIPART) :]
    if media.startswith(b"image/") or media in SINGLE:
        return media
    got = media.decode("latin-1")
    send = "name the type: curl --data-binary @film.png -H 'content-type: image/png', or curl -F file=@film.png"
    fault = Fault(
        "wrong content type",
        "content-type",
        "image/*, application/dicom, application/octet-stream or multipart/form-data",
        got,
        send,
    )
    raise BadRequest("the content type is not that of an image", [fault], status=415)


def _unknown(name: str, names: Sequence[str]) -> Fault:
    near = get_close_matches(name, names, 1)
    return Fault(
        "unknown parameter", "query", " or ".join(names), name[:40], f"did you mean {near[0]}?" if near else ""
    )


def _refuse_failed(films: Sequence[Part], done: Sequence[bytes | BaseException]) -> None:
    """Raise what went wrong with any film of a request: every fault of every film, each with its place."""
    failed = [(film, error) for film, error in zip(films, done, strict=True) if isinstance(error, BaseException)]
    if not failed:
        return
    explained = [(film, error) for film, error in failed if isinstance(error, RoundsError)]
    if len(explained) < len(failed) or not all(isinstance(error, BadImage) for _, error in explained):
        raise next(error for _, error in failed if not isinstance(error, BadImage))
    faults = [replace(fault, where=film.where) for film, error in explained for fault in error.faults]
    first = explained[0][1]
    message = (
        first.message if len(films) == 1 else f"{len(failed)} of {len(films)} images are not taken; none was answered"
    )
    raise BadImage(message, faults, status=first.http_status)
