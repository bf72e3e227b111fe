"""Batches from the packed pixels, drawn and augmented whole; only the batch at hand is in memory.

Every batch has random numbers of its own, made from the seed, the epoch, its place and the process that takes it: a run
that goes on after a kill, and a batch that is drawn ahead, are the same without any state being kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from rounds.core.errors import BadSource, Fault
from rounds.core.specs import AugmentSpec, TrainSpec
from rounds.imaging.packed import Films, Rows
from rounds.train.augment import augment, mixup

Batch = tuple[Tensor, Tensor]
# images, and values of their pixels: 512 gray films up to 64 pixels, fewer of larger ones
_VAL_BATCH, _VAL_VALUES = 512, 2**21
_CPU = torch.device("cpu")


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


@dataclass(frozen=True)
class Shard:
    """What one of several processes reads: of each batch every `of`-th image, from `rank` on."""

    rank: int = 0
    of: int = 1

    def part(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        return places[self.rank :: self.of]


class TrainBatches:
    """Every image once an epoch in a fresh order, divided evenly over round(n / batch) batches, augmented on `device`.

    `epoch` is the one that the next iteration draws. With several processes `batch` counts the images of all of them.
    """

    def __init__(
        self,
        split: Split,
        batch: int,
        spec: AugmentSpec,
        seed: int,
        *,
        shard: Shard = Shard(),  # frozen
        device: torch.device = _CPU,
    ) -> None:
        self._split, self._batch, self._spec, self._seed = split, batch, spec, seed
        self._shard, self._device, self.epoch = shard, device, 0

    def __len__(self) -> int:
        return max(1, round(len(self._split) / self._batch))

    def __iter__(self) -> Iterator[Batch]:
        # nothing happens before the first batch is asked for: Lightning makes iterators before it knows the epoch
        for draw in self.draws():
            yield draw()

    def draws(self) -> Sequence[Callable[[], Batch]]:
        """The next epoch's batches, each to be drawn when it is called, in any order and thread."""
        epoch, self.epoch = self.epoch, self.epoch + 1
        order = torch.randperm(len(self._split), generator=stream(self._seed, "order", epoch)).numpy()
        parts = [self._shard.part(places) for places in np.array_split(order, len(self))]
        return [partial(self._draw, epoch, step, places) for step, places in enumerate(parts)]

    def _draw(self, epoch: int, step: int, places: NDArray[np.int64]) -> Batch:
        generator = stream(self._seed, "augment", epoch, step, self._shard.rank, device=self._device)
        pixels, labels = to(self._split.take(places), self._device)
        pixels = augment(pixels, self._spec, generator)
        if self._spec.mixup > 0:
            classes = int(self._split.labels.max()) + 1
            return mixup(pixels, torch.nn.functional.one_hot(labels, classes).float(), self._spec.mixup, generator)
        return pixels, labels


class ValBatches:
    """Every image once, in order, as it is."""

    def __init__(self, split: Split, *, shard: Shard = Shard(), device: torch.device = _CPU) -> None:
        self._split, self._places, self._device = split, shard.part(np.arange(len(split))), device
        self._batch: int = max(1, min(_VAL_BATCH, _VAL_VALUES // split.pixels[0].size))

    def __len__(self) -> int:
        return -(-len(self._places) // self._batch)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self._places), self._batch):
            yield to(self._split.take(self._places[start : start + self._batch]), self._device)


def stream(seed: int, *purpose: str | int, device: torch.device = _CPU) -> Generator:
    """Random numbers for one purpose, independent of those for any other."""
    return Generator(device).manual_seed(seed_of(seed, *purpose))


def seed_of(seed: int, *purpose: str | int) -> int:
    """A seed, 0..2**63 - 1, for one purpose."""
    named = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.blake2b(named.encode(), digest_size=8).digest(), "big") >> 1


def to(batch: Batch, device: torch.device) -> Batch:
    """The batch on the device; to a GPU from pinned memory, which lets the copy run beside the computing."""
    if device.type != "cuda":
        return batch
    pixels, labels = (part.pin_memory().to(device, non_blocking=True) for part in batch)
    return pixels, labels


def open_splits(films: Films, spec: TrainSpec, given: tuple[Rows, Rows] | None = None) -> tuple[Split, Split]:
    """The training and validation splits of a data set, or the rows given in their place.

    Raises BadSource where a split is empty, or where a class of the data set has no image in it.
    """
    rows = dict(zip(("train", "val"), given or (films.rows("train"), films.rows("val")), strict=True))
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
