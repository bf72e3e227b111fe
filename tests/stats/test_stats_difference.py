"""The paired difference of two AUCs, against published formulas, scikit-learn and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from rounds.stats.difference import area_difference

N = 200


def two(score: np.ndarray) -> np.ndarray:
    return np.stack([-score, score], axis=1)


def films(seed: int, better: float = 0.0, each: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[int]]:
    """Two models' scores of N films; `each` films of a subject share class and error."""
    random = np.random.default_rng(seed)
    y = np.repeat(random.integers(0, 2, N // each), each)
    shared = np.repeat(random.normal(size=N // each), each)
    one = y * (1.0 + better) + shared + np.repeat(random.normal(size=N // each), each)
    other = y * 1.0 + shared + np.repeat(random.normal(size=N // each), each)
    return y, one, other, list(np.repeat(np.arange(N // each), each))


def delong(y: np.ndarray, one: np.ndarray, other: np.ndarray) -> float:
    """The variance of the difference as DeLong et al. write it, by all pairs."""
    placements = []
    for score in (one, other):
        wins = (score[y == 1][:, None] > score[y == 0]) + 0.5 * (score[y == 1][:, None] == score[y == 0])
        placements.append((wins.mean(1), wins.mean(0)))
    parts = [np.cov(np.stack([placements[0][side], placements[1][side]])) for side in (0, 1)]
    covariance = parts[0] / (y == 1).sum() + parts[1] / (y == 0).sum()
    return float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])


def test_the_value_is_the_difference_of_the_areas_and_the_width_is_delongs() -> None:
    y, one, other, subjects = films(0, 0.3)
    one = one.round(1)  # with ties
    value, low, high = area_difference(y, two(one), two(other), subjects)
    assert value == pytest.approx(roc_auc_score(y, one) - roc_auc_score(y, other), abs=1e-12)
    assert high - low == pytest.approx(2 * 1.972 * np.sqrt(delong(y, one, other)), rel=0.01)
    assert low < value < high


def test_over_more_classes_it_is_the_mean_of_each_against_the_rest() -> None:
    random = np.random.default_rng(1)
    y = random.integers(0, 3, N)
    one, other = (np.eye(3)[y] + random.normal(size=(N, 3)) * width for width in (0.7, 1.0))
    areas = [np.mean([roc_auc_score(y == c, said[:, c]) for c in range(3)]) for said in (one, other)]
    assert area_difference(y, one, other, range(N))[0] == pytest.approx(areas[0] - areas[1], abs=1e-12)


def test_films_of_one_subject_are_not_counted_apart() -> None:
    covered = {True: 0, False: 0}
    for seed in range(300):
        y, one, other, subjects = films(seed, each=4)
        for grouped in covered:
            _, low, high = area_difference(y, two(one), two(other), subjects if grouped else range(N))
            covered[grouped] += low <= 0 <= high
    assert 270 <= covered[True] <= 297
    assert covered[False] < 240


def test_where_a_class_has_no_film_nothing_is_told() -> None:
    _, one, other, subjects = films(0)
    assert np.isnan(area_difference(np.ones(N, int), two(one), two(other), subjects)).all()
