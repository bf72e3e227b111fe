"""Bundles measured as they are served: on a split of a data set, or on films that were captured live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rounds.core.ids import canonical
from rounds.core.ports import Ports
from rounds.core.records import Bundle, Captured, DatasetVersion, EvalReport, Label
from rounds.costs.meter import metered
from rounds.evaluate import measure
from rounds.evaluate.compare import compare
from rounds.evaluate.measure import score
from rounds.evaluate.mistakes import Mistake, mistakes
from rounds.evaluate.robustness import robustness
from rounds.imaging.fit import to_pixels
from rounds.imaging.packed import ADMITTED
from rounds.loop import intake
from rounds.registry.catalogue import Catalogue
from rounds.registry.gate import Evidence
from rounds.runtime import bundle as bundles
from rounds.runtime.predictor import Predictor
from rounds.runtime.verdict import decide

BATCH = 64


def open_bundle(ports: Ports, ref: str) -> Bundle:
    """The verified bundle of an id, a unique prefix, `latest`, `champion`, a version or a folder; UnknownId,
    DamagedBundle."""
    if Path(ref).is_dir():
        return bundles.read(Path(ref))
    return bundles.read(ports.home / Catalogue.of(ports.events.read()).bundle(ref).path)


class Evaluation(NamedTuple):
    """A bundle, what was measured of it, and the films on which it was surest and wrong."""

    bundle: Bundle
    report: EvalReport
    mistakes: list[Mistake]


def evaluate(
    ports: Ports,
    ref: str,
    data: str,
    split: str | None = None,
    *,
    against: str | None = None,
    cut: Sequence[str] = (),
    harmed: bool = False,
) -> Evaluation:
    """Measure a bundle, unchanged, on one split; the report is kept and tied to the bundle by an event.

    `against` names a bundle to compare it with on the same films, `cut` the attributes to slice by (else all that
    have few values); `harmed` adds the robustness curve.
    """
    bundle, dataset = open_bundle(ports, ref), intake.find(ports, data)
    other = open_bundle(ports, against) if against else None
    with metered(ports.ledger, ports.clock, "evaluate", bundle.digest):
        measured = score(bundle, dataset, split)
        report = measure.report(bundle, dataset, measured, cut=cut)
        more: dict[str, Any] = {}
        if other:
            more["comparison"] = compare(bundle, measured, other, score(other, dataset, measured.split))
        if harmed:
            more["robustness"] = robustness(bundle, dataset, measured)
        report = replace(report, curves={**report.curves, **more})
        wrong = mistakes(bundle, dataset, measured)
    kept = ports.blobs.put(canonical(report))
    evidence = {"bundle": report.bundle, "data": report.data, "split": report.split, "report": kept}
    values = {name: metric.value for name, metric in report.metrics.items()}
    ports.events.append("evaluated", who="evaluate", why=f"on {dataset.name}", evidence=evidence | {"metrics": values})
    return Evaluation(bundle, report, wrong)


def on_split(bundle: Bundle, dataset: DatasetVersion, split: str) -> tuple[Evidence, float]:
    """What the gate needs of a bundle on a split, and the milliseconds that a film took."""
    found = score(bundle, dataset, split)
    return Evidence(found.y, found.label, found.probabilities, tuple(found.subjects), bundle.classes), found.ms


def pixels_of(ports: Ports, bundle: Bundle, rows: Sequence[Captured]) -> npt.NDArray[np.uint8]:
    """Captured films, uint8 (n, c, size, size), decoded as the bundle decodes them."""
    return np.stack([to_pixels(ports.blobs.get(row.image), bundle.imaging, ADMITTED) for row in rows])


def logits_of(ports: Ports, bundle: Bundle, rows: Sequence[Captured]) -> npt.NDArray[np.float32]:
    """The bundle's logits, float32 (n, k), on captured films, decoded as it decodes them."""
    predictor = Predictor(bundle)
    parts = (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))
    found = [predictor.answer(pixels_of(ports, bundle, part)).logits for part in parts]
    return np.concatenate(found) if found else np.zeros((0, len(bundle.classes)), np.float32)


def on_captured(ports: Ports, bundle: Bundle, rows: Sequence[Captured], labels: Mapping[str, Label]) -> Evidence:
    """What the gate needs of a bundle on labelled, captured films; each film without a subject is its own."""
    label, probabilities = decide(bundle.calibration, logits_of(ports, bundle, rows))
    return Evidence(truth(bundle, rows, labels), label, probabilities, tuple(map(subject, rows)), bundle.classes)


def subject(row: Captured) -> str:
    """Whose film it is; one that came without a subject is its own."""
    return row.subject or row.image


def truth(bundle: Bundle, rows: Sequence[Captured], labels: Mapping[str, Label]) -> npt.NDArray[np.int64]:
    """The true classes, int64 (n,), as indices into the bundle's classes."""
    return np.array([bundle.classes.index(labels[row.prediction].label) for row in rows], np.int64)
