"""How often intervals miss the truth that made the films: areas under ROC curves, and calibration errors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from rounds.stats.intervals import auc_interval, metric_intervals
from rounds.stats.metrics import ece
from rounds.stats.simulate.lives import Measured

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Subjects of each class, films of a subject, and how many standard deviations the classes lie apart.
AREAS = ((15, 15, 1, 1.5), (15, 15, 1, 3.0), (10, 100, 1, 2.5), (30, 30, 5, 3.5), (100, 40, 1, 3.0), (300, 200, 1, 3.0))
# Subjects, films of a subject, and by what factor and shift the stated log-odds miss the true ones.
STATEMENTS = ((60, 1, 1.0, 0.0), (60, 1, 1.6, 0.5), (60, 5, 1.6, 0.5), (300, 1, 0.6, 0.0), (1000, 1, 1.5, 0.5))


def area_missed(lives: int, seed: int, positives: int, negatives: int, each: int, gap: float) -> Measured:
    """Intervals of AUCs at 95 %, over subjects of `each` films whose own level adds as much spread as a film's."""
    random, own = np.random.default_rng(seed), float(each > 1)
    truth = ndtr(gap / np.sqrt(2 + 2 * own))
    subjects = np.repeat(np.arange(positives + negatives), each)
    y = (subjects < positives).astype(np.int64)
    missed = 0
    for _ in range(lives):
        score = gap * y + own * random.normal(size=positives + negatives)[subjects] + random.normal(size=len(y))
        low, high = auc_interval(y, score, subjects.tolist())
        missed += not low <= truth <= high
    name = f"AUC {truth:.3f}, {positives} + {negatives} subjects of {each}: outside its interval"
    return Measured(name, missed, lives)


def calibration_missed(lives: int, seed: int, subjects: int, each: int, factor: float, shift: float) -> Measured:
    """Intervals of calibration errors at 95 %, 250 resamples each."""
    random = np.random.default_rng(seed)
    y, p, _ = _statements(random, 400_000, 1, factor, shift)
    truth = 0.0 if (factor, shift) == (1.0, 0.0) else ece(y, p)
    missed = 0
    for life in range(lives):
        y, p, names = _statements(random, subjects, each, factor, shift)
        low, high = metric_intervals(y, y, p, names, resamples=250, seed=life)["ece"]
        missed += not low - 1e-9 <= truth <= high + 1e-9
    return Measured(f"ECE {truth:.3f}, {subjects} subjects of {each}: outside its interval", missed, lives)


def everything(lives: int, seed: int) -> Iterator[Measured]:
    """All of the above."""
    for area in AREAS:
        yield area_missed(lives, seed, *area)
    for statement in STATEMENTS:
        yield calibration_missed(lives, seed, *statement)


def _statements(
    random: np.random.Generator, subjects: int, each: int, factor: float, shift: float
) -> tuple[Ints, Floats, list[int]]:
    """Labels, stated probabilities and subjects; the films of a subject have a common level and a common luck."""
    own, luck = (np.repeat(random.normal(size=subjects), each) for _ in range(2))
    odds = 0.8 + (1.5 * own + 1.3 * random.normal(size=len(own)))
    shared = 0.5 if each > 1 else 0.0
    drawn = ndtr(np.sqrt(shared) * luck + np.sqrt(1 - shared) * random.normal(size=len(own)))
    y = (drawn < 1 / (1 + np.exp(-odds))).astype(np.int64)
    stated = 1 / (1 + np.exp(-(factor * odds + shift)))
    return y, np.stack([1 - stated, stated], 1), np.repeat(np.arange(subjects), each).tolist()
