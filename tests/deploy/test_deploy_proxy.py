"""The proxy's configuration, run by the real nginx in front of real servers."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.support.proxied import Proxy, nginx
from tests.support.server import Served, server
from tests.support.tracking import free_port
from tests.support.workspace import films_as_png, promote

PNG = {"content-type": "image/png"}


def client(proxy: Proxy) -> httpx.Client:
    return httpx.Client(base_url=proxy.url, verify=ssl.create_default_context(cafile=proxy.certificate), timeout=60)


def wait_until(true: Callable[[], bool], limit_s: float = 10) -> None:
    until = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("proxied")
    promote(place / "home")
    return place


@pytest.fixture(scope="module")
def served(place: Path) -> Iterator[Served]:
    with server(place / "home") as served:
        yield served


@pytest.fixture(scope="module")
def proxy(place: Path, served: Served) -> Iterator[Proxy]:
    with nginx(place / "nginx", served.port) as proxy:
        yield proxy


def test_a_film_is_answered_through_tls_and_the_log_names_nobody(proxy: Proxy) -> None:
    with client(proxy) as https:
        answer = https.post("/v1/predict?reference=ACC-77&subject=DOE", content=films_as_png(1)[0], headers=PNG)
    assert answer.status_code == 200, answer.text
    assert answer.json()["version"] == "v1"
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    wait_until(lambda: answer.headers["x-request-id"] in proxy.log.read_text())
    line = next(line for line in proxy.log.read_text().splitlines() if answer.headers["x-request-id"] in line)
    assert " POST /v1/predict 200 " in line
    assert "ACC-77" not in line
    assert "DOE" not in line


def test_only_tls_of_today_is_spoken_and_nothing_without_it(proxy: Proxy) -> None:
    assert httpx.post(f"{proxy.plain}/v1/predict", content=b"film").status_code == 403
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(proxy.certificate)
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{proxy.url}/v1/models", verify=old)


@pytest.mark.parametrize("path", ["/metrics", "/health/ready", "/", "/docs", "/v2/predict"])
def test_what_only_operators_need_is_not_shown_to_the_world(proxy: Proxy, path: str) -> None:
    with client(proxy) as https:
        answer = https.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:rounds:problem:proxy-unknown"


def test_a_body_over_the_limit_is_refused_as_a_problem(proxy: Proxy) -> None:
    with client(proxy) as https:
        answer = https.post("/v1/predict", content=bytes(25 * 1024 * 1024), headers=PNG)
    assert answer.status_code == 413
    assert answer.json()["title"] == "The request is too large"


def test_a_server_that_is_away_is_a_503_that_says_when_to_ask_again(place: Path) -> None:
    with nginx(place / "away", free_port()) as proxy, client(proxy) as https:
        answer = https.post("/v1/predict", content=films_as_png(1)[0], headers=PNG)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.json()["type"] == "urn:rounds:problem:proxy-away"


def test_of_two_servers_one_that_is_down_costs_no_request(place: Path, served: Served) -> None:
    film = films_as_png(1)[0]
    two = nginx(place / "two", free_port(), served.port)
    with two as proxy, client(proxy) as https, ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda _: https.post("/v1/predict", content=film, headers=PNG).status_code, range(60))
        assert set(answers) == {200}


@contextmanager
def hanging_up() -> Iterator[tuple[int, list[bytes]]]:
    """A server that takes each request and hangs up; its port and what it was asked."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def take() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    asked.append(connection.recv(65536))

        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield listening.getsockname()[1], asked
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def test_a_film_that_a_server_took_is_not_given_to_the_next_one(place: Path) -> None:
    with (
        hanging_up() as (first, asked),
        hanging_up() as (second, also_asked),
        nginx(place / "once", first, second) as proxy,
        client(proxy) as https,
    ):
        answer = https.post("/v1/predict", content=films_as_png(1)[0], headers=PNG)
    assert answer.status_code == 503
    assert len(asked) + len(also_asked) == 1


def test_a_client_that_dribbles_never_reaches_the_server(proxy: Proxy, served: Served) -> None:
    def requests() -> int:
        text = httpx.get(f"{served.url}/metrics").text
        lines = [
            line for line in text.splitlines() if line.startswith("rounds_http_requests_total{") and "predict" in line
        ]
        return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines))

    before = requests()
    port = int(proxy.url.rsplit(":", 1)[1])
    context = ssl.create_default_context(cafile=proxy.certificate)
    with (
        socket.create_connection(("127.0.0.1", port)) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as tls,
    ):
        tls.sendall(
            b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ncontent-length: 5000\r\n\r\nhalf"
        )
        with client(proxy) as https:
            assert https.post("/v1/predict", content=films_as_png(1)[0], headers=PNG).status_code == 200
        assert requests() == before + 1


def test_problems_of_the_proxy_are_well_formed(proxy: Proxy) -> None:
    with client(proxy) as https:
        assert json.loads(https.get("/nothing").text)["status"] == 404
