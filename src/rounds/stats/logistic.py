"""Multinomial logistic regression on the principal components of features: a classifier that fits in a second."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from rounds.stats.metrics import softmax

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Logistic:
    """A fitted classifier of features (n, d) into k classes."""

    centre: Floats
    axes: Floats
    weights: Floats

    def probabilities(self, features: npt.NDArray[np.floating]) -> Floats:
        """float64 (n, k); rows sum to 1."""
        return softmax(((features - self.centre) @ self.axes) @ self.weights[:-1] + self.weights[-1])


def fit_logistic(
    features: npt.NDArray[np.floating],
    y: npt.NDArray[np.integer],
    k: int,
    *,
    components: int = 100,
    ridge: float = 100.0,
    steps: int = 200,
) -> Logistic:
    """Fit k classes on features (n, d) and labels (n,) in 0..k-1: at most `components` whitened principal components,
    and the weights' squares times ridge / 2 beside the sum of the log losses. Deterministic."""
    n = len(y)
    values = np.array(features, np.float64)
    centre = values.mean(0)
    values -= centre
    variance, axes = np.linalg.eigh(values.T @ values / n)
    kept = slice(max(0, len(variance) - min(components, n - 1)), None)
    axes = axes[:, kept] / np.sqrt(np.maximum(variance[kept], 1e-12) + 1e-9)
    values = values @ axes
    truth = np.eye(k)[y]

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights = flat.reshape(-1, k)
        p = softmax(values @ weights[:-1] + weights[-1])
        apart = (p - truth) / n
        cost = -np.log(p[np.arange(n), y] + 1e-12).mean() + ridge / (2 * n) * (weights[:-1] ** 2).sum()
        slope = np.vstack([values.T @ apart + ridge / n * weights[:-1], apart.sum(0)])
        return float(cost), slope.ravel()

    start = np.zeros((values.shape[1] + 1) * k)
    done = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": steps})
    return Logistic(centre, axes, np.asarray(done.x, np.float64).reshape(-1, k))
