"""What a call may end with.

ClientError             any call that did not end with an answer
├── ApiError            the server said no: a problem with all its fields
└── Unreachable         there was no answer, however often it was tried
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rounds.core.errors import Fault


class ClientError(Exception):
    """Any call that did not end with an answer."""


class Unreachable(ClientError):
    """There was no answer, however often it was tried."""


class ApiError(ClientError):
    """The server's problem details: `status`, `kind`, `detail`, every fault, and the `request_id` to ask about;
    `report` is the gate's answer where it refused, `retry_after` in seconds where the server said it."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        kind: str = "",
        faults: Sequence[Fault] = (),
        request_id: str = "",
        report: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__("\n  ".join([f"{status}: {detail}", *map(str, faults)]))
        self.status, self.detail, self.kind = status, detail, kind
        self.faults, self.request_id = tuple(faults), request_id
        self.report, self.retry_after = dict(report or {}), retry_after

    @classmethod
    def of(cls, status: int, headers: Mapping[str, str], body: bytes, retry_after: float | None) -> ApiError:
        """The error that an answer is; also one that a proxy gave in words of its own."""
        try:
            found = json.loads(body)
            faults = [Fault(**fault) for fault in found["faults"]]
            detail, kind, report = found["detail"], found["kind"], found.get("report")
        except (ValueError, TypeError, KeyError):
            faults, detail, kind, report = [], body[:200].decode("utf-8", "replace"), "", None
        request_id = headers.get("x-request-id", "")
        return cls(
            status, detail, kind=kind, faults=faults, request_id=request_id, report=report, retry_after=retry_after
        )
