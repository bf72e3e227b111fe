"""The points behind the figures of an evaluation: ROC, reliability and scores, as plain JSON numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rounds.core.records import Calibration
from rounds.stats.intervals import clopper_pearson
from rounds.stats.metrics import ECE_BINS, auc, reliability_terms

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

POINTS = 201
BARS = 20


def curves(
    classes: Sequence[str], calibration: Calibration, y: Ints, label: Ints, probabilities: Floats
) -> dict[str, Any]:
    """Everything the page draws, for true classes y (n,), labels (n,) and probabilities (n, k).

    `roc`: a curve for the positive class, or one for each class against the rest: {"class", "auc", "fpr", "tpr",
    "threshold"} (lists, at most 201 points). `pr`: {"recall", "precision", "prevalence"} of two classes, else null.
    `operating`: {"fpr", "tpr", "precision", "threshold"} for two classes, else null ("precision" null where no film was
    called positive).
    `reliability`: a list of {"low", "high", "n", "mean", "share", "share_low", "share_high"} for each bin that holds
    films (exact 95 % intervals of the share, films taken as independent). `scores`: {"edges": 21 numbers, "counts":
    {class: 20 numbers}}, the probability of the last class (two classes) or of the true class, by true class.
    """
    positives = (1,) if len(classes) == 2 else range(len(classes))
    return {
        "roc": [_roc(classes[c], (y == c).astype(np.int64), probabilities[:, c]) for c in positives],
        "pr": _precision(y, probabilities[:, 1]) if len(classes) == 2 and (y == 1).any() else None,
        "operating": _operating(calibration, y, label),
        "reliability": _reliability(y, probabilities),
        "scores": _histogram(classes, y, probabilities),
    }


def _roc(name: str, positive: Ints, score: Floats) -> dict[str, Any]:
    order = np.argsort(-score, kind="stable")
    sorted_scores, hits = score[order], positive[order]
    last_of_ties = np.append(np.flatnonzero(np.diff(sorted_scores)), len(score) - 1)
    true = np.append(0, hits.cumsum()[last_of_ties])
    false = np.append(0, (1 - hits).cumsum()[last_of_ties])
    kept = np.unique(np.linspace(0, len(true) - 1, min(len(true), POINTS)).round().astype(np.int64))
    limits = np.append(1.0, sorted_scores[last_of_ties])
    found = auc(positive, score)
    return {
        "class": name,
        "auc": found if np.isfinite(found) else None,
        "fpr": (false[kept] / max(1, false[-1])).tolist(),
        "tpr": (true[kept] / max(1, true[-1])).tolist(),
        "threshold": limits[kept].tolist(),
    }


def _precision(y: Ints, score: Floats) -> dict[str, Any]:
    order = np.argsort(-score, kind="stable")
    last_of_ties = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    hits = (y[order] == 1).cumsum()[last_of_ties]
    kept = np.unique(np.linspace(0, len(hits) - 1, min(len(hits), POINTS)).round().astype(np.int64))
    return {
        "recall": (hits[kept] / hits[-1]).tolist(),
        "precision": (hits[kept] / (last_of_ties[kept] + 1)).tolist(),
        "prevalence": float((y == 1).mean()),
    }


def _operating(calibration: Calibration, y: Ints, label: Ints) -> dict[str, float | None] | None:
    if calibration.threshold is None:
        return None
    shares = [float((label[y == c] == 1).mean()) if (y == c).any() else 0.0 for c in (0, 1)]
    called = label == 1
    precision = float((y[called] == 1).mean()) if called.any() else None
    return {"fpr": shares[0], "tpr": shares[1], "precision": precision, "threshold": calibration.threshold}


def _reliability(y: Ints, probabilities: Floats) -> list[dict[str, float]]:
    place, stated, hit = reliability_terms(y, probabilities, ECE_BINS)
    rows = []
    for b in np.unique(place):
        films = place == b
        n, came_true = int(films.sum()), int(hit[films].sum())
        low, high = clopper_pearson(came_true, n)
        bounds = {"low": float(b / ECE_BINS), "high": float((b + 1) / ECE_BINS), "n": n}
        shares = {"share": came_true / n, "share_low": low, "share_high": high}
        rows.append({**bounds, "mean": float(stated[films].mean()), **shares})
    return rows


def _histogram(classes: Sequence[str], y: Ints, probabilities: Floats) -> dict[str, Any]:
    score = probabilities[:, 1] if len(classes) == 2 else probabilities[np.arange(len(y)), y]
    edges = np.linspace(0, 1, BARS + 1)
    counts = {name: np.histogram(score[y == c], edges)[0].tolist() for c, name in enumerate(classes)}
    return {"edges": edges.tolist(), "counts": counts}
