"""The operator over HTTP: the same gate and the same way back as on the command line, under the key's name."""

from __future__ import annotations

from pathlib import Path

import httpx
from tests.support.captured import begin, dataset_in, packed
from tests.support.server import server
from tests.support.workspace import films_as_png, opened

from rounds.loop import keyring, tracing


def test_a_bundle_is_refused_with_the_gates_report_then_overruled_by_an_admin_and_rolled_back(home: Path) -> None:
    with opened(home) as ports:
        begin(ports)
        worse = packed(ports, dataset_in(ports), bias=3.0)
        operator, admin = (keyring.add(ports, name, [name])[0] for name in ("operate", "admin"))
    with server(home) as served, httpx.Client(base_url=served.url, timeout=60) as client:

        def order(path: str, key: str, **body: str) -> httpx.Response:
            return client.post(path, json=body, headers={"x-api-key": key})

        def answering() -> str:
            answer = client.post("/v1/predict", content=films_as_png(1)[0], headers={"x-api-key": admin})
            return str(answer.json()["version"])

        refused = order("/v1/promote", operator, bundle=worse.digest[:16])
        assert refused.status_code == 409
        problem = refused.json()
        assert (problem["kind"], problem["detail"].split(":")[0]) == ("GateRefused", "v2 may not serve")
        assert {"version", "from", "to", "passed", "checks", "seconds"} <= set(problem["report"])
        assert answering() == "v1"
        assert order("/v1/promote", operator, version="v2", overrule="a test").status_code == 403
        done = order("/v1/promote", admin, version="v2", overrule="a test").json()
        assert (done["from"], done["to"], done["passed"]) == ("v1", "v2", False)
        _soon(lambda: answering() == "v2")
        back = order("/v1/rollback", operator, why="it was worse").json()
        assert (back["from"], back["to"], back["passed"]) == ("v2", "v1", True)
        _soon(lambda: answering() == "v1")
        assert order("/v1/rollback", operator, to="v9").status_code in (404, 409)
    with opened(home) as ports:
        who = {event.kind: event.who for event in ports.events.read() if event.who.startswith("key")}
        assert who.pop("registered") == "key: operate"
        assert who == {"gated": "key: admin", "promoted": "key: admin", "rolled_back": "key: operate"}
        assert tracing.audit(ports)["ok"]


def test_an_order_that_no_page_of_a_stranger_could_send_is_the_only_one_that_is_taken(home: Path) -> None:
    with opened(home) as ports:
        begin(ports)
    with server(home) as served:
        for body, media, status, detail in (
            (b'{"version": "v1"}', "text/plain", 415, "the body is not declared as JSON"),
            (b"{", "application/json", 400, "the body cannot be read"),
            (b"[]", "application/json", 422, "the order cannot be read"),
            (b"{}", "application/json", 422, "it is not said what is to be promoted"),
            (b'{"version": "v1", "bundle": "v1"}', "application/json", 422, "it is not said what is to be promoted"),
            (b'{"bundle": "/tmp"}', "application/json", 422, "it is not said what is to be promoted"),
            (b'{"version": 1, "by": "me"}', "application/json", 422, "the order cannot be understood"),
            (b'{"bundle": "feedface"}', "application/json", 404, "no bundle 'feedface'"),
            (b'{"version": "v1"}', "application/json", 409, "v1 is the champion"),
        ):
            url, headers = f"{served.url}/v1/promote", {"content-type": media}
            answer = httpx.post(url, content=body, headers=headers, timeout=60)
            assert (answer.status_code, answer.json()["detail"]) == (status, detail)


def _soon(happened: object) -> None:
    from tests.faces.test_web_keys import until

    assert until(happened) < 3
