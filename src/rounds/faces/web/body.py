"""Request bodies, read under a limit: what is too large is refused before it is read whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from rounds.core.errors import BadRequest, Fault, WorldFault

FIELDS = ("file", "files")
# Boundaries and part headers around a film that is just small enough.
FRAMING_BYTES = 64 * 1024
HELD_BODIES = 8


@dataclass(frozen=True, slots=True)
class Part:
    """One uploaded film, where in the request it stood, and the name of its file or field."""

    data: bytes
    where: str
    name: str = ""


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of that lower-case name."""
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return None


class Intake:
    """Reads bodies of at most `max_bytes` each, and of `HELD_BODIES` times that in all requests together."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0

    @asynccontextmanager
    async def body(self, scope: Scope, receive: Receive, extra: int = 0) -> AsyncIterator[bytes]:
        """The whole body, counted as held until the block ends.

        Raises:
            BadRequest: 413 where the body is, or says that it is, longer than the limit and `extra`.
            WorldFault: 503 where all requests together hold too much.
            ClientDisconnect: the client left before it had sent everything.
        """
        limit = self._max_bytes + extra
        declared = header(scope, b"content-length")
        if declared is not None and declared.isdigit() and int(declared) > limit:
            raise self._too_large(f"{int(declared):,} bytes", limit)
        held = 0
        try:
            chunks: list[bytes] = []
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                chunk: bytes = message.get("body", b"")
                more = message.get("more_body", False)
                held += len(chunk)
                self._held += len(chunk)
                if held > limit:
                    raise self._too_large(f"more than {limit:,} bytes", limit)
                if self._held > HELD_BODIES * self._max_bytes:
                    raise WorldFault("the server is overloaded", [Fault("too many large uploads at once")])
                chunks.append(chunk)
            yield chunks[0] if len(chunks) == 1 else b"".join(chunks)
        finally:
            self._held -= held

    def _too_large(self, got: str, limit: int) -> BadRequest:
        fault = Fault("the body is too large", "body", f"at most {limit:,} bytes", got, "send a smaller image")
        return BadRequest("the body is too large", [fault], status=413)


async def parts(content_type: str, body: bytes, max_files: int) -> list[Part]:
    """The films of a multipart body, in order, from the fields `file` and `files`.

    Raises BadRequest: 400 where the body is not multipart, 422 naming every other field, and where there is no film.
    """

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(Headers({"content-type": content_type}), stream(), max_files=max_files)
    # A film never touches the disk outside the store: the body is in memory anyway.
    parser.spool_max_size = len(body)
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        fault = Fault("the multipart body cannot be read", "body", "multipart/form-data", str(error))
        raise BadRequest("the multipart body cannot be read", [fault]) from error
    try:
        _refuse_other_fields(form.multi_items())
        return [
            Part(await file.read(), _place(name, file), file.filename or name)
            for name, file in _files(form.multi_items())
        ]
    finally:
        await form.close()


def _files(items: Iterable[tuple[str, UploadFile | str]]) -> list[tuple[str, UploadFile]]:
    return [(name, value) for name, value in items if isinstance(value, UploadFile)]


def _place(name: str, file: UploadFile) -> str:
    return f"field {name!r}, file {file.filename!r}" if file.filename else f"field {name!r}"


def _refuse_other_fields(items: Iterable[tuple[str, UploadFile | str]]) -> None:
    expected = " or ".join(map(repr, FIELDS))
    faults = []
    count = 0
    for name, value in items:
        count += 1
        if name not in FIELDS:
            send = "send reference and subject in the query" if isinstance(value, str) else f"name the field {expected}"
            faults.append(Fault("unknown multipart field", "body", f"the field {expected}", repr(name), send))
        elif isinstance(value, str):
            named = f"send it as a file: curl -F {name}=@film.png"
            faults.append(Fault("a field without a file", "body", f"a file in {name!r}", "text", named))
    if not count:
        faults.append(Fault("no film in the request", "body", f"a file in the field {expected}", "no field"))
    if faults:
        raise BadRequest("the multipart fields are not those of a prediction", faults, status=422)
