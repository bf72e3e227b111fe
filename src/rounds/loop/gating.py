"""Through the gate into service, and back: every champion is an event that names the gate record it rests on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rounds.core.errors import Fault, GateRefused, LeakFound
from rounds.core.ids import plain
from rounds.core.ports import Ports
from rounds.core.records import Bundle, Captured, DatasetVersion, GateReport, ModelVersion
from rounds.core.specs import GateSpec
from rounds.imaging.packed import Films
from rounds.loop import intake, measuring, ruling
from rounds.registry import versions
from rounds.registry.catalogue import Catalogue
from rounds.registry.gate import Evidence, gate, labels_for_fresh
from rounds.runtime import bundle as bundles

FROZEN = "test"


@dataclass(frozen=True)
class Judged:
    """A gate record as it was stored, and the bundle's version number."""

    report: GateReport
    event: str
    version: ModelVersion
    champion: ModelVersion | None


def register(ports: Ports, ref: str, who: str = "operator") -> dict[str, Any]:
    """Give a bundle a version number; the same bundle keeps its number."""
    bundle = measuring.open_bundle(ports, ref)
    version = versions.register(ports.events, bundle, why=f"{bundle.variant} bundle", who=who)
    return {"version": version.version, "bundle": bundle.digest}


def promote(
    ports: Ports, ref: str, *, data: str | None = None, overrule: str | None = None, who: str = "operator"
) -> dict[str, Any]:
    """Ask the gate, and put the bundle in service when it passes; GateRefused when it does not, unless overruled.

    An overruled refusal is a person's act: the log keeps the reason, and the version is marked uncontrolled.
    """
    begun = time.perf_counter()
    judged = judge(ports, measuring.open_bundle(ports, ref), data=data, who=who)
    if not judged.report.passed and not overrule:
        raise refusal(judged, time.perf_counter() - begun)
    install(ports, judged, why=overrule or "passed the gate", who=who, overruled=overrule)
    return _answer(judged, time.perf_counter() - begun)


def judge(
    ports: Ports,
    bundle: Bundle,
    *,
    data: str | None = None,
    fresh: Sequence[Captured] | None = None,
    who: str = "gate",
) -> Judged:
    """Run the gate on a bundle against the champion and store its record.

    The frozen test set is the one of the last gate record, or `data`, or that of the bundle's own data set. `fresh` are
    audited films that the bundle's makers have not seen; by default those that were predicted after it was packed.
    """
    version = versions.register(ports.events, bundle, why=f"{bundle.variant} bundle", who=who)
    catalogue, rules = Catalogue.of(ports.events.read()), ruling.in_force(ports).gate
    frozen = intake.find(ports, data or catalogue.frozen or bundle.parents.data)
    _unseen(ports, bundle, frozen)
    report = _run(ports, catalogue, bundle, frozen, fresh, rules)
    why = "passed" if report.passed else "; ".join(f"{c.name}: {c.note}" for c in report.checks if not c.passed)
    event = versions.record_gate(ports.events, report, frozen=frozen.digest, why=why, who=who)
    return Judged(report, event.id, version, catalogue.champion)


def install(
    ports: Ports, judged: Judged, *, why: str, who: str, overruled: str | None = None, provisional: bool = False
) -> None:
    """Append the event that makes a judged bundle the champion; the servers follow the log."""
    versions.promote(
        ports.events,
        judged.version,
        gate=judged.event,
        why=why,
        who=who,
        overruled=overruled,
        provisional=provisional,
    )


def roll_back(ports: Ports, *, to: str | None = None, why: str, who: str = "operator") -> dict[str, Any]:
    """Put the version that served before, or an older one that once passed the gate, back in service."""
    begun = time.perf_counter()
    before = Catalogue.of(ports.events.read()).champion
    event = versions.roll_back(ports.events, to=to, why=why, who=who)
    after = event.evidence["version"]
    took = time.perf_counter() - begun
    answer = {"version": after, "from": before.version if before else None, "to": after, "passed": True}
    return answer | {"checks": [], "seconds": took}


def refusal(judged: Judged, seconds: float) -> GateRefused:
    """The error that carries every reason of a refusal."""
    faults = [
        Fault(check.name, judged.version.version, _number(check.limit), _number(check.value), check.note)
        for check in judged.report.checks
        if not check.passed
    ]
    message = f"{judged.version.version} may not serve: {', '.join(fault.what for fault in faults)}"
    return GateRefused(message, faults, report=_answer(judged, seconds))


def _run(
    ports: Ports,
    catalogue: Catalogue,
    bundle: Bundle,
    frozen: DatasetVersion,
    fresh: Sequence[Captured] | None,
    rules: GateSpec,
) -> GateReport:
    champion, against = catalogue.champion, None
    candidate, ms = measuring.on_split(bundle, frozen, FROZEN)
    if champion is None:
        return gate(candidate, None, rules, bundle=bundle.digest, against=None, j=1, promoted=0)
    against = bundles.read(ports.home / catalogue.bundle(champion.bundle).path)
    present, present_ms = measuring.on_split(against, frozen, FROZEN)
    j, promoted = catalogue.candidates + 1, catalogue.promotions
    window = _window(ports, catalogue, bundle, against, fresh, labels_for_fresh(rules, j))
    return gate(
        candidate,
        present,
        rules,
        bundle=bundle.digest,
        against=against.digest,
        j=j,
        promoted=promoted,
        fresh=window,
        latency=(ms, present_ms),
    )


def _window(
    ports: Ports, catalogue: Catalogue, bundle: Bundle, against: Bundle, fresh: Sequence[Captured] | None, needed: int
) -> tuple[Evidence, Evidence] | None:
    """Both bundles on audited films that the candidate's makers have not seen; None where they are too few.

    Whether the window is used is settled by its size alone, before any outcome is looked at.
    """
    fresh = fresh_rows(ports, catalogue.bundle(bundle.digest).at) if fresh is None else fresh
    labels = ports.captures.labels([row.prediction for row in fresh])
    rows = [row for row in fresh if row.prediction in labels]
    if len({row.subject or row.image for row in rows}) < needed:
        return None
    return measuring.on_captured(ports, bundle, rows, labels), measuring.on_captured(ports, against, rows, labels)


def fresh_rows(ports: Ports, after: datetime) -> list[Captured]:
    """Audited films that were predicted after a candidate was frozen."""
    return [row for row in ports.captures.since(0, 10_000_000) if row.audited and row.at > after]


def _unseen(ports: Ports, bundle: Bundle, frozen: DatasetVersion) -> None:
    """Refuse to judge a bundle on films, or subjects, that it was made from."""
    if bundle.parents.data == frozen.digest:
        return
    made_from = Films(intake.find(ports, bundle.parents.data).path)
    sealed = Films(frozen.path).rows(FROZEN)
    test = dict(zip(sealed.digests, sealed.names, strict=True))
    leaks = []
    for split in ("train", "val", "calibration"):
        rows = made_from.rows(split)
        leaks += [(name, test[image]) for image, name in zip(rows.digests, rows.names, strict=True) if image in test]
    if leaks:
        faults = [
            Fault("a film of the frozen test set was used to make the bundle", a, "unseen films", b) for a, b in leaks
        ]
        raise LeakFound(f"{len(leaks)} films of the frozen test set are in the bundle's data", faults[:20], leaks=leaks)


def _answer(judged: Judged, seconds: float) -> dict[str, Any]:
    before = judged.champion.version if judged.champion else None
    answer: dict[str, Any] = {"version": judged.version.version, "from": before, "to": judged.version.version}
    answer |= {"passed": judged.report.passed, "checks": plain(judged.report.checks), "seconds": seconds}
    report = judged.report
    return answer | {
        "bundle": report.bundle,
        "candidate": report.candidate,
        "alpha": report.alpha,
        "power": report.power,
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
