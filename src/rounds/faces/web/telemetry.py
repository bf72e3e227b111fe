"""What is seen of every request: always counted, its failures always logged; where the rules ask for it, each request
is logged and traced too."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import structlog

from rounds.core.errors import Fault, OurFault, WorldFault
from rounds.core.specs import ServeSpec
from rounds.faces.web.metrics import Metrics
from rounds.faces.web.problems import Problem
from rounds.serve.pool import Reply

if TYPE_CHECKING:
    from rounds.faces.web.traces import Traces

TRACEPARENT = b"traceparent"

log = structlog.get_logger("rounds.web")


class Telemetry:
    """Sees requests and failures. Nothing that it writes names a film, a subject, a reference or a key."""

    def __init__(self, metrics: Metrics, spec: ServeSpec) -> None:
        self.metrics = metrics
        self._log = spec.log_requests
        self._traces = _traces(spec.traces)

    def request(
        self,
        method: str,
        route: str,
        status: int,
        began: float,
        request: str,
        headers: Mapping[bytes, bytes],
        reply: Reply | None = None,
    ) -> None:
        """See one answered request, which began at a time of perf_counter and has the id `request`."""
        seconds = time.perf_counter() - began
        self.metrics.request(route, status, seconds)
        if self._log:
            about = {"version": reply.version} if reply else {}
            log.info(
                "request", request_id=request, method=method, route=route, status=status, ms=seconds * 1000, **about
            )
        if self._traces is not None:
            self._traces.request(method, route, status, began, request, headers.get(TRACEPARENT), reply)

    def problem(self, error: BaseException, route: str, request: str) -> Problem:
        """The problem that an error is: counted by kind, and logged where it is the server's own fault."""
        problem = Problem.from_error(error, request)
        self.metrics.refused(problem.kind)
        if problem.status >= 500:
            about = {"request_id": request, "path": route, "kind": problem.kind}
            bug = problem.kind == OurFault.__name__
            log.error(problem.detail, **about, faults=list(map(str, problem.faults)), exc_info=error if bug else None)
        return problem

    def close(self) -> None:
        """Send what waits to be sent."""
        if self._traces is not None:
            self._traces.close()


def _traces(endpoint: str) -> Traces | None:
    if not endpoint:
        return None
    try:
        from rounds.faces.web.traces import Traces
    except ModuleNotFoundError as error:
        then = "pip install 'rounds[traces]', or: rounds policy serve.traces="
        raise WorldFault("traces need OpenTelemetry", [Fault("not installed", str(error.name), next=then)]) from error
    return Traces(endpoint)
