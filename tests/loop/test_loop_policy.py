"""The policy as a table: what was found and what is known, and the one act that follows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from rounds.core.records import Act, Finding, Moved
from rounds.core.specs import PolicySpec
from rounds.loop.policy import Situation, decide

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
POLICY = PolicySpec()


def finding(kind: str, alarm: bool, harm: str = "unknown") -> Finding:
    return Finding(kind, kind, alarm, 500, NOW, 0.01, 20.0, 16.0, (Moved("exposure", 1.5),), harm)


CLEAN = (finding("drift", False), finding("decay", False))
DRIFT = (finding("drift", True), finding("decay", False))
HARMLESS = (finding("drift", True), finding("decay", False, "no"))
HARM = (finding("drift", True), finding("decay", True, "yes"))
ESTIMATED = (finding("drift", False), finding("decay", False), finding("decay_estimated", False, "yes"))
LABELLED = Situation(labels=150, accuracy=0.8)
CURED_ONCE = replace(LABELLED, tried=frozenset({Act.RECALIBRATE}), unseen=900)


@pytest.mark.parametrize(
    ("findings", "situation", "act"),
    [
        (CLEAN, LABELLED, Act.HOLD),
        (DRIFT, LABELLED, Act.ASK_LABELS),
        (HARMLESS, LABELLED, Act.HOLD),
        (ESTIMATED, LABELLED, Act.HOLD),
        (HARM, replace(LABELLED, labels=119), Act.ASK_LABELS),
        (HARM, LABELLED, Act.RECALIBRATE),
        (HARM, CURED_ONCE, Act.RETRAIN),
        (HARM, replace(CURED_ONCE, unseen=199), Act.ASK_LABELS),
        (HARM, replace(CURED_ONCE, lacking=40), Act.ASK_LABELS),
        (CLEAN, replace(CURED_ONCE, lacking=0), Act.PROMOTE),
        (HARM, replace(CURED_ONCE, retrains=(NOW - timedelta(hours=23),)), Act.HOLD),
        (HARM, replace(CURED_ONCE, retrains=(NOW - timedelta(hours=25),)), Act.RETRAIN),
        (HARM, replace(CURED_ONCE, retrains=tuple(NOW - timedelta(days=d) for d in (2, 4, 6, 8))), Act.HOLD),
        (HARM, replace(CURED_ONCE, retrains=tuple(NOW - timedelta(days=d) for d in (2, 4, 6, 31))), Act.RETRAIN),
        (HARM, replace(CURED_ONCE, retrains=(NOW - timedelta(days=40),)), Act.RETRAIN),
        (HARM, replace(CURED_ONCE, provisional=True, predecessor_accuracy=0.85), Act.ROLL_BACK),
        (HARM, replace(CURED_ONCE, provisional=True, predecessor_accuracy=0.7), Act.RETRAIN),
    ],
)
def test_each_finding_leads_to_the_cheapest_act_that_is_allowed(
    findings: tuple[Finding, ...], situation: Situation, act: Act
) -> None:
    assert decide(findings, situation, POLICY, NOW).act is act


def test_quiet_time_longer_than_the_period_of_the_budget_is_kept_too() -> None:
    policy = replace(POLICY, cooldown_s=60 * 86_400.0)
    begun = (NOW - timedelta(days=40),)
    decision = decide(HARM, replace(CURED_ONCE, retrains=begun), policy, NOW)
    assert (decision.act, decision.why) == (Act.HOLD, "harm, but the last retrain is less than 5.184e+06 s ago")


def test_a_decision_names_its_evidence_and_says_why() -> None:
    decision = decide(DRIFT, LABELLED, POLICY, NOW)
    assert decision.evidence == {"findings": ["drift"]}
    assert decision.why == "exposure drifted; whether it harms is unknown with 150 audited labels"
