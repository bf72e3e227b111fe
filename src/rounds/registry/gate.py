"""The gate: may this candidate serve? Pure, from evidence to a report with every question asked and its answer.

Promise: P(any candidate is promoted that is worse than the champion it replaces by `margin` in accuracy, over the life
of a frozen test set) <= alpha. Candidate j is tested at a level whose sum over all j is at most alpha (`spending`), by
an exact paired test (`paired`) over subjects, on one of two sets of films:

- a *fresh audited window*: films predicted after the candidate was frozen, so that no maker can have fitted it to them.
  Level alpha / (j (j + 1)); its numbers are shown.
- else the *frozen test set*, which is sealed once there is a champion: it answers passed or not, one bit, with no
  number and without saying which of its questions failed, at the sealed level. It is looked at last and only where
  nothing else has refused, so the bit it gives away is whether the candidate was promoted, which is what the sealed
  level counts.

With a fresh window the frozen set guards ranking alone (a cure for a changed scanner may lose accuracy on old films):
the paired AUC must be shown, at the sealed level (DeLong), to drop by no more than `max_auc_drop`.

Power: where an equal candidate would pass with less than `min_power`, a test that does not show non-inferiority says
nothing; the gate then gives no answer (check `power`) and tells how many labels it lacks. A test that does show it is
taken: its level holds whatever the power. The share of disagreeing predictions, from which the power on the sealed set
follows, uses no label, so showing it gives nothing away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from rounds.core.errors import Fault, OurFault
from rounds.core.records import Check, GateReport
from rounds.core.specs import GateSpec
from rounds.stats.intervals import auc_change, auc_interval
from rounds.stats.metrics import ece
from rounds.stats.paired import exact, labels_needed, power
from rounds.stats.spending import alpha_of, sealed_alpha

# A window is worth using where a cure of this size would pass: +10 points, 12 points of it repaired and 2 broken.
CURE_GAIN, CURE_DISCORDANCE = 0.10, 0.14


@dataclass(frozen=True, eq=False)
class Evidence:
    """A bundle on n films: true classes `y` int64 (n,), decided classes `label` int64 (n,), `probabilities` float64
    (n, k) and whose film each is; `classes` name the k classes in notes."""

    y: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]
    subjects: tuple[str, ...]
    classes: tuple[str, ...] = ()

    def firsts(self) -> Evidence:
        """The first film of each subject: subjects are the units of every test here."""
        seen: dict[str, int] = {}
        for i, subject in enumerate(self.subjects):
            seen.setdefault(subject, i)
        rows = np.array(list(seen.values()), np.int64)
        return Evidence(self.y[rows], self.label[rows], self.probabilities[rows], tuple(seen), self.classes)

    def __len__(self) -> int:
        return len(self.y)


def gate(
    candidate: Evidence,
    champion: Evidence | None,
    spec: GateSpec,
    *,
    bundle: str,
    against: str | None,
    j: int,
    promoted: int,
    fresh: tuple[Evidence, Evidence] | None = None,
    latency: tuple[float, float] | None = None,
) -> GateReport:
    """Judge the j-th candidate, after `promoted` promotions, on the frozen test set and, where given, a fresh window.

    `candidate` and `champion` are measured on the frozen set, `fresh` (candidate, champion) on the window, `latency` is
    (candidate, champion) in milliseconds a film. With no champion yet the absolute floors alone count, and their values
    are shown: the set is sealed from the first champion on. Raises OurFault where evidence does not fit together.
    """
    _check([candidate, champion or candidate], [*(fresh or ())])
    candidate = candidate.firsts()
    quick = _latency(latency, spec)
    if champion is None:
        checks = (*_floors(candidate, spec), *quick)
        return GateReport(bundle, against, all(c.passed for c in checks), checks, j, spec.alpha)
    sealed = sealed_alpha(j, promoted, spec.alpha)
    if fresh is None and not all(c.passed for c in quick):
        return GateReport(bundle, against, False, quick, j, sealed)
    champion = champion.firsts()
    if fresh is None:
        trial = _sealed_trial(candidate, champion, spec, sealed)
    else:
        trial = _fresh_trial(fresh[0].firsts(), fresh[1].firsts(), spec, alpha_of(j, spec.alpha))
    checks = (*quick, *trial.checks)
    if fresh is not None and all(c.passed for c in checks):
        checks = (*checks, _ranking(candidate, champion, spec, sealed))
    passed = all(c.passed for c in checks)
    return GateReport(bundle, against, passed, checks, j, trial.level, trial.power, trial.lacking)


def labels_for_fresh(spec: GateSpec, j: int) -> int:
    """How many audited subjects make a fresh window worth using for candidate j: so many that a clear cure (accuracy up
    by 10 points) passes with `min_power`. To be settled by the window's size alone, before any outcome is looked at."""
    return labels_needed(CURE_DISCORDANCE, spec.margin, alpha_of(j, spec.alpha), spec.min_power, CURE_GAIN)


@dataclass(frozen=True)
class _Trial:
    """A paired comparison: its checks, level, the power for an equal candidate, and labels lacking."""

    checks: tuple[Check, ...]
    level: float
    power: float
    lacking: int


def _fresh_trial(candidate: Evidence, champion: Evidence, spec: GateSpec, level: float) -> _Trial:
    worse, better, p = _compare(candidate, champion, spec.margin)
    shown = p <= level
    n = len(candidate)
    strength, lacking, power_check = _power(n, (worse + better) / n, spec, level, shown)
    checks = [*_floors(candidate, spec), power_check]
    if power_check.passed:
        note = f"of {n} subjects {better} right only with the candidate, {worse} only with the champion"
        note += f"; p {p:.3g} for being worse by {spec.margin:g} or more, level {level:.3g}"
        checks.append(Check("non_inferiority", p, level, shown, note))
    return _Trial(tuple(checks), level, strength, lacking)


def _sealed_trial(candidate: Evidence, champion: Evidence, spec: GateSpec, level: float) -> _Trial:
    n = len(candidate)
    apart = float(np.mean(candidate.label != champion.label))
    _, _, p = _compare(candidate, champion, spec.margin)
    shown = p <= level and all(c.passed for c in _floors(candidate, spec))
    strength, lacking, power_check = _power(n, apart, spec, level, shown)
    note = f"level {level:.3g}, {n} subjects; one bit for the floors and for not being worse by {spec.margin:g} or more"
    return _Trial((power_check, Check("sealed_test", None, None, shown, note)), level, strength, lacking)


def _ranking(candidate: Evidence, champion: Evidence, spec: GateSpec, level: float) -> Check:
    """The sealed guard beside a fresh window: the AUC is shown not to have dropped by more than the limit."""
    drop, deviation = 0.0, 0.0
    columns = _columns(candidate)
    for c in columns:
        ours, theirs = candidate.probabilities[:, c], champion.probabilities[:, c]
        change, error = auc_change((candidate.y == c).astype(np.int64), ours, theirs, spec.max_auc_drop)
        drop -= change / len(columns)
        # A mean deviates by at most the mean of the deviations, however the classes' areas depend on each other.
        deviation += error / len(columns)
    shown = bool(drop + float(-ndtri(level)) * deviation <= spec.max_auc_drop)
    note = f"one bit: AUC on the sealed test set not lower by more than {spec.max_auc_drop:g}, level {level:.3g}"
    return Check("sealed_ranking", None, None, shown, note)


def _compare(candidate: Evidence, champion: Evidence, margin: float) -> tuple[int, int, float]:
    """Subjects right only with the champion, only with the candidate, and the p-value of being worse by the margin."""
    right, before = candidate.label == candidate.y, champion.label == champion.y
    worse, better = int((before & ~right).sum()), int((right & ~before).sum())
    return worse, better, exact(worse, better, len(candidate), margin)


def _power(n: int, discordance: float, spec: GateSpec, level: float, shown: bool) -> tuple[float, int, Check]:
    discordance = max(discordance, 1.0 / n)
    strength = power(n, discordance, spec.margin, level)
    if strength >= spec.min_power:
        return strength, 0, Check("power", strength, spec.min_power, True, f"{n} subjects, {discordance:.3g} disagree")
    needed = labels_needed(discordance, spec.margin, level, spec.min_power)
    lacking = max(1, needed - n)
    if shown:
        note = (
            f"too few subjects for an equal candidate, by {lacking}; this one is shown to be good enough all the same"
        )
        return strength, 0, Check("power", strength, spec.min_power, True, note)
    note = f"no answer: with {n} subjects an equal candidate passes with probability {strength:.2f}"
    return strength, lacking, Check("power", strength, spec.min_power, False, f"{note}; {lacking} labels lacking")


def _floors(evidence: Evidence, spec: GateSpec) -> list[Check]:
    """The absolute floors, on the first film of each subject."""
    n = len(evidence)
    low = _auc_low(evidence, spec.alpha)
    note = f"lower bound at level {spec.alpha:g}, {n} subjects" if low == low else "cannot be told: too few of a class"
    checks = [Check("auc", None if low != low else low, spec.min_auc, bool(low >= spec.min_auc), note)]
    classes = evidence.probabilities.shape[1]
    floor = spec.min_recall or 1.0 / classes
    for c in range(classes):
        rows = evidence.y == c
        name = f"recall {evidence.classes[c] if evidence.classes else f'class {c}'}"
        if not rows.any():
            checks.append(Check(name, None, floor, False, "cannot be told: no film of this class"))
            continue
        recall = float((evidence.label[rows] == c).mean())
        checks.append(Check(name, recall, floor, recall >= floor, f"{int(rows.sum())} subjects"))
    # Few films in many bins would count their noise as miscalibration.
    bins = min(15, max(3, n // 25))
    gap = ece(evidence.y, evidence.probabilities, bins)
    return [*checks, Check("ece", gap, spec.max_ece, gap <= spec.max_ece, f"{n} subjects, {bins} bins")]


def _auc_low(evidence: Evidence, alpha: float) -> float:
    """The lower bound of the (macro one-vs-rest) AUC; NaN where a class has fewer than two films.

    A mean deviates by at most the mean of the deviations, however the classes' areas depend on each other.
    """
    columns, low = _columns(evidence), 0.0
    for c in columns:
        y = (evidence.y == c).astype(np.int64)
        enough = min(y.sum(), len(y) - y.sum()) >= 2
        bound = auc_interval(y, evidence.probabilities[:, c], level=1 - 2 * alpha)[0] if enough else float("nan")
        low += bound / len(columns)
    return low


def _columns(evidence: Evidence) -> Sequence[int]:
    k = evidence.probabilities.shape[1]
    return (1,) if k == 2 else range(k)


def _latency(latency: tuple[float, float] | None, spec: GateSpec) -> tuple[Check, ...]:
    if latency is None:
        return ()
    ratio = latency[0] / latency[1] if latency[1] > 0 else float("inf")
    note = f"{latency[0]:.3g} ms a film, champion {latency[1]:.3g} ms"
    return (Check("latency", ratio, spec.max_latency_ratio, ratio <= spec.max_latency_ratio, note),)


def _check(*groups: Sequence[Evidence]) -> None:
    faults = []
    for evidence in (item for group in groups for item in group):
        n = len(evidence.y)
        shape = (n, evidence.probabilities.shape[1] if evidence.probabilities.ndim == 2 else 0)
        fits = len(evidence.label) == len(evidence.subjects) == n > 0 and evidence.probabilities.shape == shape
        if not fits or shape[1] < 2:
            got = f"y {n}, label {len(evidence.label)}, probabilities {evidence.probabilities.shape}"
            faults.append(Fault("the parts do not fit", "evidence", "n films, two or more classes", got))
    for group in groups:
        if any(e.subjects != group[0].subjects or not np.array_equal(e.y, group[0].y) for e in group[1:]):
            faults += [Fault("the bundles were measured on different films", "evidence", "the same films, in order")]
    if faults:
        raise OurFault("the gate cannot judge this evidence", list(dict.fromkeys(faults)))
