"""A request that is sent twice is done once, and answered alike: at once, later, and after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.support.server import Served, server
from tests.support.workspace import films_as_png, opened, promote

from rounds.faces.web import once
from rounds.faces.web.body import Intake
from rounds.faces.web.once import Once


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("once") / "home"
    promote(folder)
    return folder


@pytest.fixture(scope="module")
def served(home: Path) -> Iterator[Served]:
    with server(home) as running:
        yield running


def ask(served: Served, key: str, film: bytes, query: str = "") -> httpx.Response:
    headers = {"idempotency-key": key, "content-type": "image/png"}
    return httpx.post(f"{served.url}/v1/predict{query}", content=film, headers=headers)


def test_the_same_key_and_body_get_the_same_bytes_and_one_row(served: Served, home: Path) -> None:
    film = films_as_png(1)[0]
    answers = [ask(served, "one", film, "?reference=r1") for _ in range(3)]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert len({answer.headers["x-request-id"] for answer in answers}) == 3
    assert ask(served, "another", film, "?reference=r1").json()["id"] != answers[0].json()["id"]
    with opened(home) as ports:
        httpx.get(f"{served.url}/v1/predictions/{answers[0].json()['id']}")
        assert len(ports.captures.by_reference("r1")) == 2


def test_requests_with_one_key_that_come_together_are_done_once(served: Served) -> None:
    film = films_as_png(2)[1]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(served, "together", film), range(24)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1


def test_a_key_that_was_used_for_another_request_is_422(served: Served) -> None:
    first, second = films_as_png(2)
    assert ask(served, "used", first).status_code == 200
    for answer in (ask(served, "used", second), ask(served, "used", first, "?reference=r2")):
        assert answer.status_code == 422
        assert answer.json()["detail"] == "the idempotency key was used before"
    assert ask(served, "used", first).status_code == 200


def test_what_failed_may_be_tried_again_under_the_same_key(served: Served) -> None:
    film = films_as_png(1)[0]
    assert ask(served, "failed", b"no film").status_code == 415
    assert ask(served, "failed", film).status_code == 200


def test_a_key_that_is_none_is_400(served: Served) -> None:
    for key in ("", "x" * 256):
        assert ask(served, key, films_as_png(1)[0]).status_code == 400


def test_a_form_that_is_sent_again_with_another_boundary_is_the_same_request(served: Served) -> None:
    def send() -> bytes:
        files = [("files", ("a.png", films_as_png(2)[0])), ("files", ("b.png", films_as_png(2)[1]))]
        return httpx.post(f"{served.url}/v1/predict", files=files, headers={"idempotency-key": "form"}).content

    assert send() == send()


def test_labels_and_rollbacks_are_done_once(served: Served) -> None:
    name = ask(served, "for-a-label", films_as_png(1)[0]).json()["id"]
    headers = {"idempotency-key": "label"}
    rows = [{"prediction": name, "label": "normal"}]
    answers = [httpx.post(f"{served.url}/v1/labels", json=rows, headers=headers).json() for _ in range(2)]
    assert answers == [{"accepted": 1, "refused": []}] * 2


def test_after_a_restart_a_request_that_is_sent_again_gets_the_same_bytes_also_from_another_champion(
    tmp_path: Path,
) -> None:
    home, (film, other) = tmp_path / "home", films_as_png(2)
    promote(home)
    files = [("files", ("a.png", film)), ("files", ("b.png", other))]
    batch = {"files": files, "headers": {"idempotency-key": "batch"}}
    with server(home) as served:
        before = ask(served, "kept", film, "?reference=r9").content
        many = httpx.post(f"{served.url}/v1/predict/batch", **batch).content  # type: ignore[arg-type]
        served.process.kill()
    promote(home, seed=3)
    with server(home) as served:
        assert ask(served, "kept", film, "?reference=r9").content == before
        assert httpx.post(f"{served.url}/v1/predict/batch", **batch).content == many  # type: ignore[arg-type]
        assert ask(served, "new", film).json()["version"] == "v2"


def test_answers_are_kept_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "MOST", 3)
    done = list[str]()

    async def app(scope: dict[str, object], receive: object, send: object) -> None:
        done.append(str(scope["path"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": b"done"})  # type: ignore[operator]

    async def story() -> list[int]:
        kept = Once("secret", Intake(100))

        async def send_once(key: bytes) -> int:
            messages = [{"type": "http.request", "body": b"x"}]

            async def receive() -> dict[str, object]:
                return messages.pop()

            async def send(_message: object) -> None:
                """Nobody listens."""

            scope = {"path": "/", "query_string": b"", "headers": [(b"idempotency-key", key)]}
            await kept(app, scope, receive, send)  # type: ignore[arg-type]
            return len(done)

        return [await send_once(key) for key in (b"a", b"a", b"b", b"c", b"d", b"d", b"a")]

    assert asyncio.run(story()) == [1, 1, 2, 3, 4, 4, 5]
