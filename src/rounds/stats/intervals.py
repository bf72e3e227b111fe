"""Intervals: exact ones for counts, and the bootstrap over subjects for everything else."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from rounds.core.errors import Fault, OurFault

Floats = npt.NDArray[np.float64]

_CHUNK = 128


def clopper_pearson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The exact two-sided interval of a share from k of n (Clopper and Pearson 1934); (0, 1) where n is 0.

    Raises OurFault where 0 <= k <= n does not hold.
    """
    tail = (1 - level) / 2
    return _lower(k, n, tail), upper_bound(k, n, tail)


def upper_bound(k: int, n: int, alpha: float) -> float:
    """The share that k of n rules out at one-sided level alpha: P(truth > bound) <= alpha. OurFault for k > n."""
    if not 0 <= k <= n:
        raise OurFault("no share", [Fault("a count outside its total", "k", f"0..{n}", str(k))])
    return 1.0 if k == n else float(betaincinv(k + 1, n - k, 1 - alpha))


def cluster_bootstrap(
    clusters: Sequence[Hashable],
    statistics: Callable[[Floats], Mapping[str, Floats]],
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of statistics when whole clusters (subjects) are drawn with replacement (Field and Welsh
    2007).

    `clusters` names the cluster of each of the n films. `statistics` takes how often each film was drawn, float64
    (n, B), and answers B values by name; NaN (a resample without a class, say) is left out. The same seed gives the
    same intervals.
    """
    _, place = np.unique(np.asarray([str(name) for name in clusters]), return_inverse=True)
    groups = int(place.max()) + 1
    random = np.random.default_rng(seed)
    found: dict[str, list[Floats]] = {}
    for start in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - start)
        drawn = random.integers(0, groups, (size, groups))
        drawn += np.arange(size)[:, None] * groups
        times = np.bincount(drawn.reshape(-1), minlength=size * groups).reshape(size, groups)
        weights = np.ascontiguousarray(times.T, np.float64)[place.reshape(-1)]
        for name, values in statistics(weights).items():
            found.setdefault(name, []).append(values)
    tails = ((1 - level) / 2, (1 + level) / 2)
    return {name: _quantiles(np.concatenate(parts), tails) for name, parts in found.items()}


def _quantiles(values: Floats, tails: tuple[float, float]) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, tails)
    return float(low), float(high)


def _lower(k: int, n: int, alpha: float) -> float:
    return 0.0 if k == 0 else float(betaincinv(k, n - k + 1, alpha))
