"""`rounds train --resume`: a command that was killed in mid-epoch, and the one that goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.commands import rounds
from tests.support.datasets import tiny_dataset
from tests.support.workspace import opened

from rounds.loop import intake

# The command, which stands still at step 22: in the second epoch of three, of about twenty steps each.
STANDS_STILL = """
import sys, time
from rounds.train import fit
def step(self, done):
    if done == 22:
        print("here", flush=True)
        time.sleep(600)
fit.Teller.step = step
from rounds.faces.cli.app import run
run(sys.argv[1:])
"""
SETTINGS = ["train.epochs=3", "train.threads=1", "train.progress=false", "model.width=0.125", "seed=4"]


@pytest.mark.slow
def test_a_killed_command_goes_on_as_one_run_and_packs_the_same_weights(home, tmp_path):
    dataset = tiny_dataset(tmp_path / "data", size=28)
    unbroken = rounds(tmp_path / "other", "train", "--data", dataset.path, *SETTINGS, "--json").json
    words = [sys.executable, "-c", STANDS_STILL, "--home", str(home), "train", "--data", str(dataset.path), *SETTINGS]
    process = subprocess.Popen([*words, "--json"], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (place,) = (home / "runs").iterdir()
    assert json.loads((place / "state.json").read_text())["epoch"] == 1
    told = rounds(home, "audit")
    assert f"run {place.name} was interrupted at epoch 1 of 3; to go on: rounds train --resume {place.name}" in told.err
    changed = rounds(home, "train", "--resume", place.name, "train.lr=1", "--data", "other", "--json")
    assert changed.code == 2
    assert changed.message == "a run goes on as it began"
    assert [fault["where"] for fault in changed.json["error"]["faults"]] == ["train.lr=1", "--data other"]
    # by then `latest` is another data set: the run keeps to its own
    with opened(home) as ports:
        intake.find(ports, str(tiny_dataset(tmp_path / "newer", size=28, seed=1).path))
    made = rounds(home, "train", "--resume", place.name[:12], "--json").json
    assert made["run"] == place.name
    assert made["val"] == unbroken["val"]
    weights = (place / "weights.pt").read_bytes()
    assert weights == (tmp_path / "other" / "runs" / unbroken["run"] / "weights.pt").read_bytes()
    assert Path(made["path"]).is_dir()
    lines = (place / "curve.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", "1", "2", "3"]
    assert tracked(home) == [(place.name, "FINISHED", [1, 2, 3])]
    again = rounds(home, "train", "--resume", place.name, "--json")
    assert again.code == 2
    assert "the run is done" in again.json["error"]["faults"][0]["what"]


def tracked(home: Path) -> list[tuple[str, str, list[int]]]:
    """MLflow's runs: id, how each ended, and the epochs of its loss."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("rounds")
    runs = client.search_runs([experiment.experiment_id])
    return [
        (run.info.run_id, run.info.status, [point.step for point in client.get_metric_history(run.info.run_id, "loss")])
        for run in runs
    ]
