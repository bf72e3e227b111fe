"""Requests as OpenTelemetry spans, sent to a collector over OTLP/HTTP; needs the extra `traces`."""

from __future__ import annotations

import time

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from rounds.serve.pool import Reply

STAGES = ("decode", "network", "keep")


class Traces:
    """Sends a span a request, and below it one for the queue and one for each stage of the worker's batch."""

    def __init__(self, endpoint: str) -> None:
        self._provider = TracerProvider(resource=Resource.create({"service.name": "rounds"}))
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("rounds")
        self._reader = TraceContextTextMapPropagator()

    def request(
        self,
        method: str,
        route: str,
        status: int,
        began: float,
        request: str,
        parent: bytes | None,
        reply: Reply | None,
    ) -> None:
        """Send one answered request.

        `began` is a time of perf_counter, `parent` the caller's `traceparent`; the stages are the worker's for the
        whole batch that it was part of.
        """
        # Spans are dated by the wall clock, stages are measured by one that cannot be set back.
        offset = time.time_ns() - time.perf_counter_ns()
        about: dict[str, str | int] = {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
            "rounds.request_id": request,
        }
        if reply is not None:
            about["rounds.version"] = reply.version
        carried = {"traceparent": parent.decode("latin-1")} if parent else {}
        span = self._tracer.start_span(
            f"{method} {route}", self._reader.extract(carried), SpanKind.SERVER, about, start_time=_at(began, offset)
        )
        if reply is not None and reply.sent:
            inner = set_span_in_context(span)
            self._stage("queue", began, reply.sent, offset, inner)
            at = reply.sent
            for stage in STAGES:
                self._stage(stage, at, at := at + reply.took.get(stage, 0.0), offset, inner)
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end(time.time_ns())

    def _stage(self, name: str, start: float, end: float, offset: int, inside: Context) -> None:
        self._tracer.start_span(name, inside, start_time=_at(start, offset)).end(_at(end, offset))

    def close(self) -> None:
        """Send what waits to be sent."""
        self._provider.shutdown()


def _at(seconds: float, offset: int) -> int:
    return int(seconds * 1e9) + offset
