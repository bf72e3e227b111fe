"""A real MLflow server, as the README starts it, and what it and a database of MLflow hold."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rounds.stores.runs import MlflowRuns


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables with nothing in them, made as `MlflowRuns` makes them where there is no file: in seconds."""
    folder = tmp_path_factory.mktemp("empty")
    MlflowRuns(f"sqlite:///{folder}/new/mlflow.db", folder)._client.search_experiments()
    return folder / "new" / "mlflow.db"


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@contextmanager
def mlflow_server(folder: Path, store: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Serve until the block ends, or until somebody kills the process group; it answers when the block begins."""
    words = ["server", "--backend-store-uri", store, "--artifacts-destination", str(folder / "server-artifacts")]
    command = [sys.executable, "-m", "mlflow", *words, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = folder / "server.log"
    with log.open("ab") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, cwd=folder, env=environment, start_new_session=True)
    try:
        until = time.monotonic() + 60
        while not _answers(port):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        yield server
    finally:
        kill(server)


def kill(server: subprocess.Popen[bytes]) -> None:
    """Kill -9 the server and its workers, by the group that it leads."""
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(20)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def held(uri: str, folder: Path) -> dict[str, dict[str, Any]]:
    """Everything that MLflow has: by run id its name, state, params, tags, points of each metric, and files."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    found = {}
    for run in client.search_runs([one.experiment_id for one in client.search_experiments()]):
        name = run.info.run_id
        points = {
            key: [(point.step, point.value) for point in client.get_metric_history(name, key)]
            for key in run.data.metrics
        }
        place = Path(client.download_artifacts(name, "", str(_fresh(folder / name))))
        files = {str(f.relative_to(place)): f.read_bytes() for f in sorted(place.rglob("*")) if f.is_file()}
        found[name] = {"name": run.info.run_name, "state": run.info.status, "params": run.data.params}
        found[name] |= {"tags": run.data.tags, "points": points, "files": files}
    return found


def _fresh(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
