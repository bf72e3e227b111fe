"""The wheel, in a fresh environment with the core dependencies alone: it predicts, on the screen and over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.bundles import tiny_films
from tests.support.workspace import promote

from rounds.imaging.fit import encode_png

ROOT = Path(__file__).parents[1]
TRAINS = ("torch", "lightning", "mlflow", "pandas", "matplotlib", "hydra", "onnx", "sklearn")


def run(*command: str | Path, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command outside the repository; what it said is shown where it ends otherwise than expected."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "ROUNDS_", "COV"))}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=200, cwd=ROOT, env=clean | environment
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this working tree."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a fresh environment that holds the wheel and what it asks for, nothing else."""
    place, uv = tmp_path_factory.mktemp("fresh") / "venv", Path(sys.executable).parent / "uv"
    if not uv.is_file():
        pytest.skip("uv is not installed: pip install uv")
    certificate = {"SSL_CERT_FILE": os.environ["PIP_CERT"]} if os.environ.get("PIP_CERT") else {}
    links = ["--find-links", os.environ["PIP_FIND_LINKS"]] if os.environ.get("PIP_FIND_LINKS") else []
    run(uv, "venv", "--quiet", "--python", sys.executable, place, **certificate)
    target = ("--python", place / "bin" / "python", "--constraint", ROOT / "requirements.txt")
    run(uv, "pip", "install", "--quiet", *target, *links, wheel, **certificate)
    return place / "bin"


@contextmanager
def served(rounds: Path, home: Path, log: Path) -> Iterator[str]:
    """The address of `rounds serve` on a free port, once it says that it listens."""
    command = [rounds, "--home", home, "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=log.parent) as process:
        assert process.stderr is not None
        lines = [process.stderr.readline()]
        while lines[-1] and " on http://" not in lines[-1]:
            lines.append(process.stderr.readline())
        rest = threading.Thread(target=process.stderr.read)
        rest.start()
        try:
            assert lines[-1], "".join(lines)
            yield lines[-1].split(" on ", 1)[1].split(",")[0].strip()
        finally:
            process.terminate()
            rest.join(20)


def test_the_wheel_holds_templates_styles_and_the_mark_of_its_types(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    source = ROOT / "src"
    wanted = {
        str(path.relative_to(source))
        for path in (source / "rounds").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted <= held
    assert "rounds/py.typed" in held
    assert any(name.endswith(".html.j2") for name in held)
    assert {name for name in held if not name.startswith("rounds/")} == {name for name in held if ".dist-info/" in name}


def test_the_core_install_cannot_import_what_trains(installed: Path) -> None:
    program = (
        "import importlib.util, json, sys, rounds\n"
        f"found = [name for name in {TRAINS!r} if importlib.util.find_spec(name)]\n"
        "print(json.dumps([found, rounds.__version__, rounds.__file__]))"
    )
    found, version, place = json.loads(run(installed / "python", "-c", program).stdout)
    assert found == []
    assert version == "0.1.0"
    assert Path(place).is_relative_to(installed.parent)


def test_the_core_install_predicts_and_serves_a_bundle_that_was_made_elsewhere(
    installed: Path, home: Path, tmp_path: Path
) -> None:
    bundle, film = promote(home), tmp_path / "film.png"
    film.write_bytes(encode_png(tiny_films(1, seed=4)[0]))
    rounds = installed / "rounds"
    done = run(rounds, "--home", tmp_path / "other", "predict", film, "--bundle", bundle.path, "--json")
    (said,) = json.loads(done.stdout)["predictions"]
    assert (said["bundle"], said["path"]) == (bundle.digest, str(film))
    with served(rounds, home, tmp_path / "log") as address:
        request = urllib.request.Request(
            f"{address}/v1/predict", film.read_bytes(), {"content-type": "image/png"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=20) as response:
            answer: dict[str, Any] = json.load(response)
    assert (answer["bundle"], answer["version"], answer["class"]) == (bundle.digest, "v1", said["class"])
    assert answer["probabilities"] == pytest.approx(said["probabilities"])
    shown = json.loads(run(rounds, "--home", home, "policy", "--json").stdout)
    assert set(shown) == {"gate", "monitor", "policy", "serve", "capture"}
    assert json.loads(run(rounds, "--home", home, "watch", "--once", "--json").stdout)["decision"] == "hold"
    trained = run(rounds, "--home", home, "train", "--json", code=3)
    assert json.loads(trained.stdout)["error"]["message"] == "this command needs hydra, which is not installed"
    assert "pip install 'rounds[train]'" in trained.stderr
