"""A tracker that is away, hangs or dies: nothing waits for it, and it is told everything once."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.tracking import free_port, held, kill, mlflow_server

from rounds.core.errors import StoreAway
from rounds.core.ids import write_whole
from rounds.stores import spool
from rounds.stores.journal import Journal
from rounds.stores.runs import MlflowRuns
from rounds.stores.spool import Spooled

PARAMS = {"train.lr": 0.1}
TAGS = {"data": "abc"}


@pytest.fixture
def place(tmp_path: Path, empty_mlflow: Path) -> Path:
    """A folder with such a database, `away.db`, where nothing answers until it is renamed to mlflow.db."""
    shutil.copy(empty_mlflow, tmp_path / "away.db")
    (tmp_path / "mlflow.db").mkdir()
    return tmp_path


def comes_back(place: Path) -> None:
    (place / "mlflow.db").rmdir()
    (place / "away.db").rename(place / "mlflow.db")


def opened(place: Path, told: list[str], **given: Any) -> Spooled:
    tracker = MlflowRuns(f"sqlite:///{place}/mlflow.db", place / "artifacts")
    return Spooled(tracker, place / "spool", told.append, **given)


def journals(place: Path) -> list[str]:
    return sorted(path.parent.name for path in place.glob("spool/*/*/entries.jsonl"))


def train(runs: Spooled, place: Path, between: Callable[[], None] = lambda: None) -> str:
    """A run as a training enters it: figures, a file that is written anew meanwhile, a folder."""
    run = runs.start("films", PARAMS, TAGS)
    runs.log(run, {"auc": 0.6}, 1)
    write_whole(place / "weights.pt", b"first")
    runs.keep(run, place / "weights.pt", "early")
    between()
    write_whole(place / "weights.pt", b"second")
    runs.log(run, {"auc": 0.7}, 2)
    runs.keep(run, place / "weights.pt")
    runs.finish(run, ok=True)
    return run


def whole(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The one run that MLflow must hold, whole and once."""
    assert len(found) == 1, list(found)
    (run,) = found.values()
    assert (run["name"], run["state"], run["params"]) == ("films", "FINISHED", {"train.lr": "0.1"})
    assert run["points"] == {"auc": [(1, 0.6), (2, 0.7)]}
    assert run["files"] == {"early/weights.pt": b"first", "weights.pt": b"second"}
    assert run["tags"].items() >= TAGS.items()
    return run


def test_a_tracker_that_answers_is_told_everything_and_the_spool_is_empty(place):
    comes_back(place)
    told: list[str] = []
    runs = opened(place, told)
    run = train(runs, place)
    runs.close()
    assert list(held(f"sqlite:///{place}/mlflow.db", place / "got")) == [run], "the run bears MLflow's id"
    whole(held(f"sqlite:///{place}/mlflow.db", place / "got"))
    assert (told, journals(place)) == ([], [])


def test_a_tracker_that_is_away_at_the_start_is_said_once_and_told_by_the_next_command(place):
    told: list[str] = []
    runs = opened(place, told)
    assert runs.unfinished() == []
    run = train(runs, place)
    runs.close()
    assert run.startswith("run-")
    assert journals(place) == [run]
    assert len(told) == 1
    assert told[0].startswith("the experiment tracker is away\n  sqlite:///")
    assert "waits in the spool" in told[0]
    comes_back(place)
    told.clear()
    later = opened(place, told)
    assert later.unfinished() == []
    later.close()
    run_there = whole(held(f"sqlite:///{place}/mlflow.db", place / "got"))
    assert run_there["tags"]["rounds.run"] == run, "it is found by the name that it bears here"
    assert told == [f"run {run}, which waited for the tracker, is on sqlite:///{place}/mlflow.db now"]
    assert journals(place) == []


def test_a_tracker_that_comes_back_in_the_middle_is_told_by_the_same_command(place):
    told: list[str] = []
    runs = opened(place, told, retry_s=0.0)
    run = train(runs, place, between=lambda: comes_back(place))
    runs.close()
    assert whole(held(f"sqlite:///{place}/mlflow.db", place / "got"))["tags"]["rounds.run"] == run
    assert (len(told), journals(place)) == (1, [])


def test_what_was_told_and_not_yet_crossed_off_is_told_again_and_kept_once(place, monkeypatch):
    """The process dies between the tracker's answer and the mark in the journal: at every one of its entries."""
    comes_back(place)
    monkeypatch.setattr(Journal, "drop", Journal.close)
    runs = opened(place, [])
    train(runs, place)
    runs.close()
    (sent,) = place.glob("spool/*/*/sent")
    assert sent.read_text() == "6"
    for mark in ("0", "1", "2", "3", "4", "5"):
        sent.write_text(mark)
        again = opened(place, [])
        assert again.unfinished() == []
        again.close()
        assert sent.read_text() == "6"
        whole(held(f"sqlite:///{place}/mlflow.db", place / f"got{mark}"))


def test_a_run_whose_process_was_killed_while_the_tracker_was_away_is_told_as_killed(place):
    code = (
        "import os, signal, sys; from pathlib import Path; from rounds.stores.runs import MlflowRuns\n"
        "from rounds.stores.spool import Spooled\n"
        "place = Path(sys.argv[1]); tracker = MlflowRuns(f'sqlite:///{place}/mlflow.db', place / 'artifacts')\n"
        "runs = Spooled(tracker, place / 'spool', lambda text: None)\n"
        "run = runs.start('films', {}, {}); runs.log(run, {'auc': 0.5}, 1); print(run, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(place)], capture_output=True, text=True, check=False)
    assert (killed.returncode, killed.stderr) == (-signal.SIGKILL, "")
    entries = next(place.glob("spool/*/*/entries.jsonl"))
    entries.write_bytes(entries.read_bytes() + b'{"do": "log", "met')
    comes_back(place)
    told: list[str] = []
    runs = opened(place, told)
    assert runs.unfinished() == [killed.stdout.strip()]
    runs.close()
    (run,) = held(f"sqlite:///{place}/mlflow.db", place / "got").values()
    assert (run["state"], run["points"]) == ("KILLED", {"auc": [(1, 0.5)]})
    assert (len(told), journals(place)) == (1, [])


def test_two_processes_may_speak_of_one_run_and_nobody_takes_a_living_ones_journal(place):
    comes_back(place)
    first, second = opened(place, []), opened(place, [])
    run = first.start("films", PARAMS, TAGS)
    second.log(run, {"val/auc": 0.9}, 1)
    assert second.unfinished() == []
    first.log(run, {"auc": 0.6}, 1)
    second.close()
    first.finish(run, ok=True)
    first.close()
    (found,) = held(f"sqlite:///{place}/mlflow.db", place / "got").values()
    assert found["points"] == {"auc": [(1, 0.6)], "val/auc": [(1, 0.9)]}
    assert found["state"] == "FINISHED"
    assert journals(place) == []


def test_what_the_tracker_refuses_is_said_and_the_rest_is_told(place):
    comes_back(place)
    told: list[str] = []
    runs = opened(place, told)
    run = runs.start("films", PARAMS, TAGS)
    runs.log(run, {"a metric with a bad : $ name": 1.0}, 1)
    runs.log("no-such-run", {"auc": 0.5}, 1)
    runs.keep(run, Path(__file__))
    runs.finish(run, ok=True)
    runs.close()
    (found,) = held(f"sqlite:///{place}/mlflow.db", place / "got").values()
    assert (found["state"], list(found["files"]), found["points"]) == ("FINISHED", ["test_stores_spool.py"], {})
    assert sorted(text.split(":")[0] for text in told) == sorted(
        f"the tracker refuses a part of run {name}" for name in (run, "no-such-run")
    )
    assert journals(place) == []


def test_a_run_goes_on_under_its_id_after_it_ended(place):
    comes_back(place)
    runs = opened(place, [])
    run = runs.start("films", PARAMS, TAGS)
    runs.finish(run, ok=False)
    assert runs.drain()
    runs.reopen(run)
    runs.log(run, {"auc": 0.8}, 3)
    assert runs.drain()
    assert held(f"sqlite:///{place}/mlflow.db", place / "got")[run]["state"] == "RUNNING"
    runs.finish(run, ok=True)
    runs.close()
    found = held(f"sqlite:///{place}/mlflow.db", place / "got")[run]
    assert (found["state"], found["points"]) == ("FINISHED", {"auc": [(3, 0.8)]})


def test_a_tracker_that_hangs_holds_up_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(spool, "ANSWER_S", 1.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    told: list[str] = []
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        address = f"http://somebody:secret@127.0.0.1:{silent.getsockname()[1]}"
        runs = Spooled(MlflowRuns(address, ""), tmp_path / "spool", told.append)
        began = time.monotonic()
        run = train(runs, tmp_path)
        assert time.monotonic() - began < 12, "MLflow's import, and a second for the answer"
        with pytest.raises(StoreAway, match="the experiment tracker is away"):
            runs.mirror("rounds-films", [], None)
        runs.close()
        assert time.monotonic() - began < 20
    assert (journals(tmp_path), len(told)) == ([run], 1)
    assert "MLflow does not answer; expected an answer in 1 s" in told[0]
    assert "secret" not in told[0]


@pytest.mark.slow
def test_a_server_on_postgresql_dies_in_mid_training_and_has_everything_when_it_is_back(tmp_path, postgres_url, capfd):
    port, told = free_port(), list[str]()
    uri, store = f"http://127.0.0.1:{port}", postgres_url.replace("postgresql:", "postgresql+psycopg:")
    runs = Spooled(MlflowRuns(uri, ""), tmp_path / "spool", told.append)
    with mlflow_server(tmp_path, store, port) as server:
        before = train(runs, tmp_path)
        assert runs.drain()
        assert (told, capfd.readouterr()) == ([], ("", "")), "nothing on the console"

        def dies() -> None:
            assert runs.drain()
            kill(server)

        cut = train(runs, tmp_path, between=dies)
        later = runs.start("films", PARAMS, TAGS)
        runs.finish(later, ok=True)
        runs.close()
    assert later.startswith("run-")
    assert [len(text.splitlines()) for text in told] == [3], "one clear warning"
    assert sorted(journals(tmp_path)) == sorted([cut, later])
    with mlflow_server(tmp_path, store, port):
        again = Spooled(MlflowRuns(uri, ""), tmp_path / "spool", told.append)
        assert again.unfinished() == []
        again.mirror("rounds-films", [{"version": "v1", "bundle": "b" * 64, "run": later}], "v1")
        again.close()
        found = held(uri, tmp_path / "got")
        from mlflow.tracking import MlflowClient

        (version,) = MlflowClient(uri).search_model_versions("name = 'rounds-films'")
    (third,) = set(found) - {before, cut}
    assert found.pop(third)["tags"]["rounds.run"] == later
    assert version.run_id == third
    for run in (before, cut):
        whole({run: found[run]})
    assert journals(tmp_path) == []
    assert len(list((tmp_path / "server-artifacts").rglob("weights.pt"))) == 4, "through the server"


def test_a_journal_is_nobodys_when_its_process_is_gone(tmp_path):
    code = "import sys, time; from pathlib import Path; from rounds.stores.journal import Journal\n"
    code += "journal = Journal(Path(sys.argv[1])); journal.add('finish', ok=True, at=1); print('held', flush=True)\n"
    code += "time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run-1")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert Journal.left(tmp_path / "run-1") is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    found = Journal.left(tmp_path / "run-1")
    assert found is not None
    assert (found.run, found.waiting, found.ended) == ("run-1", [{"do": "finish", "ok": True, "at": 1}], True)
    found.drop()
    assert not (tmp_path / "run-1").exists()
    assert Journal.left(tmp_path / "run-1") is None
