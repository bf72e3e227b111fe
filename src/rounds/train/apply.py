"""Changes with given parameters, carried out on a batch: on the CPU by OpenCV on bytes, which is several times as fast
there as torch on floats; elsewhere by torch. Both round to the nearest byte."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

Image = NDArray[np.uint8]


def mirror(pixels: Tensor, which: Tensor) -> Tensor:
    """Mirror left to right those images, uint8 (n, c, h, w), for which `which`, bool (n,), is true."""
    if pixels.device.type != "cpu":
        return torch.where(which[:, None, None, None], pixels.flip(-1), pixels)
    turned = which.tolist()

    def one(plane: Image, image: int, out: Image) -> None:
        if turned[image]:
            cv2.flip(plane, 1, out)
        else:
            out[:] = plane

    return _each_plane(pixels, one)


def shift(pixels: Tensor, offsets: Tensor, reach: int) -> Tensor:
    """Move each image, uint8 (n, c, h, w), by whole pixels up and left, int64 (2, n), -reach..reach; edges repeated."""
    h, w = pixels.shape[-2:]
    if pixels.device.type != "cpu":
        down, right, every = (torch.arange(n, device=pixels.device) for n in (h, w, len(pixels)))
        rows, columns = (down + offsets[0, :, None]).clamp(0, h - 1), (right + offsets[1, :, None]).clamp(0, w - 1)
        return pixels[every[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    tops, lefts = (offsets + reach).tolist()

    def one(plane: Image, image: int, out: Image) -> None:
        wide = cv2.copyMakeBorder(plane, reach, reach, reach, reach, cv2.BORDER_REPLICATE)
        out[:] = wide[tops[image] : tops[image] + h, lefts[image] : lefts[image] + w]

    return _each_plane(pixels, one)


def warp(pixels: Tensor, matrix: Tensor) -> Tensor:
    """Bilinear sampling of uint8 (n, c, s, s), edges repeated; `matrix` float32 (n, 2, 3) leads from places in the new
    image to places in the old, measured in half sides from the middle."""
    if pixels.device.type != "cpu":
        grid = functional.affine_grid(matrix, list(pixels.shape), align_corners=False)
        x = functional.grid_sample(pixels.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
        return _bytes(x)
    # the same in pixels from the middle of the first one: u = A (v + 1/2) + s/2 (1 - A 1 + b) - 1/2
    linear, shift, side = matrix[:, :, :2].double(), matrix[:, :, 2].double(), pixels.shape[-1]
    rows = linear.sum(2)
    moved = torch.cat([linear, (rows / 2 + side / 2 * (1 - rows + shift) - 0.5)[:, :, None]], 2).numpy()
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP

    def one(plane: Image, image: int, out: Image) -> None:
        cv2.warpAffine(plane, moved[image], (side, side), out, flags, cv2.BORDER_REPLICATE)

    return _each_plane(pixels, one)


def tone(pixels: Tensor, table: Tensor) -> Tensor:
    """Each byte of an image, uint8 (n, c, h, w), as the image's row of the table says: float32 (n, 256)."""
    table = _bytes(table)
    if pixels.device.type != "cpu":
        return table.gather(1, pixels.flatten(1).long()).view_as(pixels)
    tables = table.numpy()
    return _each_plane(pixels, lambda plane, image, out: cv2.LUT(plane, tables[image], out))


def means(pixels: Tensor) -> Tensor:
    """The mean of each image, uint8 (n, c, h, w), as float32 (n, 1)."""
    if pixels.device.type != "cpu":
        return pixels.flatten(1).float().mean(dim=1, keepdim=True)
    planes = [cv2.mean(plane)[0] for plane in pixels.flatten(0, 1).numpy()]
    return torch.tensor(planes).view(len(pixels), -1).mean(dim=1, keepdim=True)


def blur(pixels: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Each image, uint8 (n, c, h, w), through a normal kernel of its own width, float32 (n, 1), edges repeated."""
    radius = min(radius, pixels.shape[-1] - 1, pixels.shape[-2] - 1)
    places = torch.arange(-radius, radius + 1, device=pixels.device)
    kernels = torch.exp(-0.5 * (places / sigma) ** 2)
    kernels = kernels / kernels.sum(dim=1, keepdim=True)
    if pixels.device.type != "cpu":
        h, w = pixels.shape[-2:]
        weights = kernels.T[:, :, None, None, None]
        x = functional.pad(pixels.float(), (0, 0, radius, radius), mode="replicate")
        x = torch.stack([weight * x[..., i : i + h, :] for i, weight in enumerate(weights)]).sum(0)
        x = functional.pad(x, (radius, radius, 0, 0), mode="replicate")
        return _bytes(torch.stack([weight * x[..., i : i + w] for i, weight in enumerate(weights)]).sum(0))
    lines = kernels.numpy()

    def one(plane: Image, image: int, out: Image) -> None:
        cv2.sepFilter2D(plane, cv2.CV_8U, lines[image], lines[image], out, borderType=cv2.BORDER_REPLICATE)

    return _each_plane(pixels, one)


def _bytes(x: Tensor) -> Tensor:
    return x.round().clamp(0, 255).to(torch.uint8)


def _each_plane(pixels: Tensor, work: Callable[[Image, int, Image], object]) -> Tensor:
    """Let `work` turn each channel of each image into that of the answer: (plane, number of its image, out)."""
    planes = pixels.contiguous().view(-1, *pixels.shape[2:]).numpy()
    made = np.empty_like(planes)
    for place, (plane, out) in enumerate(zip(planes, made, strict=True)):
        work(plane, place // pixels.shape[1], out)
    return torch.from_numpy(made).view(pixels.shape)
