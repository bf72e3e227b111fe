"""`rounds train` and its trackers, as the README has them: real processes, a real server, on a real PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.support.commands import rounds
from tests.support.postgres import postgres_url as postgres_url
from tests.support.tracking import free_port, held, kill, mlflow_server

# servers and trainings of a minute together, and of many on a busy machine
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
QUICK = ("experiment=phantom", "train.progress=false", "train.threads=1")


def start(home: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """The command as somebody types it."""
    command = [sys.executable, "-m", "rounds", "--home", str(home), *arguments]
    mine = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=mine)


def typed(home: Path, *arguments: str, **environment: str) -> tuple[Mapping[str, object], str]:
    """What it answered as JSON, and what it said beside that."""
    out, err = ended(start(home, *arguments, "--json", **environment))
    return json.loads(out), err


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What a command that ended well has printed."""
    try:
        out, err = process.communicate(timeout=400)
    finally:
        process.kill()
    assert process.returncode == 0, err
    return out, err


@pytest.fixture
def films(home: Path) -> Path:
    assert rounds(home, "data", "prepare", "phantom:n=700,seed=0", "--name", "ph").code == 0
    return home


def test_a_training_survives_its_server_and_the_server_has_it_whole_when_both_are_back(films, tmp_path, postgres_url):
    port = free_port()
    uri, store = f"http://127.0.0.1:{port}", postgres_url.replace("postgresql:", "postgresql+psycopg:")
    epochs = 30
    with mlflow_server(tmp_path, store, port) as server:
        training = start(
            films, "train", "--data", "ph", "--json", *QUICK, f"train.epochs={epochs}", ROUNDS_TRACKING=uri
        )
        while not any(len(path.read_text().splitlines()) > 2 for path in films.glob("runs/*/curve.csv")):
            assert training.poll() is None, training.communicate()[1]
            time.sleep(0.02)
        kill(server)
        out, err = ended(training)
    made = json.loads(out)
    assert err.count("the experiment tracker is away") == 1
    with mlflow_server(tmp_path, store, port):
        done, err = typed(films, "sync", ROUNDS_TRACKING=uri)
        assert done == {"waiting": [], "mirrored": True}
        assert err == f"rounds: run {made['run']}, which waited for the tracker, is on {uri} now\n"
        found = held(uri, tmp_path / "got")
    assert list(found) == [made["run"]], "it began while the server ran: the id is MLflow's"
    (run,) = found.values()
    assert run["state"] == "FINISHED"
    assert [step for step, _ in run["points"]["auc"]] == list(range(1, epochs + 1))
    assert run["points"]["val/auc"][0][0] == epochs
    bundle = Path(str(made["path"]))
    for file in bundle.iterdir():
        assert run["files"][f"bundle/{bundle.name}/{file.name}"] == file.read_bytes()
    assert {"weights.pt", "curve.png", "validation.png", "environment.json"} <= set(run["files"])
    assert not (films / "artifacts").exists(), "through the server alone"


def test_both_trackers_hold_one_run_under_one_id(films, tmp_path):
    pytest.importorskip("wandb", reason="pip install 'rounds[wandb]'")
    made, err = typed(films, "train", "--data", "ph", *QUICK, "train.epochs=2", "tracking=both", WANDB_MODE="offline")
    assert err == "", "nothing on the console"
    run = held(f"sqlite:///{films}/mlflow.db", tmp_path / "got")[str(made["run"])]
    assert [step for step, _ in run["points"]["auc"]] == [1, 2]
    (place,) = films.glob(f"wandb/offline-run-*-{made['run']}")
    for name in ("config.json", "weights.pt", "curve.png", f"bundle/{made['bundle']}/model.onnx"):
        assert (place / "files" / name).read_bytes() == run["files"][name]
    nothing, err = typed(films, "train", "--data", "ph", *QUICK, "train.epochs=1", "tracking=none")
    assert str(nothing["run"]).startswith("run-")
    assert len(held(f"sqlite:///{films}/mlflow.db", tmp_path / "got")) == 1
