"""A bundle as a BentoML project: served by BentoML itself, it answers as `rounds predict` does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.bundles import tiny_bundle
from tests.support.commands import rounds
from tests.support.workspace import films_as_png

BENTOML = [sys.executable, "-m", "bentoml"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    bundle = tiny_bundle(tmp_path / "bundles")
    rounds(tmp_path / "home", "register", bundle.path)
    said = rounds(tmp_path / "home", "export-bento", "latest", "--out", tmp_path / "project", "--json")
    assert said.code == 0, said.err
    assert Path(said.json["path"]) == tmp_path / "project"
    return tmp_path / "project"


def environment(tmp_path: Path) -> dict[str, str]:
    telling = {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(tmp_path / "bentoml"), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **telling}


def test_the_project_is_written_again_but_never_over_other_files(project: Path, tmp_path: Path) -> None:
    assert sorted(file.name for file in project.iterdir()) == ["bentofile.yaml", "bundle", "service.py"]
    again = rounds(tmp_path / "home", "export-bento", "latest", "--out", project)
    assert again.code == 0
    (project / "mine.txt").write_text("mine")
    refused = rounds(tmp_path / "home", "export-bento", "latest", "--out", project, "--json")
    assert (refused.code, refused.message) == (2, "the service cannot be written")
    assert (project / "mine.txt").read_text() == "mine"


@pytest.mark.slow
def test_bentoml_serves_the_same_answers(project: Path, tmp_path: Path) -> None:
    pytest.importorskip("bentoml", reason="pip install 'rounds[bento]'")
    films = films_as_png(4, size=16)
    for i, film in enumerate(films):
        (tmp_path / f"{i}.png").write_bytes(film)
    ours = rounds(
        tmp_path / "home", "predict", "--bundle", "latest", *(tmp_path / f"{i}.png" for i in range(4)), "--json"
    ).json
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*BENTOML, "serve", "service:Rounds", "--host", "127.0.0.1", "--port", str(port)],
            cwd=project, env=environment(tmp_path), stdout=log, stderr=log,
        )  # fmt: skip
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            ready(client, process, tmp_path / "log")
            for film, wanted in zip(films, ours["predictions"], strict=True):
                said: dict[str, Any] = client.post("/predict", files={"film": ("a.png", film, "image/png")}).json()
                assert said["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-6)
                assert said["ood"] == pytest.approx(wanted["ood"], abs=1e-6)
                same = ("class", "set", "refer", "reason", "bundle")
                assert {key: said[key] for key in same} == {key: wanted[key] for key in same}
            bad = client.post("/predict", files={"film": ("a.png", b"no film", "image/png")})
            assert bad.status_code == 400
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.slow
def test_bentoml_builds_the_project_offline(project: Path, tmp_path: Path) -> None:
    pytest.importorskip("bentoml", reason="pip install 'rounds[bento]'")
    done = subprocess.run(
        [*BENTOML, "build", "-o", "tag"], cwd=project, env=environment(tmp_path), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "bentoml").rglob("bundle/model.onnx"))


def ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())


def test_a_bundle_of_any_folder_can_be_written(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundles")
    said = rounds(tmp_path / "home", "export-bento", bundle.path, "--out", tmp_path / "project", "--json")
    assert said.json["bundle"] == bundle.digest
