"""DICOM files made by pydicom, of any pixels and coding, with whatever elements a test wants."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)


def dicom(
    pixels: NDArray[Any], *, syntax: str = ExplicitVRLittleEndian, stream: bytes | None = None, **elements: Any
) -> bytes:
    """A film of these samples (h, w) or (h, w, 3), or of an already compressed stream; elements override the usual."""
    film = Dataset()
    film.SOPClassUID, film.SOPInstanceUID = ComputedRadiographyImageStorage, generate_uid()
    film.Modality, film.ViewPosition, film.BodyPartExamined = "CR", "PA", "CHEST"
    film.Rows, film.Columns = pixels.shape[:2]
    film.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    film.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        film.PlanarConfiguration = 0
    film.BitsAllocated = film.BitsStored = 8 * pixels.itemsize
    film.PixelRepresentation = int(pixels.dtype.kind == "i")
    film.PixelData = encapsulate([stream]) if stream else pixels.tobytes()
    for keyword, value in elements.items():
        setattr(film, keyword, value)
    if "HighBit" not in film:
        film.HighBit = film.BitsStored - 1
    if syntax == RLELossless:
        film.compress(RLELossless, pixels, generate_instance_uid=False)
    return written(film, syntax)


def written(film: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """The elements as a file."""
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = syntax
    film.file_meta.MediaStorageSOPClassUID = film.SOPClassUID
    film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID
    file = io.BytesIO()
    film.save_as(file, enforce_file_format=True)
    return file.getvalue()


def jpeg(pixels: NDArray[np.uint8], **options: Any) -> bytes:
    """The pixels as a JPEG."""
    return _stream(pixels, "JPEG", **options)


def jpeg_2000(pixels: NDArray[Any]) -> bytes:
    """The pixels as a lossless JPEG 2000 codestream."""
    return _stream(pixels, "JPEG2000", no_jp2=True, irreversible=False)


def _stream(pixels: NDArray[Any], form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def lossless_jpeg(pixels: NDArray[np.uint16], bits: int = 16) -> bytes:
    """The pixels as a lossless JPEG of the first predictor (ISO/IEC 10918-1, annex H), five bits a category."""
    samples = pixels.astype(np.int64)
    high, wide = samples.shape
    before = np.empty_like(samples)
    before[:, 1:] = samples[:, :-1]
    before[1:, 0] = samples[:-1, 0]
    before[0, 0] = 1 << (bits - 1)
    steps = (samples - before + 32_768) % 65_536 - 32_768
    coded = []
    for step in steps.reshape(-1).tolist():
        size = 16 if step == -32_768 else abs(step).bit_length()
        extra = "" if size in (0, 16) else f"{step if step > 0 else step + (1 << size) - 1:0{size}b}"
        coded.append(f"{size:05b}{extra}")
    text = "".join(coded)
    text += "1" * (-len(text) % 8)
    scan = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")
    table = b"\xff\xc4\0\x24\0" + bytes([0, 0, 0, 0, 17]) + bytes(11) + bytes(range(17))
    frame = b"\xff\xc3\0\x0b" + bytes([bits]) + high.to_bytes(2, "big") + wide.to_bytes(2, "big") + b"\x01\x01\x11\0"
    return b"\xff\xd8" + frame + table + b"\xff\xda\0\x08\x01\x01\0\x01\0\0" + scan + b"\xff\xd9"
