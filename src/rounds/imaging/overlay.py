"""Films as people look at them: enlarged, and with a map of where the evidence lies laid over them."""

from __future__ import annotations

from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray

from rounds.core.specs import Fit

Pixels = NDArray[np.uint8]

SIDE = 224
QUALITY = 88
# Orange, as RGB: told apart from gray by everybody, also by those who do not see red or green.
TINT = np.array([255.0, 120.0, 20.0])
STRENGTH = 0.6
LARGEST = 1024
# A contour runs where the evidence is this share of its highest.
LEVELS = (0.25, 0.5, 0.75)


class Style(Enum):
    """How evidence is laid over a film."""

    HEAT, CONTOUR = "heat", "contour"


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


def explained(film: Pixels, heat: NDArray[np.floating], fitted: Fit, style: Style, opacity: float) -> bytes:
    """A film uint8 (h, w) or (h, w, 3) RGB as a PNG of at most LARGEST pixels a side (a smaller one enlarged to SIDE),
    with `heat` (h', w') of its `fitted` square laid over it where positive; opacity 0 to 1."""
    high, wide = film.shape[:2]
    scale = min(LARGEST / max(high, wide), max(1.0, SIDE / max(high, wide)))
    size = max(1, round(wide * scale)), max(1, round(high * scale))
    rule = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    shown = np.asarray(cv2.resize(film, size, interpolation=rule), np.float64)
    shown = np.repeat(shown[..., None], 3, axis=2) if shown.ndim == 2 else shown
    share = _share(heat, fitted, size)
    if style is Style.HEAT:
        cover = share
    else:
        lines = np.zeros(share.shape, np.uint8)
        for level in LEVELS:
            found, _ = cv2.findContours((share >= level).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(lines, found, -1, 1, max(1, round(max(size) / 300)))
        cover = lines.astype(np.float64)
    shown += opacity * cover[..., None] * (TINT - shown)
    done, png = cv2.imencode(".png", np.clip(np.rint(shown), 0, 255).astype(np.uint8)[..., ::-1])
    assert done, "OpenCV writes every uint8 RGB array as PNG"
    return bytes(png)


def _share(heat: NDArray[np.floating], fitted: Fit, size: tuple[int, int]) -> NDArray[np.float64]:
    """The evidence as a share of its highest, 0 to 1, for a film of this size (w, h)."""
    wide, high = size
    top = float(heat.max(initial=0.0))
    if not (top > 0 and np.isfinite(heat).all()):
        return np.zeros((high, wide))
    # A padded film lies in the middle of its square: what the square has beside it is cut away.
    side = max(size) if fitted is Fit.PAD else None
    square = (side, side) if side else size
    whole = cv2.resize(np.asarray(heat / top, np.float32), square, interpolation=cv2.INTER_CUBIC)
    if side:
        left, above = (side - wide) // 2, (side - high) // 2
        whole = whole[above : above + high, left : left + wide]
    return np.clip(np.asarray(whole, np.float64), 0.0, 1.0)


def _enlarged(pixels: Pixels, side: int) -> Pixels:
    """uint8 (side, side, 3) RGB."""
    film = np.ascontiguousarray(np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0))
    rule = cv2.INTER_AREA if film.shape[0] > side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(film, (side, side), interpolation=rule), np.uint8)


def _jpeg(film: Pixels) -> bytes:
    done, found = cv2.imencode(".jpg", film[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done, "OpenCV writes every uint8 RGB array as JPEG"
    return bytes(found)
