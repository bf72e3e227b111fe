"""Every image becomes the network's square input by one rule, in training, evaluation, serving and watching."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from rounds.core.specs import Fit, ImagingSpec, Limits
from rounds.imaging.decode import decode
from rounds.imaging.dicom import is_dicom

Pixels = NDArray[np.uint8]


def to_pixels(data: bytes, spec: ImagingSpec, limits: Limits = Limits()) -> Pixels:  # noqa: B008 (frozen)
    """Decode an image and fit it: uint8 (channels, size, size). Raises BadImage as `decode` does."""
    return fit(decode(data, limits), spec)


def fit(array: Pixels, spec: ImagingSpec) -> Pixels:
    """Bring uint8 (h, w) or (h, w, 3) RGB to uint8 (channels, size, size), contiguous.

    STRETCH scales both sides to size; PAD scales the longer side to size and centres the film on black. Shrinking
    averages areas, enlarging interpolates linearly. RGB becomes gray by Rec. 601, gray becomes RGB by repetition.
    """
    gray = array.ndim == 2
    if not gray and spec.channels == 1:
        array, gray = np.asarray(cv2.cvtColor(array, cv2.COLOR_RGB2GRAY), dtype=np.uint8), True
    high, wide = array.shape[:2]
    size = spec.size
    if spec.fit is Fit.PAD:
        longer = max(high, wide)
        new_high, new_wide = max(1, round(high * size / longer)), max(1, round(wide * size / longer))
        array = _scaled(array, new_high, new_wide)
        top, left = (size - new_high) // 2, (size - new_wide) // 2
        square = np.zeros((size, size, *array.shape[2:]), dtype=np.uint8)
        square[top : top + new_high, left : left + new_wide] = array
        array = square
    else:
        array = _scaled(array, size, size)
    if gray:
        return np.repeat(array[None], spec.channels, axis=0)
    return np.ascontiguousarray(array.transpose(2, 0, 1))


def without_names(data: bytes, limits: Limits = Limits()) -> bytes:  # noqa: B008 (frozen)
    """The bytes as they may be kept: of a DICOM film its pixels as PNG, of any other image all. Raises BadImage as
    `decode` does."""
    return encode_png(decode(data, limits)) if is_dicom(data) else data


def encode_png(pixels: Pixels) -> bytes:
    """Encode uint8 (h, w), (1 or 3, h, w) or (h, w, 3) RGB as PNG bytes."""
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] != 3:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3:
        pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels[..., ::-1]
    done, found = cv2.imencode(".png", np.ascontiguousarray(pixels))
    assert done, "OpenCV writes every uint8 gray or RGB array as PNG"
    return bytes(found)


def _scaled(array: Pixels, high: int, wide: int) -> Pixels:
    if array.shape[:2] == (high, wide):
        return array
    shrinks = array.shape[0] >= high and array.shape[1] >= wide
    rule = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(array, (wide, high), interpolation=rule), dtype=np.uint8)
