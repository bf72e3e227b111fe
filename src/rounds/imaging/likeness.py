"""Whether two films are one picture: a perceptual signature that finds candidates, and a comparison of pixels that
decides.

The signature is the low part of a discrete cosine transform of the film at 32 x 32 pixels (as pHash: Zauner,
Implementation and benchmarking of perceptual image hash functions, 2010); a left-right mirrored film has the same
coefficients with the sign of the odd ones changed. Every step is whole-number arithmetic, or sums of whole numbers
below 2**53 in float64, which are exact in any order: the same pixels give the same verdict on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Signatures = NDArray[np.int16]

SIDE = 32
WIDTH = 64
# Coefficients are kept in quarters of the orthonormal transform's unit, which int16 holds: at most 4 * 32 * 127.5.
_QUARTERS = 4
_COSINE = 8192
_GRAY = 16
_STRIP = 256

# One picture differs from its copy by at most this many gray levels (root mean square), or by this share of its own
# contrast where that is more; never by more than the second share, since in a dark film 4 levels are much. In one place
# (the mean of 3 x 3 cells) it may be twice that. Measured on chest films and Fashion-MNIST: see `same_picture`.
LEVELS = 4.0
SHARE = 0.07
AT_MOST = 0.15
SHIFT = 4.0


class Look(NamedTuple):
    """What one decoded film gives away: a digest of its pixels, its size, its signature (int16 (64,) as bytes), the
    mean gray, and by 32 x 32 cells how far gray levels range (0..255) and which share of the area is uniform border."""

    pixels: str
    width: int
    height: int
    signature: bytes
    mean: float
    span: float
    border: float


class Likeness(NamedTuple):
    """How a film differs from another that shows the same picture, in gray levels: root mean square after the shift is
    taken out, and the shift; `mirrored` says left against right, `resized` that the sizes differ."""

    difference: float
    shift: float
    mirrored: bool
    resized: bool

    def __str__(self) -> str:
        parts = ["mirrored"] * self.mirrored + ["resized"] * self.resized
        if abs(self.shift) >= 0.75:
            parts.append(f"shifted by {self.shift:+.1f} gray levels")
        return ", ".join(parts) or "encoded again"


def look(array: Pixels) -> Look:
    """Look at uint8 (h, w) or (h, w, 3) RGB pixels."""
    total = hashlib.blake2b(repr(array.shape).encode(), digest_size=16)
    total.update(np.ascontiguousarray(array).data)
    cells = reduced(array, SIDE, SIDE)
    mean, span = float(cells.sum()) / (cells.size * _GRAY), float(cells.max() - cells.min()) / _GRAY
    high, wide = array.shape[:2]
    return Look(total.hexdigest(), wide, high, _signature(cells).tobytes(), mean, span, _border(cells))


def reduced(array: Pixels, high: int, wide: int) -> NDArray[np.int64]:
    """The film as gray means of area, in 1/16 gray level: int64 (high, wide) of uint8 (h, w) or (h, w, 3) RGB; exact.

    Cells share pixels at their borders by area, so a film may also grow.
    """
    gray = array if array.ndim == 2 else np.asarray(cv2.cvtColor(array, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    h, w = gray.shape
    total = np.zeros((high, wide))
    across = _overlap(w, wide).T
    down = _overlap(h, high)
    for top in range(0, h, _STRIP):
        total += down[:, top : top + _STRIP] @ (gray[top : top + _STRIP].astype(np.float64) @ across)
    return np.asarray((total.astype(np.int64) * 32 + h * w) // (2 * h * w))


@lru_cache(maxsize=64)
def _overlap(pixels: int, cells: int) -> NDArray[np.float64]:
    """How much of each pixel lies in each cell, in 1/cells of a pixel: (cells, pixels), rows sum to `pixels`."""
    edges = np.arange(pixels + 1, dtype=np.int64) * cells
    bounds = np.arange(cells + 1, dtype=np.int64) * pixels
    low = np.maximum(edges[None, :-1], bounds[:-1, None])
    high = np.minimum(edges[None, 1:], bounds[1:, None])
    return np.asarray(np.maximum(high - low, 0), dtype=np.float64)


@lru_cache(maxsize=1)
def _cosines() -> NDArray[np.int64]:
    """The first 12 rows of the orthonormal transform of 32 points, in 1/2**13."""
    k, x = np.arange(12)[:, None], np.arange(SIDE)[None]
    rows = np.cos(np.pi * k * (2 * x + 1) / (2 * SIDE)) * np.sqrt(2.0 / SIDE)
    return np.asarray(np.rint(rows * _COSINE), dtype=np.int64)


# The 64 lowest frequencies but the mean, by their sum, then by the vertical one: int64 (64,) each.
_ORDER = sorted(((u, v) for u in range(12) for v in range(12) if u + v), key=lambda uv: (uv[0] + uv[1], uv[0]))[:WIDTH]
_DOWN = np.array([u for u, _ in _ORDER])
_ACROSS = np.array([v for _, v in _ORDER])
ODD = _ACROSS % 2 == 1


def _signature(cells: NDArray[np.int64]) -> Signatures:
    """The 64 lowest cosine coefficients without the mean: int16 (64,), in quarters of the orthonormal unit."""
    rows = _cosines()
    found = (rows @ cells @ rows.T)[_DOWN, _ACROSS]
    unit = _COSINE * _COSINE * _GRAY // _QUARTERS
    return np.asarray((2 * found + unit) // (2 * unit), dtype=np.int16)


def mirrored(signatures: Signatures) -> Signatures:
    """The signatures (n, 64) of the same films, left against right."""
    return np.where(ODD, -signatures, signatures).astype(np.int16)


def least_difference(one: Signatures, other: Signatures) -> NDArray[np.float64]:
    """A lower bound (n,) on the difference, in gray levels, of the films behind signatures (n, 64), by Parseval."""
    apart = one.astype(np.float64) - other
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", apart, apart)) / (_QUARTERS * SIDE), dtype=np.float64)


def contrast(signatures: Signatures) -> NDArray[np.float64]:
    """The standard deviation (n,) of gray that the signatures (n, 64) know of: at most that of the films."""
    return least_difference(signatures, np.zeros_like(signatures))


def limit(contrast: NDArray[np.float64]) -> NDArray[np.float64]:
    """The difference, in gray levels, up to which films of that contrast are one picture."""
    return np.asarray(np.minimum(np.maximum(LEVELS, SHARE * contrast), AT_MOST * contrast), dtype=np.float64)


def same_picture(one: Pixels, other: Pixels, *, mirror: bool = False) -> Likeness | None:
    """Compare two films, uint8 (h, w) or (h, w, 3) RGB, of any sizes; None where they show different pictures.

    Both are brought to half the smaller one's side, but 32 to 128 cells (28 for films of 28 pixels), since
    interpolations differ in the finest detail; then a common shift of gray is taken out, up to 4 levels.
    """
    sides = (*one.shape[:2], *other.shape[:2])
    side = min(min(sides), max(SIDE, min(4 * SIDE, min(sides) // 2)))
    a, b = reduced(one, side, side), reduced(other, side, side)
    a = a[:, ::-1] if mirror else a
    apart = b - a
    shift = float(apart.sum()) / (apart.size * _GRAY)
    spread = min(_deviation(a), _deviation(b))
    difference, allowed = _deviation(apart), float(limit(np.array(spread)))
    if abs(shift) > SHIFT or difference > allowed or _in_one_place(apart) > 2 * allowed:
        return None
    if one.ndim == other.ndim == 3 and not _same_colours(one, other, side, mirror, 2 * allowed):
        return None
    return Likeness(difference, shift, mirror, one.shape[:2] != other.shape[:2])


def _deviation(cells: NDArray[np.int64]) -> float:
    """The standard deviation of cells in 1/16 gray level, in gray levels: from whole sums, so exact until the root."""
    n, total, squares = cells.size, int(cells.sum()), int((cells * cells).sum())
    return float(np.sqrt(n * squares - total * total)) / (n * _GRAY)


def _in_one_place(apart: NDArray[np.int64]) -> float:
    """The largest mean of 3 x 3 cells, in gray levels, after the common shift."""
    high, wide = apart.shape
    sums = sum(apart[i : high - 2 + i, j : wide - 2 + j] for i in range(3) for j in range(3))
    centred = np.asarray(sums, np.int64) * apart.size - 9 * int(apart.sum())
    return float(np.abs(centred).max(initial=0)) / (9 * apart.size * _GRAY)


def _same_colours(one: Pixels, other: Pixels, side: int, mirror: bool, allowed: float) -> bool:
    """Whether no colour of two RGB films differs by more than gray may: things of one shape come in many colours."""
    for colour in range(3):
        a, b = (reduced(np.ascontiguousarray(film[..., colour]), side, side) for film in (one, other))
        apart = b - (a[:, ::-1] if mirror else a)
        if float(np.sqrt(float((apart * apart).sum()) / apart.size)) / _GRAY > allowed + SHIFT:
            return False
    return True


def _border(cells: NDArray[np.int64]) -> float:
    """The share of the area that lies in uniform rows and columns at the edges (gray levels range by at most 3)."""
    down, across = (np.ptp(cells, axis=axis) > 3 * _GRAY for axis in (1, 0))
    if not down.any() or not across.any():
        return 1.0
    inner = [int(busy.size - busy.argmax() - busy[::-1].argmax()) for busy in (down, across)]
    return 1.0 - inner[0] * inner[1] / cells.size


def signatures(looks: Sequence[Look]) -> Signatures:
    """The signatures of films that were looked at: int16 (n, 64)."""
    joined = np.frombuffer(b"".join(look.signature for look in looks), np.int16)
    return joined.reshape(len(looks), WIDTH)
