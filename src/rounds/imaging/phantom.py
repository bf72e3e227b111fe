"""Chest-film phantoms drawn from a seed: data with a known truth, for a demonstration and for tests without files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rounds.core.errors import BadOverride, Fault
from rounds.imaging.anatomy import Plane, attenuation, born, posed

CLASSES = ("normal", "opacity")
MOST_FILMS = 4


@dataclass(frozen=True)
class Scanner:
    """A scanner's settings; every film varies a little round them.

    exposure  factor on the film's gray; 1 is neutral
    gamma     power of the display curve; above 1 darkens
    blur      Gaussian of the focal spot, in pixels of the film
    noise     standard deviation of the quantum noise at the densest part, in 0..1 of full range
    crop      share of the side that collimation cuts off each edge, 0..0.4
    """

    exposure: float = 1.0
    gamma: float = 1.0
    blur: float = 0.0
    noise: float = 0.02
    crop: float = 0.0


@dataclass(frozen=True)
class Phantom:
    """One drawn film: uint8 (size, size), its class, its subject and its own name."""

    pixels: NDArray[np.uint8]
    label: str
    subject: str
    name: str


def draw(
    n: int,
    *,
    seed: int,
    size: int = 64,
    positive: float = 0.5,
    scanner: Scanner = Scanner(),
) -> Iterator[Phantom]:
    """Draw n films of subjects with 1 to 4 films each, `positive` the share of subjects with an opacity.

    The first films of a longer draw are the films of a shorter one; another seed gives other subjects, another scanner
    the same subjects again. Raises BadOverride, with every fault, for numbers that make no film.
    """
    _check(n, seed, size, positive, scanner)
    return _drawn(n, seed, size, positive, scanner)


def _drawn(n: int, seed: int, size: int, positive: float, scanner: Scanner) -> Iterator[Phantom]:
    subject = 0
    while n > 0:
        rng = np.random.default_rng([seed, subject])
        films = min(n, int(rng.integers(1, MOST_FILMS + 1)))
        ill = bool(rng.random() < positive)
        person = born(rng, ill=ill)
        name = f"phantom-{seed}-{subject:05d}"
        for film in range(films):
            plane = attenuation(person, posed(rng), rng, size)
            yield Phantom(_film(plane, scanner, rng), CLASSES[ill], name, f"{name}_{film}")
        n -= films
        subject += 1


def _check(n: int, seed: int, size: int, positive: float, scanner: Scanner) -> None:
    bounds = (
        ("n", n, 0, math.inf),
        ("seed", seed, 0, math.inf),
        ("size", size, 32, 1024),
        ("positive", positive, 0, 1),
        ("exposure", scanner.exposure, 0.1, 10),
        ("gamma", scanner.gamma, 0.1, 10),
        ("blur", scanner.blur, 0, size / 4),
        ("noise", scanner.noise, 0, 1),
        ("crop", scanner.crop, 0, 0.4),
    )
    faults = [
        Fault("out of range", name, f"{low:g} to {high:g}", f"{value:g}")
        for name, value, low, high in bounds
        if not low <= value <= high
    ]
    if faults:
        raise BadOverride("such phantoms cannot be drawn", faults)


def _film(plane: Plane, scanner: Scanner, rng: np.random.Generator) -> NDArray[np.uint8]:
    """What the scanner makes of the attenuation: focal spot, quantum noise, automatic exposure, display curve."""
    side = plane.shape[0]
    exposure, gamma, blur, noise, crop = rng.standard_normal(5).tolist()
    grain = rng.standard_normal(plane.shape, dtype=np.float32)
    cut = scanner.crop + 0.01 * abs(crop)
    if cut > 0:
        edge = cut * side
        scale = side / (side - 2 * edge)
        zoom = np.array([[scale, 0, -edge * scale], [0, scale, -edge * scale]])
        plane = np.asarray(cv2.warpAffine(plane, zoom, (side, side), flags=cv2.INTER_LINEAR), dtype=np.float32)
    sigma = scanner.blur + 0.10 * abs(blur)
    if sigma >= 0.2:
        plane = np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma), dtype=np.float32)
    # Automatic exposure control: the same mean over the film's middle, whoever stands there.
    middle = plane[side // 4 : -side // 4, side // 6 : -side // 6]
    gray = 0.46 + 0.42 * (plane - middle.mean())
    gray += grain * (scanner.noise * math.exp(0.2 * noise)) * np.sqrt(np.maximum(gray, 0.1))
    gray *= scanner.exposure * math.exp(0.04 * exposure)
    np.clip(gray, 0.0, 1.0, out=gray)
    shown = gray ** np.float32(scanner.gamma * math.exp(0.04 * gamma))
    return np.asarray(np.rint(shown * 255), dtype=np.uint8)
