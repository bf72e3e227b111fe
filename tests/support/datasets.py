"""A real, tiny data set of the films that the tiny bundle tells apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tests.support.bundles import tiny_films, tiny_truth

from rounds.core.records import DatasetVersion
from rounds.imaging.films import Film, write_films
from rounds.imaging.fit import encode_png

SPLITS = {"train": 300, "val": 200, "calibration": 200, "test": 200}


def tiny_dataset(
    folder: Path,
    *,
    classes: Sequence[str] = ("normal", "opacity"),
    splits: Mapping[str, int] = SPLITS,
    size: int = 16,
    channels: int = 1,
    seed: int = 0,
    each: int = 2,
    brightness: float = 1.0,
    sites: Sequence[str] = (),
) -> DatasetVersion:
    """A data set of `tiny_films` as PNG, labelled by their brightness before `brightness` multiplies it; `each` films
    make a subject, and the subjects come from `sites` in turn (attribute `site`)."""
    total = sum(splits.values())
    films = tiny_films(total, size=size, channels=channels, seed=seed)
    truth = tiny_truth(films, len(classes))
    shown = tiny_films(total, size=size, channels=channels, seed=seed, brightness=brightness)
    split_of = np.repeat(list(splits), list(splits.values()))
    taken = (
        Film(
            encode_png(shown[i]),
            classes[truth[i]],
            f"{split_of[i]}-{i // each}",
            str(split_of[i]),
            f"film-{i:05d}.png",
            {"site": sites[i // each % len(sites)]} if sites else {},
        )
        for i in range(total)
    )
    return write_films(folder, "tiny", classes, taken, subjects_known=True)
