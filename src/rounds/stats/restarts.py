"""How the belief in "the change came at film s" is spread over s, for tests that bet on a change at an unknown time.

A test that bets with factors L_1, L_2, ... >= 0, each of conditional mean at most 1 while nothing is wrong, keeps

    S_n = (S_(n-1) + w_n) * L_n,   S_0 = w_0,   that is   S_n = sum over s <= n of w_s * L_s * ... * L_n.

With w_0 + ... + w_H = 1, S_n + (w_(n+1) + ... + w_H) is a non-negative supermartingale that starts at 1, so Ville's
inequality gives P(max over n <= H of S_n >= 1 / alpha) <= alpha. The Shiryaev-Roberts process is the case w_0 = 0,
w_n = 1 / H. It keeps only 1 / H of the belief for a change at the very start, which is likelier than any other (a wrong
scanner from the first day on) and must be found before the growing bag of a conformal test is full of it. Here a third
of the belief lies on the start, a third is harmonic (as 1 / n: the same for each doubling of time) and a third uniform:
against Shiryaev-Roberts a change at the start needs log(H / 3) less log-evidence, and none needs more than log 3 more.
Shin, Ramdas and Rinaldo 2023 ("E-detectors") treat weighted restarts.
"""

from __future__ import annotations


class Restarts:
    """The weights w_0, w_1, ... for a horizon of H >= 1 films; they sum to `total` over 0..H, a third in each part.

    Beyond H the weights go on, so that a change can still be found, but no longer within the stated rate.
    """

    __slots__ = ("_harmonic", "_uniform", "start")

    def __init__(self, horizon: int, total: float = 1.0) -> None:
        self.start = total / 3.0
        self._harmonic = self.start / sum(1.0 / n for n in range(1, horizon + 1))
        self._uniform = self.start / horizon

    def weight(self, n: int) -> float:
        """w_n of film n, from 1; `start` is w_0."""
        return self._harmonic / n + self._uniform
