"""The operating threshold keeps what its policy says, and does not hang on single films."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from rounds.core.specs import OperatingSpec, Policy
from rounds.stats.operating import operating_threshold, sensitivity_threshold

YOUDEN = OperatingSpec()


def _odds(threshold: float) -> float:
    return float(np.log(threshold / (1 - threshold)))


def _drawn(random: np.random.Generator, n: int, share: float, gap: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities whose log-odds are normal, +-gap apart from 0, with spread 1."""
    y = (random.random(n) < share).astype(int)
    return y, 1 / (1 + np.exp(-random.normal(gap * (2.0 * y - 1.0), 1.0)))


def test_youden_lies_where_the_classes_balance_whatever_their_mix() -> None:
    for share in (0.2, 0.7):
        threshold = operating_threshold(*_drawn(np.random.default_rng(7), 20_000, share), YOUDEN)
        assert _odds(threshold) == pytest.approx(0.0, abs=0.25)


def test_the_threshold_of_separated_classes_is_the_middle_of_the_gap() -> None:
    odds = np.concatenate([np.linspace(-6, -4, 50), np.linspace(2, 4, 50)])
    threshold = operating_threshold(np.repeat([0, 1], 50), 1 / (1 + np.exp(-odds)), YOUDEN)
    assert _odds(threshold) == pytest.approx(-1.0, abs=0.3)


def test_the_threshold_moves_less_from_sample_to_sample_than_the_empirical_optimum() -> None:
    random = np.random.default_rng(8)
    smooth, empirical = [], []
    for _ in range(60):
        y = (random.random(400) < 0.7).astype(int)
        p = 1 / (1 + np.exp(-random.normal(np.where(y, 3.0, -3.0), 2.0)))
        fpr, tpr, cuts = sk.roc_curve(y, p)
        empirical.append(_odds(cuts[(tpr - fpr).argmax()]))
        smooth.append(_odds(operating_threshold(y, p, YOUDEN)))
    assert np.std(smooth) < 0.6 * np.std(empirical)


def test_a_model_that_always_says_the_same_has_its_word_as_threshold() -> None:
    assert operating_threshold(np.array([0, 1, 1]), np.full(3, 0.3), YOUDEN) == pytest.approx(0.3, abs=1e-6)


def test_a_cost_table_moves_the_threshold_to_where_calibrated_odds_pay() -> None:
    # log-odds normal at +-1 with spread 1 are calibrated for equal classes when doubled: they pay at log(cost ratio)
    y, p = _drawn(np.random.default_rng(9), 40_000, 0.5)
    for miss, false, prevalence in ((4.0, 1.0, 0.0), (1.0, 4.0, 0.0), (1.0, 1.0, 0.2)):
        spec = OperatingSpec(Policy.COST, cost_false_negative=miss, cost_false_positive=false, prevalence=prevalence)
        common = prevalence or 0.5
        pays = np.log(false * (1 - common) / (miss * common)) / 2
        assert _odds(operating_threshold(y, p, spec)) == pytest.approx(pays, abs=0.25)


def test_the_costs_are_those_of_the_films_at_hand_where_no_prevalence_is_stated() -> None:
    y, p = _drawn(np.random.default_rng(10), 4000, 0.3)
    spec = OperatingSpec(Policy.COST, cost_false_negative=3.0, prevalence=float(y.mean()))
    stated = operating_threshold(y, p, spec)
    assert operating_threshold(y, p, OperatingSpec(Policy.COST, cost_false_negative=3.0)) == stated


def test_a_wanted_sensitivity_is_reached_in_the_world_in_19_of_20_draws() -> None:
    from scipy.special import ndtr

    random, lives, reached = np.random.default_rng(11), 2000, 0
    for _ in range(lives):
        y, p = _drawn(random, 300, 0.5)
        threshold = sensitivity_threshold(y, p, 0.9)
        reached += ndtr(1.0 - _odds(threshold)) >= 0.9
    assert reached / lives >= 0.945


def test_a_sensitivity_costs_no_more_specificity_than_it_must() -> None:
    y, p = _drawn(np.random.default_rng(12), 20_000, 0.5)
    threshold = operating_threshold(y, p, OperatingSpec(Policy.SENSITIVITY, min_sensitivity=0.9))
    assert 0.9 <= (p[y == 1] >= threshold).mean() <= 0.91


def test_too_few_positives_for_a_promise_are_all_caught_from_the_middle_of_the_gap_below_them() -> None:
    y, p = np.array([0] * 5 + [1] * 5), np.array([0.01, 0.02, 0.03, 0.04, 0.1, 0.9, 0.95, 0.96, 0.97, 0.98])
    assert sensitivity_threshold(y, p, 0.95) == pytest.approx(0.5)
    assert sensitivity_threshold(y, 1 - p, 0.95) == pytest.approx(0.02)


def test_a_robust_threshold_lies_between_that_of_both_sets_and_a_sensitivity_is_met_on_each() -> None:
    random = np.random.default_rng(13)
    clean, other = _drawn(random, 6000, 0.5, gap=2.0), _drawn(random, 6000, 0.5, gap=2.0)
    moved = other[0], 1 / (1 + np.exp(2.0) * (1 - other[1]) / other[1])  # the log-odds less 2
    alone, there = operating_threshold(*clean, YOUDEN), operating_threshold(*moved, YOUDEN)
    both = operating_threshold(*clean, YOUDEN, stressed=moved)
    assert _odds(there) + 0.5 < _odds(both) < _odds(alone) - 0.5
    policy = OperatingSpec(Policy.SENSITIVITY, min_sensitivity=0.9)
    threshold = operating_threshold(*clean, policy, stressed=moved)
    assert threshold == operating_threshold(*moved, policy)
    assert (clean[1][clean[0] == 1] >= threshold).mean() > 0.99


def test_without_one_of_the_classes_there_is_no_threshold() -> None:
    for policy in Policy:
        assert np.isnan(operating_threshold(np.ones(4, int), np.full(4, 0.7), OperatingSpec(policy)))
