"""A data set small enough to train on in a second: bright squares on the left or on the right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from rounds.core.records import DatasetVersion
from rounds.imaging.packed import Film, write_films

CLASSES = ("left", "right", "middle")
PLACES = {"left": 2, "middle": 11, "right": 20}
Make = Callable[..., DatasetVersion]


def films(counts: dict[str, tuple[int, ...]], channels: int) -> Iterator[Film]:
    random = np.random.default_rng(0)
    for split, numbers in counts.items():
        for label, number in zip(CLASSES, numbers, strict=False):
            for i in range(number):
                image = random.normal(90, 30, (32, 32, channels)).clip(0, 255).astype(np.uint8)
                x = PLACES[label] + int(random.integers(0, 3))
                image[10:20, x : x + 8] = random.integers(120, 220)
                name = f"{split}/{label}/{i}.png"
                yield Film(cv2.imencode(".png", image)[1].tobytes(), label, name, split, name)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes a data set with so many films of each class in each split."""

    def write(*, classes: int = 2, channels: int = 1, **counts: tuple[int, ...]) -> DatasetVersion:
        given = counts or {"train": (60,) * classes, "val": (20,) * classes}
        chosen = films(given, channels)
        return write_films(tmp_path / "data", "squares", CLASSES[:classes], chosen, subjects_known=False)

    return write
