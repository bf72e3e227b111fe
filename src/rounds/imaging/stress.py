"""Validation films as another hospital might have taken them, to choose models and thresholds that keep elsewhere.

The changes are those between X-ray systems (tone curve, window, local equalisation, edge enhancement, anode heel,
collimation, detector grain, coarse detector, positioning, compression), written apart from the training augmentation on
purpose: a model that was shown the same code in training would win without being any better.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Ints = NDArray[np.int64]
# One plane uint8 (h, w), how strong in 0..1, and what is drawn beside it.
Scanner = Callable[[Pixels, float, np.random.Generator], Pixels]


def stress(pixels: Pixels, labels: Ints, *, seed: int) -> tuple[Pixels, Ints]:
    """The stress set of films uint8 (n, c, s, s) with labels int64 (n,): uint8 (m, c, s, s) and places int64 (m,).

    Row i is film `places[i]`, seen by one of SCANNERS at a drawn strength; its label is `labels[places[i]]`. Every
    class has as many rows as the largest: films of smaller classes come again by other scanners, so intervals must be
    drawn over films or subjects, not rows. The same arguments give the same bytes. No film gives an empty set.
    """
    random = np.random.default_rng(seed)
    places = _evenly(labels, random)
    names = list(SCANNERS)
    offset = random.integers(0, len(names), len(labels))  # each film meets the scanners in turn, from its own start
    seen = np.zeros(len(labels), np.int64)
    out: Pixels = np.empty((len(places), *pixels.shape[1:]), np.uint8)
    for row, place in enumerate(places):
        scanner = SCANNERS[names[(offset[place] + seen[place]) % len(names)]]
        seen[place] += 1
        out[row] = _through(scanner, pixels[place], float(random.uniform(0.3, 1.0)), int(random.integers(2**32)))
    return out, places


def _evenly(labels: Ints, random: np.random.Generator) -> Ints:
    """Places of films, every class as often as the largest: all its films, then again from the start, in drawn order;
    sorted."""
    if not len(labels):
        return np.empty(0, np.int64)
    most = int(np.bincount(labels).max())
    drawn = [np.resize(random.permutation(np.flatnonzero(labels == c)), most) for c in np.unique(labels)]
    return np.sort(np.concatenate(drawn)).astype(np.int64)


def _through(scanner: Scanner, film: Pixels, strength: float, seed: int) -> Pixels:
    """All planes of one film uint8 (c, h, w) get the same treatment."""
    planes = [scanner(np.ascontiguousarray(plane), strength, np.random.default_rng(seed)) for plane in film]
    return np.stack(planes)


def _curve(shape: Callable[[NDArray[np.float64], float], NDArray[np.float64]]) -> Scanner:
    """A tone curve: gray 0..1 to gray, by table."""

    def scan(film: Pixels, strength: float, random: np.random.Generator) -> Pixels:  # noqa: ARG001
        return _gray(255 * shape(np.arange(256) / 255, strength))[film]

    return scan


def _hard(x: NDArray[np.float64], strength: float) -> NDArray[np.float64]:
    """A steep film: an S through the middle."""
    slope = 2 + 3 * strength
    return np.asarray((np.tanh(slope * (x - 0.5)) / np.tanh(slope / 2) + 1) / 2)


def _logarithmic(x: NDArray[np.float64], strength: float) -> NDArray[np.float64]:
    """Dark tones spread, as a logarithmic detector does."""
    gain = 1 + 6 * strength
    return np.asarray(np.log1p(gain * x) / np.log1p(gain))


def _exponential(x: NDArray[np.float64], strength: float) -> NDArray[np.float64]:
    """Bright tones spread: the inverse."""
    gain = 1 + 6 * strength
    return np.asarray(np.expm1(x * np.log1p(gain)) / gain)


def _flat(x: NDArray[np.float64], strength: float) -> NDArray[np.float64]:
    """A wide window: veiled by scatter, black is gray and white is dull."""
    return 0.25 * strength + x * (1 - 0.45 * strength)


def _narrow(film: Pixels, strength: float, random: np.random.Generator) -> Pixels:
    """A narrow window over the film's own tones: what lies outside clips to black and white."""
    cut = 100 * strength * random.uniform(0.01, 0.05, 2)
    low, high = np.percentile(film, [cut[0], 100 - cut[1]])
    return _gray((film.astype(np.float64) - low) * (255 / max(high - low, 1.0)))


def _equalised(film: Pixels, strength: float, random: np.random.Generator) -> Pixels:  # noqa: ARG001
    """Local equalisation (CLAHE, Zuiderveld 1994), as vendors apply it."""
    tiled = cv2.createCLAHE(clipLimit=1 + 2 * strength, tileGridSize=(4, 4)).apply(film)
    return np.asarray(tiled, np.uint8)


def _enhanced(film: Pixels, strength: float, random: np.random.Generator) -> Pixels:  # noqa: ARG001
    """Edges enhanced by an unsharp mask."""
    values = film.astype(np.float64)
    return _gray(values + 2 * strength * (values - _soft(values, 2 * _pixel(film))))


def _unsharp(film: Pixels, strength: float, random: np.random.Generator) -> Pixels:  # noqa: ARG001
    """Out of focus, or moved."""
    return _gray(_soft(film.astype(np.float64), 0.9 * strength * _pixel(film)))


def _coarse(film: Pixels, strength: float, random: np.random.Generator) -> Pixels:  # noqa: ARG001
    """A coarser detector: shrunk without care, and enlarged."""
    high, wide = film.shape
    shrink = 1 + 0.8 * strength
    small = cv2.resize(film, (round(wide / shrink), round(high / shrink)), interpolation=cv2.INTER_NEAREST)
    return np.asarray(cv2.resize(small, (wide, high), interpolation=cv2.INTER_CUBIC), np.uint8)


def _grainy(film: Pixels, strength: float, random: np.random.Generator) -> Pixels:
    """A low dose: quantum noise, stronger where little light came through."""
    photons = 2000 / (1 + 3 * strength)
    return _gray(random.poisson((film / 255 + 0.05) * photons) / photons * 255 - 0.05 * 255)


def _heel(film: Pixels, strength: float, random: np.random.Generator) -> Pixels:
    """The anode's heel: brightness falls off in one direction."""
    angle = random.uniform(0, 2 * math.pi)
    y, x = (np.linspace(-1, 1, side) for side in film.shape)
    fall = math.cos(angle) * x[None, :] + math.sin(angle) * y[:, None]
    return _gray(film * (1 + 0.3 * strength * fall))


def _collimated(film: Pixels, strength: float, random: np.random.Generator) -> Pixels:
    """A smaller field: black shutters on all sides, each its own."""
    out = np.zeros_like(film)
    top, bottom, left, right = (
        round(share * side)
        for share, side in zip(0.12 * strength * random.random(4), np.repeat(film.shape, 2), strict=True)
    )
    high, wide = film.shape
    out[top : high - bottom, left : wide - right] = film[top : high - bottom, left : wide - right]
    return out


def _positioned(film: Pixels, strength: float, random: np.random.Generator) -> Pixels:
    """Another position: the corners move on their own, as by turning, tilting and coming nearer; edges repeated."""
    high, wide = film.shape
    corners = np.array([[0, 0], [wide - 1, 0], [wide - 1, high - 1], [0, high - 1]], np.float32)
    moved = corners + strength * random.uniform(-0.09, 0.09, (4, 2)) * (wide, high)
    matrix = cv2.getPerspectiveTransform(moved.astype(np.float32), corners)
    found = cv2.warpPerspective(film, matrix, (wide, high), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found, np.uint8)


def _compressed(film: Pixels, strength: float, random: np.random.Generator) -> Pixels:  # noqa: ARG001
    """Sent as a small JPEG."""
    done, data = cv2.imencode(".jpg", film, [cv2.IMWRITE_JPEG_QUALITY, round(60 - 45 * strength)])
    assert done, "OpenCV writes every uint8 plane as JPEG"
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)


def _pixel(film: Pixels) -> float:
    """A pixel of a film of 28, in pixels of this one: blur grows with the root of the size, as detectors' does."""
    return math.sqrt(film.shape[1] / 28)


def _soft(values: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    blurred: NDArray[Any] = cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return blurred


def _gray(values: NDArray[np.floating[Any]]) -> Pixels:
    return np.asarray(np.clip(np.rint(values), 0, 255), dtype=np.uint8)


SCANNERS: MappingProxyType[str, Scanner] = MappingProxyType(
    {
        "hard": _curve(_hard),
        "grainy": _grainy,
        "logarithmic": _curve(_logarithmic),
        "unsharp": _unsharp,
        "exponential": _curve(_exponential),
        "positioned": _positioned,
        "flat": _curve(_flat),
        "enhanced": _enhanced,
        "narrow": _narrow,
        "collimated": _collimated,
        "heel": _heel,
        "coarse": _coarse,
        "equalised": _equalised,
        "compressed": _compressed,
    }
)
