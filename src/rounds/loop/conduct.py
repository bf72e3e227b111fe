"""The watch over a deployment: fold in what came, decide, act; it needs neither torch nor a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from rounds.capture import journal
from rounds.core.ports import Ports
from rounds.core.records import Act, Bundle, Captured, Decision, Finding, Label, ModelVersion
from rounds.loop import curing, gating, labelling, measuring, ruling, sightings
from rounds.loop.policy import Situation, decide
from rounds.loop.turns import turn
from rounds.monitor.decay import estimate, judge_risk, risk_bounds
from rounds.monitor.watch import watch
from rounds.registry.catalogue import Catalogue
from rounds.registry.gate import labels_for_fresh
from rounds.runtime import bundle as bundles
from rounds.runtime.bundle import Reference

Retrain = Callable[[str, Sequence[str]], str]


@dataclass(frozen=True)
class Observation:
    """What the champion's films and labels say so far; `rows` are its answers in order, `since` the place of the
    change."""

    champion: ModelVersion
    bundle: Bundle
    reference: Reference
    watching_since: datetime
    findings: tuple[Finding, ...]
    rows: tuple[Captured, ...]
    labels: Mapping[str, Label]

    @property
    def changed(self) -> tuple[Captured, ...]:
        """Answers since the estimated change, or all where none was found."""
        since = next((f.since for f in self.findings if f.kind == "drift" and f.alarm and f.since), 0)
        return self.rows[since:]

    def public(self) -> dict[str, Any]:
        findings = [finding.public() for finding in self.findings]
        return {"watching_since": self.watching_since, "n": len(self.rows), "findings": findings}


def observe(ports: Ports) -> Observation | None:
    """Fold what was captured since the last look into the evidence, and enter a new alarm in the log; None without a
    champion.

    The evidence is a function of the captured stream in its total order: whoever looks, and however often, finds the
    same.
    """
    catalogue, rules = Catalogue.of(ports.events.read()), ruling.in_force(ports).monitor
    champion = catalogue.champion
    if champion is None:
        return None
    journal.settle(ports)
    bundle = bundles.read(ports.home / catalogue.bundle(champion.bundle).path)
    reference = bundles.reference(bundle)
    key, now = f"watch/{bundle.digest}", ports.clock()
    # the state before the rows: so they hold every film that another process may have folded into it
    seen, state = ports.snapshots.load(key) or (0, None)
    rows = tuple(ports.captures.since(0, gating.EVERY, bundle.digest))
    watched = watch(rows, state, bundle=bundle, reference=reference, spec=rules, now=now)
    if watched.state != state:
        # where another process was first, its state folded in the same films in the same order
        ports.snapshots.save(key, seen, watched.state)
    labels = ports.captures.labels([row.prediction for row in rows if row.audited])
    bounds = risk_bounds(bundle, reference, rules)
    drift = next(finding for finding in watched.findings if finding.kind == "drift")
    decay = judge_risk(rows, labels, bundle=bundle, bounds=bounds, spec=rules, now=now, drift=drift)
    findings = (*watched.findings, decay, estimate(rows, bundle=bundle, reference=reference, spec=rules, now=now))
    _sound(ports, findings, champion)
    sightings.note(ports, bundle.digest, findings, len(rows))
    return Observation(champion, bundle, reference, champion.at, findings, rows, labels)


def watch_once(ports: Ports, *, retrain: Retrain | None = None) -> dict[str, Any]:
    """Look, decide by the policy in force, and act; the public answer of `rounds watch --once`.

    `retrain` trains on a data set (by digest) with overrides, in a process of its own, and returns the bundle's digest.
    Where another process is deciding already, this one looks and holds.
    """
    with turn(ports.home, "watch", wait=False) as mine:
        observed = observe(ports)
        if observed is None:
            done = Decision(Act.HOLD, "no champion serves yet")
        elif mine:
            policy = ruling.in_force(ports).policy
            decision = decide(observed.findings, _situation(ports, observed), policy, ports.clock())
            done = _act(ports, observed, decision, retrain)
        else:
            done = Decision(Act.HOLD, "another watch of this workspace is deciding")
    before, after = observed.champion if observed else None, Catalogue.of(ports.events.read()).champion
    findings = [finding.public() for finding in observed.findings] if observed else []
    answer: dict[str, Any] = {"decision": done.act, "why": done.why, "findings": findings}
    answer |= {"champion_before": before.version if before else None}
    return answer | {"champion_after": after.version if after else None, "evidence": dict(done.evidence)}


def _sound(ports: Ports, findings: Sequence[Finding], champion: ModelVersion) -> None:
    alarms = [finding for finding in findings if finding.alarm]
    if not alarms:
        return
    with turn(ports.home, "alarm"):
        known = {event.evidence.get("finding") for event in ports.events.read(kinds=("alarm",))}
        for finding in alarms:
            if finding.id not in known:
                evidence = {"finding": finding.id, "version": champion.version, **finding.public()}
                ports.events.append("alarm", who=f"watch: {finding.kind}", why=finding.why, evidence=evidence)


def _situation(ports: Ports, observed: Observation) -> Situation:
    """What the policy must know; what only a cure asks for, and takes time to find, is left out where nothing harms."""
    catalogue = Catalogue.of(ports.events.read())
    harm = any(finding.kind == "decay" and finding.harm == "yes" for finding in observed.findings)
    rows = curing.audited_firsts(observed.changed, observed.labels)
    right = [observed.labels[row.prediction].label == row.label for row in rows]
    waiting = _waiting(ports, catalogue)
    return Situation(
        labels=len(rows),
        accuracy=float(np.mean(right)) if right else None,
        predecessor_accuracy=_predecessor(ports, catalogue, observed, rows) if harm else None,
        unseen=curing.untrained(ports, observed.bundle) if harm else 0,
        tried=_tried(ports, observed.bundle),
        retrains=tuple(event.at for event in ports.events.read(kinds=("retraining",))),
        provisional=observed.champion.provisional,
        lacking=waiting[1] if waiting else None,
    )


def _tried(ports: Ports, bundle: Bundle) -> frozenset[Act]:
    """Whether the bundle is a recalibrated one, or one was made of it and decided about."""
    made = [event.evidence for event in ports.events.read(kinds=("recalibrated",))]
    known = curing.settled(ports) & {evidence["bundle"] for evidence in made if evidence["parent"] == bundle.digest}
    return frozenset({Act.RECALIBRATE} if known or bundle.variant == "recalibrated" else ())


def _predecessor(ports: Ports, catalogue: Catalogue, observed: Observation, rows: Sequence[Captured]) -> float | None:
    before = catalogue.previous()
    if not observed.champion.provisional or before is None or not rows:
        return None
    bundle = bundles.read(ports.home / catalogue.bundle(before.bundle).path)
    found = measuring.on_captured(ports, bundle, rows, observed.labels)
    return float(np.mean(found.label == found.y))


def _waiting(ports: Ports, catalogue: Catalogue) -> tuple[str, int] | None:
    """The retrained bundle about which nothing is decided yet, and how many fresh audited labels it still lacks."""
    known = curing.settled(ports)
    made = [event.evidence["bundle"] for event in ports.events.read(kinds=("retrained",))]
    left = [bundle for bundle in made if bundle not in known]
    if not left:
        return None
    fresh = gating.fresh_rows(ports, catalogue.bundle(left[-1]))
    labels = ports.captures.labels([row.prediction for row in fresh])
    needed = labels_for_fresh(ruling.in_force(ports).gate, catalogue.candidates + 1)
    return left[-1], max(0, needed - len(curing.audited_firsts(fresh, labels)))


def _act(ports: Ports, observed: Observation, decision: Decision, retrain: Retrain | None) -> Decision:
    if decision.act is Act.ASK_LABELS:
        return _ask(ports, decision)
    if decision.act is Act.RECALIBRATE:
        rows = curing.audited_firsts(observed.changed, observed.labels)
        return curing.recalibrate(ports, observed.bundle, observed.reference, rows, observed.labels, decision)
    if decision.act is Act.RETRAIN:
        return curing.retrain(ports, observed.bundle, observed.changed, decision, retrain)
    if decision.act is Act.PROMOTE:
        waiting = _waiting(ports, Catalogue.of(ports.events.read()))
        return curing.settle(ports, waiting[0], decision) if waiting else decision
    if decision.act is Act.ROLL_BACK:
        gating.roll_back(ports, why=decision.why, who="policy")
    return decision


def _ask(ports: Ports, decision: Decision) -> Decision:
    asked = [event.evidence.get("findings") for event in ports.events.read(kinds=("labels_asked",))]
    queue = labelling.audit_queue(ports)
    evidence = {**decision.evidence, "waiting": len(queue)}
    if decision.evidence.get("findings") not in asked:
        ports.events.append("labels_asked", who="policy", why=decision.why, evidence=evidence)
    return Decision(decision.act, decision.why, evidence)
