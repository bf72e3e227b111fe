"""A trained run becomes a bundle: the graph, its calibration and what monitoring compares with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rounds.core.errors import BadSource, Fault, OurFault
from rounds.core.records import Bundle, Calibration, DatasetVersion, Parents, TrainedRun
from rounds.core.specs import ExportSpec
from rounds.export.graph import Mirrored, check_parity, to_onnx
from rounds.imaging.packed import Films, Rows
from rounds.nets.weights import load_weights
from rounds.runtime.bundle import Reference, write
from rounds.runtime.predictor import Network, Outputs
from rounds.runtime.scores import Scorer, fit_scoring
from rounds.runtime.verdict import decide
from rounds.stats.calibrate import fit_temperature_bias
from rounds.stats.conformal import thresholds
from rounds.stats.metrics import youden_threshold

PARITY_FILMS = 256


def pack(run: TrainedRun, dataset: DatasetVersion, spec: ExportSpec, *, folder: Path) -> Bundle:
    """Write the run's bundle under `folder`.

    Each split is used for one thing: `val` for temperature, bias and the operating threshold; `calibration`,
    one film of each subject, for the conformal thresholds and the monitoring reference; up to `spec.score_films`
    training films for the monitoring frame and its bin edges. Where the recipe trained on mirrored films and
    `spec.flip_average` is set, the graph averages each film with its mirror image, at twice the computation.

    Raises BadSource where a split is missing, OurFault where the run belongs to another data set or the exported graph
    answers otherwise than torch, and what `load_weights` and `write` raise.
    """
    films = _films(run, dataset)
    net = load_weights(run.checkpoint)
    served = Mirrored(net) if spec.flip_average and run.spec.augment.flip else net
    model = to_onnx(served, channels=run.spec.imaging.channels, size=run.spec.imaging.size)
    network = Network(model)
    pixels = films.pixels(run.spec.imaging)
    val, train, held = films.rows("val"), films.rows("train"), films.rows("calibration")
    seen = np.concatenate([val.index, train.index])[:PARITY_FILMS]
    check_parity(served, network, pixels[seen], spec.parity)

    calibration = _fit(network.answer_all(pixels, index=val.index), val.labels, spec.alpha)
    frame = train.index[_evenly(len(train), spec.score_films)]
    scoring = fit_scoring(pixels, network.answer_all(pixels, index=frame), index=frame)
    reference = _reference(network, Scorer(scoring), pixels, held)
    return write(
        folder,
        model=model,
        classes=run.classes,
        imaging=run.spec.imaging,
        calibration=_with_sets(calibration, reference),
        scoring=scoring,
        parents=Parents(data=run.data, run=run.run, config=run.config, code=run.code),
        reference=reference,
    )


def one_film_a_subject(rows: Rows) -> npt.NDArray[np.int64]:
    """Positions in the rows of one film for each subject: the one whose digest is smallest.

    The digest is as good as a draw; the first in manifest order would be the one of the first class.
    """
    order = sorted(range(len(rows)), key=lambda i: (rows.digests[i], rows.names[i]))
    first: dict[str, int] = {}
    for i in order:
        first.setdefault(rows.subjects[i], i)
    return np.array(sorted(first.values()), np.int64)


def _films(run: TrainedRun, dataset: DatasetVersion) -> Films:
    films = Films(dataset.path)
    if dataset.digest != run.data or films.classes != run.classes:
        fault = Fault("another data set", dataset.name, f"data {run.data}, classes {run.classes}", dataset.digest)
        raise OurFault(f"run {run.run} was not trained on {dataset.name}", [fault])
    faults = [
        Fault(
            "the split is empty", f"{dataset.name}, split {split}", "films", "none", "prepare a source with all splits"
        )
        for split in ("train", "val", "calibration")
        if not dataset.splits.get(split)
    ]
    if faults:
        raise BadSource(f"{dataset.name} cannot calibrate a bundle", faults)
    return films


def _fit(said: Outputs, y: npt.NDArray[np.int64], alpha: float) -> Calibration:
    """Temperature, bias and operating threshold from `val`; the conformal thresholds are still missing."""
    temperature, bias = fit_temperature_bias(said.logits, y)
    k = len(bias)
    draft = Calibration(temperature, bias, None, (1.0,) * k, alpha)
    if k != 2:
        return draft
    threshold = youden_threshold(y, decide(draft, said.logits)[1][:, 1])
    return replace(draft, threshold=threshold if np.isfinite(threshold) else 0.5)


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


def _evenly(n: int, most: int) -> npt.NDArray[np.int64]:
    """At most so many positions in 0..n-1, evenly spread: the manifest is sorted by class and digest, so every class
    keeps its share."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))
