"""POST /v1/predict/batch: the films of an archive or form, each answered or refused by its name."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from rounds.core.errors import BadImage, BadRequest, Fault, WorldFault
from rounds.core.records import PredictRequest
from rounds.faces.web.archive import MOST_FILMS, TAKEN, Film, films
from rounds.faces.web.body import header, parts
from rounds.faces.web.predict import asked, send_text
from rounds.faces.web.serving import Serving, serving_of

PATH = "/v1/predict/batch"
# An archive may be as large as so many images of the largest size.
BODIES = 4
AT_ONCE = 2
FLYING = 32
TRIES_S = (0.1, 0.4, 1.0)
MULTIPART = b"multipart/form-data"
TYPES = (
    b"",
    b"application/zip",
    b"application/x-zip-compressed",
    b"application/x-tar",
    b"application/gzip",
    b"application/x-gzip",
    b"application/octet-stream",
)


@dataclass
class _Said:
    predictions: list[bytes]
    refused: list[dict[str, Any]]

    def text(self) -> bytes:
        refused = json.dumps(self.refused, ensure_ascii=False, separators=(",", ":")).encode()
        return b'{"predictions":[%b],"refused":%b}' % (b",".join(self.predictions), refused)


class Batch:
    """Takes an archive, or a form of many files, and answers film by film; a bad film does not stop the others."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request.

        Raises BadRequest for a body that is no archive or over a limit, WorldFault where films cannot be answered now:
        then none counts as answered, and the request may be sent again.
        """
        if scope["method"] != "POST":
            raise HTTPException(405, headers={"Allow": "POST"})
        serving = serving_of(self._app)
        query = asked(scope["query_string"], ("subject",))
        if serving.live.seated is None:
            raise serving.live.vacancy()
        content_type = header(scope, b"content-type") or b""
        media = content_type.split(b";", 1)[0].strip().lower()
        if media != MULTIPART and media not in TYPES:
            fault = Fault("wrong content type", "content-type", TAKEN, media.decode("latin-1")[:80])
            raise BadRequest("the content type is not that of an archive", [fault], status=415)
        async with serving.intake.body(scope, receive, allowance(serving.spec.limits.max_bytes)) as body, self._turns:
            if media == MULTIPART:
                form = await parts(content_type.decode("latin-1"), body, MOST_FILMS)
                given = iter([Film(part.name, part.data) for part in form])
            else:
                given = films(body, serving.spec.limits.max_bytes)
            said = await _answered(serving, given, scope, serving.live.pseudonym(query.get("subject")))
        if not said.predictions and not said.refused:
            fault = Fault("no film in the archive", "body", "at least one file", "none")
            raise BadRequest("there is nothing to answer", [fault], status=422)
        await send_text(send, said.text())


def allowance(max_bytes: int) -> int:
    """How much longer an archive may be than an image."""
    return (BODIES - 1) * max_bytes


async def _answered(serving: Serving, given: Iterator[Film], scope: Scope, subject: str | None) -> _Said:
    """The answers in the order of the films, of which a few are on their way at a time."""
    said, flying, count = _Said([], []), deque[tuple[str, asyncio.Task[bytes]]](), 0
    try:
        while (film := await asyncio.to_thread(next, given, None)) is not None:
            if film.reason:
                said.refused.append({"path": film.name, "reason": film.reason})
            else:
                task = asyncio.ensure_future(_one(serving, film, scope, subject, count))
                flying.append((film.name, task))
            count += 1
            if len(flying) >= FLYING:
                await _land(flying, said)
        while flying:
            await _land(flying, said)
    finally:
        for _, task in flying:
            task.cancel()
    serving.guard.charge(scope.get("grant"), count - 1)
    return said


async def _land(flying: deque[tuple[str, asyncio.Task[bytes]]], said: _Said) -> None:
    name, task = flying.popleft()
    try:
        said.predictions.append(await task)
    except BadImage as error:
        reason = "; ".join([error.message, *map(str, error.faults)])
        said.refused.append({"path": name, "reason": reason})


async def _one(serving: Serving, film: Film, scope: Scope, subject: str | None, index: int) -> bytes:
    once = scope.get("once")
    name = once.id(index) if once else None
    text = await serving.kept(name) if name else None
    for wait in (*TRIES_S, 0.0):
        if text is not None:
            break
        try:
            reply = await serving.live.answer(PredictRequest(film.data, scope["request_id"], None, subject, name))
        except WorldFault:
            # Others fill the queue: a batch waits for its turn before it gives up.
            if not wait:
                raise
            await asyncio.sleep(wait)
        else:
            serving.telemetry.metrics.predicted(reply)
            text = reply.text
    assert text is not None, "answered, or raised"
    path = json.dumps(film.name, ensure_ascii=False).encode("utf-8", "replace")
    return text[:-1] + b',"path":%b}' % path
