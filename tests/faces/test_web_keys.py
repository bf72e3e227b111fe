"""Who may call: keys, scopes, rates, and a server that does not listen to strangers without them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.support.commands import rounds
from tests.support.server import Served, server
from tests.support.workspace import films_as_png, opened, promote

from rounds.core.errors import WorldFault
from rounds.core.specs import ServeSpec
from rounds.faces.web.guard import Denied, Guard
from rounds.loop import keyring, ruling

SCOPES = ("predict", "label", "operate", "admin")


@dataclass
class Ward:
    """A server whose workspace has one key of each scope."""

    home: Path
    served: Served
    keys: dict[str, str]

    def ask(self, method: str, path: str, key: str | None, **given: object) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.keys.get(key, key)}"} if key else {}
        return httpx.request(method, self.served.url + path, headers=headers, **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    home = tmp_path_factory.mktemp("keys") / "home"
    promote(home)
    with opened(home) as ports:
        keys = {scope: keyring.add(ports, f"the-{scope}", [scope], 1)[0] for scope in SCOPES}
    with server(home) as served:
        yield Ward(home, served, keys)


def statuses(ward: Ward, method: str, path: str, **given: object) -> dict[str, int]:
    return {str(key): ward.ask(method, path, key, **given).status_code for key in (None, *SCOPES)}


def test_each_route_takes_its_scope_and_admin_all(ward: Ward) -> None:
    film, denied = films_as_png(1)[0], {"None": 401, "predict": 403, "label": 403, "operate": 403}
    predict = {**denied, "predict": 200, "admin": 200}
    assert statuses(ward, "POST", "/v1/predict", content=film) == predict
    assert statuses(ward, "POST", "/v1/predict/batch", files={"files": film}) == predict
    name = ward.ask("POST", "/v1/predict", "predict", content=film).json()["id"]
    assert statuses(ward, "GET", f"/v1/predictions/{name}") == predict
    assert statuses(ward, "GET", f"/v1/predictions/{name}/explanation.png") == predict
    assert statuses(ward, "POST", "/v1/labels", json=[]) == {**denied, "label": 200, "admin": 200}
    assert statuses(ward, "POST", "/v1/rollback", json={}) == {**denied, "operate": 409, "admin": 409}
    overruled = {"bundle": "latest", "overrule": "because"}
    assert statuses(ward, "POST", "/v1/promote", json=overruled) == {**denied, "admin": 409}
    every = dict.fromkeys(map(str, SCOPES), 200)
    assert statuses(ward, "GET", "/v1/models") == {"None": 401, **every}
    assert statuses(ward, "GET", "/no/such/path") == {"None": 401, **dict.fromkeys(SCOPES, 404)}
    for path in ("/health/live", "/health/ready", "/openapi.json", "/metrics"):
        assert statuses(ward, "GET", path) == {"None": 200, **every}, path


def test_a_request_without_a_good_key_is_told_how_to_bear_one_and_not_which_was_wrong(ward: Ward) -> None:
    for given in ({}, {"authorization": "Bearer nonsense"}, {"x-api-key": ward.keys["predict"][:-1]}):
        answer = httpx.get(f"{ward.served.url}/v1/models", headers=given)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        problem = answer.json()
        assert (problem["kind"], problem["detail"]) == ("Denied", "a key is needed")
        assert problem["faults"][0]["expected"] == "authorization: Bearer KEY, or x-api-key: KEY"
    assert httpx.get(f"{ward.served.url}/v1/models", headers={"x-api-key": ward.keys["predict"]}).status_code == 200


def test_a_label_is_kept_under_the_name_of_the_key_whatever_it_says(ward: Ward) -> None:
    name = ward.ask("POST", "/v1/predict", "predict", content=films_as_png(1)[0]).json()["id"]
    row = {"prediction": name, "label": "normal", "by": "somebody else"}
    assert ward.ask("POST", "/v1/labels", "label", json=row).json() == {"accepted": 1, "refused": []}
    assert ward.ask("GET", f"/v1/predictions/{name}", "predict").json()["label"]["by"] == "the-label"


def test_a_key_that_is_added_or_revoked_counts_within_two_seconds(ward: Ward) -> None:
    added = rounds(ward.home, "keys", "add", "late", "--scope", "predict", "--days", "1", "--json").json
    assert until(lambda: ward.ask("GET", "/v1/models", added["key"]).status_code == 200) < 2
    rounds(ward.home, "keys", "revoke", "late")
    assert until(lambda: ward.ask("GET", "/v1/models", added["key"]).status_code == 401) < 2
    listed = {key["name"]: key["holds"] for key in rounds(ward.home, "keys", "list", "--json").json["keys"]}
    assert listed == {"late": False, **{f"the-{scope}": True for scope in SCOPES}}


def test_neither_keys_nor_patients_stand_in_the_servers_lines(ward: Ward) -> None:
    film, query = films_as_png(1)[0], "?reference=accession-4711&subject=Jane+Roe"
    assert ward.ask("POST", f"/v1/predict{query}", "predict", content=film).status_code == 200
    assert ward.ask("POST", f"/v1/predict{query}", "predict", content=b"broken").status_code == 415
    text = "\n".join(ward.served.lines)
    secrets = [key.split("_", 2)[2] for key in ward.keys.values()]
    assert not [word for word in ("4711", "Jane", "Roe", "broken", *secrets) if word in text]


def test_every_answer_forbids_browsers_to_guess_run_frame_or_keep_it(ward: Ward) -> None:
    for path, status in (("/v1/models", 200), ("/v1/predictions/p_0", 404), ("/health/live", 200)):
        answer = ward.ask("GET", path, "predict")
        assert answer.status_code == status
        said = {name: answer.headers[name] for name in ("x-content-type-options", "cache-control", "referrer-policy")}
        assert said == {
            "x-content-type-options": "nosniff",
            "cache-control": "no-store",
            "referrer-policy": "no-referrer",
        }
        assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"


def test_a_key_that_asks_too_often_waits_as_long_as_it_is_told_and_others_do_not(home: Path) -> None:
    promote(home)
    with opened(home) as ports:
        keys = [keyring.add(ports, name, ["predict"])[0] for name in ("busy", "calm")]
        ruling.change(ports, ruling.Rules(serve=ServeSpec(rate=2.0)))
    film = films_as_png(1)[0]
    with server(home) as served, httpx.Client(base_url=served.url) as client:

        def ask(key: str, path: str = "/v1/predict", **given: object) -> httpx.Response:
            return client.post(path, headers={"x-api-key": key}, **(given or {"content": film}))  # type: ignore[arg-type]

        answers = [ask(keys[0]) for _ in range(6)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(refused) >= 3
        assert (refused[0].json()["kind"], refused[0].headers["retry-after"]) == ("Denied", "1")
        assert ask(keys[1]).status_code == 200
        time.sleep(1.1)
        assert ask(keys[0]).status_code == 200
        many = [("files", (f"{i}.png", film)) for i in range(9)]
        assert ask(keys[1], "/v1/predict/batch", files=many).status_code == 200
        assert int(ask(keys[1]).headers["retry-after"]) >= 3


def test_the_server_refuses_to_listen_to_strangers_without_keys(home: Path) -> None:
    promote(home)
    command = [sys.executable, "-m", "rounds.faces.web", "--host", "0.0.0.0", "--port", "0"]
    environment = {**os.environ, "ROUNDS_HOME": str(home)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60)
    assert done.returncode == 2
    assert "refusing to listen on 0.0.0.0 without keys" in done.stderr
    assert "rounds keys add NAME --scope predict" in done.stderr


def test_beyond_loopback_nobody_is_let_in_even_where_the_keys_have_vanished(home: Path) -> None:
    with opened(home) as ports:
        text, _ = keyring.add(ports, "ward", ["predict"])
    guard = Guard(home, loopback=False)
    headers = {b"x-api-key": text.encode()}
    assert guard.admit("/v1/predict", headers) is not None
    with pytest.raises(Denied, match="a key is needed"):
        guard.admit("/metrics", {})
    (home / keyring.FILE).unlink()
    time.sleep(1.05)
    with pytest.raises(Denied, match="a key is needed"):
        guard.admit("/v1/predict", headers)
    (home / keyring.FILE).write_text("not keys")
    time.sleep(1.05)
    with pytest.raises(WorldFault, match="nobody is let in"):
        guard.admit("/v1/predict", headers)
    assert guard.admit("/health/live", {}) is None


def until(happened: object, patience: float = 10.0) -> float:
    """Seconds until it happened."""
    began = time.monotonic()
    while not happened():  # type: ignore[operator]
        assert time.monotonic() - began < patience
        time.sleep(0.05)
    return time.monotonic() - began
