"""The chest of one phantom subject: its shapes in body coordinates, drawn as attenuation in one pose.

Body coordinates: x from -1 to 1 to the image's right, y from -1 to 1 downwards, the spine at x = 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]
Plane = NDArray[np.float32]
Canvas = NDArray[np.uint8]

# Every length a subject is born with, and its range; drawn once, in this order.
_RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "chest": (0.88, 1.04),
        "lung_top": (-0.78, -0.68),
        "lung_bottom": (0.30, 0.46),
        "dome_step": (-0.03, 0.09),
        "heart_x": (0.07, 0.15),
        "heart_wide": (0.22, 0.34),
        "heart_high": (0.22, 0.32),
        "mediastinum": (0.11, 0.17),
        "knob": (0.05, 0.10),
        "rib_gap": (0.135, 0.165),
        "rib_sag": (0.08, 0.20),
        "clavicle": (-0.74, -0.62),
        "habitus": (0.75, 1.35),
        "bone": (0.65, 1.35),
        "lung_air": (0.80, 1.20),
        "vessels": (0.5, 1.5),
        "breast": (-0.9, 1.0),
        "breast_low": (0.05, 0.35),
        "hilum": (0.6, 1.5),
        "stomach": (-0.5, 1.0),
        "device": (0.0, 1.0),
    }
)
_LOWS, _HIGHS = np.array(list(_RANGES.values())).T
_SHIFT = 4
_SUPER = 2

# One lung of a chest of usual size: apex, outer wall, costophrenic angle, dome, inner border.
_LUNG = np.array(
    [
        (0.27, -1.00), (0.42, -0.90), (0.56, -0.62), (0.66, -0.22), (0.71, 0.22), (0.73, 0.72),
        (0.72, 1.12), (0.63, 1.02), (0.45, 0.86), (0.28, 0.90), (0.15, 1.04), (0.11, 0.50),
        (0.11, -0.10), (0.13, -0.60), (0.18, -0.93),
    ],
    dtype=np.float32,
)  # fmt: skip
_TORSO = np.array(
    [
        (-1.30, 1.30), (-0.90, 1.30), (-0.90, 0.40), (-0.88, -0.10), (-1.05, -0.25), (-1.30, -0.30), (-1.30, -0.62),
        (-0.95, -0.74), (-0.50, -0.86), (-0.24, -0.94), (-0.20, -1.30), (0.20, -1.30), (0.24, -0.94), (0.50, -0.86),
        (0.95, -0.74), (1.30, -0.62), (1.30, -0.30), (1.05, -0.25), (0.88, -0.10), (0.90, 0.40), (0.90, 1.30),
        (1.30, 1.30),
    ],
    dtype=np.float32,
)  # fmt: skip


@dataclass(frozen=True)
class Vessel:
    """One branch from a hilum: its course in body coordinates and its thickness."""

    course: Points
    thick: float


@dataclass(frozen=True)
class Opacity:
    """The disease of one subject: ellipses (x, y, half axes, turn) laid on each other, or a haze over the lungs."""

    blobs: NDArray[np.float32]
    depth: float
    haze: float
    grain: int


@dataclass(frozen=True)
class Subject:
    """One person's chest; `size` gives every number of the ranges by name."""

    size: Mapping[str, float]
    vessels: tuple[Vessel, ...]
    spots: NDArray[np.float32]
    opacity: Opacity | None


@dataclass(frozen=True)
class Pose:
    """How the person stood for one film: turn in radians, scale, shift, breath (the domes' drop), rotation about the
    long axis (one lung denser than the other)."""

    turn: float
    scale: float
    x: float
    y: float
    breath: float
    twist: float


def born(rng: np.random.Generator, *, ill: bool) -> Subject:
    """Draw one subject from the generator; the healthy and the ill share every number but the opacity."""
    size = dict(zip(_RANGES, rng.uniform(_LOWS, _HIGHS).tolist(), strict=True))
    vessels = tuple(_vessel(row) for row in rng.random((14, 6)))
    spots = rng.random((3, 5)).astype(np.float32)
    numbers = rng.random(48)
    return Subject(size, vessels, spots, _opacity(numbers, size) if ill else None)


def posed(rng: np.random.Generator) -> Pose:
    """Draw one pose."""
    turn, scale, x, y, breath, twist = rng.standard_normal(6).tolist()
    return Pose(0.03 * turn, 1.0 + 0.03 * scale, 0.03 * x, 0.03 * y, 0.025 * breath, 0.06 * twist)


def attenuation(subject: Subject, pose: Pose, rng: np.random.Generator, side: int) -> Plane:
    """Draw the chest as attenuation, float32 (side, side), about 0 (air) to 3 (bone over heart)."""
    to_pixels = _Camera(pose, side)
    size = subject.size
    wide = size["chest"]
    body = _area(to_pixels, [_TORSO * (wide * 0.97, 1.0)], 0.012)
    lungs = [_lung(subject, pose, s) for s in (-1, 1)]
    left, right = (_area(to_pixels, [lung], 0.010) for lung in lungs)
    soft = _soft(to_pixels, subject)
    bone = _bones(to_pixels, subject)
    lung = left * (1 + pose.twist) + right * (1 - pose.twist)
    plane = body * (0.75 + 0.45 * size["habitus"] * _thickness(to_pixels))
    plane -= 0.85 * size["lung_air"] * lung
    plane += soft * body
    plane += 0.30 * size["bone"] * bone * body
    plane += _metal(to_pixels, subject)
    if subject.opacity is not None:
        plane += _disease(to_pixels, subject.opacity, np.minimum(left + right, 1), rng)
    return plane


class _Camera:
    """Body coordinates to pixels of a canvas that is finer than the film."""

    def __init__(self, pose: Pose, side: int) -> None:
        self.side = side
        self.fine = side * _SUPER
        half = self.fine / 2
        c, s = math.cos(pose.turn) * half * pose.scale, math.sin(pose.turn) * half * pose.scale
        self.turn = pose.turn
        self.unit = half * pose.scale
        self.matrix = np.array([[c, -s], [s, c]], dtype=np.float32)
        self.origin = np.array([half * (1 + pose.x), half * (1 + pose.y)], dtype=np.float32)

    def __call__(self, points: Points) -> NDArray[np.int32]:
        """Points (n, 2) as OpenCV's fixed-point pixels."""
        placed = points @ self.matrix.T + self.origin
        return np.rint(placed * (1 << _SHIFT)).astype(np.int32)

    def canvas(self) -> Canvas:
        return np.zeros((self.fine, self.fine), dtype=np.uint8)

    def width(self, thick: float) -> int:
        """A line's thickness in whole pixels, at least 1."""
        return max(1, round(thick * self.unit))

    def film(self, canvas: Canvas, blur: float) -> Plane:
        """The canvas at the film's size, 0..1, its edges softened by `blur` in body units."""
        small = cv2.resize(canvas, (self.side, self.side), interpolation=cv2.INTER_AREA)
        plane = small.astype(np.float32) * np.float32(1 / 255)
        sigma = blur * self.unit / _SUPER
        return plane if sigma < 0.3 else np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma), dtype=np.float32)
