"""What an operator sees of a server: refusals by reason, the evidence of the watch, a line and a trace a request."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.support.server import Served, server
from tests.support.workspace import films_as_png, opened, promote

from rounds.core.specs import ServeSpec
from rounds.loop import conduct, ruling

FILM = films_as_png(1)[0]
PNG = {"content-type": "image/png"}
Value = Callable[..., float | None]


def rules(home: Path, serve: ServeSpec) -> None:
    with opened(home) as ports:
        ruling.change(ports, replace(ruling.in_force(ports), serve=serve))


def metric(served: Served, name: str, **labels: str) -> float | None:
    for family in text_string_to_metric_families(httpx.get(f"{served.url}/metrics").text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    return None


def until(said: Callable[[], Any], wanted: Any, limit_s: float = 20) -> None:
    end = time.monotonic() + limit_s
    while (got := said()) != wanted:
        assert time.monotonic() < end, got
        time.sleep(0.1)


def test_refusals_are_counted_by_reason_and_the_watch_s_evidence_is_shown(tmp_path: Path) -> None:
    home = tmp_path / "home"
    promote(home)
    with server(home) as served:
        url = f"{served.url}/v1/predict"
        assert [metric(served, name) for name in ("rounds_watch_films", "rounds_watch_age_seconds")] == [None, None]
        for body in (FILM, b"no film", b"nor this"):
            httpx.post(url, content=body, headers=PNG)
        httpx.post(f"{url}?refrence=1", content=FILM, headers=PNG)
        httpx.get(f"{served.url}/v1/nothing")
        reasons = {reason: metric(served, "rounds_refusals_total", reason=reason) for reason in REASONS}
        assert reasons == REASONS
        with opened(home) as ports:
            found = conduct.observe(ports)
        assert found is not None
        until(lambda: metric(served, "rounds_watch_films"), 1.0)
        drift = next(one for one in found.findings if one.kind == "drift")
        assert metric(served, "rounds_watch_evidence", kind="drift") == max(0.0, drift.log_e / drift.limit)
        assert metric(served, "rounds_watch_evidence", kind="decay") == 0.0
        assert 0 <= (metric(served, "rounds_watch_age_seconds") or -1) < 60


REASONS = {"BadImage": 2.0, "BadRequest": 1.0, "NotFound": 1.0, "OurFault": None}


def test_every_request_is_a_line_of_json_where_the_rules_say_so_and_names_nobody(tmp_path: Path) -> None:
    home = tmp_path / "home"
    promote(home)
    rules(home, ServeSpec(log_requests=True))
    with server(home) as served:
        url = f"{served.url}/v1/predict?reference=acc-4711&subject=jane-doe"
        for name, body in (("r-short", FILM), ("r-bad", b"no film")):
            httpx.post(url, content=body, headers={**PNG, "x-request-id": name})
        httpx.post(url, files={"file": FILM}, headers={"x-request-id": "r-form", "authorization": "Bearer rk_secret"})
        httpx.get(f"{served.url}/v1/models", headers={"x-request-id": "r-models"})
        until(lambda: len(logged(served)), 4)
        lines = logged(served)
    assert [{key: line.get(key) for key in KEYS} for line in lines] == [
        dict(zip(KEYS, values, strict=True))
        for values in (
            ("r-short", "POST", "/v1/predict", 200, "v1"),
            ("r-bad", "POST", "/v1/predict", 415, None),
            ("r-form", "POST", "/v1/predict", 200, "v1"),
            ("r-models", "GET", "/v1/models", 200, None),
        )
    ]
    assert all(0 < line["ms"] < 60_000 and line["timestamp"].endswith("Z") for line in lines)
    said = "\n".join(served.lines)
    assert [word for word in ("acc-4711", "jane-doe", "rk_secret") if word in said] == []


KEYS = ("request_id", "method", "route", "status", "version")


def logged(served: Served) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in served.lines if line.startswith("{")]
    return [line for line in lines if line["event"] == "request"]


def test_what_is_no_http_is_logged_as_json_too(tmp_path: Path) -> None:
    promote(tmp_path / "home")
    with server(tmp_path / "home") as served:
        with socket.create_connection(("127.0.0.1", served.port)) as line:
            line.sendall(b"no http at all\r\n\r\n")
            assert line.recv(100).startswith(b"HTTP/1.1 400 ")
        until(lambda: [json.loads(line)["event"] for line in served.lines if line.startswith("{")][1:], [INVALID])
    assert [line for line in served.lines if not line.startswith(("{", "ready on "))] == []


INVALID = "Invalid HTTP request received."


def test_a_traceback_in_the_log_shows_no_value_of_a_variable() -> None:
    code = (
        "import structlog\nfrom rounds.faces.web.server import _log_as_json\n_log_as_json()\n"
        "def fail(key):\n    raise ValueError('no')\n"
        "try:\n    fail('rk_' + 'secret')\nexcept ValueError as error:\n"
        "    structlog.get_logger().error('a bug', exc_info=error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = json.loads(done.stderr)
    assert (said["event"], said["exception"][0]["frames"][-1]["name"]) == ("a bug", "fail")
    assert "rk_secret" not in done.stderr


def test_without_the_rule_no_request_is_logged(tmp_path: Path) -> None:
    promote(tmp_path / "home")
    with server(tmp_path / "home") as served:
        assert httpx.post(f"{served.url}/v1/predict", content=FILM, headers=PNG).status_code == 200
    assert logged(served) == []


def test_a_request_is_a_span_with_its_stages_in_the_caller_s_trace(tmp_path: Path) -> None:
    trace = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    home = tmp_path / "home"
    promote(home)
    with collector() as (address, bodies):
        rules(home, ServeSpec(traces=address))
        with server(home) as served:
            parent = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
            answer = httpx.post(f"{served.url}/v1/predict", content=FILM, headers={**PNG, **parent})
            assert answer.status_code == 200
            httpx.post(f"{served.url}/v1/predict", content=b"no film", headers=PNG)
        # the server sends what waits before it ends
    spans = [
        span
        for body in bodies
        for resource in trace.ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    top = [span for span in spans if span.name == "POST /v1/predict"]
    mine = next(span for span in top if span.trace_id.hex() == "ab" * 16)
    assert mine.parent_span_id.hex() == "cd" * 8
    about = {one.key: one.value.string_value or one.value.int_value for one in mine.attributes}
    assert about == {
        "http.request.method": "POST",
        "http.route": "/v1/predict",
        "http.response.status_code": 200,
        "rounds.request_id": answer.headers["x-request-id"],
        "rounds.version": "v1",
    }
    inner = sorted((span.start_time_unix_nano, span) for span in spans if span.parent_span_id == mine.span_id)
    assert [span.name for _, span in inner] == ["queue", "decode", "network", "keep"]
    times = [at for _, span in inner for at in (span.start_time_unix_nano, span.end_time_unix_nano)]
    assert times == sorted(times)
    assert mine.start_time_unix_nano == times[0]
    assert times[-1] <= mine.end_time_unix_nano
    refused = next(span for span in top if span.trace_id != mine.trace_id)
    assert {one.key: one.value.int_value for one in refused.attributes}["http.response.status_code"] == 415


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """An address that takes OTLP/HTTP, and what came."""
    bodies: list[bytes] = []

    class Taker(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Taker) as taker:
        thread = threading.Thread(target=taker.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{taker.server_port}", bodies
        taker.shutdown()
        thread.join()
