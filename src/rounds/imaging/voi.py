"""From the stored values of a DICOM film to grays: modality, values of interest, padding, inversion (PS3.3, C.11)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rounds.imaging.header import AT_ONCE, Pixels, looked_up, to_eight_bits

if TYPE_CHECKING:
    from pydicom import FileDataset


def shown(samples: NDArray[Any], film: FileDataset) -> Pixels:
    """Gray samples through a table of all stored values: uint8 (h, w), 0 black; bits above those stored are nothing."""
    stored = int(film.BitsStored)
    codes = np.bitwise_and(samples.view(f"u{samples.itemsize}"), (1 << stored) - 1)
    values = np.arange(1 << stored, dtype=np.int64)
    if film.get("PixelRepresentation") == 1:
        values[1 << (stored - 1) :] -= 1 << stored
    padding = _padding(values, film)
    units = _modality(values, film)
    seen = _voi(units, film)
    if seen is None:
        occurring = np.ones(len(values), np.bool_)
        if stored > 8:
            occurring = _occurring(codes, len(values)) & ~padding
        seen = _stretched(units, units[occurring])
    table = np.rint(255 * np.clip(seen, 0.0, 1.0)).astype(np.uint8)
    if film.PhotometricInterpretation == "MONOCHROME1":
        # PresentationLUTShape INVERSE says the same once more, and is not a second inversion (PS3.3, C.11.6).
        table = 255 - table
    table[padding] = 0
    return looked_up(table, codes)


def _occurring(codes: NDArray[Any], size: int) -> NDArray[np.bool_]:
    """Which of the codes 0..size-1 there are."""
    found, flat = np.zeros(size, np.bool_), codes.reshape(-1)
    for at in range(0, len(flat), AT_ONCE):
        found |= np.bincount(flat[at : at + AT_ONCE], minlength=size).astype(np.bool_)
    return found


def _padding(values: NDArray[np.int64], film: FileDataset) -> NDArray[np.bool_]:
    """Which stored values are padding, not film (PS3.3, C.7.5.1.1.2)."""
    first = film.get("PixelPaddingValue")
    if not isinstance(first, int):
        return np.zeros(len(values), np.bool_)
    last = film.get("PixelPaddingRangeLimit")
    low, high = sorted((first, last if isinstance(last, int) else first))
    return (values >= low) & (values <= high)


def _modality(values: NDArray[np.int64], film: FileDataset) -> NDArray[np.float64]:
    """Stored values in the scanner's units (PS3.3, C.11.1)."""
    tables = film.get("ModalityLUTSequence")
    if tables:
        return _mapped(values.astype(np.float64), tables[0])[0]
    slope, intercept = film.get("RescaleSlope"), film.get("RescaleIntercept")
    return values.astype(np.float64) * float(1 if slope is None else slope) + float(intercept or 0)


def _voi(units: NDArray[np.float64], film: FileDataset) -> NDArray[np.float64] | None:
    """Units as shown, 0..1, or None where the file has no values of interest (PS3.3, C.11.2)."""
    tables = film.get("VOILUTSequence")
    if tables:
        values, top = _mapped(units, tables[0])
        return values / top
    center, width = _first(film.get("WindowCenter")), _first(film.get("WindowWidth"))
    if center is None or width is None or width <= 0:
        return None
    form = str(film.get("VOILUTFunction") or "LINEAR")
    if form == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (units - center) / width, -700, 700))))
    if form == "LINEAR_EXACT":
        return (units - center) / width + 0.5
    return (units - (center - 0.5)) / max(width - 1, 1e-6) + 0.5


def _first(value: Any) -> float | None:
    """The first of one or several numbers: films that bring several windows name the usual one first."""
    if value is None or value == "":
        return None
    found = float(value[0] if not isinstance(value, str | float | int) and hasattr(value, "__len__") else value)
    return found if np.isfinite(found) else None


def _mapped(values: NDArray[np.float64], table: Any) -> tuple[NDArray[np.float64], float]:
    """Values through a LUT, and the largest that it can give (PS3.3, C.11.1.1)."""
    entries, first, bits = (int(number) for number in table.LUTDescriptor)
    entries = entries or 65_536
    data = table.LUTData
    if isinstance(data, bytes):
        data = np.frombuffer(data, np.uint8 if len(data) == entries else np.dtype("<u2"))
    lut = np.asarray(data, dtype=np.float64)[:entries]
    # Some files declare fewer bits than their entries have.
    top = float((1 << max(bits, int(lut.max()).bit_length(), 1)) - 1)
    return lut[np.clip(np.rint(values) - first, 0, len(lut) - 1).astype(np.int64)], top


def _stretched(units: NDArray[np.float64], occurring: NDArray[np.float64]) -> NDArray[np.float64]:
    """Units by the range of those that occur; a film of one gray is black."""
    low, high = (occurring.min(), occurring.max()) if len(occurring) else (0.0, 0.0)
    return np.asarray((units - low) / (high - low) if high > low else np.zeros_like(units))


def coloured(samples: NDArray[Any], film: FileDataset) -> Pixels:
    """Indices through the three palettes."""
    apply = importlib.import_module("pydicom.pixels").apply_color_lut
    colours = np.asarray(apply(samples, film))
    if colours.dtype == np.uint8 or colours.max(initial=0) < 256:
        return np.ascontiguousarray(colours, dtype=np.uint8)
    return to_eight_bits(colours.astype(np.uint16), 65_535)
