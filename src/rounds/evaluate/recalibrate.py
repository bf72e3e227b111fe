"""The cheapest cure: the same weights, with temperature, bias and operating point fitted to fresh labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rounds.core.errors import BadLabel, Fault
from rounds.core.records import Bundle
from rounds.runtime.bundle import Reference, vary
from rounds.runtime.verdict import decide
from rounds.stats.calibrate import Prior, fit_temperature_bias


def recalibrate(
    bundle: Bundle,
    logits: npt.NDArray[np.floating],
    y: npt.NDArray[np.integer],
    *,
    folder: Path,
    reference: Reference | None = None,
) -> Bundle:
    """The bundle with its calibration refitted to labelled films: a variant `recalibrated` whose parent is `bundle`.

    `logits` (n, k) are the network's own, before temperature and bias; `y` int64 (n,) the true classes. Temperature
    and bias are the most probable ones given the labels and the old calibration, so few labels move little. For two
    classes the operating threshold becomes the mean calibrated probability of the positive class: under calibrated
    probabilities that is where sensitivity + specificity is greatest, and it needs no search over few labels.

    The conformal thresholds are kept: they belong to the films of the first calibration, so the coverage they promise
    is not promised for the films that made a recalibration necessary; the variant's name says so. `reference`, where
    given, replaces what monitoring compares with. Raises BadLabel where there is no label or one outside the classes.
    """
    k = len(bundle.classes)
    if logits.shape != (len(y), k) or not len(y) or y.min() < 0 or y.max() >= k:
        expected, got = f"logits (n, {k}) with labels 0..{k - 1}, n >= 1", f"logits {logits.shape}, {len(y)} labels"
        raise BadLabel(
            "these labels cannot recalibrate a bundle", [Fault("labels do not fit", expected=expected, got=got)]
        )
    old = bundle.calibration
    temperature, bias = fit_temperature_bias(logits, y, Prior(old.temperature, old.bias))
    fresh = replace(old, temperature=temperature, bias=bias)
    if old.threshold is not None:
        fresh = replace(fresh, threshold=float(decide(fresh, logits)[1][:, 1].mean()))
    return vary(bundle, folder, variant="recalibrated", calibration=fresh, reference=reference)
