"""The server as a process: light, quick to answer, polite at the end, plain about a port that is taken."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from tests.support.server import server
from tests.support.workspace import films_as_png, promote

from rounds.core.errors import PortInUse, WorldFault
from rounds.faces.web.listening import listen

HEAVY = ("torch", "lightning", "mlflow", "pandas", "matplotlib", "scipy.stats", "plotly", "hydra", "sklearn", "onnx")
IN_PROCESS = """
import asyncio, json, sys
import httpx
from rounds.core.specs import MonitorSpec, ServeSpec
from rounds.faces.web.app import create_app
from rounds.faces.web import server
from rounds.wiring.serving import open_ports
from rounds.wiring.settings import Settings

async def story():
    app = create_app(lambda: open_ports(Settings()), ServeSpec(), MonitorSpec())
    async with app.router.lifespan_context(app):
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://rounds")
        answer = await client.post("/v1/predict", content=open(sys.argv[1], "rb").read())
        labelled = await client.post("/v1/labels", json=[{"prediction": answer.json()["id"], "label": "normal"}])
        for path in ("/v1/models", "/v1/findings", "/health/ready", "/metrics", "/openapi.json"):
            assert (await client.get(path)).status_code == 200, path
        return answer.json() | labelled.json()

print(json.dumps({"answer": asyncio.run(story()), "modules": sorted(sys.modules)}))
"""


def test_the_serving_process_imports_nothing_that_only_training_or_reports_need(tmp_path: Path) -> None:
    promote(tmp_path / "home")
    film = tmp_path / "film.png"
    film.write_bytes(films_as_png(1)[0])
    environment = {**os.environ, "ROUNDS_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", IN_PROCESS, str(film)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["answer"]["version"] == "v1"
    assert found["answer"]["accepted"] == 1
    assert [name for name in HEAVY if name in found["modules"]] == []


def test_a_port_in_use_is_known_before_anything_is_loaded_and_says_which_and_what_to_do() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse) as refused:
            listen("127.0.0.1", port)
    assert refused.value.exit_code == 3
    assert str(refused.value) == (
        f"port {port} is in use\n  127.0.0.1:{port}: somebody else listens there;"
        " expected a free port; got a port in use."
        f" Choose another port (--port {port + 1}), or stop what listens there (ss -ltnp 'sport = :{port}')"
    )


def test_the_command_ends_with_3_where_the_port_is_taken_or_the_workspace_cannot_be_written(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rounds.faces.web", "--port"]
    with listen("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run([*command, port], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"rounds: port {port} is in use\n")
    (tmp_path / "file").touch()
    environment = {**os.environ, "ROUNDS_HOME": str(tmp_path / "file" / "home")}
    done = subprocess.run([*command, "0"], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 3
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_that_is_not_this_machines_is_the_worlds_fault() -> None:
    with pytest.raises(WorldFault, match=r"cannot listen on 192\.0\.2\.1:0\n.*choose another --host or --port|Choose"):
        listen("192.0.2.1", 0)
    with pytest.raises(WorldFault, match=r"cannot listen on no\.such\.host\.invalid:0"):
        listen("no.such.host.invalid", 0)


def test_an_ipv6_address_is_listened_on_too() -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    with listen("::1", 0) as sock:
        assert sock.family == socket.AF_INET6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_with_0_after_what_was_asked_is_answered(tmp_path: Path, number: int) -> None:
    promote(tmp_path / "home")
    film = films_as_png(1)[0]
    head = f"POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ncontent-length: {len(film)}\r\n\r\n"
    with server(tmp_path / "home") as served, socket.create_connection(("127.0.0.1", served.port), timeout=10) as sock:
        sock.sendall(head.encode() + film[:100])
        assert httpx.get(f"{served.url}/health/ready").status_code == 200
        served.process.send_signal(number)
        time.sleep(0.3)
        sock.sendall(film[100:])
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK")
        assert served.process.wait(10) == 0
    assert not [line for line in served.lines if "Traceback" in line]


def test_a_server_is_ready_soon_and_stays_small(tmp_path: Path) -> None:
    promote(tmp_path / "home")
    began = time.perf_counter()
    with server(tmp_path / "home") as served:
        answer = httpx.post(f"{served.url}/v1/predict", content=films_as_png(1)[0])
        seconds = time.perf_counter() - began
        status = Path(f"/proc/{served.process.pid}/status").read_text()
    peak_mb = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
    print(f"first answer after {seconds:.2f} s, peak memory {peak_mb:.0f} MB")
    assert answer.status_code == 200
    # The budgets are 1.5 s and 300 MB; the tests share their cores with others, so time has a wide margin here.
    assert seconds < 30
    assert peak_mb < 300


def test_an_exception_that_nobody_foresaw_is_500_without_a_traceback_in_the_answer_and_with_one_in_the_log(
    tmp_path: Path,
) -> None:
    promote(tmp_path / "home")
    program = """
from rounds.faces.web import __main__
def observe(ports):
    raise ZeroDivisionError("a secret detail")
__main__.observe = observe
__main__.main()
"""
    with server(tmp_path / "home", program) as served:
        answer = httpx.get(f"{served.url}/v1/findings", headers={"x-request-id": "find-me"})
        time.sleep(0.2)
        logged = [json.loads(line) for line in served.lines if "find-me" in line]
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "urn:rounds:problem:our-fault",
        "title": "A bug of Rounds",
        "status": 500,
        "detail": "the request failed through a bug of ours",
        "kind": "OurFault",
        "faults": [
            {
                "what": "an error that nobody foresaw",
                "where": "",
                "expected": "",
                "got": "",
                "next": "report it with the log lines of request find-me",
            }
        ],
        "request_id": "find-me",
    }
    (line,) = logged
    assert (line["level"], line["request_id"], line["path"]) == ("error", "find-me", "/v1/findings")
    assert line["exception"][0]["exc_type"] == "ZeroDivisionError"
