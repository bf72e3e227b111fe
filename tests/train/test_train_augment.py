"""What augmentation does to a batch."""

from __future__ import annotations

import pytest
import torch

from rounds.core.specs import AugmentSpec
from rounds.train.augment import augment, mixup

NONE = AugmentSpec(flip=False, translate=0.0)


def batch(n: int = 64, channels: int = 1, side: int = 30) -> torch.Tensor:
    return torch.randint(
        0, 256, (n, channels, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_nothing_switched_on_changes_nothing():
    assert torch.equal(augment(batch(), NONE, seeded()), batch())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "spec",
    [
        AugmentSpec(flip=True, translate=0.0),
        AugmentSpec(flip=False, translate=0.1),
        *(
            AugmentSpec(flip=False, translate=0.0, **{name: value})
            for name, value in {
                "rotate": 20.0,
                "scale": 0.2,
                "brightness": 0.2,
                "contrast": 0.5,
                "gamma": 0.5,
                "noise": 0.1,
                "blur": 2.0,
                "cutout": 0.3,
            }.items()
        ),
    ],
)
def test_each_change_keeps_shape_and_type_differs_by_image_and_repeats_by_seed(spec, channels):
    one = batch(1, channels).expand(16, -1, -1, -1).contiguous()
    changed = augment(one, spec, seeded())
    assert (changed.shape, changed.dtype) == (one.shape, torch.uint8)
    assert len({image.numpy().tobytes() for image in changed}) > 1
    assert torch.equal(changed, augment(one, spec, seeded()))
    assert not torch.equal(changed, augment(one, spec, seeded(1)))
    assert torch.equal(one[0], batch(1, channels)[0]), "the caller's pixels stay as they were"


def test_a_flip_mirrors_about_half_of_the_images():
    images = batch(400)
    changed = augment(images, AugmentSpec(flip=True, translate=0.0), seeded())
    mirrored = [torch.equal(new, old.flip(-1)) for new, old in zip(changed, images, strict=True)]
    kept = [torch.equal(new, old) for new, old in zip(changed, images, strict=True)]
    assert sum(mirrored) + sum(kept) == 400
    assert 160 < sum(mirrored) < 240


def test_a_translation_moves_by_at_most_its_share_and_repeats_the_edge():
    images = torch.zeros(200, 1, 30, 30, dtype=torch.uint8)
    images[:, :, 15, 15] = 255
    changed = augment(images, AugmentSpec(flip=False, translate=0.1), seeded())
    places = changed[:, 0].nonzero()[:, 1:]
    assert len(places) == 200
    assert places.min().item() == 12
    assert places.max().item() == 18
    assert torch.equal(
        augment(torch.full_like(images, 9), AugmentSpec(translate=0.5), seeded()), torch.full_like(images, 9)
    )


def test_an_affine_change_moves_by_whole_and_parts_of_pixels_within_the_same_share():
    images = torch.zeros(200, 1, 30, 30, dtype=torch.uint8)
    images[:, :, 13:17, 13:17] = 255
    changed = augment(images, AugmentSpec(flip=False, translate=0.1, scale=1e-6), seeded()).float()
    row = (changed.sum(3) * torch.arange(30)).sum((1, 2)) / changed.sum((1, 2, 3)) - 14.5
    assert 2.7 < row.abs().max().item() < 3.1


def test_brightness_contrast_and_gamma_keep_to_their_ranges():
    flat = torch.full((500, 1, 8, 8), 100, dtype=torch.uint8)
    bright = augment(flat, AugmentSpec(flip=False, translate=0.0, brightness=0.1), seeded()).float()
    assert (bright.min().item(), bright.max().item()) == pytest.approx((75, 125), abs=1.5)
    assert torch.equal(augment(flat, AugmentSpec(flip=False, translate=0.0, contrast=2.0), seeded()), flat)
    gamma = augment(flat, AugmentSpec(flip=False, translate=0.0, gamma=1.0), seeded()).float()
    assert (gamma.min().item(), gamma.max().item()) == pytest.approx(
        (255 * (100 / 255) ** 2, 255 * (100 / 255) ** 0.5), abs=2
    )


def test_blur_keeps_the_mean_and_lowers_the_spread_and_cutout_is_gray():
    images = batch()
    blurred = augment(images, AugmentSpec(flip=False, translate=0.0, blur=2.0), seeded()).float()
    assert blurred.mean().item() == pytest.approx(images.float().mean().item(), rel=0.01)
    assert blurred.std().item() < 0.8 * images.float().std().item()
    cut = augment(torch.zeros_like(images), AugmentSpec(flip=False, translate=0.0, cutout=0.2), seeded())
    assert (cut == 127).sum((1, 2, 3)).tolist() == [36] * 64


def test_mixup_blends_each_image_and_its_target_with_the_next_ones_by_the_same_share():
    flat = torch.arange(64, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8).contiguous() * 3
    targets = torch.nn.functional.one_hot(torch.arange(64) % 2, 2).float()
    mixed, soft = mixup(flat, targets, 0.5, seeded())
    assert (mixed.dtype, mixed.shape, soft.dtype, soft.shape) == (torch.uint8, flat.shape, torch.float32, (64, 2))
    assert torch.allclose(soft.sum(1), torch.ones(64))
    other = soft.gather(1, 1 - (torch.arange(64) % 2)[:, None])[:, 0]
    assert 0 <= other.min().item() < 0.05
    assert 0.45 < other.max().item() <= 0.5
    own, before = flat[:, 0, 0, 0].float(), flat.roll(1, 0)[:, 0, 0, 0].float()
    assert torch.equal(mixed[:, 0, 0, 0], (own + other * (before - own)).round().to(torch.uint8))
    again, _ = mixup(flat, targets, 0.5, seeded())
    assert torch.equal(mixed, again)
