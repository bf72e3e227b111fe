"""From logits to probabilities that mean what they say: softmax(logits / temperature + bias)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rounds.stats.metrics import softmax

Floats = npt.NDArray[np.float64]

COLDEST, HOTTEST = 0.05, 20.0


@dataclass(frozen=True)
class Prior:
    """What is believed before the labels: temperature and bias, and how firmly, as standard deviations of the bias (in
    calibrated logits) and of 1 / temperature (in parts of itself)."""

    temperature: float
    bias: tuple[float, ...]
    bias_spread: float = 8.0
    scale_spread: float = 1.0


def fit_temperature(logits: npt.NDArray[np.floating], y: npt.NDArray[np.integer]) -> float:
    """The temperature in 0.05..20 under which the labels y int64 (n,) are likeliest (Guo et al. 2017).

    `logits` is (n, k). Where the classes are separated without error a wide prior around 1 keeps it from 0.
    """
    k = logits.shape[1]
    return _fit(logits, y, Prior(1.0, (0.0,) * k, bias_spread=1e-6, scale_spread=10.0))[0]


def fit_temperature_bias(
    logits: npt.NDArray[np.floating], y: npt.NDArray[np.integer], prior: Prior | None = None
) -> tuple[float, tuple[float, ...]]:
    """The temperature in 0.05..20 and the bias (k numbers that sum to 0) under which the labels are likeliest.

    With a prior: the most probable ones given both (normal priors, so few labels move little and many decide). Without
    one a prior too wide to matter holds the fit finite where a class is absent or the classes are separated.
    """
    k = logits.shape[1]
    return _fit(logits, y, prior or Prior(1.0, (0.0,) * k, bias_spread=10.0, scale_spread=10.0))


def _fit(logits: npt.NDArray[np.floating], y: npt.NDArray[np.integer], prior: Prior) -> tuple[float, tuple[float, ...]]:
    """Newton's method on the negative log posterior, convex in 1 / temperature and bias."""
    values = np.asarray(logits, np.float64)
    n, k = values.shape
    hit = np.zeros((n, k))
    hit[np.arange(n), y] = 1.0
    mean = np.array([1 / prior.temperature, *prior.bias])
    precision = np.array([(prior.temperature / prior.scale_spread) ** 2, *([prior.bias_spread**-2] * k)])
    state, loss = mean.copy(), _loss(values, hit, mean, mean, precision)
    for _ in range(100):
        gradient, curvature = _slopes(values, hit, state, mean, precision)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while (after := _loss(values, hit, state - size * step, mean, precision)) > loss and size > 1e-9:
            size /= 2
        if after > loss or (loss - after <= 1e-12 * (1 + abs(loss)) and size == 1.0):
            break
        state, loss = state - size * step, after
    scale = float(np.clip(state[0], 1 / HOTTEST, 1 / COLDEST))
    bias = state[1:] - state[1:].mean()
    return 1 / scale, tuple(float(value) for value in bias)


def _loss(values: Floats, hit: Floats, state: Floats, mean: Floats, precision: Floats) -> float:
    z = values * state[0] + state[1:]
    top = z.max(1)
    likelihood = np.log(np.exp(z - top[:, None]).sum(1)) + top - (z * hit).sum(1)
    return float(likelihood.sum() + (precision * (state - mean) ** 2).sum() / 2)


def _slopes(values: Floats, hit: Floats, state: Floats, mean: Floats, precision: Floats) -> tuple[Floats, Floats]:
    p = softmax(values * state[0] + state[1:])
    off = p - hit
    gradient = np.concatenate([[(off * values).sum()], off.sum(0)]) + precision * (state - mean)
    centred = values - (p * values).sum(1, keepdims=True)
    curvature = np.diag(precision)
    curvature[0, 0] += (p * centred * values).sum()
    curvature[0, 1:] += (p * centred).sum(0)
    curvature[1:, 0] = curvature[0, 1:]
    curvature[1:, 1:] += np.diag(p.sum(0)) - p.T @ p
    return gradient, curvature
