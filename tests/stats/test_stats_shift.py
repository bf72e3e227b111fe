"""Shift between samples, its correction for many questions, and the classifier of the doubtful labels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression

from rounds.stats.logistic import fit_logistic
from rounds.stats.shift import holm, mix_p, shift


def test_equal_samples_have_not_moved_and_p_is_uniform() -> None:
    rng = np.random.default_rng(0)
    p = []
    for _ in range(400):
        found = shift(
            {0: rng.normal(size=60), 1: rng.normal(3, 1, 30)}, {0: rng.normal(size=40), 1: rng.normal(3, 1, 50)}
        )
        assert found is not None
        p.append(found.p)
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert np.mean(np.array(p) < 0.05) < 0.08


def test_a_changed_class_mix_is_no_shift_but_a_moved_mean_is() -> None:
    rng = np.random.default_rng(1)
    one = {0: rng.normal(0, 1, 900), 1: rng.normal(5, 1, 100)}
    mixed = shift(one, {0: rng.normal(0, 1, 100), 1: rng.normal(5, 1, 900)})
    moved = shift(one, {0: rng.normal(0.5, 1, 300), 1: rng.normal(5.5, 1, 300)})
    assert mixed is not None
    assert moved is not None
    assert mixed.p > 0.01
    assert mixed.low < 0.5 < mixed.high
    assert moved.p < 1e-6
    assert moved.size == pytest.approx(0.5, abs=0.12)
    assert moved.superiority == pytest.approx(stats.norm.cdf(0.5 / np.sqrt(2)), abs=0.04)
    assert moved.n == (1000, 600)


def test_classes_of_few_films_are_not_asked() -> None:
    assert shift({0: np.arange(4.0)}, {0: np.arange(50.0)}) is None
    assert shift({0: np.arange(9.0)}, {1: np.arange(9.0)}) is None


def test_samples_that_do_not_overlap_are_certain_and_finite() -> None:
    found = shift({0: np.zeros(30)}, {0: np.ones(30)})
    assert found is not None
    assert (found.superiority, found.size) == (1.0, 0.0)
    assert 0 <= found.p < 1e-9


def test_the_mix_is_pearsons_test() -> None:
    table = [[30, 70], [55, 45]]
    assert mix_p(*table) == pytest.approx(stats.chi2_contingency(table, correction=False).pvalue)
    assert mix_p([5, 0], [9, 0]) == mix_p([0, 0], [3, 4]) == 1.0


def test_holms_correction_is_monotone_and_at_most_one() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_classifier_finds_what_scikit_learn_finds() -> None:
    rng = np.random.default_rng(2)
    y = rng.integers(0, 3, 600)
    x = rng.normal(size=(600, 8)) + np.eye(3, 8)[y] * 1.5
    own = fit_logistic(x, y, 3, components=8, ridge=100.0)
    whitened = (x - own.centre) @ own.axes
    theirs = LogisticRegression(C=1 / 100.0, max_iter=1000, tol=1e-8).fit(whitened, y)
    assert np.abs(own.probabilities(x) - theirs.predict_proba(whitened)).max() < 2e-3
