"""What every request gets: an id, a key looked up, a count, a clock, safe headers, and a problem for an answer where
something fails."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rounds.core.errors import Fault, WorldFault
from rounds.core.ids import new_id
from rounds.faces.web import batch, once
from rounds.faces.web.body import FRAMING_BYTES
from rounds.faces.web.guard import PREDICTIONS, Grant
from rounds.faces.web.problems import Problem
from rounds.faces.web.serving import Serving
from rounds.faces.web.telemetry import Telemetry

SANE_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
LINGER_S = 2.0
# The API answers with data alone: a browser that is led here shows, runs, frames and keeps nothing of it.
SAFE = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
# Where a request that is sent twice must not be done twice.
ONCE = frozenset({"/v1/predict", "/v1/predict/batch", "/v1/labels", "/v1/promote", "/v1/rollback"})
Admit = Callable[[str, Mapping[bytes, bytes]], Grant | None]


class Frame:
    """The outermost application: sets `scope["request_id"]`, and answers in place of what raises within it.

    A path in `hot` goes straight to its application: the framework's own way costs more than a small network's run.
    `routes` are the paths that are counted by name; a stranger's paths must not become a metric each. `admit` says who
    asks, or raises; until it is set nobody is let in.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry
        self.hot: dict[str, ASGIApp] = {}
        self.routes: frozenset[str] = frozenset()
        self.admit: Admit = _not_yet
        self.once: once.Once | None = None

    def open(self, serving: Serving) -> None:
        """Let in whom the guard admits, from now on."""
        limit, live = serving.spec.limits.max_bytes, serving.live
        self.once = once.Once(
            live.ports.secret,
            serving.intake,
            lambda path: batch.allowance(limit) if path == batch.PATH else FRAMING_BYTES,
            live.settle,
        )
        self.admit = serving.guard.admit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = dict(scope["headers"])
        answer = _Answer(send, request_id(headers.get(b"x-request-id")))
        scope["request_id"] = answer.request_id
        path = scope["path"]
        try:
            scope["grant"] = self.admit(path, headers)
            app = self.hot.get(path, self._app)
            if once.HEADER in headers and self.once is not None and path in ONCE and scope["method"] == "POST":
                await self.once(app, scope, receive, answer.send)
            else:
                await app(scope, receive, answer.send)
        except ClientDisconnect:
            answer.status = 499
        except Exception as error:  # the face's last word: whatever was not foreseen is a problem of status 500
            await self._explain(error, scope, receive, answer)
        route = path if path in self.routes else _route(path)
        self._telemetry.request(
            scope["method"], route, answer.status, began, answer.request_id, headers, scope.get("reply")
        )

    async def _explain(self, error: Exception, scope: Scope, receive: Receive, answer: _Answer) -> None:
        problem = self._telemetry.problem(error, scope["path"], answer.request_id)
        if answer.status:
            # The answer has begun, so the only honest thing left is to break it off.
            raise error
        await answer.problem(problem)
        if problem.status == 413:
            await _linger(receive)
        await answer.end()


class _Answer:
    """The way out: adds the request id to the head and remembers the status (0 before there is one)."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self.status = 0

    async def send(self, message: Message) -> None:
        """Pass one message on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *SAFE, (b"x-request-id", self.request_id.encode())]
        await self._send(message)

    async def problem(self, problem: Problem) -> None:
        """Send a whole problem, but for the end of the response."""
        body = problem.body(self.request_id)
        headers = [*problem.headers(), (b"content-length", b"%d" % len(body))]
        await self.send({"type": "http.response.start", "status": problem.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self) -> None:
        """End the response."""
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})


def request_id(given: bytes | None) -> str:
    """The client's own id where it is short and plain, else a fresh one."""
    return given.decode() if given and SANE_ID.fullmatch(given) else new_id("r_")


def _not_yet(_path: str, _headers: Mapping[bytes, bytes]) -> Grant | None:
    raise WorldFault("the server is not ready", [Fault("it is being started", next="send the request again")])


def _route(path: str) -> str:
    if not path.startswith(PREDICTIONS):
        return "other"
    last = path.rsplit("/", 1)[1]
    return PREDICTIONS + ("{prediction}/explanation.png" if last == "explanation.png" else "{prediction}")


async def _linger(receive: Receive) -> None:
    """Drop what the client still sends, for a moment and without keeping it.

    Closing at once while bytes are on their way makes the kernel reset the connection, and the reset may overtake the
    answer: the client would see a broken pipe instead of why it was refused.
    """
    try:
        async with asyncio.timeout(LINGER_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return
