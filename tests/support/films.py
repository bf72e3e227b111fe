"""One film in every format that is taken, and such films with something wrong."""

from __future__ import annotations

import io
import random

import cv2
import numpy as np
from PIL import Image
from tests.support.bundles import tiny_films
from tests.support.dicoms import dicom


def every_format() -> list[bytes]:
    """A small film as PNG, JPEG, TIFF and DICOM, in the depths and codings that are taken."""
    gray = tiny_films(1, size=48, seed=3)[0, 0]
    colour = np.dstack([gray, gray[::-1], gray.T])
    deep = gray.astype(np.uint16) * 257
    films = [bytes(cv2.imencode(".png", array)[1]) for array in (gray, colour, deep)]
    films += [bytes(cv2.imencode(".jpg", array)[1]) for array in (gray, colour)]
    for image, kind, options in (
        (Image.fromarray(gray), "TIFF", {}),
        (Image.fromarray(gray), "TIFF", {"compression": "tiff_lzw"}),
        (Image.fromarray(colour), "TIFF", {"compression": "tiff_deflate"}),
        (Image.fromarray(deep), "TIFF", {}),
        (Image.fromarray(gray).convert("P"), "PNG", {}),
        (Image.fromarray(gray).convert("1"), "PNG", {}),
        (Image.fromarray(colour).convert("RGBA"), "PNG", {}),
        (Image.fromarray(colour), "JPEG", {"progressive": True}),
        (Image.fromarray(colour).convert("CMYK"), "JPEG", {}),
    ):
        sink = io.BytesIO()
        image.save(sink, kind, **options)
        films.append(sink.getvalue())
    return [*films, dicom(gray)]


def mutated(film: bytes, draw: random.Random) -> bytes:
    """The film with bytes changed, cut out, repeated or put in, or cut short; some stay whole."""
    data = bytearray(film)
    for _ in range(draw.choice((0, 1, 1, 2, 4, 16))):
        at, end = draw.randrange(len(data)), draw.randrange(len(data))
        match draw.randrange(6):
            case 0:
                data[at] ^= 1 << draw.randrange(8)
            case 1:
                data[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                del data[at : at + draw.randrange(1, 32)]
            case 3:
                data[at:at] = data[end : end + draw.randrange(1, 64)]
            case 4:
                data[at : at + 4] = draw.randbytes(4)
            case _:
                # Sizes and offsets are where a header can lie most.
                data[at : at + 4] = draw.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\0\1\0\0"))
        if not data:
            return b"\0"
    return bytes(data[: draw.randrange(1, len(data) + 1)]) if draw.random() < 0.1 else bytes(data)
