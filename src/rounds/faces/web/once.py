"""Requests that are sent twice are done once: the header idempotency-key."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rounds.core.errors import BadRequest, Fault, WorldFault
from rounds.faces.web.body import FRAMING_BYTES, Intake, header

HEADER = b"idempotency-key"
HOLD_S = 24 * 3600.0
MOST = 20_000
MOST_BYTES = 32 * 1024 * 1024
# what an entry takes beside its answer's body
ENTRY_BYTES = 1024
_SANE = re.compile(rb"[\x21-\x7e]{1,255}")
_BOUNDARY = re.compile(rb'boundary="?([^";,]{1,70})')


@dataclass(frozen=True)
class Derived:
    """Names for the predictions of one request that are the same whenever it is sent again, also after a restart.

    They are made under the workspace's key: nobody can choose a name that the audit would not draw.
    """

    seed: bytes

    def id(self, index: int) -> str:
        """The name of the film at `index` of the request."""
        return "p_" + hmac.new(self.seed, b"%d" % index, hashlib.sha256).hexdigest()[:21]


@dataclass(slots=True, eq=False)
class _Entry:
    """A request that was begun; `done` gives its answer, or None where there was none to keep."""

    mark: bytes
    until: float
    done: asyncio.Future[list[Message] | None]
    size: int = 0


@dataclass(eq=False)
class Once:
    """Keeps answers for a day, as many as fit, and gives them again to the same caller's same key and body.

    Only answers of success are kept: what failed may be tried again. `longest` says how long a path's body may be
    beyond an image's; `settle` is called before the first, so that what an earlier life answered is known.
    """

    secret: str
    intake: Intake
    longest: Callable[[str], int] = lambda _path: FRAMING_BYTES
    settle: Callable[[], object] = lambda: None
    _kept: OrderedDict[bytes, _Entry] = field(default_factory=OrderedDict)
    _bytes: int = 0
    _settled: bool = False

    async def __call__(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request that bears a key.

        Raises BadRequest: 400 for a key that is none, 422 where it was used for another request.
        """
        key = header(scope, HEADER) or b""
        if not _SANE.fullmatch(key):
            fault = Fault("not a key", "idempotency-key", "1 to 255 printable ASCII characters", f"{len(key)} bytes")
            raise BadRequest("the idempotency key cannot be used", [fault])
        if not self._settled:
            with suppress(WorldFault):
                await asyncio.to_thread(self.settle)
            self._settled = True
        async with self.intake.body(scope, receive, self.longest(scope["path"])) as body:
            grant = scope.get("grant")
            who = grant.name.encode() if grant else b""
            slot = hashlib.sha256(b"\0".join((who, scope["path"].encode(), key))).digest()
            mark = _mark(scope, body)
            while (entry := self._kept.get(slot)) is not None and time.monotonic() < entry.until:
                if entry.mark != mark:
                    raise _used()
                answer = await asyncio.shield(entry.done)
                if answer is not None:
                    await _replay(answer, send)
                    return
            scope["once"] = Derived(hmac.new(self.secret.encode(), slot + mark, hashlib.sha256).digest())
            await self._first(slot, mark, app, scope, body, send)

    async def _first(self, slot: bytes, mark: bytes, app: ASGIApp, scope: Scope, body: bytes, send: Send) -> None:
        entry = _Entry(mark, time.monotonic() + HOLD_S, asyncio.get_running_loop().create_future())
        self._kept[slot] = entry
        self._kept.move_to_end(slot)
        said: list[Message] = []

        async def saying(message: Message) -> None:
            said.append(dict(message))
            await send(message)

        try:
            await app(scope, _given(body), saying)
        finally:
            whole = bool(said) and said[0].get("status", 500) < 300 and not said[-1].get("more_body", False)
            if whole:
                entry.size = ENTRY_BYTES + sum(len(message.get("body", b"")) for message in said)
                self._bytes += entry.size
                self._make_room()
            elif self._kept.get(slot) is entry:
                del self._kept[slot]
            entry.done.set_result(said if whole else None)

    def _make_room(self) -> None:
        now = time.monotonic()
        while self._kept:
            slot, oldest = next(iter(self._kept.items()))
            full = len(self._kept) > MOST or self._bytes > MOST_BYTES
            if not (full or now > oldest.until):
                return
            del self._kept[slot]
            self._bytes -= oldest.size


def _mark(scope: Scope, body: bytes) -> bytes:
    """What makes two requests the same: query, media type and body, whatever a form's boundary is."""
    given = header(scope, b"content-type") or b""
    boundary = _BOUNDARY.search(given)
    if boundary and given[:10].lower() == b"multipart/":
        body = body.replace(boundary[1], b"")
    media = given.split(b";", 1)[0].strip().lower()
    found = hashlib.sha256(b"\0".join((scope["query_string"], media, b"")))
    found.update(body)
    return found.digest()


def _used() -> BadRequest:
    then = "send another key with another request"
    fault = Fault("this key was used for another request", "idempotency-key", "the same query and body", "others", then)
    return BadRequest("the idempotency key was used before", [fault], status=422)


def _given(body: bytes) -> Receive:
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return left.pop() if left else {"type": "http.disconnect"}

    return receive


async def _replay(answer: list[Message], send: Send) -> None:
    for message in answer:
        await send(dict(message))
