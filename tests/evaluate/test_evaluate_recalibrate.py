"""The cheapest cure: fresh labels move temperature, bias and operating point, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.support.bundles import tiny_bundle, tiny_films, tiny_truth

from rounds.core.errors import BadLabel
from rounds.core.records import Bundle
from rounds.evaluate.recalibrate import recalibrate
from rounds.runtime.bundle import read, reference
from rounds.runtime.predictor import Predictor
from rounds.runtime.verdict import decide
from rounds.stats.metrics import auc, ece


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundles"))


def _darkened(bundle: Bundle, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    films = tiny_films(n, seed=seed)
    shown = tiny_films(n, seed=seed, brightness=0.75)
    return Predictor(bundle).network.answer_all(shown).logits, tiny_truth(films)


def test_sixty_labels_cure_a_darker_scanner(made: Bundle, tmp_path: Path) -> None:
    logits, y = _darkened(made, 60, 1)
    cured = recalibrate(made, logits, y, folder=tmp_path)
    fresh, truth = _darkened(made, 3000, 2)
    (before, p_before), (after, p_after) = (decide(bundle.calibration, fresh) for bundle in (made, cured))
    assert (before == truth).mean() < 0.85
    assert (after == truth).mean() > (before == truth).mean() + 0.05
    assert ece(truth, p_after) < ece(truth, p_before) / 2
    assert auc(truth, p_after[:, 1]) == pytest.approx(auc(truth, p_before[:, 1]), abs=1e-12)


def test_the_variant_keeps_everything_but_the_calibration(made: Bundle, tmp_path: Path) -> None:
    logits, y = _darkened(made, 60, 1)
    cured = recalibrate(made, logits, y, folder=tmp_path)
    assert read(cured.path) == cured
    assert (cured.variant, cured.parents.bundle) == ("recalibrated", made.digest)
    assert (cured.calibration.conformal, cured.calibration.alpha) == (
        made.calibration.conformal,
        made.calibration.alpha,
    )
    assert (cured.path / "model.onnx").read_bytes() == (made.path / "model.onnx").read_bytes()
    assert cured.calibration.threshold == pytest.approx(decide(cured.calibration, logits)[1][:, 1].mean())


def test_a_new_reference_may_come_with_it(made: Bundle, tmp_path: Path) -> None:
    logits, y = _darkened(made, 60, 1)
    held = reference(made)
    cured = recalibrate(made, logits, y, folder=tmp_path, reference=held)
    assert reference(cured).subjects == held.subjects


def test_labels_from_unchanged_films_change_little(made: Bundle, tmp_path: Path) -> None:
    films = tiny_films(400, seed=8)
    logits = Predictor(made).network.answer_all(films).logits
    kept = recalibrate(made, logits, tiny_truth(films), folder=tmp_path)
    fresh = tiny_films(2000, seed=9)
    said = Predictor(made).network.answer_all(fresh).logits
    before, after = (decide(bundle.calibration, said)[0] == tiny_truth(fresh) for bundle in (made, kept))
    assert after.mean() > before.mean() - 0.01


def test_more_classes_keep_having_no_threshold(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, classes=("a", "b", "c"))
    films = tiny_films(90)
    logits = Predictor(bundle).network.answer_all(films).logits
    assert recalibrate(bundle, logits, tiny_truth(films, 3), folder=tmp_path).calibration.threshold is None


@pytest.mark.parametrize(("n", "labels"), [(0, []), (2, [0, 2]), (2, [-1, 0]), (3, [0, 1])])
def test_labels_that_do_not_fit_are_refused(made: Bundle, tmp_path: Path, n: int, labels: list[int]) -> None:
    with pytest.raises(BadLabel, match="cannot recalibrate a bundle\n  labels do not fit; expected logits"):
        recalibrate(made, np.zeros((n, 2), np.float32), np.array(labels, int), folder=tmp_path)
