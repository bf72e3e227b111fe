"""Whether two samples of films differ in a measure, class by class, and what remains of it when many are asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc, ndtr, ndtri

from rounds.stats.metrics import auc_delong

Floats = npt.NDArray[np.float64]

# Fewer of a class on either side say nothing of it.
FEWEST = 5


@dataclass(frozen=True)
class Shift:
    """How a sample differs from a reference within classes.

    `size` is the difference of means in standard deviations of the reference; `superiority` the probability that a
    value of the sample is above one of the reference (0.5 where nothing moved) with its 95 % interval; `p` is
    two-sided, for this one question.
    """

    size: float
    superiority: float
    low: float
    high: float
    p: float
    n: tuple[int, int]


def shift(reference: Mapping[int, Floats], sample: Mapping[int, Floats]) -> Shift | None:
    """Compare values by class, of independent subjects; None where no class has 5 on both sides.

    Per class the area under the ROC curve after DeLong et al. 1988; classes are weighted by n m / (n + m) (van Elteren
    1960), so that a changed class mix is no shift.
    """
    sizes, areas, variances, weights, counts = [], [], [], [], []
    for label in sorted(reference.keys() & sample.keys()):
        a, b = np.asarray(reference[label], np.float64), np.asarray(sample[label], np.float64)
        if min(len(a), len(b)) < FEWEST:
            continue
        area, variance = auc_delong(np.repeat([0, 1], [len(a), len(b)]), np.concatenate([a, b]))
        spread = float(a.std(ddof=1))
        sizes.append(float(b.mean() - a.mean()) / spread if spread > 0 else 0.0)
        # complete separation has an estimated variance of 0: that of one discordant pair is the least to be claimed
        areas.append(area)
        variances.append(max(variance, 1.0 / (len(a) * len(b)) ** 2, 1e-12))
        weights.append(len(a) * len(b) / (len(a) + len(b)))
        counts.append((len(a), len(b)))
    if not weights:
        return None
    share = np.array(weights) / sum(weights)
    area, error = float(share @ areas), float(np.sqrt(share**2 @ variances))
    p = float(2 * ndtr(-abs(area - 0.5) / error))
    reach = float(ndtri(0.975)) * error
    low, high = max(0.0, area - reach), min(1.0, area + reach)
    return Shift(float(share @ sizes), area, low, high, p, (sum(a for a, _ in counts), sum(b for _, b in counts)))


def mix_p(reference: Sequence[int], sample: Sequence[int]) -> float:
    """The two-sided p-value of Pearson's chi-squared test that two counts by class come from one mix; 1 where it cannot
    be asked."""
    table = np.array([reference, sample], np.float64)
    table = table[:, table.sum(0) > 0]
    if table.shape[1] < 2 or (table.sum(1) == 0).any():
        return 1.0
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    return float(chdtrc(table.shape[1] - 1, float(((table - expected) ** 2 / expected).sum())))


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected so that the chance of any false one below alpha is at most alpha (Holm 1979)."""
    order = sorted(range(len(p)), key=p.__getitem__)
    corrected, worst = [1.0] * len(p), 0.0
    for rank, index in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - rank) * p[index]))
        corrected[index] = worst
    return corrected
