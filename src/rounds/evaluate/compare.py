"""Two bundles on the same films, paired: is one better, and where do they disagree?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, stdtrit

from rounds.core.errors import BadSource, Fault
from rounds.core.records import Bundle
from rounds.evaluate.measure import Measured
from rounds.stats.difference import area_difference
from rounds.stats.intervals import places
from rounds.stats.paired import gain_interval

LISTED = 200


def compare(bundle: Bundle, measured: Measured, other: Bundle, against: Measured) -> dict[str, Any]:
    """How `bundle` differs from `other`, both measured on the same films of the same data set.

    "auc_difference" and "accuracy_difference" (this bundle's less the other's, at each one's operating point) are
    {"value", "low", "high"} with 95 % intervals over subjects, paired: DeLong's by subjects for the AUC (see
    `area_difference`), `accuracy_difference` here. "right" counts films by who was right: {"both", "this", "other",
    "neither"}; "p_mcnemar" is the exact two-sided p-value of McNemar 1947 on the first film of each subject.
    "disagreements" counts the films that were given different classes and "films" lists at most 200 of them, the most
    different probabilities first. Raises BadSource where the bundles have other classes or the films differ.
    """
    _same(bundle, measured, other, against)
    order = np.array([other.classes.index(name) for name in bundle.classes], np.int64)
    theirs, label = against.probabilities[:, order], np.argsort(order)[against.label]
    ours, y, place = measured.label == measured.y, measured.y, places(measured.subjects)
    right = label == y
    first = np.unique(place, return_index=True)[1]
    area = area_difference(y, measured.probabilities, theirs, measured.subjects)
    return {
        "against": other.digest,
        "n": len(y),
        "subjects": len(first),
        "auc_difference": _interval(area) if np.isfinite(area[0]) else None,
        "accuracy_difference": _interval(accuracy_difference(ours, right, place)),
        "right": {
            "both": int((ours & right).sum()),
            "this": int((ours & ~right).sum()),
            "other": int((~ours & right).sum()),
            "neither": int((~ours & ~right).sum()),
        },
        "p_mcnemar": mcnemar(int((ours & ~right)[first].sum()), int((~ours & right)[first].sum())),
        "disagreements": int((measured.label != label).sum()),
        "films": _disagreements(bundle.classes, measured, theirs, label),
    }


def accuracy_difference(
    ours: npt.NDArray[np.bool_], theirs: npt.NDArray[np.bool_], place: npt.NDArray[np.int64]
) -> tuple[float, float, float]:
    """The difference of two accuracies on the same films, with its 95 % interval over subjects: value, low, high.

    Where each subject has one film, Tango's score interval (1998); else Student's over the subjects' sums, and Tango's
    for as many films as there are subjects where no film tells the two apart.
    """
    gaps = ours.astype(np.float64) - theirs
    value, sums = float(gaps.mean()), np.bincount(place, weights=gaps - gaps.mean())
    units = len(sums)
    if units == len(place) or not gaps.any():
        low, high = gain_interval(int((gaps < 0).sum()), int((gaps > 0).sum()), units)
        return value, low, high
    if units < 2:
        return value, -1.0, 1.0
    reach = float(stdtrit(units - 1, 0.975) * np.sqrt(units / (units - 1) * (sums**2).sum()) / len(place))
    return value, max(-1.0, value - reach), min(1.0, value + reach)


def mcnemar(one: int, other: int) -> float:
    """The exact two-sided p-value that, of films which only one got right, as many belong to each; 1 without any."""
    return float(min(1.0, 2 * bdtr(min(one, other), one + other, 0.5))) if one + other else 1.0


def _interval(bounds: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip(("value", "low", "high"), bounds, strict=True))


def _same(bundle: Bundle, measured: Measured, other: Bundle, against: Measured) -> None:
    faults = []
    if sorted(bundle.classes) != sorted(other.classes):
        names = ", ".join(bundle.classes), ", ".join(other.classes)
        faults.append(Fault("the bundles tell other classes apart", other.digest[:12], *names))
    if list(measured.digests) != list(against.digests):
        faults.append(Fault("the bundles were measured on other films", against.split, measured.split))
    if faults:
        raise BadSource("these bundles cannot be compared", faults)


def _disagreements(
    classes: Sequence[str], measured: Measured, theirs: npt.NDArray[np.float64], label: npt.NDArray[np.int64]
) -> list[dict[str, Any]]:
    apart = np.abs(measured.probabilities - theirs).max(1)
    rows = np.flatnonzero(measured.label != label)
    return [
        {
            "film": measured.names[i],
            "digest": measured.digests[i],
            "true": classes[measured.y[i]],
            "this": classes[measured.label[i]],
            "other": classes[label[i]],
            "this_probability": float(measured.probabilities[i, measured.y[i]]),
            "other_probability": float(theirs[i, measured.y[i]]),
        }
        for i in rows[np.argsort(-apart[rows], kind="stable")][:LISTED]
    ]
