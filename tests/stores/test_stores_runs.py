"""The experiment tracker: one suite for everything that claims the port, and MLflow on SQLite for real."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.tracking import held

from rounds.core.errors import StoreAway, UnknownId, WorldFault
from rounds.core.ports import Runs
from rounds.stores.both import Both
from rounds.stores.memory import MemoryRuns
from rounds.stores.runs import BORN, HOST, PID, RUN, MlflowRuns, born
from rounds.stores.spool import Spooled


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, empty_mlflow: Path) -> Path:
    """One store for the module: making MLflow's tables takes seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    (folder / "new").mkdir()
    shutil.copy(empty_mlflow, folder / "new" / "mlflow.db")
    return folder


@pytest.fixture
def runs(place: Path) -> MlflowRuns:
    return open_runs(place)


def open_runs(place: Path) -> MlflowRuns:
    return MlflowRuns(f"sqlite:///{place / 'new' / 'mlflow.db'}", place / "artifacts")


def spooled(place: Path, folder: Path) -> Spooled:
    return Spooled(open_runs(place), folder / "spool", lambda text: pytest.fail(text))


@pytest.fixture(
    params=["memory", "mlflow", "spooled mlflow", "both", pytest.param("postgresql", marks=pytest.mark.slow)]
)
def tracked(
    request: pytest.FixtureRequest, place: Path, tmp_path: Path
) -> tuple[Runs, Callable[[str], dict[str, Any]]]:
    """Each tracker, and what it holds of a run."""
    memory, mlflow, spool = MemoryRuns(), open_runs(place), spooled(place, tmp_path)
    if request.param == "postgresql":
        mlflow = MlflowRuns(request.getfixturevalue("postgres_url"), tmp_path / "artifacts")

    def read(run: str) -> dict[str, Any]:
        assert spool.drain()
        if request.param == "memory":
            return memory.kept[run]
        found = held(mlflow._store, tmp_path / "got")[run]
        if request.param == "both":
            same = ("name", "state", "params", "points", "files")
            assert {key: memory.kept[run][key] for key in same} == {key: found[key] for key in same}
        return found

    made: Runs = {"memory": memory, "mlflow": mlflow, "postgresql": mlflow, "spooled mlflow": spool}.get(
        request.param
    ) or Both(spool, memory)
    return made, read


def test_every_tracker_keeps_what_a_run_enters(tracked, tmp_path):
    runs, read = tracked
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "a.txt").write_text("a")
    run = runs.start("films", {"train.lr": 0.1, "augment.flip": True}, {"data": "abc"})
    other = runs.start("other films", {}, {})
    for step in (1, 2):
        runs.log(run, {"auc": 0.5 + step / 10, "loss": 1 / step}, step)
    runs.log(other, {"auc": 0.1}, 1)
    runs.keep(run, tmp_path / "plots" / "a.txt")
    runs.keep(run, tmp_path / "plots", "deep/er")
    runs.finish(run, ok=True)
    runs.finish(other, ok=False)
    runs.log(run, {"val/auc": 0.9}, 2)
    found = read(run)
    assert (found["name"], found["state"]) == ("films", "FINISHED")
    assert found["params"] == {"train.lr": "0.1", "augment.flip": "True"}
    assert found["tags"]["data"] == "abc"
    assert found["points"] == {"auc": [(1, 0.6), (2, 0.7)], "loss": [(1, 1.0), (2, 0.5)], "val/auc": [(2, 0.9)]}
    assert found["files"] == {"a.txt": b"a", "deep/er/plots/a.txt": b"a"}
    assert (read(other)["state"], read(other)["points"]) == ("FAILED", {"auc": [(1, 0.1)]})
    runs.reopen(other)
    assert read(other)["state"] == "RUNNING"
    runs.finish(other, ok=True)
    assert read(other)["state"] == "FINISHED"
    assert runs.unfinished() == []


def test_every_tracker_takes_the_versions_of_a_model_as_often_as_it_is_told(tracked):
    runs, read = tracked
    run = runs.start("films", {}, {})
    runs.finish(run, ok=True)
    read(run)
    first = {"version": "v1", "bundle": "a" * 64, "run": run}
    for versions, champion in (([first], None), ([first], "v1"), ([first], "v1")):
        runs.mirror("rounds-films", versions, champion)


def test_versions_and_the_champion_are_in_mlflows_registry(runs):
    run = runs.start("films", {}, {RUN: "run-1"})
    given = [{"version": f"v{n}", "bundle": str(n) * 64, "run": name} for n, name in ((1, "run-1"), (2, ""), (3, run))]
    for versions, champion, alias in (
        (given[:1], None, {}),
        (given[:2], "v1", {"champion": 1}),
        (given, "v3", {"champion": 3}),
        (given, "v1", {"champion": 1}),
        (given, None, {}),
    ):
        runs.mirror("rounds-mirrored", versions, champion)
        assert runs._client.get_registered_model("rounds-mirrored").aliases == alias
    there = sorted(runs._client.search_model_versions("name = 'rounds-mirrored'"), key=lambda found: int(found.version))
    assert [(v.tags["rounds.version"], v.tags["rounds.bundle"], v.run_id or "", v.source) for v in there] == [
        ("v1", "1" * 64, run, f"runs:/{run}/bundle/{'1' * 64}"),
        ("v2", "2" * 64, "", f"rounds:/{'2' * 64}"),
        ("v3", "3" * 64, run, f"runs:/{run}/bundle/{'3' * 64}"),
    ]


def test_a_run_that_has_a_name_of_its_own_is_opened_once_and_found_by_it(runs):
    first = runs.start("films", {"a": 1}, {RUN: "run-mine"})
    assert runs.start("films", {"a": 1}, {RUN: "run-mine"}) == first
    runs.finish("run-mine", ok=True)
    assert runs._client.get_run(first).info.status == "FINISHED"


def test_what_mlflow_refuses_is_said_and_no_password_is(runs, tmp_path):
    run = runs.start("films", {}, {})
    with pytest.raises(WorldFault, match=r"the experiment tracker refuses\n .*MLflow refuses this; got Invalid value"):
        runs.log(run, {"a bad : $ name": 1.0}, 1)
    runs.finish(run, ok=True)
    with pytest.raises(StoreAway, match="MLflow's store does not answer") as found:
        MlflowRuns("postgresql://rounds:hush@127.0.0.1:1/rounds", tmp_path).unfinished()
    assert "postgresql://127.0.0.1:1/rounds" in str(found.value)
    assert "hush" not in str(found.value)


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
