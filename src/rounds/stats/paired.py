"""Is a candidate, on the same subjects as the champion, worse by less than a margin? Paired non-inferiority.

Of n pairs, b are right only with the champion and c only with the candidate; the candidate's gain in accuracy is p_c -
p_b, and non-inferiority is shown by refusing gain <= -margin. Tango's score test (Statistics in Medicine 17, 1998,
891-908) keeps its level where Wald's does not, but only nearly, and levels spent over many candidates lie far out in
the tail. So `exact` takes the true distribution of Tango's statistic at the worst share of discordant pairs. The gate
uses `exact`; `power` is that of `exact`, computed and not simulated.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, gammaln, ndtr, ndtri

from rounds.core.errors import Fault, OurFault

Floats = npt.NDArray[np.float64]

GRID = 48


def tango(b: int, c: int, n: int, margin: float) -> float:
    """The one-sided p-value of Tango's score test of gain <= -margin."""
    _check(b, c, n, margin)
    return float(ndtr(-_score(np.array(float(b)), np.array(float(c)), n, margin)))


@lru_cache(maxsize=65_536)
def exact(b: int, c: int, n: int, margin: float) -> float:
    """The exact one-sided p-value of gain <= -margin: the largest probability, over all shares of discordant pairs with
    gain = -margin, of a Tango statistic at least as large as the observed one.

    The maximum is taken over 48 shares (an unconditional exact test; Röhmel and Mansmann 1999 for its kind).
    """
    _check(b, c, n, margin)
    observed = float(_score(np.array(float(b)), np.array(float(c)), n, margin))
    return _worst(n, margin, observed - 1e-9)


def gain_interval(b: int, c: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The two-sided interval of the gain p_c - p_b: the gains that Tango's score test does not refuse (Tango 1998)."""
    _check(b, c, n, 0.5)
    reach = float(ndtri((1 + level) / 2))

    def limit(end: float) -> float:
        near, far = (c - b) / n, end
        for _ in range(60):
            middle = (near + far) / 2
            inside = abs(float(_score(np.array(float(b)), np.array(float(c)), n, -middle))) <= reach
            near, far = (middle, far) if inside else (near, middle)
        return (near + far) / 2

    return limit(-1.0), limit(1.0)


def power(n: int, discordance: float, margin: float, alpha: float, gain: float = 0.0) -> float:
    """P(`exact` shows non-inferiority at level alpha), for a candidate with this gain and share of discordant pairs."""
    _check(0, 0, n, margin)
    spread = max(discordance, abs(gain))
    worse, better = (spread - gain) / 2.0, (spread + gain) / 2.0
    limit = _limit(n, margin, alpha)
    return float(_probability(n, _boundary(n, margin, limit), np.array([worse]), np.array([better]))[0])


def labels_needed(discordance: float, margin: float, alpha: float, power: float = 0.8, gain: float = 0.0) -> int:
    """The smallest n, to about 1 %, from which on the test has this power; 1,000,000 where none below has."""
    low, high = 1, 64
    while high < _MOST and _power(high, discordance, margin, alpha, gain) < power:
        low, high = high, high * 2
    if high >= _MOST:
        return _MOST
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        if _power(middle, discordance, margin, alpha, gain) < power:
            low = middle
        else:
            high = middle
    return high


_MOST = 1_000_000
# Above this many pairs Tango's own limit is taken where only a number of labels is asked for.
_LARGE = 4096


def _power(n: int, discordance: float, margin: float, alpha: float, gain: float) -> float:
    if n <= _LARGE:
        return power(n, discordance, margin, alpha, gain)
    spread = max(discordance, abs(gain))
    q = max((spread + margin) / 2.0, margin)
    null = np.sqrt(max(2.0 * q - margin * (1.0 + margin), 1e-12) / n)
    true = np.sqrt(max(spread - gain**2, 1e-12) / n)
    return float(ndtr((gain + margin - float(-ndtri(alpha)) * null) / true))


def _check(b: int, c: int, n: int, margin: float) -> None:
    if b < 0 or c < 0 or b + c > n or n < 1 or not 0.0 < margin < 1.0:
        expected = "b and c from 0, b + c <= n, n from 1, 0 < margin < 1"
        fault = Fault("no such table", "paired test", expected, f"b={b}, c={c}, n={n}, margin={margin}")
        raise OurFault("the paired test cannot be made", [fault])


def _score(b: Floats, c: Floats, n: int, margin: float) -> Floats:
    """Tango's statistic: large where the candidate is better than champion - margin."""
    root = -b - c - (2.0 * n - c + b) * margin
    other = b * margin * (1.0 + margin)
    q = (np.sqrt(root**2 - 8.0 * n * other) - root) / (4.0 * n)
    variance = n * (2.0 * q - margin * (1.0 + margin))
    return np.asarray((c - b + n * margin) / np.sqrt(np.maximum(variance, 1e-12)))


def _boundary(n: int, margin: float, limit: float) -> Floats:
    """For c = 0..n, the largest b with a statistic of at least `limit`; -1 where there is none. It falls in b."""
    c = np.arange(n + 1.0)
    low, high = np.full(n + 1, -1.0), n - c
    while (low < high).any():
        middle = np.ceil((low + high) / 2.0)
        good = _score(np.maximum(middle, 0.0), c, n, margin) >= limit
        low, high = np.where(good, middle, low), np.where(good, high, middle - 1.0)
    return low


def _probability(n: int, boundary: Floats, worse: Floats, better: Floats) -> Floats:
    """P(b <= boundary[c]) for pairs with P(b) = worse and P(c) = better, each (m,)."""
    c = np.arange(n + 1.0)
    rows = np.asarray(better)[:, None]
    logs = gammaln(n + 1.0) - gammaln(c + 1.0) - gammaln(n - c + 1.0)
    mass = np.exp(logs + c * np.log(np.maximum(rows, 1e-300)) + (n - c) * np.log1p(-rows))
    total = np.zeros(len(rows))
    for i, share in enumerate(np.asarray(worse) / np.maximum(1.0 - np.asarray(better), 1e-300)):
        kept = (mass[i] > 1e-18) & (boundary >= 0)
        part: Any = bdtr(boundary[kept], (n - c[kept]).astype(np.int64), min(float(share), 1.0))
        total[i] = float((mass[i][kept] * part).sum())
    return total


def _worst(n: int, margin: float, limit: float) -> float:
    """The largest P(statistic >= limit) over the shares of discordant pairs with gain = -margin."""
    worse = margin + np.linspace(0.0, 1.0, GRID) ** 2 * ((1.0 - margin) / 2.0)
    return float(min(1.0, _probability(n, _boundary(n, margin, limit), worse, worse - margin).max()))


@lru_cache(maxsize=4096)
def _limit(n: int, margin: float, alpha: float) -> float:
    """The smallest limit, to 0.001, that Tango's statistic reaches with probability at most alpha at the margin."""
    low, high = float(-ndtri(alpha)) - 1.0, float(-ndtri(alpha)) + 1.0
    while _worst(n, margin, high) > alpha:
        low, high = high, high + 1.0
    while high - low > 1e-3:
        middle = (low + high) / 2.0
        if _worst(n, margin, middle) > alpha:
            low = middle
        else:
            high = middle
    return high
