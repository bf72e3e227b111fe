"""What a data set holds, in numbers: films and subjects by split and class, image sizes, and how the films look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rounds.core.records import DatasetVersion
from rounds.core.specs import ImagingSpec
from rounds.imaging.decode import read_header
from rounds.imaging.measure import MEASURES, measure
from rounds.imaging.packed import ADMITTED, Films, Rows

_BATCH = 256


def statistics(dataset: DatasetVersion, *, imaging: ImagingSpec = ImagingSpec()) -> dict[str, Any]:  # noqa: B008 (frozen)
    """Counts a data set and measures its films as the network would see them under `imaging`.

    Keys: name, digest, classes, images, subjects, subjects_known, notes; `splits`: per split its films, subjects and
    films by class; `width` and `height` in pixels: min, median, max; `measures`: per split and measure, mean and
    spread (standard deviation). Raises: DamagedData.
    """
    films = Films(dataset.path)
    rows = films.rows()
    looks = np.concatenate(list(_looks(films, imaging)))
    sizes = np.array([read_header(films.bytes(index), ADMITTED).size for index in range(len(films))])
    return {
        "name": dataset.name,
        "digest": dataset.digest,
        "classes": list(dataset.classes),
        "images": len(films),
        "subjects": len(set(rows.subjects)),
        "subjects_known": dataset.subjects_known,
        "splits": {split: _counted(films.classes, films.rows(split)) for split in dataset.splits},
        "width": _range(sizes[:, 0]),
        "height": _range(sizes[:, 1]),
        "measures": {split: _summary(looks[films.rows(split).index]) for split in dataset.splits},
        "notes": list(dataset.notes),
    }


def _looks(films: Films, imaging: ImagingSpec) -> Iterator[NDArray[np.float32]]:
    pixels = films.pixels(imaging)
    for start in range(0, len(pixels), _BATCH):
        yield measure(pixels[start : start + _BATCH])


def _counted(classes: tuple[str, ...], rows: Rows) -> dict[str, Any]:
    counted = Counter(rows.labels.tolist())
    by_class = {label: counted[index] for index, label in enumerate(classes)}
    return {"images": len(rows), "subjects": len(set(rows.subjects)), "classes": by_class}


def _range(values: NDArray[np.int64]) -> dict[str, float]:
    return {"min": int(values.min()), "median": float(np.median(values)), "max": int(values.max())}


def _summary(looks: NDArray[np.float32]) -> dict[str, dict[str, float]]:
    return {
        name: {"mean": float(column.mean()), "spread": float(column.std())}
        for name, column in zip(MEASURES, looks.astype(np.float64).T, strict=True)
    }
