"""A study: the settings as they are first, then what Optuna proposes; it survives kills and is shared by workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from tests.support.postgres import postgres_url as postgres_url
from tests.train.conftest import Make

from rounds.conf.space import spec_of
from rounds.core.errors import StoreAway
from rounds.core.specs import Axis
from rounds.train.judge import Stressed, area, probabilities
from rounds.train.tune import CHOICE_SEED, Search, StudySpec, Trial, compare, tune, work

BASE = ("imaging.size=28", "train.epochs=2", "train.progress=false", "train.threads=1", "model.width=0.25")
AXES = (Axis("train.lr", 1e-5, 0.1, log=True), Axis("train.label_smoothing", options=("0", "0.2")))


def search(make: Make, tmp_path: Path, storage: str = "", **given: object) -> Search:
    spec = StudySpec("lr", storage or f"sqlite:///{tmp_path / 'studies.db'}", **({"trials": 4} | given))  # type: ignore[arg-type]
    return Search(spec, AXES, BASE, spec_of, make(), tmp_path / "runs")


def ended(trials: list[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.state in ("complete", "pruned")]


def test_the_first_trial_is_the_training_as_it_is_and_the_value_is_the_stressed_auc(make: Make, tmp_path: Path) -> None:
    found = search(make, tmp_path)
    first, *rest = tune(found)
    assert (first.number, first.state, first.overrides) == (0, "complete", ())
    assert [len(trial.overrides) for trial in rest] == [2, 2, 2]
    assert all(trial.overrides[0].startswith("train.lr=") for trial in rest)
    assert len(first.curve) == 2
    assert first.value == first.curve[-1]
    assert first.checkpoint is not None

    from rounds.nets.weights import load_weights

    judge = Stressed(found.dataset, spec_of(BASE), CHOICE_SEED)
    assert area(judge.y, probabilities(load_weights(first.checkpoint), judge.pixels)) == pytest.approx(first.value)
    y, subjects, (one, other) = compare(found, first, first)
    assert (len(y), len(subjects), one.shape) == (len(judge.y), len(judge.y), (len(y), 2))
    assert (one == other).all()


def test_a_study_that_has_its_trials_goes_no_further_and_one_that_wants_more_goes_on(
    make: Make, tmp_path: Path
) -> None:
    first = tune(search(make, tmp_path, trials=2))
    assert tune(search(make, tmp_path, trials=2)) == first
    assert tune(search(make, tmp_path, trials=3))[:2] == first


def test_a_trial_that_falls_behind_is_ended_early(make: Make, tmp_path: Path) -> None:
    found = search(make, tmp_path, trials=8)
    axes = (Axis("train.lr", options=("0.02", "1e-9")),)
    trials = tune(Search(found.spec, axes, (*BASE, "train.epochs=3"), found.compose, found.dataset, found.folder))
    pruned = [trial for trial in trials if trial.state == "pruned"]
    assert pruned
    assert all(len(trial.curve) < 3 and trial.checkpoint is None for trial in pruned)


def test_a_storage_that_is_away_is_the_worlds_fault(make: Make, tmp_path: Path) -> None:
    with pytest.raises(StoreAway, match=r"127\.0\.0\.1:1"):
        tune(search(make, tmp_path, "postgresql+psycopg://rounds:secret@127.0.0.1:1/none"))


WORKER = """
import pickle, sys
from rounds.train.tune import work
work(pickle.loads(sys.stdin.buffer.read()), 0)
"""


@pytest.mark.slow
def test_after_a_kill_the_trial_that_was_under_way_is_run_again(make: Make, tmp_path: Path) -> None:
    import pickle

    found = search(make, tmp_path, trials=3, prune=False)
    tune(search(make, tmp_path, trials=2, prune=False))
    longer = Search(found.spec, found.axes, (*BASE, "train.epochs=2000"), found.compose, found.dataset, found.folder)
    worker = subprocess.Popen([sys.executable, "-c", WORKER], stdin=subprocess.PIPE)
    assert worker.stdin is not None
    worker.stdin.write(pickle.dumps(longer))
    worker.stdin.close()
    study = optuna.load_study(study_name="lr", storage=found.spec.storage)
    until = time.monotonic() + 120
    while len(study.trials) < 3 or not study.trials[2].intermediate_values:
        assert time.monotonic() < until
        time.sleep(0.2)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    trials = tune(found)
    assert [trial.state for trial in trials] == ["complete", "complete", "fail", "complete"]
    again = study.trials[3]
    assert again.params == study.trials[2].params


@pytest.mark.slow
def test_two_workers_share_a_study_on_postgresql(make: Make, tmp_path: Path, postgres_url: str) -> None:
    url = postgres_url.replace("postgresql://", "postgresql+psycopg://")
    trials = tune(search(make, tmp_path, url, trials=5, workers=2))
    assert len(ended(trials)) >= 5
    assert len({trial.number for trial in trials}) == len(trials)
    assert sum(not trial.overrides for trial in ended(trials)) == 1


@pytest.mark.slow
def test_the_workers_run_as_ray_tasks(make: Make, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="no Ray here: pip install 'rounds[ray]'")
    trials = tune(search(make, tmp_path, trials=4, workers=2, ray=True))
    assert len(ended(trials)) >= 4


def test_a_worker_that_finds_the_study_complete_does_nothing(make: Make, tmp_path: Path) -> None:
    found = search(make, tmp_path, trials=2)
    before = tune(found)
    work(found, 1)
    assert tune(found) == before
