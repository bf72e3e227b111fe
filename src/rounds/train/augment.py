"""Random changes to a whole batch at once: what is drawn here, `apply` carries out on the device of the pixels."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from rounds.core.specs import AugmentSpec
from rounds.train.apply import blur, means, mirror, shift, tone, warp

_WINDOWS = 2**16


def augment(pixels: Tensor, spec: AugmentSpec, generator: Generator) -> Tensor:
    """The batch, each image changed at random within the ranges of the spec; uint8 (n, c, h, w) to the same.

    flip: mirrored left to right, every second image on average. translate: up to this share of the side, edges
    repeated. rotate: up to so many degrees either way. scale: up to this share larger or smaller. gamma, contrast: a
    factor of up to 1 + the value, either way. brightness: up to this share of white, either way. noise: normal, up to
    this share of white. blur: normal, up to so many pixels. cutout: a gray square with this share of the side. Pixels
    and generator are on one device. (mixup changes labels as well: see there.)
    """
    mirrored = torch.rand(len(pixels), generator=generator, device=pixels.device) < (0.5 if spec.flip else 0.0)
    if spec.rotate > 0 or spec.scale > 0:
        matrix = _affine(pixels, spec, generator)
        matrix[:, 0] *= torch.where(mirrored, -1.0, 1.0)[:, None]
        pixels = warp(pixels, matrix)
    elif spec.flip:
        pixels = mirror(pixels, mirrored)
    if spec.translate > 0 and not (spec.rotate > 0 or spec.scale > 0):
        reach = round(spec.translate * pixels.shape[-1])
        offsets = torch.randint(-reach, reach + 1, (2, len(pixels)), generator=generator, device=pixels.device)
        pixels = shift(pixels, offsets, reach)
    if spec.blur > 0:
        pixels = blur(pixels, spec.blur * _uniform(pixels, generator).abs().clamp(min=1e-3), math.ceil(2 * spec.blur))
    if spec.gamma > 0:
        pixels = tone(pixels, 255 * (_levels(pixels) / 255) ** _factor(pixels, spec.gamma, generator))
    if spec.contrast > 0 or spec.brightness > 0:
        pixels = tone(pixels, _lit(pixels, spec, generator))
    if spec.noise > 0:
        pixels = _noise(pixels, spec.noise, generator)
    return _cutout(pixels, spec.cutout, generator) if spec.cutout > 0 else pixels


def mixup(pixels: Tensor, targets: Tensor, share: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Blend each image, uint8 (n, c, h, w), and its target, float32 (n, k), with the next one's, which gets up to this
    share, 0..0.5.

    A share of 0.5 is the method of Zhang, Cisse, Dauphin and Lopez-Paz (2018, arXiv 1710.09412) with alpha 1.
    """
    other = share * torch.rand((len(pixels), 1), generator=generator, device=pixels.device)
    x, wide = pixels.float(), other[:, :, None, None]
    blended = (x + wide * (x.roll(1, 0) - x)).round_().to(torch.uint8)
    return blended, targets + other * (targets.roll(1, 0) - targets)


def _uniform(x: Tensor, generator: Generator) -> Tensor:
    """One number an image, -1..1, float32 (n, 1)."""
    return torch.rand((len(x), 1), generator=generator, device=x.device) * 2 - 1


def _levels(x: Tensor) -> Tensor:
    return torch.arange(256, dtype=torch.float32, device=x.device)


def _lit(pixels: Tensor, spec: AugmentSpec, generator: Generator) -> Tensor:
    """Contrast about each image's mean, and brightness: float32 (n, 256)."""
    table = _levels(pixels).expand(len(pixels), -1)
    if spec.contrast > 0:
        centre = means(pixels)
        table = centre + (table - centre) * _factor(pixels, spec.contrast, generator)
    return table + 255 * spec.brightness * _uniform(pixels, generator) if spec.brightness > 0 else table


def _noise(pixels: Tensor, most: float, generator: Generator) -> Tensor:
    """Add normal noise of each image's own strength: windows, at random, of one long draw for the whole batch."""
    sigma, size = 255 * most * _uniform(pixels, generator).abs(), pixels[0].numel()
    starts = torch.randint(0, _WINDOWS, (len(pixels),), generator=generator, device=pixels.device).tolist()
    draw = torch.randn(size + _WINDOWS, generator=generator, device=pixels.device)
    noise = torch.stack([draw[start : start + size] for start in starts])
    return noise.mul_(sigma).add_(pixels.flatten(1)).round_().clamp_(0, 255).to(torch.uint8).view_as(pixels)


def _factor(x: Tensor, reach: float, generator: Generator) -> Tensor:
    """One factor an image, from 1 / (1 + reach) to 1 + reach, even on the logarithmic scale."""
    return torch.exp(math.log1p(reach) * _uniform(x, generator))


def _affine(x: Tensor, spec: AugmentSpec, generator: Generator) -> Tensor:
    """Turn, zoom and shift of each image, from places in the new to places in the old, in half sides: (n, 2, 3)."""
    turn, size, dx, dy = torch.rand((4, len(x)), generator=generator, device=x.device) * 2 - 1
    angle = math.radians(spec.rotate) * turn
    zoom = torch.exp(-math.log1p(spec.scale) * size)
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    reach = 2 * spec.translate
    return torch.stack([cos, -sin, reach * dx, sin, cos, reach * dy], dim=1).view(-1, 2, 3)


def _cutout(pixels: Tensor, share: float, generator: Generator) -> Tensor:
    n, _, h, w = pixels.shape
    side = max(1, round(share * min(h, w)))
    device = pixels.device
    top = torch.randint(0, h - side + 1, (n, 1, 1, 1), generator=generator, device=device)
    left = torch.randint(0, w - side + 1, (n, 1, 1, 1), generator=generator, device=device)
    y, x = torch.arange(h, device=device)[:, None], torch.arange(w, device=device)[None, :]
    inside = (y >= top) & (y < top + side) & (x >= left) & (x < left + side)
    return pixels.masked_fill(inside, 127)
