"""Training that is killed in the middle."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

from rounds.nets.weights import load_weights
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
    assert str(found[0]) == f"run {found[0].run} was interrupted at epoch {found[0].epoch} of 10000"
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
