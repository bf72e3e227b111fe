"""Known harm done to films on purpose, to measure what a model and its watch make of it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rounds.core.errors import BadOverride, Fault

Pixels = NDArray[np.uint8]

# The severity at which a kind changes nothing.
NEUTRAL = MappingProxyType(
    {"gamma": 1.0, "blur": 0.0, "noise": 0.0, "contrast": 1.0, "brightness": 0.0, "shift": 0.0, "rotate": 0.0}
)
CORRUPTIONS = tuple(NEUTRAL)


def corrupt(pixels: Pixels, kind: str, severity: float, seed: int = 0) -> Pixels:
    """Corrupt uint8 (n, c, h, w) films; the same arguments give the same bytes, and the input stays as it was.

    gamma       gray ** severity on 0..1; neutral 1, darker above
    blur        Gaussian of that many pixels; neutral 0
    noise       Gaussian noise of that standard deviation, in 0..1 of full range; neutral 0
    contrast    distance to each film's mean times severity; neutral 1
    brightness  severity added, in -1..1 of full range; neutral 0
    shift       moved by that share of the side, in one direction drawn from the seed, black behind; neutral 0
    rotate      turned by that many degrees, anticlockwise, black behind; neutral 0

    Raises BadOverride for an unknown kind or a severity outside its range.
    """
    if kind not in NEUTRAL:
        near = difflib.get_close_matches(kind, CORRUPTIONS, 1)
        fault = Fault("unknown corruption", kind, f"one of {', '.join(CORRUPTIONS)}", kind)
        raise BadOverride(f"no corruption {kind!r}" + (f", did you mean {near[0]!r}?" if near else ""), [fault])
    lowest = {"gamma": 0.01, "blur": 0.0, "noise": 0.0, "contrast": 0.0}.get(kind, -math.inf)
    if not (math.isfinite(severity) and severity >= lowest):
        expected = "a finite number" if lowest == -math.inf else f"a finite number of at least {lowest:g}"
        fault = Fault("severity out of range", kind, expected, f"{severity:g}", f"{NEUTRAL[kind]:g} changes nothing")
        raise BadOverride(f"{kind} cannot have severity {severity:g}", [fault])
    if severity == NEUTRAL[kind]:
        return pixels.copy()
    return _KINDS[kind](pixels, severity, np.random.default_rng(seed))


def _gray(values: NDArray[np.floating[Any]]) -> Pixels:
    return np.asarray(np.clip(np.rint(values), 0, 255), dtype=np.uint8)


def _gamma(pixels: Pixels, severity: float, rng: np.random.Generator) -> Pixels:  # noqa: ARG001
    return _gray(255.0 * (np.arange(256) / 255.0) ** severity)[pixels]


def _brightness(pixels: Pixels, severity: float, rng: np.random.Generator) -> Pixels:  # noqa: ARG001
    return _gray(np.arange(256) + 255.0 * severity)[pixels]


def _contrast(pixels: Pixels, severity: float, rng: np.random.Generator) -> Pixels:  # noqa: ARG001
    mean = pixels.mean(axis=(1, 2, 3), keepdims=True, dtype=np.float32)
    return _gray((pixels - mean) * np.float32(severity) + mean)


def _noise(pixels: Pixels, severity: float, rng: np.random.Generator) -> Pixels:
    grain = rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(255.0 * severity)
    return _gray(pixels + grain)


def _blur(pixels: Pixels, severity: float, rng: np.random.Generator) -> Pixels:  # noqa: ARG001
    return _each(pixels, lambda film: cv2.GaussianBlur(film, (0, 0), severity, borderType=cv2.BORDER_REPLICATE))


def _shift(pixels: Pixels, severity: float, rng: np.random.Generator) -> Pixels:
    high, wide = pixels.shape[2:]
    angle = rng.uniform(0.0, 2 * math.pi)
    move = np.array([[1, 0, severity * wide * math.cos(angle)], [0, 1, severity * high * math.sin(angle)]])
    return _each(pixels, lambda film: cv2.warpAffine(film, move, (wide, high)))


def _rotate(pixels: Pixels, severity: float, rng: np.random.Generator) -> Pixels:  # noqa: ARG001
    high, wide = pixels.shape[2:]
    turn = cv2.getRotationMatrix2D(((wide - 1) / 2, (high - 1) / 2), severity, 1.0)
    return _each(pixels, lambda film: cv2.warpAffine(film, turn, (wide, high)))


def _each(pixels: Pixels, change: Callable[[Pixels], NDArray[Any]]) -> Pixels:
    """One plane at a time: OpenCV takes no batch, and planes need no transposing."""
    planes = pixels.reshape(-1, *pixels.shape[2:])
    out = np.empty_like(planes)
    for i, plane in enumerate(planes):
        out[i] = change(plane)
    return out.reshape(pixels.shape)


_KINDS = MappingProxyType(
    {
        "gamma": _gamma,
        "blur": _blur,
        "noise": _noise,
        "contrast": _contrast,
        "brightness": _brightness,
        "shift": _shift,
        "rotate": _rotate,
    }
)
