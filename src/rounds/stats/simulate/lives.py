"""The simulations: each runs the production functions over seeded lives and returns a rate or a delay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from rounds.stats.drift import DriftDetector
from rounds.stats.intervals import clopper_pearson
from rounds.stats.mix import BandTest
from rounds.stats.paired import exact
from rounds.stats.risk import RiskTest
from rounds.stats.spending import alpha_of, sealed_alpha

EDGES = [ndtri(np.arange(1, 64) / 64).tolist()]
CLASSES = ("normal", "pneumonia")


@dataclass(frozen=True)
class Measured:
    """How often something happened in so many lives, the rate that is stated for it (None: nothing is promised), and,
    where it is a finding, the median delay in films."""

    name: str
    events: int
    lives: int
    stated: float | None = None
    delay: float | None = None

    @property
    def bounds(self) -> tuple[float, float]:
        """The exact 95 % interval of the rate (Clopper and Pearson 1934)."""
        return clopper_pearson(self.events, self.lives)

    @property
    def broken(self) -> bool:
        """Whether the lives contradict the stated rate."""
        return self.stated is not None and self.bounds[0] > self.stated

    def __str__(self) -> str:
        low, high = self.bounds
        text = f"{self.name:<64} {self.events / self.lives:6.3f} [{low:.3f}, {high:.3f}] of {self.lives}"
        if self.stated is not None:
            text += f"   stated {self.stated:g}{'   BROKEN' if self.broken else ''}"
        return text + (f"   median delay {self.delay:g} films" if self.delay is not None else "")


def drift_false_alarms(
    lives: int, seed: int, *, horizon: int = 500, k: int = 3, reference: int = 300, alpha: float = 0.05
) -> Measured:
    """Lives of `horizon` unchanged films, k scores of which two are equal, integer-valued in one (ties)."""
    events = 0
    for life in range(lives):
        detector, random = _detector(seed + life, k, reference, horizon, alpha)
        events += detector.update_all(*_films(random, horizon, k, f"{life}"))
    return Measured(f"drift: false alarm within {horizon} films, {k} scores", events, lives, alpha)


def drift_delay(lives: int, seed: int, *, clean: int, shift: float, k: int = 7, films: int = 400) -> Measured:
    """Lives in which one of k scores moves by `shift` standard deviations after `clean` films, alpha .01, H 10,000."""
    delays = []
    for life in range(lives):
        detector, random = _detector(seed + life, k, 500, 10_000, 0.01)
        names, scores, predicted = _films(random, clean + films, k, f"{life}")
        scores[clean:, -1] += shift
        detector.update_all(names, scores, predicted)
        if detector.alarm_at is not None and detector.alarm_at > clean:
            delays.append(detector.alarm_at - clean)
    name = f"drift: found within {films} films, {shift:g} sd in 1 of {k} after {clean} clean"
    return Measured(name, len(delays), lives, delay=_median(delays))


def mix_false_alarms(lives: int, seed: int, *, horizon: int = 1000, alpha: float = 0.05) -> Measured:
    """Lives of films at the upper edge of the band."""
    events = 0
    for life in range(lives):
        test = BandTest(0.2, 0.4, horizon=horizon, alpha=alpha)
        for member in np.random.default_rng(seed + life).random(horizon) < 0.4:
            if test.update(bool(member)):
                events += 1
                break
    return Measured(f"class mix: false alarm within {horizon} films", events, lives, alpha)


def mix_delay(lives: int, seed: int, *, share: float = 0.6, clean: int = 1000, films: int = 400) -> Measured:
    """Lives in which the share leaves the band after `clean` films."""
    delays = []
    for life in range(lives):
        random = np.random.default_rng(seed + life)
        members = np.concatenate([random.random(clean) < 0.3, random.random(films) < share])
        test = BandTest(0.2, 0.4, horizon=10_000, alpha=0.005)
        for member in members:
            if test.update(bool(member)):
                break
        if test.alarm_at is not None and test.alarm_at > clean:
            delays.append(test.alarm_at - clean)
    name = f"class mix: share {share:g} found within {films} films"
    return Measured(name, len(delays), lives, delay=_median(delays))


def risk_false_harm(
    lives: int, seed: int, *, bound: float = 0.085, horizon: int = 500, alpha: float = 0.05, kept: float = 1.0
) -> Measured:
    """Lives of audited films with both classes' risk exactly at the bound; `kept` is the share of right films whose
    label comes (wrong ones all come: the worst that can go missing)."""
    events = 0
    for life in range(lives):
        test, random = _risk(seed + life, bound, horizon, alpha)
        losses, kinds = random.random(horizon) < bound, random.integers(0, 2, horizon)
        comes = losses | (random.random(horizon) < kept)
        for loss, kind, labelled in zip(losses, kinds, comes, strict=True):
            if test.n == horizon // 4:
                test.suspect()
            if not labelled:
                test.missing()
            elif test.update(float(loss), CLASSES[kind]):
                events += 1
                break
    lost = "" if kept == 1.0 else f", {1 - kept:.0%} of right labels lost"
    return Measured(f"risk: false harm within {horizon} audited films{lost}", events, lives, alpha)


def risk_delay(lives: int, seed: int, *, before: float = 0.035, after: float = 0.15, films: int = 600) -> Measured:
    """Lives whose risk, in both classes, rises after 200 audited films, an alarm 40 later; bound .085, alpha .01."""
    delays = []
    for life in range(lives):
        test, random = _risk(seed + life, 0.085, 10_000, 0.01)
        risk = np.repeat([before, after], [200, films])
        kinds = random.integers(0, 2, len(risk))
        for loss, kind in zip(random.random(len(risk)) < risk, kinds, strict=True):
            if test.n == 240:
                test.suspect()
            if test.update(float(loss), CLASSES[kind]):
                break
        if test.harm and test.n > 200:
            delays.append(test.n - 200)
    name = f"risk: {before:g} to {after:g} found within {films} audited films"
    return Measured(name, len(delays), lives, delay=_median(delays))


def gate_life(
    lives: int,
    seed: int,
    *,
    sealed: bool,
    gain: float,
    candidates: int = 50,
    n: int = 624,
    margin: float = 0.02,
    alpha: float = 0.05,
) -> Measured:
    """Lives of `candidates` candidates with this gain (6 % discordant or more) on one sealed test set, or on a fresh
    window each; counted are lives in which any was promoted."""
    events = 0
    discordance = max(0.06, abs(gain))
    worse, better = (discordance - gain) / 2, (discordance + gain) / 2
    for life in range(lives):
        random = np.random.default_rng(seed + life)
        right = random.random(n) < 0.9
        for j in range(1, candidates + 1):
            if not sealed:
                right = random.random(n) < 0.9
            flips = random.random(n)
            b, c = int((right & (flips < worse / 0.9)).sum()), int((~right & (flips < better / 0.1)).sum())
            level = sealed_alpha(j, 0, alpha) if sealed else alpha_of(j, alpha)
            if exact(b, c, n, margin) <= level:
                events += 1
                break
    where = "one sealed test set" if sealed else "a fresh window each"
    name = f"gate: a candidate of {candidates} at gain {gain:+g} promoted, {where}"
    return Measured(name, events, lives, alpha if gain <= -margin else None)


def everything(lives: int, seed: int) -> list[Measured]:
    """Every promise, and the power beside it; lives of the delays are a twentieth, at least ten."""
    few = max(10, lives // 20)
    results = [drift_false_alarms(lives, seed)]
    for clean in (0, 1000, 3000):
        results += [drift_delay(few, seed, clean=clean, shift=shift) for shift in (0.5, 1.0)]
    results += [mix_false_alarms(lives, seed), mix_delay(few, seed)]
    results += [risk_false_harm(lives, seed), risk_false_harm(lives, seed, kept=0.8), risk_delay(few, seed)]
    results += [gate_life(lives, seed, sealed=sealed, gain=-0.02) for sealed in (True, False)]
    results += [gate_life(lives, seed, sealed=True, gain=gain, candidates=1) for gain in (0.0, 0.02)]
    return results


def _detector(
    seed: int, k: int, reference: int, horizon: int, alpha: float
) -> tuple[DriftDetector, np.random.Generator]:
    random = np.random.default_rng(seed)
    _, scores, predicted = _films(random, reference, k, "reference")
    detector = DriftDetector(EDGES * k, scores, np.array(predicted), classes=2, horizon=horizon, alpha=alpha, seed=seed)
    return detector, random


def _films(
    random: np.random.Generator, n: int, k: int, name: str
) -> tuple[Sequence[str], npt.NDArray[np.float64], Sequence[int]]:
    scores = random.standard_normal((n, k))
    if k > 2:
        scores[:, 1] = scores[:, 0]
        scores[:, 2] = np.round(scores[:, 2])
    return [f"{name}/{i}" for i in range(n)], scores, random.integers(0, 2, n).tolist()


def _risk(seed: int, bound: float, horizon: int, alpha: float) -> tuple[RiskTest, np.random.Generator]:
    return RiskTest(dict.fromkeys(CLASSES, bound), horizon=horizon, alpha=alpha), np.random.default_rng(seed)


def _median(delays: Sequence[int]) -> float | None:
    return float(np.median(delays)) if delays else None
