"""Sets of classes that hold the true one with a stated probability, class by class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def thresholds(probabilities: Floats, y: npt.NDArray[np.integer], alpha: float) -> Floats:
    """Per class the threshold on 1 - p below which the class belongs to the set: float64 (k,), 0..1.

    For each class, 1 - P(class) of its own films (n_c of them) at rank ceil((n_c + 1)(1 - alpha)); 1, so that the class
    is always in the set, where a class has fewer films than that rank. While films of a class are exchangeable with
    these, P(the class is in the set | the class is true) >= 1 - alpha (Vovk 2012; Sadinle, Lei and Wasserman 2019).
    """
    limits = np.ones(probabilities.shape[1])
    for c in range(probabilities.shape[1]):
        strange = np.sort(1.0 - probabilities[np.asarray(y) == c, c])
        # 1e-9 undoes what (1 - alpha) loses in binary: 0.9 * 10 is a little more than 9.
        rank = int(np.ceil((len(strange) + 1) * (1 - alpha) - 1e-9))
        if rank <= len(strange):
            limits[c] = strange[rank - 1]
    return limits


def sets(probabilities: Floats, thresholds: Floats) -> npt.NDArray[np.bool_]:
    """Which classes belong to each film's set: bool (n, k)."""
    return np.asarray(1.0 - probabilities <= thresholds)
