"""What a small film looks like in numbers, for cheap classifiers: directions of edges by place, and coarse gray."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from rounds.core.specs import ImagingSpec

# The films that `texture` takes, the same as a network sees by default, so that one pixel cache serves both.
TEXTURED = ImagingSpec(28, 1)

_CELL = 7
_DIRECTIONS = 9
_COARSE = 14
_CLIP = 0.2


def texture(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Describe uint8 (n, 1, 28, 28) films: float32 (n, 520).

    Histograms of oriented gradients (Dalal and Triggs, CVPR 2005: 9 directions, cells of 7 pixels, blocks of 2 x 2
    cells, clipped norms), and twice the gray of 14 x 14 means, 0..2.
    """
    gray = pixels[:, 0]
    coarse = gray.reshape(len(gray), _COARSE, 2, _COARSE, 2).mean((2, 4), dtype=np.float32) * np.float32(2 / 255)
    return np.concatenate([_gradients(gray), coarse.reshape(len(gray), -1)], axis=1)


def thumbnail(array: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    """A film to show, uint8 (h, w) or (h, w, 3): its longer side is `longest` pixels, shrunk by area or grown by whole
    pixels."""
    high, wide = array.shape[:2]
    scale = longest / max(high, wide)
    rule = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    size = max(1, round(wide * scale)), max(1, round(high * scale))
    return np.asarray(cv2.resize(array, size, interpolation=rule), dtype=np.uint8)


def _gradients(gray: NDArray[np.uint8]) -> NDArray[np.float32]:
    n, side = gray.shape[:2]
    values, cells = gray.astype(np.float32), side // _CELL
    across, down = np.zeros_like(values), np.zeros_like(values)
    across[:, :, 1:-1] = values[:, :, 2:] - values[:, :, :-2]
    down[:, 1:-1] = values[:, 2:] - values[:, :-2]
    strength = np.hypot(across, down)
    turn = np.mod(np.arctan2(down, across), np.pi) * np.float32(_DIRECTIONS / np.pi)
    floor = np.floor(turn)
    low, share = floor.astype(np.int8) % _DIRECTIONS, turn - floor
    parts = np.empty((n, cells, cells, _DIRECTIONS), np.float32)
    for direction in range(_DIRECTIONS):
        here = np.where(low == direction, 1 - share, 0) + np.where((low + 1) % _DIRECTIONS == direction, share, 0)
        parts[..., direction] = (strength * here).reshape(n, cells, _CELL, cells, _CELL).sum((2, 4))
    blocks = np.concatenate([parts[:, :-1, :-1], parts[:, :-1, 1:], parts[:, 1:, :-1], parts[:, 1:, 1:]], axis=-1)
    blocks = np.minimum(blocks / np.sqrt((blocks**2).sum(-1, keepdims=True) + 1.0), _CLIP)
    blocks /= np.sqrt((blocks**2).sum(-1, keepdims=True) + 1e-3)
    return np.asarray(blocks.reshape(n, -1), dtype=np.float32)
