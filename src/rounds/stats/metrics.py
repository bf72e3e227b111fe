"""How good a classifier is, in numbers: everything takes NumPy arrays and draws nothing.

Labels `y` are int64 (n,) in 0..k-1, probabilities float64 (n, k) with rows that sum to 1; scores are any floats of
which higher means more positive. What cannot be told (a class that is absent) is NaN, never a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Clusters = npt.NDArray[np.int64] | None

BINARY = (
    "auc",
    "accuracy",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "f1",
    "brier",
    "ece",
    "average_precision",
)
MANY = ("auc", "accuracy", "balanced_accuracy", "f1", "brier", "ece", "average_precision")
ECE_BINS = 15
Area = Callable[[npt.NDArray[np.integer], npt.NDArray[np.floating]], float]


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


def average_precision(y: npt.NDArray[np.integer], score: npt.NDArray[np.floating]) -> float:
    """The area under the precision-recall curve in steps, no interpolation: the mean over positives of the precision
    at their score; NaN where a class is absent."""
    positive = np.asarray(y) == 1
    order = np.argsort(-np.asarray(score), kind="stable")
    last_of_ties = np.append(np.flatnonzero(np.diff(np.asarray(score)[order])), len(order) - 1)
    hits = positive[order].cumsum()[last_of_ties]
    if not 0 < hits[-1] < len(order):
        return float("nan")
    return float((np.diff(hits, prepend=0) * hits / (last_of_ties + 1)).sum() / hits[-1])


def auc_delong(
    y: npt.NDArray[np.integer], score: npt.NDArray[np.floating], clusters: Clusters = None
) -> tuple[float, float]:
    """The AUC and its variance after DeLong, DeLong and Clarke-Pearson 1988, by ranks (Sun and Xu 2014).

    `clusters` int64 (n,) in 0.. names the subject of each film, whose films then count as dependent (Obuchowski 1997).
    The variance is NaN where a class has fewer than two films, or subjects.
    """
    area, covariance = _delong(y, np.asarray(score)[None], clusters)
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


@dataclass(frozen=True)
class Counts:
    """What every metric of one weighting is made of: confusion (..., k, k) of summed weights."""

    table: Floats

    @property
    def recall(self) -> Floats:
        return share(np.diagonal(self.table, axis1=-2, axis2=-1), self.table.sum(-1))

    @property
    def accuracy(self) -> Floats:
        return share(np.diagonal(self.table, axis1=-2, axis2=-1).sum(-1), self.table.sum((-1, -2)))

    @property
    def f1(self) -> Floats:
        """(..., k): 2 TP / (2 TP + FP + FN) of each class against the rest."""
        hit = np.diagonal(self.table, axis1=-2, axis2=-1)
        return share(2 * hit, self.table.sum(-1) + self.table.sum(-2))


def metrics(y: npt.NDArray[np.integer], label: npt.NDArray[np.integer], probabilities: Floats) -> dict[str, float]:
    """Every metric by its public name; `label` int64 (n,) is what was decided, `probabilities` float64 (n, k).

    Two classes: the last is the positive one. More: AUC, average precision and F1 are macro one-vs-rest, balanced
    accuracy the mean recall, all over the classes that are present.
    """
    k = probabilities.shape[1]
    rows = counted(Counts(confusion(y, label, k)[None].astype(np.float64)))
    values = {name: float(value[0]) for name, value in rows.items()}
    for name, area in (("auc", auc), ("average_precision", average_precision)):
        values[name] = area(y, probabilities[:, 1]) if k == 2 else _macro(area, y, probabilities)
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
    return share(np.where(known, values, 0.0).sum(-1), known.sum(-1).astype(np.float64))


def _macro(area: Area, y: npt.NDArray[np.integer], probabilities: Floats) -> float:
    areas = [area((np.asarray(y) == c).astype(np.int64), probabilities[:, c]) for c in range(probabilities.shape[1])]
    return float(present_mean(np.asarray([areas]))[0])


def share(part: Floats, whole: Floats) -> Floats:
    """part / whole, NaN where there is nothing to divide by."""
    empty: Floats = np.full(np.broadcast(part, whole).shape, np.nan)
    np.divide(part, whole, out=empty, where=whole > 0)
    return empty


def _midranks(values: npt.NDArray[np.floating]) -> Floats:
    """Ranks from 1, equal values sharing the middle of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[place.reshape(-1)])


def _delong(
    y: npt.NDArray[np.integer], scores: npt.NDArray[np.floating], clusters: Clusters = None
) -> tuple[Floats, Floats]:
    """AUCs (r,) and their covariance (r, r) of r scores (r, n); NaN where a class has fewer than two clusters."""
    positive = np.asarray(y) == 1
    place = np.arange(len(positive)) if clusters is None else clusters
    m, n = int(positive.sum()), int((~positive).sum())
    with_positive, with_negative, total = (len(np.unique(part)) for part in (place[positive], place[~positive], place))
    areas = np.asarray([auc(y, score) for score in scores])
    if with_positive < 2 or with_negative < 2:
        return areas, np.full((len(scores), len(scores)), np.nan)
    size = int(place.max()) + 1
    above, below = np.empty((len(scores), size)), np.empty((len(scores), size))
    for row, score in enumerate(scores):
        ranks = _midranks(score)
        wins = (ranks[positive] - _midranks(score[positive])) / n
        losses = 1.0 - (ranks[~positive] - _midranks(score[~positive])) / m
        above[row] = np.bincount(place[positive], wins - areas[row], minlength=size) / m
        below[row] = np.bincount(place[~positive], losses - areas[row], minlength=size) / n
    cross = above @ below.T * (total / (total - 1))
    own = above @ above.T * (with_positive / (with_positive - 1)) + below @ below.T * (
        with_negative / (with_negative - 1)
    )
    return areas, own + cross + cross.T
