"""From which probability of the positive class on a film is called positive: the operating threshold, by a policy.

Youden and the cost table maximise hit * sensitivity + pass * specificity: with weights 1 and 1, or with the costs of a
false negative and of a false positive times how common the classes are. The empirical optimum jumps with single films
where a classifier is nearly perfect, and then any threshold in a wide gap looks equally good. So both classes'
distributions are blurred over the log-odds (a normal kernel of Silverman's width), and the middle of the stretch around
the maximum that lies within one standard error of it is taken: as far as can be from both of its edges.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr

from rounds.core.specs import OperatingSpec, Policy

Floats = npt.NDArray[np.float64]
Films = tuple[npt.NDArray[np.integer], Floats]

GRID = 513
# The chance at which a promised sensitivity may be missed.
MISSED = 0.05


def operating_threshold(
    y: npt.NDArray[np.integer], p: Floats, policy: OperatingSpec, *, stressed: Films | None = None
) -> float:
    """The threshold in 0..1 on P(positive), `p` float64 (n,), for true labels `y` int64 (n,) of 0 and 1.

    `stressed` holds labels and probabilities of the same films as other scanners would show them: both sets then count
    equally, and a sensitivity must be met on each. Policies: youden maximises sensitivity + specificity; cost minimises
    the expected cost of an error, with positives as common as `policy.prevalence` says (0: as in y); sensitivity takes
    the highest threshold that `sensitivity_threshold` allows. NaN where a class is absent.
    """
    sets: list[Films] = [(np.asarray(y), np.asarray(p, np.float64)), *([stressed] if stressed else [])]
    if any(not (labels == c).any() for labels, _ in sets for c in (0, 1)):
        return float("nan")
    if policy.policy is Policy.SENSITIVITY:
        return min(sensitivity_threshold(*films, policy.min_sensitivity) for films in sets)
    hit, passed = 1.0, 1.0
    if policy.policy is Policy.COST:
        prevalence = policy.prevalence or float(np.mean(y))
        hit, passed = policy.cost_false_negative * prevalence, policy.cost_false_positive * (1 - prevalence)
    return _middle(sets, hit, passed)


def sensitivity_threshold(y: npt.NDArray[np.integer], p: Floats, wanted: float) -> float:
    """A threshold whose true sensitivity is at least `wanted` with confidence 0.95, at the best specificity.

    With m positives, the score of rank r from below, where P(Binomial(m, 1 - wanted) < r) <= 0.05: a one-sided
    tolerance bound that needs no assumption about the scores but that films are drawn independently (Wilks 1941).
    Lowered to the middle, in log-odds, of the gap above the next negative, which costs no specificity. With too few
    positives for any promise (under 59 for 0.95) the lowest positive is taken, and nothing is promised.
    """
    positives, negatives = np.sort(p[np.asarray(y) == 1]), np.sort(p[np.asarray(y) == 0])
    m = len(positives)
    missed = np.arange(m)
    kept = missed[bdtr(missed, m, 1 - wanted) <= MISSED]
    score = positives[int(kept[-1]) if len(kept) else 0]
    below = negatives[negatives < score]
    return float(_probability((_log_odds(score) + _log_odds(below[-1])) / 2)) if len(below) else float(score)


def _middle(sets: Sequence[Films], hit: float, passed: float) -> float:
    """The middle of the stretch around the best threshold within one standard error of it.

    The sets show the same films, so their errors are taken as fully dependent: the mean of the variances.
    """
    odds = [(y, _log_odds(p)) for y, p in sets]
    grid = np.linspace(min(v.min() for _, v in odds), max(v.max() for _, v in odds), GRID)
    sensitivity = np.array([1.0 - _smooth_cdf(v[y == 1], grid) for y, v in odds])
    specificity = np.array([_smooth_cdf(v[y == 0], grid) for y, v in odds])
    value = (hit * sensitivity + passed * specificity).mean(0)
    best = int(value.argmax())
    counts = [(int((y == 1).sum()), int((y == 0).sum())) for y, _ in odds]
    variances = [
        hit**2 * _variance(sensitivity[i, best], m) + passed**2 * _variance(specificity[i, best], n)
        for i, (m, n) in enumerate(counts)
    ]
    good = value >= value[best] - np.sqrt(np.mean(variances))
    low = best - int(np.argmin(good[best::-1])) + 1 if not good[: best + 1].all() else 0
    high = best + int(np.argmin(good[best:])) - 1 if not good[best:].all() else len(grid) - 1
    return float(_probability((grid[low] + grid[high]) / 2))


def _log_odds(probability: float | Floats) -> Floats:
    clipped = np.clip(np.asarray(probability, np.float64), 1e-9, 1 - 1e-9)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def _probability(odds: float | Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-odds)))


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


def _variance(share: float, n: int) -> float:
    """The variance of a share, from counts with half a success and half a failure added (so never 0)."""
    p = (share * n + 0.5) / (n + 1)
    return float(p * (1 - p) / n)
