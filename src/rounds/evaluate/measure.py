"""A bundle measured as it is served, on films it has not seen."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rounds.core.errors import BadSource, Fault
from rounds.core.records import Bundle, DatasetVersion, EvalReport, Metric
from rounds.evaluate.curves import curves
from rounds.evaluate.slices import slices
from rounds.imaging.packed import Films
from rounds.runtime.predictor import Predictor
from rounds.runtime.verdict import decide
from rounds.stats.intervals import metric_intervals
from rounds.stats.metrics import confusion, metrics

BATCH = 32


@dataclass(frozen=True, eq=False)
class Measured:
    """What a bundle says of each of n films of a split, aligned: `y` int64 (n,) the true class (index into the
    bundle's classes), `logits` float32 (n, k) before temperature and bias, `probabilities` float64 (n, k), `label`
    int64 (n,) at the operating point, the films' `subjects`, image `digests`, `names`, `attributes` and places `index`
    int64 (n,) in the data set, and milliseconds of the network a film in batches of 32."""

    split: str
    y: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float64]
    label: npt.NDArray[np.int64]
    subjects: Sequence[str]
    digests: Sequence[str]
    names: Sequence[str]
    attributes: Sequence[Mapping[str, str]]
    index: npt.NDArray[np.int64]
    ms: float

    def __len__(self) -> int:
        return len(self.y)


def score(bundle: Bundle, dataset: DatasetVersion, split: str | None = None, *, threads: int = 1) -> Measured:
    """What the bundle answers on one split (`test`, else `val`, where none is named), nothing fitted.

    Raises BadSource where the classes are not the bundle's or the split is empty, DamagedBundle and DamagedData.
    """
    films = Films(dataset.path)
    rename = _same_classes(bundle, dataset)
    chosen = _split(dataset, split)
    rows = films.rows(chosen)
    pixels = films.pixels(bundle.imaging)
    predictor = Predictor(bundle, threads)
    started = time.perf_counter()
    said = predictor.network.answer_all(pixels, index=rows.index, batch=BATCH)
    ms = (time.perf_counter() - started) * 1e3 / len(rows)
    label, probabilities = decide(bundle.calibration, said.logits)
    return Measured(
        chosen, rename[rows.labels], said.logits, probabilities, label, rows.subjects, rows.digests, rows.names,
        rows.attributes, rows.index, ms,
    )  # fmt: skip


def measure(
    bundle: Bundle,
    dataset: DatasetVersion,
    split: str | None = None,
    *,
    threads: int = 1,
    seed: int = 0,
    cut: Sequence[str] = (),
) -> EvalReport:
    """The bundle's metrics on one split (`test`, else `val`), each with a 95 % interval over subjects, and its slices:
    of the attributes in `cut`, by default of all that have few values.

    `accuracy`, `sensitivity` and the like are those of the operating point. Raises what `score` and `slices` raise.
    """
    return report(bundle, dataset, score(bundle, dataset, split, threads=threads), seed=seed, cut=cut)


def report(
    bundle: Bundle, dataset: DatasetVersion, measured: Measured, *, seed: int = 0, cut: Sequence[str] = ()
) -> EvalReport:
    """The report on films that `score` has already measured.

    A metric that cannot be told, since the split has no film of a class, is left out.
    """
    y, label, probabilities = measured.y, measured.label, measured.probabilities
    values = metrics(y, label, probabilities)
    bounds = metric_intervals(y, label, probabilities, measured.subjects, seed=seed)
    table = confusion(y, label, len(bundle.classes))
    drawn: Mapping[str, Any] = curves(bundle.classes, bundle.calibration, measured.y, label, probabilities)
    return EvalReport(
        bundle=bundle.digest,
        data=dataset.digest,
        split=measured.split,
        n=len(measured),
        classes=bundle.classes,
        threshold=bundle.calibration.threshold,
        metrics={name: Metric(value, *bounds[name]) for name, value in values.items() if np.isfinite(value)},
        confusion=tuple(tuple(int(count) for count in row) for row in table),
        curves={**drawn, "ms": measured.ms, "subjects": len(set(measured.subjects))},
        slices=slices(measured.attributes, y, label, probabilities, measured.subjects, cut),
    )


def _same_classes(bundle: Bundle, dataset: DatasetVersion) -> npt.NDArray[np.int64]:
    """For each class of the data set its place among the bundle's."""
    if sorted(dataset.classes) != sorted(bundle.classes):
        expected, got = (", ".join(names) for names in (bundle.classes, dataset.classes))
        fault = Fault(
            "other classes than the bundle's", dataset.name, expected, got, "name a data set with these classes"
        )
        raise BadSource(f"{dataset.name} cannot measure bundle {bundle.digest[:12]}", [fault])
    return np.array([bundle.classes.index(name) for name in dataset.classes], np.int64)


def _split(dataset: DatasetVersion, wanted: str | None) -> str:
    choices = (wanted,) if wanted else ("test", "val")
    for split in choices:
        if dataset.splits.get(split):
            return split
    there = ", ".join(f"{split} ({n})" for split, n in dataset.splits.items() if n) or "no films"
    fault = Fault("the split is empty", dataset.name, " or ".join(choices), there, "name one with --split")
    raise BadSource(f"{dataset.name} has no films to measure with", [fault])
