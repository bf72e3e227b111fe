"""What each of several processes reads, and how an epoch is divided."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rounds.core.specs import AugmentSpec
from rounds.train.batches import Shard, Split, TrainBatches, ValBatches

NONE = AugmentSpec(flip=False, translate=0.0)


def numbered(n: int) -> Split:
    """Films whose pixels are their numbers, so that a batch says which they are."""
    pixels = np.zeros((n, 1, 2, 2), np.uint8)
    pixels[:, 0, 0, 0], pixels[:, 0, 0, 1] = np.divmod(np.arange(n), 256)
    return Split(pixels, np.arange(n, dtype=np.int64), np.arange(n, dtype=np.int64) % 2)


def numbers(pixels: torch.Tensor) -> list[int]:
    return (pixels[:, 0, 0, 0].long() * 256 + pixels[:, 0, 0, 1]).tolist()


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize(("n", "batch"), [(100, 16), (101, 16), (103, 32), (61, 64), (997, 10), (7, 4)])
def test_every_image_comes_once_an_epoch_whatever_divides(ranks, n, batch):
    loaders = [TrainBatches(numbered(n), batch, NONE, 5, shard=Shard(rank, ranks)) for rank in range(ranks)]
    first, second = ([[numbers(pixels) for pixels, _ in loader] for loader in loaders] for _ in range(2))
    for epoch in (first, second):
        assert sorted(number for rank in epoch for part in rank for number in part) == list(range(n))
        assert {len(rank) for rank in epoch} == {max(1, round(n / batch))}, "every process takes as many steps"
        together = [sum(map(len, parts)) for parts in zip(*epoch, strict=True)]
        assert max(together) - min(together) <= 1, "batches are alike"
        shares = [len(part) for parts in zip(*epoch, strict=True) for part in parts]
        assert max(shares) - min(shares) <= 2
    assert first != second, "another epoch has another order"


@pytest.mark.parametrize("ranks", [2, 3])
def test_together_the_processes_take_the_batches_of_one(ranks):
    alone = [set(numbers(pixels)) for pixels, _ in TrainBatches(numbered(101), 16, NONE, 5)]
    loaders = [TrainBatches(numbered(101), 16, NONE, 5, shard=Shard(rank, ranks)) for rank in range(ranks)]
    parts = [[set(numbers(pixels)) for pixels, _ in loader] for loader in loaders]
    assert [set().union(*step) for step in zip(*parts, strict=True)] == alone


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("n", [5, 512, 1030])
def test_every_validation_image_is_measured_once(ranks, n):
    loaders = [ValBatches(numbered(n), shard=Shard(rank, ranks)) for rank in range(ranks)]
    seen = [number for loader in loaders for pixels, _ in loader for number in numbers(pixels)]
    assert sorted(seen) == list(range(n))
    assert [len(list(loader)) for loader in loaders] == [len(loader) for loader in loaders]


def test_an_epoch_is_the_same_wherever_it_begins_and_in_whatever_order_it_is_drawn():
    split = Split(np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), np.uint8), np.arange(40), np.arange(40) % 2)
    spec = AugmentSpec(noise=0.1, mixup=0.3)
    through = TrainBatches(split, 8, spec, 5)
    list(through)
    again = TrainBatches(split, 8, spec, 5)
    again.epoch = 1
    backwards = [draw() for draw in reversed(again.draws())][::-1]
    for (pixels, labels), (others, also) in zip(through, backwards, strict=True):
        assert torch.equal(pixels, others)
        assert torch.equal(labels, also)


def test_processes_draw_other_noise():
    pixels = np.full((8, 1, 4, 4), 100, np.uint8)
    split = Split(pixels, np.arange(8), np.arange(8) % 2)
    (one, _), (other, _) = (
        next(iter(TrainBatches(split, 8, AugmentSpec(noise=0.2), 5, shard=Shard(rank, 2)))) for rank in (0, 1)
    )
    assert not torch.equal(one, other)
