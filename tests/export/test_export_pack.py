"""Weights become a bundle that answers as torch does, each split used for its one purpose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.datasets import tiny_dataset

from rounds.core.errors import BadSource, OurFault
from rounds.core.records import Bundle, DatasetVersion, Parents, TrainedRun
from rounds.core.specs import AugmentSpec, ExportSpec, ImagingSpec, ModelSpec, TrainSpec
from rounds.export.calibrated import one_film_a_subject
from rounds.export.graph import Mirrored, check_parity, to_onnx
from rounds.export.pack import pack
from rounds.imaging.packed import Films
from rounds.nets.names import build
from rounds.nets.weights import load_weights, save_weights
from rounds.runtime.bundle import read, reference
from rounds.runtime.predictor import Network, Predictor
from rounds.runtime.scores import scores
from rounds.runtime.verdict import Judge, decide

SIZE = 28
Making = Callable[[str], TrainedRun]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    return tiny_dataset(tmp_path_factory.mktemp("data"), size=SIZE)


@pytest.fixture(scope="module")
def run(dataset: DatasetVersion, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A network with random weights, except that its classes are fitted to its features."""
    spec = TrainSpec(imaging=ImagingSpec(size=SIZE), model=ModelSpec())
    films = Films(dataset.path)
    rows = films.rows("train")
    pixels = torch.from_numpy(films.pixels(spec.imaging)[rows.index])
    torch.manual_seed(0)
    net = build(spec.model, channels=1, classes=2, size=SIZE).eval()
    net.prepare(pixels)
    with torch.no_grad():
        features = net(pixels)[1].double()
        design = torch.cat([features, torch.ones(len(features), 1)], dim=1)
        wanted = torch.nn.functional.one_hot(torch.from_numpy(rows.labels), 2).double() * 6 - 3
        ridge = torch.linalg.solve(design.T @ design + 1e-2 * torch.eye(design.shape[1]), design.T @ wanted)
        net.head.weight.copy_(ridge[:-1].T)
        net.head.bias.copy_(ridge[-1])
    path = tmp_path_factory.mktemp("run") / "weights.pt"
    save_weights(path, net, spec.model, channels=1, classes=2, size=SIZE)
    return TrainedRun("run-1", path, spec, dataset.classes, dataset.digest, "c" * 64, "abc+", 1.0, 1.0, {"auc": 0.9})


@pytest.fixture(scope="module")
def packed(run: TrainedRun, dataset: DatasetVersion, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return pack(run, dataset, ExportSpec(), folder=tmp_path_factory.mktemp("bundles"))


def test_the_bundle_carries_its_parents(packed: Bundle, run: TrainedRun, dataset: DatasetVersion) -> None:
    assert read(packed.path) == packed
    assert packed.parents == Parents(data=dataset.digest, run="run-1", config="c" * 64, code="abc+", bundle=None)
    assert (packed.classes, packed.imaging, packed.variant) == (dataset.classes, run.spec.imaging, "trained")


def test_packing_twice_gives_the_same_bundle(
    packed: Bundle, run: TrainedRun, dataset: DatasetVersion, tmp_path: Path
) -> None:
    assert pack(run, dataset, ExportSpec(), folder=tmp_path).digest == packed.digest


def test_the_served_graph_answers_as_torch_on_both_mirror_images(
    packed: Bundle, run: TrainedRun, dataset: DatasetVersion
) -> None:
    films = Films(dataset.path).pixels(packed.imaging)[:32]
    said = Predictor(packed).answer(np.ascontiguousarray(films))
    net = load_weights(run.checkpoint)
    with torch.no_grad():
        straight = net(torch.from_numpy(films.copy()))
        mirrored = net(torch.from_numpy(films[..., ::-1].copy()))
    assert said.logits == pytest.approx(((straight[0] + mirrored[0]) / 2).numpy(), abs=1e-4)
    assert said.embedding == pytest.approx(((straight[1] + mirrored[1]) / 2).numpy(), abs=1e-4)
    assert said.activation == pytest.approx(((straight[2] + mirrored[2].flip(3)) / 2).numpy(), abs=1e-4)


def test_a_recipe_without_mirroring_and_a_switch_turn_the_average_off(
    run: TrainedRun, dataset: DatasetVersion, tmp_path: Path
) -> None:
    plain = replace(run, spec=replace(run.spec, augment=AugmentSpec(flip=False)))
    one = pack(plain, dataset, ExportSpec(), folder=tmp_path)
    two = pack(run, dataset, ExportSpec(flip_average=False), folder=tmp_path)
    assert (one.path / "model.onnx").read_bytes() == (two.path / "model.onnx").read_bytes()


def test_temperature_bias_and_threshold_come_from_val(packed: Bundle, dataset: DatasetVersion) -> None:
    films = Films(dataset.path)
    rows = films.rows("val")
    said = Predictor(packed).answer(films.pixels(packed.imaging)[rows.index])
    label, p = decide(packed.calibration, said.logits)
    assert p[:, 1].mean() == pytest.approx(rows.labels.mean(), abs=0.01)
    assert packed.calibration.threshold is not None
    assert 0.05 < packed.calibration.threshold < 0.95
    assert (label == rows.labels).mean() > 0.8


def test_the_reference_is_one_calibration_film_of_each_subject(packed: Bundle, dataset: DatasetVersion) -> None:
    held, rows = reference(packed), Films(dataset.path).rows("calibration")
    assert len(held) == 100
    assert sorted(held.subjects) == sorted(set(rows.subjects))
    assert set(held.images) <= set(rows.digests)
    assert [rows.labels[rows.digests.index(image)] for image in held.images] == held.label.tolist()
    found = Judge(packed)
    films = Films(dataset.path).pixels(packed.imaging)[[rows.index[rows.digests.index(name)] for name in held.images]]
    said = Predictor(packed).answer(films)
    assert scores(packed, films, said) == pytest.approx(held.scores, rel=1e-3, abs=1e-3)
    members = found.verdicts(said, held.scores).members
    for c in (0, 1):
        assert members[held.label == c, c].mean() >= 0.9


def test_the_chosen_film_of_a_subject_does_not_depend_on_its_class(dataset: DatasetVersion) -> None:
    rows = Films(dataset.path).rows("calibration")
    chosen = one_film_a_subject(rows)
    for i in chosen:
        same = [j for j in range(len(rows)) if rows.subjects[j] == rows.subjects[i]]
        assert rows.digests[i] == min(rows.digests[j] for j in same)


def test_more_classes_have_no_threshold(tmp_path: Path) -> None:
    classes = ("a", "b", "c")
    dataset = tiny_dataset(tmp_path / "data", classes=classes, size=SIZE, channels=3)
    spec = TrainSpec(imaging=ImagingSpec(size=SIZE, channels=3))
    net = build(spec.model, channels=3, classes=3, size=SIZE)
    save_weights(tmp_path / "w.pt", net, spec.model, channels=3, classes=3, size=SIZE)
    run = TrainedRun("r", tmp_path / "w.pt", spec, classes, dataset.digest, "c", "x", 1.0, 1.0, {})
    bundle = pack(run, dataset, ExportSpec(score_films=50), folder=tmp_path / "bundles")
    assert bundle.calibration.threshold is None
    assert len(bundle.calibration.bias) == len(bundle.calibration.conformal) == 3


def test_a_data_set_without_val_or_calibration_cannot_calibrate_a_bundle(run: TrainedRun, tmp_path: Path) -> None:
    short = tiny_dataset(tmp_path, size=SIZE, splits={"train": 20})
    with pytest.raises(BadSource, match="tiny cannot calibrate a bundle") as caught:
        pack(replace(run, data=short.digest), short, ExportSpec(), folder=tmp_path)
    assert [fault.where for fault in caught.value.faults] == ["tiny, split val", "tiny, split calibration"]


def test_a_run_of_another_data_set_is_our_fault(run: TrainedRun, tmp_path: Path) -> None:
    other = tiny_dataset(tmp_path, size=SIZE, seed=1, splits={"train": 20})
    with pytest.raises(OurFault, match="run run-1 was not trained on tiny\n  tiny: another data set; expected data"):
        pack(run, other, ExportSpec(), folder=tmp_path)


def test_a_graph_that_answers_otherwise_is_our_fault(run: TrainedRun, dataset: DatasetVersion) -> None:
    net = load_weights(run.checkpoint)
    network = Network(to_onnx(net, channels=1, size=SIZE))
    films = Films(dataset.path).pixels(run.spec.imaging)
    assert check_parity(net, network, films[:250], 1e-4) < 1e-5
    with pytest.raises(
        OurFault, match=r"torch and ONNX Runtime disagree\n  logits: the exported network answers other"
    ):
        check_parity(Mirrored(net), network, films[:50], 1e-4)


def test_exporting_says_nothing_and_hides_no_path(
    run: TrainedRun, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    model = to_onnx(load_weights(run.checkpoint), channels=1, size=SIZE)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    assert b"site-packages" not in model
    assert b"/src/rounds" not in model
