"""How the belief in "the change came at film s" is spread over s, for tests that bet on a change at an unknown time.

A test that bets with factors L_1, L_2, ... (each of conditional mean at most 1 while nothing is wrong) keeps

    S_n = (S_(n-1) + w_n) * L_n,   S_0 = w_0,   that is   S_n = sum over s <= n of w_s * L_s * ... * L_n,

whose mean is at most w_0 + ... + w_n, so that Doob's maximal inequality gives P(max over n <= H of S_n >= 1 / alpha) <=
alpha whenever w_0 + ... + w_H <= 1. The Shiryaev-Roberts process is the case w_0 = 0, w_n = 1 / H: it keeps 1 / H of the
belief for a change at the very start, of which there is one in practice (a wrong scanner from the first day), so it finds
early changes late. Here a third of the belief lies on the start, a third is harmonic (1 / n: the same for each doubling
of time) and a third is uniform: a change at the start needs log(H / 3) less log-evidence than with Shiryaev-Roberts, one
in the uniform part at most log 3 more. (Shin, Ramdas and Rinaldo, "E-detectors", 2023, treat weighted restarts.)
"""

from __future__ import annotations

from math import exp, log, log1p

SHARE = 1.0 / 3.0


class Restarts:
    """The weights w_0, w_1, ... for a horizon of H >= 1 films; they sum to 1 over 0..H.

    Beyond H the weights go on, so that a change can still be found, but no longer within the stated rate.
    """

    __slots__ = ("_harmonic", "_uniform", "horizon")

    def __init__(self, horizon: int) -> None:
        self.horizon = horizon
        self._harmonic = SHARE / sum(1.0 / n for n in range(1, horizon + 1))
        self._uniform = SHARE / horizon

    def weight(self, n: int) -> float:
        """w_n, n >= 0."""
        return self._harmonic / n + self._uniform if n else SHARE


def log_add(a: float, b: float) -> float:
    """log(exp(a) + exp(b)) without overflow."""
    return a + log1p(exp(b - a)) if a > b else b + log1p(exp(a - b))
