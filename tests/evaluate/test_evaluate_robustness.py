"""What harm on purpose does to a bundle, and the errors of which it was surest."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from tests.support.bundles import tiny_bundle
from tests.support.datasets import tiny_dataset

from rounds.core.ids import canonical
from rounds.core.records import Bundle, DatasetVersion
from rounds.evaluate.measure import score
from rounds.evaluate.mistakes import mistakes
from rounds.evaluate.robustness import SEVERITIES, robustness
from rounds.imaging.corrupt import CORRUPTIONS
from rounds.imaging.packed import Films
from rounds.stats.metrics import auc


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    return tiny_dataset(tmp_path_factory.mktemp("data"))


def test_every_kind_of_harm_has_its_curve_beside_the_films_as_they_are(made: Bundle, dataset: DatasetVersion) -> None:
    measured = score(made, dataset)
    found = robustness(made, dataset, measured)
    assert found == robustness(made, dataset, measured)
    json.loads(canonical(found))
    assert (found["n"], found["subjects"]) == (200, 100)
    assert tuple(found["curves"]) == tuple(SEVERITIES) == CORRUPTIONS
    assert found["clean"]["auc"]["value"] == pytest.approx(auc(measured.y, measured.probabilities[:, 1]))
    # the tiny network tells films by their brightness alone: turning does nothing to it, and brightness everything
    turned = found["curves"]["rotate"]["points"]
    brighter = found["curves"]["brightness"]["points"]
    assert [point["severity"] for point in brighter] == [-0.3, -0.15, 0.15, 0.3]
    assert found["curves"]["brightness"]["neutral"] == 0.0
    assert min(point["auc"]["value"] for point in turned) > 0.9
    assert brighter[-1]["accuracy"]["value"] < 0.75 < found["clean"]["accuracy"]["value"]
    for point in (*turned, *brighter, found["stress"]):
        assert all(point[name]["low"] <= point[name]["value"] <= point[name]["high"] for name in ("auc", "accuracy"))


def test_fewer_films_are_evenly_spread_over_the_split(made: Bundle, dataset: DatasetVersion) -> None:
    found = robustness(made, dataset, score(made, dataset), films=60)
    assert found["n"] == 60
    assert "auc" in found["clean"]


def test_the_worst_errors_come_with_the_places_that_spoke_for_them(made: Bundle, dataset: DatasetVersion) -> None:
    measured = score(made, dataset)
    wrong = np.flatnonzero(measured.label != measured.y)
    assert len(wrong) >= 3
    found = mistakes(made, dataset, measured, most=3)
    given = [one.probability for one in found]
    assert given == sorted(measured.probabilities[wrong, measured.y[wrong]])[:3]
    films = Films(dataset.path)
    for one in found:
        place = measured.names.index(one.film)
        assert (one.true, one.said) == (made.classes[measured.y[place]], made.classes[measured.label[place]])
        assert one.true != one.said
        assert one.pixels.tolist() == films.pixels(made.imaging)[measured.index[place]].tolist()
        assert one.heat is not None
        # the map's mean is what the logits say of the two classes
        logits = measured.logits[place]
        assert one.heat.mean() == pytest.approx(logits[measured.label[place]] - logits[measured.y[place]], abs=1e-3)


def test_a_bundle_without_errors_has_none_to_show(made: Bundle, dataset: DatasetVersion) -> None:
    measured = score(made, dataset)
    assert mistakes(made, dataset, replace(measured, label=measured.y)) == []
