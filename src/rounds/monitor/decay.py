"""The watch over outcomes: does the model do harm, judged on audited labels; and, without labels, an estimate. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import numpy as np

from rounds.core.ids import digest
from rounds.core.records import Bundle, Captured, Finding, Label, Moved
from rounds.core.specs import MonitorSpec
from rounds.runtime.bundle import Reference
from rounds.runtime.verdict import decide
from rounds.stats.intervals import upper_bound
from rounds.stats.risk import RiskTest

RECENT = 500


def risk_bounds(bundle: Bundle, reference: Reference, spec: MonitorSpec) -> dict[str, float]:
    """Per class, the error rate that the reference's films (one a subject) rule out: the exact upper bound, all classes
    together at level `alpha_reference`. A class without films has the bound 1: harm to it cannot be found."""
    label, _ = decide(bundle.calibration, reference.logits)
    bounds = {}
    for c, name in enumerate(bundle.classes):
        rows = reference.label == c
        errors = int((label[rows] != c).sum())
        bounds[name] = upper_bound(errors, int(rows.sum()), spec.alpha_reference / len(bundle.classes))
    return bounds


def judge_risk(
    rows: Sequence[Captured],
    labels: Mapping[str, Label],
    *,
    bundle: Bundle,
    bounds: Mapping[str, float],
    spec: MonitorSpec,
    now: datetime,
    drift: Finding | None = None,
) -> Finding:
    """Whether a class loses more than its bound and tolerance, from the audited films of this bundle in prediction
    order.

    Audited rows only, the first of each subject (or image). A row without a label waits, and with it all that follow,
    until it is older than `maturity_s`; then it counts as right for the claim of harm and as wrong for that of none.

    Harm "yes": P(ever, within `risk_horizon` audited films, while every class keeps to bound + tolerance) <=
    `alpha_risk`, given bounds that are true (they are not with probability `alpha_reference`). Harm "no": every class
    is shown to keep to bound + tolerance, wrong with probability at most `alpha_risk`. Else "unknown".

    `drift` is the drift finding of the same look. Where it alarms, films predicted after the alarm get more of the
    belief that harm began, which finds it sooner, and the claim of no harm rests on films since the change alone.
    """
    limits = {name: bound + spec.risk_tolerance for name, bound in bounds.items()}
    harm = RiskTest(limits, horizon=spec.risk_horizon, alpha=spec.alpha_risk)
    calm = RiskTest(limits, horizon=spec.risk_horizon, alpha=spec.alpha_risk)
    waiting = False
    since = drift.since or 0 if drift is not None and drift.alarm else 0
    for place, row in _audited(rows, bundle):
        label = labels.get(row.prediction)
        if label is None and now - row.at <= timedelta(seconds=spec.maturity_s):
            waiting = True
            break
        if drift is not None and drift.alarm and row.at > drift.at:
            harm.suspect()
        for test in (harm, calm) if place >= since else (harm,):
            if label is None or label.label not in limits:
                test.missing()
            else:
                test.update(float(label.label != row.label), label.label, row.seq)
    first = min(harm.harmed.values(), default=None)
    verdict = "yes" if harm.harm else "no" if calm.safe else "unknown"
    return Finding(
        id="f" + digest(f"{bundle.digest}|decay|{first}".encode())[:20],
        kind="decay",
        alarm=harm.harm,
        n=harm.n,
        at=now,
        alpha=spec.alpha_risk,
        log_e=harm.peak,
        limit=harm.limit,
        moved=_lost(harm, bounds),
        harm=verdict,
        controlled=harm.n <= spec.risk_horizon,
        why=_why(harm, waiting),
    )


def estimate(
    rows: Sequence[Captured],
    *,
    bundle: Bundle,
    reference: Reference,
    spec: MonitorSpec,
    now: datetime,
) -> Finding:
    """An estimate of the accuracy on the last 500 films, without labels: average thresholded confidence (Garg et al.
    2022). It carries no promise, never alarms, and was seen too high by 6 points on a real shift.

    The threshold is the confidence below which as many reference films lie as are answered wrongly; the estimate is the
    share of films at or above it. Confidence is the probability of the class that was decided.
    """
    label, probabilities = decide(bundle.calibration, reference.logits)
    confidence = np.sort(probabilities[np.arange(len(label)), label])
    right = float(np.mean(label == reference.label))
    wrong = int((label != reference.label).sum())
    threshold = confidence[min(wrong, len(confidence) - 1)]
    places = {name: i for i, name in enumerate(bundle.classes)}
    own = [row for row in rows if row.bundle == bundle.digest and row.label in places][-RECENT:]
    moved: tuple[Moved, ...] = ()
    why = "no films yet"
    if own:
        share = float(np.mean([row.probabilities[places[row.label]] >= threshold for row in own]))
        moved = (Moved("accuracy", share - right),)
        why = f"accuracy {share:.3f} estimated from confidence, {right:.3f} on the reference; no error rate is stated"
    return Finding(
        id="f" + digest(f"{bundle.digest}|decay_estimated".encode())[:20],
        kind="decay_estimated",
        alarm=False,
        n=len(own),
        at=now,
        alpha=spec.alpha_risk,
        log_e=0.0,
        limit=0.0,
        moved=moved,
        controlled=False,
        why=why,
    )


def _audited(rows: Sequence[Captured], bundle: Bundle) -> Iterator[tuple[int, Captured]]:
    """The audited rows of this bundle, each subject's first, with their place among all of the bundle's."""
    seen: set[str] = set()
    own = sorted((row for row in rows if row.bundle == bundle.digest), key=lambda row: row.seq)
    for place, row in enumerate(own):
        subject = row.subject or row.image
        if row.audited and subject not in seen:
            seen.add(subject)
            yield place, row


def _lost(test: RiskTest, bounds: Mapping[str, float]) -> tuple[Moved, ...]:
    """The classes that lost, and by how much their error rate on the audit lies above what the reference allows."""
    return tuple(
        Moved(name, test.losses[name] / test.counts[name] - bounds[name])
        for name in sorted(test.harmed, key=test.harmed.__getitem__)
    )


def _why(test: RiskTest, waiting: bool) -> str:
    rates = [f"{name} {test.losses[name]:g} of {test.counts[name]} wrong" for name in test.bounds]
    limits = ", ".join(f"{name} {bound:.3f}" for name, bound in test.bounds.items())
    text = f"audited: {', '.join(rates)}; allowed: {limits}"
    if test.unlabelled:
        text += f"; {test.unlabelled} labels never came and count as right for harm, as wrong for none"
    return text + ("; waiting for a label" if waiting else "")
