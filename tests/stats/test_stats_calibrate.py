"""Temperature and bias are found again where they were planted, and few labels move little."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from rounds.stats.calibrate import Prior, fit_temperature, fit_temperature_bias
from rounds.stats.metrics import softmax


def _drawn(n: int, k: int, temperature: float, bias: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, (n, k))
    p = softmax(logits / temperature + bias)
    y = (p.cumsum(1) < random.random((n, 1))).sum(1)
    return logits, y


@pytest.mark.parametrize("k", [2, 5])
def test_the_planted_temperature_and_bias_are_found(k: int) -> None:
    bias = np.linspace(-0.8, 0.8, k)
    logits, y = _drawn(20_000, k, 2.5, bias, 1)
    temperature, found = fit_temperature_bias(logits, y)
    assert temperature == pytest.approx(2.5, rel=0.05)
    assert found == pytest.approx(bias, abs=0.08)
    assert sum(found) == pytest.approx(0.0, abs=1e-9)


def test_the_temperature_is_the_likeliest_one() -> None:
    logits, y = _drawn(500, 3, 1.7, np.zeros(3), 2)

    def surprise(log_t: np.ndarray) -> float:
        return -float(np.log(softmax(logits / np.exp(log_t[0]))[np.arange(500), y]).sum())

    expected = float(np.exp(minimize(surprise, [0.0], method="Nelder-Mead", options={"xatol": 1e-8}).x[0]))
    assert fit_temperature(logits, y) == pytest.approx(expected, rel=1e-3)


def test_the_fit_with_bias_is_the_likeliest_one() -> None:
    logits, y = _drawn(400, 2, 1.3, np.array([-0.5, 0.5]), 3)

    def surprise(x: np.ndarray) -> float:
        p = softmax(logits * np.exp(x[0]) + np.array([-x[1], x[1]]))
        return -float(np.log(p[np.arange(400), y]).sum())

    best = minimize(surprise, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10}).x
    temperature, bias = fit_temperature_bias(logits, y)
    assert temperature == pytest.approx(float(np.exp(-best[0])), rel=2e-3)
    assert bias == pytest.approx((-best[1], best[1]), abs=5e-3)


def test_separated_classes_and_absent_classes_keep_the_fit_finite() -> None:
    logits = np.stack([-np.linspace(-5, 5, 40), np.linspace(-5, 5, 40)], axis=1)
    y = (logits[:, 1] > 0).astype(int)
    temperature, bias = fit_temperature_bias(logits, y)
    assert 0.05 <= temperature < 1.0
    assert np.isfinite(bias).all()
    assert 0.05 <= fit_temperature(logits, y) < 1.0
    temperature, bias = fit_temperature_bias(logits, np.zeros(40, int))
    assert np.isfinite([temperature, *bias]).all()
    assert bias[0] > bias[1]


def test_labels_that_say_the_opposite_make_the_model_as_unsure_as_it_can_be() -> None:
    logits, y = _drawn(300, 2, 1.0, np.zeros(2), 4)
    assert fit_temperature(logits, 1 - y) == 20.0


def test_few_labels_move_little_and_many_decide() -> None:
    prior = Prior(1.0, (0.0, 0.0))
    bias = np.array([-1.5, 1.5])
    logits, y = _drawn(5_000, 2, 1.0, bias, 5)
    few, many = (fit_temperature_bias(logits[:n], y[:n], prior)[1][1] for n in (8, 5_000))
    assert abs(few) < abs(fit_temperature_bias(logits[:8], y[:8])[1][1])
    assert many == pytest.approx(1.5, abs=0.1)
    assert fit_temperature_bias(logits[:0], y[:0], Prior(1.7, (-0.2, 0.2))) == (
        pytest.approx(1.7),
        pytest.approx((-0.2, 0.2)),
    )
