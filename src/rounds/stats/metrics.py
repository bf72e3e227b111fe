"""How good a classifier is, in numbers: everything takes NumPy arrays and draws nothing.

Labels `y` are int64 (n,) in 0..k-1, probabilities float64 (n, k) with rows that sum to 1; scores are any floats of
which higher means more positive. What cannot be told (a class that is absent) is NaN, never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BINARY = ("auc", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "f1", "brier", "ece")
MANY = ("auc", "accuracy", "balanced_accuracy", "f1", "brier", "ece")
ECE_BINS = 15


def softmax(logits: npt.NDArray[np.floating]) -> Floats:
    """Probabilities float64 (n, k) of logits (n, k), safe from overflow."""
    values = np.asarray(logits, np.float64)
    values = np.exp(values - values.max(1, keepdims=True))
    return np.asarray(values / values.sum(1, keepdims=True))


def auc(y: npt.NDArray[np.integer], score: npt.NDArray[np.floating]) -> float:
    """The area under the ROC curve of scores (n,) for labels 0 and 1: P(positive > negative) + P(tie) / 2."""
    positive = np.asarray(y) == 1
    m, n = int(positive.sum()), int((~positive).sum())
    if not m or not n:
        return float("nan")
    return float((_midranks(score)[positive].sum() - m * (m + 1) / 2) / (m * n))


def auc_delong(y: npt.NDArray[np.integer], score: npt.NDArray[np.floating]) -> tuple[float, float]:
    """The AUC and its variance after DeLong, DeLong and Clarke-Pearson 1988, by ranks (Sun and Xu 2014)."""
    area, covariance = _delong(y, np.asarray(score)[None])
    return float(area[0]), float(covariance[0, 0])


def paired_auc(
    y: npt.NDArray[np.integer], first: npt.NDArray[np.floating], second: npt.NDArray[np.floating]
) -> tuple[float, float]:
    """AUC(first) - AUC(second) of two scores of the same films, and its variance (DeLong 1988)."""
    area, covariance = _delong(y, np.stack([first, second]))
    return float(area[0] - area[1]), float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])


def confusion(y: npt.NDArray[np.integer], label: npt.NDArray[np.integer], k: int) -> Ints:
    """int64 (k, k): how many films of the true class (row) were given each label (column)."""
    return np.bincount(np.asarray(y) * k + np.asarray(label), minlength=k * k).reshape(k, k).astype(np.int64)


def brier(y: npt.NDArray[np.integer], probabilities: Floats) -> float:
    """The mean squared error of the probabilities (0 best): of the last class for two classes, else summed over
    classes (Brier 1950)."""
    return float(brier_terms(y, probabilities).mean())


def brier_terms(y: npt.NDArray[np.integer], probabilities: Floats) -> Floats:
    """Each film's squared error (n,), whose mean is `brier`."""
    if probabilities.shape[1] == 2:
        return np.asarray((probabilities[:, 1] - y) ** 2)
    hit = np.asarray(y)[:, None] == np.arange(probabilities.shape[1])
    return np.asarray(((probabilities - hit) ** 2).sum(1))


def ece(y: npt.NDArray[np.integer], probabilities: Floats, bins: int = ECE_BINS) -> float:
    """The expected calibration error in 0..1 over bins of equal width (Guo et al. 2017): of P(last class) against its
    frequency for two classes, else of the top probability against accuracy."""
    place, confidence, hit = reliability_terms(y, probabilities, bins)
    gaps = np.bincount(place, weights=confidence - hit, minlength=bins)
    return float(np.abs(gaps).sum() / len(place))


def reliability_terms(y: npt.NDArray[np.integer], probabilities: Floats, bins: int) -> tuple[Ints, Floats, Floats]:
    """Of each film: the bin 0..bins-1 of its stated probability, that probability, and whether it came true (0, 1)."""
    if probabilities.shape[1] == 2:
        confidence, hit = probabilities[:, 1], np.asarray(y) == 1
    else:
        confidence, hit = probabilities.max(1), probabilities.argmax(1) == y
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    return place, confidence, hit.astype(np.float64)


def youden_threshold(y: npt.NDArray[np.integer], probability: Floats) -> float:
    """The operating threshold in 0..1 on P(positive) where sensitivity + specificity is high, and stays so around it.

    The empirical optimum of Youden's J jumps with single films where a classifier is nearly perfect. So J is smoothed
    over the log-odds (both classes' distributions are blurred by a normal kernel of Silverman's width), and the middle
    of the stretch around its maximum where the smoothed J is within one standard error of it is taken. NaN where a
    class is absent.
    """
    odds = _log_odds(probability)
    positive = np.asarray(y) == 1
    m, n = int(positive.sum()), int((~positive).sum())
    if not m or not n:
        return float("nan")
    grid = np.linspace(odds.min(), odds.max(), 513)
    sensitivity = 1.0 - _smooth_cdf(odds[positive], grid)
    specificity = _smooth_cdf(odds[~positive], grid)
    youden = sensitivity + specificity
    best = int(youden.argmax())
    error = np.sqrt(_spread(sensitivity[best], m) + _spread(specificity[best], n))
    good = youden >= youden[best] - error
    low = best - int(np.argmin(good[best::-1])) + 1 if not good[: best + 1].all() else 0
    high = best + int(np.argmin(good[best:])) - 1 if not good[best:].all() else len(grid) - 1
    return float(1.0 / (1.0 + np.exp(-(grid[low] + grid[high]) / 2)))


@dataclass(frozen=True)
class Counts:
    """What every metric of one weighting is made of: confusion (..., k, k) of summed weights."""

    table: Floats

    @property
    def recall(self) -> Floats:
        return _over(np.diagonal(self.table, axis1=-2, axis2=-1), self.table.sum(-1))

    @property
    def accuracy(self) -> Floats:
        return _over(np.diagonal(self.table, axis1=-2, axis2=-1).sum(-1), self.table.sum((-1, -2)))

    @property
    def f1(self) -> Floats:
        """(..., k): 2 TP / (2 TP + FP + FN) of each class against the rest."""
        hit = np.diagonal(self.table, axis1=-2, axis2=-1)
        return _over(2 * hit, self.table.sum(-1) + self.table.sum(-2))


def metrics(y: npt.NDArray[np.integer], label: npt.NDArray[np.integer], probabilities: Floats) -> dict[str, float]:
    """Every metric by its public name; `label` int64 (n,) is what was decided, `probabilities` float64 (n, k).

    Two classes: the last is the positive one. More: AUC and F1 are macro one-vs-rest, balanced accuracy the mean
    recall, all over the classes that are present.
    """
    k = probabilities.shape[1]
    rows = counted(Counts(confusion(y, label, k)[None].astype(np.float64)))
    values = {name: float(value[0]) for name, value in rows.items()}
    values["auc"] = auc(y, probabilities[:, 1]) if k == 2 else _macro_auc(y, probabilities)
    values["brier"] = brier(y, probabilities)
    values["ece"] = ece(y, probabilities)
    return {name: values[name] for name in (BINARY if k == 2 else MANY)}


def counted(counts: Counts) -> Mapping[str, Floats]:
    """The metrics that follow from confusion tables (B, k, k), each (B,)."""
    recall = counts.recall
    both = {"accuracy": counts.accuracy, "balanced_accuracy": present_mean(recall)}
    if counts.table.shape[-1] == 2:
        return both | {"sensitivity": recall[:, 1], "specificity": recall[:, 0], "f1": counts.f1[:, 1]}
    return both | {"f1": present_mean(np.where(counts.table.sum(-1) > 0, counts.f1, np.nan))}


def present_mean(values: Floats) -> Floats:
    """The mean over the last axis of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    return _over(np.where(known, values, 0.0).sum(-1), known.sum(-1).astype(np.float64))


def _macro_auc(y: npt.NDArray[np.integer], probabilities: Floats) -> float:
    areas = [auc(np.asarray(y) == c, probabilities[:, c]) for c in range(probabilities.shape[1])]
    return float(present_mean(np.asarray([areas]))[0])


def _over(part: Floats, whole: Floats) -> Floats:
    """part / whole, NaN where there is nothing to divide by."""
    empty: Floats = np.full(np.broadcast(part, whole).shape, np.nan)
    np.divide(part, whole, out=empty, where=whole > 0)
    return empty


def _midranks(values: npt.NDArray[np.floating]) -> Floats:
    """Ranks from 1, equal values sharing the middle of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[place.reshape(-1)])


def _delong(y: npt.NDArray[np.integer], scores: npt.NDArray[np.floating]) -> tuple[Floats, Floats]:
    """AUCs (r,) and their covariance (r, r) of r scores (r, n); NaN where a class has fewer than two films."""
    positive = np.asarray(y) == 1
    m, n = int(positive.sum()), int((~positive).sum())
    if m < 2 or n < 2:
        nothing = np.full((len(scores), len(scores)), np.nan)
        return np.asarray([auc(y, score) for score in scores]), nothing
    v10, v01 = np.empty((len(scores), m)), np.empty((len(scores), n))
    for row, score in enumerate(scores):
        ranks = _midranks(score)
        v10[row] = (ranks[positive] - _midranks(score[positive])) / n
        v01[row] = 1.0 - (ranks[~positive] - _midranks(score[~positive])) / m
    covariance = np.atleast_2d(np.cov(v10)) / m + np.atleast_2d(np.cov(v01)) / n
    return v10.mean(1), covariance


def _log_odds(probability: Floats) -> Floats:
    clipped = np.clip(np.asarray(probability, np.float64), 1e-9, 1 - 1e-9)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def _smooth_cdf(values: Floats, grid: Floats) -> Floats:
    """The distribution function on the grid, blurred by a normal kernel of Silverman's width (1986, rule 3.31)."""
    quartiles = np.quantile(values, [0.25, 0.75])
    spread = min(values.std(), (quartiles[1] - quartiles[0]) / 1.34) or values.std()
    width = max(0.9 * spread * len(values) ** -0.2, 1e-3 * (grid[-1] - grid[0]), 1e-9)
    step = max(grid[1] - grid[0], 1e-12)
    exact = np.searchsorted(np.sort(values), grid, side="left") / len(values)
    reach = int(np.ceil(4 * width / step)) + 1
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * step / width) ** 2)
    padded = np.concatenate([np.zeros(reach), exact, np.ones(reach)])
    return np.convolve(padded, kernel / kernel.sum(), mode="valid")


def _spread(share: float, n: int) -> float:
    """The variance of a share, from counts with half a success and half a failure added (so never 0)."""
    p = (share * n + 0.5) / (n + 1)
    return float(p * (1 - p) / n)
