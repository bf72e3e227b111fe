"""The worst errors of a bundle on a split, with what it looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rounds.core.records import Bundle, DatasetVersion
from rounds.evaluate.measure import Measured
from rounds.imaging.packed import Films
from rounds.runtime.predictor import Predictor

MOST = 10


@dataclass(frozen=True, eq=False)
class Mistake:
    """A film that was given the wrong class: its `film` name and `digest`, its `true` class with the `probability` that
    the bundle gave it, and the class it `said`; `pixels` uint8 (c, size, size) as the network saw them, and `heat`
    float32 (h', w'), by how much each place spoke for the said class more than for the true one (None where the network
    has no activation map)."""

    film: str
    digest: str
    true: str
    said: str
    probability: float
    pixels: npt.NDArray[np.uint8]
    heat: npt.NDArray[np.float32] | None


def mistakes(
    bundle: Bundle, dataset: DatasetVersion, measured: Measured, *, most: int = MOST, threads: int = 1
) -> list[Mistake]:
    """At most so many errors, the least probable true classes first: those of which the bundle was surest."""
    wrong = np.flatnonzero(measured.label != measured.y)
    given = measured.probabilities[np.arange(len(measured)), measured.y]
    worst = wrong[np.argsort(given[wrong], kind="stable")][:most]
    if not len(worst):
        return []
    pixels = np.asarray(Films(dataset.path).pixels(bundle.imaging)[measured.index[worst]])
    maps = Predictor(bundle, threads).answer(pixels).activation
    return [
        Mistake(
            film=measured.names[i],
            digest=measured.digests[i],
            true=bundle.classes[measured.y[i]],
            said=bundle.classes[measured.label[i]],
            probability=float(given[i]),
            pixels=pixels[row],
            heat=maps[row, measured.label[i]] - maps[row, measured.y[i]] if maps.size else None,
        )
        for row, i in enumerate(worst)
    ]
