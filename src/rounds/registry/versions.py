"""Versions, gate records, promotions and rollbacks, each an appended event; the one place that makes a champion."""

from __future__ import annotations

from rounds.core.errors import Fault, GateRefused, Refused
from rounds.core.ids import plain
from rounds.core.ports import EventLog
from rounds.core.records import Bundle, Event, GateReport, ModelVersion
from rounds.registry.catalogue import CANARY, Catalogue, passed_once


def register(events: EventLog, bundle: Bundle, *, why: str, who: str) -> ModelVersion:
    """Give a bundle the next version number; the same bundle keeps the one it has.

    Where two processes take the same number at once, the log's order says whose it is, and the other takes the next.
    """
    catalogue = Catalogue.of(events.read())
    for version in catalogue.versions:
        if version.bundle == bundle.digest:
            return version
    name = f"v{len(catalogue.versions) + 1}"
    events.append("registered", who=who, why=why, evidence={"version": name, "bundle": bundle.digest})
    return register(events, bundle, why=why, who=who)


def record_gate(events: EventLog, report: GateReport, *, frozen: str, why: str, who: str) -> Event:
    """Store the gate's whole answer; a promotion names this event."""
    evidence = {"bundle": report.bundle, "against": report.against, "passed": report.passed, "frozen": frozen}
    return events.append("gated", who=who, why=why, evidence=evidence | {"report": plain(report)})


def promote(
    events: EventLog,
    version: ModelVersion,
    *,
    gate: str,
    why: str,
    who: str,
    overruled: str | None = None,
    provisional: bool = False,
) -> Event:
    """Make a version champion on the strength of a stored gate record.

    Raises GateRefused where that record is missing, of another bundle, or did not pass and nobody overruled it, and
    where it compares with another champion than the one that serves.
    """
    catalogue = Catalogue.of(events.read())
    record = catalogue.gates.get(gate)
    if record is None or record.bundle != version.bundle or not (record.passed or overruled):
        got = "no record" if record is None else "another bundle's" if record.bundle != version.bundle else "a refusal"
        fault = Fault(
            "no gate stands behind this", version.version, "a passing gate record of this bundle", got, "ask the gate"
        )
        raise GateRefused(f"{version.version} may not serve", [fault])
    before = catalogue.champion
    present = before.bundle if before else None
    if record.against != present and not overruled:
        expected, got = (f"one against {name[:12] if name else 'nobody'}" for name in (present, record.against))
        fault = Fault("another champion serves since", version.version, expected, got, "ask the gate again")
        raise GateRefused(f"{version.version} may not serve on the strength of an older record", [fault])
    evidence: dict[str, object] = {
        "version": version.version,
        "bundle": version.bundle,
        "from": before.version if before else None,
    }
    evidence |= {"gate": gate, "provisional": provisional, "overruled": overruled}
    return events.append("promoted", who=who, why=why, evidence=evidence)


def stage(
    events: EventLog,
    version: ModelVersion,
    stage: str,
    *,
    why: str,
    who: str,
    share: float = 0.0,
    cap: int = 0,
    gate: str | None = None,
    overruled: str | None = None,
) -> Event:
    """Put a version beside the champion (SHADOW, CANARY), or take it away (OFF).

    Raises GateRefused where a canary has no passing gate record and nobody overruled one, Refused where there is no
    champion beside which it could stand, or it is the champion.
    """
    catalogue = Catalogue.of(events.read())
    if catalogue.champion is None or catalogue.champion.bundle == version.bundle:
        got = "no champion" if catalogue.champion is None else "the champion itself"
        fault = Fault("nothing to stand beside", version.version, "another champion", got, "see rounds models")
        raise Refused(f"{version.version} cannot be put beside the champion", [fault])
    record = catalogue.gates.get(gate or "")
    if stage == CANARY and (record is None or record.bundle != version.bundle or not (record.passed or overruled)):
        fault = Fault("no gate stands behind this", version.version, "a passing gate record", "none", "ask the gate")
        raise GateRefused(f"{version.version} may not answer", [fault])
    evidence = {"version": version.version, "bundle": version.bundle, "stage": stage, "share": share, "cap": cap}
    evidence |= {"gate": gate, "overruled": overruled, "against": catalogue.champion.version}
    return events.append("staged", who=who, why=why, evidence=evidence)


def roll_back(events: EventLog, *, to: str | None = None, why: str, who: str) -> Event:
    """Put the version before the champion, or another that once passed the gate, back in service.

    Raises Refused where there is none, or where `to` never passed the gate or serves already.
    """
    catalogue = Catalogue.of(events.read())
    before = catalogue.champion
    target = catalogue.version(to) if to else catalogue.previous()
    allowed = [version.version for version in passed_once(catalogue)]
    if target is None or before is None or target.version == before.version or target.version not in allowed:
        got = (
            "none"
            if target is None
            else f"{target.version}, which {'serves' if target.version in allowed else 'never passed'}"
        )
        fault = Fault(
            "nowhere to go back to",
            to or "",
            "a version before this one that passed the gate",
            got,
            "see rounds models",
        )
        raise Refused("the rollback is refused", [fault])
    passing = [gate.gate for gate in catalogue.gates.values() if gate.bundle == target.bundle and gate.passed]
    evidence: dict[str, object] = {"version": target.version, "bundle": target.bundle, "from": before.version}
    evidence |= {"gate": passing[-1]}
    return events.append("rolled_back", who=who, why=why, evidence=evidence)
