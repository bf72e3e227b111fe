"""The risk test: does a class lose more than its bound, on films audited at random?

For class s with bound b_s, each audited film of that class with loss l in [0, 1] multiplies restarting bets on a risk
above the bound by 1 + stake * (l - b_s), for a grid of stakes in (0, 1 / b_s) (Waudby-Smith and Ramdas 2024; Podkopaev
and Ramdas 2022 for deployed models).

Promise: while E[loss | past, class s] <= b_s at every audited film of every class s, P(harm declared within H audited
films) <= alpha. The restart weight w_t (see `restarts`) is indexed by the film's place t among all audited films and
goes to that film's class alone, and the start's w_0 is shared equally. So the sum of all classes' processes, with the
weights still to come, is a non-negative supermartingale that starts at 1, and the limit is 1 / alpha for any number of
classes: nothing is lost to a union bound. A quarter of the belief is kept back for one moment that something outside
the losses points to, such as a drift alarm: `suspect` spends it.

A label that never came leaves the film's class unknown, and its loss may be anything. `missing` multiplies every class
by the factor of loss 0 and restarts nothing: at most what the film would have done in its own class, and less in the
others. So every process stays below that of the complete labels, for which the promise is proved, however labels go
missing. For the opposite claim, that there is no harm, it multiplies every class by the factor of loss 1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import log
from typing import Any

import numpy as np
import numpy.typing as npt

from rounds.core.errors import Fault, OurFault
from rounds.stats.restarts import Restarts

Floats = npt.NDArray[np.float64]

# Shares of the largest stake that keeps every factor positive.
STAKES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
SUSPICION = 0.25


class RiskTest:
    """The risk test over classes with a bound each (reference risk and tolerance, in [0, 1]).

    `log_harm[class]` is the log-evidence of harm and `peak` the most that any class ever had, to be compared with
    `limit`; `harmed` names the classes that reached it, each with the mark of the film that did. `log_safe[class]` is
    the log-evidence that the risk has not been above the bound ever since the test began: it has no restarts, and its
    limit is the same. A bound of 1 or more cannot be exceeded: harm is never found.
    """

    def __init__(self, bounds: Mapping[str, float], *, horizon: int, alpha: float) -> None:
        if not bounds or not all(bound >= 0.0 for bound in bounds.values()) or horizon < 1 or not 0.0 < alpha < 1.0:
            got = f"{dict(bounds)}, horizon {horizon}, alpha {alpha}"
            fault = Fault(
                "not bounds of a risk", "risk", "a bound from 0 for each class, horizon from 1, 0 < alpha < 1", got
            )
            raise OurFault("the risk test cannot start", [fault])
        self.bounds = {name: float(bound) for name, bound in bounds.items()}
        self.horizon, self.alpha = horizon, alpha
        self.n = 0
        self.counts = dict.fromkeys(self.bounds, 0)
        self.losses = dict.fromkeys(self.bounds, 0.0)
        self.unlabelled = 0
        self.harmed: dict[str, int] = {}
        self.suspected = False
        self._prepare()
        start = log(self._restarts.start / len(self.bounds))
        self.peak = start
        self._harm = {name: np.full(len(STAKES), start) for name in self.bounds}
        self._safe = {name: np.zeros(len(STAKES)) for name in self.bounds}

    def _prepare(self) -> None:
        self.limit = log(1.0 / self.alpha)
        self._restarts = Restarts(self.horizon, 1.0 - SUSPICION)

    @property
    def log_harm(self) -> dict[str, float]:
        """Per class, the log-evidence that its risk is above the bound."""
        return {name: _mean(logs) for name, logs in self._harm.items()}

    @property
    def log_safe(self) -> dict[str, float]:
        """Per class, the log-evidence that its risk is not above the bound."""
        return {name: _mean(logs) for name, logs in self._safe.items()}

    @property
    def harm(self) -> bool:
        """Whether any class ever reached the limit."""
        return bool(self.harmed)

    @property
    def safe(self) -> bool:
        """Whether every class is shown to keep to its bound: wrong with probability at most alpha if one does not."""
        return not self.harm and all(value >= self.limit for value in self.log_safe.values())

    def update(self, loss: float, klass: str, mark: int | None = None) -> bool:
        """Take one audited film, in prediction order: its loss in [0, 1] and true class; True while harm stands."""
        if not 0.0 <= loss <= 1.0 or klass not in self.bounds:
            expected = f"a loss in 0..1 and one of {', '.join(self.bounds)}"
            raise OurFault(
                "the risk test cannot take this film", [Fault("no such loss", "risk", expected, f"{loss}, {klass}")]
            )
        self.n += 1
        self.counts[klass] += 1
        self.losses[klass] += loss
        bound = self.bounds[klass]
        weight = log(self._restarts.weight(self.n))
        self._harm[klass] = np.logaddexp(self._harm[klass], weight) + _harm_gain(loss, bound)
        self._safe[klass] = self._safe[klass] + _safe_gain(loss, bound)
        evidence = _mean(self._harm[klass])
        self.peak = max(self.peak, evidence)
        if klass not in self.harmed and evidence >= self.limit:
            self.harmed[klass] = self.n if mark is None else mark
        return self.harm

    def missing(self) -> None:
        """Take one audited film whose label never came: loss 0 for harm and 1 for safety, in every class."""
        self.n += 1
        self.unlabelled += 1
        for name, bound in self.bounds.items():
            self._harm[name] = self._harm[name] + _harm_gain(0.0, bound)
            self._safe[name] = self._safe[name] + _safe_gain(1.0, bound)

    def suspect(self) -> None:
        """Expect the risk to have risen before the next film: the belief kept back is spent, once, on this moment.

        The moment must follow from what was known before the next film (a drift alarm does); its losses still count.
        """
        if not self.suspected:
            self.suspected = True
            extra = log(SUSPICION / len(self.bounds))
            self._harm = {name: np.logaddexp(logs, extra) for name, logs in self._harm.items()}

    def dump(self) -> bytes:
        """The whole state as JSON, exact to the last bit."""
        state: dict[str, Any] = {key: getattr(self, key) for key in _PLAIN}
        state |= {key: {name: logs.tolist() for name, logs in getattr(self, key).items()} for key in _LOGS}
        return json.dumps(state, separators=(",", ":"), allow_nan=False).encode()

    @classmethod
    def load(cls, data: bytes) -> RiskTest:
        """The test that `dump` wrote; OurFault where the bytes are not such a state."""
        self = cls.__new__(cls)
        try:
            state = json.loads(data)
            for key in _PLAIN:
                setattr(self, key, state[key])
            for key in _LOGS:
                setattr(self, key, {name: np.array(logs, np.float64) for name, logs in state[key].items()})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            fault = Fault("not the state of a risk test", "risk", "what dump wrote", f"{type(error).__name__}: {error}")
            raise OurFault("the state of the risk test cannot be read", [fault]) from error
        self._prepare()
        return self


_PLAIN = ("bounds", "horizon", "alpha", "n", "counts", "losses", "unlabelled", "harmed", "peak", "suspected")
_LOGS = ("_harm", "_safe")
_TINY = 1e-3


def _harm_gain(loss: float, bound: float) -> Floats:
    """log(1 + stake * (loss - bound)) over the stakes below 1 / bound; 0 where the bound cannot be exceeded.

    A bound of 0 would allow any stake; bets against it as against a bound of 0.001 stay below those and so valid.
    """
    bound = max(bound, _TINY)
    if bound >= 1.0:
        return np.zeros(len(STAKES))
    return np.asarray(np.log1p(np.array(STAKES) / bound * (loss - bound)))


def _safe_gain(loss: float, bound: float) -> Floats:
    """log(1 + stake * (bound - loss)) over the stakes below 1 / (1 - bound), bounds taken as at most 0.999."""
    bound = min(bound, 1.0 - _TINY)
    return np.asarray(np.log1p(np.array(STAKES) / (1.0 - bound) * (bound - loss)))


def _mean(logs: Floats) -> float:
    return float(np.logaddexp.reduce(logs) - log(len(logs)))
