"""TIFF 6.0: the first directory read and judged by itself, its strips or tiles unpacked by libtiff, its samples
interpreted here.

Pillow and libtiff see only a directory that is written anew from checked numbers: no metadata, no further images, no
colour handling. So 16 bits keep their depth, and nothing that a file claims is allocated before it was held to the
limits.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rounds.core.errors import BadImage
from rounds.core.specs import Limits
from rounds.imaging.header import Pixels, broken, from_cmyk, over_black, refused, to_eight_bits

_FORMATS = {1: "u1", 2: "u1", 3: "u2", 4: "u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4"}
_PACKING = {1: "none", 5: "LZW", 7: "JPEG", 8: "deflate", 32773: "PackBits", 32946: "deflate"}
_OTHER_PACKING = {2: "CCITT", 3: "CCITT Group 3", 4: "CCITT Group 4", 6: "old-style JPEG", 50000: "Zstandard"}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3}
_MOST_SAMPLES = 8
_MOST_FRAMES = 64
_MOST_BYTES = 1 << 16

Numbers = NDArray[np.int64]
Value = Sequence[int] | Numbers | bytes
_NONE = np.empty(0, np.int64)


class Tag(IntEnum):
    """The entries of a directory that say how its pixels lie (TIFF 6.0, section 8)."""

    SUBFILE = 254
    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    PACKING = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES = 277
    ROWS_PER_STRIP = 278
    STRIP_BYTES = 279
    MAX_SAMPLE = 281
    PLANAR = 284
    PREDICTOR = 317
    COLOUR_MAP = 320
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILE_OFFSETS = 324
    TILE_BYTES = 325
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    S_MAX_SAMPLE = 341
    JPEG_TABLES = 347
    SUBSAMPLING = 530


_KNOWN = frozenset(map(int, Tag))


@dataclass(frozen=True)
class Layout:
    """How the samples of one image lie in the file: `samples` a pixel of `bits` each, in blocks of `block_width` x
    `block_height` pixels (tiles, or strips as wide as the image), one set of blocks a plane."""

    order: str
    width: int
    height: int
    bits: int
    samples: int
    packing: int
    photometric: int
    predictor: int
    planes: int
    tiled: bool
    block_width: int
    block_height: int
    offsets: Numbers
    counts: Numbers
    orientation: int
    top: int
    alpha: int
    colours: NDArray[np.uint16] | None
    tables: bytes
    subsampling: tuple[int, ...]


def orientation_of(exif: bytes) -> int:
    """The orientation 1..8 that a block of EXIF says, 1 where it says none that is known."""
    try:
        found = _one(read_directory(exif.removeprefix(b"Exif\0\0"))[1], Tag.ORIENTATION, 1)
    except BadImage:
        return 1
    return found if 1 <= found <= 8 else 1


def read_directory(data: bytes, at: int | None = None) -> tuple[str, Mapping[int, Numbers], int]:
    """One directory, the first unless its place is told: byte order, whole-number entries by tag, place of the next.

    Only the tags of `Tag` are read, so a directory costs no more than its own length. Raises: BadImage.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2], "")
    if not order or len(data) < 8:
        raise broken("TIFF", "ends within its header")
    magic, first = struct.unpack(order + "HI", data[2:8])
    if magic != 42:
        raise broken("TIFF", "has no directory")
    at = first if at is None else at
    if not 8 <= at <= len(data) - 2:
        raise broken("TIFF", "ends before its directory")
    (entries,) = struct.unpack_from(order + "H", data, at)
    end = at + 2 + 12 * entries
    if end > len(data):
        raise broken("TIFF", "ends within its directory")
    found: dict[int, Numbers] = {}
    for tag, kind, count, value in struct.iter_unpack(order + "HHI4s", data[at + 2 : end]):
        if tag in _KNOWN and tag not in found and kind in _FORMATS and count:
            found[tag] = _values(data, order + _FORMATS[kind], count, value)
    following = struct.unpack_from(order + "I", data, end)[0] if end + 4 <= len(data) else 0
    return order, found, following


def _values(data: bytes, form: str, count: int, value: bytes) -> Numbers:
    size = count * np.dtype(form).itemsize
    start = 0 if size <= 4 else int.from_bytes(value, "little" if form[0] == "<" else "big")
    source = value if size <= 4 else data
    if start + size > len(source) or (size == count > _MOST_BYTES):
        raise broken("TIFF", "ends within an entry of its directory")
    return np.frombuffer(source, form, count, start).astype(np.int64)


def read_layout(data: bytes) -> Layout:
    """What the first directory says of the image, nothing unpacked. Raises: BadImage."""
    order, tags, following = read_directory(data)
    _refuse_frames(data, following)
    _refuse_others(tags)
    width, height = _one(tags, Tag.WIDTH, 0), _one(tags, Tag.HEIGHT, 0)
    samples, photometric = _one(tags, Tag.SAMPLES, 1), _one(tags, Tag.PHOTOMETRIC, _BLACK_IS_ZERO)
    bits = _one(tags, Tag.BITS, 1)
    planes = samples if _one(tags, Tag.PLANAR, 1) == 2 else 1
    tiled = Tag.TILE_WIDTH in tags
    block_width = _one(tags, Tag.TILE_WIDTH, 0) if tiled else width
    block_height = _one(tags, Tag.TILE_HEIGHT, 0) if tiled else min(_one(tags, Tag.ROWS_PER_STRIP, height), height)
    orientation = _one(tags, Tag.ORIENTATION, 1)
    colours = _COLOURS[photometric]
    premultiplied = _one(tags, Tag.EXTRA_SAMPLES, 2) != 2
    return Layout(
        order=order,
        width=width,
        height=height,
        bits=bits,
        samples=samples,
        packing=_one(tags, Tag.PACKING, 1),
        photometric=photometric,
        predictor=_one(tags, Tag.PREDICTOR, 1),
        planes=planes,
        tiled=tiled,
        block_width=block_width,
        block_height=block_height,
        offsets=tags.get(Tag.TILE_OFFSETS if tiled else Tag.STRIP_OFFSETS, _NONE),
        counts=tags.get(Tag.TILE_BYTES if tiled else Tag.STRIP_BYTES, _NONE),
        orientation=orientation if 1 <= orientation <= 8 else 1,
        top=_declared_top(tags, bits),
        alpha=0 if premultiplied or Tag.EXTRA_SAMPLES not in tags or samples == colours else colours,
        colours=_colour_map(tags, bits) if photometric == _PALETTE else None,
        tables=tags.get(Tag.JPEG_TABLES, _NONE).astype(np.uint8).tobytes(),
        subsampling=tuple(tags.get(Tag.SUBSAMPLING, np.array([2, 2])).tolist()),
    )


def _check_blocks(data: bytes, layout: Layout, most_pixels: int) -> None:
    """Holds the blocks to the file and to the image, so that unpacking allocates no more than the image needs.

    Raises: BadImage.
    """
    wide, high = layout.block_width, layout.block_height
    if wide < 1 or high < 1 or (layout.tiled and (wide % 16 or high % 16)):
        raise broken("TIFF", "has blocks without pixels" if min(wide, high) < 1 else "has tiles not of 16 pixels")
    across, down = -(-layout.width // wide), -(-layout.height // high)
    if layout.tiled and across * wide * down * high > max(most_pixels, 4 * layout.width * layout.height):
        raise broken("TIFF", f"has tiles of {wide:,} x {high:,} pixels")
    if len(layout.offsets) != across * down * layout.planes or len(layout.counts) != len(layout.offsets):
        raise broken("TIFF", f"has {len(layout.offsets):,} blocks of {across * down * layout.planes:,}")
    if ((layout.offsets < 8) | (layout.counts < 1)).any() or (layout.offsets + layout.counts).max() > len(data):
        raise broken("TIFF", "ends early")


def decode_tiff(data: bytes, limits: Limits) -> Pixels:
    """The image as uint8 (h, w) gray or (h, w, 3) RGB, as it lies in the file.

    16 bits become 8 by full range, or by the range that MaxSampleValue or SMaxSampleValue declares. Alpha is laid over
    black. Raises: BadImage, and what Pillow raises.
    """
    layout = read_layout(data)
    _check_blocks(data, layout, limits.max_pixels)
    per_plane = len(layout.offsets) // layout.planes
    planes = [_unpacked(data, layout, start) for start in range(0, len(layout.offsets), per_plane)]
    samples: NDArray[Any] = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)
    if layout.colours is not None:
        return _paletted(samples[..., 0], layout.colours)
    eight = to_eight_bits(samples, layout.top)
    colours = eight[..., : _COLOURS[layout.photometric]]
    if layout.photometric == _WHITE_IS_ZERO:
        colours = 255 - colours
    if layout.photometric == _CMYK:
        colours = from_cmyk(colours)
    if layout.alpha:
        colours = over_black(colours, eight[..., layout.alpha, None])
    return np.ascontiguousarray(colours[..., 0] if colours.shape[2] == 1 else colours)


def _one(tags: Mapping[int, Numbers], tag: Tag, default: int) -> int:
    return int(tags[tag][0]) if tag in tags else default


def _refuse_frames(data: bytes, following: int) -> None:
    """Raises BadImage where another directory is an image of its own and not a small copy of the first."""
    for _ in range(_MOST_FRAMES):
        if not following:
            return
        _, tags, following = read_directory(data, following)
        if not _one(tags, Tag.SUBFILE, 0) & 1:
            break
    raise refused("an image with several frames is not taken", "a TIFF of several frames")


def _refuse_others(tags: Mapping[int, Numbers]) -> None:
    """Raises BadImage for what only other readers can make pixels of."""
    packing, photometric = _one(tags, Tag.PACKING, 1), _one(tags, Tag.PHOTOMETRIC, _BLACK_IS_ZERO)
    size, samples = _one(tags, Tag.BITS, 1), _one(tags, Tag.SAMPLES, 1)
    if _one(tags, Tag.SAMPLE_FORMAT, 1) not in (1, 4):
        kind = "signed" if _one(tags, Tag.SAMPLE_FORMAT, 1) == 2 else "floating-point"
        raise refused(f"{kind} pixels are not taken", f"a {kind} TIFF")
    if packing not in _PACKING:
        name = _OTHER_PACKING.get(packing, f"number {packing}")
        raise refused("this TIFF compression is not taken", f"a TIFF compressed by {name}")
    if photometric not in _COLOURS or (photometric == _YCBCR and packing != 7):
        raise refused("these TIFF colours are not taken", f"a TIFF of photometric interpretation {photometric}")
    if (tags.get(Tag.BITS, _NONE) != size).any() or size not in (1, 2, 4, 8, 16) or (packing == 7 and size != 8):
        raise refused(f"{size}-bit pixels are not taken", f"a {size}-bit TIFF")
    if not _COLOURS[photometric] <= samples <= _MOST_SAMPLES or (size < 8 and samples != 1):
        raise refused("so many samples a pixel are not taken", f"a TIFF of {samples} samples of {size} bits a pixel")
    if _one(tags, Tag.FILL_ORDER, 1) != 1 or _one(tags, Tag.PREDICTOR, 1) not in (1, 2):
        raise refused("this TIFF coding is not taken", "a TIFF of reversed bits or of another predictor")
    if photometric == _PALETTE and (size > 8 or len(tags.get(Tag.COLOUR_MAP, _NONE)) != 3 << size):
        raise broken("TIFF", "has no whole colour map")


def _declared_top(tags: Mapping[int, Numbers], bits: int) -> int:
    """The largest value a sample may have.

    A declared maximum counts where it is that of a bit depth (1023, 4095): any other number is a statistic of this
    film, and to stretch by it would change grays from film to film.
    """
    for tag in (Tag.S_MAX_SAMPLE, Tag.MAX_SAMPLE):
        declared = _one(tags, tag, 0)
        if bits == 16 and 255 <= declared < 65_535 and declared & (declared + 1) == 0:
            return declared
    return (1 << bits) - 1


def _colour_map(tags: Mapping[int, Numbers], bits: int) -> NDArray[np.uint16]:
    """The colours of a palette, uint16 (2**bits, 3)."""
    colours = tags[Tag.COLOUR_MAP].reshape(3, 1 << bits).T
    # Old writers put 8-bit colours here, as libtiff's own tools allow for.
    return np.ascontiguousarray(colours * 257 if colours.max() < 256 else colours).astype(np.uint16)


def _paletted(indices: NDArray[Any], colours: NDArray[np.uint16]) -> Pixels:
    return np.asarray(to_eight_bits(colours, 65_535)[indices])


def _unpacked(data: bytes, layout: Layout, start: int) -> NDArray[Any]:
    """The samples of the plane whose blocks begin at `start`: (h, w, samples of the plane)."""
    samples = layout.samples // layout.planes
    if layout.packing == 7:
        return _jpeg_samples(data, layout, start, samples)
    row = -(-layout.width * samples * layout.bits // 8)
    block = -(-layout.block_width * samples * layout.bits // 8) if layout.tiled else row
    lines = np.asarray(_opened(_rewritten(data, layout, start, _as_bytes(layout, row, block)), (row, layout.height)))
    if layout.bits < 8:
        return _spread_bits(lines, layout.bits)[:, : layout.width, None]
    wide = layout.width * samples
    whole: NDArray[Any] = lines if layout.bits == 8 else lines.view(f"{layout.order}u2").astype(np.uint16)
    whole = whole.reshape(layout.height, wide // samples, samples)
    return _undifferenced(whole, layout.block_width) if layout.predictor == 2 else whole


def _undifferenced(samples: NDArray[Any], width: int) -> NDArray[Any]:
    """Undoes the horizontal predictor (TIFF 6.0, section 14), which begins anew in every block."""
    whole = [
        np.cumsum(samples[:, at : at + width], axis=1, dtype=samples.dtype) for at in range(0, samples.shape[1], width)
    ]
    return whole[0] if len(whole) == 1 else np.concatenate(whole, axis=1)


def _spread_bits(lines: Pixels, bits: int) -> Pixels:
    """Samples of 1, 2 or 4 bits, packed from the high end, one a byte."""
    shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
    spread = (lines[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return spread.reshape(lines.shape[0], -1)


def _jpeg_samples(data: bytes, layout: Layout, start: int, samples: int) -> NDArray[Any]:
    # libtiff turns YCbCr to RGB itself; every other meaning of the samples stays as it lies.
    photometric = {_YCBCR: _YCBCR, _RGB: _RGB, _CMYK: _CMYK}.get(layout.photometric, _BLACK_IS_ZERO)
    photometric = photometric if layout.planes == 1 else _BLACK_IS_ZERO
    entries: dict[Tag, Value] = {
        Tag.WIDTH: [layout.width],
        Tag.HEIGHT: [layout.height],
        Tag.BITS: [8] * samples,
        Tag.PACKING: [7],
        Tag.PHOTOMETRIC: [photometric],
        Tag.SAMPLES: [samples],
    }
    if layout.tables:
        entries[Tag.JPEG_TABLES] = layout.tables
    if photometric == _YCBCR:
        entries[Tag.SUBSAMPLING] = layout.subsampling
    entries |= _block_entries(layout.tiled, layout.block_width, layout.block_height)
    found = np.asarray(_opened(_rewritten(data, layout, start, entries), (layout.width, layout.height)))
    return np.asarray(found.reshape(layout.height, layout.width, -1), dtype=np.uint8)


def _as_bytes(layout: Layout, row: int, block: int) -> dict[Tag, Value]:
    """The entries of a gray image of plain bytes that has the same blocks: `row` bytes wide, `block` a block."""
    return {
        Tag.WIDTH: [row],
        Tag.HEIGHT: [layout.height],
        Tag.BITS: [8],
        Tag.PACKING: [layout.packing],
        Tag.PHOTOMETRIC: [_BLACK_IS_ZERO],
        Tag.SAMPLES: [1],
        **_block_entries(layout.tiled, block, layout.block_height),
    }


def _block_entries(tiled: bool, wide: int, high: int) -> dict[Tag, Value]:
    return {Tag.TILE_WIDTH: [wide], Tag.TILE_HEIGHT: [high]} if tiled else {Tag.ROWS_PER_STRIP: [high]}


def _rewritten(data: bytes, layout: Layout, start: int, entries: dict[Tag, Value]) -> bytes:
    """The file with one directory of these entries, which stands behind the data and points to one plane's blocks."""
    end = start + len(layout.offsets) // layout.planes
    offsets, counts = (Tag.TILE_OFFSETS, Tag.TILE_BYTES) if layout.tiled else (Tag.STRIP_OFFSETS, Tag.STRIP_BYTES)
    entries = {**entries, offsets: layout.offsets[start:end], counts: layout.counts[start:end]}
    at = len(data) + len(data) % 2
    behind = at + 2 + 12 * len(entries) + 4
    lines, values = [struct.pack(layout.order + "H", len(entries))], b""
    for tag in sorted(entries):
        value = entries[tag]
        kind = 7 if isinstance(value, bytes) else 4
        packed = value if isinstance(value, bytes) else np.asarray(value).astype(f"{layout.order}u4").tobytes()
        if len(packed) > 4:
            place = struct.pack(layout.order + "I", behind + len(values))
            values += packed
        else:
            place = packed.ljust(4, b"\0")
        lines.append(struct.pack(layout.order + "HHI", tag, kind, len(value)) + place)
    head = data[:4] + struct.pack(layout.order + "I", at)
    return b"".join([head, data[8:], bytes(len(data) % 2), *lines, bytes(4), values])


def _opened(data: bytes, size: tuple[int, int]) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
        image.load()
        if image.size != size:
            raise broken("TIFF", "cannot be decoded")
        return image
