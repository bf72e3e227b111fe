"""What the first bytes of an image say, and the refusals that every format shares."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rounds.core.errors import BadImage, Fault
from rounds.core.specs import Limits

Pixels = NDArray[np.uint8]

TAKEN = "a PNG, JPEG, TIFF or DICOM image of at most 16 bits a channel"
AGAIN = "export or copy the file again"
_CONVERT = "save it as an 8-bit PNG or JPEG"
AT_ONCE = 1 << 20


class Header(NamedTuple):
    """What the first bytes say of an image; `plain` where it is 8-bit gray or RGB and needs no conversion.

    `orientation` is that of EXIF and TIFF, 1 to 8, still to be applied, and 0 where nothing is said; `top` the largest
    value of a sample, 0 where samples have 8 bits, `clear` the one gray that is transparent; `inverted` says that the
    inks of a JPEG are stored as Adobe does, 255 for none.
    """

    format: str
    width: int
    height: int
    channels: int
    plain: bool
    whole: bool
    orientation: int = 0
    top: int = 0
    clear: int = -1
    inverted: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.width, self.height


def check_size(kind: str, width: int, height: int, limits: Limits) -> None:
    """Raises BadImage for an image without pixels (400) or with too many of them (413)."""
    if width < 1 or height < 1:
        raise broken(kind, "has no pixels", (width, height))
    if width * height > limits.max_pixels:
        got = f"{width:,} x {height:,} = {width * height:,} pixels"
        raise over("the image is too large", f"at most {limits.max_pixels:,} pixels", got)


def over(what: str, expected: str, got: str) -> BadImage:
    """The error for an image over a limit, 413."""
    return BadImage("the image is over a limit", [Fault(what, "", expected, got, "send a smaller one")], status=413)


def refused(what: str, got: str, then: str = _CONVERT) -> BadImage:
    """The error for an image of a kind that is not taken, 415."""
    return BadImage("the image is not taken", [Fault(what, "", TAKEN, got, then)], status=415)


def broken(kind: str, what: str, size: tuple[int, int] | None = None) -> BadImage:
    """The error for an image that contradicts itself or ends early, 400."""
    got = f"a header that says {size[0]:,} x {size[1]:,} pixels" if size else "no whole header"
    fault = Fault(f"the {kind} {what}", "", f"a whole {kind}", got, AGAIN)
    return BadImage("the image is broken", [fault], status=400)


def looked_up(table: NDArray[np.uint8], codes: NDArray[Any]) -> Pixels:
    """`table[codes]` for codes uint8 or uint16, a part at a time: NumPy would spend 8 bytes a code on its index."""
    found = np.empty(codes.size, dtype=np.uint8)
    flat = np.ascontiguousarray(codes).reshape(-1)
    for at in range(0, flat.size, AT_ONCE):
        np.take(table, flat[at : at + AT_ONCE], out=found[at : at + AT_ONCE], mode="clip")
    return found.reshape(codes.shape)


def to_eight_bits(samples: NDArray[Any], top: int) -> Pixels:
    """Samples 0..top, uint8 or uint16 of any shape, as the nearest of 0..255; what is above `top` is 255."""
    if samples.dtype == np.uint8 and top == 255:
        return samples.view(np.uint8)
    codes = np.minimum(np.arange(1 << 8 * samples.itemsize, dtype=np.int64), top)
    return looked_up(((codes * 510 + top) // (2 * top)).astype(np.uint8), samples)


def from_cmyk(inks: Pixels) -> Pixels:
    """Inks uint8 (h, w, 4), 255 full, as RGB (h, w, 3): what cyan, magenta or yellow, and black, let through."""
    through = 255 - inks[..., :3].astype(np.uint16)
    through *= 255 - inks[..., 3:].astype(np.uint16)
    return ((through + 127) // 255).astype(np.uint8)


def over_black(colours: Pixels, alpha: Pixels) -> Pixels:
    """Colours uint8 (h, w, c) laid over black by alpha uint8 (h, w, 1)."""
    laid = colours.astype(np.uint16) * alpha
    return ((laid + 127) // 255).astype(np.uint8)


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """The pixels turned and mirrored as an orientation asks (TIFF 6.0, section 8; EXIF 2.3, 4.6.4)."""
    if orientation <= 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
