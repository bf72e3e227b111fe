"""The monitoring scores of a film: what the watch compares, bin by bin, with the bundle's reference."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from rounds.core.records import Bundle, Scoring
from rounds.imaging.measure import MEASURES, measure
from rounds.runtime.bundle import ByDigest
from rounds.runtime.predictor import Index, Outputs

SCORES = ("logit", *MEASURES, "embedding")
EDGES = 63
AXES = 16

_PIXELS = 1 << 21  # measured at once: the measures' working memory is some twenty times this, in bytes


class Scorer:
    """The scores of a `Scoring`, with its frame held as arrays; keep one where many batches are scored."""

    def __init__(self, scoring: Scoring) -> None:
        self.scoring = scoring
        self._axes = np.asarray(scoring.axes, np.float32).reshape(len(scoring.axes), len(scoring.centre)).T.copy()
        self._shift = np.asarray(scoring.centre, np.float32) @ self._axes

    def scores(
        self, pixels: npt.NDArray[np.uint8], outputs: Outputs, *, index: Index | None = None
    ) -> npt.NDArray[np.float32]:
        """float32 (n, 7) in the order of SCORES, or (n, 6) without the last, from pixels uint8 (n, c, h, w), or those
        of them at `index` int64 (n,), and the network's outputs for these films.

        `logit` is the log-odds of the last class (two classes) or the margin of the best class over the second,
        before temperature and bias, so that a recalibration keeps it; the five measures are those of the pixels;
        `embedding` is the Mahalanobis distance from the training films in their first principal axes.
        """
        table: npt.NDArray[np.float32] = np.empty((len(outputs), len(self.scoring.names)), np.float32)
        table[:, 0] = _logit(outputs.logits)
        step = max(1, _PIXELS // pixels[0].size)
        for start in range(0, len(outputs), step):
            chosen = slice(start, start + step) if index is None else index[start : start + step]
            table[start : start + step, 1 : 1 + len(MEASURES)] = measure(pixels[chosen])
        if SCORES[-1] in self.scoring.names:
            table[:, -1] = self._distances(outputs)
        return table

    def distances(self, outputs: Outputs) -> npt.NDArray[np.float32]:
        """The scores as `scores` orders them, but for the distance all 0: what a verdict needs where nothing watches,
        at a tenth of the cost."""
        table: npt.NDArray[np.float32] = np.zeros((len(outputs), len(self.scoring.names)), np.float32)
        if SCORES[-1] in self.scoring.names:
            table[:, -1] = self._distances(outputs)
        return table

    def _distances(self, outputs: Outputs) -> npt.NDArray[np.float32]:
        frame = outputs.embedding @ self._axes
        frame -= self._shift
        return np.asarray(np.sqrt(np.einsum("nr,nr->n", frame, frame)))


def scores(bundle: Bundle, pixels: npt.NDArray[np.uint8], outputs: Outputs) -> npt.NDArray[np.float32]:
    """The scores of films under a bundle: float32 (n, 7), see `Scorer.scores`."""
    return _scorer(ByDigest(bundle)).scores(pixels, outputs)


def fit_scoring(pixels: npt.NDArray[np.uint8], outputs: Outputs, *, index: Index | None = None) -> Scoring:
    """The frame and the bin edges of training films: uint8 (n, c, h, w), or those at `index` int64 (n,), and the
    network's outputs for them.

    The frame is the embeddings' mean and their first principal axes (16 at most, those with no spread left out), each
    divided by its standard deviation; the edges are the 1/64 to 63/64 quantiles of each score. Equal edges are kept:
    the bins between them stay empty. A network without embedding has neither frame nor that score.
    """
    if not outputs.embedding.shape[1]:
        draft = Scoring(SCORES[:-1], (), (), ())
        return replace(draft, edges=_edges(Scorer(draft).scores(pixels, outputs, index=index)))
    centre, axes = _frame(outputs.embedding)
    draft = Scoring(SCORES, (), tuple(map(_short, centre)), tuple(tuple(map(_short, axis)) for axis in axes))
    return replace(draft, edges=_edges(Scorer(draft).scores(pixels, outputs, index=index)))


@lru_cache(maxsize=16)
def _scorer(key: ByDigest) -> Scorer:
    return Scorer(key.bundle.scoring)


def _logit(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    if logits.shape[1] == 2:
        return logits[:, 1] - logits[:, 0]
    best = np.partition(logits, -2, axis=1)[:, -2:]
    return best[:, 1] - best[:, 0]


def _edges(table: npt.NDArray[np.float32]) -> tuple[tuple[float, ...], ...]:
    cuts = np.quantile(table.astype(np.float64), np.arange(1, EDGES + 1) / (EDGES + 1), axis=0)
    return tuple(tuple(map(_short, column)) for column in cuts.T)


def _frame(embedding: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    values = embedding.astype(np.float64)
    centre = values.mean(0)
    variances, vectors = np.linalg.eigh(np.cov(values, rowvar=False).reshape(values.shape[1], values.shape[1]))
    # Axes of no spread would turn rounding noise into distance.
    kept = [i for i in range(len(variances))[::-1] if variances[i] > 1e-6 * variances[-1]][:AXES]
    return centre, (vectors[:, kept] / np.sqrt(variances[kept])).T


def _short(value: float) -> float:
    """The value with the nine digits that say a float32 exactly: half the length in bundle.json."""
    return float(f"{value:.9g}")
