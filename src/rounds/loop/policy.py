"""What is to be done about what was found: a pure function from findings and situation to one decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from rounds.core.records import Act, Decision, Finding
from rounds.core.specs import PolicySpec


@dataclass(frozen=True)
class Situation:
    """What the policy must know beside the findings.

    `labels` counts audited labels of the champion's films since the change; `accuracy` is the champion's on them and
    `predecessor_accuracy` that of the one before it, rescored on the same films (None where there is none to go back
    to); `unseen` counts labelled films that no training has seen; `tried` names the cures already tried on this
    champion; `retrains` are the times at which earlier retrains began, whatever became of them; `lacking` counts the
    fresh labels that a candidate still waits for (None where none waits).
    """

    labels: int
    accuracy: float | None = None
    predecessor_accuracy: float | None = None
    unseen: int = 0
    tried: frozenset[Act] = frozenset()
    retrains: tuple[datetime, ...] = ()
    provisional: bool = False
    lacking: int | None = None


def decide(findings: Sequence[Finding], situation: Situation, policy: PolicySpec, now: datetime) -> Decision:
    """Choose the cheapest act that the findings allow; only a finding of harm allows a cure, only a proven drift a
    question.

    Estimates without labels (`decay_estimated`) never lead to an act. A champion is recalibrated once and before any
    retrain; a retrain needs new labels, quiet time since the last one and budget.
    """
    evidence = {"findings": [finding.id for finding in findings if finding.alarm]}
    if situation.lacking == 0:
        return Decision(Act.PROMOTE, "a candidate's fresh window is full: the gate decides", evidence)
    harmed = next((f for f in findings if f.kind == "decay" and f.harm == "yes"), None)
    drifted = next((f for f in findings if f.kind == "drift" and f.alarm), None)
    if harmed:
        return _cure(situation, policy, now, evidence)
    if drifted:
        return _ask(drifted, findings, situation, evidence)
    return Decision(Act.HOLD, "nothing was found", evidence)


def _ask(
    drifted: Finding, findings: Sequence[Finding], situation: Situation, evidence: dict[str, list[str]]
) -> Decision:
    moved = ", ".join(item.what for item in drifted.moved) or "the inputs"
    if any(f.kind == "decay" and f.harm == "no" for f in findings):
        return Decision(Act.HOLD, f"{moved} drifted, and audited labels show no harm", evidence)
    why = f"{moved} drifted; whether it harms is unknown with {situation.labels} audited labels"
    return Decision(Act.ASK_LABELS, why, evidence)


def _cure(situation: Situation, policy: PolicySpec, now: datetime, evidence: dict[str, list[str]]) -> Decision:
    before, present = situation.predecessor_accuracy, situation.accuracy
    if situation.provisional and before is not None and present is not None and before > present:
        why = f"the provisional version does harm: accuracy {present:.3f} where its predecessor has {before:.3f}"
        return Decision(Act.ROLL_BACK, why, evidence)
    needed = policy.labels_to_recalibrate + policy.labels_to_prove
    if Act.RECALIBRATE not in situation.tried:
        if situation.labels >= needed:
            return Decision(
                Act.RECALIBRATE, "audited labels show harm; refitting the outputs is the cheapest cure", evidence
            )
        why = f"harm, but {situation.labels} audited labels where a recalibration and its proof need {needed}"
        return Decision(Act.ASK_LABELS, why, evidence)
    return _retrain(situation, policy, now, evidence)


def _retrain(situation: Situation, policy: PolicySpec, now: datetime, evidence: dict[str, list[str]]) -> Decision:
    if situation.lacking is not None:
        return Decision(Act.ASK_LABELS, f"a candidate waits for {situation.lacking} fresh audited labels", evidence)
    if situation.unseen < policy.labels_to_retrain:
        why = f"harm, but {situation.unseen} labels that training has not seen, of {policy.labels_to_retrain} needed"
        return Decision(Act.ASK_LABELS, why, evidence)
    if situation.retrains and now - max(situation.retrains) < timedelta(seconds=policy.cooldown_s):
        return Decision(Act.HOLD, f"harm, but the last retrain is less than {policy.cooldown_s:g} s ago", evidence)
    recent = [at for at in situation.retrains if now - at < timedelta(seconds=policy.period_s)]
    if len(recent) >= policy.retrains_per_period:
        return Decision(
            Act.HOLD, f"harm, but the budget of {policy.retrains_per_period} retrains a period is spent", evidence
        )
    return Decision(Act.RETRAIN, "audited labels show harm that recalibration does not cure", evidence)
