"""Bytes to pixels: what is taken comes out right, what is not is refused by name before it costs anything."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from rounds.core.errors import BadImage
from rounds.core.specs import Limits
from rounds.imaging.decode import decode

_TAKEN = "expected a PNG, JPEG, TIFF or DICOM image of at most 16 bits a channel"
_CONVERT = "Save it as an 8-bit PNG or JPEG"
_AGAIN = "Export or copy the file again"


def _ramp() -> NDArray[np.uint8]:
    """A smooth gray film, uint8 (24, 40), no two rows or columns alike."""
    return (np.add.outer(np.arange(24) * 5, np.arange(40) * 3)).astype(np.uint8)


def _colours() -> NDArray[np.uint8]:
    ramp = _ramp()
    return np.stack([ramp, ramp[::-1], 255 - ramp], axis=-1)


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def _png(pixels: NDArray[Any], **options: Any) -> bytes:
    return _saved(Image.fromarray(pixels), "PNG", **options)


def _jpeg(pixels: NDArray[np.uint8], **options: Any) -> bytes:
    return _saved(Image.fromarray(pixels), "JPEG", quality=95, **options)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_by_hand(width: int, height: int, bits: int, colour: int, rows: bytes = b"", extra: bytes = b"") -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)) + extra
    return b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def _jpeg_by_hand(marker: int, bits: int = 8) -> bytes:
    return b"\xff\xd8\xff" + bytes([marker]) + struct.pack(">HBHHB", 11, bits, 24, 40, 1) + b"\x01\x11\0\xff\xd9"


def _frames(form: str) -> bytes:
    films = [Image.fromarray(_ramp()), Image.fromarray(255 - _ramp())]
    return _saved(films[0], form, save_all=True, append_images=films[1:])


def _refusal(data: bytes, limits: Limits | None = None) -> tuple[int, str]:
    with pytest.raises(BadImage) as caught:
        decode(data, limits or Limits())
    return caught.value.http_status, str(caught.value)


_REFUSED = {
    "empty file": (
        b"",
        400,
        f"the image cannot be read\n  the file is empty; {_TAKEN}; got 0 bytes. {_AGAIN}",
    ),
    "text named .png": (
        b"patient,label\n1,normal\n",
        415,
        "the image is not taken\n  not an image we take; "
        f"{_TAKEN}; got text that begins 'patient,label\\n1,normal'. {_CONVERT}",
    ),
    "noise": (
        b"\x00\x01\x02\x03\xff\xfe\xfd\xfc\xfb",
        415,
        f"the image is not taken\n  not an image we take; {_TAKEN}; "
        f"got bytes that begin 00 01 02 03 ff fe fd fc. {_CONVERT}",
    ),
    "animated GIF": (
        _frames("GIF"),
        415,
        f"the image is not taken\n  not an image we take; {_TAKEN}; got a GIF. {_CONVERT}",
    ),
    "animated PNG": (
        _frames("PNG"),
        415,
        f"the image is not taken\n  an image with several frames is not taken; {_TAKEN}; got an animated PNG. "
        f"{_CONVERT}",
    ),
    "WebP": (
        _saved(Image.fromarray(_ramp()), "WEBP"),
        415,
        f"the image is not taken\n  not an image we take; {_TAKEN}; got a WebP. {_CONVERT}",
    ),
    "BigTIFF": (
        b"II+\0" + bytes(12),
        415,
        f"the image is not taken\n  not an image we take; {_TAKEN}; got a BigTIFF. {_CONVERT}",
    ),
    "HEIF": (
        b"\0\0\0\x18ftypheic" + bytes(12),
        415,
        f"the image is not taken\n  not an image we take; {_TAKEN}; got a HEIF, AVIF or video file. {_CONVERT}",
    ),
    "12-bit JPEG": (
        _jpeg_by_hand(0xC1, bits=12),
        415,
        f"the image is not taken\n  12-bit pixels are not taken; {_TAKEN}; got a 12-bit JPEG. {_CONVERT}",
    ),
    "lossless JPEG": (
        _jpeg_by_hand(0xC3),
        415,
        f"the image is not taken\n  this JPEG coding is not taken; {_TAKEN}; got a lossless JPEG. {_CONVERT}",
    ),
    "PNG cut in its header": (
        _png(_ramp())[:20],
        400,
        f"the image is broken\n  the PNG ends within its header; expected a whole PNG; got no whole header. {_AGAIN}",
    ),
    "truncated PNG": (
        _png(_ramp())[:-40],
        400,
        "the image is broken\n  the PNG ends early; expected a whole PNG; "
        f"got a header that says 40 x 24 pixels. {_AGAIN}",
    ),
    "PNG without pixels": (
        _png_by_hand(0, 4, 8, 0),
        400,
        "the image is broken\n  the PNG has no pixels; expected a whole PNG; "
        f"got a header that says 0 x 4 pixels. {_AGAIN}",
    ),
    "PNG with too few rows": (
        _png_by_hand(40, 24, 8, 0, bytes(41 * 3)),
        400,
        "the image is broken\n  the PNG cannot be decoded; expected a whole PNG; "
        f"got a header that says 40 x 24 pixels. {_AGAIN}",
    ),
    "JPEG cut in its header": (
        _jpeg(_ramp())[:60],
        400,
        f"the image is broken\n  the JPEG ends within its header; expected a whole JPEG; got no whole header. {_AGAIN}",
    ),
    "truncated JPEG": (
        _jpeg(_ramp())[:-60],
        400,
        "the image is broken\n  the JPEG ends early; expected a whole JPEG; "
        f"got a header that says 40 x 24 pixels. {_AGAIN}",
    ),
}


@pytest.mark.parametrize("name", _REFUSED)
def test_what_is_not_taken_is_refused_by_name(name: str) -> None:
    data, status, message = _REFUSED[name]
    assert _refusal(data) == (status, message)


def test_a_file_over_the_byte_limit_is_refused() -> None:
    data = _png(_ramp())
    status, message = _refusal(data, Limits(max_bytes=50))
    assert status == 413
    assert message == (
        f"the image is over a limit\n  the file is too large; expected at most 50 bytes; got {len(data)} bytes. "
        "Send a smaller one"
    )


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("colour", [0, 2, 3, 6])
def test_a_header_of_50000_by_50000_is_refused_without_allocating(colour: int, bits: int) -> None:
    data = _png_by_hand(50_000, 50_000, bits, colour)
    tracemalloc.start()
    answer = _refusal(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert answer == (
        413,
        "the image is over a limit\n  the image is too large; expected at most 64,000,000 pixels; "
        "got 50,000 x 50,000 = 2,500,000,000 pixels. Send a smaller one",
    )
    assert peak < 1_000_000


@pytest.mark.filterwarnings("error")
def test_pillows_own_bomb_limit_is_told_as_ours() -> None:
    data = _png_by_hand(20_000, 20_000, 8, 6)
    assert _refusal(data, Limits(max_pixels=10**12)) == (
        413,
        "the image is over a limit\n  the image is too large; expected no more pixels than Pillow decodes in this "
        "mode; got 20,000 x 20,000 pixels. Send a smaller one",
    )


@pytest.mark.parametrize("interlaced", [False, True])
def test_gray_and_rgb_png_come_out_exactly(interlaced: bool) -> None:
    for pixels in (_ramp(), _colours()):
        found = decode(_png(pixels, interlace=int(interlaced)))
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"optimize": True}])
def test_gray_and_rgb_jpeg_come_out_as_pillow_decodes_them(options: dict[str, Any]) -> None:
    for pixels in (_ramp(), _colours()):
        data = _jpeg(pixels, **options)
        np.testing.assert_array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data))))


def test_a_palette_png_comes_out_in_its_colours() -> None:
    image = Image.fromarray(_colours()).quantize(16)
    np.testing.assert_array_equal(decode(_saved(image, "PNG")), np.asarray(image.convert("RGB")))


def test_a_palette_with_a_transparent_colour_comes_out_black_there() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 100, 50, 10, 20, 30])
    image.putdata([0, 1])
    data = _saved(image, "PNG", transparency=0)
    np.testing.assert_array_equal(decode(data), [[[0, 0, 0], [10, 20, 30]]])


def test_alpha_is_laid_over_black() -> None:
    rgba = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 128]]], dtype=np.uint8)
    np.testing.assert_array_equal(decode(_png(rgba)), [[[200, 100, 50], [0, 0, 0], [100, 50, 25]]])
    np.testing.assert_array_equal(decode(_png(rgba[..., [0, 3]])), [[200, 0, 100]])


def test_one_bit_png_comes_out_black_and_white() -> None:
    image = Image.fromarray(_ramp() > 100)
    assert image.mode == "1"
    np.testing.assert_array_equal(decode(_saved(image, "PNG")), np.where(_ramp() > 100, 255, 0))


def test_two_bit_gray_png_is_spread_over_the_full_range() -> None:
    data = _png_by_hand(4, 1, 2, 0, bytes([0, 0b00011011]))
    np.testing.assert_array_equal(decode(data), [[0, 85, 170, 255]])


def test_a_cmyk_jpeg_comes_out_in_its_colours() -> None:
    wanted = np.zeros((16, 48, 3), dtype=np.uint8)
    wanted[:, :16], wanted[:, 16:32], wanted[:, 32:] = (255, 0, 0), (40, 160, 90), (230, 230, 230)
    image = Image.fromarray(wanted).convert("CMYK")
    found = decode(_saved(image, "JPEG", quality=98, subsampling=0))
    assert found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted).mean() < 4


@pytest.mark.parametrize("marker", [True, False])
def test_the_inks_of_a_cmyk_jpeg_are_inverted_only_where_adobes_marker_says_so(marker: bool) -> None:
    inks = np.zeros((16, 16, 4), dtype=np.uint8)
    inks[..., 0], inks[..., 3] = 255, 51
    data = _saved(Image.fromarray(inks, "CMYK"), "JPEG", quality=98)
    at = data.index(b"\xff\xee\0\x0eAdobe")
    plain = data[:at] + data[at + 16 :]
    found = decode(data if marker else plain)[8, 8].astype(int)
    # full cyan and a fifth of black, or none of cyan, all magenta and yellow, and four fifths of black
    wanted = (0, 204, 204) if marker else (51, 0, 0)
    assert np.abs(found - wanted).max() <= 2


def _turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """What Pillow makes of an orientation, the reference."""
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "16-bit PNG", "CMYK", "palette", "TIFF"])
def test_orientation_is_honoured_in_every_format_that_has_it(form: str, orientation: int) -> None:
    image = {
        "16-bit PNG": lambda: Image.fromarray(_ramp().astype(np.uint16) * 257),
        "CMYK": lambda: Image.fromarray(_colours()).convert("CMYK"),
        "palette": lambda: Image.fromarray(_colours()).quantize(16),
    }.get(form, lambda: Image.fromarray(_ramp()))()
    kind = {"16-bit PNG": "PNG", "CMYK": "JPEG", "palette": "PNG"}.get(form, form)
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = decode(_saved(image, kind))
    np.testing.assert_array_equal(decode(_saved(image, kind, exif=exif)), _turned(upright, orientation))


def test_a_block_of_exif_that_would_cost_much_is_not_parsed() -> None:
    entries = b"".join(struct.pack(">HHII", 1000 + number, 7, 60_000, 8) for number in range(4000))
    body = b"MM\0*\0\0\0\x08" + struct.pack(">H", 4000) + entries
    exif = b"Exif\0\0" + body.ljust(62_000, b"x")
    plain = _saved(Image.fromarray(_colours()).convert("CMYK"), "JPEG")
    data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
    tracemalloc.start()
    found = decode(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(found, decode(plain))
    assert peak < 1_000_000


_DEEP = np.random.default_rng(7).integers(0, 65_536, (24, 40)).astype(np.uint16)


def test_a_16_bit_gray_png_becomes_8_bits_by_its_full_range() -> None:
    np.testing.assert_array_equal(decode(_png(_DEEP)), np.rint(_DEEP / 257))


def test_a_16_bit_rgb_png_with_and_without_alpha_becomes_8_bits_by_its_full_range() -> None:
    colours = np.stack([_DEEP, _DEEP[::-1], 65_535 - _DEEP], axis=-1)
    np.testing.assert_array_equal(decode(_deep_png(colours, 2)), np.rint(colours / 257))
    clear = np.zeros_like(colours[..., :1])
    np.testing.assert_array_equal(
        decode(_deep_png(np.concatenate([colours, clear + 65_535], 2), 6)), np.rint(colours / 257)
    )
    assert not decode(_deep_png(np.concatenate([colours, clear], 2), 6)).any()
    gray = np.stack([_DEEP, np.full_like(_DEEP, 65_535)], axis=-1)
    np.testing.assert_array_equal(decode(_deep_png(gray, 4)), np.rint(_DEEP / 257))


def test_significant_bits_that_a_16_bit_png_declares_are_its_range() -> None:
    twelve = _DEEP >> 4
    # as the specification asks: scaled up, the low bits filled with the high ones
    scaled = (twelve << 4) | (twelve >> 8)
    data = _deep_png(scaled[..., None], 0, _chunk(b"sBIT", b"\x0c"))
    np.testing.assert_array_equal(decode(data), np.rint(twelve * (255 / 4095)))


def test_the_transparent_gray_of_a_16_bit_png_comes_out_black() -> None:
    data = _deep_png(_DEEP[..., None], 0, _chunk(b"tRNS", struct.pack(">H", _DEEP[3, 4])))
    np.testing.assert_array_equal(decode(data), np.rint(np.where(_DEEP[3, 4] == _DEEP, 0, _DEEP) / 257))


def _deep_png(samples: NDArray[np.uint16], colour: int, extra: bytes = b"") -> bytes:
    high, wide = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    return _png_by_hand(wide, high, 16, colour, rows, extra)


def test_the_first_of_several_pictures_in_a_jpeg_is_the_image() -> None:
    np.testing.assert_array_equal(decode(_frames("MPO")), decode(_saved(Image.fromarray(_ramp()), "JPEG")))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_give_pixels_or_a_named_refusal(data: st.DataObject) -> None:
    whole = bytearray(data.draw(st.sampled_from([_png(_ramp()), _jpeg(_colours()), _frames("PNG"), _png(_colours())])))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    found: NDArray[np.uint8] | BadImage
    try:
        found = decode(cut, Limits(max_pixels=1_000_000))
    except BadImage as refusal:
        found = refusal
    if isinstance(found, BadImage):
        assert found.faults
        assert found.http_status in (400, 413, 415)
    else:
        assert found.dtype == np.uint8
        assert found.ndim in (2, 3)
