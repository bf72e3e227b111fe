"""DICOM films to pixels: every coding and every way to say how a film is looked at; what is not taken is named."""

from __future__ import annotations

import io
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from tests.support.dicoms import dicom, jpeg, jpeg_2000, lossless_jpeg, written

from rounds.core.errors import BadImage, BadOverride
from rounds.core.specs import Limits
from rounds.imaging.decode import decode, read_header
from rounds.imaging.dicom import check_tag, marked

_RNG = np.random.default_rng(11)
_BYTES = _RNG.integers(0, 256, (24, 40)).astype(np.uint8)
_SMOOTH = np.add.outer(np.arange(24) * 5, np.arange(40) * 3).astype(np.uint8)
_RGB = _RNG.integers(0, 256, (24, 40, 3)).astype(np.uint8)
_TWELVE = _RNG.integers(0, 4096, (24, 40)).astype(np.uint16)
_WORDS = _RNG.integers(0, 65_536, (24, 40)).astype(np.uint16)
_WHOLE = {"WindowCenter": 0.5 * 65_536, "WindowWidth": 65_536, "VOILUTFunction": "LINEAR_EXACT"}
# The 4 x 4 image of ITU-T T.87, annex H.3, and its stream
_T87 = np.array([[0, 0, 90, 74], [68, 50, 43, 205], [64, 145, 145, 145], [100, 145, 145, 145]], np.uint8)
_T87_STREAM = bytes.fromhex(
    "ffd8fff7000b080004000401011100ffda0008010100000000"
    "c000006c80208e01c000005740000 06ee6000001bc18000005d800009160ffd9".replace(" ", "")
)


def _shown(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    return np.rint(255 * np.clip((values - low) / (high - low), 0, 1)).astype(np.uint8)


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless]
)
def test_uncompressed_and_run_length_films_come_out_exactly(syntax: str) -> None:
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    words = _WORDS if syntax == RLELossless else _WORDS.astype(f"{order}u2")
    np.testing.assert_array_equal(decode(dicom(words, syntax=syntax, **_WHOLE)), _shown(_WORDS, 0, 65_536))
    np.testing.assert_array_equal(decode(dicom(_BYTES, syntax=syntax)), _BYTES)
    np.testing.assert_array_equal(decode(dicom(_RGB, syntax=syntax)), _RGB)


def test_a_lossless_jpeg_of_sixteen_bits_comes_out_exactly() -> None:
    data = dicom(_WORDS, syntax=JPEGLosslessSV1, stream=lossless_jpeg(_WORDS), **_WHOLE)
    np.testing.assert_array_equal(decode(data), _shown(_WORDS, 0, 65_536))


def test_a_jpeg_2000_of_sixteen_bits_comes_out_exactly() -> None:
    data = dicom(_WORDS, syntax=JPEG2000Lossless, stream=jpeg_2000(_WORDS), **_WHOLE)
    np.testing.assert_array_equal(decode(data), _shown(_WORDS, 0, 65_536))


def test_a_jpeg_ls_comes_out_as_its_standard_says() -> None:
    np.testing.assert_array_equal(decode(dicom(_T87, syntax=JPEGLSLossless, stream=_T87_STREAM)), _T87)


def test_a_baseline_jpeg_comes_out_as_the_jpeg_does() -> None:
    stream = jpeg(_SMOOTH, quality=95)
    np.testing.assert_array_equal(decode(dicom(_SMOOTH, syntax=JPEGBaseline8Bit, stream=stream)), decode(stream))
    colours = np.stack([_SMOOTH, _SMOOTH[::-1], 255 - _SMOOTH], axis=-1)
    stream = jpeg(colours, quality=98, subsampling=0)
    data = dicom(colours, syntax=JPEGBaseline8Bit, stream=stream, PhotometricInterpretation="YBR_FULL_422")
    assert np.abs(decode(data).astype(int) - colours).max() <= 6


def test_ybr_and_planes_come_out_as_rgb() -> None:
    np.testing.assert_array_equal(
        decode(dicom(np.ascontiguousarray(_RGB.transpose(2, 0, 1)), Rows=24, Columns=40, PlanarConfiguration=1)), _RGB
    )
    gray = np.stack([_BYTES, np.full_like(_BYTES, 128), np.full_like(_BYTES, 128)], axis=-1)
    found = decode(dicom(gray, PhotometricInterpretation="YBR_FULL"))
    np.testing.assert_array_equal(found, np.repeat(_BYTES[..., None], 3, axis=2))


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_comes_out_in_its_colours(bits: int) -> None:
    codes = _RNG.integers(0, 16, (24, 40)).astype(np.uint8)
    colours = _RNG.integers(0, 256, (3, 16))
    luts: dict[str, Any] = {}
    for name, values in zip(("Red", "Green", "Blue"), colours, strict=True):
        stored = values.astype(np.uint8) if bits == 8 else (values * 257).astype("<u2")
        luts[f"{name}PaletteColorLookupTableDescriptor"] = [16, 0, bits]
        luts[f"{name}PaletteColorLookupTableData"] = stored.tobytes()
    data = dicom(codes, PhotometricInterpretation="PALETTE COLOR", **luts)
    np.testing.assert_array_equal(decode(data), colours.T[codes])


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 15, 16])
def test_the_bits_stored_and_the_sign_are_respected(bits: int) -> None:
    codes = _RNG.integers(0, 1 << bits, (24, 40))
    whole = {"WindowCenter": 1 << (bits - 1), "WindowWidth": 1 << bits, "VOILUTFunction": "LINEAR_EXACT"}
    found = decode(dicom(codes.astype(np.uint16), BitsStored=bits, **whole))
    np.testing.assert_array_equal(found, _shown(codes, 0, 1 << bits))
    signed = (codes - (1 << (bits - 1))).astype(np.int16)
    found = decode(dicom(signed, BitsStored=bits, **{**whole, "WindowCenter": 0}))
    np.testing.assert_array_equal(found, _shown(codes, 0, 1 << bits))


def test_an_overlay_in_the_upper_bits_is_not_seen() -> None:
    plain = decode(dicom(_TWELVE, BitsStored=12, WindowCenter=2048, WindowWidth=4096))
    marked_up = _TWELVE | (_RNG.integers(0, 16, _TWELVE.shape) << 12).astype(np.uint16)
    data = dicom(marked_up, BitsStored=12, WindowCenter=2048, WindowWidth=4096)
    np.testing.assert_array_equal(decode(data), plain)
    np.testing.assert_array_equal(decode(dicom(marked_up, BitsStored=12)), decode(dicom(_TWELVE, BitsStored=12)))


def test_monochrome1_is_turned_round_once() -> None:
    plain = decode(dicom(_WORDS, **_WHOLE))
    for shape in (None, "INVERSE"):
        data = dicom(_WORDS, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape=shape, **_WHOLE)
        np.testing.assert_array_equal(decode(data), 255 - plain)


def test_windows_are_those_of_the_standard() -> None:
    values = np.arange(256, dtype=np.int16).reshape(16, 16) - 128
    x = values.astype(float)
    # PS3.3, C.11.2.1.2 and C.11.2.1.3, word by word
    linear = np.where(x <= 10 - 0.5 - 99 / 2, 0, np.where(x > 10 - 0.5 + 99 / 2, 1, (x - 9.5) / 99 + 0.5))
    exact = np.where(x <= 10 - 100 / 2, 0, np.where(x > 10 + 100 / 2, 1, (x - 10) / 100 + 0.5))
    sigmoid = 1 / (1 + np.exp(-4 * (x - 10) / 100))
    for form, wanted in (("", linear), ("LINEAR", linear), ("LINEAR_EXACT", exact), ("SIGMOID", sigmoid)):
        data = dicom(values, WindowCenter=10, WindowWidth=100, VOILUTFunction=form)
        np.testing.assert_array_equal(decode(data), np.rint(255 * wanted))
    step = decode(dicom(values, WindowCenter=10, WindowWidth=1))
    np.testing.assert_array_equal(step, np.where(x > 9.5, 255, 0))


def test_the_first_of_several_windows_is_taken_in_units_of_the_rescale() -> None:
    data = dicom(
        _TWELVE, BitsStored=12, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=[1000, 5], WindowWidth=[4000, 7]
    )
    units = _TWELVE * 2.0 - 1000
    np.testing.assert_array_equal(decode(data), np.rint(255 * np.clip((units - 999.5) / 3999 + 0.5, 0, 1)))


def _lut(values: NDArray[Any], first: int, bits: int) -> Dataset:
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [len(values), first, bits])
    table.add_new("LUTData", "OW", values.astype("<u2").tobytes())
    return table


def test_a_modality_lut_and_a_voi_lut_are_looked_up_and_go_before_a_window() -> None:
    curve = np.rint(4095 * np.sqrt(np.arange(4096) / 4095)).astype(np.uint16)
    found = decode(dicom(_TWELVE, BitsStored=12, VOILUTSequence=[_lut(curve, 0, 12)], WindowCenter=1, WindowWidth=1))
    np.testing.assert_array_equal(found, _shown(curve[_TWELVE], 0, 4095))
    cut = decode(dicom(_TWELVE, BitsStored=12, VOILUTSequence=[_lut(curve[:1000], 500, 12)]))
    np.testing.assert_array_equal(cut, _shown(curve[np.clip(_TWELVE.astype(int) - 500, 0, 999)], 0, 4095))
    window = {"WindowCenter": 2048, "WindowWidth": 4096, "VOILUTFunction": "LINEAR_EXACT"}
    found = decode(dicom(_TWELVE, BitsStored=12, ModalityLUTSequence=[_lut(curve, 0, 12)], **window))
    np.testing.assert_array_equal(found, _shown(curve[_TWELVE], 0, 4096))


def test_without_a_window_more_than_8_bits_are_shown_by_the_range_that_occurs() -> None:
    values = _RNG.integers(300, 900, (24, 40)).astype(np.uint16)
    values[0, :2] = 300, 899
    np.testing.assert_array_equal(decode(dicom(values, BitsStored=12)), _shown(values, 300, 899))
    np.testing.assert_array_equal(decode(dicom(values, BitsStored=12, RescaleSlope=-1)), 255 - _shown(values, 300, 899))
    assert not decode(dicom(np.full_like(values, 7))).any()
    faint = (_BYTES // 8 + 100).astype(np.uint8)
    np.testing.assert_array_equal(decode(dicom(faint)), faint)


def test_padding_is_black_and_not_part_of_the_range() -> None:
    values = _RNG.integers(300, 900, (24, 40)).astype(np.int16)
    values[0, :2] = 300, 899
    inner = _shown(values, 300, 899)[:, 5:]
    values[:, :5] = -2000
    for photometric, wanted in (("MONOCHROME2", inner), ("MONOCHROME1", 255 - inner)):
        found = decode(dicom(values, PixelPaddingValue=-2000, PhotometricInterpretation=photometric))
        np.testing.assert_array_equal(found[:, 5:][1:], wanted[1:])
        assert not found[:, :5].any()


def test_overlay_planes_are_never_drawn() -> None:
    film = dcmread(io.BytesIO(dicom(_BYTES)))
    for number, kind, value in ((0x10, "US", 24), (0x11, "US", 40), (0x40, "CS", "G"), (0x50, "SS", [1, 1])):
        film.add_new(0x60000000 + number, kind, value)
    film.add_new(0x60003000, "OW", b"\xff" * 120)
    np.testing.assert_array_equal(decode(written(film)), _BYTES)


def test_a_file_without_preamble_or_meta_is_completed() -> None:
    whole = dicom(_BYTES)
    np.testing.assert_array_equal(decode(marked(whole[132:])), _BYTES)
    bare = whole[whole.index(b"\x08\0\x16\0UI") :]
    np.testing.assert_array_equal(decode(marked(bare)), _BYTES)
    implicit = dicom(_BYTES, syntax=ImplicitVRLittleEndian)
    np.testing.assert_array_equal(decode(marked(implicit[implicit.index(b"\x08\0\x16\0\x1a\0\0\0") :])), _BYTES)
    with pytest.raises(BadImage, match="not a DICOM file"):
        marked(b"patient,label\n")


def test_two_transfer_syntaxes_in_one_file_are_refused() -> None:
    status, said = _refusal(dicom(_BYTES).replace(b"1.2.840.10008.1.2.1", rb"1.2.840.10008\1.2.1", 1))
    assert (status, said.split(";")[0]) == (400, "the DICOM cannot be decoded")


def _refusal(data: bytes, limits: Limits | None = None) -> tuple[int, str]:
    with pytest.raises(BadImage) as caught:
        decode(data, limits or Limits())
    fault = caught.value.faults[0]
    return caught.value.http_status, f"{fault.what}; {fault.got}"


_REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "several frames": (
        {"NumberOfFrames": 7},
        415,
        "an image with several frames is not taken; a DICOM file of 7 frames",
    ),
    "no image": (
        {"Rows": None},
        415,
        "a DICOM file without an image is not taken; a DICOM file without rows, columns or bits",
    ),
    "12 bits packed": (
        {"BitsAllocated": 12, "BitsStored": 12},
        415,
        "these DICOM bits are not taken; a DICOM file of 12 bits in 12, the highest 11",
    ),
    "left-justified": (
        {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 15},
        415,
        "these DICOM bits are not taken; a DICOM file of 12 bits in 16, the highest 15",
    ),
    "hue": (
        {"PhotometricInterpretation": "HSV"},
        415,
        "these DICOM colours are not taken; a DICOM file of 1 samples as HSV",
    ),
    "video": (
        {"syntax": MPEG2MPML, "stream": b"x" * 10},
        415,
        "this DICOM coding is not taken; a DICOM file of MPEG2 Main Profile / Main Level",
    ),
    "too few pixels": ({"PixelData": b"x" * 10}, 400, "the DICOM cannot be decoded; a header that says 40 x 24 pixels"),
    "no pixels": ({"PixelData": b""}, 400, "the DICOM has no pixels; a header that says 40 x 24 pixels"),
    "no rows": ({"Rows": 0}, 400, "the DICOM has no pixels; a header that says 40 x 0 pixels"),
    "other stream": (
        {"syntax": JPEGBaseline8Bit, "stream": jpeg(_SMOOTH[:8])},
        400,
        "the DICOM holds a stream of other dimensions; a header that says 40 x 24 pixels",
    ),
    "huge": (
        {"Rows": 50_000, "Columns": 50_000},
        413,
        "the image is too large; 50,000 x 50,000 = 2,500,000,000 pixels",
    ),
}


@pytest.mark.parametrize("name", _REFUSED)
def test_what_is_not_taken_is_refused_by_name(name: str) -> None:
    elements, status, told = _REFUSED[name]
    assert _refusal(dicom(_BYTES, **elements)) == (status, told)


def test_a_stream_that_unpacks_to_more_than_the_header_says_is_refused_without_allocating() -> None:
    huge = bytearray(jpeg_2000(_WORDS))
    huge[8:16] = (50_000).to_bytes(4, "big") * 2
    deflated = dicom(np.zeros((4000, 4000), np.uint8), syntax=DeflatedExplicitVRLittleEndian)
    assert len(deflated) < 100_000
    tracemalloc.start()
    streams = _refusal(dicom(_WORDS, syntax=JPEG2000Lossless, stream=bytes(huge)))
    bomb = _refusal(deflated, Limits(max_bytes=200_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert streams == (400, "the DICOM holds a stream of other dimensions; a header that says 40 x 24 pixels")
    assert bomb == (413, "the file is too large; more when it is inflated")
    assert peak < 3_000_000


def test_the_header_says_the_size_without_the_pixels() -> None:
    header = read_header(dicom(_WORDS))
    assert (header.format, header.size, header.channels) == ("DICOM", (40, 24), 1)


def test_an_element_that_does_not_exist_is_named_with_the_nearest() -> None:
    check_tag("BodyPartExamined")
    check_tag("(0011,1001)")
    check_tag("(0011,ACME 1.0,01)")
    check_tag("RequestAttributesSequence.ScheduledProcedureStepDescription")
    with pytest.raises(BadOverride, match=r"BodyPartExamin: no such DICOM element.*mean BodyPartExamined"):
        check_tag("BodyPartExamin")


def test_real_films_come_out_as_a_radiologist_expects(datasets: Path) -> None:
    films = sorted((datasets / "dicom").glob("*.dcm"))
    assert len(films) == 2
    for path in films:
        found = decode(path.read_bytes())
        high, wide = found.shape
        lungs = found[high // 3 : high // 2, [*range(wide // 4, wide // 3), *range(2 * wide // 3, 3 * wide // 4)]]
        spine = found[high // 2 : 3 * high // 4, int(0.47 * wide) : int(0.53 * wide)]
        # air is dark and bone bright, in the film stored white on black and in that stored black on white
        assert lungs.mean() + 30 < spine.mean()


def test_without_the_packages_a_film_is_refused_with_what_to_install() -> None:
    code = (
        "import sys; sys.modules['pydicom'] = None\n"
        "from rounds.imaging.decode import decode\n"
        "try:\n    decode(bytes(128) + b'DICM' + bytes(8))\n"
        "except Exception as error:\n    print(error.http_status, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "415 the image is not taken\n  DICOM needs a package that is not installed; expected a PNG, JPEG, TIFF or "
        "DICOM image of at most 16 bits a channel; got a DICOM file. Pip install 'rounds[dicom]'\n"
    )


def test_the_readers_are_imported_only_for_a_dicom_film() -> None:
    code = (
        "import sys\nfrom rounds.imaging.decode import decode\nfrom rounds.imaging.films import stored_png\n"
        "import numpy as np\ndecode(stored_png(np.zeros((4, 4), np.uint8)))\n"
        "print([name for name in sys.modules if name.startswith(('pydicom', 'pylibjpeg'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_damaged_films_give_pixels_or_a_named_refusal() -> None:
    whole = [
        dicom(_WORDS),
        dicom(_RGB),
        dicom(_WORDS, syntax=ImplicitVRLittleEndian),
        dicom(_WORDS, syntax=DeflatedExplicitVRLittleEndian),
        dicom(_WORDS, syntax=RLELossless),
        dicom(_WORDS, syntax=JPEGLosslessSV1, stream=lossless_jpeg(_WORDS)),
        dicom(_SMOOTH, syntax=JPEGBaseline8Bit, stream=jpeg(_SMOOTH)),
        dicom(_WORDS, syntax=JPEG2000Lossless, stream=jpeg_2000(_WORDS)),
        dicom(_T87, syntax=JPEGLSLossless, stream=_T87_STREAM),
    ]
    rng = random.Random(5)
    refused = 0
    for data in (rng.choice(whole) for _ in range(400)):
        broken = bytearray(data)
        for _ in range(rng.randint(1, 5)):
            broken[rng.randrange(132, len(broken))] = rng.choice([0, 1, 255, rng.randrange(256)])
        cut = len(broken) if rng.random() < 0.8 else rng.randrange(len(broken))
        refusal = None
        try:
            assert decode(bytes(broken[:cut]), Limits(max_pixels=100_000)).dtype == np.uint8
        except BadImage as error:
            refusal = error
            refused += 1
        assert refusal is None or (refusal.faults and refusal.http_status in (400, 413, 415))
    assert 0 < refused < 400
