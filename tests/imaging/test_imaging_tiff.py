"""TIFF to pixels: every layout that writers use comes out exactly; what is not taken, or would cost much, is named."""

from __future__ import annotations

import io
import itertools
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from rounds.core.errors import BadImage
from rounds.core.specs import Limits
from rounds.imaging.decode import decode

_HIGH, _WIDE = 37, 53
_RNG = np.random.default_rng(3)
_GRAY = _RNG.integers(0, 256, (_HIGH, _WIDE, 1)).astype(np.uint8)
_RGB = _RNG.integers(0, 256, (_HIGH, _WIDE, 3)).astype(np.uint8)
_CMYK = _RNG.integers(0, 256, (_HIGH, _WIDE, 4)).astype(np.uint8)
_DEEP = _RNG.integers(0, 65_536, (_HIGH, _WIDE, 1)).astype(np.uint16)
_DEEP_RGB = _RNG.integers(0, 65_536, (_HIGH, _WIDE, 3)).astype(np.uint16)
_AGAIN = "Export or copy the file again"


def _packbits(data: bytes) -> bytes:
    """Runs where bytes repeat, the rest as they are (TIFF 6.0, section 9)."""
    out = b""
    for value, group in itertools.groupby(data):
        n = len(list(group))
        while n:
            part = min(n, 128)
            out += bytes([257 - part, value]) if part > 1 else bytes([0, value])
            n -= part
    return out


def _lzw(data: bytes) -> bytes:
    """Codes of nine bits, the table cleared before they would need ten (TIFF 6.0, section 13)."""
    codes: list[int] = []
    for at in range(0, len(data), 200):
        codes += [256, *data[at : at + 200]]
    bits = "".join(f"{code:09b}" for code in [*codes, 257])
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


_PACKINGS: Mapping[str, tuple[int, Callable[[bytes], bytes]]] = {
    "none": (1, bytes),
    "LZW": (5, _lzw),
    "deflate": (8, zlib.compress),
    "old deflate": (32946, zlib.compress),
    "PackBits": (32773, _packbits),
}


def _tiff(entries: Mapping[int, Any], blocks: list[bytes], *, order: str = "<", tiled: bool = False) -> bytes:
    """A TIFF of one directory: numbers as LONG (SHORT where they must be), bytes as UNDEFINED; blocks behind it."""
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 42)
    body, offsets = b"", []
    for block in blocks:
        offsets.append(8 + len(body))
        body += block
    body += bytes(len(body) % 2)
    entries = {**entries, (324 if tiled else 273): offsets, (325 if tiled else 279): [len(block) for block in blocks]}
    at = 8 + len(body)
    behind = at + 6 + 12 * len(entries)
    lines, values = b"", b""
    for tag in sorted(entries):
        value = entries[tag]
        value = [value] if isinstance(value, int) else value
        form, kind = ("I", 4) if tag in (256, 257, 273, 278, 279, 322, 323, 324, 325) else ("H", 3)
        packed = value if isinstance(value, bytes) else struct.pack(f"{order}{len(value)}{form}", *value)
        kind = 7 if isinstance(value, bytes) else kind
        place = packed.ljust(4, b"\0")
        if len(packed) > 4:
            place = struct.pack(order + "I", behind + len(values))
            values += packed
        lines += struct.pack(order + "HHI", tag, kind, len(value)) + place
    return (
        head + struct.pack(order + "I", at) + body + struct.pack(order + "H", len(entries)) + lines + bytes(4) + values
    )


def _blocks(samples: NDArray[Any], order: str, tile: tuple[int, int] | None, rows: int, predictor: int) -> list[bytes]:
    """The samples (h, w, c) cut into tiles (wide, high) or strips of so many rows, as bytes."""
    high, wide, count = samples.shape
    tall, broad = (tile[1], tile[0]) if tile else (rows, wide)
    out = []
    for top, left in itertools.product(range(0, high, tall), range(0, wide, broad)):
        part = samples[top : top + tall, left : left + broad]
        if tile:
            part = np.pad(part, ((0, tall - part.shape[0]), (0, broad - part.shape[1]), (0, 0)))
        if predictor == 2:
            part = np.diff(part, axis=1, prepend=np.zeros((part.shape[0], 1, count), part.dtype))
        out.append(part.astype(part.dtype.newbyteorder(order)).tobytes())
    return out


def _image(
    samples: NDArray[Any],
    photometric: int,
    *,
    order: str = "<",
    packing: str = "none",
    tile: tuple[int, int] | None = None,
    rows: int = 10,
    planar: bool = False,
    predictor: int = 1,
    **more: Any,
) -> bytes:
    count = samples.shape[2]
    number, pack = _PACKINGS[packing]
    planes = [samples[..., at : at + 1] for at in range(count)] if planar else [samples]
    blocks = [pack(block) for plane in planes for block in _blocks(plane, order, tile, rows, predictor)]
    entries = {256: samples.shape[1], 257: samples.shape[0], 258: [8 * samples.itemsize] * count, 259: number}
    entries |= {262: photometric, 277: count, 284: 2 if planar else 1, 317: predictor}
    entries |= {322: tile[0], 323: tile[1]} if tile else {278: rows}
    entries |= {int(tag[1:]): value for tag, value in more.items()}
    return _tiff(entries, blocks, order=order, tiled=tile is not None)


def _eight(samples: NDArray[Any]) -> NDArray[np.uint8]:
    return samples if samples.dtype == np.uint8 else np.rint(samples / 257).astype(np.uint8)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("packing", _PACKINGS)
@pytest.mark.parametrize("name", ["gray", "RGB", "16-bit gray", "16-bit RGB"])
def test_strips_tiles_planes_and_predictors_come_out_exactly(name: str, packing: str, order: str) -> None:
    samples = {"gray": _GRAY, "RGB": _RGB, "16-bit gray": _DEEP, "16-bit RGB": _DEEP_RGB}[name]
    colours = samples.shape[2]
    wanted = _eight(samples)[..., 0] if colours == 1 else _eight(samples)
    predictors = (1,) if packing in ("none", "PackBits") else (1, 2)
    for tile, planar, predictor in itertools.product((None, (16, 32)), (False, colours == 3), predictors):
        data = _image(
            samples,
            2 if colours == 3 else 1,
            order=order,
            packing=packing,
            tile=tile,
            planar=planar,
            predictor=predictor,
        )
        np.testing.assert_array_equal(decode(data), wanted)


@pytest.mark.parametrize("form", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_what_pillow_writes_comes_out_exactly(form: str) -> None:
    for pixels in (_GRAY[..., 0], _RGB, _DEEP[..., 0]):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "TIFF", compression=form)
        np.testing.assert_array_equal(decode(file.getvalue()), _eight(pixels))


@pytest.mark.parametrize("order", "<>")
def test_jpeg_in_strips_and_tiles_comes_out_as_the_jpegs_do(order: str) -> None:
    smooth = np.add.outer(np.arange(64) * 2, np.arange(48) * 2).astype(np.uint8)
    colours = np.stack([smooth, smooth[::-1], 255 - smooth], -1)
    for pixels, photometric in ((smooth, 1), (colours, 6)):
        wanted = np.zeros_like(pixels)
        for tile in (None, (16, 16)):
            blocks = []
            broad = tile[0] if tile else 48
            for top, left in itertools.product(range(0, 64, 16), range(0, 48, broad)):
                file = io.BytesIO()
                part = np.ascontiguousarray(pixels[top : top + 16, left : left + broad])
                Image.fromarray(part).save(file, "JPEG", quality=95, subsampling=0)
                blocks.append(file.getvalue())
                file.seek(0)
                wanted[top : top + 16, left : left + broad] = np.asarray(Image.open(file))
            entries = {256: 48, 257: 64, 258: [8] * (pixels.ndim * 2 - 3), 259: 7, 262: photometric}
            entries |= {277: pixels.ndim * 2 - 3} | ({322: 16, 323: 16} if tile else {278: 16})
            entries |= {530: [1, 1]} if photometric == 6 else {}
            found = decode(_tiff(entries, blocks, order=order, tiled=tile is not None))
            assert found.shape == pixels.shape
            assert np.abs(found.astype(int) - wanted).max() <= 1


def test_a_tiff_of_sixteen_bits_keeps_its_order() -> None:
    ramp = np.arange(0, 65_536, 64, dtype=np.uint16).reshape(16, 64, 1)
    little, big = (decode(_image(ramp, 1, order=order)) for order in "<>")
    np.testing.assert_array_equal(little, big)
    assert (np.diff(little.reshape(-1).astype(int)) >= 0).all()
    assert (little[0, 0], little[-1, -1]) == (0, 255)


def test_white_is_zero_is_turned_round() -> None:
    for samples in (_GRAY, _DEEP):
        found = decode(_image(samples, 0, packing="deflate"))
        np.testing.assert_array_equal(found, 255 - _eight(samples)[..., 0])


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("photometric", [0, 1])
def test_few_bits_are_spread_over_the_full_range(bits: int, photometric: int) -> None:
    codes = _RNG.integers(0, 1 << bits, (_HIGH, _WIDE)).astype(np.uint8)
    wanted = np.rint(codes * (255 / ((1 << bits) - 1)))
    for tile in (None, (16, 16)):
        data = _packed(codes, bits, tile, {262: photometric})
        np.testing.assert_array_equal(decode(data), wanted if photometric else 255 - wanted)


def _packed(codes: NDArray[np.uint8], bits: int, tile: tuple[int, int] | None, more: Mapping[int, Any]) -> bytes:
    """A TIFF of samples of few bits, rows filled up to whole bytes."""
    blocks = []
    for block in _blocks(codes[..., None], "<", tile, 10, 1):
        part = np.frombuffer(block, np.uint8).reshape(-1, tile[0] if tile else codes.shape[1])
        spread = np.unpackbits(part[..., None], axis=2)[..., 8 - bits :].reshape(len(part), -1)
        blocks.append(zlib.compress(np.packbits(spread, axis=1).tobytes()))
    entries = {256: codes.shape[1], 257: codes.shape[0], 258: bits, 259: 8, 277: 1, **more}
    entries |= {322: tile[0], 323: tile[1]} if tile else {278: 10}
    return _tiff(entries, blocks, tiled=tile is not None)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_a_palette_comes_out_in_its_colours_of_8_or_16_bits(bits: int) -> None:
    codes = _RNG.integers(0, 1 << bits, (_HIGH, _WIDE)).astype(np.uint8)
    colours = _RNG.integers(0, 256, (3, 1 << bits))
    colours[0, 0] = 255
    for scale in (257, 1):
        colour_map = (colours * scale).reshape(-1).tolist()
        data = _packed(codes, bits, None, {262: 3, 320: colour_map})
        np.testing.assert_array_equal(decode(data), colours.T[codes])


def test_inks_become_colours_in_8_and_16_bits() -> None:
    wanted = np.rint((255.0 - _CMYK[..., :3]) * (255 - _CMYK[..., 3:]) / 255)
    for samples in (_CMYK, _CMYK.astype(np.uint16) * 257):
        for planar in (False, True):
            found = decode(_image(samples, 5, packing="LZW", planar=planar)).astype(int)
            assert np.abs(found - wanted).max() <= 1


def test_alpha_is_laid_over_black_where_it_is_not_yet() -> None:
    alpha = _GRAY
    samples = np.concatenate([_RGB, alpha], axis=2)
    laid = np.rint(_RGB * (alpha / 255.0))
    assert np.abs(decode(_image(samples, 2, t338=2)).astype(int) - laid).max() <= 1
    for kind in (1, 0):
        np.testing.assert_array_equal(decode(_image(samples, 2, t338=kind)), _RGB)


@pytest.mark.parametrize("tag", ["t281", "t341"])
def test_a_declared_bit_depth_is_the_range_and_a_statistic_is_not(tag: str) -> None:
    twelve = _DEEP >> 4
    declared = decode(_image(twelve, 1, **{tag: 4095}))
    np.testing.assert_array_equal(declared, np.rint(twelve[..., 0] * (255 / 4095)))
    statistic = decode(_image(twelve, 1, **{tag: 4001}))
    np.testing.assert_array_equal(statistic, np.rint(twelve[..., 0] / 257))


def test_a_small_copy_behind_the_image_is_passed_over() -> None:
    first, second = _image(_GRAY, 1), _image(_GRAY[:8, :8], 1, t254=1)
    np.testing.assert_array_equal(decode(_chained(first, second)), _GRAY[..., 0])


def _chained(first: bytes, second: bytes) -> bytes:
    """Two TIFFs as one of two directories."""
    first += bytes(len(first) % 2)
    at = struct.unpack("<I", first[4:8])[0]
    (count,) = struct.unpack_from("<H", first, at)
    link = at + 2 + 12 * count
    inner = struct.unpack("<I", second[4:8])[0]
    (entries,) = struct.unpack_from("<H", second, inner)
    moved = bytearray(second)
    for place in range(inner + 2, inner + 2 + 12 * entries, 12):
        tag, kind, n = struct.unpack_from("<HHI", second, place)
        if n * (2 if kind == 3 else 4) > 4 or tag in (273, 324):
            struct.pack_into("<I", moved, place + 8, struct.unpack_from("<I", second, place + 8)[0] + len(first))
    return first[:link] + struct.pack("<I", len(first) + inner) + first[link + 4 :] + bytes(moved)


def _refusal(data: bytes, limits: Limits | None = None) -> tuple[int, str]:
    with pytest.raises(BadImage) as caught:
        decode(data, limits or Limits())
    fault = caught.value.faults[0]
    return caught.value.http_status, f"{fault.what}; {fault.got}"


_REFUSED: Mapping[str, tuple[bytes, int, str]] = {
    "several frames": (
        _chained(_image(_GRAY, 1), _image(_GRAY[:8], 1)),
        415,
        "an image with several frames is not taken; a TIFF of several frames",
    ),
    "floating point": (
        _image(_GRAY, 1, t339=3),
        415,
        "floating-point pixels are not taken; a floating-point TIFF",
    ),
    "signed": (_image(_DEEP, 1, t339=2), 415, "signed pixels are not taken; a signed TIFF"),
    "32 bits": (_image(_GRAY, 1, t258=32), 415, "32-bit pixels are not taken; a 32-bit TIFF"),
    "fax": (_image(_GRAY, 1, t259=4), 415, "this TIFF compression is not taken; a TIFF compressed by CCITT Group 4"),
    "Lab": (_image(_RGB, 8), 415, "these TIFF colours are not taken; a TIFF of photometric interpretation 8"),
    "many samples": (
        _image(_GRAY, 1, t277=40),
        415,
        "so many samples a pixel are not taken; a TIFF of 40 samples of 8 bits a pixel",
    ),
    "reversed bits": (
        _image(_GRAY, 1, t266=2),
        415,
        "this TIFF coding is not taken; a TIFF of reversed bits or of another predictor",
    ),
    "no header": (b"II*\0", 400, "the TIFF ends within its header; no whole header"),
    "no directory": (b"II*\0\xff\xff\0\0", 400, "the TIFF ends before its directory; no whole header"),
    "cut directory": (
        _image(_GRAY, 1)[:-90],
        400,
        "the TIFF ends within its directory; no whole header",
    ),
    "no pixels": (
        _image(_GRAY, 1, t256=0),
        400,
        "the TIFF has no pixels; a header that says 0 x 37 pixels",
    ),
    "no strips": (
        _tiff({256: 5, 257: 5, 258: 8, 262: 1, 277: 1, 278: 5}, [b"12345"] * 2),
        400,
        "the TIFF has 2 blocks of 1; no whole header",
    ),
    "palette without colours": (_image(_GRAY, 3), 400, "the TIFF has no whole colour map; no whole header"),
}


@pytest.mark.parametrize("name", _REFUSED)
def test_what_is_not_taken_is_refused_by_name(name: str) -> None:
    data, status, told = _REFUSED[name]
    assert _refusal(data) == (status, told)


def test_a_cut_strip_is_told_as_such() -> None:
    data = bytearray(_image(_GRAY, 1, rows=_HIGH))
    at = struct.unpack("<I", data[4:8])[0]
    place = next(p for p in range(at + 2, len(data), 12) if struct.unpack_from("<H", data, p)[0] == 279)
    struct.pack_into("<I", data, place + 8, len(data) + 1)
    assert _refusal(bytes(data)) == (400, "the TIFF ends early; no whole header")


def _bomb(name: str) -> bytes:
    if name == "pixels":
        return _image(_GRAY, 1, t256=50_000, t257=50_000, t278=50_000)
    if name == "many directories":
        return _tiff({256: 5, 257: 5, 258: 8, 262: 1, 277: 1, 278: 5}, [bytes(25)])[:-4] + struct.pack("<I", 8)
    if name == "one huge tile":
        return _tiff({256: 5, 257: 5, 258: 8, 262: 1, 277: 1, 322: 65_520, 323: 65_520}, [bytes(25)], tiled=True)
    if name == "loop":
        data = bytearray(_image(_GRAY, 1, t254=1))
        at = struct.unpack("<I", data[4:8])[0]
        (count,) = struct.unpack_from("<H", data, at)
        struct.pack_into("<I", data, at + 2 + 12 * count, at)
        return bytes(data)
    entries = b"".join(struct.pack("<HHII", 40_000 + number, 7, 5_000_000, 8) for number in range(1000))
    return b"II*\0" + struct.pack("<I", 6_000_000) + bytes(5_999_992) + struct.pack("<H", 1000) + entries + bytes(4)


@pytest.mark.parametrize(
    ("name", "status"), [("pixels", 413), ("one huge tile", 400), ("loop", 415), ("many claims of one block", 400)]
)
def test_a_bomb_is_refused_without_allocating(name: str, status: int) -> None:
    data = _bomb(name)
    tracemalloc.start()
    found, _ = _refusal(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == status
    assert peak < 1_000_000


def test_metadata_costs_nothing() -> None:
    plain = _image(_GRAY, 1)
    at = struct.unpack("<I", plain[4:8])[0]
    (count,) = struct.unpack_from("<H", plain, at)
    body = plain.ljust(3_000_000, b"x")
    # a thousand private entries that each claim the same three million bytes
    entries = [struct.pack("<HHII", 40_000 + number, 7, 2_900_000, 8) for number in range(1000)]
    directory = struct.pack("<H", count + 1000) + plain[at + 2 : at + 2 + 12 * count] + b"".join(entries) + bytes(4)
    data = body[:4] + struct.pack("<I", len(body)) + body[8:] + directory
    tracemalloc.start()
    found = decode(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(found, _GRAY[..., 0])
    assert peak < 5 * len(data)
