"""DICOM films to pixels: decompressed, windowed and inverted as the file says; nothing else of it is looked at.

pydicom and its decompressors are an extra and are imported when the first film comes.
"""

from __future__ import annotations

import importlib
import io
import logging
import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rounds.core.errors import BadImage, BadOverride, Fault
from rounds.core.specs import Limits
from rounds.imaging.header import (
    Header,
    Pixels,
    broken,
    check_size,
    over,
    refused,
)
from rounds.imaging.voi import coloured, shown

if TYPE_CHECKING:
    from pydicom import FileDataset

_MARK = b"DICM"
_META = 8192
_INSTALL = "pip install 'rounds[dicom]'"
_RLE = "1.2.840.10008.1.2.5"
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_INFLATED = b"1.2.840.10008.1.2.1\0\0\0"
# What the readers raise on hostile bytes has no common base below Exception.
_BROKEN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
_GRAY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_PALETTE = "PALETTE COLOR"
_LUTS = [
    f"{colour}PaletteColorLookupTable{part}" for colour in ("Red", "Green", "Blue") for part in ("Descriptor", "Data")
]
# The only elements that are read: no name, number or date of anybody, and no overlay (groups 60xx).
_TAGS = [
    *("TransferSyntaxUID", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("PlanarConfiguration", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "LUTDescriptor", "LUTData"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit"),
    *_LUTS,
]


def is_dicom(data: bytes) -> bool:
    """Whether the bytes carry the mark of a DICOM file (PS3.10, 7.1)."""
    return data[128:132] == _MARK


def dicom_header(data: bytes, limits: Limits) -> Header:
    """Dimensions from the elements before the pixels. Raises BadImage: 400, 413 or 415."""
    return _header(_elements(io.BytesIO(data), limits, tags=_TAGS, pixels=False), limits)


def decode_dicom(data: bytes, limits: Limits, header: Header) -> Pixels:
    """The film of a `dicom_header` as it is meant to be looked at: uint8 (h, w) gray or (h, w, 3) RGB, 0 black.

    Gray: bits above those stored (old overlays) are masked away, then modality LUT or rescale, then the first VOI LUT
    or window, LINEAR, LINEAR_EXACT or SIGMOID (PS3.3, C.11), then MONOCHROME1 is inverted. Without a VOI, up to 8 bits
    are shown whole, and of more bits the range that occurs, padding aside; padding is black. Overlay planes are never
    drawn. Raises BadImage: 400 broken, 413 over a limit, 415 for several frames or a kind that is not taken.
    """
    film = _elements(io.BytesIO(data), limits, tags=_TAGS, pixels=True)
    if (film.get("Rows"), film.get("Columns")) != (header.height, header.width):
        # pydicom drops every element of a file whose compressed pixels do not end.
        raise broken("DICOM", "ends early", header.size)
    samples = _decompressed(film, header)
    with _readable(header):
        if film.PhotometricInterpretation in _GRAY:
            return shown(samples, film)
        if film.PhotometricInterpretation == _PALETTE:
            return coloured(samples, film)
    return np.ascontiguousarray(samples, dtype=np.uint8)


@cache
def reader() -> Any:
    """pydicom, imported when first needed. Raises BadImage 415 with what to install."""
    try:
        found = importlib.import_module("pydicom")
        importlib.import_module("pydicom.pixels")
        importlib.import_module("pydicom.datadict")
    except ImportError:
        raise refused("DICOM needs a package that is not installed", "a DICOM file", _INSTALL) from None
    # Odd values are common in true films and harmless here: they are neither told nor refused by pydicom itself.
    found.config.settings.reading_validation_mode = found.config.IGNORE
    warnings.filterwarnings("ignore", module="pydicom")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    return found


def film_elements(file: BinaryIO, limits: Limits, *, tags: Sequence[str] | None) -> FileDataset:
    """A film's elements up to its pixels, those of its image and those with these keywords (None: every one).

    What they say of the image is held to what is taken and to the limits. Raises BadImage: 400, 413 or 415.
    """
    film = _elements(file, limits, tags=None if tags is None else [*_TAGS, *tags], pixels=False)
    _header(film, limits)
    return film


def marked(data: bytes) -> bytes:
    """A film that was written without preamble, or without any meta information, as a whole file (PS3.10, 7.1).

    Raises: BadImage 415 for bytes that do not begin as DICOM does.
    """
    if is_dicom(data):
        return data
    meta = b""
    if data.startswith(b"\b\0") and data[4:6].isalpha() and data[4:6].isupper():
        meta = b"\2\0\x10\0UI\x14\0" + _INFLATED[:20]
    elif data.startswith(b"\b\0"):
        meta = b"\2\0\x10\0UI\x12\0" + b"1.2.840.10008.1.2\0"
    elif not data.startswith(b"\2\0"):
        raise refused("not a DICOM file", "bytes without the mark DICM", "")
    return bytes(128) + _MARK + meta + data


def text_of(film: FileDataset, tag: str) -> str:
    """An element as text, "" where it is absent; tags as `check_tag` takes them. Raises: BadImage for a broken one."""
    with _readable(None):
        value: Any = film
        for part in _parts(tag):
            items = value[0] if type(value).__name__ == "Sequence" else value
            value = _element(items, part)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if type(value).__name__ == "MultiValue":
            value = "\\".join(map(str, value))
        return "" if value is None else str(value).strip(" \0")


def check_tag(tag: str) -> None:
    """Holds a tag to its forms: Keyword, (0011,1001), (0011,OWNER,01) for a private one, and Sequence.Keyword.

    Raises: BadOverride, BadImage 415 without pydicom.
    """
    known = reader().datadict.DicomDictionary
    for part in _parts(tag):
        numbers = re.fullmatch(r"[0-9a-fA-F]{4},([0-9a-fA-F]{4}|.+,[0-9a-fA-F]{2})", part)
        if not numbers and reader().datadict.tag_for_keyword(part) is None:
            near = get_close_matches(part, [entry[4] for entry in known.values()], 1)
            expected = "a keyword such as BodyPartExamined, (0011,1001) or (0011,OWNER,01)"
            fault = Fault("no such DICOM element", part, expected, next=f"did you mean {near[0]}?" if near else "")
            raise BadOverride("cannot read labels from the films", [fault])


def _parts(tag: str) -> list[str]:
    return [inner or plain for inner, plain in re.findall(r"\(([^)]*)\)|([^.()]+)", tag)]


def _element(items: Any, part: str) -> Any:
    if not hasattr(items, "private_block"):
        return ""
    group, _, number = part.rpartition(",")
    if not group:
        return items.get(part, "")
    group, _, owner = group.partition(",")
    try:
        found = items.private_block(int(group, 16), owner)[int(number, 16)] if owner else items[int(group + number, 16)]
    except KeyError:
        return ""
    return found.value


def _elements(file: BinaryIO, limits: Limits, *, tags: Sequence[str] | None, pixels: bool) -> FileDataset:
    file = _inflated(file, limits)
    with _readable(None):
        wanted = None if tags is None else list(tags)
        found: FileDataset = reader().dcmread(file, stop_before_pixels=not pixels, specific_tags=wanted)
        return found


def _inflated(file: BinaryIO, limits: Limits) -> BinaryIO:
    """A file of the deflated transfer syntax as one of explicit elements; every other file as it is."""
    head, at = file.read(_META), 132
    file.seek(0)
    while head[at : at + 2] == b"\2\0" and at + 12 <= len(head):
        long = head[at + 4 : at + 6] in (b"OB", b"OW", b"UN", b"SQ", b"UT")
        length, size = (12, head[at + 8 : at + 12]) if long else (8, head[at + 6 : at + 8])
        at += length + int.from_bytes(size, "little")
    if _DEFLATED not in head[132:at]:
        return file
    data = file.read()
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        body = inflater.decompress(data[at:], limits.max_bytes)
    except zlib.error:
        raise broken("DICOM", "cannot be inflated") from None
    if inflater.unconsumed_tail:
        raise over("the file is too large", f"at most {limits.max_bytes:,} bytes", "more when it is inflated")
    return io.BytesIO(data[:at].replace(_DEFLATED, _INFLATED) + body)


@contextmanager
def _readable(header: Header | None) -> Iterator[None]:
    try:
        yield
    except BadImage:
        raise
    except _BROKEN:
        raise _unreadable(header) from None
    except Exception as cause:
        # pydicom's own errors, which cannot be named before it is imported.
        if not type(cause).__module__.startswith(("pydicom", "pylibjpeg", "libjpeg", "openjpeg", "rle")):
            raise
        raise _unreadable(header) from None


def _unreadable(header: Header | None) -> BadImage:
    return broken("DICOM", "cannot be decoded", header.size) if header else broken("DICOM", "cannot be read")


def _header(film: FileDataset, limits: Limits) -> Header:
    """Holds what the elements say of the pixels to what is taken, and to the limits."""
    with _readable(None):
        said = [film.get(key) for key in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored")]
        frames = int(film.get("NumberOfFrames") or 1)
        photometric = str(film.get("PhotometricInterpretation", ""))
        high = film.get("HighBit")
    if not all(isinstance(value, int) for value in said):
        raise refused("a DICOM file without an image is not taken", "a DICOM file without rows, columns or bits")
    rows, columns, samples, allocated, stored = (int(value) for value in said)
    check_size("DICOM", columns, rows, limits)
    if frames != 1:
        raise refused("an image with several frames is not taken", f"a DICOM file of {frames:,} frames")
    colour = photometric in _COLOUR
    if photometric not in (*_GRAY, _PALETTE, *_COLOUR) or samples != (3 if colour else 1):
        got = f"a DICOM file of {samples} samples as {photometric or 'nothing'}"
        raise refused("these DICOM colours are not taken", got)
    fits = allocated in (8, 16) and 1 <= stored <= allocated and not (colour and (allocated, stored) != (8, 8))
    if not fits or (high is not None and high != stored - 1):
        got = f"a DICOM file of {stored} bits in {allocated}, the highest {high}"
        raise refused("these DICOM bits are not taken", got)
    return Header("DICOM", columns, rows, samples, plain=False, whole=True)


def _decompressed(film: FileDataset, header: Header) -> NDArray[Any]:
    """The samples as stored, RGB where there are three; of the shape that the header says, or broken."""
    pixels = importlib.import_module("pydicom.pixels")
    syntax = film.file_meta.get("TransferSyntaxUID", "")
    try:
        decoder = pixels.get_decoder(syntax)
    except TypeError:  # several of them, in a damaged file
        raise _unreadable(header) from None
    except NotImplementedError:
        name = getattr(syntax, "name", syntax) or "no transfer syntax"
        raise refused("this DICOM coding is not taken", f"a DICOM file of {name}") from None
    if not decoder.is_available:
        raise refused("this DICOM coding needs a package that is not installed", f"{syntax.name}", _INSTALL)
    with _readable(header):
        if not film.get("PixelData"):
            raise broken("DICOM", "has no pixels", header.size)
        stream = _stream(film) if syntax.is_encapsulated else b""
        if syntax == _RLE:
            return _run_lengths(stream, film, header)
        # The decoder allocates by what the stream says itself.
        if stream and _stream_size(stream) != (header.width, header.height, header.channels):
            raise broken("DICOM", "holds a stream of other dimensions", header.size)
        found, _ = decoder.as_array(film, index=0)
        shape = (header.height, header.width) + ((3,) if header.channels == 3 else ())
        if found.shape != shape:
            raise broken("DICOM", "cannot be decoded", header.size)
        return np.asarray(found, dtype=found.dtype.newbyteorder("="))


def _stream(film: FileDataset) -> bytes:
    found: bytes = importlib.import_module("pydicom.encaps").get_frame(film.PixelData, 0, number_of_frames=1)
    return found


def _run_lengths(stream: bytes, film: FileDataset, header: Header) -> NDArray[Any]:
    """The samples of an RLE frame (PS3.5, annex G): a segment for each byte of each sample, the high byte first.

    Unpacked by Pillow, whose rule is the same (PackBits): the usual reader's own panics on damaged runs.
    """
    count, *starts = struct.unpack_from("<16I", stream)
    wide = film.BitsAllocated // 8
    if count != wide * header.channels or starts[:count] != sorted(starts[:count]):
        raise broken("DICOM", "has other segments than samples", header.size)
    ends = [*starts[1:count], len(stream)]
    line = (header.width * header.height, 1)
    planes = [
        np.asarray(Image.frombytes("L", line, stream[start:end], "packbits", "L"), dtype=np.uint8)[0]
        for start, end in zip(starts[:count], ends, strict=True)
    ]
    if wide == 2:
        planes = [(high.astype(np.uint16) << 8) | low for high, low in zip(planes[::2], planes[1::2], strict=True)]
    if len(planes) == 1:
        return np.asarray(planes[0].reshape(header.height, header.width))
    colours = np.stack(planes, axis=-1).reshape(header.height, header.width, 3)
    if film.PhotometricInterpretation == "RGB":
        return colours
    convert = importlib.import_module("pydicom.pixels").convert_color_space
    return np.asarray(convert(colours, film.PhotometricInterpretation, "RGB"))


def _stream_size(stream: bytes) -> tuple[int, int, int] | None:
    """Width, height and channels of a JPEG, JPEG-LS or JPEG 2000 stream, None where it does not say."""
    start = stream.find(b"\xff\x4f\xff\x51", 0, _META)
    if start >= 0 and not stream.startswith(b"\xff\xd8"):
        right, bottom, left, top = struct.unpack_from(">IIII", stream, start + 8)
        (channels,) = struct.unpack_from(">H", stream, start + 40)
        return right - left, bottom - top, channels
    at = 2 if stream.startswith(b"\xff\xd8") else len(stream)
    while at + 10 <= len(stream):
        mark = stream[at + 1]
        if mark == 0xF7 or (0xC0 <= mark <= 0xCF and mark not in (0xC4, 0xC8, 0xCC)):
            height, width, channels = struct.unpack_from(">HHB", stream, at + 5)
            return width, height, channels
        at += 1 if mark == 0xFF else 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return None
