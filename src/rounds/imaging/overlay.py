"""Films as people look at them: enlarged, and with a map of where the evidence lies laid over them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

SIDE = 224
QUALITY = 88
# Orange, as RGB: told apart from gray by everybody, also by those who do not see red or green.
TINT = np.array([255.0, 120.0, 20.0])
STRENGTH = 0.6


def shown(pixels: Pixels, side: int = SIDE) -> bytes:
    """A film uint8 (1 or 3, h, w) as a JPEG of side x side."""
    return _jpeg(_enlarged(pixels, side))


def overlaid(pixels: Pixels, heat: NDArray[np.floating], side: int = SIDE) -> bytes:
    """A film as a JPEG, tinted where `heat` (h', w') is positive, most where it is highest; as it is where none is."""
    film = _enlarged(pixels, side).astype(np.float64)
    top = float(heat.max(initial=0.0))
    if top > 0 and np.isfinite(heat).all():
        small = np.asarray(heat / top, np.float32)
        share = np.clip(cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC), 0.0, 1.0)[..., None]
        film += STRENGTH * share * (TINT - film)
    return _jpeg(np.clip(np.rint(film), 0, 255).astype(np.uint8))


def _enlarged(pixels: Pixels, side: int) -> Pixels:
    """uint8 (side, side, 3) RGB."""
    film = np.ascontiguousarray(np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0))
    rule = cv2.INTER_AREA if film.shape[0] > side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(film, (side, side), interpolation=rule), np.uint8)


def _jpeg(film: Pixels) -> bytes:
    done, found = cv2.imencode(".jpg", film[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done, "OpenCV writes every uint8 RGB array as JPEG"
    return bytes(found)
