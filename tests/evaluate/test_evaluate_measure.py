"""A bundle is measured as it is served, by subjects, against the names of its classes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk
from tests.support.bundles import tiny_bundle
from tests.support.datasets import tiny_dataset

from rounds.core.errors import BadSource
from rounds.core.ids import canonical
from rounds.core.records import Bundle, DatasetVersion
from rounds.evaluate.measure import measure, score
from rounds.imaging.fit import to_pixels
from rounds.imaging.packed import Films
from rounds.runtime.predictor import Predictor


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    return tiny_dataset(tmp_path_factory.mktemp("data"))


def test_a_film_is_measured_as_it_would_be_served(made: Bundle, dataset: DatasetVersion) -> None:
    found = score(made, dataset)
    films = Films(dataset.path)
    rows = films.rows("test")
    assert (found.split, len(found), found.digests, found.subjects) == ("test", 200, rows.digests, rows.subjects)
    served = to_pixels(films.bytes(int(rows.index[7])), made.imaging)
    assert Predictor(made).answer(served[None]).logits[0] == pytest.approx(found.logits[7], abs=1e-5)
    assert found.y.tolist() == rows.labels.tolist()
    assert found.ms > 0


def test_the_report_holds_the_metrics_of_the_contract_with_intervals(made: Bundle, dataset: DatasetVersion) -> None:
    report, found = measure(made, dataset), score(made, dataset)
    told = json.loads(canonical(report.public()))
    assert list(report.public()) == [
        "bundle", "data", "split", "n", "classes", "threshold", "metrics", "confusion", "slices",
    ]  # fmt: skip
    assert (told["bundle"], told["data"], told["split"], told["n"]) == (made.digest, dataset.digest, "test", 200)
    assert (told["classes"], told["threshold"]) == (["normal", "opacity"], 0.5)
    assert list(report.metrics) == [
        "auc", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "f1", "brier", "ece", "average_precision",
    ]  # fmt: skip
    assert report.metrics["auc"].value == pytest.approx(sk.roc_auc_score(found.y, found.probabilities[:, 1]), abs=1e-9)
    assert report.metrics["accuracy"].value == pytest.approx((found.label == found.y).mean(), abs=1e-9)
    assert all(metric.low <= metric.value <= metric.high for metric in report.metrics.values())
    assert report.confusion == tuple(map(tuple, sk.confusion_matrix(found.y, found.label).tolist()))


def test_the_same_bundle_and_films_give_the_same_report(made: Bundle, dataset: DatasetVersion) -> None:
    assert measure(made, dataset).public() == measure(made, dataset).public()


def test_more_classes_are_measured_one_against_the_rest_without_a_threshold(tmp_path: Path) -> None:
    names = ("a", "b", "c")
    bundle = tiny_bundle(tmp_path / "bundles", classes=names)
    report = measure(bundle, tiny_dataset(tmp_path / "data", classes=names, splits={"test": 150}))
    assert report.threshold is None
    assert list(report.metrics) == ["auc", "accuracy", "balanced_accuracy", "f1", "brier", "ece", "average_precision"]
    assert [curve["class"] for curve in report.curves["roc"]] == ["a", "b", "c"]
    assert report.curves["operating"] is None
    json.loads(canonical(report.curves))


def test_the_test_split_is_taken_else_val_else_the_one_that_is_named(made: Bundle, tmp_path: Path) -> None:
    both = tiny_dataset(tmp_path, splits={"val": 60, "test": 40})
    assert [measure(made, both, split).n for split in (None, "val", "test")] == [40, 60, 40]
    only = tiny_dataset(tmp_path, splits={"val": 30})
    assert measure(made, only).split == "val"
    with pytest.raises(BadSource, match=r"tiny: the split is empty; expected calibration; got val \(30\)\. Name one"):
        measure(made, only, "calibration")
    train = tiny_dataset(tmp_path, splits={"train": 30})
    with pytest.raises(BadSource, match=r"expected test or val; got train \(30\)"):
        measure(made, train)


def test_classes_are_matched_by_name_and_others_are_refused(made: Bundle, tmp_path: Path) -> None:
    turned = tiny_dataset(tmp_path, classes=("opacity", "normal"), splits={"test": 100})
    found = score(made, turned)
    films = Films(turned.path)
    assert [made.classes[y] for y in found.y] == [films.classes[label] for label in films.rows("test").labels]
    other = tiny_dataset(tmp_path, classes=("cat", "dog"), splits={"test": 40})
    with pytest.raises(BadSource, match="other classes than the bundle's; expected normal, opacity; got cat, dog"):
        measure(made, other)


def test_the_curves_are_plain_numbers_that_fit_the_metrics(made: Bundle, dataset: DatasetVersion) -> None:
    report = measure(made, dataset)
    curves = json.loads(canonical(report.curves))
    roc = curves["roc"][0]
    assert np.trapezoid(roc["tpr"], roc["fpr"]) == pytest.approx(report.metrics["auc"].value, abs=2e-3)
    assert (roc["fpr"][0], roc["tpr"][0], roc["fpr"][-1], roc["tpr"][-1]) == (0, 0, 1, 1)
    assert curves["operating"]["tpr"] == pytest.approx(report.metrics["sensitivity"].value)
    assert 1 - curves["operating"]["fpr"] == pytest.approx(report.metrics["specificity"].value)
    assert sum(row["n"] for row in curves["reliability"]) == 200
    gap = sum(row["n"] * abs(row["mean"] - row["share"]) for row in curves["reliability"]) / 200
    assert gap == pytest.approx(report.metrics["ece"].value)
    assert sum(sum(counts) for counts in curves["scores"]["counts"].values()) == 200
    assert list(curves["scores"]["counts"]) == ["normal", "opacity"]
    assert curves["subjects"] == 100


def test_a_split_of_one_class_is_measured_with_what_can_be_told(made: Bundle, tmp_path: Path) -> None:
    from dataclasses import replace

    from tests.support.bundles import tiny_films

    from rounds.core.specs import ImagingSpec
    from rounds.imaging.films import Film, write_films
    from rounds.imaging.fit import encode_png

    assert made.imaging == replace(ImagingSpec(), size=16)
    films = (Film(encode_png(film), "opacity", str(i), "test", str(i)) for i, film in enumerate(tiny_films(20)))
    dataset = write_films(tmp_path, "one", made.classes, films, subjects_known=True)
    report = measure(made, dataset)
    assert list(report.metrics) == ["accuracy", "balanced_accuracy", "sensitivity", "f1", "brier", "ece"]
    json.loads(canonical(report))
    assert report.metrics["sensitivity"].value == report.metrics["accuracy"].value
    assert report.curves["roc"][0]["auc"] is None


def test_measuring_imports_no_torch(made: Bundle, dataset: DatasetVersion) -> None:
    program = f"""
import sys
from pathlib import Path
from rounds.evaluate.measure import measure
from rounds.imaging.packed import open_dataset
from rounds.runtime.bundle import read
assert measure(read(Path({str(made.path)!r})), open_dataset(Path({str(dataset.path)!r}))).n == 200
print([name for name in ("torch", "matplotlib", "plotly", "scipy.stats", "mlflow", "sklearn") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
