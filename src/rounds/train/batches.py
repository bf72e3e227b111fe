"""Batches from the packed pixels, drawn and augmented whole; only the batch at hand is in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from rounds.core.errors import BadSource, Fault
from rounds.core.specs import AugmentSpec, TrainSpec
from rounds.imaging.packed import Films, Rows
from rounds.train.augment import augment

Batch = tuple[Tensor, Tensor]
_VAL_BATCH = 512


@dataclass(frozen=True)
class Split:
    """The rows of one split over the pixels of all: uint8 (n_all, c, size, size), int64 (n,), int64 (n,)."""

    pixels: NDArray[np.uint8]
    index: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.index)

    def take(self, places: NDArray[np.int64]) -> Batch:
        """Pixels uint8 (m, c, h, w) and labels int64 (m,) of these places in the split."""
        return torch.from_numpy(self.pixels[self.index[places]]), torch.from_numpy(self.labels[places])

    def sample(self, n: int, generator: Generator) -> Tensor:
        """Pixels of at most n of its images, drawn without replacement."""
        places = torch.randperm(len(self), generator=generator)[:n].sort().values.numpy()
        return self.take(places)[0]


class TrainBatches:
    """Every image once an epoch in a fresh order, augmented; a last batch of under half the size is left out."""

    def __init__(self, split: Split, batch: int, spec: AugmentSpec, generator: Generator) -> None:
        self._split, self._batch, self._spec, self._generator = split, batch, spec, generator

    def __len__(self) -> int:
        return max(1, round(len(self._split) / self._batch))

    def __iter__(self) -> Iterator[Batch]:
        order = torch.randperm(len(self._split), generator=self._generator).numpy()
        for step in range(len(self)):
            pixels, labels = self._split.take(order[step * self._batch : (step + 1) * self._batch])
            yield augment(pixels, self._spec, self._generator), labels


class ValBatches:
    """Every image once, in order, as it is."""

    def __init__(self, split: Split) -> None:
        self._split = split

    def __len__(self) -> int:
        return -(-len(self._split) // _VAL_BATCH)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self._split), _VAL_BATCH):
            yield self._split.take(np.arange(start, min(start + _VAL_BATCH, len(self._split))))


def open_splits(films: Films, spec: TrainSpec) -> tuple[Split, Split]:
    """The training and validation splits of a data set.

    Raises BadSource where a split is empty, or where a class of the data set has no image in it.
    """
    rows = {split: films.rows(split) for split in ("train", "val")}
    faults = [fault for split, found in rows.items() for fault in _faults(split, found, films.classes)]
    if faults:
        raise BadSource(f"data set {films.dataset.name!r} cannot be trained on", faults)
    pixels = films.pixels(spec.imaging)
    train, val = (Split(pixels, found.index, found.labels) for found in rows.values())
    return train, val


def _faults(split: str, rows: Rows, classes: tuple[str, ...]) -> list[Fault]:
    again = "prepare the data set with images of every class, and `val` and `train` splits"
    if not len(rows):
        return [Fault("no image in this split", split, "images of every class", "none", again)]
    if len(classes) < 2:
        return [Fault("a single class", split, "two classes or more", ", ".join(classes), again)]
    missing = sorted(set(range(len(classes))) - set(rows.labels.tolist()))
    return [Fault(f"no image of class {classes[c]!r}", split, "images of every class", "none", again) for c in missing]
