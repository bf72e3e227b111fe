"""Random changes to a whole batch at once, as tensors; never image by image."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional

from rounds.core.specs import AugmentSpec


def augment(pixels: Tensor, spec: AugmentSpec, generator: Generator) -> Tensor:
    """The batch, each image changed at random within the ranges of the spec; uint8 (n, c, h, w) to the same.

    flip: mirrored left to right, every second image on average. translate: up to this share of the side, edges
    repeated. rotate: up to so many degrees either way. scale: up to this share larger or smaller. gamma, contrast: a
    factor of up to 1 + the value, either way. brightness: up to this share of white, either way. noise: normal, up to
    this share of white. blur: normal, up to so many pixels. cutout: a gray square with this share of the side. Pixels
    and generator are on one device. (mixup changes labels as well: see there.)
    """
    if spec.flip:
        pixels = _flip(pixels, generator)
    if spec.translate > 0 and not (spec.rotate > 0 or spec.scale > 0):
        pixels = _translate(pixels, round(spec.translate * pixels.shape[-1]), generator)
    if not any((spec.rotate, spec.scale, spec.gamma, spec.contrast, spec.brightness, spec.blur, spec.noise)):
        return _cutout(pixels, spec.cutout, generator) if spec.cutout > 0 else pixels
    x = pixels.float()
    if spec.rotate > 0 or spec.scale > 0:
        x = _warp(x, spec, generator)
    if spec.blur > 0:
        x = _blur(x, spec.blur, generator)
    if spec.gamma > 0:
        x = 255 * (x / 255).clamp(1e-3, 1) ** _factor(x, spec.gamma, generator)
    if spec.contrast > 0:
        centre = x.mean(dim=(1, 2, 3), keepdim=True)
        x = centre + (x - centre) * _factor(x, spec.contrast, generator)
    if spec.brightness > 0:
        x = x + 255 * spec.brightness * _uniform(x, generator)
    if spec.noise > 0:
        sigma = 255 * spec.noise * _uniform(x, generator).abs()
        x = x + sigma * torch.randn(x.shape, generator=generator, device=x.device)
    x = x.round_().clamp_(0, 255).to(torch.uint8)
    return _cutout(x, spec.cutout, generator) if spec.cutout > 0 else x


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
    """One number an image, -1..1, float32 (n, 1, 1, 1)."""
    return torch.rand((len(x), 1, 1, 1), generator=generator, device=x.device) * 2 - 1


def _factor(x: Tensor, reach: float, generator: Generator) -> Tensor:
    """One factor an image, from 1 / (1 + reach) to 1 + reach, even on the logarithmic scale."""
    return torch.exp(math.log1p(reach) * _uniform(x, generator))


def _flip(pixels: Tensor, generator: Generator) -> Tensor:
    mirrored = torch.rand((len(pixels), 1, 1, 1), generator=generator, device=pixels.device) < 0.5
    return torch.where(mirrored, pixels.flip(-1), pixels)


def _translate(pixels: Tensor, reach: int, generator: Generator) -> Tensor:
    """Shift each image by whole pixels; gathers from the padded batch through an index, without a copy per shift."""
    n, _, h, w = pixels.shape
    device = pixels.device
    dy, dx = torch.randint(0, 2 * reach + 1, (2, n), generator=generator, device=device)
    rows = (dy[:, None] + torch.arange(h, device=device) - reach).clamp(0, h - 1)
    columns = (dx[:, None] + torch.arange(w, device=device) - reach).clamp(0, w - 1)
    return pixels[torch.arange(n, device=device)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(
        0, 3, 1, 2
    )


def _warp(x: Tensor, spec: AugmentSpec, generator: Generator) -> Tensor:
    """Rotate, scale and shift in one bilinear sampling, edges repeated."""
    turn, size, dx, dy = torch.rand((4, len(x)), generator=generator, device=x.device) * 2 - 1
    angle = math.radians(spec.rotate) * turn
    zoom = torch.exp(-math.log1p(spec.scale) * size)
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    reach = 2 * spec.translate  # affine_grid measures in half sides
    matrix = torch.stack([cos, -sin, reach * dx, sin, cos, reach * dy], dim=1).view(-1, 2, 3)
    grid = functional.affine_grid(matrix, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _blur(x: Tensor, sigma: float, generator: Generator) -> Tensor:
    """Blur each image with its own normal kernel, first down, then across."""
    radius = min(math.ceil(2 * sigma), x.shape[-1] - 1, x.shape[-2] - 1)
    width = sigma * _uniform(x, generator).abs().clamp(min=1e-3)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=x.device) / width) ** 2)
    weights = (kernel / kernel.sum(dim=-1, keepdim=True)).unbind(dim=-1)
    h, w = x.shape[-2:]
    padded = functional.pad(x, (0, 0, radius, radius), mode="replicate")
    x = torch.stack([weight[..., None] * padded[..., i : i + h, :] for i, weight in enumerate(weights)]).sum(0)
    padded = functional.pad(x, (radius, radius, 0, 0), mode="replicate")
    return torch.stack([weight[..., None] * padded[..., i : i + w] for i, weight in enumerate(weights)]).sum(0)


def _cutout(pixels: Tensor, share: float, generator: Generator) -> Tensor:
    n, _, h, w = pixels.shape
    side = max(1, round(share * min(h, w)))
    device = pixels.device
    top = torch.randint(0, h - side + 1, (n, 1, 1, 1), generator=generator, device=device)
    left = torch.randint(0, w - side + 1, (n, 1, 1, 1), generator=generator, device=device)
    y, x = torch.arange(h, device=device)[:, None], torch.arange(w, device=device)[None, :]
    inside = (y >= top) & (y < top + side) & (x >= left) & (x < left + side)
    return pixels.masked_fill(inside, 127)
