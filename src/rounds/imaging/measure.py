"""Five plain numbers of a film that say what a scanner does to it; the watch compares them with the reference."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

MEASURES = ("exposure", "contrast", "sharpness", "noise", "geometry")

# Rec. 601 in 1/256, as OpenCV's gray.
_LUMA = np.array([77, 150, 29], dtype=np.uint32)
_LOW, _HIGH = 0.05, 0.95


def measure(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Measure uint8 (n, c, h, w) films: float32 (n, 5) in the order of MEASURES, each finite.

    Every sum is of whole numbers and exact, so that a film measures the same alone and in any batch.

    exposure   mean gray, 0..1
    contrast   5th to 95th percentile of gray, 0..1
    sharpness  root mean square gradient over contrast, in 1/pixel
    noise      Immerkaer's estimate of the noise's standard deviation, in 0..1 of full range
               (Fast Noise Variance Estimation, CVIU 64, 1996)
    geometry   radius of gyration of the gray mass about the image's centre over half the side, 0..1.5
    """
    n, _, high, wide = pixels.shape
    if n == 0:
        return np.empty((0, len(MEASURES)), dtype=np.float32)
    gray = _gray(pixels)
    total, inertia = _mass(gray)
    exposure = total / (255.0 * high * wide)
    contrast = _spread(gray) / 255.0
    signed = gray.astype(np.int16)
    sharpness = _gradient(signed) / 255.0 / np.maximum(contrast, 1 / 255.0)
    geometry = np.sqrt(inertia / np.maximum(total, 1.0))
    return np.stack([exposure, contrast, sharpness, _noise(signed) / 255.0, geometry], axis=1).astype(np.float32)


def _gray(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if pixels.shape[1] == 1:
        return pixels[:, 0]
    gray: NDArray[np.uint8] = (np.einsum("nchw,c->nhw", pixels, _LUMA, dtype=np.uint32) >> 8).astype(np.uint8)
    return gray


def _spread(gray: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The distance of the two outer percentiles, from one histogram per film."""
    n = gray.shape[0]
    flat = gray.reshape(n, -1)
    shifted = flat + (np.arange(n, dtype=np.int64) * 256)[:, None]
    below = np.bincount(shifted.ravel(), minlength=256 * n).reshape(n, 256).cumsum(1)
    low = (below <= _LOW * flat.shape[1]).sum(1)
    high = (below <= _HIGH * flat.shape[1]).sum(1)
    return np.asarray(high - low, dtype=np.float64)


def _gradient(gray: NDArray[np.int16]) -> NDArray[np.float64]:
    """Root mean square of the central differences, in gray levels a pixel."""
    n = gray.shape[0]
    across = (gray[:, 1:-1, 2:] - gray[:, 1:-1, :-2]).reshape(n, -1).astype(np.float64)
    down = (gray[:, 2:, 1:-1] - gray[:, :-2, 1:-1]).reshape(n, -1).astype(np.float64)
    energy = np.einsum("ij,ij->i", across, across) + np.einsum("ij,ij->i", down, down)
    return np.asarray(np.sqrt(energy / (4.0 * max(1, across.shape[1]))), dtype=np.float64)


def _noise(gray: NDArray[np.int16]) -> NDArray[np.float64]:
    """Mean absolute answer to the difference of two Laplacians, which plain edges leave nearly untouched."""
    n = gray.shape[0]
    across = gray[:, :, 2:] + gray[:, :, :-2] - 2 * gray[:, :, 1:-1]
    both = across[:, 2:] + across[:, :-2] - 2 * across[:, 1:-1]
    count = max(1, both[0].size)
    answer = np.abs(both).reshape(n, -1).sum(1, dtype=np.int64)
    return np.asarray(answer * (np.sqrt(np.pi / 2) / 6.0 / count), dtype=np.float64)


def _mass(gray: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The gray mass, and the same times its squared distance from the centre, both sides from -1 to 1."""
    high, wide = gray.shape[1:]
    # The sums of lines are whole numbers below 2^24: exact in float32 on images of up to 65,000 pixels a side.
    values = gray.astype(np.float32)
    down, across = (values @ np.ones(wide, np.float32)).astype(np.float64), values.sum(1).astype(np.float64)
    inertia = down @ _squares(high) / high**2 + across @ _squares(wide) / wide**2
    return down.sum(1), np.asarray(inertia, dtype=np.float64)


@lru_cache(maxsize=16)
def _squares(side: int) -> NDArray[np.float64]:
    return np.asarray((2 * np.arange(side) + 1 - side) ** 2, dtype=np.float64)
