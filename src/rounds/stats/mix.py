"""The class-mix test: has the share of films predicted as one class left the band that the operator declares?

For P(this class | past) = q and a band [low, high], restarting bets on q > high and on q < low (Waudby-Smith and Ramdas
2024) run for a grid of stakes. Promise: while q lies in the band at every film, P(alarm within H films) <= alpha, as
each direction's mean over the grid is a restarting process (see `restarts`) and the two share alpha.
"""

from __future__ import annotations

import json
from math import log
from typing import Any

import numpy as np
import numpy.typing as npt

from rounds.core.errors import Fault, OurFault
from rounds.stats.restarts import Restarts

STAKES = (0.05, 0.1, 0.2, 0.4, 0.8)


class BandTest:
    """The class-mix test of a band 0 <= low < high <= 1, at rate alpha within `horizon` films.

    `log_e` is the larger of both directions' log-evidence and `peak` the most it ever was, to be compared with `limit`;
    `alarm_at` is the mark of the film that raised the alarm.
    """

    def __init__(self, low: float, high: float, *, horizon: int, alpha: float) -> None:
        if not 0.0 <= low < high <= 1.0:
            raise OurFault(
                "not a band", [Fault("not a band of shares", "mix", "0 <= low < high <= 1", f"{low}..{high}")]
            )
        self.low, self.high, self.horizon, self.alpha = low, high, horizon, alpha
        self.n = 0
        self.alarm_at: int | None = None
        self._prepare()
        start = log(self._restarts.start)
        self._up = np.full(len(STAKES), start)
        self._down = np.full(len(STAKES), start)
        self.peak = start

    def _prepare(self) -> None:
        self.limit = log(2.0 / self.alpha)
        self._restarts = Restarts(self.horizon)
        grid = np.array(STAKES)
        # A stake below 1 / high (1 / (1 - low)) keeps every factor positive.
        up, down = grid / max(self.high, 1e-9), grid / max(1.0 - self.low, 1e-9)
        self._gain_up = np.log1p(up * (np.array([[0.0], [1.0]]) - self.high))
        self._gain_down = np.log1p(down * (self.low - np.array([[0.0], [1.0]])))

    @property
    def log_e(self) -> float:
        """The log-evidence of the likelier direction."""
        return max(self.log_up, self.log_down)

    @property
    def log_up(self) -> float:
        """The log-evidence that the share lies above the band."""
        return _mean(self._up)

    @property
    def log_down(self) -> float:
        """The log-evidence that the share lies below the band."""
        return _mean(self._down)

    @property
    def alarm(self) -> bool:
        """Whether the limit was ever reached: an alarm stays."""
        return self.alarm_at is not None

    def update(self, member: bool, mark: int | None = None) -> bool:
        """Take one film: whether it was predicted as the class; True while an alarm stands."""
        self.n += 1
        weight = log(self._restarts.weight(self.n))
        self._up = np.logaddexp(self._up, weight) + self._gain_up[int(member)]
        self._down = np.logaddexp(self._down, weight) + self._gain_down[int(member)]
        self.peak = max(self.peak, self.log_e)
        if self.alarm_at is None and self.peak >= self.limit:
            self.alarm_at = self.n if mark is None else mark
        return self.alarm

    def dump(self) -> bytes:
        """The whole state as JSON, exact to the last bit."""
        state: dict[str, Any] = {key: getattr(self, key) for key in _PLAIN}
        state |= {"up": self._up.tolist(), "down": self._down.tolist()}
        return json.dumps(state, separators=(",", ":"), allow_nan=False).encode()

    @classmethod
    def load(cls, data: bytes) -> BandTest:
        """The test that `dump` wrote; OurFault where the bytes are not such a state."""
        self = cls.__new__(cls)
        try:
            state = json.loads(data)
            for key in _PLAIN:
                setattr(self, key, state[key])
            self._up, self._down = np.array(state["up"], np.float64), np.array(state["down"], np.float64)
        except (ValueError, KeyError, TypeError) as error:
            fault = Fault(
                "not the state of a class-mix test", "mix", "what dump wrote", f"{type(error).__name__}: {error}"
            )
            raise OurFault("the state of the class-mix test cannot be read", [fault]) from error
        self._prepare()
        return self


_PLAIN = ("low", "high", "horizon", "alpha", "n", "alarm_at", "peak")


def _mean(logs: npt.NDArray[np.float64]) -> float:
    return float(np.logaddexp.reduce(logs) - log(len(logs)))
