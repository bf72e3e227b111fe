"""The drift test: has the distribution of a film's scores changed within the predicted class? Asked after every film.

Per score k and predicted class c a bag of binned scores grows from the reference on, and each film gets the conformal
p-value of its score among those of its class (Mondrian: Vovk, Gammerman and Shafer 2005). With exchangeable films
these are independent and uniform, exactly, ties included. Plug-in bets on them (Fedorova et al. 2012) multiply up in a
restarting process per score (`restarts`); the alarm is raised where one of K reaches K / alpha.

Promise: while first films of subjects are exchangeable with the reference within predicted class,
P(alarm within the first H films) <= alpha, however often it is looked at: P(max S_n >= K / alpha) <= alpha / K for each
score (see `restarts`), and the union bound over K scores gives alpha. No average over scores is taken: their p-values
live in different filtrations (Choe and Ramdas 2024).

The density that bets is a mixture of experts with fixed share (Herbster and Warmuth 1998), settled before each p-value
is seen, so its mean is 1 whatever the experts are: histograms of past p-values over 10 bins, forgetting at three rates,
and fixed shapes (lower, higher, narrower, wider), which need no learning and so bet from the first changed film on.
They halve the delay of histograms alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hashlib import shake_128
from math import asin, log, pi, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from rounds.core.errors import Fault, OurFault
from rounds.stats.restarts import Restarts

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BINS = 10
# What a histogram keeps of the past at each film, and the films' worth of uniform prior in each of its bins.
KEEP = np.array([1.0, 0.998, 0.99])
PRIOR = np.array([4.0, 4.0, 2.0])
_SHAPES: tuple[Callable[[float], float], ...] = (
    lambda x: 1.0 - (1.0 - x) ** 1.5,
    lambda x: x**1.5,
    lambda x: 1.0 - (1.0 - x) ** 3,
    lambda x: x**3,
    lambda x: 3.0 * x**2 - 2.0 * x**3,
    lambda x: 0.5 * x + asin(sqrt(x)) / pi,
)
# By bin, the density of each fixed shape: 10 * P(bin).
FIXED = np.array([[BINS * (cdf((b + 1) / BINS) - cdf(b / BINS)) for cdf in _SHAPES] for b in range(BINS)])
EXPERTS = len(KEEP) + len(_SHAPES)
SHARE = 0.01
_FORMAT = 1
_CEILING = 1e12


class _Bets:
    """The bets on the p-values of K scores within one predicted class.

    Histograms are kept in units that grow by 1 / discount a film instead of shrinking every bin: `unit` (3,) is what
    the newest film counts, `seen` (3,) what all count; both are the same for every score.
    """

    __slots__ = ("_place", "bins", "mix", "seen", "unit")

    def __init__(self, k: int) -> None:
        self.bins = np.zeros((k, len(KEEP), BINS))
        self.mix = np.full((k, EXPERTS), 1.0 / EXPERTS)
        self.seen = np.zeros(len(KEEP))
        self.unit = np.ones(len(KEEP))
        self._place = np.arange(k * len(KEEP)).reshape(k, len(KEEP)) * BINS

    def bet(self, p: Floats) -> Floats:
        """The densities (K,) that were held at p (K,) in (0, 1], after which the experts learn from p."""
        b = np.minimum((p * BINS).astype(np.int64), BINS - 1)
        place = self._place + b[:, None]
        flat = self.bins.reshape(-1)
        prior = PRIOR * self.unit
        held = flat.take(place)
        posts = np.concatenate([(held + prior) * (BINS / (self.seen + BINS * prior)), FIXED.take(b, 0)], 1)
        posts *= self.mix
        density: Floats = posts.sum(1)
        posts *= ((1.0 - SHARE) / density)[:, None]
        posts += SHARE / EXPERTS
        self.mix = posts
        self.unit /= KEEP
        flat.put(place, held + self.unit)
        self.seen += self.unit
        if self.unit[-1] > _CEILING:
            self._rescale()
        return density

    def _rescale(self) -> None:
        self.bins /= self.unit[:, None]
        self.seen /= self.unit
        self.unit = np.ones(len(KEEP))


class DriftDetector:
    """The drift test over K scores, from 63 edges a score and a reference: scores (n, K), predicted classes (n,) int.

    `alpha` is the rate promised within `horizon` films; `names` say in messages which score is meant. Memory does not
    grow with the stream, and everything is a function of the films in their order, the seed and the prediction ids.

    What it knows: `n` films taken; `log_e` (K,), the log-evidence of each score, and `peak` (K,), the most it ever was,
    to be compared with `limit`; `since` (K,), the mark of the first film after the last zero of the CUSUM of a score's
    log-evidence (0 before any film); `alarm_at` and `alarm_since`, the marks of the film that raised the alarm and of
    that score's `since` at the time.

    Raises OurFault where a part does not fit, or naming scores that are not finite.
    """

    def __init__(
        self,
        edges: Sequence[Sequence[float]],
        scores: npt.NDArray[np.floating],
        predicted: npt.NDArray[np.integer],
        *,
        classes: int,
        horizon: int,
        alpha: float,
        seed: int = 0,
        names: Sequence[str] = (),
    ) -> None:
        self.names = tuple(names) or tuple(f"score {k}" for k in range(len(edges)))
        self.classes, self.horizon, self.alpha, self.seed = classes, horizon, alpha, seed
        self._check(edges, np.asarray(scores), np.asarray(predicted))
        self._edges = np.asarray(edges, np.float64)
        k = len(self._edges)
        self.n = 0
        self.alarm_at: int | None = None
        self.alarm_since: int | None = None
        self._bets = [_Bets(k) for _ in range(classes)]
        self._below = np.zeros((classes, k, self._edges.shape[1] + 2))
        for c, row in zip(np.asarray(predicted), self._places(np.asarray(scores, np.float64)), strict=True):
            self._below[c] += np.arange(self._below.shape[2]) > row[:, None]
        self._ready()
        self.log_e: Floats = np.full(k, log(self._restarts.start))
        self.peak = self.log_e.copy()
        self.since: Ints = np.zeros(k, np.int64)
        self._cusum = np.zeros(k)

    def _ready(self) -> None:
        """What follows from the rest: the limit, the restarts, and lookups."""
        k, width = len(self._edges), self._below.shape[2]
        self.limit = log(k / self.alpha)
        self._restarts = Restarts(self.horizon)
        self._row = np.arange(k) * width
        self._steps = (np.arange(width) > np.arange(width - 1)[:, None]).astype(np.float64)

    def _check(
        self, edges: Sequence[Sequence[float]], scores: npt.NDArray[np.floating], predicted: npt.NDArray[np.integer]
    ) -> None:
        k, faults = len(edges), []
        if not k or scores.shape != (len(predicted), k) or len(self.names) != k or self.horizon < 1:
            got = f"scores {scores.shape}, {len(self.names)} names, horizon {self.horizon}"
            faults.append(Fault("the parts do not fit", "drift", f"scores (n, {k}), {k} names, a horizon from 1", got))
        if any(not np.isfinite(row).all() or (np.diff(row) < 0).any() for row in edges):
            faults.append(Fault("the edges are not in order", "drift", "finite numbers that do not fall"))
        if predicted.size and not 0 <= predicted.min() <= predicted.max() < self.classes:
            got = f"{predicted.min()}..{predicted.max()}"
            faults.append(Fault("a predicted class does not exist", "drift", f"0..{self.classes - 1}", got))
        if not faults and not np.isfinite(scores).all():
            bad = ", ".join(self.names[j] for j in np.flatnonzero(~np.isfinite(scores).all(0)))
            faults.append(Fault("reference scores are not finite", bad, "finite numbers"))
        if faults:
            raise OurFault("the drift test cannot start", faults)

    @property
    def alarm(self) -> bool:
        """Whether the limit was ever reached: an alarm stays."""
        return self.alarm_at is not None

    def update(self, prediction: str, scores: Sequence[float], predicted: int, mark: int | None = None) -> bool:
        """Take one film: its K scores and predicted class; True while an alarm stands.

        `mark` is the film's place in the caller's order, in which `since` and `alarm_at` are told: by default its
        number here, from 1. Raises OurFault naming scores that are not finite; the film is then not taken.
        """
        return self.update_all(
            [prediction], np.array([scores], np.float64), [predicted], None if mark is None else [mark]
        )

    def update_all(
        self,
        predictions: Sequence[str],
        scores: npt.NDArray[np.floating],
        predicted: Sequence[int],
        marks: Sequence[int] | None = None,
    ) -> bool:
        """Take films in order, ids, scores (n, K) and classes (n,): the same to the last bit as one `update` each.

        Raises OurFault naming every score that is not finite; no film is then taken.
        """
        values = np.asarray(scores, np.float64)
        self._refuse(predictions, values, predicted)
        places = self._places(values)
        for i, (prediction, c) in enumerate(zip(predictions, predicted, strict=True)):
            self.n += 1
            self._take(prediction, places[i], c, self.n if marks is None else marks[i])
        return self.alarm

    def _take(self, prediction: str, places: Ints, c: int, mark: int) -> None:
        # One hash a film, cut into 32 bits a score, breaks the ties: every p is then uniform up to 2**-32.
        digest = shake_128(f"{self.seed}\x1f{prediction}".encode()).digest(4 * len(places))
        u = np.frombuffer(digest, "<u4") * 2.0**-32
        below = self._below[c]
        flat, at = below.reshape(-1), self._row + places
        under = flat.take(at)
        p = (under + u * (flat.take(at + 1) - under + 1.0)) / (below[0, -1] + 1.0)
        below += self._steps.take(places, 0)
        gain = np.log(self._bets[c].bet(p))
        self.log_e = np.logaddexp(self.log_e, log(self._restarts.weight(self.n))) + gain
        self.since[self._cusum <= 0.0] = mark
        self._cusum = np.maximum(self._cusum, 0.0) + gain
        self.peak = np.maximum(self.peak, self.log_e)
        if self.alarm_at is None and self.log_e.max() >= self.limit:
            self.alarm_at, self.alarm_since = mark, int(self.since[self.log_e.argmax()])

    def _places(self, scores: Floats) -> Ints:
        """The bins (n, K) of scores (n, K): how many edges are at most the score."""
        if len(scores) == 1:
            return np.asarray((self._edges <= scores.T).sum(1)[None])
        return np.stack([np.searchsorted(row, scores[:, j], "right") for j, row in enumerate(self._edges)], 1)

    def _refuse(self, predictions: Sequence[str], scores: Floats, predicted: Sequence[int]) -> None:
        k = len(self._edges)
        if scores.shape != (len(predictions), k):
            fault = Fault("the scores do not fit", "drift", str((len(predictions), k)), str(scores.shape))
            raise OurFault("the drift test cannot take these films", [fault])
        faults = []
        if not np.isfinite(scores).all():
            for i, j in np.argwhere(~np.isfinite(scores)):
                what = f"the score {self.names[j]} is not finite"
                faults.append(Fault(what, predictions[i], "a finite number", str(scores[i, j])))
        for name, c in zip(predictions, predicted, strict=True):
            if not 0 <= c < self.classes:
                faults.append(Fault("no such class", name, f"0..{self.classes - 1}", str(c)))
        if faults:
            raise OurFault("the drift test cannot take these films", faults)

    def dump(self) -> bytes:
        """The whole state as JSON, exact to the last bit."""
        state: dict[str, Any] = {"format": _FORMAT}
        state |= {key: getattr(self, key) for key in _PLAIN}
        state |= {key: getattr(self, key).tolist() for key in _ARRAYS}
        state["bets"] = [{key: getattr(bets, key).tolist() for key in _BETS} for bets in self._bets]
        return json.dumps(state, separators=(",", ":"), allow_nan=False).encode()

    @classmethod
    def load(cls, data: bytes) -> DriftDetector:
        """The detector that `dump` wrote; what follows is the same as if it had never stopped.

        Raises OurFault where the bytes are not such a state.
        """
        self = cls.__new__(cls)
        try:
            state = json.loads(data)
            if state["format"] != _FORMAT:
                raise ValueError(f"format {state['format']}")
            for key in _PLAIN:
                setattr(self, key, state[key])
            for key, kind in _ARRAYS.items():
                setattr(self, key, np.array(state[key], kind))
            self._bets = [_Bets(len(self._edges)) for _ in state["bets"]]
            for bets, found in zip(self._bets, state["bets"], strict=True):
                for key in _BETS:
                    setattr(bets, key, np.array(found[key], np.float64))
        except (ValueError, KeyError, TypeError) as error:
            got = f"{type(error).__name__}: {error}"
            fault = Fault("not the state of a drift test", "drift", f"format {_FORMAT}", got)
            raise OurFault("the state of the drift test cannot be read", [fault]) from error
        self.names = tuple(self.names)
        self._ready()
        return self


_PLAIN = ("names", "classes", "horizon", "alpha", "seed", "n", "alarm_at", "alarm_since")
_ARRAYS = {
    "_edges": np.float64,
    "_below": np.float64,
    "_cusum": np.float64,
    "log_e": np.float64,
    "peak": np.float64,
    "since": np.int64,
}
_BETS = ("bins", "mix", "seen", "unit")
