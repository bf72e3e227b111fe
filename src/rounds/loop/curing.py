"""The cures for a model that does harm, cheapest first: refit its outputs, or train again on what was learned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from rounds.capture.capture import pseudonym
from rounds.core.errors import Refused, WorldFault
from rounds.core.ids import hash01
from rounds.core.ports import Ports
from rounds.core.records import Act, Bundle, Captured, DatasetVersion, Decision, Label
from rounds.core.specs import PolicySpec
from rounds.costs.meter import metered
from rounds.data import looks
from rounds.data.assemble import assemble
from rounds.evaluate.recalibrate import recalibrate as refit
from rounds.imaging.packed import Film, Films
from rounds.loop import gating, intake, measuring, ruling
from rounds.registry.catalogue import Catalogue
from rounds.runtime.bundle import Reference
from rounds.runtime.predictor import Predictor
from rounds.runtime.scores import scores
from rounds.runtime.verdict import decide

# fewer fresh subjects than this cannot make a reference of their own
MIN_RENEWED = 250


def audited_firsts(rows: Sequence[Captured], labels: Mapping[str, Label]) -> list[Captured]:
    """Audited, labelled films whose image is still kept, in prediction order, the first of each subject."""
    found: dict[str, Captured] = {}
    for row in rows:
        if row.audited and row.prediction in labels and not row.gone:
            found.setdefault(measuring.subject(row), row)
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

    `rows` are the bundle's own audited answers, one a subject, in prediction order. The proof films, which the fit has
    not seen, become the new reference: after a cure nothing is compared with the old. They are not called proven: their
    labels helped to raise the alarm, which favours any change a little, so what serves is provisional.
    Returns what became of it: RECALIBRATE in service, ASK_LABELS where too few are left for the proof, or REFUSE with
    the gate's reasons, which the log keeps.
    """
    policy = ruling.in_force(ports).policy
    cut = max(policy.labels_to_recalibrate, len(rows) - 4 * policy.labels_to_prove)
    fit, proof = rows[:cut], gating.unseen_rows(ports, bundle.parents.data, rows[cut:])
    if len(proof) < policy.labels_to_prove:
        why = f"{decision.why}; {len(proof)} labels for the proof where it needs {policy.labels_to_prove}"
        return Decision(Act.ASK_LABELS, why, decision.evidence)
    y, seen = measuring.truth(bundle, fit, labels), np.array([row.logits for row in fit], np.float32)
    new = _reference(ports, bundle, proof, labels)
    with metered(ports.ledger, ports.clock, "recalibrate", bundle.digest):
        cured = refit(bundle, seen, y, folder=ports.bundles, reference=new)
    evidence: dict[str, Any] = {"bundle": cured.digest, "path": str(cured.path.relative_to(ports.home))}
    evidence |= {"run": bundle.parents.run, "data": bundle.parents.data, "parent": bundle.digest}
    evidence |= {"fit": len(fit), "proof": len(proof)}
    ports.events.append("recalibrated", who="policy", why=decision.why, evidence=evidence)
    accuracy = reference_accuracy(cured, new)
    floor = reference_accuracy(bundle, reference) - policy.accuracy_floor_drop
    evidence |= {"accuracy": accuracy, "floor": floor}
    try:
        judged = gating.judge(ports, cured, fresh=proof, who="policy")
        if not judged.report.passed or accuracy < floor:
            why = f"recalibrated, accuracy {accuracy:.3f} where {floor:.3f} is the floor: {_reasons(judged)}"
            return _refuse(ports, why, evidence | {"gate": judged.event})
        gating.install(ports, judged, why=f"recalibrated on {len(fit)} labels", who="policy", provisional=True)
    except Refused as refused:
        return _refuse(ports, refused.message, evidence)
    why = f"{decision.why}; provisional, accuracy {accuracy:.3f} on {len(proof)} fresh labels"
    return Decision(Act.RECALIBRATE, why, evidence | {"gate": judged.event})


def retrain(
    ports: Ports,
    bundle: Bundle,
    changed: Sequence[Captured],
    decision: Decision,
    train: Callable[[str, Sequence[str]], str] | None,
) -> Decision:
    """Train again on the old films and the newly labelled ones; the new bundle waits for a fresh window before the
    gate.

    The attempt is in the log before it begins: one that fails, or is killed, costs its share of budget and quiet time.
    """
    if train is None:
        return Decision(Act.HOLD, f"{decision.why}; nothing here can train", decision.evidence)
    policy: PolicySpec = ruling.in_force(ports).policy
    dataset = collect(ports, bundle, changed)
    begun = {"parent": bundle.digest, "data": dataset.digest}
    ports.events.append("retraining", who="policy", why=decision.why, evidence=begun)
    try:
        with metered(ports.ledger, ports.clock, "retrain", dataset.digest):
            made = train(dataset.digest, policy.retrain_overrides)
    except WorldFault as fault:
        ports.events.append("retrain_failed", who="policy", why=str(fault), evidence=begun)
        return Decision(Act.HOLD, f"{decision.why}; {fault.message}", {**decision.evidence, **begun})
    evidence = {"bundle": made, **begun}
    ports.events.append("retrained", who="policy", why=decision.why, evidence=evidence)
    return Decision(
        Act.RETRAIN, f"{decision.why}; {made[:12]} waits for fresh films", {**decision.evidence, **evidence}
    )


def settle(ports: Ports, bundle: str, decision: Decision) -> Decision:
    """Let the gate judge a candidate whose fresh window is full: PROMOTE, or REFUSE with its reasons."""
    try:
        done = gating.promote(ports, bundle, who="policy")
    except Refused as refused:
        return _refuse(ports, refused.message, {**decision.evidence, "bundle": bundle})
    return Decision(Act.PROMOTE, f"{done['version']} passed the gate", {**decision.evidence, "bundle": bundle})


def settled(ports: Ports) -> set[str]:
    """Bundles about which everything is decided: in service once, or refused."""
    events = ports.events.read(kinds=("gated", "promoted", "refused"))
    return {event.evidence["bundle"] for event in events if event.kind != "gated" or not event.evidence["passed"]}


def untrained(ports: Ports, bundle: Bundle) -> int:
    """How many films were labelled in service since this bundle, or the last retrain that it led to, learned from
    them."""
    made = [event.evidence for event in ports.events.read(kinds=("retrained",))]
    held = [evidence["data"] for evidence in made if evidence["parent"] == bundle.digest]
    return len(_learnable(ports, intake.find(ports, held[-1] if held else bundle.parents.data)))


def collect(ports: Ports, bundle: Bundle, changed: Sequence[Captured], name: str | None = None) -> DatasetVersion:
    """The bundle's data set with every labelled, captured film added to it; the frozen test split stays as it is.

    Of the films since the change, by subject, two in five become the new calibration split and one in ten joins val, so
    that the reference of what is trained on it is of the present; the old calibration films join train. A subject that
    has a film in a split keeps to it.
    """
    base = intake.find(ports, bundle.parents.data)
    rows = _learnable(ports, base)
    # one picture in two splits would be a leak, on which nothing is trained
    rows = [rows[place] for place in looks.unseen(base, [partial(ports.blobs.get, row.image) for row in rows])]
    films = _films(ports, base, rows, {row.prediction for row in changed})
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


def _learnable(ports: Ports, base: DatasetVersion) -> list[Captured]:
    """Labelled films, each image once, that a data set does not hold and no frozen test set keeps for itself."""
    labels, frozen = ports.captures.labels(), Catalogue.of(ports.events.read()).frozen
    taken = set(Films(base.path).rows().digests)
    sealed = set[str]()
    for guard in (base, *([intake.find(ports, frozen)] if frozen else [])):
        test = Films(guard.path).rows("test")
        taken.update(test.digests)
        sealed.update(pseudonym(ports.secret, subject) for subject in test.subjects)
    found: dict[str, Captured] = {}
    for row in ports.captures.since(0, gating.EVERY):
        if row.prediction in labels and not row.gone and row.image not in taken and row.subject not in sealed:
            found.setdefault(row.image, row)
    return list(found.values())


def _films(ports: Ports, base: DatasetVersion, rows: Sequence[Captured], recent: set[str]) -> Iterator[Film]:
    old, placed, labels = Films(base.path), dict[str, str](), ports.captures.labels()
    held = old.rows().subjects
    known = {*held, *(pseudonym(ports.secret, subject) for subject in held)}
    new = {measuring.subject(row) for row in rows if row.prediction in recent}
    renewed = len(new - known) >= MIN_RENEWED
    for film in old:
        split = "train" if film.split == "calibration" and renewed else film.split
        placed |= {film.subject: split, pseudonym(ports.secret, film.subject): split}
        yield replace(film, split=split)
    for row in rows:
        subject = measuring.subject(row)
        split = placed.setdefault(subject, _split(subject) if renewed and row.prediction in recent else "train")
        label = labels[row.prediction].label
        yield Film(ports.blobs.get(row.image), label, subject, split, f"captured/{row.prediction}")


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
        subjects=[measuring.subject(row) for row in rows],
        images=[row.image for row in rows],
    )


def _refuse(ports: Ports, why: str, evidence: Mapping[str, Any]) -> Decision:
    ports.events.append("refused", who="policy", why=why, evidence=evidence)
    return Decision(Act.REFUSE, why, evidence)


def _reasons(judged: gating.Judged) -> str:
    return (
        "; ".join(check.note or check.name for check in judged.report.checks if not check.passed) or "passed the gate"
    )
