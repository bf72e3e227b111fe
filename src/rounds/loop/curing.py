"""The cures for a model that does harm, cheapest first: refit its outputs, or train again on what was learned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rounds.capture.capture import pseudonym
from rounds.core.errors import GateRefused
from rounds.core.ids import digest, hash01
from rounds.core.ports import Ports
from rounds.core.records import Act, Bundle, Captured, DatasetVersion, Decision, Label
from rounds.core.specs import PolicySpec
from rounds.costs.meter import metered
from rounds.data.assemble import assemble
from rounds.evaluate.recalibrate import recalibrate as refit
from rounds.imaging.packed import Film, Films
from rounds.loop import gating, intake, measuring, ruling
from rounds.runtime.bundle import Reference
from rounds.runtime.predictor import Predictor
from rounds.runtime.scores import scores
from rounds.runtime.verdict import decide

# fewer fresh subjects than this cannot make a reference of their own
MIN_RENEWED = 250


def audited_firsts(rows: Sequence[Captured], labels: Mapping[str, Label]) -> list[Captured]:
    """Audited, labelled films in prediction order, the first of each subject."""
    found: dict[str, Captured] = {}
    for row in rows:
        if row.audited and row.prediction in labels:
            found.setdefault(row.subject or row.image, row)
    return list(found.values())


def reference_accuracy(bundle: Bundle, reference: Reference) -> float:
    """The share of the bundle's reference films that it answers rightly."""
    label, _ = decide(bundle.calibration, reference.logits)
    return float(np.mean(label == reference.label))


def recalibrate(
    ports: Ports,
    bundle: Bundle,
    reference: Reference,
    rows: Sequence[Captured],
    labels: Mapping[str, Label],
    decision: Decision,
) -> Decision:
    """Refit temperature and bias on the first labels, prove it on the rest, and put it in service provisionally.

    The proof films, which the fit has not seen, become the new reference: after a cure nothing is compared with the
    old.
    Returns what became of it: RECALIBRATE in service, or REFUSE with the gate's reasons.
    """
    policy = ruling.in_force(ports).policy
    cut = max(policy.labels_to_recalibrate, len(rows) - 4 * policy.labels_to_prove)
    fit, proof = rows[:cut], rows[cut:]
    y, seen = measuring.truth(bundle, fit, labels), measuring.logits_of(ports, bundle, fit)
    new = _reference(ports, bundle, proof, labels)
    with metered(ports.ledger, ports.clock, "recalibrate", bundle.digest):
        cured = refit(bundle, seen, y, folder=ports.bundles, reference=new)
    evidence: dict[str, Any] = {
        "bundle": cured.digest,
        "path": str(cured.path.relative_to(ports.home)),
        "run": bundle.parents.run,
    }
    evidence |= {"data": bundle.parents.data, "parent": bundle.digest, "fit": len(fit), "proof": len(proof)}
    ports.events.append("recalibrated", who="policy", why=decision.why, evidence=evidence)
    judged = gating.judge(ports, cured, fresh=proof, who="policy")
    accuracy = reference_accuracy(cured, new)
    floor = reference_accuracy(bundle, reference) - policy.accuracy_floor_drop
    evidence |= {"accuracy": accuracy, "floor": floor, "gate": judged.event}
    if not judged.report.passed or accuracy < floor:
        why = f"recalibrated, accuracy {accuracy:.3f} where {floor:.3f} is the floor: {_reasons(judged)}"
        return Decision(Act.REFUSE, why, evidence)
    gating.install(ports, judged, why=f"recalibrated on {len(fit)} labels", who="policy", provisional=True)
    return Decision(
        Act.RECALIBRATE, f"{decision.why}; provisional, accuracy {accuracy:.3f} on {len(proof)} fresh labels", evidence
    )


def retrain(
    ports: Ports,
    bundle: Bundle,
    changed: Sequence[Captured],
    decision: Decision,
    train: Callable[[str, Sequence[str]], str] | None,
) -> Decision:
    """Train again on the old films and the newly labelled ones; the new bundle waits for a fresh window before the
    gate."""
    if train is None:
        return Decision(Act.HOLD, f"{decision.why}; nothing here can train", decision.evidence)
    policy: PolicySpec = ruling.in_force(ports).policy
    dataset = collect(ports, bundle, changed)
    with metered(ports.ledger, ports.clock, "retrain", dataset.digest):
        made = train(dataset.digest, policy.retrain_overrides)
    evidence = {"bundle": made, "parent": bundle.digest, "data": dataset.digest}
    ports.events.append("retrained", who="policy", why=decision.why, evidence=evidence)
    return Decision(
        Act.RETRAIN, f"{decision.why}; {made[:12]} waits for fresh films", {**decision.evidence, **evidence}
    )


def settle(ports: Ports, bundle: str, decision: Decision) -> Decision:
    """Let the gate judge a candidate whose fresh window is full: PROMOTE, or REFUSE with its reasons."""
    try:
        done = gating.promote(ports, bundle, who="policy")
    except GateRefused as refused:
        return Decision(Act.REFUSE, refused.message, {**decision.evidence, "bundle": bundle})
    return Decision(Act.PROMOTE, f"{done['version']} passed the gate", {**decision.evidence, "bundle": bundle})


def collect(ports: Ports, bundle: Bundle, changed: Sequence[Captured], name: str | None = None) -> DatasetVersion:
    """The bundle's data set with every labelled, captured film added to it; the frozen test split stays as it is.

    Of the films since the change, by subject, two in five become the new calibration split and one in ten joins val, so
    that the reference of what is trained on it is of the present; the old calibration films join train.
    """
    base = intake.find(ports, bundle.parents.data)
    labels, recent = ports.captures.labels(), {row.prediction for row in changed}
    rows = [row for row in ports.captures.since(0, 10_000_000) if row.prediction in labels]
    films = _films(ports, base, rows, labels, recent)
    dataset = assemble(
        name or base.name,
        films,
        base.classes,
        folder=ports.datasets,
        subjects_known=base.subjects_known,
        notes=(f"{base.digest} and {len(rows)} films labelled in service",),
    )
    intake.enter(ports, dataset, why=f"{len(rows)} films labelled in service added to {base.digest[:12]}", who="policy")
    return dataset


def _films(
    ports: Ports, base: DatasetVersion, rows: Sequence[Captured], labels: Mapping[str, Label], recent: set[str]
) -> Iterator[Film]:
    old, known, sealed = Films(base.path), set[str](), set[str]()
    renewed = len({row.subject or row.image for row in rows if row.prediction in recent}) >= MIN_RENEWED
    for i in range(len(old)):
        film = old.film(i)
        known.add(digest(film.data))
        if film.split == "test":
            sealed.add(pseudonym(ports.secret, film.subject))
        yield replace(film, split="train") if film.split == "calibration" and renewed else film
    for row in rows:
        subject = row.subject or row.image
        if row.image in known or subject in sealed:
            continue
        known.add(row.image)
        split = _split(subject) if renewed and row.prediction in recent else "train"
        name = f"captured/{row.prediction}"
        yield Film(ports.blobs.get(row.image), labels[row.prediction].label, subject, split, name)


def _split(subject: str) -> str:
    place = hash01("collect", subject)
    return "calibration" if place < 0.4 else "val" if place < 0.5 else "train"


def _reference(ports: Ports, bundle: Bundle, rows: Sequence[Captured], labels: Mapping[str, Label]) -> Reference:
    predictor, found, films = Predictor(bundle), [], []
    for start in range(0, len(rows), measuring.BATCH):
        pixels = measuring.pixels_of(ports, bundle, rows[start : start + measuring.BATCH])
        found.append(predictor.answer(pixels))
        films.append(scores(bundle, pixels, found[-1]))
    return Reference(
        label=measuring.truth(bundle, rows, labels),
        logits=np.concatenate([outputs.logits for outputs in found]),
        embedding=np.concatenate([outputs.embedding for outputs in found]),
        scores=np.concatenate(films),
        subjects=[row.subject or row.image for row in rows],
        images=[row.image for row in rows],
    )


def _reasons(judged: gating.Judged) -> str:
    return (
        "; ".join(check.note or check.name for check in judged.report.checks if not check.passed) or "passed the gate"
    )
