"""The description holds, and strangers' clients work: schemathesis, a generated client, curl and requests."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import requests
from tests.support.server import Served, server
from tests.support.workspace import films_as_png, opened, promote

from rounds.faces.web.openapi import document
from rounds.faces.web.routes import router
from rounds.loop import keyring

HOOKS = Path(__file__).parents[1] / "support" / "schemathesis_hooks.py"
GENERATOR = "openapi-python-client==0.29.1"


@dataclass
class Ward:
    """A server with keys in force, and a key that may do everything."""

    served: Served
    key: str

    @property
    def url(self) -> str:
        return self.served.url


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    home = tmp_path_factory.mktemp("openapi") / "home"
    promote(home)
    with opened(home) as ports:
        key, _ = keyring.add(ports, "stranger", ["admin"])
    with server(home) as running:
        yield Ward(running, key)


def test_every_route_is_described_and_nothing_else() -> None:
    served = {(route.path, method.lower()) for route in router.routes for method in getattr(route, "methods", ())}
    described = {(path, method) for path, given in document("", "")["paths"].items() for method in given}
    assert described == served | {("/v1/predict", "post"), ("/v1/predict/batch", "post")}


def test_every_example_is_what_its_schema_says() -> None:
    found = document("Rounds", "1")

    def check(value: Any, schema: Mapping[str, Any]) -> None:
        whole = {**schema, "components": found["components"]}
        jsonschema.Draft202012Validator(whole, format_checker=jsonschema.FormatChecker()).validate(value)

    checked = 0
    for methods in found["paths"].values():
        for operation in methods.values():
            places = [operation.get("requestBody", {}), *operation["responses"].values()]
            for media in (media for place in places for media in place.get("content", {}).values()):
                values = [one["value"] for one in media.get("examples", {}).values()]
                for value in [*values, *([media["example"]] if "example" in media else [])]:
                    check(value, media["schema"])
                    checked += 1
    assert checked > 50


def test_real_answers_are_what_the_description_says(ward: Ward) -> None:
    found = httpx.get(f"{ward.url}/openapi.json").json()
    headers, film = {"x-api-key": ward.key}, films_as_png(1)[0]
    name = httpx.post(f"{ward.url}/v1/predict", content=film, headers=headers).json()["id"]
    for path, method, given in (
        ("/v1/predict", "post", {"content": film}),
        ("/v1/predict", "post", {"content": b"no film"}),
        ("/v1/predict/batch", "post", {"files": {"files": ("a.png", film)}}),
        ("/v1/predictions/{prediction}", "get", {}),
        ("/v1/labels", "post", {"json": [{"prediction": name, "label": "normal"}, 7]}),
        ("/v1/predictions/{prediction}", "get", {}),
        ("/v1/promote", "post", {"json": {"version": "v1"}}),
        ("/v1/rollback", "post", {"json": {}}),
        ("/v1/models", "get", {}),
        ("/v1/findings", "get", {}),
        ("/health/live", "get", {}),
        ("/health/ready", "get", {}),
    ):
        answer = httpx.request(method, ward.url + path.format(prediction=name), headers=headers, timeout=60, **given)  # type: ignore[arg-type]
        said = found["paths"][path][method]["responses"][str(answer.status_code)]["content"]
        schema = said[answer.headers["content-type"]]["schema"]
        jsonschema.Draft202012Validator({**schema, "components": found["components"]}).validate(answer.json())


def test_curl_and_requests_are_answered(ward: Ward, tmp_path: Path) -> None:
    film = tmp_path / "film.png"
    film.write_bytes(films_as_png(1)[0])
    bearer = {"authorization": f"Bearer {ward.key}"}
    with film.open("rb") as file:
        sent = requests.post(f"{ward.url}/v1/predict", files={"file": file}, headers=bearer, timeout=10)
    raw = requests.post(f"{ward.url}/v1/predict", data=film.read_bytes(), headers=bearer, timeout=10)
    assert (sent.status_code, raw.status_code) == (200, 200)
    answers = [sent.json(), raw.json()]
    curl = shutil.which("curl")
    if curl:
        key = ["-sS", "--fail-with-body", "-H", f"x-api-key: {ward.key}"]
        for how in (["-F", f"file=@{film}"], ["-H", "content-type: image/png", "--data-binary", f"@{film}"]):
            done = subprocess.run([curl, *key, *how, f"{ward.url}/v1/predict"], capture_output=True, check=True)
            answers.append(json.loads(done.stdout))
    assert len({answer["probabilities"]["normal"] for answer in answers}) == 1


@pytest.mark.slow
def test_every_check_of_schemathesis_holds(ward: Ward, tmp_path: Path) -> None:
    pytest.importorskip("schemathesis")
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{ward.url}/openapi.json"]
    command += ["--checks", "all", "--header", f"x-api-key: {ward.key}", "--max-examples", "15", "--seed", "1"]
    command += ["--workers", "1", "--no-color", "--continue-on-failure"]
    environment = {"SCHEMATHESIS_HOOKS": HOOKS.stem, "PYTHONPATH": str(HOOKS.parent), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout[-12_000:] + done.stderr[-2000:]
    assert "Tested: 12" in done.stdout
    assert "Failures:" not in done.stdout
    assert ward.served.process.poll() is None
    assert not [line for line in ward.served.lines if "Traceback" in line]


@pytest.mark.slow
def test_a_client_that_was_generated_from_the_description_predicts(ward: Ward, tmp_path: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    description = tmp_path / "openapi.json"
    description.write_text(httpx.get(f"{ward.url}/openapi.json").text)
    # It wants an older typer than ours: so it runs in an environment of its own.
    command = [str(uv), "tool", "run", "--from", GENERATOR, "openapi-python-client", "generate"]
    command += ["--path", str(description), "--output-path", str(tmp_path / "made"), "--meta", "none"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "generate" not in done.stdout + done.stderr:
        pytest.skip(f"the generator cannot be had here: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "film.png").write_bytes(films_as_png(1)[0])
    story = """
import io, sys
from made import AuthenticatedClient
from made.api.models import models
from made.api.predict import predict, recall
from made.models import Prediction
from made.types import File
client = AuthenticatedClient(base_url=sys.argv[1], token=sys.argv[2])
answer = predict.sync(client=client, body=File(io.BytesIO(open(sys.argv[3], "rb").read())), reference="r-1")
assert isinstance(answer, Prediction), answer
again = recall.sync(answer.id, client=client)
assert again.class_ == answer.class_ and again.reference == "r-1", again
assert models.sync(client=client).champion == answer.version
print(answer.class_)
"""
    given = [sys.executable, "-c", story, ward.url, ward.key, str(tmp_path / "film.png")]
    done = subprocess.run(given, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("normal", "opacity")
