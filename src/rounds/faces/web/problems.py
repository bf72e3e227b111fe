"""Every failure as RFC 9457 `application/problem+json`, from one table."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from starlette.exceptions import HTTPException

from rounds.core.errors import Fault, GateRefused, LeakFound, OurFault, RoundsError
from rounds.core.ids import plain
from rounds.faces.web.guard import Denied

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1

TITLES = {
    "BadImage": "The bytes are not an image that is taken",
    "BadRequest": "The request misses or garbles a part",
    "Denied": "The key does not allow this",
    "BadLabel": "The labels cannot be attached",
    "UnknownId": "There is nothing of this id",
    "DamagedBundle": "The model's files are damaged",
    "DamagedData": "The data set's files are damaged",
    "NotWritable": "The workspace cannot be written",
    "StoreAway": "The answer could not be kept",
    "WorldFault": "The server cannot answer now",
    "GateRefused": "The gate refused the candidate",
    "LeakFound": "The candidate was made from films of the test set",
    "Refused": "A rule said no",
    "OurFault": "A bug of Rounds",
    "NotFound": "There is nothing at this address",
    "MethodNotAllowed": "This address does not take this method",
}


@dataclass(frozen=True)
class Problem:
    """A failure as it leaves the server."""

    status: int
    kind: str
    detail: str
    faults: Sequence[Fault] = ()
    extra: Mapping[str, str] = field(default_factory=dict)
    report: Mapping[str, Any] | None = None

    @classmethod
    def from_error(cls, error: BaseException, request_id: str) -> Problem:
        """The problem that any exception is."""
        if isinstance(error, RoundsError):
            return cls.of(error)
        return cls.http(error) if isinstance(error, HTTPException) else cls.bug(request_id)

    @classmethod
    def of(cls, error: RoundsError) -> Problem:
        """The problem that an error of the house is."""
        extra, report = {}, None
        if isinstance(error, Denied):
            extra = {"WWW-Authenticate": "Bearer"} if error.http_status == 401 else {}
            extra |= {"Retry-After": str(math.ceil(error.retry_after))} if error.retry_after else {}
        if isinstance(error, GateRefused | LeakFound):
            report = {key: value for key, value in error.public().items() if key != "error"}
        return cls(error.http_status, error.kind, error.message, error.faults, extra, report or None)

    @classmethod
    def http(cls, error: HTTPException) -> Problem:
        """The problem that an error of the framework is: no such address, no such method."""
        kind = {404: "NotFound", 405: "MethodNotAllowed"}.get(error.status_code, "BadRequest")
        fault = Fault(error.detail, next="the API is described at /openapi.json")
        return cls(error.status_code, kind, TITLES[kind], [fault], error.headers or {})

    @classmethod
    def bug(cls, request_id: str) -> Problem:
        """The problem that any other exception is: what happened is in the log, not in the answer."""
        fault = Fault("an error that nobody foresaw", next=f"report it with the log lines of request {request_id}")
        return cls(OurFault.status, OurFault.__name__, "the request failed through a bug of ours", [fault])

    def body(self, request_id: str) -> bytes:
        """The JSON text; `type` is a URI reference that stays the same for a kind of problem."""
        value: dict[str, Any] = {
            "type": f"urn:rounds:problem:{_kebab(self.kind)}",
            "title": TITLES.get(self.kind, self.kind),
            "status": self.status,
            "detail": self.detail,
            "kind": self.kind,
            "faults": [asdict(fault) for fault in self.faults],
            "request_id": request_id,
        }
        if self.report is not None:
            value["report"] = plain(self.report)
        return json.dumps(value, ensure_ascii=False).encode()

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What a client must know beside the body; a refused upload ends its connection."""
        headers = [(b"content-type", MEDIA_TYPE.encode())]
        headers += [(key.lower().encode(), value.encode()) for key, value in self.extra.items()]
        if self.status == 503:
            headers.append((b"retry-after", str(RETRY_AFTER_S).encode()))
        if self.status == 413:
            headers.append((b"connection", b"close"))
        return headers


def _kebab(kind: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", kind).lower()
