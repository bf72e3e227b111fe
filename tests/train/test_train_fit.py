"""Training on real, tiny data sets."""

from __future__ import annotations

import json
import logging
import signal
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rounds.core.errors import BadOverride, BadSource, CallerFault, NotWritable
from rounds.core.ids import canonical, digest, plain
from rounds.core.specs import AugmentSpec, ImagingSpec, LoopSpec, ModelSpec, TrainSpec
from rounds.imaging.packed import Films
from rounds.nets.weights import load_weights
from rounds.train.fit import fit

SPEC = TrainSpec(
    imaging=ImagingSpec(size=28),
    augment=AugmentSpec(flip=False),
    train=LoopSpec(epochs=3, batch=32, threads=1, progress=False),
)


class Recorder:
    """A tracker that remembers every call but the machine's gauges, and may stop the run at the first figures."""

    def __init__(self, stop: BaseException | None = None) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.stop = stop

    def start(self, name: str, params: Any, tags: Any, run: str = "") -> str:
        self.calls.append(("start", name, dict(params), dict(tags)))
        return run or "run-1"

    def reopen(self, run: str) -> None:
        self.calls.append(("reopen", run))

    def log(self, run: str, metrics: Any, step: int) -> None:
        if all(name.startswith("system/") for name in metrics):
            return
        self.calls.append(("log", run, sorted(metrics), step))
        if self.stop is not None:
            raise self.stop

    def keep(self, run: str, file: Path, folder: str = "") -> None:
        self.calls.append(("keep", run, folder + file.name))

    def finish(self, run: str, *, ok: bool) -> None:
        self.calls.append(("finish", run, ok))

    def unfinished(self) -> list[str]:
        return []

    def mirror(self, model: str, versions: Any, champion: str | None) -> None:
        self.calls.append(("mirror", model, len(versions), champion))


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_weights(path).state_dict()


def test_a_run_learns_and_leaves_everything_that_describes_it(make, tmp_path):
    dataset, runs = make(), Recorder()
    run = fit(SPEC, dataset, runs=runs, folder=tmp_path / "runs", code="abc")
    place = tmp_path / "runs" / "run-1"
    assert run.val["auc"] > 0.95
    assert (run.run, run.checkpoint, run.spec, run.classes) == ("run-1", place / "weights.pt", SPEC, ("left", "right"))
    assert (run.data, run.code, run.config) == (dataset.digest, "abc", digest(canonical(SPEC)))
    assert run.cpu_seconds > 0
    assert 0 < run.seconds < 60
    assert sorted(file.name for file in place.iterdir()) == [
        "config.json",
        "curve.csv",
        "curve.png",
        "environment.json",
        "lock",
        "state.json",
        "weights.pt",
    ]
    assert json.loads((place / "config.json").read_text()) == plain(SPEC)
    state = {"run": "run-1", "epoch": 3, "epochs": 3, "phase": "done", "data": dataset.digest}
    assert json.loads((place / "state.json").read_text()) == state
    lines = (place / "curve.csv").read_text().splitlines()
    assert lines[0] == "epoch,loss,auc,accuracy"
    assert [float(value) for value in lines[3].split(",")][2:] == [run.val["auc"], run.val["accuracy"]]
    start, *rest = runs.calls
    assert start[:2] == ("start", "squares")
    assert start[2]["train.epochs"] == 3
    assert start[3] == {"data": dataset.digest, "data_name": "squares", "config": run.config, "code": "abc"}
    figures = ["accuracy", "auc", "loss"]
    assert rest == [
        *(("log", "run-1", figures, step) for step in (1, 2, 3)),
        *(
            ("keep", "run-1", name)
            for name in ("config.json", "environment.json", "curve.csv", "curve.png", "weights.pt")
        ),
        ("finish", "run-1", True),
    ]


def test_the_checkpoint_answers_as_the_run_measured(make, tmp_path):
    dataset = make()
    run = fit(SPEC, dataset, runs=None, folder=tmp_path)
    films = Films(dataset.path)
    rows = films.rows("val")
    with torch.no_grad():
        logits, _, _ = load_weights(run.checkpoint)(torch.from_numpy(films.pixels(SPEC.imaging)[rows.index]))
    accuracy = (logits.argmax(1).numpy() == rows.labels).mean()
    assert accuracy == pytest.approx(run.val["accuracy"])


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(make, tmp_path):
    dataset = make()
    spec = replace(
        SPEC,
        augment=AugmentSpec(rotate=5, scale=0.1, noise=0.02, blur=1, gamma=0.2, cutout=0.2),
        train=replace(SPEC.train, epochs=1),
    )
    first, again, other = (
        weights(fit(replace(spec, seed=seed), dataset, runs=None, folder=tmp_path).checkpoint) for seed in (4, 4, 5)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_training_leaves_the_process_as_it_found_it(make, tmp_path, capfd, monkeypatch):
    dataset = make()
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1)
    before = torch.random.get_rng_state(), torch.get_num_threads(), logging.getLogger("lightning.pytorch").level
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(replace(SPEC, train=replace(SPEC.train, epochs=1, threads=0)), dataset, runs=None, folder=tmp_path / "runs")
    after = torch.random.get_rng_state(), torch.get_num_threads(), logging.getLogger("lightning.pytorch").level
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert capfd.readouterr() == ("", "")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == ["data", "runs"]


def test_the_progress_bar_goes_to_stderr(make, tmp_path, capfd):
    fit(replace(SPEC, train=replace(SPEC.train, epochs=1, progress=True)), make(), runs=None, folder=tmp_path)
    out, err = capfd.readouterr()
    assert out == ""
    assert "epoch 1/1" in err


@pytest.mark.parametrize(("classes", "channels"), [(3, 1), (2, 3), (3, 3)])
def test_any_number_of_classes_and_both_numbers_of_channels_train(make, tmp_path, classes, channels):
    dataset = make(classes=classes, channels=channels)
    spec = replace(SPEC, imaging=ImagingSpec(size=28, channels=channels))
    run = fit(spec, dataset, runs=None, folder=tmp_path)
    assert len(run.classes) == classes
    assert run.val["auc"] > 0.9


def test_balance_and_averaged_weights_train_too(make, tmp_path):
    dataset = make(train=(90, 20), val=(20, 20))
    spec = replace(SPEC, train=replace(SPEC.train, epochs=4, balance=True, ema=0.8))
    assert fit(spec, dataset, runs=None, folder=tmp_path).val["auc"] > 0.9


def test_data_without_images_of_every_class_in_both_splits_are_refused_with_every_fault(make, tmp_path):
    with pytest.raises(BadSource) as caught:
        fit(SPEC, make(classes=3, train=(20, 0, 20), val=()), runs=None, folder=tmp_path)
    again = "Prepare the data set with images of every class, and `val` and `train` splits"
    assert str(caught.value) == (
        "data set 'squares' cannot be trained on\n"
        f"  train: no image of class 'right'; expected images of every class; got none. {again}\n"
        f"  val: no image in this split; expected images of every class; got none. {again}"
    )


def test_a_single_class_is_refused(make, tmp_path):
    with pytest.raises(BadSource, match="train: a single class; expected two classes or more; got left"):
        fit(SPEC, make(classes=1), runs=None, folder=tmp_path)


def test_a_loss_that_is_not_a_number_stops_the_run_with_its_step(make, tmp_path):
    runs = Recorder()
    spec = replace(SPEC, train=replace(SPEC.train, lr=1e30))
    with pytest.raises(CallerFault) as caught:
        fit(spec, make(), runs=runs, folder=tmp_path)
    assert str(caught.value).startswith("the training diverged\n  epoch 1, step ")
    assert "the loss is not a number; expected a finite loss; got nan. Lower train.lr, which is 1e+30" in str(
        caught.value
    )
    assert runs.calls[-1] == ("finish", "run-1", False)
    assert json.loads((tmp_path / "run-1" / "state.json").read_text())["phase"] == "failed"


def test_ctrl_c_closes_the_run_as_failed_and_comes_through(make, tmp_path):
    runs, listener = Recorder(stop=KeyboardInterrupt()), signal.getsignal(signal.SIGINT)
    dataset = make()
    with pytest.raises(KeyboardInterrupt):
        fit(SPEC, dataset, runs=runs, folder=tmp_path)
    assert signal.getsignal(signal.SIGINT) == listener
    assert runs.calls[-1] == ("finish", "run-1", False)
    state = {"run": "run-1", "epoch": 1, "epochs": 3, "phase": "failed", "data": dataset.digest}
    assert json.loads((tmp_path / "run-1" / "state.json").read_text()) == state


def test_a_program_that_ends_itself_in_the_middle_is_let_go(make, tmp_path):
    with pytest.raises(SystemExit) as caught:
        fit(SPEC, make(), runs=Recorder(stop=SystemExit(7)), folder=tmp_path)
    assert caught.value.code == 7


def test_an_unknown_network_is_refused_before_a_run_is_opened(make, tmp_path):
    runs = Recorder()
    with pytest.raises(BadOverride, match=r"model\.name: no such network; .*; got 'smal'\. Try 'small'"):
        fit(replace(SPEC, model=ModelSpec("smal")), make(), runs=runs, folder=tmp_path)
    assert runs.calls == []


def test_a_place_that_cannot_be_written_is_said(make, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        NotWritable, match=r"the training run cannot be kept\n .*Not a directory; expected a folder with"
    ):
        fit(SPEC, make(), runs=None, folder=tmp_path / "file")
