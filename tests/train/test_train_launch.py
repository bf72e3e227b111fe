"""The same training in several processes: torchrun and Ray Train, really started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.train.test_train_fit import SPEC, Recorder

from rounds.core.errors import BadOverride, CallerFault, WorldFault
from rounds.core.ids import canonical
from rounds.core.specs import LaunchSpec, TrainSpec
from rounds.train.fit import fit

TWO = replace(SPEC, launcher=LaunchSpec("torchrun", 2))
# A command that is killed while its processes train.
PARENT = """
import json, sys
from pathlib import Path
from rounds.core.ids import restore
from rounds.core.specs import TrainSpec
from rounds.imaging.packed import open_dataset
from rounds.train.fit import fit
fit(restore(TrainSpec, json.loads(sys.argv[1])), open_dataset(Path(sys.argv[2])), runs=None, folder=Path(sys.argv[3]))
"""


def matches_one_process(make, tmp_path: Path, spec: TrainSpec) -> None:
    """Two processes reach the metric of one, and leave what one leaves."""
    dataset, runs = make(train=(90, 91), val=(40, 41)), Recorder()
    one = fit(replace(spec, launcher=LaunchSpec()), dataset, runs=None, folder=tmp_path / "one")
    two = fit(spec, dataset, runs=runs, folder=tmp_path / "two")
    # both see batches of 32 of the same films, normalised by half of each where two share it
    assert two.val["auc"] == pytest.approx(one.val["auc"], abs=0.02)
    assert two.val["accuracy"] == pytest.approx(one.val["accuracy"], abs=0.05)
    assert two.seconds > 0
    assert two.cpu_seconds > 0
    names = [sorted(file.name for file in run.checkpoint.parent.iterdir()) for run in (one, two)]
    assert [name for name in names[1] if name != "curve.png"] == names[0]
    lines = (two.checkpoint.parent / "curve.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", "1", "2", "3"]
    assert [float(value) for value in lines[3].split(",")][2:] == [two.val["auc"], two.val["accuracy"]]
    figures = ["accuracy", "auc", "loss"]
    assert [call for call in runs.calls if call[0] == "start"] == [runs.calls[0]], "one run, whoever computes"
    assert [call for call in runs.calls if call[0] == "log" and call[2] == figures] == [
        ("log", "run-1", figures, epoch) for epoch in (1, 2, 3)
    ]
    assert runs.calls[-1] == ("finish", "run-1", True)


def test_two_processes_of_torchrun_match_the_metric_of_one(make, tmp_path):
    matches_one_process(make, tmp_path, TWO)


@pytest.mark.slow
def test_two_workers_of_ray_train_match_the_metric_of_one(make, tmp_path):
    matches_one_process(make, tmp_path, replace(SPEC, launcher=LaunchSpec("ray", 2)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torchrun", "ray"])
def test_what_one_of_them_finds_wrong_is_said_as_if_it_were_here(make, tmp_path, name):
    spec = replace(SPEC, launcher=LaunchSpec(name, 2), train=replace(SPEC.train, lr=1e30))
    with pytest.raises(CallerFault, match=r"the training diverged\n  epoch 1, step .*got nan\. Lower train\.lr"):
        fit(spec, make(), runs=None, folder=tmp_path)


@pytest.mark.slow
def test_processes_that_die_are_told_with_their_last_words(make, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "lightning.py").write_text("raise ImportError('no lightning here')")
    with pytest.raises(WorldFault, match="the training did not come to its end") as caught:
        fit(TWO, make(), runs=None, folder=tmp_path / "runs")
    assert "no lightning here" in str(caught.value)
    (place,) = (tmp_path / "runs").iterdir()
    assert json.loads((place / "state.json").read_text())["phase"] == "failed"


@pytest.mark.slow
def test_killing_the_command_ends_its_processes_and_the_run_goes_on_from_there(make, tmp_path):
    dataset, folder = make(), tmp_path / "runs"
    spec = replace(TWO, train=replace(TWO.train, epochs=40, batch=16))
    words = [sys.executable, "-c", PARENT, canonical(spec).decode(), str(dataset.path), str(folder)]
    parent = subprocess.Popen(words)
    try:
        while not (found := list(folder.glob("*/resume.ckpt"))):
            assert parent.poll() is None, "it ended before it was killed"
            time.sleep(0.05)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    place = found[0].parent
    until = time.monotonic() + 60
    while at_work(place) and time.monotonic() < until:
        time.sleep(0.1)
    assert at_work(place) == []
    run = fit(spec, dataset, runs=None, folder=folder, resume=place.name)
    lines = run.checkpoint.with_name("curve.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", *map(str, range(1, 41))]


def at_work(place: Path) -> list[str]:
    """Processes of this machine that name the folder on their command line."""
    lines = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if str(place) in line and str(os.getpid()) != line.split()[0]]


def test_what_cannot_be_launched_is_said_all_at_once_and_before_a_run_is_opened(make, tmp_path):
    runs = Recorder()
    spec = replace(SPEC, launcher=LaunchSpec("local", 30), train=replace(SPEC.train, precision="16-mixed"))
    with pytest.raises(BadOverride) as caught:
        fit(spec, make(), runs=runs, folder=tmp_path)
    assert str(caught.value) == (
        "this training cannot run here\n"
        "  train.precision: half precision needs CUDA; expected a GPU that torch can use; got none. "
        "Take bf16-mixed or 32-true\n"
        "  launcher.processes: local is this one process; expected 1; got 30. "
        "Take launcher=torchrun or launcher=ray\n"
        "  launcher.processes: too few images for so many; expected 15 or fewer; got 30"
    )
    assert runs.calls == []
