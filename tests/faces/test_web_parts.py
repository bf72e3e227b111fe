"""Parts of the HTTP face that no well-behaved client reaches."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import ClientDisconnect
from tests.support.workspace import films_as_png, opened, promote

from rounds.core.errors import WorldFault
from rounds.core.ports import Ports
from rounds.core.specs import MonitorSpec, ServeSpec
from rounds.faces.web.app import create_app
from rounds.faces.web.body import Intake


def messages(*given: dict[str, Any]) -> Any:
    left = list(given)

    async def receive() -> dict[str, Any]:
        return left.pop(0)

    return receive


def test_bodies_are_held_up_to_a_bound_in_all_and_given_back_at_the_end() -> None:
    async def story() -> None:
        intake, scope = Intake(100), {"headers": []}
        part = {"type": "http.request", "body": bytes(100)}

        async def hold(n: int) -> None:
            if n == 0:
                with pytest.raises(WorldFault, match=r"the server is overloaded\n  too many large uploads at once"):
                    async with intake.body(scope, messages(part)):
                        pass
                return
            async with intake.body(scope, messages(part)) as body:
                assert len(body) == 100
                await hold(n - 1)

        await hold(8)
        await hold(8)

    asyncio.run(story())


def test_a_client_that_leaves_in_the_middle_of_its_body_is_let_go() -> None:
    async def story() -> None:
        receive = messages({"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"})
        with pytest.raises(ClientDisconnect):
            async with Intake(100).body({"headers": []}, receive):
                pass

    asyncio.run(story())


def test_without_a_watch_the_findings_are_the_alarms_of_the_log(home: Path) -> None:
    promote(home)
    with opened(home) as ports:
        ports.events.append("alarm", who="test", why="a test", evidence={"id": "f_1", "kind": "drift", "alarm": True})
    answers = asyncio.run(asked(home, [("GET", "/v1/findings", b"")]))
    found = answers[0].json()
    assert found["n"] == 0
    assert found["findings"] == [{"id": "f_1", "kind": "drift", "alarm": True}]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_server_that_no_longer_follows_the_log_asks_to_be_restarted(home: Path) -> None:
    promote(home)

    class Broken:
        def __init__(self, ports: Ports) -> None:
            self.events, self.calls = ports.events, 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.events, name)

        def head(self) -> int:
            self.calls += 1
            if self.calls > 1:
                raise RuntimeError("a bug")
            return self.events.head()

    def change(ports: Ports) -> Ports:
        broken: Any = Broken(ports)
        return dataclasses.replace(ports, events=broken)

    answers = asyncio.run(asked(home, [("GET", "/health/live", b"")], change, wait_s=0.3))
    assert answers[0].status_code == 503
    assert answers[0].json()["detail"] == "the log is no longer followed"
    assert answers[0].json()["faults"][0]["next"] == "restart the server"


def test_an_answer_that_cannot_be_kept_is_503_with_retry_after_and_no_answer(home: Path) -> None:
    promote(home)
    (home / "journal").write_text("no folder")
    (answer,) = asyncio.run(asked(home, [("POST", "/v1/predict", films_as_png(1)[0])]))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["kind"] == "StoreAway"
    assert answer.json()["detail"] == "the answer could not be kept, so it is not given"
    (home / "journal").unlink()
    with opened(home) as ports:
        assert ports.captures.count() == 0


async def asked(
    home: Path,
    requests: list[tuple[str, str, bytes]],
    change: Callable[[Ports], Ports] = lambda ports: ports,
    wait_s: float = 0.0,
) -> list[httpx.Response]:
    @contextmanager
    def ports() -> Iterator[Ports]:
        with opened(home) as found:
            yield change(found)

    app = create_app(ports, ServeSpec(poll_s=0.01), MonitorSpec())
    async with app.router.lifespan_context(app):
        await asyncio.sleep(wait_s)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://rounds") as client:
            return [await client.request(method, path, content=body) for method, path, body in requests]
