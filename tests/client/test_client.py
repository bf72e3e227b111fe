"""The client: the same calls waiting and awaited, tried again as the server asks, and errors with every field."""

from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.server import Served, server
from tests.support.workspace import films_as_png, opened, promote

from rounds.client import ApiError, AsyncClient, Client, Retry, Unreachable, calls
from rounds.client.calls import Heard, carried_out
from rounds.core.records import Label
from rounds.loop import keyring

QUICK = Retry(first_s=0.001, longest_s=0.002)
ANSWER = {
    "id": "p_1",
    "class": "normal",
    "probabilities": {"normal": 0.9, "opacity": 0.1},
    "set": ["normal"],
    "refer": False,
    "reason": None,
    "ood": 0.5,
    "version": "v1",
    "bundle": "b" * 64,
    "ms": 1.5,
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, str]]:
    home = tmp_path_factory.mktemp("client") / "home"
    promote(home)
    with opened(home) as ports:
        key, _ = keyring.add(ports, "client", ["admin"])
    with server(home) as running:
        yield running, key


def test_both_clients_get_every_answer_of_a_real_server(served: tuple[Served, str]) -> None:
    running, key = served
    film = films_as_png(1)[0]

    def waited() -> list[Any]:
        with Client(running.url, key) as client:
            one = client.predict(film, reference="r 1/ä", subject="s", content_type="image/png")
            many = client.predict_batch({"a.png": film, "b.txt": b"no"})
            attached = client.label([Label("normal", prediction=one.id), Label("cat", reference="r 1/ä")])
            recalled = client.recall(one.id)
            return [one, many, attached, recalled, client.explain(one.id), client.models(), client.ready()]

    async def awaited() -> list[Any]:
        async with AsyncClient(running.url, key) as client:
            one = await client.predict(film, reference="r 2/ä", subject="s", content_type="image/png")
            many = await client.predict_batch({"a.png": film, "b.txt": b"no"})
            attached = await client.label([Label("normal", prediction=one.id), Label("cat", reference="r 2/ä")])
            recalled = await client.recall(one.id)
            return [
                one,
                many,
                attached,
                recalled,
                await client.explain(one.id),
                await client.models(),
                await client.ready(),
            ]

    for one, many, attached, recalled, png, models, ready in (waited(), asyncio.run(awaited())):
        assert one.label in one.probabilities
        assert one.reference in ("r 1/ä", "r 2/ä")
        assert [answer.path for answer in many.predictions] == ["a.png"]
        assert list(many.refused) == ["b.txt"]
        assert (attached.accepted, list(attached.refused)) == (1, [1])
        assert recalled.prediction == one
        assert (recalled.label.label, recalled.label.by) == ("normal", "client")
        assert png.startswith(b"\x89PNG")
        assert models["champion"] == ready["version"] == one.version


def test_a_refusal_is_an_error_with_every_field_of_the_problem(served: tuple[Served, str]) -> None:
    running, key = served
    with Client(running.url, key, retry=QUICK) as client:
        with pytest.raises(ApiError, match="415: the image is not taken") as caught:
            client.predict(b"no film")
        assert (caught.value.kind, caught.value.faults[0].what) == ("BadImage", "not an image we take")
        assert caught.value.request_id.startswith("r_")
        with pytest.raises(ApiError, match="v1 is the champion") as caught:
            client.promote("v1")
        assert caught.value.report["version"] == "v1"
        with pytest.raises(ApiError, match="the rollback is refused"):
            client.roll_back(why="a test")
    with Client(running.url, "rk_wrong") as stranger, pytest.raises(ApiError, match="401: a key is needed"):
        stranger.models()


def test_both_clients_have_the_same_calls_with_the_same_words() -> None:
    names = {name for name, call in vars(calls).items() if inspect.isfunction(call) and _makes_a_call(call)}
    for kind in (Client, AsyncClient):
        assert names <= set(vars(kind)), names - set(vars(kind))
        for name in names:
            assert getattr(kind, name).__doc__ == getattr(calls, name).__doc__


def _makes_a_call(call: Any) -> bool:
    return not call.__name__.startswith("_") and str(call.__annotations__.get("return", "")).startswith("Call[")


def answering(*answers: httpx.Response | Exception) -> tuple[httpx.MockTransport, list[httpx.Request]]:
    """A network that gives these answers in turn."""
    asked, left = list[httpx.Request](), list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    return httpx.MockTransport(answer), asked


def test_what_the_server_asks_to_send_again_is_sent_again_under_the_same_key() -> None:
    for again in (
        httpx.Response(503, headers={"retry-after": "0"}),
        httpx.Response(429, headers={"retry-after": format_datetime(datetime.now(UTC) - timedelta(1), usegmt=True)}),
        httpx.Response(502, content=b"<html>"),
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
    ):
        network, asked = answering(again, again, httpx.Response(200, json=ANSWER))
        with Client("http://rounds", "k", retry=QUICK, transport=network) as client:
            assert client.predict(b"film").id == "p_1"
        assert len(asked) == 3
        assert len({request.headers["idempotency-key"] for request in asked}) == 1
        assert {request.headers["authorization"] for request in asked} == {"Bearer k"}
        assert {request.content for request in asked} == {b"film"}


def test_what_the_server_refuses_for_good_is_sent_once() -> None:
    for status in (400, 401, 404, 409, 413, 422, 500):
        network, asked = answering(httpx.Response(status, json={"detail": "no"}))
        with Client("http://rounds", transport=network) as client, pytest.raises(ApiError) as caught:
            client.predict(b"film")
        assert (caught.value.status, len(asked)) == (status, 1)


def test_the_wait_is_the_servers_else_it_doubles_and_all_of_it_has_an_end() -> None:
    def waits(retry: Retry, heard: Heard) -> tuple[list[float], Exception]:
        seconds, clock = list[float](), [0.0]
        steps = carried_out(calls.models(), retry, lambda: clock[0])
        step = next(steps)
        try:
            while True:
                if isinstance(step, calls.Wait):
                    seconds.append(step.seconds)
                    clock[0] += step.seconds
                    step = next(steps)
                else:
                    step = steps.send(heard)
        except (ApiError, Unreachable) as error:
            return seconds, error

    told, error = waits(Retry(), Heard(503, {"retry-after": "7"}))
    assert told == [7.0] * 4
    assert isinstance(error, ApiError)
    assert error.retry_after == 7.0
    doubled, _ = waits(Retry(tries=9, longest_s=1.0), Heard(503))
    assert all(0.5 * min(1.0, 0.1 * 2**i) <= wait <= min(1.0, 0.1 * 2**i) for i, wait in enumerate(doubled))
    assert waits(Retry(within_s=10), Heard(429, {"retry-after": "3600"}))[0] == []
    _, lost = waits(Retry(tries=1), Heard(0, failure=OSError("gone")))
    assert isinstance(lost, Unreachable)
    assert str(lost) == "no answer to GET /v1/models: gone"


def test_a_server_that_is_restarted_meanwhile_is_waited_for_by_both(tmp_path: Path) -> None:
    home, film = tmp_path / "home", films_as_png(1)[0]
    promote(home)
    with server(home) as first:
        port = first.port

    async def story() -> Sequence[str]:
        async with AsyncClient(f"http://127.0.0.1:{port}", retry=Retry(tries=50, longest_s=0.5)) as client:
            asking = asyncio.gather(*(client.predict(film) for _ in range(4)))
            await asyncio.sleep(0.3)
            again = server(home, port=port)
            await asyncio.to_thread(again.__enter__)
            try:
                return [answer.version for answer in await asking]
            finally:
                await asyncio.to_thread(again.__exit__, None, None, None)

    assert asyncio.run(story()) == ["v1"] * 4


def test_the_client_needs_neither_the_server_nor_what_it_serves_with() -> None:
    code = "import rounds.client, sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    assert not [name for name in ("numpy", "fastapi", "onnxruntime", "sqlalchemy", "cv2") if name in loaded]
