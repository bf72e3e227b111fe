"""What a network needs beside itself to be a bundle: its calibration, and what monitoring compares with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rounds.core.errors import BadSource, Fault
from rounds.core.records import Calibration, DatasetVersion, Scoring
from rounds.core.specs import ExportSpec, ImagingSpec
from rounds.imaging.packed import Films, Rows
from rounds.imaging.stress import stress
from rounds.runtime.bundle import Reference
from rounds.runtime.predictor import Network, Outputs
from rounds.runtime.scores import Scorer, fit_scoring
from rounds.runtime.verdict import decide
from rounds.stats.calibrate import fit_temperature_bias
from rounds.stats.conformal import thresholds
from rounds.stats.operating import operating_threshold

# Validation films that are stressed for a robust threshold, at most.
STRESSED = 2000


class Seen:
    """A data set as a bundle sees it: `pixels` uint8 (n, c, size, size), and rows labelled in the order of its classes.

    Raises BadSource where the data set has other classes, or no film in `train`, `val` or `calibration`.
    """

    def __init__(self, dataset: DatasetVersion, imaging: ImagingSpec, classes: Sequence[str]) -> None:
        faults = [
            Fault("the split is empty", f"{dataset.name}, split {split}", "films", "none", _ALL)
            for split in ("train", "val", "calibration")
            if not dataset.splits.get(split)
        ]
        if sorted(dataset.classes) != sorted(classes):
            faults.append(
                Fault("other classes", dataset.name, ", ".join(classes), ", ".join(dataset.classes), "name another set")
            )
        if faults:
            raise BadSource(f"{dataset.name} cannot calibrate a bundle", faults)
        self.dataset, self.imaging, self.classes = dataset, imaging, tuple(classes)
        self._films = Films(dataset.path)
        self._places = np.array([self.classes.index(name) for name in dataset.classes], np.int64)
        self.pixels = self._films.pixels(imaging)

    def rows(self, split: str) -> Rows:
        """The films of one split; `labels` are places among the bundle's classes."""
        rows = self._films.rows(split)
        return replace(rows, labels=self._places[rows.labels])

    def some(self, split: str, most: int) -> npt.NDArray[np.int64]:
        """Where in `pixels` at most so many films of a split are, evenly spread over its classes, int64 (m,)."""
        index = self.rows(split).index
        return index[evenly(len(index), most)]


@dataclass(frozen=True, eq=False)
class Calibrated:
    """The parts of a bundle that are learned after its network."""

    calibration: Calibration
    scoring: Scoring
    reference: Reference


def calibrate(network: Network, seen: Seen, spec: ExportSpec, kept: Calibration | None = None) -> Calibrated:
    """Calibrate a network; each split is used for one thing.

    `val` for temperature, bias and the operating threshold, unless those of `kept` stay; `calibration`, one film of
    each subject, for the conformal thresholds and the monitoring reference; up to `spec.score_films` training films for
    the monitoring frame and its bin edges.
    """
    calibration = kept or _fit(network, seen.pixels, seen.rows("val"), spec)
    frame = seen.some("train", spec.score_films)
    scoring = fit_scoring(seen.pixels, network.answer_all(seen.pixels, index=frame), index=frame)
    reference = _reference(network, Scorer(scoring), seen.pixels, seen.rows("calibration"))
    return Calibrated(_with_sets(calibration, reference), scoring, reference)


def one_film_a_subject(rows: Rows) -> npt.NDArray[np.int64]:
    """Positions in the rows of one film for each subject: the one whose digest is smallest.

    The digest is as good as a draw; the first in manifest order would be the one of the first class.
    """
    order = sorted(range(len(rows)), key=lambda i: (rows.digests[i], rows.names[i]))
    first: dict[str, int] = {}
    for i in order:
        first.setdefault(rows.subjects[i], i)
    return np.array(sorted(first.values()), np.int64)


def evenly(n: int, most: int) -> npt.NDArray[np.int64]:
    """At most so many positions in 0..n-1, evenly spread: the manifest is sorted by class and digest, so every class
    keeps its share."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))


def _fit(network: Network, pixels: npt.NDArray[np.uint8], val: Rows, spec: ExportSpec) -> Calibration:
    """Temperature, bias and operating threshold from `val`; the conformal thresholds are still missing."""
    said = network.answer_all(pixels, index=val.index)
    temperature, bias = fit_temperature_bias(said.logits, val.labels)
    k = len(bias)
    draft = Calibration(temperature, bias, None, (1.0,) * k, spec.alpha)
    if k != 2:
        return draft
    stressed = None
    if spec.operating.robust:
        chosen = evenly(len(val), STRESSED)
        films, places = stress(pixels[val.index[chosen]], val.labels[chosen], seed=0)
        stressed = val.labels[chosen][places], _positive(draft, network.answer_all(films))
    threshold = operating_threshold(val.labels, _positive(draft, said), spec.operating, stressed=stressed)
    return replace(draft, threshold=threshold if np.isfinite(threshold) else 0.5)


def _positive(calibration: Calibration, said: Outputs) -> npt.NDArray[np.float64]:
    """The calibrated probability of the positive class, of two."""
    return decide(calibration, said.logits)[1][:, 1]


def _reference(network: Network, scorer: Scorer, pixels: npt.NDArray[np.uint8], held: Rows) -> Reference:
    chosen = one_film_a_subject(held)
    index = held.index[chosen]
    said = network.answer_all(pixels, index=index)
    return Reference(
        label=held.labels[chosen],
        logits=said.logits,
        embedding=said.embedding,
        scores=scorer.scores(pixels, said, index=index),
        subjects=[held.subjects[i] for i in chosen],
        images=[held.digests[i] for i in chosen],
    )


def _with_sets(calibration: Calibration, reference: Reference) -> Calibration:
    probabilities = decide(calibration, reference.logits)[1]
    limits = thresholds(probabilities, reference.label, calibration.alpha)
    return replace(calibration, conformal=tuple(float(limit) for limit in limits))


_ALL = "prepare a source with all splits"
