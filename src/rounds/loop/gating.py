"""Through the gate into service, and back: every champion is an event that names the gate record it rests on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rounds.capture.capture import pseudonym
from rounds.core.errors import Fault, GateRefused, LeakFound
from rounds.core.ids import plain
from rounds.core.ports import Ports
from rounds.core.records import Bundle, Captured, DatasetVersion, GateReport, ModelVersion
from rounds.core.specs import GateSpec
from rounds.imaging.packed import Films
from rounds.loop import exchange, intake, measuring, ruling
from rounds.loop.turns import turn
from rounds.registry import versions
from rounds.registry.catalogue import BundleEntry, Catalogue
from rounds.registry.gate import Evidence, gate, labels_for_fresh
from rounds.runtime import bundle as bundles

FROZEN = "test"
LOOKS = 3
EVERY = 10_000_000


@dataclass(frozen=True)
class Judged:
    """A gate record as it was stored, and the bundle's version number."""

    report: GateReport
    event: str
    version: ModelVersion
    champion: ModelVersion | None


def register(ports: Ports, ref: str, who: str = "operator") -> dict[str, Any]:
    """Give a bundle a version number; the same bundle keeps its number."""
    bundle = exchange.take_bundle(ports, measuring.open_bundle(ports, ref), who)
    version = versions.register(ports.events, bundle, why=f"{bundle.variant} bundle", who=who)
    return {"version": version.version, "bundle": bundle.digest}


def promote(
    ports: Ports, ref: str, *, data: str | None = None, overrule: str | None = None, who: str = "operator"
) -> dict[str, Any]:
    """Ask the gate, and put the bundle in service when it passes; GateRefused when it does not, unless overruled.

    An overruled refusal is a person's act: the log keeps the reason, and the version is marked uncontrolled. Raises
    GateRefused, before any level is spent, where the bundle serves already.
    """
    begun, bundle = time.perf_counter(), measuring.open_bundle(ports, ref)
    champion = Catalogue.of(ports.events.read()).champion
    if champion is not None and champion.bundle == bundle.digest:
        fault = Fault("it serves already", champion.version, "another bundle", "the champion", "nothing is to be done")
        still = {"version": champion.version, "from": champion.version, "to": champion.version, "passed": False}
        report = {**still, "checks": [], "seconds": time.perf_counter() - begun}
        raise GateRefused(f"{champion.version} is the champion", [fault], report=report)
    judged = judge(ports, bundle, data=data, who=who)
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

    The frozen test set is `data`, or once there is a champion the one of the last gate record, or that of the
    bundle's own
    data set: before the first champion nothing is sealed. `fresh` are audited films that the bundle's makers have not
    seen; by default those that were predicted after it was packed. One
    candidate is judged at a time, so that no two spend the same level.

    Raises LeakFound where the bundle was made from films or subjects of the frozen test set, GateRefused where its
    classes are not the champion's.
    """
    with turn(ports.home, "gate"):
        bundle = exchange.take_bundle(ports, bundle, who)
        version = versions.register(ports.events, bundle, why=f"{bundle.variant} bundle", who=who)
        catalogue, rules = Catalogue.of(ports.events.read()), ruling.in_force(ports).gate
        sealed = catalogue.frozen if catalogue.champion else None
        frozen = intake.find(ports, data or sealed or bundle.parents.data)
        _sealed_from(ports, bundle, frozen)
        report = _run(ports, catalogue, bundle, frozen, fresh, rules)
        why = "passed" if report.passed else "; ".join(f"{c.name}: {c.note}" for c in report.checks if not c.passed)
        event = versions.record_gate(ports.events, report, frozen=frozen.digest, why=why, who=who)
    return Judged(report, event.id, version, catalogue.champion)


def install(
    ports: Ports, judged: Judged, *, why: str, who: str, overruled: str | None = None, provisional: bool = False
) -> None:
    """Append the event that makes a judged bundle the champion; the servers follow the log.

    Raises GateRefused where another became champion since it was judged.
    """
    with turn(ports.home, "gate"):
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
    with turn(ports.home, "gate"):
        event = versions.roll_back(ports.events, to=to, why=why, who=who)
    after = event.evidence["version"]
    answer = {"version": after, "from": event.evidence["from"], "to": after, "passed": True}
    return answer | {"checks": [], "seconds": time.perf_counter() - begun}


def refusal(judged: Judged, seconds: float) -> GateRefused:
    """The error that carries every reason of a refusal."""
    faults = [
        Fault(check.name, judged.version.version, _number(check.limit), _number(check.value), check.note)
        for check in judged.report.checks
        if not check.passed
    ]
    message = f"{judged.version.version} may not serve: {', '.join(fault.what for fault in faults)}"
    return GateRefused(message, faults, report=_answer(judged, seconds))


def fresh_rows(ports: Ports, candidate: BundleEntry) -> list[Captured]:
    """Audited films that were predicted after a candidate was frozen, and that its makers have not seen earlier."""
    rows = [row for row in ports.captures.since(0, EVERY) if row.audited and not row.gone and row.at > candidate.at]
    return unseen_rows(ports, candidate.data, rows)


def unseen_rows(ports: Ports, data: str, rows: Sequence[Captured]) -> list[Captured]:
    """The captured films that a data set does not hold, nor any other film of their subjects."""
    held = Films(intake.find(ports, data).path).rows()
    images, subjects = set(held.digests), {*held.subjects, *(pseudonym(ports.secret, name) for name in held.subjects)}
    return [row for row in rows if row.image not in images and row.subject not in subjects]


def _run(
    ports: Ports,
    catalogue: Catalogue,
    bundle: Bundle,
    frozen: DatasetVersion,
    fresh: Sequence[Captured] | None,
    rules: GateSpec,
) -> GateReport:
    champion = catalogue.champion
    if champion is None:
        candidate, _ = measuring.on_split(bundle, frozen, FROZEN)
        return gate(candidate, None, rules, bundle=bundle.digest, against=None, j=1, promoted=0)
    against = bundles.read(ports.home / catalogue.bundle(champion.bundle).path)
    _same_classes(bundle, against, champion)
    (candidate, ms), (present, present_ms) = (measuring.on_split(one, frozen, FROZEN) for one in (bundle, against))
    for _ in range(LOOKS):
        # a busy machine slows one of them by chance: only what is slow each time is slow
        if ms > rules.max_latency_ratio * present_ms:
            ms = min(ms, measuring.on_split(bundle, frozen, FROZEN)[1])
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


def _same_classes(bundle: Bundle, against: Bundle, champion: ModelVersion) -> None:
    if bundle.classes != against.classes:
        expected, got = (", ".join(one.classes) for one in (against, bundle))
        then = "train it on data with these classes; another task needs a workspace of its own"
        fault = Fault("other classes than the champion's", bundle.digest[:12], expected, got, then)
        raise GateRefused(f"{bundle.digest[:12]} cannot be compared with {champion.version}", [fault])


def _window(
    ports: Ports, catalogue: Catalogue, bundle: Bundle, against: Bundle, fresh: Sequence[Captured] | None, needed: int
) -> tuple[Evidence, Evidence] | None:
    """Both bundles on audited films that the candidate's makers have not seen; None where they are too few.

    Whether the window is used is settled by its size alone, before any outcome is looked at.
    """
    fresh = fresh_rows(ports, catalogue.bundle(bundle.digest)) if fresh is None else fresh
    drawn = [row for row in fresh if row.audited]
    labels = ports.captures.labels([row.prediction for row in drawn])
    rows = [row for row in drawn if row.prediction in labels]
    if len(set(map(measuring.subject, rows))) < needed:
        return None
    return measuring.on_captured(ports, bundle, rows, labels), measuring.on_captured(ports, against, rows, labels)


def _sealed_from(ports: Ports, bundle: Bundle, frozen: DatasetVersion) -> None:
    """Refuse to judge a bundle on films, or subjects, that it was made from."""
    if bundle.parents.data == frozen.digest:
        return
    made_from = Films(intake.find(ports, bundle.parents.data).path)
    sealed = Films(frozen.path).rows(FROZEN)
    test = dict(zip(sealed.digests, sealed.names, strict=True))
    if frozen.subjects_known and made_from.dataset.subjects_known:
        test |= dict(zip(sealed.subjects, sealed.names, strict=True))
        test |= {pseudonym(ports.secret, subject): test[subject] for subject in sealed.subjects}
    leaks = []
    for split in ("train", "val", "calibration"):
        rows = made_from.rows(split)
        for image, subject, name in zip(rows.digests, rows.subjects, rows.names, strict=True):
            if image in test or subject in test:
                leaks.append((name, test.get(image) or test[subject]))
    if leaks:
        what, then = "a film or subject of the frozen test set made the bundle", "take it out and train again"
        faults = [Fault(what, made, "films of other subjects", tested, then) for made, tested in leaks]
        message = f"{len(leaks)} films of the bundle's data are in the frozen test set, or of its subjects"
        raise LeakFound(message, faults[:20], leaks=leaks)


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
