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
        "vessels": (0.6, 1.4),
        "breast": (-0.9, 1.0),
        "breast_low": (0.05, 0.35),
        "hilum": (0.6, 1.5),
        "device": (0.0, 1.0),
    }
)
_LOWS, _HIGHS = np.array(list(_RANGES.values())).T
_FAINT = 1 / 40  # share of the ill whose opacity hardly shows: no reader finds them all
_SUPER = 2  # canvases are so many times finer than the film
_SHIFT = 4  # fractional bits of OpenCV's drawing coordinates

# One lung of a chest of usual size: apex, outer wall, costophrenic angle, dome, inner border.
_LUNG = np.array(
    [
        (0.27, -1.00), (0.42, -0.90), (0.56, -0.62), (0.66, -0.22), (0.71, 0.22), (0.73, 0.72),
        (0.72, 1.12), (0.63, 1.02), (0.45, 0.86), (0.28, 0.90), (0.15, 1.04), (0.11, 0.50),
        (0.11, -0.10), (0.13, -0.60), (0.18, -0.93),
    ],
    dtype=np.float64,
)  # fmt: skip
_TORSO = np.array(
    [
        (-1.30, 1.30), (-0.90, 1.30), (-0.90, 0.40), (-0.88, -0.10), (-1.05, -0.25), (-1.30, -0.30), (-1.30, -0.62),
        (-0.95, -0.74), (-0.50, -0.86), (-0.24, -0.94), (-0.20, -1.30), (0.20, -1.30), (0.24, -0.94), (0.50, -0.86),
        (0.95, -0.74), (1.30, -0.62), (1.30, -0.30), (1.05, -0.25), (0.88, -0.10), (0.90, 0.40), (0.90, 1.30),
        (1.30, 1.30),
    ],
    dtype=np.float64,
)  # fmt: skip

_CLAVICLE = np.array([[(0.08, 0.10), (0.30, 0.03), (0.55, -0.02), (0.80, -0.10)]])
_BLADE = np.array([[(0.72, -0.62), (0.70, -0.35), (0.80, 0.02), (0.92, -0.35)]])
_SPINE = np.arange(14)[:, None, None] * (0.0, 0.15) + np.array([[(-0.05, -0.95), (0.05, -0.95)]])
_TRACHEA = np.array([[(0.0, -1.0), (0.0, -0.35)]])
_WIRE = np.array([[(0.45, -0.50), (0.15, -0.55), (0.02, -0.2), (0.10, 0.25)]])
_BRANCH = np.linspace(0, 1, 6)
_ALONG = np.linspace(0, 1, 9)[None]
_RIBS = np.arange(9)[:, None]
_RIB_WALL = 0.78 - 0.42 * np.exp(-0.9 * _RIBS)


@dataclass(frozen=True)
class Opacity:
    """The disease of one subject: ellipses (x, y, half axes) laid on each other, and a haze over the lungs."""

    blobs: NDArray[np.float64]
    depth: float
    haze: float


@dataclass(frozen=True)
class Subject:
    """One person's chest; `size` gives every number of the ranges by name, `vessels` one branch a row."""

    size: Mapping[str, float]
    vessels: NDArray[np.float64]
    opacity: Opacity | None


@dataclass(frozen=True)
class Pose:
    """How the person stood for one film: turn in radians, scale, shift, breath (the domes' drop) and twist about the
    long axis, which makes one lung denser than the other."""

    turn: float
    scale: float
    x: float
    y: float
    breath: float
    twist: float


def born(rng: np.random.Generator, *, ill: bool) -> Subject:
    """Draw one subject; the healthy and the ill share every number but the opacity."""
    size = dict(zip(_RANGES, rng.uniform(_LOWS, _HIGHS).tolist(), strict=True))
    vessels = rng.random((16, 4))
    return Subject(size, vessels, _opacity(rng, size) if ill else None)


def posed(rng: np.random.Generator) -> Pose:
    """Draw one pose."""
    turn, scale, x, y, breath, twist = rng.standard_normal(6).tolist()
    return Pose(0.03 * turn, 1.0 + 0.03 * scale, 0.03 * x, 0.03 * y, 0.025 * breath, 0.06 * twist)


def attenuation(subject: Subject, pose: Pose, rng: np.random.Generator, side: int) -> Plane:
    """Draw the chest as attenuation, float32 (side, side), about 0 (air) to 2 (bone over heart)."""
    size = subject.size
    to = _Camera(pose, side)
    body = to.film(to.area(_TORSO * (size["chest"], 1.0)), 0.015)
    left, right = (to.film(to.area(_lung(size, pose, sign)), 0.012) for sign in (-1, 1))
    plane = body * (0.55 + 0.40 * size["habitus"] * to.thickness())
    soft = to.film(_soft(to, size), 0.02)
    air = (left * (1 + pose.twist) + right * (1 - pose.twist)) * (1 - np.minimum(1.5 * soft, 1))
    plane -= 0.62 * size["lung_air"] * air
    plane += body * soft * 0.22
    plane += (left + right) * to.film(_vessels(to, subject), 0.008) * 0.35 * size["vessels"]
    plane += body * to.film(_bones(to, size), 0.006) * 0.22 * size["bone"]
    plane += to.film(_folds(to, size), 0.05) * 0.22
    plane += to.film(_metal(to, size), 0.0) * 0.5
    if subject.opacity is not None:
        plane += _disease(to, subject.opacity, left + right, rng)
    return plane


class _Camera:
    """Body coordinates to pixels of canvases twice as fine as the film."""

    def __init__(self, pose: Pose, side: int) -> None:
        self.side, self.fine = side, side * _SUPER
        half = self.fine / 2
        self.unit = half * pose.scale
        c, s = math.cos(pose.turn) * self.unit, math.sin(pose.turn) * self.unit
        self._turn = (c, s)
        self._origin = (half * (1 + pose.x), half * (1 + pose.y))
        self._matrix = np.array([[c, s], [-s, c], self._origin]) * (1 << _SHIFT)
        self._middle = round(side / 2 * (1 + pose.x))

    def pixels(self, points: NDArray[np.float64]) -> NDArray[np.int32]:
        """Points (..., 2) in OpenCV's fixed-point pixels."""
        return np.asarray(np.rint(points @ self._matrix[:2] + self._matrix[2]), dtype=np.int32)

    def canvas(self) -> Canvas:
        return np.zeros((self.fine, self.fine), dtype=np.uint8)

    def area(self, outline: NDArray[np.float64]) -> Canvas:
        """A filled outline."""
        canvas = self.canvas()
        cv2.fillPoly(canvas, [self.pixels(outline)], 255, cv2.LINE_8, _SHIFT)
        return canvas

    def lines(self, canvas: Canvas, courses: NDArray[np.float64], gray: int, thick: float) -> None:
        """Lay open lines (k, points, 2) of a thickness in body units onto the canvas."""
        width = max(1, round(thick * self.unit))
        cv2.polylines(canvas, list(self.pixels(courses)), False, gray, width, cv2.LINE_8, _SHIFT)

    def ellipse(self, canvas: Canvas, at: tuple[float, float], axes: tuple[float, float], gray: int) -> None:
        """Lay a filled ellipse onto the canvas."""
        (c, s), (left, top), unit = self._turn, self._origin, 1 << _SHIFT
        x, y = (at[0] * c - at[1] * s + left) * unit, (at[0] * s + at[1] * c + top) * unit
        a, b = axes[0] * self.unit * unit, axes[1] * self.unit * unit
        centre, half_axes = (round(x), round(y)), (round(a), round(b))
        cv2.ellipse(canvas, centre, half_axes, 0.0, 0.0, 360.0, gray, -1, cv2.LINE_8, _SHIFT)

    def film(self, canvas: Canvas, blur: float) -> Plane:
        """The canvas at the film's size, 0..1, its edges softened by `blur` in body units."""
        small = cv2.resize(canvas, (self.side, self.side), interpolation=cv2.INTER_AREA)
        sigma = blur * self.unit / _SUPER
        if sigma >= 0.3:
            small = cv2.GaussianBlur(small, (0, 0), sigma)
        return np.asarray(small * np.float32(1 / 255), dtype=np.float32)

    def thickness(self) -> Plane:
        """The trunk's depth at each column: an ellipse across the body, 0..1, float32 (1, side)."""
        depth = _depth(self.side)
        at = min(max(self.side - self._middle, 0), self.side)
        return depth[None, at : at + self.side]


@lru_cache(maxsize=8)
def _depth(side: int) -> Plane:
    across = (np.arange(2 * side) + 0.5 - side) * (2 / side) / 1.15
    return np.asarray(np.sqrt(np.clip(1 - across**2, 0.02, 1)), dtype=np.float32)


@lru_cache(maxsize=4)
def _rounding(points: int, steps: int = 4) -> NDArray[np.float64]:
    """The matrix that lays a closed Catmull-Rom spline through points, `steps` to each."""
    t = (np.arange(steps) / steps)[:, None]
    weights = 0.5 * np.hstack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2])
    matrix = np.zeros((points * steps, points))
    for i in range(points):
        for j in range(4):
            matrix[i * steps : (i + 1) * steps, (i + j - 1) % points] = weights[:, j]
    return matrix


def _lung(size: Mapping[str, float], pose: Pose, sign: int) -> NDArray[np.float64]:
    """One lung's outline; its top and dome are the subject's, the dome moves with the breath."""
    low = size["lung_bottom"] + pose.breath - sign * size["dome_step"] / 2
    middle, half = (low + size["lung_top"]) / 2, (low - size["lung_top"]) / 2
    outline = _LUNG * (sign * size["chest"], half) + (0.0, middle)
    return _rounding(len(_LUNG)) @ outline


def _soft(to: _Camera, size: Mapping[str, float]) -> Canvas:
    """Mediastinum, heart, great vessels and hila."""
    canvas = to.canvas()
    band, top, low = size["mediastinum"], size["lung_top"], size["lung_bottom"]
    column = np.array([(-band, low + 0.4), (-band * 0.9, top), (band * 0.9, top), (band, low + 0.4)])
    cv2.fillPoly(canvas, [to.pixels(column)], 120, cv2.LINE_8, _SHIFT)
    for sign in (-1, 1):
        to.ellipse(canvas, (sign * (band + 0.06), -0.12), (0.07 * size["hilum"], 0.12 * size["hilum"]), 95)
    to.ellipse(canvas, (band * 0.9, -0.38), (size["knob"], size["knob"] * 1.2), 150)
    to.ellipse(canvas, (size["heart_x"], low - 0.16), (size["heart_wide"], size["heart_high"]), 170)
    to.lines(canvas, _TRACHEA, 40, 0.07)
    return canvas


def _vessels(to: _Camera, subject: Subject) -> Canvas:
    """Branches that leave each hilum, bend and taper."""
    canvas = to.canvas()
    angle, bend, length, thick = subject.vessels.T
    sign = np.where(np.arange(len(angle)) % 2, 1.0, -1.0)
    turn = (angle * 2.6 - 1.2)[:, None] + (bend - 0.5)[:, None] * _BRANCH
    reach = (0.25 + 0.35 * length)[:, None] * _BRANCH
    x = sign[:, None] * (0.17 + reach * np.cos(turn))
    y = -0.12 + reach * np.sin(turn) * 1.2
    courses = np.stack([x, y], axis=2)
    to.lines(canvas, courses, 130, 0.014)
    to.lines(canvas, courses[thick > 0.4, :4], 190, 0.028)
    to.lines(canvas, courses[:, :2], 230, 0.045)
    return canvas


def _bones(to: _Camera, size: Mapping[str, float]) -> Canvas:
    """Ribs behind and in front, clavicles, shoulder blades and the spine's bodies."""
    canvas, chest, gap, sag = to.canvas(), size["chest"], size["rib_gap"], size["rib_sag"]
    start = size["lung_top"] - 0.02 + gap * _RIBS
    wall = chest * _RIB_WALL
    behind = start - 0.06 * np.sin(np.pi * _ALONG) + sag * _ALONG**2
    front = behind[:6, -1:] + 0.02 + (0.16 + sag) * _ALONG**1.5
    inwards = wall[:6] - (wall[:6] - 0.26) * _ALONG**1.2
    outwards = 0.07 + (wall - 0.07) * np.sin(_ALONG * np.pi / 2)
    to.lines(canvas, _both(np.stack([inwards, front], axis=2)), 110, 0.045)
    to.lines(canvas, _both(np.stack([outwards, behind], axis=2)), 190, 0.042)
    to.lines(canvas, _both(_CLAVICLE * (chest, 1.0) + (0.0, size["clavicle"])), 210, 0.055)
    to.lines(canvas, _both(_BLADE * (chest, 1.0)), 90, 0.05)
    to.lines(canvas, _SPINE, 130, 0.09)
    return canvas


def _both(courses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Courses (k, points, 2) and their mirror images."""
    return np.concatenate([courses, courses * (-1.0, 1.0)])


def _folds(to: _Camera, size: Mapping[str, float]) -> Canvas:
    """Breasts: soft shadows over the lower lungs that healthy and ill share."""
    canvas = to.canvas()
    breast = size["breast"]
    if breast > 0:
        for sign in (-1, 1):
            at = (sign * 0.50 * size["chest"], size["breast_low"])
            to.ellipse(canvas, at, (0.24 + 0.10 * breast, 0.22 + 0.12 * breast), int(90 + 150 * breast))
    return canvas


def _metal(to: _Camera, size: Mapping[str, float]) -> Canvas:
    """Electrodes with their leads, or a pacemaker with its wire, on every third subject."""
    canvas = to.canvas()
    kind = size["device"]
    if kind > 0.85:
        to.ellipse(canvas, (0.52, -0.50), (0.11, 0.08), 230)
        to.lines(canvas, _WIRE, 200, 0.012)
    elif kind > 0.65:
        for sign in (-1, 1):
            at = (sign * (0.30 + 0.5 * (kind - 0.65)), -0.45 + 2.0 * (kind - 0.65))
            to.lines(canvas, np.array([[at, (sign * 0.5, -0.6), (sign * 0.7, -1.0)]]), 110, 0.01)
            to.ellipse(canvas, at, (0.035, 0.035), 200)
    return canvas


def _opacity(rng: np.random.Generator, size: Mapping[str, float]) -> Opacity:
    """Draw the disease: a patch in one place, or nodules and a haze over both lungs; one in forty hardly shows."""
    kind, faint, focal_depth, diffuse_depth = rng.random(4).tolist()
    spread = rng.uniform(0.09, 0.14)
    centre = _in_lung(rng.random((1, 3)), size)
    places = centre + rng.standard_normal((6, 2)) * (0.4 * spread, 0.5 * spread)
    patch = np.hstack([places, rng.uniform(0.5, 1, (6, 2)) * spread])
    nodules = np.hstack([_in_lung(rng.random((16, 3)), size), rng.uniform(0.03, 0.06, (16, 2))])
    seen = 0.15 if faint < _FAINT else 1.0
    if kind < 0.6:
        return Opacity(patch, seen * (0.29 + 0.25 * focal_depth), 0.0)
    return Opacity(nodules, seen * (0.23 + 0.20 * diffuse_depth), seen * 0.08)


def _in_lung(u: NDArray[np.float64], size: Mapping[str, float]) -> NDArray[np.float64]:
    """Places (n, 2) well inside a lung, from uniform numbers (n, 3): side, distance from the spine, height."""
    high = size["lung_top"] + 0.22 + (size["lung_bottom"] - size["lung_top"] - 0.32) * u[:, 2]
    x = (0.32 + 0.27 * u[:, 1]) * size["chest"]
    return np.stack([np.where(u[:, 0] < 0.5, -x, x), high], axis=1)


def _disease(to: _Camera, opacity: Opacity, lungs: Plane, rng: np.random.Generator) -> Plane:
    """The opacity on one film: the subject's shapes, the film's own strength and grain."""
    strength = math.exp(0.15 * rng.standard_normal())
    canvas = to.canvas()
    for x, y, wide, high in opacity.blobs.tolist():
        to.ellipse(canvas, (x, y), (wide, high), 255)
    plane = to.film(canvas, 0.025) * (opacity.depth * strength)
    if opacity.haze:
        coarse = rng.random((9, 9), dtype=np.float32)
        patches = cv2.resize(coarse, (to.side, to.side), interpolation=cv2.INTER_CUBIC)
        plane += np.clip(patches, 0, 1) * np.float32(opacity.haze * strength)
    return plane * lungs
