"""The experiment tracker on MLflow and SQLite, for real."""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rounds.core.errors import StoreAway, UnknownId
from rounds.stores.runs import BORN, HOST, PID, MlflowRuns, born


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for the module: making MLflow's tables takes seconds."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def runs(place: Path) -> MlflowRuns:
    return open_runs(place)


def open_runs(place: Path) -> MlflowRuns:
    return MlflowRuns(f"sqlite:///{place / 'new' / 'mlflow.db'}", place / "artifacts")


def test_a_run_keeps_its_params_tags_figures_and_files(runs, place, tmp_path):
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "a.txt").write_text("a")
    (tmp_path / "config.json").write_text("{}")
    run = runs.start("films", {"train.lr": 0.1, "augment.flip": True}, {"data": "abc"})
    for step in (1, 2):
        runs.log(run, {"auc": 0.5 + step / 10, "loss": 1 / step}, step)
    runs.keep(run, tmp_path / "config.json")
    runs.keep(run, tmp_path / "config.json", "deep/er")
    runs.keep(run, tmp_path / "plots")
    runs.finish(run, ok=True)
    client = open_runs(place)._client
    kept = client.get_run(run)
    assert kept.info.run_name == "films"
    assert kept.info.status == "FINISHED"
    assert kept.data.params == {"train.lr": "0.1", "augment.flip": "True"}
    assert kept.data.metrics == {"auc": 0.7, "loss": 0.5}
    assert [(point.step, point.value) for point in client.get_metric_history(run, "auc")] == [(1, 0.6), (2, 0.7)]
    own = {"data": "abc", HOST: platform.node(), PID: str(os.getpid()), BORN: born(os.getpid())}
    assert own.items() <= kept.data.tags.items()
    files = sorted(
        str(file.relative_to(place / "artifacts" / run / "artifacts"))
        for file in (place / "artifacts" / run).rglob("*")
        if file.is_file()
    )
    assert files == ["config.json", "deep/er/config.json", "plots/a.txt"]


def test_a_failed_run_is_marked_failed(runs):
    run = runs.start("films", {}, {})
    runs.finish(run, ok=False)
    assert runs._client.get_run(run).info.status == "FAILED"


def test_a_run_whose_process_was_killed_is_found_once_and_one_under_way_is_left_alone(runs, place):
    code = (
        "import os, signal, sys; from pathlib import Path; from rounds.stores.runs import MlflowRuns\n"
        "runs = MlflowRuns(f'sqlite:///{sys.argv[1]}/new/mlflow.db', Path(sys.argv[1]) / 'artifacts')\n"
        "print(runs.start('cut off', {}, {}), flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    runs.unfinished()
    mine = runs.start("under way", {}, {})
    killed = subprocess.run([sys.executable, "-c", code, str(place)], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert killed.stderr == "", "MLflow says nothing on the console"
    assert runs.unfinished() == [killed.stdout.strip()]
    assert runs._client.get_run(killed.stdout.strip()).info.status == "KILLED"
    assert runs.unfinished() == []
    assert runs._client.get_run(mine).info.status == "RUNNING"
    runs.finish(mine, ok=True)


def test_a_number_taken_by_a_later_process_does_not_hide_a_killed_run(runs):
    run = runs.start("an earlier process of this number", {}, {BORN: "another boot/1"})
    assert runs.unfinished() == [run]


def test_an_unknown_run_is_said(runs, tmp_path):
    for use in (
        lambda: runs.log("nothing", {"auc": 1.0}, 1),
        lambda: runs.keep("nothing", tmp_path),
        lambda: runs.finish("nothing", ok=True),
    ):
        with pytest.raises(
            UnknownId, match=r"no run 'nothing'\n  nothing: no such run in MLflow\. Open MLflow on this store"
        ):
            use()


def test_a_store_that_cannot_be_opened_or_is_not_one_is_said_at_once(tmp_path):
    (tmp_path / "file").write_text("not a database, by far" * 100)
    (tmp_path / "folder").mkdir()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        nobody = listener.getsockname()[1]
    for uri in (
        f"sqlite:///{tmp_path}/file",
        f"sqlite:///{tmp_path}/folder",
        f"sqlite:///{tmp_path}/file/mlflow.db",
        f"postgresql://127.0.0.1:{nobody}/rounds",
    ):
        with pytest.raises(StoreAway, match=r"the experiment tracker is away\n .*MLflow's store does not answer; got "):
            MlflowRuns(uri, tmp_path / "artifacts").unfinished()


def test_opening_a_store_costs_nothing_before_it_is_used(tmp_path):
    MlflowRuns(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "artifacts")
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "home"])


def test_a_process_has_one_birth_and_a_gone_one_none():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    first = born(process.pid)
    assert first
    assert first == born(process.pid)
    assert first != born(os.getpid())
    process.communicate(b"\n")
    assert born(process.pid) is None
