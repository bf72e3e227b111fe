"""Intervals cover the truth as often as they say, and the bootstrap treats subjects as the units."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.stats import binomtest

from rounds.core.errors import OurFault
from rounds.stats.intervals import (
    GAPS,
    Weighted,
    _hanley,
    auc_change,
    clopper_pearson,
    cluster_bootstrap,
    metric_intervals,
    upper_bound,
)
from rounds.stats.metrics import metrics, softmax
from rounds.stats.simulate import covering


@pytest.mark.parametrize(("k", "n"), [(0, 7), (7, 7), (3, 11), (412, 500)])
def test_clopper_pearson_agrees_with_scipy(k: int, n: int) -> None:
    expected = binomtest(k, n).proportion_ci(0.95, method="exact")
    assert clopper_pearson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-12)
    one_sided = binomtest(k, n, alternative="less").proportion_ci(0.99, method="exact")
    assert upper_bound(k, n, 0.01) == pytest.approx(one_sided.high, abs=1e-12)


def test_nothing_seen_says_nothing() -> None:
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    assert upper_bound(0, 0, 0.05) == 1.0


def test_a_count_above_its_total_is_our_fault() -> None:
    with pytest.raises(OurFault, match=r"no share\n  k: a count outside its total; expected 0..3; got 4"):
        upper_bound(4, 3, 0.05)


def test_whole_subjects_are_drawn() -> None:
    seen: list[np.ndarray] = []

    def statistics(weights: np.ndarray) -> dict[str, np.ndarray]:
        seen.append(weights)
        return {"films": weights.sum(0)}

    cluster_bootstrap(["a", "a", "b", "c", "c", "c"], statistics, resamples=300)
    weights = np.concatenate(seen, axis=1)
    assert weights.shape == (6, 300)
    assert (weights[0] == weights[1]).all()
    assert (weights[3] == weights[4]).all()
    assert (weights[[0, 2, 3]].sum(0) == 3).all()


def _films(
    random: np.random.Generator, subjects: int, each: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    y = np.repeat((random.random(subjects) < 0.5).astype(int), each)
    own = np.repeat(random.normal(0, 1, subjects), each)
    odds = 1.5 * (2 * y - 1) + own + random.normal(0, 0.7, len(y))
    p = softmax(np.stack([-odds / 2, odds / 2], axis=1))
    return y, (p[:, 1] >= 0.5).astype(int), p, [f"s{i // each}" for i in range(len(y))]


def test_the_weighted_metrics_are_the_metrics_of_the_drawn_films() -> None:
    for k in (2, 3):
        random = np.random.default_rng(k)
        y, p = random.integers(0, k, 60), np.round(softmax(random.normal(0, 1, (60, k))), 2)
        p /= p.sum(1, keepdims=True)
        label = p.argmax(1)
        times = random.integers(0, 3, 60)
        found = Weighted(y, label, p)(times[:, None].astype(np.float32))
        assert np.abs(found.pop(GAPS)).sum() == pytest.approx(found["ece"][0])
        drawn = np.repeat(np.arange(60), times)
        expected = metrics(y[drawn], label[drawn], p[drawn])
        assert {name: float(value[0]) for name, value in found.items()} == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["auc", "accuracy", "sensitivity", "brier"])
def test_intervals_over_subjects_cover_the_truth_and_those_over_films_do_not(name: str) -> None:
    random = np.random.default_rng(1)
    truth = metrics(*_films(random, 40_000, 1)[:3])[name]
    lives, by_subject, by_film = 150, 0, 0
    for _ in range(lives):
        y, label, p, subjects = _films(random, 60, 5)
        low, high = metric_intervals(y, label, p, subjects, resamples=250)[name]
        by_subject += low <= truth <= high
        low, high = metric_intervals(y, label, p, list(range(len(y))), resamples=250)[name]
        by_film += low <= truth <= high
    assert by_subject >= 0.9 * lives
    assert by_film <= 0.85 * lives


def test_newcombes_published_interval_of_an_area_is_met_where_delong_agrees_with_its_variance() -> None:
    # Newcombe 2006, table I, method 5: an area of 1 over m = n = 10 has the lower limit 0.7838 with normal quantiles.
    from rounds.stats.intervals import _crossing

    limit = _crossing(1.0, 0.0, 1.959964, 10, 10)
    assert abs(1.0 - limit) == pytest.approx(1.959964 * _hanley(limit, 10, 10) ** 0.5, abs=1e-9)


@pytest.mark.parametrize("area", [covering.AREAS[1], covering.AREAS[3], covering.AREAS[5]])
def test_the_interval_of_an_area_covers_it_with_few_films_dependent_ones_and_many(
    area: tuple[int, int, int, float],
) -> None:
    assert covering.area_missed(200, 1, *area).bounds[0] <= 0.07


@pytest.mark.parametrize("statement", covering.STATEMENTS[:3])
def test_the_interval_of_the_calibration_error_covers_it_also_where_it_is_0(
    statement: tuple[int, int, float, float],
) -> None:
    assert covering.calibration_missed(100, 1, *statement).bounds[0] <= 0.09


def test_the_interval_of_the_calibration_error_is_moved_by_its_bias() -> None:
    random = np.random.default_rng(3)
    odds = random.normal(0, 1.5, 300)
    p1 = 1 / (1 + np.exp(-odds))
    y = (random.random(300) < p1).astype(int)
    p = np.stack([1 - p1, p1], axis=1)
    low, high = metric_intervals(y, y, p, list(range(300)), resamples=400)["ece"]
    value = metrics(y, y, p)["ece"]
    assert 0.0 <= low < 0.5 * value
    assert high >= value


def test_a_model_without_a_seen_error_still_has_an_interval() -> None:
    y = np.repeat([0, 1], [30, 20])
    p = np.stack([1 - y, y], axis=1) * 0.8 + 0.1
    found = metric_intervals(y, y, p, [f"s{i}" for i in range(50)], resamples=200)
    assert found["accuracy"] == clopper_pearson(50, 50)
    assert found["specificity"] == clopper_pearson(30, 30)
    for name in ("sensitivity", "balanced_accuracy", "f1", "average_precision"):
        assert found[name] == clopper_pearson(20, 20), name
    low, high = found["auc"]
    assert 0.85 < low < 0.92
    assert high == pytest.approx(1.0)
    wrong = metric_intervals(y, 1 - y, p, [f"s{i}" for i in range(50)], resamples=200)
    assert wrong["accuracy"] == clopper_pearson(0, 50)


def test_two_thousand_resamples_of_ten_thousand_films_take_two_seconds_at_most() -> None:
    y, label, p, subjects = _films(np.random.default_rng(2), 10_000, 1)
    started = time.process_time()
    found = metric_intervals(y, label, p, subjects)
    assert time.process_time() - started < 2.0 * 2
    value = metrics(y, label, p)
    assert all(low < value[name] < high for name, (low, high) in found.items() if name != "ece")


def test_a_missing_class_leaves_an_unknown_interval() -> None:
    y, p = np.ones(5, int), np.tile([0.2, 0.8], (5, 1))
    found = metric_intervals(y, y, p, list("abcde"), resamples=50)
    assert np.isnan(found["auc"]).all()
    assert np.isnan(found["specificity"]).all()


def test_a_window_that_both_models_rank_perfectly_does_not_show_that_none_is_worse() -> None:
    y = np.repeat([0, 1], 15)
    change, error = auc_change(y, y + 0.0, y * 2.0, 0.02)
    assert change == 0.0
    assert 1.645 * error > 0.02  # by DeLong alone the error would be 0
    y = np.repeat([0, 1], 2000)
    assert 1.645 * auc_change(y, y + 0.0, y * 2.0, 0.02)[1] < 0.02
    assert np.isnan(auc_change(np.array([0, 1, 1]), np.arange(3.0), np.arange(3.0), 0.02)[1])


def test_two_scores_of_one_order_are_one_ranking() -> None:
    random = np.random.default_rng(3)
    y, score = random.integers(0, 2, 60), random.random(60)
    assert auc_change(y, score**3 / 2, score, 0.02) == (0.0, 0.0)
    assert auc_change(y, score + random.normal(0, 0.01, 60), score, 0.02)[1] > 0
