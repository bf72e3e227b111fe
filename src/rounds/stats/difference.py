"""The difference between two models' AUC on the same films."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

Floats = npt.NDArray[np.float64]


def area_difference(
    y: npt.NDArray[np.integer], one: Floats, other: Floats, subjects: Sequence[Hashable], *, level: float = 0.95
) -> tuple[float, float, float]:
    """AUC of `one` minus AUC of `other`, with its interval: value, low, high; NaN where a class has no film.

    `one`, `other`: probabilities or scores float64 (n, k) of the same n films with true classes y (n,); the last column
    counts for two classes, else the mean over classes against the rest. DeLong's placements (DeLong, DeLong and
    Clarke-Pearson 1988) as each film's influence, summed within subjects (Obuchowski 1997), Student's quantile over
    subjects. Two perfect models differ by 0 with no width: nothing was seen that tells them apart.
    """
    k = one.shape[1]
    classes = range(k) if k > 2 else (1,)
    gaps = np.zeros(len(y))
    values = []
    for c in classes:
        first, moves_first = _influence(np.asarray(y) == c, one[:, c])
        second, moves_second = _influence(np.asarray(y) == c, other[:, c])
        values.append(first - second)
        gaps += (moves_first - moves_second) / len(classes)
    _, whose = np.unique(np.asarray([str(name) for name in subjects]), return_inverse=True)
    sums = np.bincount(whose.reshape(-1), weights=gaps)
    n = len(sums)
    value = float(np.mean(values))
    if n < 2 or not np.isfinite(value):
        return value, float("nan"), float("nan")
    reach = float(stdtrit(n - 1, (1 + level) / 2)) * float(np.sqrt(n / (n - 1) * (sums**2).sum()))
    return value, max(-1.0, value - reach), min(1.0, value + reach)


def _influence(positive: npt.NDArray[np.bool_], score: Floats) -> tuple[float, Floats]:
    """The AUC, and what each film adds to its error: float64 (n,)."""
    m, n = int(positive.sum()), int((~positive).sum())
    moves = np.zeros(len(score))
    if not m or not n:
        return float("nan"), moves
    above = _share_below(score[~positive], score[positive])
    below = 1 - _share_below(score[positive], score[~positive])
    value = float(above.mean())
    moves[positive] = (above - value) / m
    moves[~positive] = (below - value) / n
    return value, moves


def _share_below(values: Floats, limits: Floats) -> Floats:
    """For each limit the share of values under it, those equal to it counted half."""
    ordered = np.sort(values)
    found = np.searchsorted(ordered, limits, "left") + np.searchsorted(ordered, limits, "right")
    return np.asarray(found / (2 * len(values)), np.float64)
