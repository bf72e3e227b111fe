"""HTTP on one connection: uvicorn's own, with limits for slow clients, and a short way for small films.

A film of a few kilobytes is computed in less time than ASGI takes to carry it: a POST of such a film to the hot route
is answered here, by the same functions and in the same words; every other request goes the usual way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from heapq import nsmallest
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from rounds.core.errors import RoundsError
from rounds.core.records import PredictRequest
from rounds.faces.web.frame import SAFE, request_id
from rounds.faces.web.predict import asked
from rounds.faces.web.serving import Serving
from rounds.serve.pool import Reply

PATH = "/v1/predict"
_URL, _QUERY = PATH.encode(), PATH.encode() + b"?"
SHORT_BYTES = 64 * 1024
PLAIN = frozenset({b"image/png", b"image/jpeg", b"application/octet-stream", b"application/dicom"})
# What only the usual way understands.
OTHER = frozenset({b"idempotency-key", b"transfer-encoding", b"expect", b"upgrade"})

# A client that has not sent its whole request so many seconds after it began is cut off.
REQUEST_S = 20.0
LOOK_S = 1.0


class Limits:
    """The connections of a server: how many there may be, and for how long a request may be on its way."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.open: set[Protocol] = set()

    def add(self, connection: Protocol) -> None:
        """Count a new connection; where there are too many, those that keep us waiting longest are closed."""
        if len(self.open) >= self.most:
            waiting = (one for one in self.open if one.since)
            for one in nsmallest(max(1, self.most // 16), waiting, key=lambda one: one.since):
                one.transport.abort()
                self.open.discard(one)
        self.open.add(connection)

    async def watch(self) -> None:
        """Cut off whoever is too slow, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            late = time.monotonic() - REQUEST_S
            for one in [one for one in self.open if 0 < one.since < late]:
                one.transport.abort()


class Protocol(HttpToolsProtocol):
    """One connection. `since` is when it began to keep us waiting for a request (monotonic, seconds), 0 where it does
    not."""

    serving: Callable[[], Serving | None]
    limits: Limits

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.since = time.monotonic()
        self.limits.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.limits.open.discard(self)
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that has said all it wants to say still hears its answer."""
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            return False
        self.cycle.keep_alive = False
        return True

    def on_message_begin(self) -> None:
        if not self.since:
            self.since = time.monotonic()
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        idle = self.cycle is None or self.cycle.response_complete
        if idle and (self.url == _URL or self.url.startswith(_QUERY)) and self.parser.get_method() == b"POST":
            short = self._short()
            if short is not None:
                self.cycle = cast("Any", short)
                return
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += headers
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self.since = 0.0
        cycle: object = self.cycle
        if isinstance(cycle, Short):
            cycle.ask()
        else:
            super().on_message_complete()

    def _short(self) -> Short | None:
        headers = dict(self.headers)
        length = headers.get(b"content-length", b"")
        if (
            not length.isdigit()
            or int(length) > SHORT_BYTES
            or headers.get(b"content-type", b"application/octet-stream") not in PLAIN
            or not OTHER.isdisjoint(headers)
        ):
            return None
        serving = self.serving()
        if serving is None or serving.live.seated is None or int(length) > serving.spec.limits.max_bytes:
            return None
        return Short(self, serving, headers)


class Short:
    """A request on the short way, from its head to its answer; to uvicorn it looks like any other."""

    def __init__(self, connection: Protocol, serving: Serving, headers: dict[bytes, bytes]) -> None:
        self._connection, self._serving, self._headers = connection, serving, headers
        self._began = time.perf_counter()
        self.keep_alive = connection.parser.should_keep_alive()
        self.body = bytearray()
        self.message_event = self
        self.more_body = True
        self.response_complete = self.disconnected = False

    def set(self) -> None:
        """What uvicorn wakes a waiting application with; nobody waits here."""

    def ask(self) -> None:
        """The whole film is here."""
        self.more_body = False
        self._id = request_id(self._headers.get(b"x-request-id"))
        live = self._serving.live
        try:
            self._serving.guard.admit(PATH, self._headers)
            query = asked(self._connection.url[len(_QUERY) :])
            subject = live.pseudonym(query.get("subject")) if query else None
            request = PredictRequest(bytes(self.body), self._id, query.get("reference"), subject)
            live.answer(request).add_done_callback(self._answered)
        except RoundsError as error:
            self._refuse(error)

    def _answered(self, done: asyncio.Future[Reply]) -> None:
        error = done.exception()
        if error is not None:
            self._refuse(error)
            return
        reply = done.result()
        self._serving.telemetry.metrics.predicted(reply)
        self._end(200, HEAD % (len(reply.text), self._id.encode()), reply.text, reply)

    def _refuse(self, error: BaseException) -> None:
        problem = self._serving.telemetry.problem(error, PATH, self._id)
        body = problem.body(self._id)
        length = (b"content-length", b"%d" % len(body))
        headers = [*problem.headers(), length, *SAFE, (b"x-request-id", self._id.encode())]
        self._end(problem.status, b"HTTP/1.1 %d \r\n%b" % (problem.status, lines(headers)), body)

    def _end(self, status: int, head: bytes, body: bytes, reply: Reply | None = None) -> None:
        connection = self._connection
        self.response_complete = True
        if self.disconnected or connection.transport.is_closing():
            status = 499
        else:
            date = connection.server_state.default_headers
            close = b"" if self.keep_alive else b"connection: close\r\n"
            connection.transport.write(b"".join((head, lines(date), close, b"\r\n", body)))
            if not self.keep_alive:
                connection.transport.close()
        self._serving.telemetry.request("POST", PATH, status, self._began, self._id, self._headers, reply)
        connection.on_response_complete()


def lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as they are sent."""
    return b"".join(b"%b: %b\r\n" % pair for pair in headers)


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\n" + lines(
    SAFE
).replace(b"%", b"%%")


def protocol(serving: Callable[[], Serving | None], limits: Limits) -> type[Protocol]:
    """The protocol of one server."""
    kept: dict[str, Any] = {"serving": staticmethod(serving), "limits": limits}
    return type("Connection", (Protocol,), kept)
