"""A verdict follows from temperature, bias, threshold and conformal thresholds, and says why a person should look."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.support.bundles import predicted, shifted_threshold, tiny_bundle, tiny_films

from rounds.core.records import Bundle, Calibration
from rounds.runtime.bundle import reference, vary
from rounds.runtime.predictor import Outputs, Predictor
from rounds.runtime.scores import SCORES, scores
from rounds.runtime.verdict import Judge, decide, verdicts
from rounds.stats.metrics import softmax


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundles"), classes=("a", "b", "c"))


def _said(logits: list[list[float]]) -> Outputs:
    values = np.array(logits, np.float32)
    empty = np.empty((len(values), 0), np.float32)
    return Outputs(values, empty, empty)


def _far(bundle: Bundle, distances: list[float]) -> np.ndarray:
    table = np.zeros((len(distances), len(SCORES)), np.float32)
    table[:, SCORES.index("embedding")] = distances
    return table


def _judge(bundle: Bundle, calibration: Calibration) -> Judge:
    return Judge(vary(bundle, bundle.path.parent, variant="test", calibration=calibration))


def test_probabilities_are_softmax_of_logits_over_temperature_plus_bias() -> None:
    logits = np.array([[1.0, 3.0], [2.0, -2.0]])
    label, p = decide(Calibration(2.0, (0.5, -0.5), 0.4, (1.0, 1.0), 0.1), logits)
    assert p == pytest.approx(softmax(np.array([[1.0, 1.0], [1.5, -1.5]])))
    assert label.tolist() == [1, 0]


def test_the_last_of_two_classes_is_named_from_the_threshold_up(made: Bundle) -> None:
    logits = np.log(np.array([[0.3, 0.7], [0.29, 0.71], [0.31, 0.69]]))
    label, p = decide(Calibration(1.0, (0.0, 0.0), 0.7, (1.0, 1.0), 0.1), logits)
    assert label.tolist() == [int(value >= 0.7) for value in p[:, 1]]
    films = tiny_films(400, seed=3)
    strict, loose = (predicted(shifted_threshold(made, made.path.parent, at), films) for at in (0.9, 0.1))
    assert strict.sum() < loose.sum()


def test_of_more_classes_the_most_probable_is_named() -> None:
    label, _ = decide(Calibration(1.0, (0.0, 0.0, 2.0), None, (1.0,) * 3, 0.1), np.array([[1.0, 0, 0], [4.0, 0, 0]]))
    assert label.tolist() == [2, 0]


def test_a_film_is_referred_unless_its_set_is_one_class(three: Bundle) -> None:
    judge = _judge(three, replace(three.calibration, conformal=(0.65, 0.65, 0.3)))
    p = [[0.8, 0.1, 0.1], [0.4, 0.38, 0.22], [0.34, 0.34, 0.32], [0.2, 0.2, 0.6]]
    found = judge.verdicts(_said(np.log(p).tolist()), _far(three, [0.0] * 4))
    assert found.members.tolist() == [
        [True, False, False],
        [True, True, False],
        [False, False, False],
        [False, False, False],
    ]
    assert found.refer.tolist() == [False, True, True, True]
    assert list(found.reason) == [
        None,
        "2 classes are likely enough: a, b",
        "no class is likely enough: the conformal set is empty",
        "no class is likely enough: the conformal set is empty",
    ]
    assert found.label.tolist() == [0, 0, 0, 2]


def test_a_film_farther_out_than_the_reference_is_referred(made: Bundle) -> None:
    judge = _judge(made, replace(made.calibration, conformal=(0.5, 0.5)))
    held = np.sort(reference(made).scores[:, SCORES.index("embedding")])
    found = judge.verdicts(_said([[9, 0]] * 3), _far(made, [0.0, float(held[-4]), 1e3]))
    assert found.ood.tolist() == pytest.approx([1.0, 5 / 301, 1 / 301])
    assert found.refer.tolist() == [False, False, True]
    assert found.reason[2] == "the film is unlike the films the model was calibrated on"
    both = judge.verdicts(_said([[0, 0]]), _far(made, [1e3]))
    assert both.reason[0] is not None
    assert both.reason[0].endswith(
        "likely enough: normal, opacity; the film is unlike the films the model was calibrated on"
    )


def test_one_clean_film_in_a_hundred_is_called_unlike_the_others_at_most(made: Bundle) -> None:
    films = tiny_films(3000, seed=21)
    said = Predictor(made).answer(films)
    found = verdicts(made, said, scores(made, films, said))
    assert (found.ood < 0.01).mean() < 0.02
    assert found.ood.dtype == np.float32


def test_the_conformal_sets_of_clean_films_hold_the_truth_as_promised(made: Bundle) -> None:
    from tests.support.bundles import tiny_truth

    films = tiny_films(3000, seed=22)
    said = Predictor(made).answer(films)
    found = verdicts(made, said, scores(made, films, said))
    truth = tiny_truth(films)
    assert [found.members[truth == c, c].mean() for c in (0, 1)] == pytest.approx([0.9, 0.9], abs=0.05)
