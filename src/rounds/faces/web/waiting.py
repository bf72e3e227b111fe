"""While the database is away at the start, the server says so instead of being gone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Generic, TypeVar

import uvicorn
from starlette.types import Receive, Scope, Send

from rounds.core.errors import StoreAway
from rounds.core.ids import new_id
from rounds.faces.web.problems import Problem

AGAIN_S = 1.0
T = TypeVar("T")


def opened(open_it: Callable[[], T], sock: socket.socket, say: Callable[[str], None]) -> T | None:
    """What `open_it` gives, once the store answers; until then requests are answered with 503, but that we live.

    None where the server was told to stop meanwhile. Raises what `open_it` raises, StoreAway apart.
    """
    try:
        return open_it()
    except StoreAway as away:
        room = _Room(open_it, away)
        host, port = sock.getsockname()[:2]
        say(f"listening on http://{host}:{port}, not ready: {away}")
        with sock.dup() as same:
            asyncio.run(room.wait(same))
        return room.found


class _Room(Generic[T]):
    """A small application that answers for the one that cannot start yet."""

    def __init__(self, open_it: Callable[[], T], away: StoreAway) -> None:
        self._open_it, self._away = open_it, away
        self.found: T | None = None

    async def wait(self, sock: socket.socket) -> None:
        """Answer until the store does, or a signal says to stop."""
        quiet = uvicorn.Config(self, lifespan="off", access_log=False, log_level="warning", server_header=False)
        server = uvicorn.Server(quiet)
        trying = asyncio.create_task(self._try(server))
        try:
            await server.serve(sockets=[sock])
        finally:
            trying.cancel()

    async def _try(self, server: uvicorn.Server) -> None:
        while self.found is None:
            await asyncio.sleep(AGAIN_S)
            try:
                self.found = await asyncio.to_thread(self._open_it)
            except StoreAway as away:
                self._away = away
        server.should_exit = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Answer one request."""
        if scope["path"] == "/health/live":
            status, headers, body = 200, [(b"content-type", b"application/json")], b'{"status":"live"}'
        else:
            problem = Problem.of(self._away)
            status, headers, body = problem.status, problem.headers(), problem.body(new_id("r_"))
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
        await send({"type": "http.response.body", "body": body})
