"""How a bundle does on films that were harmed on purpose: by kind of corruption and severity."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from rounds.core.records import Bundle, DatasetVersion
from rounds.evaluate.measure import Measured
from rounds.imaging.corrupt import NEUTRAL, corrupt
from rounds.imaging.packed import Films
from rounds.imaging.stress import stress
from rounds.runtime.predictor import Predictor
from rounds.runtime.verdict import decide
from rounds.stats.intervals import metric_intervals
from rounds.stats.metrics import metrics

FILMS = 300
RESAMPLES = 300
SHOWN = ("auc", "accuracy")
# From harmless to what a person would send back, on both sides of the neutral severity where there are two.
SEVERITIES = MappingProxyType(
    {
        "gamma": (0.4, 0.6, 0.8, 1.25, 1.7, 2.5),
        "blur": (0.5, 1.0, 1.5, 2.0),
        "noise": (0.02, 0.05, 0.1, 0.15),
        "contrast": (0.3, 0.5, 0.75, 1.5, 2.0),
        "brightness": (-0.3, -0.15, 0.15, 0.3),
        "shift": (0.05, 0.1, 0.2),
        "rotate": (-20.0, -10.0, 10.0, 20.0),
    }
)


def robustness(
    bundle: Bundle, dataset: DatasetVersion, measured: Measured, *, films: int = FILMS, threads: int = 1, seed: int = 0
) -> dict[str, Any]:
    """AUC and accuracy at the operating point over corruption and severity, on at most `films` films of the split.

    The films are evenly spread over the split, which is sorted by class. {"n", "subjects", "clean": {auc, accuracy},
    "stress": {...} (each film through another scanner; every class equally often), "curves": {kind: {"neutral",
    "points": [{"severity", "auc", "accuracy"}]}}}; each measure is {"value", "low", "high"} with a 95 % interval over
    subjects, absent where it cannot be told. Blur is in pixels of 28, so that it means the same at every size.
    """
    chosen = np.unique(np.linspace(0, len(measured) - 1, min(len(measured), films)).round().astype(np.int64))
    pixels = Films(dataset.path).pixels(bundle.imaging)[measured.index[chosen]]
    y, subjects = measured.y[chosen], [measured.subjects[i] for i in chosen]
    predictor = Predictor(bundle, threads)

    def told(harmed: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64]) -> dict[str, Any]:
        return _told(predictor, harmed, y[rows], [subjects[i] for i in rows])

    every = np.arange(len(chosen))
    harmed, rows = stress(pixels, y, seed=seed)
    found = {
        "n": len(chosen),
        "subjects": len(set(subjects)),
        "clean": told(pixels, every),
        "stress": told(harmed, rows),
    }
    curves = {
        kind: {
            "neutral": NEUTRAL[kind],
            "points": [
                {"severity": shown} | told(corrupt(pixels, kind, severity, seed), every)
                for shown, severity in _severities(kind, bundle.imaging.size)
            ],
        }
        for kind in SEVERITIES
    }
    return found | {"curves": curves}


def _severities(kind: str, size: int) -> Iterator[tuple[float, float]]:
    """Each severity as it is told and as it is applied to films of this size."""
    for severity in SEVERITIES[kind]:
        yield severity, severity * (size / 28 if kind == "blur" else 1.0)


def _told(
    predictor: Predictor, pixels: npt.NDArray[np.uint8], y: npt.NDArray[np.int64], subjects: list[str]
) -> dict[str, Any]:
    label, probabilities = decide(predictor.bundle.calibration, predictor.network.answer_all(pixels).logits)
    values = metrics(y, label, probabilities)
    bounds = metric_intervals(y, label, probabilities, subjects, resamples=RESAMPLES)
    known = [name for name in SHOWN if np.isfinite(values[name])]
    return {name: {"value": values[name], "low": bounds[name][0], "high": bounds[name][1]} for name in known}
