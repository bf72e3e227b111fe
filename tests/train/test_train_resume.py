"""Training that is killed in the middle."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rounds.core.ids import canonical
from rounds.core.records import DatasetVersion
from rounds.core.specs import AugmentSpec, ImagingSpec, LoopSpec, ModelSpec, TrainSpec
from rounds.nets.weights import load_weights
from rounds.train.fit import fit
from rounds.train.resume import Phase, State, held, interrupted, write_state

ENDLESS = """
import sys
from pathlib import Path
from rounds.core.specs import ImagingSpec, LoopSpec, TrainSpec
from rounds.imaging.packed import open_dataset
from rounds.train.fit import fit
loop = LoopSpec(epochs=10_000, batch=32, threads=1, progress=False)
spec = TrainSpec(imaging=ImagingSpec(28), train=loop)
fit(spec, open_dataset(Path(sys.argv[1])), runs=None, folder=Path(sys.argv[2]))
"""

# Stands still in the middle of an epoch, at the given step, until it is killed.
STANDS_STILL = """
import json, sys, time
from pathlib import Path
from rounds.core.ids import restore
from rounds.core.specs import TrainSpec
from rounds.imaging.packed import open_dataset
from rounds.train import fit as fitting
spec = restore(TrainSpec, json.loads(sys.argv[1]))
def step(self, done):
    if done == int(sys.argv[4]):
        print("here", flush=True)
        time.sleep(600)
fitting.Teller.step = step
fitting.fit(spec, open_dataset(Path(sys.argv[2])), runs=None, folder=Path(sys.argv[3]))
"""
SPEC = TrainSpec(
    imaging=ImagingSpec(28),
    augment=AugmentSpec(rotate=5, noise=0.02, gamma=0.2, cutout=0.2, mixup=0.3),
    train=LoopSpec(epochs=4, batch=16, ema=0.9, balance=True, threads=1, progress=False),
    seed=3,
)


def killed(spec: TrainSpec, dataset: DatasetVersion, folder: Path, step: int) -> str:
    """A run whose process was killed at this step; its name."""
    command = [sys.executable, "-c", STANDS_STILL, canonical(spec).decode(), str(dataset.path), str(folder), str(step)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (place,) = folder.iterdir()
    return place.name


@pytest.mark.parametrize(
    ("step", "model"),
    [
        (20, "small"),
        # before the first checkpoint; and with dropout
        pytest.param(3, "small", marks=pytest.mark.slow),
        pytest.param(20, "efficientnet_lite0", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_was_killed_in_mid_epoch_ends_with_the_weights_of_an_unbroken_one(make, tmp_path, model, step):
    dataset, spec = make(), replace(SPEC, model=ModelSpec(model, width=0.25 if model == "small" else 1.0))
    unbroken = fit(spec, dataset, runs=None, folder=tmp_path / "unbroken")
    run = killed(spec, dataset, tmp_path / "runs", step)
    place = tmp_path / "runs" / run
    state = json.loads((place / "state.json").read_text())
    assert (state["epoch"], state["phase"]) == (step // 8, "training")
    assert (place / "resume.ckpt").exists() == (step > 8)
    resumed = fit(spec, dataset, runs=None, folder=tmp_path / "runs", resume=run)
    assert resumed.run == run
    assert resumed.checkpoint.read_bytes() == unbroken.checkpoint.read_bytes()
    curve = (place / "curve.csv").read_text()
    assert curve == (unbroken.checkpoint.parent / "curve.csv").read_text()
    assert [line.split(",")[0] for line in curve.splitlines()] == ["epoch", "1", "2", "3", "4"]
    assert json.loads((place / "state.json").read_text())["phase"] == "done"
    assert not (place / "resume.ckpt").exists(), "a run that is done needs none"


def test_kill_9_leaves_a_whole_checkpoint_and_the_next_command_says_what_happened(make, tmp_path):
    dataset, folder = make(), tmp_path / "runs"
    process = subprocess.Popen([sys.executable, "-c", ENDLESS, str(dataset.path), str(folder)])
    try:
        while (
            not (states := list(folder.glob("*/weights.pt")))
            or json.loads((states[0].parent / "state.json").read_text())["epoch"] < 2
        ):
            assert process.poll() is None, "the training ended before it was killed"
            time.sleep(0.02)
        assert interrupted(folder) == [], "a run under way is not interrupted"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    load_weights(states[0])
    found = interrupted(folder)
    assert len(found) == 1
    assert (found[0].run, found[0].epochs, found[0].phase) == (states[0].parent.name, 10_000, Phase.TRAINING)
    told = f"run {found[0].run} was interrupted at epoch {found[0].epoch} of 10000; "
    assert str(found[0]) == told + f"to go on: rounds train --resume {found[0].run}"
    assert found[0].epoch >= 2
    assert interrupted(folder) == [], "it is told once"
    assert json.loads((states[0].parent / "state.json").read_text())["phase"] == "interrupted"


def test_finished_failed_and_held_runs_are_not_interrupted(tmp_path):
    for phase in (Phase.DONE, Phase.FAILED, Phase.TRAINING):
        (tmp_path / phase.value).mkdir()
        write_state(tmp_path / phase.value, State(phase.value, 1, 2, phase))
    with held(tmp_path / "training"):
        assert interrupted(tmp_path) == []
    assert interrupted(tmp_path) == [State("training", 1, 2)]


def test_a_workspace_without_runs_has_none_interrupted(tmp_path):
    assert interrupted(tmp_path / "nothing") == []
