"""Conformal sets hold the true class as often as they promise, in each class."""

from __future__ import annotations

import numpy as np
import pytest

from rounds.stats.conformal import sets, thresholds
from rounds.stats.metrics import softmax


def test_thresholds_are_the_rank_of_the_definition() -> None:
    p = np.stack([1 - np.arange(1, 20) / 20, np.arange(1, 20) / 20], axis=1)
    y = np.ones(19, int)
    # 19 films of class 1 at 1 - p = .05 .. .95; rank ceil(20 * .9) = 18 is .9. Class 0 has no film.
    assert thresholds(p, y, 0.1) == pytest.approx([1.0, 0.9])
    assert thresholds(p[:9], y[:9], 0.1)[1] == pytest.approx(0.95)
    assert thresholds(p[:8], y[:8], 0.1)[1] == 1.0


def test_a_set_holds_every_class_up_to_its_threshold() -> None:
    p = np.array([[0.7, 0.3], [0.5, 0.5], [0.96, 0.04]])
    assert sets(p, np.array([0.5, 0.6])).tolist() == [[True, False], [True, True], [True, False]]
    assert sets(p, np.array([0.01, 0.02]))[:2].sum() == 0


def test_each_class_is_covered_as_promised_whatever_its_share() -> None:
    random = np.random.default_rng(1)
    covered = np.zeros(2)
    for _ in range(400):
        y = (random.random(600) < 0.15).astype(int)
        odds = random.normal(2.0 * y - 1, 1.2)
        p = softmax(np.stack([-odds / 2, odds / 2], axis=1))
        inside = sets(p[300:], thresholds(p[:300], y[:300], 0.1))
        covered += [inside[y[300:] == c, c].mean() for c in (0, 1)]
    assert (covered / 400 >= 0.895).all()
    assert (covered / 400 <= 0.93).all()
