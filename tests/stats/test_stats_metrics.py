"""The metrics are those of scikit-learn, and DeLong's variance is that of its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from rounds.stats.metrics import (
    auc,
    auc_delong,
    brier,
    confusion,
    ece,
    metrics,
    paired_auc,
    softmax,
)


def _drawn(n: int, k: int, seed: int, *, digits: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    y = random.integers(0, k, n)
    logits = random.normal(0, 1, (n, k))
    logits[np.arange(n), y] += 1.2
    p = np.round(softmax(logits), digits)
    p /= p.sum(1, keepdims=True)
    label = (p[:, 1] >= 0.4).astype(int) if k == 2 else p.argmax(1)
    return y, label, p


@pytest.mark.parametrize("digits", [12, 1])
def test_two_class_metrics_agree_with_scikit_learn(digits: int) -> None:
    y, label, p = _drawn(700, 2, 1, digits=digits)
    found = metrics(y, label, p)
    expected = {
        "auc": sk.roc_auc_score(y, p[:, 1]),
        "accuracy": sk.accuracy_score(y, label),
        "balanced_accuracy": sk.balanced_accuracy_score(y, label),
        "sensitivity": sk.recall_score(y, label),
        "specificity": sk.recall_score(y, label, pos_label=0),
        "f1": sk.f1_score(y, label),
        "brier": sk.brier_score_loss(y, p[:, 1]),
        "ece": _calibration_error(y, p),
        "average_precision": sk.average_precision_score(y, p[:, 1]),
    }
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name


def test_many_class_metrics_are_macro_one_against_the_rest_as_in_scikit_learn() -> None:
    y, label, p = _drawn(900, 4, 2)
    found = metrics(y, label, p)
    expected = {
        "auc": sk.roc_auc_score(y, p, multi_class="ovr", average="macro"),
        "accuracy": sk.accuracy_score(y, label),
        "balanced_accuracy": sk.balanced_accuracy_score(y, label),
        "f1": sk.f1_score(y, label, average="macro"),
        "brier": sk.brier_score_loss(y, p),
        "ece": _calibration_error(y, p),
        "average_precision": sk.average_precision_score(np.eye(4)[y], p, average="macro"),
    }
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name


FILMS = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 99)), min_size=4, max_size=60)


@settings(max_examples=60, deadline=None)
@given(FILMS, st.integers(1, 99))
def test_random_tied_and_lopsided_films_are_measured_as_scikit_learn_and_torchmetrics_do(
    films: list[tuple[int, int]], cut: int
) -> None:
    # probabilities in hundredths tie often; 0.5 / 1000 keeps them off the edges of bins, which belong to either side
    y, score = (np.array(column) for column in zip(*films, strict=True))
    p1 = (score + 0.05) / 100
    p, label = np.stack([1 - p1, p1], 1), (score >= cut).astype(int)
    found = metrics(y, label, p)
    expected = {
        "accuracy": sk.accuracy_score(y, label),
        "f1": sk.f1_score(y, label, zero_division=np.nan),
        "brier": ((p1 - y) ** 2).mean(),
        "ece": _calibration_error(y, p),
    }
    if 0 < y.sum() < len(y):
        expected |= {
            "auc": sk.roc_auc_score(y, p1),
            "average_precision": sk.average_precision_score(y, p1),
            "balanced_accuracy": sk.balanced_accuracy_score(y, label),
            "sensitivity": sk.recall_score(y, label),
            "specificity": sk.recall_score(y, label, pos_label=0),
        }
    else:
        assert np.isnan([found["auc"], found["average_precision"]]).all()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6, nan_ok=True), name


def _calibration_error(y: np.ndarray, p: np.ndarray) -> float:
    from torch import tensor
    from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

    if p.shape[1] == 2:
        return float(binary_calibration_error(tensor(p[:, 1]), tensor(y), n_bins=15))
    return float(multiclass_calibration_error(tensor(p), tensor(y), num_classes=p.shape[1], n_bins=15))


def test_delong_of_subjects_of_one_film_is_delong_and_films_that_repeat_teach_nothing() -> None:
    random = np.random.default_rng(15)
    y = (random.random(90) < 0.5).astype(int)
    score = np.round(random.normal(y, 1.0), 1)
    assert auc_delong(y, score, np.arange(90)) == pytest.approx(auc_delong(y, score), abs=1e-15)
    again = auc_delong(np.tile(y, 3), np.tile(score, 3), np.tile(np.arange(90), 3))
    assert again == pytest.approx(auc_delong(y, score), abs=1e-12)


def test_the_confusion_table_has_the_truth_in_rows() -> None:
    y, label, _ = _drawn(300, 3, 3)
    assert confusion(y, label, 3).tolist() == sk.confusion_matrix(y, label).tolist()
    assert confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 3).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(-4, 4)), min_size=2, max_size=40))
def test_the_auc_counts_pairs_and_half_the_ties(pairs: list[tuple[int, int]]) -> None:
    y, score = (np.array(column) for column in zip(*pairs, strict=True))
    positive, negative = score[y == 1], score[y == 0]
    if not len(positive) or not len(negative):
        assert np.isnan(auc(y, score))
        return
    gap = positive[:, None] - negative[None]
    assert auc(y, score) == pytest.approx(((gap > 0) + 0.5 * (gap == 0)).mean(), abs=1e-12)


def test_delong_is_the_covariance_of_the_placements_of_its_definition() -> None:
    random = np.random.default_rng(5)
    y = (random.random(120) < 0.4).astype(int)
    first = np.round(random.normal(y, 1.0), 1)
    second = np.round(0.5 * first + random.normal(y, 1.0), 1)

    def placements(score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gap = score[y == 1][:, None] - score[y == 0][None]
        wins = (gap > 0) + 0.5 * (gap == 0)
        return wins.mean(1), wins.mean(0)

    (v10, v01), (w10, w01) = placements(first), placements(second)
    m, n = len(v10), len(v01)
    variance = v10.var(ddof=1) / m + v01.var(ddof=1) / n
    assert auc_delong(y, first) == pytest.approx((v10.mean(), variance), abs=1e-12)
    difference = (v10 - w10).var(ddof=1) / m + (v01 - w01).var(ddof=1) / n
    assert paired_auc(y, first, second) == pytest.approx((v10.mean() - w10.mean(), difference), abs=1e-12)


def test_delong_variance_matches_the_spread_of_the_auc_over_repeated_draws() -> None:
    random = np.random.default_rng(6)
    y = np.repeat([0, 1], [120, 80])
    found = np.array([auc_delong(y, random.normal(y, 1.0)) for _ in range(1500)])
    assert found[:, 1].mean() == pytest.approx(found[:, 0].var(), rel=0.08)


def test_what_cannot_be_told_is_nan() -> None:
    y, p = np.ones(4, int), np.tile([0.3, 0.7], (4, 1))
    found = metrics(y, y, p)
    assert {name for name, value in found.items() if np.isnan(value)} == {"auc", "specificity", "average_precision"}
    assert found["balanced_accuracy"] == 1.0
    assert np.isnan(auc_delong(y, p[:, 1])).all()


def test_calibration_error_and_brier_of_a_worked_example() -> None:
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.2, 0.8]])
    y = np.array([0, 1, 1, 1])
    assert ece(y, p) == pytest.approx(0.5 * abs(0.1 - 0.5) + 0.5 * abs(0.8 - 1.0))
    assert brier(y, p) == pytest.approx((0.01 + 0.81 + 0.04 + 0.04) / 4)


def test_softmax_survives_large_logits() -> None:
    assert softmax(np.array([[1000.0, 0.0], [-1000.0, -1000.0]])).tolist() == [[1.0, 0.0], [0.5, 0.5]]
